"""What a compliance record is of: the explanations and the audit of a ledger, and the commands that would add to it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.data.tags import DICOM_SUFFIXES
from seewhy.ledger import Record

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """One decision, several, or a data set, with the whole ledger that it is read from."""

    kind: str  # decision, decisions, data set
    folder: str
    records: Sequence[Record]  # of the whole ledger, in order
    explanations: Sequence[
        Record
    ]  # of a decision the one that was asked for comes first, then other methods of the same
    run: Content | None = None  # the audit's last "run"
    verdict: Content | None = None  # and its last "verdict"

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contents of every record of a kind."""
        return [one.content for one in self.records if one.kind == kind]

    @property
    def model_sha256(self) -> str:
        """The fingerprint of the model that this is about."""
        about = self.run if self.run is not None else self.explanations[0].content
        return str(about["model_sha256"])

    @property
    def methods(self) -> list[str]:
        """The methods that explained, in order."""
        return list(dict.fromkeys(one.content["method"] for one in self.explanations))

    @property
    def modalities(self) -> set[str]:
        """What kind of recording the images are, where that was given or their names say it: DICOM, CT, ..."""
        given = {str(one.content["modality"]) for one in self.explanations if one.content.get("modality")}
        names = [one.content["image"] for one in self.explanations] + [one["path"] for one in self.of("prediction")]
        dicom = any(name.lower().endswith(DICOM_SUFFIXES) for name in names)
        return given | ({"DICOM"} if dicom and not given else set())

    @property
    def run_folder(self) -> str:
        """The folder as it stands in a command."""
        return shlex.quote(self.folder)

    @property
    def option(self) -> str:
        """What names this decision on the command line."""
        return f" --decision {self.explanations[0].number}" if self.kind == "decision" else ""

    @property
    def images(self) -> str:
        """The image of a decision as it stands in a command; of several, a word in capitals."""
        if self.kind != "decision":
            return "IMAGES"
        content = self.explanations[0].content
        return shlex.quote(content["image"]) if content["image_sha256"] else "IMAGE"

    def explain(self, method: str, more: str = "") -> str:
        """The command that adds maps of a method to this ledger."""
        return f"seewhy explain {self.images} --model MODEL --method {method} {more} --out {self.run_folder}".replace(
            "  ", " "
        )

    def check(self, method: str, *only: str) -> str:
        """The command that adds checks of a method to this ledger."""
        chosen = "".join(f" --only {name}" for name in only)
        return f"seewhy check IMAGES --model MODEL --method {method}{chosen} --out {self.run_folder}"


def missing(what: str, said: str, command: str) -> dict[str, str]:
    """What the ledger does not hold, and the command that makes it."""
    return {"what": what, "said": said.removesuffix("."), "command": command}

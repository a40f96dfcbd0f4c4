"""What is not as a record says: model, image, question, code and machine, told by hashes and names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seewhy import runfolder
from seewhy.explanation import Explanation, network_of, sha256, versions
from seewhy.explanation.inputs import Shown
from seewhy.model import VisionModel

ASKED = ("mean", "std", "task", "precision")  # of the network: with another one of these another question is answered


@dataclass(frozen=True)
class Change:
    """Something that is not as it was recorded."""

    what: str
    then: str
    now: str
    decides: bool  # another model, picture or question: whatever the map, this is no replay of the record

    def __str__(self) -> str:
        return f"{self.what}: {self.then} then, {self.now} now"


def model_changes(said: Mapping[str, Any], network: VisionModel) -> list[Change]:
    """The network, and how it wants its pixels."""
    then, now = said.get("network") or {}, network_of(network)
    then = {**then, "task": said["task"], "precision": said["precision"]}
    now |= {"task": network.task, "precision": network.precision}
    found = [("model (architecture and every tensor)", said["model_sha256"], network.fingerprint(), True)]
    found += [(name, then[name], now[name], name in ASKED) for name in now if name != "loaded" and name in then]
    return _different(found)


def image_changes(said: Mapping[str, Any], x: Tensor, shown: Shown) -> list[Change]:
    """The image's bytes, and what the model is shown of it."""
    found = [("pixels that the model is shown", said["pixels_sha256"], sha256(x[0]), True)]
    if shown.sha256 and said["image_sha256"]:
        found.insert(0, ("image file", said["image_sha256"], shown.sha256, False))
    return _different(found)


def question_changes(said: Mapping[str, Any], e: Explanation) -> list[Change]:
    """The target, the parameters and the layer, as they were understood."""
    asked, now = said["target"], e.targets[0]
    words = ("text", "label", "other_label", "confidence", "box")
    found = [(f"target {name}", asked[name], now.get(name), True) for name in asked if name not in words]
    parameters = runfolder.plain(e.parameters)
    names = sorted({*said["parameters"], *parameters} - {"layer"})
    found += [(f"parameter {name}", said["parameters"].get(name), parameters.get(name), True) for name in names]
    return _different([*found, ("layer", said["layer"], e.layer, True)])


def code_changes(said: Mapping[str, Any]) -> list[Change]:
    """The versions of seewhy, torch and the rest."""
    then, now = said["versions"], versions()
    return _different([(f"version of {name}", then.get(name), now.get(name), False) for name in {**then, **now}])


def machine_changes(said: Mapping[str, Any], e: Explanation) -> list[Change]:
    """What computes, as far as it can change the last digits."""
    return _different([(name, then, e.provenance.get(name), False) for name, then in said["machine"].items()])


def _different(pairs: Sequence[tuple[str, Any, Any, bool]]) -> list[Change]:
    return [Change(what, _short(then), _short(now), decides) for what, then, now, decides in pairs if then != now]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text  # a hash


def reasons(said: Mapping[str, Any], e: Explanation, changed: Sequence[Change]) -> list[str]:
    """Why the last digits of the same map can be others here: a sentence each."""
    found = [f"another {change.what}" for change in changed if change.what in said["machine"]]
    found += [f"another {change.what}" for change in changed if change.what.startswith("version of ")]
    if (said.get("rows") or 1) > 1:
        found.append(f"it was computed beside {said['rows'] - 1} other(s), which are not here")
    if not str(e.provenance["device"]).startswith("cpu"):
        found.append(f"{e.provenance['device']} adds in no fixed order")
    return found

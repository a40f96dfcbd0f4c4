"""One explained row as the ledger keeps it: enough to check it years later, and to compute it again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seewhy import runfolder
from seewhy.errors import UsageError
from seewhy.explanation import VERSIONED, Explanation
from seewhy.identity import identity

CHOSEN = (
    "baseline",
    "baseline_reason",
    "fill",
    "rule",
)  # parameters that are evidence: what a map was measured against
MACHINE = ("device", "accelerator", "cpu", "instruction_set", "threads", "batch_size", "memory_format")
ABOUT = (
    "model",
    "weights",
    "task",
    "seed",
    "bounds_known",
    "model_sha256",
    "machine",
    *MACHINE,
)  # the rest are versions


def explanation_key(
    image: str, model: str, method: str, parameters: Mapping[str, Any], target: Any = None, seed: int = 0
) -> str:
    """What tells one explanation from another, known before any work: the key of its record.

    image, model: hashes; parameters, target: as they are given to explain(), tensors and functions count by their content.
    """
    return identity([image, model, method, parameters, target, seed])


def explanation_record(
    explanation: Explanation,
    i: int = 0,
    *,
    map_file: str | None = None,
    root: str | Path | None = None,
    model_version: str | None = None,
    checks: Sequence[str] = (),
) -> dict[str, Any]:
    """Row i of an explanation as the content of an "explanation" record; CONTENTS says what each field holds.

    map_file: name of the raw map, as ledger.keep gave it. root: the data root, which paths become relative to.
    model_version: the user's own name of it. checks: keys of the check records of this method on this model. The model is
    hashed here, once for its weights, and not while a map is timed. UsageError where its weights have changed since, where
    the image lies outside the root, and for a row that there is not.
    """
    if not 0 <= i < len(explanation):
        raise UsageError(f"row {i}: this explanation has {len(explanation)} row(s), counted from 0.")
    row = explanation.record(i)
    provenance, image = row["provenance"], row["image"]
    if provenance["model_sha256"].startswith("unknown"):
        raise UsageError(
            f"the record of {image['name']} would name no model ({provenance['model_sha256']}): write it before the weights "
            "change, or explain it again."
        )
    chosen = {name: row["parameters"][name] for name in CHOSEN if name in row["parameters"]}
    content = {
        "image": _relative(image["name"], root),
        "image_sha256": image["sha256"],
        **{name: image[name] for name in ("pixels_sha256", "shape", "geometry", "notes")},
        **{name: provenance[name] for name in ("model", "model_sha256", "weights", "task", "seed")},
        "model_version": model_version,
        **{name: row[name] for name in ("method", "parameters", "target", "score", "predictions", "layer", "grid")},
        "status": row["status"],
        "map": {**row["map"], "file": map_file},
        "evidence": {**chosen, **row["evidence"]},
        "validity": row["validity"],
        "checks": list(checks),
        "precision": row["validity"]["precision"],
        "seconds": row["seconds_of_the_call"],
        "machine": {name: provenance.get(name) for name in MACHINE},  # a folder of an older seewhy knows fewer
        "versions": {name: provenance[name] for name in VERSIONED if name in provenance},
    }
    found: dict[str, Any] = runfolder.plain(content)
    return found


def _relative(name: str, root: str | Path | None) -> str:
    """A path relative to the data root, with forward slashes; what is no absolute path is taken as it stands."""
    if root is None or not Path(name).is_absolute():
        return name
    try:
        return Path(name).resolve().relative_to(Path(root).resolve()).as_posix()
    except ValueError:
        raise UsageError(f"{name} does not lie in the data root {root}: give the folder that holds it.") from None

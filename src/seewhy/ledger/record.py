"""One explained row as the ledger keeps it: enough to check it years later, and to compute it again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seewhy import runfolder
from seewhy.errors import UsageError
from seewhy.explanation import VERSIONED, Explanation
from seewhy.identity import identity
from seewhy.ledger.store import open_ledger

CHOSEN = (
    "baseline",
    "baseline_reason",
    "fill",
    "rule",
)  # parameters that are evidence: what a map was measured against
MACHINE = ("device", "accelerator", "cpu", "instruction_set", "threads", "batch_size", "memory_format")
DIGITS = 16  # of the hash that tells the answers to one question apart


def record_explanation(
    folder: Path,
    explanation: Explanation,
    rows: Sequence[Mapping[str, Any]],
    root: str | Path | None = None,
    checks: Sequence[str] = (),
) -> list[str]:
    """Append an explanation's rows to the ledger of a run folder that holds their files; the keys of their records.

    rows: as runfolder.append wrote them. The same question with the same map, bit by bit, is one record; where the map has
    become another one (a new version, another machine) the record is a second one. root: None is the folder that holds all
    these images.
    """
    names = [str(row["image"]["name"]) for row in rows]
    root = common_folder(names) if root is None else root
    found = []
    for i, row in enumerate(rows):
        content = explanation_record(explanation, i, map_file=row["map"]["file"], root=root, checks=checks)
        content["shown"] = {"picture": row["image"]["file"], "array": row["image"]["array"]}
        answer = [content["map"]["sha256"], content["model_version"], content["precision"], content["image"]]
        found.append((f"{row['id']}-{identity(answer)[:DIGITS]}", content))
    with open_ledger(folder) as ledger:
        return [record.key for record in ledger.append_all("explanation", found)]


def record_check(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a row of a trust card, as checks.jsonl holds it, to the ledger of its run folder."""
    about = row["card"]
    content = {"method": about["method"], "model_sha256": about["model_sha256"], **row}
    with open_ledger(folder) as ledger:
        ledger.append("check", str(row["id"]), runfolder.plain(content))


def common_folder(names: Sequence[str]) -> Path | None:
    """The folder that holds all those of some paths that are absolute; None where there is none."""
    folders = [str(Path(name).parent) for name in names if Path(name).is_absolute()]
    return Path(os.path.commonpath(folders)) if folders else None


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
        "image": relative_path(image["name"], root),
        "image_sha256": image["sha256"],
        **{name: image[name] for name in ("pixels_sha256", "shape", "geometry", "notes")},
        "modality": image.get("modality"),
        "read_as": image.get("read_as") or None,
        **{name: provenance[name] for name in ("model", "model_sha256", "weights", "task", "seed")},
        "model_version": provenance.get("model_version") if model_version is None else model_version,
        "network": provenance.get("network"),
        **{name: row[name] for name in ("method", "parameters", "target", "score", "predictions", "layer", "grid")},
        "status": row["status"],
        "map": {**row["map"], "file": map_file},
        "shown": {"picture": None, "array": None},
        "evidence": {**chosen, **row["evidence"]},
        "validity": row["validity"],
        "checks": list(checks),
        "precision": row["validity"]["precision"],
        "seconds": row["seconds_of_the_call"],
        "rows": provenance.get("rows"),
        "machine": {name: provenance.get(name) for name in MACHINE},  # a folder of an older seewhy knows fewer
        "versions": {name: provenance[name] for name in VERSIONED if name in provenance},
    }
    found: dict[str, Any] = runfolder.plain(content)
    return found


def relative_path(name: str, root: str | Path | None) -> str:
    """A path relative to the data root, with forward slashes; what is no absolute path is taken as it stands."""
    if root is None or not Path(name).is_absolute():
        return name
    for path, folder in ((Path(name), Path(root)), (Path(name).resolve(), Path(root).resolve())):  # links as they stand
        if path.is_relative_to(folder) and ".." not in path.parts:
            return path.relative_to(folder).as_posix()
    raise UsageError(f"{name} does not lie in the data root {root}: give the folder that holds it.")

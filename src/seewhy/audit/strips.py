"""Pictures of what an experiment did: the image, the image without what was found, the image with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.audit.candidate import Candidate
from seewhy.audit.confirm import Trial
from seewhy.audit.examined import Examined
from seewhy.audit.findings import in_photo
from seewhy.audit.output import write_finding
from seewhy.audit.stream import thumbnails
from seewhy.data.dataset import DataSet
from seewhy.data.geometry import Geometry
from seewhy.ledger import Ledger
from seewhy.model import VisionModel
from seewhy.target import probabilities

EACH = 4  # images of either kind a finding


def keep_strips(
    model: VisionModel,
    report: dict[str, Any],
    trial_of: Mapping[str, Trial],
    names: Sequence[str],
    paths: Sequence[str],
    ledger: Ledger,
    *,
    pictures: bool,
) -> None:
    """Pictures and scores of a few images per finding, kept and recorded: removed where it is, pasted where it is not.

    trial_of: the trial behind each finding, by its id.
    """
    for found in report["findings"]:
        trial = trial_of[found["id"]]
        if trial.why_untested:
            continue
        k = names.index(found["effect"][0]["output"])
        fill = next(iter(trial.candidate.remove.values()))
        for what, index, edit in (("removed", trial.marked, fill), ("pasted", trial.plain, trial.candidate.paste)):
            some = index[:EACH]
            if len(some):
                before = trial.held.pixels(some)
                _keep(
                    model, trial, ledger, pictures, found["id"], what, some, before, edit(before, some), k, names, paths
                )


def _keep(
    model: VisionModel,
    trial: Trial,
    ledger: Ledger,
    with_pictures: bool,
    finding: str,
    what: str,
    index: Tensor,
    before: Tensor,
    after: Tensor,
    k: int,
    names: Sequence[str],
    paths: Sequence[str],
) -> None:
    said = [_said(model, trial.held.say(x), k) for x in (before, after)]
    pictures = [list(thumbnails(x)) for x in (before, after)]
    unit = "probability" if probabilities(trial.held.clean[:1].float(), model.task) is not None else "score"
    for row, i in enumerate(index.tolist()):
        kept = {}
        if with_pictures:
            kept = {"before": ledger.keep_picture(pictures[0][row]), what: ledger.keep_picture(pictures[1][row])}
        content = {
            "finding": finding,
            "path": paths[i],
            "pictures": kept,
            "said": {"before": float(said[0][row]), what: float(said[1][row])},
            "output": names[k],
            "unit": unit,
        }
        ledger.append("strip", f"{finding} {what} {paths[i]}", content)


def _said(model: VisionModel, table: Tensor, k: int) -> Tensor:
    p = probabilities(table.float(), model.task)
    return table[:, k] if p is None else p[:, min(k, p.shape[1] - 1)].to(torch.float64)


def write_findings(
    folder: Path,
    report: dict[str, Any],
    trial_of: Mapping[str, Trial],
    data: DataSet,
    examined: Examined,
    *,
    pictures: bool,
) -> None:
    """findings/<id>/ of every confirmed finding: the images that show it, where it lies in each, what the model said."""
    for found in report["findings"]:
        if found["status"] != "confirmed":
            continue
        candidate = trial_of[found["id"]].candidate
        shown = candidate.shows.nonzero().flatten().tolist()
        samples = [data.samples[examined.rows[i].index] for i in shown]
        boxes = [_boxes(candidate, i, examined.held.images.shape[2:], examined.shown[i].geometry) for i in shown]
        scores = [
            {name: examined.rows[i].content[name] for name in ("label", "predicted", "score", "probability")}
            for i in shown
        ]
        write_finding(folder, found, samples, boxes, scores, pictures=pictures)


def _boxes(
    candidate: Candidate, i: int, size: Sequence[int], geometry: Geometry | None
) -> list[tuple[float, float, float, float]]:
    """Where a candidate lies in image i, in fractions of the upright photo; none where it has no place."""
    if candidate.boxes is not None:
        top, left, bottom, right = candidate.boxes[i].tolist()
    elif candidate.where is not None:
        top, left, bottom, right = candidate.where
    else:
        return []
    return [in_photo((top, left, bottom, right), (size[0], size[1]), geometry)]

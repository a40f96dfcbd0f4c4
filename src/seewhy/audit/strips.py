"""Pictures of what an experiment did: the image, the image without what was found, the image with it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.audit.confirm import Trial, outputs
from seewhy.audit.findings import finding_of
from seewhy.audit.stream import thumbnails
from seewhy.ledger import Ledger
from seewhy.model import VisionModel
from seewhy.target import probabilities

EACH = 4  # images of either kind a finding


def keep_strips(
    model: VisionModel,
    trials: Sequence[Trial],
    report: dict[str, Any],
    names: Sequence[str],
    paths: Sequence[str],
    ledger: Ledger,
) -> None:
    """Pictures and scores of a few images per finding, kept and recorded: removed where it is, pasted where it is not."""
    wanted = {one["id"]: one for one in report["findings"] if one["effect"]}
    for trial in trials:
        found = wanted.get(finding_of(model, trial, names, paths)["id"])
        if found is None or trial.why_untested:
            continue
        k = names.index(found["effect"][0]["output"])
        fill = next(iter(trial.candidate.remove.values()))
        for what, index, edit in (("removed", trial.marked, fill), ("pasted", trial.plain, trial.candidate.paste)):
            some = index[:EACH]
            if len(some):
                before = trial.held.pixels(some)
                _keep(model, ledger, found["id"], what, some, before, edit(before, some), k, names, paths)


def _keep(
    model: VisionModel,
    ledger: Ledger,
    finding: str,
    what: str,
    index: Tensor,
    before: Tensor,
    after: Tensor,
    k: int,
    names: Sequence[str],
    paths: Sequence[str],
) -> None:
    said = [_said(model, x, k) for x in (before, after)]
    pictures = [list(thumbnails(x)) for x in (before, after)]
    unit = "probability" if probabilities(outputs(model, before[:1]).float(), model.task) is not None else "score"
    for row, i in enumerate(index.tolist()):
        content = {
            "finding": finding,
            "path": paths[i],
            "pictures": {"before": ledger.keep_picture(pictures[0][row]), what: ledger.keep_picture(pictures[1][row])},
            "said": {"before": float(said[0][row]), what: float(said[1][row])},
            "output": names[k],
            "unit": unit,
        }
        ledger.append("strip", f"{finding} {what} {paths[i]}", content)


def _said(model: VisionModel, x: Tensor, k: int) -> Tensor:
    table = outputs(model, x)
    p = probabilities(table.float(), model.task)
    return table[:, k] if p is None else p[:, min(k, p.shape[1] - 1)].to(torch.float64)

"""How coarse is the map: how many pixels one of its cells covers, and whether the objects are larger than that."""

import math
from typing import Any

import torch
from torch import Tensor

from seewhy.checks.objects import read_annotations
from seewhy.checks.result import CheckResult, Score, Verdict, check, score
from seewhy.intervals import Interval
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.target import Target


@check(
    title="Resolution",
    question="how many pixels does one cell of the map cover, and are the objects larger?",
    cost="one map an image",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, section 3 (the grid of the last convolution)",
)
def resolution(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    boxes: Any = None,
    masks: Any = None,
) -> CheckResult:
    """How many pixels of the input one cell of the map covers, and how large the marked objects are in cells.

    cell = input size / grid along each axis, in pixels; boxes and masks as `localization` takes them. Size of an object:
    its shorter side in cells, min(height / cell height, width / cell width); a mask's objects are its connected parts.
    Verdict, only where objects are given: an object smaller than one cell cannot be outlined. PASS where all are at least
    one cell along both axes, FAIL where none is, else unclear. The share of at least 2 x 2 cells stands beside it. A map
    on the input's pixels can still be smooth: what a method blurs (masks, patches, segments) is not known here.
    UsageError for boxes or masks that do not fit.
    """
    objects = None if boxes is None and masks is None else read_annotations(boxes, masks, None, images.shape)[0]
    grid = maps(model, images, target).raw.shape[1:]
    cell = [length / cells for length, cells in zip(images.shape[2:], grid, strict=True)]
    shown = " x ".join(f"{length:g}" for length in cell)
    of_cell = _of_the_map("pixels_per_cell", math.prod(cell), "pixels of the input per cell")
    details: dict[str, Any] = {"grid": list(grid), "input": list(images.shape[2:]), "cell": cell}
    sentence = f"One cell of the map covers {shown} pixels (a grid of {' x '.join(map(str, grid))})"
    if objects is None:
        return CheckResult("resolution", (of_cell,), Verdict.NONE, f"{sentence}.", details=details)
    sides = [(box[:, [3, 2]] - box[:, [1, 0]]) / torch.tensor(cell, dtype=torch.float64) for box in objects.boxes]
    sizes = [side.amin(1) for side in sides]
    every = torch.cat(sizes)
    large = int((every >= 1).sum())
    scores = (
        of_cell,
        score("object_size", _means(sizes), "higher", "cells along the shorter side, mean of an image's objects"),
        score("at_least_one_cell", _means([(s >= 1).double() for s in sizes]), "higher", "share of an image's objects"),
        score(
            "at_least_two_cells", _means([(s >= 2).double() for s in sizes]), "higher", "share of an image's objects"
        ),
    )
    if not len(every):
        return CheckResult("resolution", scores, Verdict.NONE, f"{sentence}; no object is marked.", details=details)
    sentence += f"; {large} of {len(every)} marked objects are at least that large, {int((every >= 2).sum())} twice."
    verdict = Verdict.PASS if large == len(every) else Verdict.UNCLEAR if large else Verdict.FAIL
    low, median, high = (float(every.quantile(share)) for share in (0, 0.5, 1))
    details["objects"] = {"n": len(every), "smallest": low, "median": median, "largest": high}
    excluded = {i: "no object is marked" for i, size in enumerate(sizes) if not len(size)}
    return CheckResult("resolution", scores, verdict, sentence, excluded=excluded, details=details)


def _means(values: list[Tensor]) -> Tensor:
    return torch.stack([one.double().mean() if len(one) else torch.tensor(math.nan).double() for one in values])


def _of_the_map(name: str, value: float, unit: str) -> Score:
    """A number of the map, without a value per image."""
    return Score(name, Interval(value, math.nan, math.nan, 1, 1), (), "lower", unit)

"""How well the order and the mass of a map agree with where an object is: pure functions of a map and a mask."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from seewhy.checks.objects import Objects, overlap_of_boxes, parts_of

GROUP = 16  # images that are sorted at a time: memory does not grow with their number
Table = dict[str, Tensor]  # name -> (N,), or (N, Q) along the thresholds


def score_maps(values: Tensor, objects: Objects, thresholds: Sequence[float], tolerance: float) -> Table:
    """Every localization number of maps (N, H, W) of finite numbers, float64; NaN rows stay NaN, in all of them.

    A map without a positive value marks nothing: 0 everywhere. Ties count with their expectation under random breaking.
    """
    q = torch.tensor(thresholds, dtype=torch.float64)
    parts = []
    for start in range(0, len(values), GROUP):
        part = slice(start, start + GROUP)
        flat, mask, boxes = values[part].double().cpu(), objects.mask[part], objects.boxes[part]
        known = flat.flatten(1).isfinite().all(1) & mask.flatten(1).any(1)
        flat = torch.where(known.view(-1, 1, 1), flat, 0.0)
        found = _of_order(flat.flatten(1), mask.flatten(1), q) | _of_place(flat, mask, tolerance)
        found["box_iou"] = torch.stack([_box_overlap(*one, q) for one in zip(flat.clamp_min(0), boxes, strict=True)])
        empty = flat.flatten(1).amax(1) <= 0
        for name, numbers in found.items():
            numbers[empty & (name not in ("tied", "object", "near_object"))] = 0.0
            numbers[~known] = torch.nan
        parts.append(found)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def mean_tables(tables: Sequence[Table]) -> Table:
    """The mean over annotators, of those who marked something in the image."""
    return {name: torch.stack([table[name] for table in tables]).nanmean(0) for name in tables[0]}


def at_best_threshold(overlap: Tensor, sources: Sequence[object]) -> Table:
    """Overlaps (N, Q) at the threshold that is best for the set, for the images of other sources, and for the image."""
    known = ~overlap.isnan().any(1)
    filled = torch.where(known[:, None], overlap, 0.0)
    _, source = np.unique([str(one) for one in sources], return_inverse=True)
    same = torch.from_numpy(source)
    sums = torch.zeros(int(same.max()) + 1, overlap.shape[1], dtype=torch.float64).index_add_(0, same, filled)
    others = filled.sum(0) - sums[same]
    left = known.sum() - torch.zeros(len(sums)).index_add_(0, same, known.float())[same]
    chosen = filled.gather(1, others.argmax(1, keepdim=True))[:, 0]
    found = {
        "best_q_of_set": filled[:, filled.sum(0).argmax()],
        "best_q_of_other_images": torch.where(left > 0, chosen, torch.nan),
        "best_q_per_image": filled.amax(1),
    }
    return {name: torch.where(known, numbers, torch.nan) for name, numbers in found.items()}


def _of_order(flat: Tensor, mask: Tensor, q: Tensor) -> Table:
    """What only depends on the order of the values (g, P), and the overlap at thresholds q of the largest."""
    cells, area = flat.shape[1], mask.sum(1, keepdim=True)
    values, order = flat.sort(1, descending=True)
    inside = mask.gather(1, order).double()
    hits = inside.cumsum(1)
    place = torch.arange(cells).expand_as(order)
    changes = values[:, 1:] != values[:, :-1]
    edge = torch.ones(len(flat), 1, dtype=torch.bool)
    last = torch.where(torch.cat([changes, edge], 1), place, cells).flip(1).cummin(1).values.flip(1)
    first = torch.where(torch.cat([edge, changes], 1), place, 0).cummax(1).values
    precision = hits.gather(1, last) / (last + 1)  # at the end of its ties, as scikit-learn does
    begin, end = (of.gather(1, (area - 1).clamp_min(0)) for of in (first, last))
    above = hits.gather(1, begin) - inside.gather(1, begin)
    among = (hits.gather(1, end) - above) / (end - begin + 1)
    marked = cells - torch.searchsorted(values.flip(1).contiguous(), q * values[:, :1])
    shared = hits.gather(1, marked.clamp(1, cells) - 1)
    by_chance = marked * area / cells
    return {
        "auprc": ((inside * precision).sum(1, keepdim=True) / area)[:, 0],
        "relevance_rank": ((above + (area - begin) * among) / area)[:, 0],
        "iou": shared / (marked + area - shared),
        "iou_by_chance": by_chance / (marked + area - by_chance),
        "tied": (first != last).double().mean(1),
        "object": (area / cells)[:, 0],
    }


def _of_place(values: Tensor, mask: Tensor, tolerance: float) -> Table:
    """Where the peak and the positive mass of values (g, H, W) lie."""
    away = torch.from_numpy(np.stack([ndimage.distance_transform_edt(~one.numpy()) for one in mask]))
    near = away <= tolerance
    peak = values == values.amax((1, 2), keepdim=True)
    mass = values.clamp_min(0)
    peaks, total = peak.sum((1, 2)), mass.sum((1, 2))
    return {
        "pointing_game": (peak & mask).sum((1, 2)).double() / peaks,
        "pointing_game_tolerant": (peak & near).sum((1, 2)).double() / peaks,
        "energy_inside": (mass * mask).sum((1, 2)) / total,
        "near_object": near.flatten(1).double().mean(1),
    }


def _box_overlap(values: Tensor, boxes: Tensor, q: Tensor) -> Tensor:
    """(Q,): overlap of the largest marked part's bounding box with the annotated box that it meets best."""
    marked = (values >= q.view(-1, 1, 1) * values.amax()).numpy()
    plane, found = parts_of(marked, largest=True)
    if not len(boxes):
        return torch.full_like(q, torch.nan)
    best = overlap_of_boxes(torch.from_numpy(found)[:, None], boxes[None]).amax(1).numpy()
    counts = np.bincount(plane, minlength=len(q))  # several of one size: their mean
    return torch.from_numpy(np.bincount(plane, best, minlength=len(q)) / counts)

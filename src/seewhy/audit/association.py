"""Whether numbers of images go with their labels, tested by exchanging labels, within scenes where these hold several."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PERMUTATIONS = 499
LEVEL = 0.05
FEWEST = 6  # images of a class
MOST_CLASSES = 40  # with more, each has too few images to be told from the rest
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """Correlations of F numbers with T label columns, and what chance reaches."""

    r: Tensor  # (F, T)
    chance: float  # the 95 % quantile, over exchanged labels, of the largest |r| of all F x T
    within: bool  # labels were exchanged within scenes

    def p_is_low(self) -> Tensor:
        """(F, T) bool: more than chance reaches anywhere."""
        return self.r.abs() > self.chance


def label_columns(labels: Tensor, kind: str) -> tuple[Tensor, list[int]]:
    """(N, T) what is asked of each image, and which output each column stands for: is it of this class; its score.

    labels: (N,) class indices or scores, or (N, K) zeros and ones.
    """
    if kind == "score":
        return labels.double().view(len(labels), -1), list(range(labels.view(len(labels), -1).shape[1]))
    table = (labels if kind == "labels" else torch.nn.functional.one_hot(labels.long())).double()
    count = table.sum(0)
    kept = ((count >= FEWEST) & (len(table) - count >= FEWEST)).nonzero().flatten().tolist()
    kept = kept if len(kept) <= MOST_CLASSES else []
    return table[:, kept], kept


def toward(output: int, kind: str, labels: Tensor) -> int | None:
    """The output that a pattern of this label column must raise; None for two classes, which may share one output."""
    return None if kind == "class" and int(labels.max()) < 2 else output


def associate(features: Tensor, columns: Tensor, scenes: Tensor, seed: int) -> Association:
    """Correlation of every feature (N, F) with every label column (N, T), against exchanged labels.

    Where scenes hold images of different labels, both are taken relative to their scene's mean and labels are exchanged
    within scenes: what a scene has for itself cannot pass for a cue. Else scenes are the unit, by their means.
    """
    f, y, s = features.double(), columns.double(), torch.unique(scenes, return_inverse=True)[1]
    count = int(s.max()) + 1
    inside = y - _means(y, s, count)[s]
    within = bool(inside.square().sum() > 0.1 * (y - y.mean(0)).square().sum()) and count < len(y)
    if within:
        f, y = f - _means(f, s, count)[s], inside
    else:
        f, y = _means(f, s, count), _means(y, s, count)
        f, y, s = f - f.mean(0), y - y.mean(0), torch.zeros(count, dtype=torch.long)
    f = f / f.norm(dim=0).clamp_min(1e-12)
    length = y.norm(dim=0).clamp_min(1e-12)
    generator = torch.Generator().manual_seed(seed)
    largest = []
    for _ in range(PERMUTATIONS):
        key = s.double() + torch.rand(len(s), generator=generator, dtype=torch.float64) * 0.999
        exchanged = y[_within_scenes(key, s)]
        largest.append(float((f.T @ (exchanged / length)).abs().max()))
    return Association(f.T @ (y / length), float(np.quantile(largest, 1 - LEVEL)), within)


def _within_scenes(key: Tensor, scenes: Tensor) -> Tensor:
    """A permutation that keeps every place within its scene."""
    places = torch.argsort(scenes, stable=True)
    drawn = torch.argsort(key)
    order = torch.empty_like(places)
    order[places] = drawn
    return order


def _means(values: Tensor, scenes: Tensor, count: int) -> Tensor:
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add_(0, scenes, values)
    return sums / torch.bincount(scenes, minlength=count)[:, None]

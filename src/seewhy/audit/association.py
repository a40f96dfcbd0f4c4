"""Whether numbers of images go with their labels, tested by exchanging labels, within scenes where these hold several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

PERMUTATIONS = 499
LEVEL = 0.05
FEWEST = 6  # images of a class
WITHIN = 0.1  # of the labels' variance must lie within scenes for them to be exchanged there
MOST_CLASSES = 40  # with more, each has too few images to be told from the rest
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """What is asked of each image, a column a class, a label or a score."""

    columns: Tensor  # (N, T) zeros and ones, or scores
    names: list[str]  # (T) of the columns
    rises: list[int | None]  # (T) the output that must rise with it; None: the one output falls as often
    kind: str  # "class", "labels" or "score"

    def carriers(self, t: int) -> Tensor:
        """(N,) bool: the images that stand for a column: those of the class; the quarter of the highest scores."""
        column = self.columns[:, t]
        return column >= column.quantile(0.75) if self.kind == "score" else column > 0

    def cut(self, t: int) -> float:
        """What divides images with a label from those without: between 0 and 1; the median score."""
        return float(self.columns[:, t].median()) if self.kind == "score" else 0.5


def labels_of(truth: Tensor, kind: str, names: Sequence[str], outputs: int) -> Labels:
    """The columns of labels (N,) class indices or scores, or (N, K) zeros and ones, for a model of so many outputs.

    A class counts where six images have it and six do not; none does where more than 40 would.
    """
    if kind == "score":
        table = truth.double().view(len(truth), -1)
        kept = list(range(table.shape[1]))
    else:
        table = (truth if kind == "labels" else torch.nn.functional.one_hot(truth.long())).double()
        count = table.sum(0)
        kept = ((count >= FEWEST) & (len(table) - count >= FEWEST)).nonzero().flatten().tolist()
        kept = kept if len(kept) <= MOST_CLASSES else []
    shared = kind == "class" and outputs == 1  # the second class is the one output's, the first its opposite
    rises = [(0 if k else None) if shared else k for k in kept]
    return Labels(table[:, kept], [names[k] for k in kept], rises, kind)


def differences(values: Tensor, chosen: Tensor) -> Tensor:
    """(F,) mean of the chosen rows of (N, F) less that of the others."""
    return values[chosen].mean(0) - values[~chosen].mean(0)


@dataclass(frozen=True)
class Association:
    """Correlations of F numbers with T label columns, and what chance reaches."""

    r: Tensor  # (F, T)
    chance: float  # the 95 % quantile, over exchanged labels, of the largest |r| of all F x T
    spread: Tensor  # (F, T) root mean square of r over exchanged labels
    within: bool  # labels were exchanged within scenes

    def p_is_low(self) -> Tensor:
        """(F, T) bool: more than chance reaches anywhere."""
        return self.r.abs() > self.chance

    def p_is_low_alone(self) -> Tensor:
        """(F, T) bool: more than chance reaches for this number and column, in one case of twenty."""
        return self.r.abs() > float(stats.norm.isf(LEVEL / 2)) * self.spread


def associate(features: Tensor, columns: Tensor, scenes: Tensor, seed: int) -> Association:
    """Correlation of every feature (N, F) with every label column (N, T), against exchanged labels.

    Where scenes hold images of different labels, both are taken relative to their scene's mean and labels are exchanged
    within scenes: what a scene has for itself cannot pass for a cue. Else scenes are the unit, by their means.
    """
    f, y, s = features.double(), columns.double(), torch.unique(scenes, return_inverse=True)[1]
    count = int(s.max()) + 1
    inside = y - _means(y, s, count)[s]
    within = bool(inside.square().sum() > WITHIN * (y - y.mean(0)).square().sum()) and count < len(y)
    if within:
        f, y = f - _means(f, s, count)[s], inside
    else:
        f, y = _means(f, s, count), _means(y, s, count)
        f, y, s = f - f.mean(0), y - y.mean(0), torch.zeros(count, dtype=torch.long)
    f = f / f.norm(dim=0).clamp_min(1e-12)
    length = y.norm(dim=0).clamp_min(1e-12)
    generator = torch.Generator().manual_seed(seed)
    largest, squares = [], torch.zeros(f.shape[1], y.shape[1], dtype=torch.float64)
    for _ in range(PERMUTATIONS):
        r = f.T @ (y[_within_scenes(s, generator)] / length)
        largest.append(float(r.abs().max()))
        squares += r.square()
    spread = (squares / PERMUTATIONS).sqrt()
    return Association(f.T @ (y / length), float(np.quantile(largest, 1 - LEVEL)), spread, within)


def exchanged_labels(column: Tensor, scenes: Tensor, seed: int) -> Tensor:
    """A column (N,) as chance could have it: exchanged within scenes, or between scenes where each holds one label."""
    generator = torch.Generator().manual_seed(seed)
    _, s = torch.unique(scenes, return_inverse=True)
    count = int(s.max()) + 1
    inside = column - _means(column[:, None].double(), s, count)[s, 0]
    if bool(inside.square().sum() > WITHIN * (column - column.mean()).square().sum()) and count < len(column):
        return column[_within_scenes(s, generator)]
    first = torch.stack([(s == k).nonzero()[0, 0] for k in range(count)])
    return column[first[torch.randperm(count, generator=generator)]][s]


def _within_scenes(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """A permutation that keeps every place within its scene."""
    key = scenes.double() + torch.rand(len(scenes), generator=generator, dtype=torch.float64) * 0.999
    places = torch.argsort(scenes, stable=True)
    order = torch.empty_like(places)
    order[places] = torch.argsort(key)
    return order


def _means(values: Tensor, scenes: Tensor, count: int) -> Tensor:
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add_(0, scenes, values)
    return sums / torch.bincount(scenes, minlength=count)[:, None]

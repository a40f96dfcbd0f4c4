"""How alike two maps are: rank and linear correlation, structural similarity (of images, too), HOG correlation.

Each takes maps (g, *grid) and (g, *grid) and gives (g,) in [-1, 1], float64: 1 for the same map, also times any positive
number; NaN where one of the two is constant or not finite.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError

WINDOW = 5  # pixels of an SSIM window along each axis
CELL, BLOCK, ORIENTATIONS = 16, 3, 9  # of HOG features: pixels of a cell, cells of a block, directions


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman correlation of (g, ...) with (g, ...), (g,) in float64; ties by mean rank, NaN where one is constant."""
    return _products(_ranks(a), _ranks(b))


def rank_correlation_table(a: Tensor, b: Tensor) -> Tensor:
    """The same of every one of (g, ...) with every one of (m, ...): (g, m)."""
    return _ranks(a) @ _ranks(b).T


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of (g, ...) with (g, ...), (g,) in float64; NaN where one is constant or not finite."""
    return _products(_unit(a.double().flatten(1)), _unit(b.double().flatten(1)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of maps (g, *grid), each divided by its largest |value|: (g,).

    Uniform windows of 5 pixels along each axis that lie inside the map (all of a shorter axis), sample covariance,
    K1 = 0.01, K2 = 0.03, data range 2: signs count. Source: Wang et al. 2004, equation 13; the authors of the sanity
    checks take the same window.
    """
    return _ssim(_relative(a), _relative(b))


def image_ssim(a: Tensor, b: Tensor) -> Tensor:
    """The same of images (g, C, *axes) in [0, 1] as they are, data range 1, mean over channels: (g,)."""
    found = _ssim(a.double().flatten(0, 1), b.double().flatten(0, 1), data_range=1)
    return found.view(len(a), -1).mean(1)


def hog_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the histograms of oriented gradients of maps (g, H, W), each divided by its largest |value|.

    Cells of 16 x 16 pixels, 9 unsigned directions, blocks of 3 x 3 cells (fewer where there are fewer) normalized by
    L2-Hys: Dalal and Triggs 2005. UsageError for maps below 16 x 16 pixels or without two axes.
    """
    return _products(_hog(a), _hog(b))


@dataclass(frozen=True)
class Similarity:
    """A similarity in two parts, so that what depends on one map alone is computed once: compare(prepare(a), prepare(b))."""

    prepare: Callable[[Tensor], Tensor]  # (g, *grid) -> (g, ...)
    compare: Callable[[Tensor, Tensor], Tensor]  # -> (g,)
    resized: bool  # on maps resized to the input, else at their native resolution
    unit: str


def _ranks(maps: Tensor) -> Tensor:
    """Ranks of each map as a vector of length 1 around 0, (g, cells) float64; NaN where it is constant or not finite."""
    flat = maps.flatten(1)
    ranks = torch.from_numpy(np.asarray(stats.rankdata(flat.cpu().numpy(), axis=1), dtype=np.float64)).to(maps.device)
    ranks[~flat.isfinite().all(1)] = torch.nan
    return _unit(ranks)


def _unit(features: Tensor) -> Tensor:
    centered = features - features.mean(1, keepdim=True)
    return centered / centered.square().sum(1, keepdim=True).sqrt()


def _products(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def _relative(maps: Tensor) -> Tensor:
    """Maps divided by their largest |value|, float64; NaN where that is 0 or the map is constant."""
    flat = maps.double().flatten(1)
    scale = torch.where(flat.amax(1) > flat.amin(1), flat.abs().amax(1), torch.nan)
    return (flat / scale[:, None]).view(maps.shape)


def _ssim(a: Tensor, b: Tensor, data_range: float = 2) -> Tensor:
    """Structural similarity of maps as they are, each the mean over its windows."""
    n = math.prod(min(WINDOW, axis) for axis in a.shape[1:])
    mean_a, mean_b, aa, bb, ab = (_windows(t) / n for t in (a, b, a * a, b * b, a * b))
    sample = n / (n - 1)
    product = mean_a * mean_b
    covariance, variances = sample * (ab - product), sample * (aa + bb - mean_a**2 - mean_b**2)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    alike = (2 * product + c1) * (2 * covariance + c2)
    return (alike / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).flatten(1).mean(1)


def _windows(values: Tensor) -> Tensor:
    """Sums over every window that lies inside, axis by axis."""
    for axis in range(1, values.ndim):
        width = min(WINDOW, values.shape[axis])
        parts = [values.narrow(axis, k, values.shape[axis] - width + 1) for k in range(width)]
        values = sum(parts[1:], parts[0])
    return values


def _hog(maps: Tensor) -> Tensor:
    """HOG features around 0, of length 1: (g, features) float64."""
    if maps.ndim != 3 or min(maps.shape[1:]) < CELL:
        given = " x ".join(map(str, maps.shape[1:]))
        raise UsageError(f"HOG features need maps of at least {CELL} x {CELL} pixels, not {given}: leave 'hog' out.")
    m = _relative(maps)
    rows, columns = torch.zeros_like(m), torch.zeros_like(m)
    rows[:, 1:-1], columns[:, :, 1:-1] = m[:, 2:] - m[:, :-2], m[:, :, 2:] - m[:, :, :-2]
    direction = torch.rad2deg(torch.atan2(rows, columns)) % 180
    which = (direction * (ORIENTATIONS / 180)).nan_to_num().long().clamp(0, ORIENTATIONS - 1)
    size = torch.hypot(rows, columns)
    layers = torch.zeros(len(m), ORIENTATIONS, *m.shape[1:], dtype=m.dtype, device=m.device)
    layers.scatter_(1, which[:, None], size[:, None])
    cells = functional.avg_pool2d(layers, CELL)  # (g, directions, rows, columns); a remainder is left out
    for axis in (2, 3):
        cells = cells.unfold(axis, min(BLOCK, cells.shape[axis]), 1)
    blocks = cells.permute(0, 2, 3, 4, 5, 1).flatten(3)
    for limit in (0.2, torch.inf):
        blocks = (blocks / (blocks.square().sum(-1, keepdim=True) + 1e-10).sqrt()).clamp(max=limit)
    return _unit(blocks.flatten(1))


SIMILARITIES = {
    "spearman": Similarity(_ranks, _products, False, "rank correlation"),
    "spearman_absolute": Similarity(lambda maps: _ranks(maps.abs()), _products, False, "rank correlation of |values|"),
    "ssim": Similarity(_relative, _ssim, True, "structural similarity"),
    "hog": Similarity(_hog, _products, True, "correlation of HOG features"),
}

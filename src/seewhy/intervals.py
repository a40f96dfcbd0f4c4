"""How sure a mean over images is: bootstrap intervals, clustered where images share a source."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES = 2000
SEED = 0  # of the resampling: the same numbers give the same interval, whatever else a check draws


@dataclass(frozen=True)
class Interval:
    """A mean over n images (or clusters of them) with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int  # images
    clusters: int  # that were resampled; n where every image stands for itself

    def __str__(self) -> str:
        if not self.n:
            return "no value (n = 0)"
        if math.isnan(self.low):
            return f"{self.value:.3g} (n = {self.n}: no interval)"
        grouped = f" in {self.clusters} groups" if self.clusters != self.n else ""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n = {self.n}{grouped})"

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON values."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            **{k: v if math.isfinite(v) else None for k, v in numbers.items()},
            "n": self.n,
            "clusters": self.clusters,
        }


@lru_cache(maxsize=4)  # a check has hundreds of means over the same images
def _resamples(count: int) -> NDArray[np.float64]:
    """How often each of `count` is drawn in each resample, (2000, count)."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return drawn.astype(np.float64)


def interval(
    values: Tensor | Sequence[float] | NDArray[np.float64], clusters: Sequence[object] | None = None
) -> Interval:
    """The mean of values (N,) and its percentile bootstrap interval (95 %, 2,000 resamples of images); NaN is left out.

    clusters: what each image belongs to (patient, exemplar): whole clusters are resampled, and the mean is that of their
    images. One image or cluster has no interval.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    numbers = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)
    known = ~np.isnan(numbers)
    kept = numbers[known]
    if clusters is None:
        groups = np.arange(len(kept))
    else:
        _, groups = np.unique([str(c) for c, k in zip(clusters, known, strict=True) if k], return_inverse=True)
    count = int(groups.max()) + 1 if len(kept) else 0
    if count < 2:
        return Interval(float(kept.mean()) if len(kept) else math.nan, math.nan, math.nan, len(kept), count)
    sums, sizes = np.bincount(groups, kept), np.bincount(groups)
    drawn = _resamples(count)
    with np.errstate(invalid="ignore"):  # an infinite value: the mean says so, and its interval is not a number
        means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.percentile(means, [2.5, 97.5]) if np.isfinite(means).all() else (math.nan, math.nan)
    return Interval(float(kept.mean()), float(low), float(high), len(kept), count)

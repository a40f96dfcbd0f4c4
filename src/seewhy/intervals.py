"""How sure a mean over images is: bootstrap intervals, clustered where images share a source."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
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


def read_interval(record: Mapping[str, Any]) -> Interval:
    """The inverse of Interval.to_dict."""
    value, low, high = (math.nan if record[name] is None else record[name] for name in ("value", "low", "high"))
    return Interval(value, low, high, record["n"], record["clusters"])


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


def proportion(values: Tensor | Sequence[float], clusters: Sequence[object] | None = None) -> Interval:
    """The share of ones among zeros and ones (N,), NaN left out, with Wilson's 95 % interval; clusters: as for `interval`.

    A bootstrap has no width where all are 0 or all are 1, however few there are.
    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    hits = torch.as_tensor(values).double()
    hits = hits[~hits.isnan()]
    if clusters is not None or not len(hits):
        return interval(values, clusters)
    wilson = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(wilson.low), float(wilson.high), len(hits), len(hits))


def crossed_interval(values: Tensor) -> Interval:
    """The mean of values (runs, N) and its 95 % interval with runs and images resampled, each by itself.

    For a number of every image in every run (a training seed, say): both are samples of what could have been. An image that
    is NaN in any run is left out. With R runs the spread between runs is understated by (R - 1) / R in variance, with one
    run it is not seen at all.
    Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), section 3.
    """
    numbers = values.detach().cpu().double().numpy()
    kept = numbers[:, ~np.isnan(numbers).any(0)]
    runs, n = kept.shape
    if n < 2:
        return Interval(float(kept.mean()) if n else math.nan, math.nan, math.nan, n, n)
    generator = np.random.default_rng(SEED)
    of_runs = generator.multinomial(runs, np.full(runs, 1 / runs), RESAMPLES)
    drawn = generator.integers(0, n, (RESAMPLES, n))
    means = np.take_along_axis(of_runs @ kept, drawn, 1).mean(1) / runs
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(kept.mean()), float(low), float(high), n, n)


@functools.lru_cache(maxsize=2)  # a check asks for hundreds of intervals over the same images
def _resamples(count: int) -> NDArray[np.float64]:
    """How often each of `count` images is drawn in every resample: (2,000, count)."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return drawn.astype(np.float64)

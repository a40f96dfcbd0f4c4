"""Interleaved pairs: how two calls are timed against each other, what is said of it, and where it is kept.

Needs no peer: the benchmarks that do import it.
"""

import hashlib
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

FEWEST = 3  # rounds, however long they take


def measure(calls, rounds, seconds=math.inf):
    """Seconds (rounds, calls): in a round each call once, in a random order, so that what drifts hits all alike.

    The calls are warm already: whoever checked that they agree has called them. Ends early where one more round would
    take longer than what is left of `seconds`, but never before FEWEST rounds.
    """
    order, found, begun = np.random.default_rng(0), [], perf_counter()
    while len(found) < rounds:
        spent = perf_counter() - begun
        if len(found) >= FEWEST and spent * (1 + 1 / len(found)) > seconds:
            break
        taken = [0.0] * len(calls)
        for place in order.permutation(len(calls)):
            start = perf_counter()
            calls[place]()
            taken[place] = perf_counter() - start
        found.append(taken)
    return np.array(found)


def fastest(call, sizes, rounds=2):
    """The size at which `call(size)` takes least, by its best of some rounds after one that warms up."""
    calls = [lambda size=size: call(size) for size in sizes]
    for warm_up in calls:
        warm_up()
    return sizes[int(measure(calls, rounds).min(0).argmin())]


def interval(ratios, draws=10_000):
    """95 % bootstrap interval of the median."""
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(ratios, (draws, len(ratios))), axis=1)
    return np.percentile(medians, [2.5, 97.5])


@dataclass(frozen=True)
class Ratio:
    """What the pairs say: the median of the ratios within them, its 95 % interval, and whether it meets the goal."""

    ours: float  # median seconds
    theirs: float
    median: float
    low: float
    high: float
    pairs: int
    met: bool


def judged(seconds, goal, speedup):
    """The Ratio of seconds (pairs, 2), ours and theirs.

    A speedup is theirs / ours, to be >= goal; without it the ratio is ours / theirs, to be <= goal.
    """
    ours, theirs = np.asarray(seconds).T
    ratios = theirs / ours if speedup else ours / theirs
    median = float(np.median(ratios))
    low, high = (float(bound) for bound in interval(ratios))
    met = median >= goal if speedup else median <= goal
    return Ratio(float(np.median(ours)), float(np.median(theirs)), median, low, high, len(ratios), met)


def line(sizes, seconds):
    """The straight line through the points (seconds at no size, seconds a unit) and the largest deviation from it.

    Least squares of the relative residuals, so that the smallest size counts as much as the largest; the deviation is a
    share of the line's own value there.
    """
    sizes, seconds = np.asarray(sizes, float), np.asarray(seconds, float)
    slope, start = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    deviation = np.abs(seconds / (start + slope * sizes) - 1).max()
    return float(start), float(slope), float(deviation)


def row(*cells):
    """One line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def recorded(path, settings):
    """Name -> record of what an earlier run measured with the same settings (code and machine are among them)."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {record["name"]: record for record in records if record["settings"] == settings}


def keep(path, settings, record):
    """Append a record, one line; what is there stays."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**record, "settings": settings}) + "\n")


def digest(paths):
    """SHA-256 of some files' bytes, in the order of their names: which code was measured."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()


def processor():
    """The processor's name and features that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    features = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {f} " in text or f" {f}\n" in text]
    return f"{model} ({', '.join(features)})"

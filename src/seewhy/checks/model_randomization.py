"""Does the map depend on what the network has learned: it is compared with that of the same network without its weights."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from seewhy.checks.cascade import ORDERS, Cascade, Step, smoothed
from seewhy.checks.result import (
    LEAST_PAIRS,
    MOST_EXCLUDED,
    CheckResult,
    Curve,
    Null,
    Score,
    Verdict,
    check,
    excluded,
    null_of,
    score,
)
from seewhy.controls import edge_maps, random_maps
from seewhy.data.geometry import resize
from seewhy.errors import known_name, whole_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction, same_steps, why_unusable
from seewhy.model import VisionModel
from seewhy.randomization import stages_of
from seewhy.registry import Facts
from seewhy.similarity import SIMILARITIES
from seewhy.target import Target

DEFAULT = ("spearman", "spearman_absolute", "ssim")
STATISTICS = ("keep", "recalibrate")
MOST_NETWORKS, LEAST_NETWORKS = 10, 3
PARTNERS = 15  # other images that each one is compared with on one random network
BINS = 100  # of the histogram of a map's values: the default of the authors' code
Prepared = Mapping[str, Tensor]  # similarity -> what it needs of some maps
Alikes = Mapping[str, Tensor]  # similarity -> of each image, (N,); of pairs (pairs, N)


@check(
    title="Model randomization",
    question="does the map change when the weights are destroyed?",
    cost="for 10 stages 13 maps an image: one on the trained network, one a stage, one on each further random network",
    rows=lambda facts: _rows(facts),
    paper="Adebayo et al. 2018, arXiv:1810.03292, section 3.1; Hedstrom et al. 2024 (sMPRT, eMPRT); Binder et al. 2023, "
    "arXiv:2211.12486 (limits)",
)
def model_randomization(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    order: str | Sequence[str] = ("cascading",),
    similarities: Sequence[str] = DEFAULT,
    networks: int = 3,
    statistics: str = "keep",
    retarget: bool = False,
    smooth: int = 0,
    repairs: bool = False,
    seed: int = 0,
) -> CheckResult:
    """How alike the map stays to itself when the network's weights are destroyed, stage by stage from the output down.

    order: `cascading` (the last stage, the last two, ...), `independent` (one stage, the rest as trained), `bottom_up`; one
    curve each, on the first random network. The scores are taken where everything is random, on all `networks`.
    Similarities of raw signed maps, in [-1, 1]: `spearman`, `spearman_absolute` (of |values|: sees mostly where the image
    is dark), `ssim`, `hog`; the latter two on maps resized to the input. Every learnable tensor is in one stage; its
    module's own initializer draws it anew. statistics: running statistics of batch normalizations are kept, as the authors
    did, or recalibrated on these images. The class is that of the trained network; the authors' notebooks take the random
    network's own: retarget=True. The method keeps the layer and the path nodes that it chose on the trained network.
    smooth: the mean of so many maps of noisy images is compared (sMPRT). repairs: eMPRT, (H(e_rand) - H(e)) / H(e), H the
    entropy of a map's values in 100 equal bins from their smallest to their largest: higher is better.

    The null: the same similarity between the trained map of one image and the random network's map of another one, over at
    least 200 pairs and 3 networks (up to 10 networks are taken for that where there are few images). The verdict is read
    from the signed Spearman correlation where everything is random. Fail: the 95 % interval of its mean lies above the
    null's 97.5 % quantile: a typical map is more like that of the destroyed network than two maps that share neither
    image nor weights are; or no map changed its order at all. Pass: the interval does not reach above that quantile, and
    the null reaches down to 0. Else unclear: where the null as a whole lies above 0, all maps of this method look alike,
    whatever the image and the weights. The paper gives no cut-off. A pass proves little: white noise passes, too.
    `spearman_excess` is what an image's own similarity has above its null pairs; 0 where nothing is left.
    No verdict below 200 pairs; not valid where more than 10 % of the images at a step have a zero, constant or not finite
    map, or where the method refuses. RefusalError for integer weights or none; UsageError for unknown names.
    """
    orders = _orders(order)
    _check(orders, similarities, statistics, networks, smooth)
    found = maps(model, images, target)
    fixed = same_steps(maps, found)
    if smooth:
        fixed = smoothed(fixed, smooth, seed)
        found = fixed(model, images, found.target)
    why = why_unusable(found)
    usable = len(why) - sum(map(bool, why))
    asked = target if retarget else found.target
    cascade = Cascade(
        model, images, asked, fixed, stages_of(model, images, found.target), seed, statistics == "recalibrate"
    )
    ends = [cascade.full(network) for network in range(_networks(networks, usable))]
    alike = _Alike(similarities, images, found.raw, why, seed)
    own, others = [alike.to(step) for step in ends], [alike.to_others(step, len(ends)) for step in ends]
    noise = [alike.random_map(k) for k in range(max(len(cascade.stages), len(ends)))]
    runs = {one: _run(cascade, one, ends[0], own[0], alike) for one in orders}
    every = {name: _score(name, own, others, noise[: len(ends)], alike.edges) for name in alike.names}
    signed, scores = every["spearman"], [every[name] for name in similarities]
    scores += [_excess(own, others)] + ([_complexity(found.raw, why, ends)] if repairs else [])
    curves = [curve for run in runs.values() for curve in _curves(run, similarities, alike.edges, noise)]
    steps = [(one, step) for one, run in runs.items() for step in run.steps] + [("full", step) for step in ends[1:]]
    lost = max(sum(bool(w or trained) for w, trained in zip(step.why, why, strict=True)) for _, step in steps)
    verdict = _verdict(signed, lost / len(images), len(ends))
    return CheckResult(
        "model_randomization",
        tuple(scores),
        verdict,
        _sentence(verdict, signed, scores, runs.get("cascading"), lost, steps, len(images), len(ends)),
        curves=tuple(curves),
        excluded=excluded(why, *[step.why for step in ends]),
        details={
            "stages": [stage.to_dict() for stage in cascade.stages],
            "steps": [step.to_dict(one) for one, step in steps],
            "networks": len(ends),
            "alike_among_images": interval(_mean([row for values in others for row in values["among"]])).to_dict(),
            "similarity_settings": _settings_of(similarities),
        },
    )


def _rows(facts: Facts) -> tuple[int, int]:
    n, smooth, steps = facts["n"], facts["smooth"], facts["stages"] * len(_orders(facts["order"]))
    steps += _networks(facts["networks"], math.ceil(n * (1 - MOST_EXCLUDED)))
    calibrations = n * steps if facts["statistics"] == "recalibrate" else 0
    return n * (steps + (smooth > 0)) * (1 + smooth), calibrations


def _orders(order: str | Sequence[str]) -> tuple[str, ...]:
    return (order,) if isinstance(order, str) else tuple(order)


def _check(orders: Sequence[str], similarities: Sequence[str], statistics: str, networks: int, smooth: int) -> None:
    for one in orders:
        known_name("order", one, ORDERS)
    for name in similarities:
        known_name("similarity", name, SIMILARITIES)
    known_name("way with running statistics", statistics, STATISTICS)
    whole_number("networks", networks, at_least=1)
    whole_number("smooth", smooth, at_least=0)


def _networks(asked: int, usable: int) -> int:
    """How many random networks: more than asked for where few images need them to reach LEAST_PAIRS, and can."""
    pairs = usable * min(max(usable - 1, 0), PARTNERS)
    needed = math.ceil(LEAST_PAIRS / pairs) if pairs else MOST_NETWORKS + 1
    return max(asked, needed) if asked >= LEAST_NETWORKS and needed <= MOST_NETWORKS else asked


class _Alike:
    """The trained maps, made ready for each similarity, and what others are compared with them."""

    def __init__(self, names: Sequence[str], images: Tensor, raw: Tensor, why: Sequence[str], seed: int) -> None:
        self.names = tuple(dict.fromkeys((*names, "spearman")))
        self.images, self.seed, self.grid = images, seed, raw.shape[1:]
        self.usable = torch.tensor([not reason for reason in why])
        self.trained = self.prepared(raw)
        edges = edge_maps(images)
        ready = self.prepared(edges)
        self.edges: Alikes = {name: self._compared(name, ready, ready, self.usable) for name in self.names}
        self._noise = self._noise_map(0)

    def prepared(self, raw: Tensor) -> Prepared:
        """What each similarity needs of some maps, on the CPU."""
        raw = raw.detach().cpu()
        shown = resize(raw, tuple(self.images.shape[2:]))
        return {name: SIMILARITIES[name].prepare(shown if SIMILARITIES[name].resized else raw) for name in self.names}

    def _compared(self, name: str, a: Prepared, b: Prepared, usable: Tensor) -> Tensor:
        return torch.where(usable, SIMILARITIES[name].compare(a[name], b[name]), math.nan)

    def to(self, step: Step) -> Alikes:
        """Similarity -> that of each image's map on a random network to its own on the trained one, (N,)."""
        if step.raw is None:
            return {name: torch.full((len(self.images),), math.nan, dtype=torch.float64) for name in self.names}
        ready, usable = self.prepared(step.raw), self.usable & torch.tensor([not w for w in step.why])
        return {name: self._compared(name, self.trained, ready, usable) for name in self.names}

    def to_others(self, step: Step, networks: int) -> Alikes:
        """Similarity -> that of trained maps to the maps of other images on a random network: (pairs, N).

        All pairs, up to PARTNERS an image; of the slower similarities as many as a null needs. "among": the Spearman
        correlation of the random network's own maps of different images.
        """
        n = len(self.images)
        shifts = range(1, min(n - 1, PARTNERS) + 1)
        if step.raw is None or not shifts:
            return {name: torch.full((1, n), math.nan, dtype=torch.float64) for name in (*self.names, "among")}
        ready, there = self.prepared(step.raw), torch.tensor([not w for w in step.why])
        rows: dict[str, list[Tensor]] = {name: [] for name in (*self.names, "among")}
        for shift in shifts:
            usable = self.usable & there.roll(-shift)
            for name in self.names:
                if not SIMILARITIES[name].resized or shift <= math.ceil(LEAST_PAIRS / (n * networks)):
                    moved = {name: ready[name].roll(-shift, 0)}
                    rows[name].append(self._compared(name, self.trained, moved, usable))
            moved = {"spearman": ready["spearman"].roll(-shift, 0)}
            rows["among"].append(self._compared("spearman", ready, moved, usable & there))
        return {name: torch.stack(several) for name, several in rows.items()}

    def random_map(self, step: int) -> Alikes:
        """Similarity of white noise at the map's own resolution to noise that is drawn anew at each step, (N,)."""
        other = self._noise_map(step + 1)
        return {name: self._compared(name, self._noise, other, self.usable) for name in self.names}

    def _noise_map(self, step: int) -> Prepared:
        noise = random_maps(self.images.cpu(), self.seed + step)
        return self.prepared(resize(noise, tuple(self.grid)))


@dataclass(frozen=True)
class _Run:
    """One order: its steps, and the similarities at each."""

    order: str
    steps: tuple[Step, ...]
    values: tuple[Alikes, ...]


def _run(cascade: Cascade, order: str, end: Step, at_end: Alikes, alike: _Alike) -> _Run:
    steps, values = [], []
    with closing(cascade.steps(order)) as on_random_networks:  # an error here puts the weights back at once
        for step in on_random_networks:
            values.append(alike.to(step))
            steps.append(replace(step, raw=None))  # memory does not grow with steps
    if order != "independent":
        values.append(at_end)
        steps.append(replace(end, raw=None, stage=cascade.stages[-1 if order == "bottom_up" else 0].name))
    return _Run(order, tuple(steps), tuple(values))


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of what there is, per image; NaN where there is nothing."""
    stacked = torch.stack(list(values))
    known = ~stacked.isnan()
    return torch.where(known, stacked, 0).sum(0) / known.sum(0)


def _score(name: str, own: Sequence[Alikes], others: Sequence[Alikes], noise: Sequence[Alikes], edges: Alikes) -> Score:
    """One similarity where everything is random."""
    null = null_of(
        torch.cat([values[name].flatten() for values in others]),
        f"pairs of a trained map and another image's map on one of {len(own)} random networks",
    )
    controls = {"random_map": _mean([values[name] for values in noise]), "edge_map": edges[name]}
    values = _mean([values[name] for values in own])
    return score(name, values, "lower", SIMILARITIES[name].unit, controls=controls, null=null)


def _excess(own: Sequence[Alikes], others: Sequence[Alikes]) -> Score:
    to_own = _mean([values["spearman"] for values in own])
    to_others = _mean([row for values in others for row in values["spearman"]])
    return score("spearman_excess", to_own - to_others, "lower", "rank correlation above that to other images' maps")


def _complexity(raw: Tensor, why: Sequence[str], ends: Sequence[Step]) -> Score:
    def rise(step: Step) -> Tensor:
        if step.raw is None:
            return torch.full((len(raw),), math.nan, dtype=torch.float64)
        usable = torch.tensor([not (w or trained) for w, trained in zip(step.why, why, strict=True)])
        before, after = (torch.tensor([_entropy(m) for m in maps.cpu()]) for maps in (raw, step.raw))
        return torch.where(usable & (before > 0), (after - before) / before, math.nan)

    return score("complexity_rise", _mean([rise(step) for step in ends]), "higher", "share of the map's entropy")


def _entropy(raw: Tensor) -> float:
    """Of the histogram of a map's values in BINS equal bins, in nats; NaN where they are not finite."""
    values = raw.double().numpy()
    return float(stats.entropy(np.histogram(values, bins=BINS)[0])) if np.isfinite(values).all() else math.nan


def _curves(run: _Run, similarities: Sequence[str], edges: Alikes, noise: Sequence[Alikes]) -> list[Curve]:
    x = tuple(step.stage for step in run.steps)
    found = []
    for name in similarities:
        drawn = {
            name: [values[name] for values in run.values],
            f"{name} of edge_map": [edges[name]] * len(x),
            f"{name} of random_map": [values[name] for values in noise[: len(x)]],
        }
        for label, several in drawn.items():
            points = tuple(interval(values) for values in several)
            found.append(Curve(f"{label}, {run.order}", "randomized stage", x, name, points, control=label != name))
    return found


def _verdict(signed: Score, lost: float, networks: int) -> Verdict:
    own, null = signed.interval, signed.null
    assert null is not None, "a similarity has a null"
    if lost > MOST_EXCLUDED or not own.n:
        return Verdict.NOT_VALID
    if null.n < LEAST_PAIRS or networks < LEAST_NETWORKS or math.isnan(own.low):
        return Verdict.NONE
    if own.low > null.high or own.low > 1 - 1e-9:
        return Verdict.FAIL
    return Verdict.PASS if own.high <= null.high and null.low <= 0 else Verdict.UNCLEAR


def _sentence(
    verdict: Verdict,
    signed: Score,
    scores: Sequence[Score],
    run: _Run | None,
    lost: int,
    steps: Sequence[tuple[str, Step]],
    n: int,
    networks: int,
) -> str:
    own, null = signed.interval, signed.null
    assert null is not None, "a similarity has a null"
    if verdict is Verdict.NOT_VALID:
        refused = next((w for _, step in steps for w in step.why if w.startswith("refused: ")), "")
        why = f"the method {refused.rstrip('.')}" if refused else "zero, constant or not finite maps"
        return f"{lost} of {n} images could not be scored at some step ({why}): no similarity of theirs means anything."
    told = (
        f"On {networks} networks with random weights the maps keep a signed Spearman correlation of {own} with the trained "
        f"ones"
    )
    if verdict is Verdict.NONE:
        few = (
            f"{n} images on {networks} networks give {null.n} null pairs, {LEAST_PAIRS} on {LEAST_NETWORKS} are needed"
        )
        return f"{told}; no verdict: {few}."
    told += f"; maps that share neither image nor weights have {null.median:.2g} [{null.low:.2g}, {null.high:.2g}]"
    told += _from_where(run, null) + "." + _disagreement(signed, scores, run)
    if verdict is Verdict.UNCLEAR and null.low > 0:
        told += " All maps of this method look alike, whatever the image and the weights: the test cannot tell."
    return told + (" A pass proves little: white noise passes, too (Binder 2023)." if verdict is Verdict.PASS else "")


def _from_where(run: _Run | None, null: Null) -> str:
    """From which stage on, from the output down, the mean similarity stays inside the null."""
    if run is None:
        return ""
    means = [interval(values["spearman"]).value for values in run.values]
    above = [k for k, mean in enumerate(means) if not mean <= null.high]
    first = above[-1] + 1 if above else 0
    if first == len(means):
        return " and are more alike than that to the last step"
    return (
        f"; from {run.steps[first].stage} down ({first + 1} of {len(means)} stages random) there is no more than that"
    )


def _disagreement(signed: Score, scores: Sequence[Score], run: _Run | None) -> str:
    """At how many steps the absolute values are more alike than their null, and the signed ones are not."""
    absolute = next((s for s in scores if s.name == "spearman_absolute"), None)
    if absolute is None or absolute.null is None or signed.null is None or run is None:
        return ""
    steps = [(interval(v["spearman"]), interval(v["spearman_absolute"])) for v in run.values]
    at = [b.value for a, b in steps if a.value <= signed.null.high and b.low > absolute.null.high]
    if not at:
        return ""
    return (
        f" At {len(at)} of {len(steps)} steps absolute values are more alike than their null, {max(at):.2f} at most, and "
        "signed ones are not: the signs change, the places do not."
    )


def _settings_of(similarities: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ssim": "windows of 5 pixels, uniform, data range 2, maps divided by their largest |value|, at input resolution",
        "hog": "cells of 16 x 16 pixels, 9 directions, blocks of 3 x 3 cells, L2-Hys, at input resolution",
    }
    return {name: told.get(name, "raw map, native resolution, ties by mean rank") for name in similarities}

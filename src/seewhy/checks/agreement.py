"""Whether several methods say the same of an image, and on which images they disagree most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Score, Verdict, check, excluded, score
from seewhy.checks.strongest import cells_of_top, jaccard, jaccard_by_chance, top_cells
from seewhy.controls import edge_maps, random_maps
from seewhy.errors import UsageError, real_number, whole_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.similarity import rank_correlation
from seewhy.target import Target

THIS = "this method"
CONTROLS = ("random_map", "edge_map")
METRICS = ("rank_correlation", "top_jaccard", "sign_agreement")
QUEUE = 20  # images at most that are put before a person


@check(
    title="Agreement",
    question="do several methods point at the same places, and on which images do they not?",
    cost="one map an image and method",
    paper="Krishna et al. 2022, arXiv:2202.01602 (top-k, rank and sign agreement)",
    needs=("others",),
)
def agreement(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    others: Mapping[str, MapFunction],
    top: float = 0.10,
    seed: int = 0,
) -> CheckResult:
    """How far the maps of several methods agree on each image, with what chance gives, and where they disagree most.

    For two methods, on the coarser of their grids (a finer map is averaged over each cell): Spearman correlation of the
    signed maps in [-1, 1] (chance 0); Jaccard index of the largest `top` of the cells in [0, 1] (chance k / (2d - k); the
    share of common cells, k / d by chance, stands in details); and, where both have both signs, the share of cells with
    the same sign (chance: p q + (1 - p)(1 - q) of their shares of positive cells, 1/2 if one is balanced). Scores: `maps`
    against each of `others`, mean over them; details: all pairs, the matrices, and `review_queue`, the at most 20 images
    with the lowest correlation, worst first, with the reason. Each method explains the same class on its own scale.

    No verdict: methods can agree and be wrong. Ties are broken by seed, for each method in its own order (so ties agree
    by chance), with their share in details. An image on which one method has no map is excluded and counted.
    UsageError for no `others`, a name that is taken, a share `top` outside (0, 1/2], a seed below 0.
    """
    real_number("top", top, at_least=0, above=True, at_most=0.5)
    whole_number("seed", seed, at_least=0)
    _check_others(others)
    found = maps(model, images, target)
    question = replace(found.target, scale=target.scale)
    every = {THIS: found} | {name: other(model, images, question) for name, other in others.items()}
    raws = {name: one.raw.detach().cpu() for name, one in every.items()}
    raws |= {"random_map": random_maps(images, seed).cpu(), "edge_map": edge_maps(images).cpu()}
    why = {name: why_unusable(one) for name, one in every.items()}
    gaps = {name: torch.tensor([bool(reason) for reason in reasons]) for name, reasons in why.items()}
    numbers = {name: i for i, name in enumerate(raws)}
    wanted = [*combinations(every, 2), *((THIS, control) for control in CONTROLS)]
    pairs = {
        (a, b): _pair(raws[a], raws[b], images, top, (seed + numbers[a], seed + numbers[b])).without(
            gaps[a] | gaps.get(b, gaps[a])
        )
        for a, b in wanted
    }
    return _result(every, why, pairs, len(images), top)


@dataclass(frozen=True)
class _Pair:
    """How two methods agree on each image: (N,) each, NaN where there is no number."""

    rank_correlation: Tensor
    top_jaccard: Tensor
    top_overlap: Tensor
    sign_agreement: Tensor
    sign_chance: Tensor
    tied: Tensor  # share of the top cells, the larger of the two
    grid: tuple[int, ...]

    def without(self, missing: Tensor) -> "_Pair":
        """NaN for these images."""
        names = [*METRICS, "top_overlap", "sign_chance", "tied"]
        return replace(self, **{name: getattr(self, name).masked_fill(missing, math.nan) for name in names})

    def to_dict(self, top: float) -> dict[str, Any]:
        """Means with intervals, beside what chance gives."""
        cells = math.prod(self.grid)
        return {
            "grid": list(self.grid),
            "top_cells": cells_of_top(top, cells),
            **{name: interval(getattr(self, name)).to_dict() for name in (*METRICS, "top_overlap")},
            "chance": {
                "rank_correlation": 0.0,
                "top_jaccard": jaccard_by_chance(top, cells),
                "top_overlap": cells_of_top(top, cells) / cells,
                "sign_agreement": _mean(self.sign_chance),
            },
            "tied_share": _mean(self.tied),
        }


def _check_others(others: Mapping[str, MapFunction]) -> None:
    if not isinstance(others, Mapping) or not others:
        raise UsageError(
            f'agreement needs other methods by name, others={{"gradient": sw.bind("gradient")}}; got {others!r}.'
        )
    for name, other in others.items():
        if not isinstance(name, str) or name in (THIS, *CONTROLS):
            raise UsageError(
                f"{name!r} cannot name another method: {THIS!r} and the controls are in the table already."
            )
        if not callable(other):
            raise UsageError(
                f"others[{name!r}] is a {type(other).__name__}, not a method: bind one, sw.bind({name!r})."
            )


def _pair(a: Tensor, b: Tensor, images: Tensor, top: float, seeds: tuple[int, int]) -> _Pair:
    grid = tuple(min(sides) for sides in zip(a.shape[1:], b.shape[1:], strict=True))
    a, b = _pooled(a, grid), _pooled(b, grid)
    (top_a, tied_a), (top_b, tied_b) = top_cells(a, images, top, seeds[0]), top_cells(b, images, top, seeds[1])
    same, chance = _signs(a.flatten(1), b.flatten(1))
    return _Pair(
        rank_correlation=rank_correlation(a, b),
        top_jaccard=jaccard(top_a, top_b),
        top_overlap=(top_a & top_b).sum(1).double() / top_a.sum(1),
        sign_agreement=same,
        sign_chance=chance,
        tied=torch.maximum(tied_a, tied_b),
        grid=grid,
    )


def _pooled(raw: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The mean of a map (N, *grid) over each cell of a coarser grid."""
    if tuple(raw.shape[1:]) == grid:
        return raw
    coarser: Tensor = functional.interpolate(raw.double().unsqueeze(1), size=grid, mode="area").squeeze(1)
    return coarser


def _signs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Share of cells with the same sign, of those where neither is 0, and what chance gives; NaN where a map has one sign."""
    both = (a != 0) & (b != 0)
    count = both.sum(1).double()
    signed = [(t.amin(1) < 0) & (t.amax(1) > 0) for t in (a, b)]
    positive = [((t > 0) & both).sum(1) / count for t in (a, b)]
    same = (((a > 0) == (b > 0)) & both).sum(1) / count
    chance = positive[0] * positive[1] + (1 - positive[0]) * (1 - positive[1])
    unknown = ~(signed[0] & signed[1])
    return same.masked_fill(unknown, math.nan), chance.masked_fill(unknown, math.nan)


def _result(
    every: Mapping[str, Maps], why: Mapping[str, list[str]], pairs: Mapping[tuple[str, str], _Pair], n: int, top: float
) -> CheckResult:
    mine = {b: pair for (a, b), pair in pairs.items() if a == THIS and b not in CONTROLS}
    reasons = [[f"{name}: {reason}" if reason else "" for reason in several] for name, several in why.items()]
    blank = torch.stack([pair.rank_correlation.isnan() for pair in mine.values()]).any(0).tolist()
    missing = excluded(*reasons, ["constant on the common grid" if lost else "" for lost in blank])
    left_out = torch.tensor([i in missing for i in range(n)])

    def scored(name: str, unit: str, beside: tuple[str, ...]) -> Score:
        several = torch.stack([getattr(pair, name) for pair in mine.values()]).nanmean(0)
        controls = {c: getattr(pairs[THIS, c], name).masked_fill(left_out, math.nan) for c in beside}
        return score(name, several.masked_fill(left_out, math.nan), "neither", unit, controls=controls)

    scores = (
        scored("rank_correlation", "Spearman correlation", CONTROLS),
        scored("top_jaccard", f"Jaccard index of the top {100 * top:g} %", CONTROLS),
        scored("sign_agreement", "share of cells", ()),  # the controls have one sign
    )
    names, queue = list(every), _queue(scores[0].per_image, mine, top)
    details = {
        "methods": names,
        "matrix": {name: _matrix(name, names, pairs) for name in METRICS},
        "pairs": [{"methods": [a, b], **pair.to_dict(top)} for (a, b), pair in pairs.items()],
        "review_queue": queue,
    }
    if len(missing) > MOST_EXCLUDED * n:
        verdict = Verdict.NOT_VALID
        sentence = f"On {len(missing)} of {n} images at least one of the methods has no map that can be compared."
    else:
        verdict = Verdict.NONE
        chance = sum(jaccard_by_chance(top, math.prod(pair.grid)) for pair in mine.values()) / len(mine)
        sentence = (
            f"The maps have a rank correlation of {scores[0].interval} with those of {', '.join(mine)}, and their top "
            f"{100 * top:g} % a Jaccard index of {scores[1].interval.value:.2f} (chance {chance:.2f}); most disagreement: "
            f"image {queue[0]['image']}."
        )
    return CheckResult("agreement", scores, verdict, sentence, excluded=missing, details=details)


def _matrix(metric: str, names: list[str], pairs: Mapping[tuple[str, str], _Pair]) -> list[list[float | None]]:
    """Means over images, methods by methods; 1 with itself, None where there is no number."""
    table: list[list[float | None]] = [[1.0] * len(names) for _ in names]
    for (a, b), pair in pairs.items():
        if b in names:
            i, j = names.index(a), names.index(b)
            table[i][j] = table[j][i] = _mean(getattr(pair, metric))
    return table


def _queue(correlations: tuple[float, ...], mine: Mapping[str, _Pair], top: float) -> list[dict[str, Any]]:
    """The images on which the methods disagree most, worst first, each with the method that disagrees most."""
    order = sorted((value, i) for i, value in enumerate(correlations) if not math.isnan(value))[:QUEUE]
    found = []
    for value, i in order:
        other = min(mine, key=lambda name: float(mine[name].rank_correlation[i]))
        pair = mine[other]
        reason = (
            f"rank correlation {float(pair.rank_correlation[i]):.2f} with {other}, {100 * float(pair.top_overlap[i]):.0f} % "
            f"of the top {100 * top:g} % in common (chance {100 * cells_of_top(top, c := math.prod(pair.grid)) / c:.0f} %)."
        )
        found.append({"image": i, "score": value, "reason": reason})
    return found


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None

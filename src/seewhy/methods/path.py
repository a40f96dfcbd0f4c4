"""Path methods: the gradient integrated along a path of pictures from "nothing there" to the image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import UsageError, known_name, real_number, whole_number
from seewhy.maps import Maps
from seewhy.methods.quadrature import (
    FIRST_INTERVALS,
    LEAST_ROWS,
    PANELS,
    RULES,
    Path,
    Tolerance,
    integrate,
    maps_of,
    straight,
)
from seewhy.methods.steps import Channels, background, by_groups, check_channels
from seewhy.model import VisionModel
from seewhy.perturb import Diffusion, baseline_reason
from seewhy.registry import method
from seewhy.target import Target

Baseline = str | Tensor | Sequence[str | Tensor]


@dataclass(frozen=True)
class Effort:
    """How an integral is taken: the settings that a preset fixes."""

    rule: str = "adaptive"
    tolerance: float = 0.05
    path_tolerance: float | None = None  # None: as tolerance
    max_rows: int = 512

    @property
    def limits(self) -> Tolerance:
        """As the integral takes them."""
        return Tolerance(
            self.tolerance, self.tolerance if self.path_tolerance is None else self.path_tolerance, self.max_rows
        )


PRESETS = {"compliance": Effort("adaptive", 0.01, 0.05, 2000)}


@method(
    title="Integrated Gradients",
    family="path",
    rows=lambda p: _rows(p["rule"], p["preset"], p["max_rows"], p["steps"], _count(p["baseline"])),
    resolution="input",
    picture="signed",
    complete=True,
    cost="adaptive: 37 to max_rows gradient rows + 1 forward row; other rules: steps gradient rows + 2 forward rows; "
    "times the number of baselines",
    paper="Sundararajan et al. 2017, arXiv:1703.01365, equations 1 and 3",
    good_for="documentation: the parts sum to the score, and the gap is known (Sundararajan 2017)",
    not_for="saying what a picture without a feature would score: the baseline decides what can be seen (Sturmfels 2020)",
    randomization="signed: changes at once; absolute values keep looking like the image (Adebayo 2018; Sundararajan 2018)",
)
def integrated_gradients(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    baseline: Baseline = "black",
    baseline_reason: str | None = None,
    rule: str = "adaptive",
    steps: int = 50,
    tolerance: float = 0.05,
    path_tolerance: float | None = None,
    max_rows: int = 512,
    preset: str | None = None,
    channels: Channels = "sum",
    intervals: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
) -> Maps:
    """How the difference to a baseline picture is shared out over the pixels; the map sums to it.

    M_i = (x_i - x'_i) integral_0^1 dS/dx_i (x' + a (x - x')) da, x' the baseline in pixel space; several baselines give
    the mean of their maps. The paper sums by the right Riemann rule (`rule="right"`, its authors' code by the trapezoid
    rule), which is far off on real networks. `adaptive` (default) bisects where the path bends: per image, a nested
    trapezoid rule on 8 panels, the worst refined, once at least, until the relative gap is <= tolerance and the path
    error <= path_tolerance, or max_rows gradient rows a baseline are spent. Rules other than `adaptive` take `steps` nodes
    (trapezoid: steps + 1). Nothing is rescaled to make the sum fit. preset="compliance": adaptive, gap <= 1 %, path
    error <= 5 %, at most 2,000 rows. baseline_reason: why this baseline, for the record (each named one has a default).
    intervals: per image those of its 8 panels (of every baseline, one after the other), as an earlier call chose them
    (Maps.chosen): the same nodes again, none added; powers of two from 4 on. seed: of the baseline "noise".
    Evidence: completeness_gap = |sum M - (S(x) - S(x'))|, completeness_gap_relative (by |S(x) - S(x')|), path_error =
    the relative L1 distance of M to the integral, estimated: 1 / sqrt(3) of that to the map of every second node, as
    it is for integrands that jump (ReLU networks; less is missed of smooth ones); of rules other than adaptive and
    trapezoid that distance itself (each node carrying its neighbor's weight); converged, gradient_rows, forward_rows.
    UsageError for an unknown rule or baseline; RefusalError for a named baseline on a network whose pixel bounds are
    unknown.
    """
    effort = _effort(preset, Effort(rule, tolerance, path_tolerance, max_rows))
    limits = _checked(effort, steps, channels)
    starts = [background(model, images, one, seed) for one in _several(baseline)]
    nodes = _given(intervals, effort.rule, len(images), len(starts))

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        end, integrals = images[part].to(model.device), []
        for start, panels in zip(starts, nodes, strict=True):
            path, own = straight(model, start[part], end), None if panels is None else panels[part]
            integrals.append(integrate(path, question, rows, effort.rule, steps, limits, channels, own))
            question = integrals[0].target
        return maps_of(integrals, limits, channels)

    reason = _reason(baseline) if baseline_reason is None else baseline_reason
    return replace(by_groups(model, images, target, run), parameters={**asdict(effort), "baseline_reason": reason})


@method(
    title="Blur Integrated Gradients",
    family="path",
    rows=lambda p: _rows(p["rule"], None, p["max_rows"], p["steps"], 1),
    resolution="input",
    picture="signed",
    complete=True,
    cost="adaptive: 37 to max_rows gradient rows + 1 forward row; other rules: steps gradient rows + 2 forward rows",
    paper="Xu et al. 2020, arXiv:2004.03383, equation 4",
    good_for="images without a color that means nothing: the path adds detail, not light (Xu 2020)",
    not_for="evidence in large even areas: a blur does not take them away (formula)",
    randomization="not reported",
)
def blur_integrated_gradients(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    max_sigma: float = 50.0,
    rule: str = "adaptive",
    steps: int = 50,
    tolerance: float = 0.05,
    path_tolerance: float | None = None,
    max_rows: int = 512,
    channels: Channels = "sum",
    intervals: Sequence[Sequence[int]] | None = None,
) -> Maps:
    """Integrated Gradients along the path that takes a Gaussian blur away: how much each scale of detail adds.

    M_i = integral dS/dx_i (L(s)) dL_i/ds ds over s from max_sigma to 0, L(s) the image blurred with sigma s in pixels;
    the map sums to S(x) - S(L(max_sigma)). s falls evenly, as in the authors' code. The blur is heat flow with mirrored
    borders, exact in the cosine basis for every s, so L(0) = x and dL/ds needs no finite difference (the authors
    difference by 0.01 and pad with zeros, which darkens the borders of L).
    Rules, tolerances, intervals, evidence and errors as in integrated_gradients.
    """
    limits = _checked(Effort(rule, tolerance, path_tolerance, max_rows), steps, channels)
    real_number("max_sigma", max_sigma, at_least=0, above=True)
    (nodes,) = _given(intervals, rule, len(images), 1)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        heat = Diffusion(x)

        def point(image: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
            blurred, slope = heat.at(image, max_sigma * (1 - a))
            return blurred, -max_sigma * slope

        everyone = torch.arange(len(x), device=x.device)
        start, _ = heat.at(everyone, torch.full((len(x),), max_sigma, dtype=x.dtype, device=x.device))
        path, own = Path(model, start, x, point), None if nodes is None else nodes[part]
        return maps_of([integrate(path, question, rows, rule, steps, limits, channels, own)], limits, channels)

    return by_groups(model, images, target, run)


def _given(
    intervals: Sequence[Sequence[int]] | None, rule: str, n: int, baselines: int
) -> list[list[list[int]] | None]:
    """Per baseline and image the intervals of its panels; UsageError where no earlier call can have chosen them."""
    if intervals is None:
        return [None] * baselines
    if rule != "adaptive":
        raise UsageError(f"intervals are those of the adaptive rule; rule={rule!r} takes `steps` nodes.")
    rows = [[int(one) for one in several] for several in intervals]
    if len(rows) != n or any(len(row) != PANELS * baselines for row in rows):
        raise UsageError(
            f"intervals has {len(rows)} rows of {sorted({len(row) for row in rows})} numbers; {n} images and {baselines} "
            f"baseline(s) need {n} rows of {PANELS * baselines}: give what Maps.chosen of an earlier call holds."
        )
    bad = next((one for row in rows for one in row if one < FIRST_INTERVALS or one & (one - 1)), None)
    if bad is not None:
        raise UsageError(
            f"a panel has {FIRST_INTERVALS}, {2 * FIRST_INTERVALS}, {4 * FIRST_INTERVALS}, ... intervals, not {bad}."
        )
    return [[row[PANELS * b : PANELS * (b + 1)] for row in rows] for b in range(baselines)]


def _several(baseline: Baseline) -> list[str | Tensor]:
    several: list[Any] = list(baseline) if isinstance(baseline, list | tuple) else [baseline]
    if not several:
        raise UsageError("no baseline was given.")
    return several


def _count(baseline: Baseline) -> int:
    return len(baseline) if isinstance(baseline, list | tuple) else 1


def _reason(baseline: Baseline) -> str:
    return "; ".join(baseline_reason(one) for one in _several(baseline))


def _rows(rule: str, preset: str | None, max_rows: int, steps: int, baselines: int) -> tuple[int, int]:
    effort = _effort(preset, Effort(rule=rule, max_rows=max_rows))
    forward, gradient = (1, effort.max_rows) if effort.rule == "adaptive" else (2, steps + (rule == "trapezoid"))
    return forward * baselines, gradient * baselines


def _effort(preset: str | None, given: Effort) -> Effort:
    """The preset's settings; UsageError where one was given as well and says something else."""
    if preset is None:
        return given
    known_name("preset", preset, PRESETS)
    wanted = PRESETS[preset]
    for name, value in asdict(given).items():
        if value not in (getattr(Effort(), name), getattr(wanted, name)):
            raise UsageError(
                f"preset {preset!r} means {name}={getattr(wanted, name)!r}; {name}={value!r} was given too."
            )
    return wanted


def _checked(effort: Effort, steps: int, channels: str) -> Tolerance:
    check_channels(channels)
    whole_number("steps", steps, at_least=1)
    whole_number("max_rows", effort.max_rows, at_least=1)
    real_number("tolerance", effort.tolerance, at_least=0, above=True)
    if effort.path_tolerance is not None:
        real_number("path_tolerance", effort.path_tolerance, at_least=0, above=True)
    known_name("rule", effort.rule, RULES)
    if effort.rule == "adaptive" and effort.max_rows < LEAST_ROWS:
        raise UsageError(
            f"the adaptive rule takes up to {LEAST_ROWS} rows to look twice; max_rows={effort.max_rows} is less. Use a fixed "
            "rule."
        )
    return effort.limits

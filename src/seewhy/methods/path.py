"""Path methods: the gradient integrated along a line from a baseline picture to the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import UsageError, near_names, real_number, whole_number
from seewhy.methods.maps import (
    Channels,
    Maps,
    background,
    by_groups,
    check_channels,
    clean_run,
    norm,
    per_image,
    reduce_channels,
)
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

RULES = ("adaptive", "right", "left", "midpoint", "trapezoid", "gauss_legendre")
PANELS = 8  # of the adaptive rule; its memory is two maps a panel, whatever the number of rows
FIRST_INTERVALS = 8  # per panel: 65 rows to begin with


@method(
    title="Integrated Gradients",
    family="path",
    rows=lambda p: (1, p["max_rows"]) if p["rule"] == "adaptive" else (2, p["steps"] + 1),
    resolution="input",
    picture="signed",
    complete=True,
    cost="adaptive: 65 to max_rows gradient rows; fixed rules: steps gradient rows + 2 forward rows",
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
    baseline: str | Tensor = "black",
    rule: str = "adaptive",
    steps: int = 50,
    tolerance: float = 0.05,
    max_rows: int = 512,
    channels: Channels = "sum",
) -> Maps:
    """How the difference to a baseline picture is shared out over the pixels; the map sums to it.

    M_i = (x_i - x'_i) integral_0^1 dS/dx_i (x' + a (x - x')) da, x' the baseline in pixel space. The paper sums by the
    right Riemann rule (`rule="right"`, its authors' code by the trapezoid rule), which is far off on real networks.
    `adaptive` (default) bisects where the path bends: per image, a nested trapezoid rule on 8 panels, the worst refined
    until completeness gap and path error are both <= tolerance, or max_rows gradient rows are spent. Rules other than
    `adaptive` take `steps` nodes (trapezoid: steps + 1). Nothing is rescaled to make the sum fit.
    Evidence: completeness_gap = |sum M - (S(x) - S(x'))|, completeness_gap_relative (by |S(x) - S(x')|), path_error =
    relative L1 distance to the map of every second node (each carrying its neighbor's weight), converged,
    gradient_rows, forward_rows. UsageError for an unknown rule or baseline; RefusalError for a named baseline on a
    network whose pixel bounds are unknown.
    """
    _check(rule, steps, tolerance, max_rows)
    check_channels(channels)
    start = background(model, images, baseline)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        line = _Line(model, start[part], images[part].to(model.device) - start[part])
        if rule == "adaptive":
            return _adaptive(line, question, rows, tolerance, max_rows, channels)
        return _fixed(line, question, rows, rule, steps, tolerance, channels)

    return by_groups(model, images, target, run)


@dataclass(frozen=True)
class _Line:
    """The straight path x'(a) = start + a * difference of g images."""

    model: VisionModel
    start: Tensor  # (g, C, *axes)
    difference: Tensor

    def gradients(self, images: Tensor, alphas: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """dS/dx at node alphas[r] of image images[r], and S there: (R, C, *axes), (R,)."""
        x = self.start[images] + per_image(alphas, self.start) * self.difference[images]
        slope, answer = self.model.input_gradients(x, target, images)
        return slope, answer.values


def nodes_and_weights(rule: str, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Nodes a_k in [0, 1], their weights, and the weights of the coarser half: every second node with its neighbor's."""
    k = np.arange(steps, dtype=np.float64)
    if rule == "trapezoid":
        nodes, weights = np.linspace(0, 1, steps + 1), np.full(steps + 1, 1 / steps)
        weights[[0, -1]] /= 2
        kept = np.union1d(np.arange(0, steps + 1, 2), [steps])
        gaps = np.diff(nodes[kept])
        coarse = np.zeros(steps + 1)
        coarse[kept] = (np.append(gaps, 0) + np.append(0, gaps)) / 2
        return nodes, weights, coarse
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    else:
        offset = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[rule]
        nodes, weights = (k + offset) / steps, np.full(steps, 1 / steps)
    coarse = np.zeros(steps)
    first = steps % 2 if rule != "left" else 0  # the right rule keeps its last node, the left rule its first
    kept = np.arange(0 if rule == "left" else 1 - first, steps, 2)
    owner = kept[np.minimum(np.arange(steps) // 2, len(kept) - 1)]
    np.add.at(coarse, owner, weights)
    return nodes, weights, coarse


def _fixed(line: _Line, question: Target, rows: Tensor, rule: str, steps: int, tolerance: float, channels: str) -> Maps:
    """The same nodes for every image: rows are node-major, sums run in place, memory is flat in steps."""
    model, g, device = line.model, len(line.start), line.start.device
    settled, values, outputs = clean_run(model, line.start + line.difference, question, rows)
    _, base, _ = clean_run(model, line.start, settled, rows)
    alphas, *weights = (torch.from_numpy(a).float().to(device) for a in nodes_and_weights(rule, steps))
    sums = torch.zeros(2, *line.start.shape, dtype=torch.float32, device=device)

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=device)
        images, node = r % g, r // g
        slope, _ = line.gradients(images, alphas[node], settled)
        for total, weight in zip(sums, weights, strict=True):
            total.index_add_(0, images, per_image(weight[node], slope) * slope)

    model.in_batches(len(alphas) * g, line.start.shape[1:], run)
    count = torch.full((g,), len(alphas), device=device)
    evidence = {"gradient_rows": count, "forward_rows": torch.full_like(count, 2)}
    return _maps(line, sums[0], sums[1], settled, values, base, outputs, tolerance, channels, evidence)


def _maps(
    line: _Line,
    fine: Tensor,
    coarse: Tensor,
    settled: Target,
    values: Tensor,
    base: Tensor,
    outputs: Tensor | None,
    tolerance: float,
    channels: str,
    rows: dict[str, Tensor],
) -> Maps:
    """Maps and evidence from the mean gradients of the fine and the coarse rule."""
    shares, halves = fine * line.difference, coarse * line.difference
    raw = reduce_channels(shares, channels)
    gap, relative = _gap(shares, values - base)
    error = _relative_l1(raw, reduce_channels(halves, channels))
    evidence = {
        "completeness_gap": gap,
        "completeness_gap_relative": relative,
        "path_error": error,
        "converged": (relative <= tolerance) & (error <= tolerance),
        "gradient_norm": norm(fine),
        "score_difference": values - base,
        **rows,
    }
    return Maps(raw, settled, values, outputs, evidence)


def _adaptive(line: _Line, question: Target, rows: Tensor, tolerance: float, max_rows: int, channels: str) -> Maps:
    """Refine each image's worst panels, by its own numbers, until gap and path error are under tolerance."""
    model, g, device = line.model, len(line.start), line.start.device
    settled, _, outputs = clean_run(model, line.start + line.difference, question, rows)
    panels = _Panels(line, settled)
    panels.add([(i, p, FIRST_INTERVALS) for i in range(g) for p in range(PANELS)], first=True)
    while True:
        todo = [
            (i, p, int(panels.intervals[i, p]))
            for i in range(g)
            for p in panels.worst(i, tolerance, max_rows, channels)
        ]
        if not todo:
            break
        panels.add(todo, first=False)
    evidence = {
        "gradient_rows": torch.from_numpy(panels.rows).to(device),
        "forward_rows": torch.ones(g, dtype=torch.long, device=device),
    }
    base, values = panels.edges[:, 0], panels.edges[:, -1]
    fine, coarse = panels.fine.sum(1), panels.coarse.sum(1)
    return _maps(line, fine, coarse, settled, values, base, outputs, tolerance, channels, evidence)


class _Panels:
    """Nested trapezoid sums on PANELS equal parts of each path; no node is ever computed twice or thrown away."""

    def __init__(self, line: _Line, target: Target) -> None:
        g, device = len(line.start), line.start.device
        self.line, self.target = line, target
        self.fine = torch.zeros(
            g, PANELS, *line.start.shape[1:], dtype=torch.float32, device=device
        )  # integral of dS/dx over each panel
        self.coarse = torch.zeros_like(self.fine)  # the same from every second node
        self.edges = torch.zeros(g, PANELS + 1, dtype=torch.float32, device=device)  # S at the panels' ends
        self.intervals = np.full((g, PANELS), FIRST_INTERVALS)
        self.rows = np.zeros(g, dtype=np.int64)
        self.settled = np.zeros(g, dtype=bool)

    def add(self, todo: Sequence[tuple[int, int, int]], *, first: bool) -> None:
        """Compute the new nodes of some (image, panel, intervals) and put them into the sums.

        first: the nodes k/n of each panel (its left end belongs to the panel before it as well); else: the midpoints of
        its n intervals, which halves them.
        """
        nodes: list[tuple[int, float, int, float, float]] = []  # image, alpha, panel, weight, weight in the coarse sum
        for i, p, n in todo:
            if first:
                last = 1 if p == PANELS - 1 else 0
                nodes += [(i, (p + k / n) / PANELS, p, *_weights(k, n)) for k in range(n + last)]
                self.rows[i] += n + last
            else:
                self.coarse[i, p] = self.fine[i, p]
                self.fine[i, p] /= 2
                nodes += [(i, (p + (k + 0.5) / n) / PANELS, p, 1 / (2 * n * PANELS), 0.0) for k in range(n)]
                self.intervals[i, p] *= 2
                self.rows[i] += n
        columns = [torch.tensor(column, device=self.fine.device) for column in zip(*nodes, strict=True)]
        self.line.model.in_batches(len(nodes), self.line.start.shape[1:], lambda part: self._batch(columns, part))

    def _batch(self, columns: list[Tensor], part: slice) -> None:
        images, alphas, panel, weight, half = (column[part] for column in columns)
        slope, values = self.line.gradients(images, alphas.float(), self.target)
        self._accumulate(images, panel, slope, weight, half)
        at_edge = alphas * PANELS == (alphas * PANELS).round()  # exact: nodes are multiples of powers of 1/2
        if at_edge.any():  # a panel's left end is the right end of the one before it
            edge = (alphas * PANELS).round().long()
            self.edges[images[at_edge], edge[at_edge]] = values[at_edge].float()
            shared = at_edge & (edge > 0) & (edge < PANELS)
            before = (images[shared], panel[shared] - 1, slope[shared], weight[shared], half[shared])
            self._accumulate(*before)

    def _accumulate(self, images: Tensor, panel: Tensor, slope: Tensor, weight: Tensor, half: Tensor) -> None:
        slot = images * PANELS + panel
        for sums, w in ((self.fine, weight), (self.coarse, half)):
            sums.view(-1, *slope.shape[1:]).index_add_(0, slot, per_image(w.float(), slope) * slope)

    def worst(self, i: int, tolerance: float, max_rows: int, channels: str) -> list[int]:
        """Image i's panels to refine next: those at least half as bad as the worst, within max_rows; [] when done."""
        if self.settled[i]:
            return []
        difference, change = self.line.difference[i], self.edges[i, -1] - self.edges[i, 0]
        fine, coarse = self.fine[i] * difference, self.coarse[i] * difference
        total = reduce_channels(fine.sum(0)[None], channels)
        error = float(_relative_l1(total, reduce_channels(coarse.sum(0)[None], channels)))
        gap = float(_gap(fine.sum(0)[None], change[None])[1])
        gaps = (fine.flatten(1).sum(1) - self.edges[i].diff()).abs() / change.abs().clamp_min(
            torch.finfo(torch.float32).tiny
        )
        errors = (fine - coarse).abs().flatten(1).sum(1) / fine.sum(0).abs().sum().clamp_min(
            torch.finfo(torch.float32).tiny
        )
        badness = torch.maximum(gaps, errors).cpu().numpy()
        chosen, budget = [], max_rows - int(self.rows[i])
        if error > tolerance or gap > tolerance:
            for p in np.argsort(-badness, kind="stable"):
                if badness[p] >= badness.max() / 2 and self.intervals[i, p] <= budget:
                    chosen.append(int(p))
                    budget -= int(self.intervals[i, p])
        self.settled[i] = not chosen
        return chosen


def _weights(k: int, n: int) -> tuple[float, float]:
    """Trapezoid weights of node k of n intervals on one panel: fine, and coarse (every second node)."""
    h = 1 / (n * PANELS)
    end = 0.5 if k in (0, n) else 1.0
    return h * end, 2 * h * end if k % 2 == 0 else 0.0


def _gap(shares: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """|sum M - change|, and the same over |change|: 0 where both vanish, inf where only the change does."""
    gap = (shares.flatten(1).sum(1) - change).abs()
    return gap, torch.where(gap == 0, gap, gap / change.abs())


def _relative_l1(fine: Tensor, coarse: Tensor) -> Tensor:
    """|fine - coarse|_1 / |fine|_1 per image: 0 where both vanish, inf where only the fine one does."""
    distance = (fine - coarse).abs().flatten(1).sum(1)
    return torch.where(distance == 0, distance, distance / fine.abs().flatten(1).sum(1))


def _check(rule: str, steps: int, tolerance: float, max_rows: int) -> None:
    whole_number("steps", steps, at_least=1)
    whole_number("max_rows", max_rows, at_least=1)
    real_number("tolerance", tolerance, at_least=0, above=True)
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}: {near_names(str(rule), RULES)}")
    least = PANELS * FIRST_INTERVALS + 1
    if rule == "adaptive" and max_rows < least:
        raise UsageError(f"the adaptive rule begins with {least} rows; max_rows={max_rows} is less. Use a fixed rule.")

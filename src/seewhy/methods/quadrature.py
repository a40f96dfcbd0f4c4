"""Integrals of the gradient along a path of pictures: fixed rules and an adaptive one, each with its own error."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.maps import Maps
from seewhy.methods.steps import clean_run, completeness, norm, per_image, reduce_channels
from seewhy.model import VisionModel
from seewhy.target import Target

RULES = ("adaptive", "right", "left", "midpoint", "trapezoid", "gauss_legendre")
PANELS = 8  # of the adaptive rule; its memory is two maps a panel, whatever the number of rows
FIRST_INTERVALS = 4  # per panel: 33 rows to begin with, and at least a panel's 4 more: a first look may be a lucky one
LEAST_ROWS = 2 * PANELS * FIRST_INTERVALS + 1  # to look twice, wherever that is needed
# Of a jump of height J anywhere between two nodes that are 2 h apart, a trapezoid sum with steps of h misses up to J h / 2,
# evenly: J h / sqrt(12) in the root mean square. It differs by J h / 2 from the sum with steps of 2 h. The gradient of a
# ReLU network along a path is made of such jumps; where a gradient is smooth, a third of the difference is missed.
ERROR_OF_TRAPEZOID = 1 / math.sqrt(3)


@dataclass(frozen=True)
class Tolerance:
    """When an integral counts as converged, and what may be spent on it."""

    gap: float  # relative completeness gap
    path: float  # path error
    max_rows: int = 0  # of the adaptive rule


@dataclass(frozen=True)
class Path:
    """A curve of pictures x(a), from x(0) = start to x(1) = end, for g images."""

    model: VisionModel
    start: Tensor  # (g, C, *axes)
    end: Tensor
    point: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images, a: (R,) -> x(a) and dx/da, (R, C, *axes)

    def integrand(self, images: Tensor, a: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """dS/dx * dx/da at node a[r] of image images[r], (R, C, *axes); the norm of dS/dx and S there, (R,)."""
        x, velocity = self.point(images, a)
        slope, answer = self.model.input_gradients(x, target, images)
        return slope * velocity, norm(slope), answer.values


@dataclass(frozen=True)
class Integral:
    """What one path gave for g images."""

    shares: Tensor  # (g, C, *axes): the integral of dS/dx * dx/da
    coarse: Tensor  # the same from every second node
    error: float  # of `shares`, as a share of their distance to `coarse`; 1 where nothing better is known
    change: Tensor  # S(end) - S(start), (g,)
    gradient_norm: Tensor  # mean L2 norm of dS/dx over the nodes, (g,)
    gradient_rows: Tensor
    forward_rows: Tensor
    target: Target  # settled
    values: Tensor  # S(end), (g,)
    outputs: Tensor | None
    intervals: list[list[int]] | None = None  # of the adaptive rule: per image those of its panels


def straight(model: VisionModel, start: Tensor, end: Tensor) -> Path:
    """The straight line between two pictures."""
    difference = end - start

    def point(images: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return start[images] + per_image(a, start) * difference[images], difference[images]

    return Path(model, start, end, point)


def maps_of(integrals: Sequence[Integral], tolerance: Tolerance, channels: str) -> Maps:
    """Maps and evidence of the mean over one or more paths to the same images."""
    first, n = integrals[0], len(integrals)

    def mean(values: Sequence[Tensor]) -> Tensor:
        return sum(values[1:], values[0]) / n

    shares, change = mean([i.shares for i in integrals]), mean([i.change for i in integrals])
    raw = reduce_channels(shares, channels)
    complete = completeness(shares, change)
    error = first.error * relative_l1(raw, reduce_channels(mean([i.coarse for i in integrals]), channels))
    evidence = {
        **complete,
        "path_error": error,
        "converged": (complete["completeness_gap_relative"] <= tolerance.gap) & (error <= tolerance.path),
        "gradient_norm": mean([i.gradient_norm for i in integrals]),
        "gradient_rows": torch.stack([i.gradient_rows for i in integrals]).sum(0),
        "forward_rows": torch.stack([i.forward_rows for i in integrals]).sum(0),
    }
    each = [i.intervals for i in integrals if i.intervals is not None]
    chosen = {"intervals": [[n for one in several for n in one] for several in zip(*each, strict=True)]} if each else {}
    return Maps(raw, first.target, first.values, first.outputs, evidence, chosen=chosen)


def integrate(
    path: Path,
    target: Target,
    rows: Tensor,
    rule: str,
    steps: int,
    tolerance: Tolerance,
    channels: str,
    intervals: Sequence[Sequence[int]] | None = None,
) -> Integral:
    """The integral along a path by a rule of `steps` nodes (trapezoid: steps + 1), or by the adaptive one.

    intervals: those of the panels of each image, as the adaptive rule chose them in an earlier call; none is added.
    """
    if rule == "adaptive":
        return _adaptive(path, target, rows, tolerance, channels, intervals)
    return _fixed(path, target, rows, rule, steps)


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


def _fixed(path: Path, question: Target, rows: Tensor, rule: str, steps: int) -> Integral:
    """The same nodes for every image: rows are node-major, sums run in place, memory is flat in steps."""
    model, g, device = path.model, len(path.start), path.start.device
    settled, values, outputs = clean_run(model, path.end, question, rows)
    _, base, _ = clean_run(model, path.start, settled, rows)
    nodes, *weights = (torch.from_numpy(a).float().to(device) for a in nodes_and_weights(rule, steps))
    sums = torch.zeros(2, *path.start.shape, dtype=torch.float32, device=device)
    slopes = torch.zeros(g, dtype=torch.float32, device=device)

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=device)
        images, node = r % g, r // g
        shares, slope, _ = path.integrand(images, nodes[node], settled)
        slopes.index_add_(0, images, slope)
        for total, weight in zip(sums, weights, strict=True):
            total.index_add_(0, images, per_image(weight[node], shares) * shares)

    model.in_batches(len(nodes) * g, path.start.shape[1:], run)
    count = torch.full((g,), len(nodes), device=device)
    change, twice = values - base, torch.full_like(count, 2)
    error = ERROR_OF_TRAPEZOID if rule == "trapezoid" else 1.0
    return Integral(sums[0], sums[1], error, change, slopes / len(nodes), count, twice, settled, values, outputs)


def _adaptive(
    path: Path,
    question: Target,
    rows: Tensor,
    tolerance: Tolerance,
    channels: str,
    intervals: Sequence[Sequence[int]] | None,
) -> Integral:
    """Refine each image's worst panels, by its own numbers, until gap and path error are under tolerance."""
    model, g, device = path.model, len(path.start), path.start.device
    settled, _, outputs = clean_run(model, path.end, question, rows)
    panels = _Panels(path, settled)
    if intervals is not None:
        panels.intervals[:] = intervals
    panels.add([(i, p, int(panels.intervals[i, p])) for i in range(g) for p in range(PANELS)], first=True)
    while intervals is None:
        todo = [(i, p, int(panels.intervals[i, p])) for i in range(g) for p in panels.worst(i, tolerance, channels)]
        if not todo:
            break
        panels.add(todo, first=False)
    count = torch.from_numpy(panels.rows).to(device)
    base, values = panels.edges[:, 0], panels.edges[:, -1]
    once = torch.ones_like(count)
    fine, coarse = panels.fine.sum(1), panels.coarse.sum(1)
    change, slopes, taken = values - base, panels.slopes / count, panels.intervals.tolist()
    return Integral(fine, coarse, ERROR_OF_TRAPEZOID, change, slopes, count, once, settled, values, outputs, taken)


class _Panels:
    """Nested trapezoid sums on PANELS equal parts of each path; no node is ever computed twice or thrown away."""

    def __init__(self, path: Path, target: Target) -> None:
        g, device = len(path.start), path.start.device
        self.path, self.target = path, target
        self.fine = torch.zeros(g, PANELS, *path.start.shape[1:], dtype=torch.float32, device=device)  # over each panel
        self.coarse = torch.zeros_like(self.fine)  # the same from every second node
        self.edges = torch.zeros(g, PANELS + 1, dtype=torch.float32, device=device)  # S at the panels' ends
        self.slopes = torch.zeros(g, dtype=torch.float32, device=device)  # sum of the norms of dS/dx
        self.intervals = np.full((g, PANELS), FIRST_INTERVALS)
        self.rows = np.zeros(g, dtype=np.int64)
        self.settled = np.zeros(g, dtype=bool)

    def add(self, todo: Sequence[tuple[int, int, int]], *, first: bool) -> None:
        """Compute the new nodes of some (image, panel, intervals) and put them into the sums.

        first: the nodes k/n of each panel (its left end belongs to the panel before it as well); else: the midpoints of
        its n intervals, which halves them.
        """
        # image, alpha, panel, weight, weight in the coarse sum, and both in the sums of the panel before
        nodes: list[tuple[int, float, int, float, float, float, float]] = []
        for i, p, n in todo:
            if first:
                last = 1 if p == PANELS - 1 else 0
                before = int(self.intervals[i, p - 1]) if p else n
                shared = _weights(before, before)
                nodes += [(i, (p + k / n) / PANELS, p, *_weights(k, n), *shared) for k in range(n + last)]
                self.rows[i] += n + last
            else:
                self.coarse[i, p] = self.fine[i, p]
                self.fine[i, p] /= 2
                nodes += [(i, (p + (k + 0.5) / n) / PANELS, p, 1 / (2 * n * PANELS), 0.0, 0.0, 0.0) for k in range(n)]
                self.intervals[i, p] *= 2
                self.rows[i] += n
        columns = [torch.tensor(column, device=self.fine.device) for column in zip(*nodes, strict=True)]
        self.path.model.in_batches(len(nodes), self.path.start.shape[1:], lambda part: self._batch(columns, part))

    def _batch(self, columns: list[Tensor], part: slice) -> None:
        images, alphas, panel, weight, half, *of_before = (column[part] for column in columns)
        shares, slope, values = self.path.integrand(images, alphas.float(), self.target)
        self.slopes.index_add_(0, images, slope)
        self._accumulate(images, panel, shares, weight, half)
        at_edge = alphas * PANELS == (alphas * PANELS).round()  # exact: nodes are multiples of powers of 1/2
        if at_edge.any():  # a panel's left end is the right end of the one before it
            edge = (alphas * PANELS).round().long()
            self.edges[images[at_edge], edge[at_edge]] = values[at_edge].float()
            shared = at_edge & (edge > 0) & (edge < PANELS)
            weights = (w[shared] for w in of_before)
            self._accumulate(images[shared], panel[shared] - 1, shares[shared], *weights)

    def _accumulate(self, images: Tensor, panel: Tensor, shares: Tensor, weight: Tensor, half: Tensor) -> None:
        slot = images * PANELS + panel
        for sums, w in ((self.fine, weight), (self.coarse, half)):
            sums.view(-1, *shares.shape[1:]).index_add_(0, slot, per_image(w.float(), shares) * shares)

    def worst(self, i: int, tolerance: Tolerance, channels: str) -> list[int]:
        """Image i's panels to refine next: those at least half as bad as the worst, within max_rows; [] when done."""
        if self.settled[i]:
            return []
        change, fine, coarse = self.edges[i, -1] - self.edges[i, 0], self.fine[i], self.coarse[i]
        total = reduce_channels(fine.sum(0)[None], channels)
        error = ERROR_OF_TRAPEZOID * float(relative_l1(total, reduce_channels(coarse.sum(0)[None], channels)))
        gap = float(completeness(fine.sum(0)[None], change[None])["completeness_gap_relative"])
        tiny = torch.finfo(torch.float32).tiny
        gaps = (fine.flatten(1).sum(1) - self.edges[i].diff()).abs() / change.abs().clamp_min(tiny)
        errors = (fine - coarse).abs().flatten(1).sum(1) / fine.sum(0).abs().sum().clamp_min(tiny) * ERROR_OF_TRAPEZOID
        badness = torch.maximum(gaps / tolerance.gap, errors / tolerance.path).cpu().numpy()
        chosen, budget = [], tolerance.max_rows - int(self.rows[i])
        if error > tolerance.path or gap > tolerance.gap or self.rows[i] == PANELS * FIRST_INTERVALS + 1:
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


def relative_l1(fine: Tensor, coarse: Tensor) -> Tensor:
    """|fine - coarse|_1 / |fine|_1 per image: 0 where both vanish, inf where only the fine one does."""
    distance = (fine - coarse).abs().flatten(1).sum(1)
    return torch.where(distance == 0, distance, distance / fine.abs().flatten(1).sum(1))

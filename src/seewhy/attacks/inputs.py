"""Attacks on the pixels: images that look and are answered as before, with other maps (Dombrowski 2019, Ghorbani 2019)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.attacks.changes import (
    PICTURES,
    Picture,
    centers,
    compared,
    image_scores,
    map_scores,
    on_grids,
    shares,
    top_cells,
)
from seewhy.attacks.result import Attacked, agreement, attack, movement, top_class
from seewhy.capture import SoftReLUs
from seewhy.checks.result import Curve, Score, excluded, score
from seewhy.errors import RefusalError, UsageError, known_name, real_number, whole_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction, Maps, same_steps, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.softening import with_soft_relus
from seewhy.target import Target, Task, scores

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Goal = Literal["top_k", "mass_center", "target"]
GOALS = ("top_k", "mass_center", "target")
PAPER_CELLS, PAPER_CLASSES = 224 * 224, 1000  # of the maps and outputs that Dombrowski's weights are for
TOP = 1000 / PAPER_CELLS  # Ghorbani's k
STRENGTHS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
POINTS = 5  # of a curve over steps, besides its start


@attack
def targeted_manipulation(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    toward: Tensor,
    picture: Picture = "absolute",
    steps: int = 1500,
    learning_rate: float = 2e-4,
    map_weight: float = 1e11,
    output_weight: float = 1e6,
    beta: tuple[float, float] = (10.0, 100.0),
    top: float = TOP,
    labels: Tensor | None = None,
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Change the pixels of each image a little, so that its map becomes one of your choice and the answer stays.

    min over x' in [0, 1] of map_weight MSE(h(x'), t) + output_weight MSE(p(x'), p(x)); h = |M| / sum |M| (`picture`:
    "absolute"; "positive": ReLU(M) for CAMs, "signed": M), t = `toward` in the same form, p the probabilities (of a
    regression the outputs). Adam, `steps` of `learning_rate` in pixel units, clipped to [0, 1] after each; ReLUs are softplus
    meanwhile, beta from the first to the second number in equal ratios, as a ReLU has no second derivative. Everything
    reported is of the ReLU network. toward: (H, W) or (N, H, W), a map of another image, or a mask: its mean over each cell
    of the maps' grid. The weights are those of the paper's code for maps of 224 x 224 cells that sum to 1, and 1,000
    classes; both terms are scaled so that they weigh the same on any grid (map_weight by (cells / 224^2)^2, output_weight
    by classes / 1000). maps: bound with differentiable=True. The control changes each pixel by the image's own largest
    change with a random sign, `draws` times; where that changes the prediction it is left out.
    Source: Dombrowski et al. 2019, arXiv:1906.07983, section 3 and code; which clamps image 0 of a batch only, and takes
    |.| before the sum over channels: bind("gradient", channels="sum_abs"). UsageError for what cannot be meant, maps
    without a graph, or a network without a table of scores; RefusalError for unknown pixel bounds or scripted code.
    """
    for name, value in (("learning_rate", learning_rate), ("map_weight", map_weight), ("output_weight", output_weight)):
        real_number(name, value, at_least=0, above=name == "learning_rate")
    _check(steps, draws, top, picture, beta)
    with model.guarded(seed), capture.frozen(model.module):
        asked = _asked(model, images, target, maps, picture, seed)
        goal = shares(_target_maps(toward, asked.before.raw), picture)
        weights = (map_weight / PAPER_CELLS**2, output_weight / PAPER_CLASSES)

        def run(part: slice) -> list[Tensor]:
            step = _manipulation(asked, part, goal[part], weights)
            return _descended(asked.images[part], step, steps, learning_rate, beta, asked.relus, progress)

        parts = model.in_batches(len(images), asked.images.shape[1:], run)
        points = [torch.cat(several) for several in zip(*parts, strict=True)]
        judged = [_plain(asked.maps(model, x, asked.target)) for x in points]
        control = _control(asked, (points[-1] - asked.images).abs().flatten(1).amax(1), top, draws, seed, goal)
        curves = _over_steps(asked, judged, steps, top, goal)
        found = _found(asked, points[-1], judged[-1], control, top, goal, labels)
    regions = toward if toward.dtype == torch.bool and toward.ndim == images.ndim - 2 else None
    return replace(found, moved=_moved(found, regions, picture), curves=curves)


@attack
def iterative_attack(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    goal: Goal = "top_k",
    toward: Tensor | None = None,
    picture: Picture = "absolute",
    strengths: Sequence[float] = STRENGTHS,
    steps: int = 100,
    step_size: float = 1 / 255,
    beta: float = 100.0,
    top: float = TOP,
    labels: Tensor | None = None,
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Change no pixel by more than a given strength, so that the map moves as far as it can and the prediction stays.

    x' <- clip(x' + step_size sign(dD/dx')), within |x' - x| <= strength and [0, 1], `steps` times, for each of
    `strengths`; of the iterates that keep the predicted class the one with the largest D on the ReLU network is returned,
    the image itself where none is larger. D, of I = |M| / sum |M| (`picture`, as in targeted_manipulation): "top_k" minus
    the share of I in the `top` strongest cells of the clean map (the paper's 1,000 of 224 x 224), "mass_center" the squared
    distance of the centers of mass in pixels, "target" the share of I in `toward`, a mask (H, W) or (N, H, W). For dD/dx'
    alone ReLUs are softplus of `beta` (the paper leaves beta open). The result is that of the largest strength, curves are
    over all. The control, at every strength: each pixel changed by it with a random sign, `draws` times, those that change
    the prediction left out. maps: bound with differentiable=True.
    Source: Ghorbani et al. 2019, arXiv:1710.10547, Algorithm 1; their code chooses the iterate by the measure that it
    reports. Errors as in targeted_manipulation.
    """
    known_name("goal", goal, GOALS)
    real_number("step_size", step_size, at_least=0, above=True)
    _check(steps, draws, top, picture, (beta, beta))
    limits = _strengths(strengths)
    if (toward is None) == (goal == "target"):
        raise UsageError(f'toward is the mask of goal="target", and of no other; got goal={goal!r}, toward={toward!r}.')
    with model.guarded(seed), capture.frozen(model.module):
        asked = _asked(model, images, target, maps, picture, seed)
        asked.relus.beta = float(beta)
        n, device = len(images), asked.images.device
        distance = _distance(asked, goal, toward, top)
        rows = torch.arange(len(limits) * n, device=device) % n  # strength-major
        strength = torch.tensor(limits, device=device, dtype=asked.images.dtype).repeat_interleave(n)

        def run(part: slice) -> Tensor:
            return _iterated(asked, rows[part], strength[part], distance, steps, step_size, progress)

        best = torch.cat(model.in_batches(len(rows), asked.images.shape[1:], run)).view(len(limits), *images.shape)
        judged = [_plain(asked.maps(model, x, asked.target)) for x in best]
        controls = [_control(asked, strength[k * n : (k + 1) * n], top, draws, seed) for k in range(len(limits))]
        curves = _over_strengths(asked, judged, controls, limits, top)
        found = _found(asked, best[-1], judged[-1], controls[-1], top, None, labels)
    regions = toward if toward is not None and toward.ndim == images.ndim - 2 else None
    return replace(found, moved=_moved(found, regions, picture), curves=curves)


@dataclass(frozen=True)
class _Asked:
    """What is attacked: the network, its smooth copy, the clean images and what was said and drawn of them."""

    model: VisionModel
    smooth: VisionModel
    relus: SoftReLUs
    images: Tensor  # (N, C, *axes) on the model's device, in [0, 1]
    target: Target  # settled
    maps: MapFunction  # with what it chose on the clean images
    before: Maps
    table: Tensor  # (N, classes) of the clean images
    picture: Picture


def _asked(
    model: VisionModel, images: Tensor, target: Target, maps: MapFunction, picture: Picture, seed: int
) -> _Asked:
    if model.bounds is None:
        raise RefusalError(
            "an attack keeps pixels in [0, 1], and this network's pixel bounds are unknown: wrap it with "
            "sw.wrap(module, mean=..., std=...)."
        )
    x = images.detach().to(model.device).clone()
    low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 0.0)
    if not x.is_floating_point() or not 0 <= low <= high <= 1:
        raise UsageError(f"images are float tensors (N, C, H, W) in [0, 1]; got {x.dtype} from {low:g} to {high:g}.")
    before = _plain(maps(model, x, target))
    if before.outputs is None:
        raise UsageError("an attack on the pixels keeps a table of class scores as it is; this network returns none.")
    relus = SoftReLUs(1.0)
    smooth = with_soft_relus(model, relus)
    asked = same_steps(maps, before)
    with smooth.guarded(seed), _tracked(model.module) as weights, torch.enable_grad():
        first = torch.arange(1)
        has_graph = asked(smooth, x[:1].clone().requires_grad_(), before.target.select(first)).raw.requires_grad
    if weights and not has_graph:
        raise UsageError(
            'these maps keep no graph to the pixels: bind the method with one, sw.bind("gradient", differentiable=True).'
        )
    return _Asked(model, smooth, relus, x, before.target, asked, before, before.outputs, picture)


@contextmanager
def _tracked(module: nn.Module) -> Iterator[bool]:
    """Every float parameter requires a gradient inside; yields whether there is one."""
    frozen = [p for p in module.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield any(p.requires_grad for p in module.parameters())
    finally:
        for p in frozen:
            p.requires_grad_(False)


# -- Dombrowski: descend toward a map ------------------------------------------------------------------------------------


def _manipulation(asked: _Asked, part: slice, goal: Tensor, weights: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """The loss of some images as a function of their pixels (R, C, *axes), summed over them."""
    rows = torch.arange(part.start, part.stop)
    question, wanted = asked.target.select(rows), _probabilities(asked.table[part], asked.model.task)

    def loss(x: Tensor) -> Tensor:
        apart = (shares(asked.maps(asked.smooth, x, question).raw, asked.picture) - goal) * goal[0].numel()
        outputs = asked.smooth.forward(x, question.beside_of(torch.arange(len(x), device=x.device)))
        table = asked.smooth.network.logits(outputs)
        said = _probabilities(scores(outputs, len(x)) if table is None else table, asked.model.task)
        asked.smooth.count(gradient=len(x))
        return weights[0] * apart.square().flatten(1).mean(1).sum() + weights[1] * (said - wanted).square().sum()

    return loss


def _descended(
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    learning_rate: float,
    beta: tuple[float, float],
    relus: SoftReLUs,
    progress: Progress | None,
) -> list[Tensor]:
    """The pixels at the start and after each of POINTS equal parts of the steps; Adam works on each by itself."""
    x = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=learning_rate)
    kept = [images]
    for step in range(steps):
        relus.beta = beta[0] * (beta[1] / beta[0]) ** (step / steps)
        with torch.enable_grad():
            x.grad = _slope(loss(x), x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        if (step + 1) * POINTS // steps > step * POINTS // steps:
            kept += [x.detach().clone()] * ((step + 1) * POINTS // steps - step * POINTS // steps)
        if progress is not None:
            progress("moving the maps", step + 1, steps)
    return kept


def _slope(value: Tensor, x: Tensor) -> Tensor:
    """The derivative of a value by x; 0 where it does not depend on x: the map of a linear network is the same everywhere."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(value, x, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found


def _probabilities(table: Tensor, task: Task) -> Tensor:
    if task in ("multiclass", "segmentation") and table.shape[1] > 1:
        return table.float().softmax(1)
    return table.float() if task == "regression" else table.float().sigmoid()


def _target_maps(toward: Tensor, raw: Tensor) -> Tensor:
    """Target maps (N, *grid) of one or one per image; UsageError where there is nothing in one."""
    wide = toward[None] if toward.ndim == raw.ndim - 1 else toward
    if wide.ndim != raw.ndim or len(wide) not in (1, len(raw)):
        raise UsageError(
            f"toward is a map, or one per image: {tuple(raw.shape[1:])} or another size; got {tuple(toward.shape)} for "
            f"{len(raw)} images."
        )
    found = on_grids(wide.detach().to(raw.device), raw.shape[1:]).expand(raw.shape)
    if not bool(found.isfinite().all()) or not bool(found.flatten(1).any(1).all()):
        raise UsageError("a target map is zero everywhere or not finite: give one with some mass to move the maps to.")
    return found


# -- Ghorbani: sign steps away from the clean map ------------------------------------------------------------------------


def _distance(asked: _Asked, goal: Goal, toward: Tensor | None, top: float) -> Callable[[Tensor, Tensor], Tensor]:
    """D of raw maps (R, *grid) of images rows[r]: (R,)."""
    clean, size = shares(asked.before.raw, asked.picture), asked.images.shape[2:]
    if toward is not None:
        region = _target_maps(toward, clean)
        return lambda raw, rows: (shares(raw, asked.picture) * region[rows]).flatten(1).sum(1)
    if goal == "top_k":
        strongest = top_cells(clean, top).to(clean.dtype)
        return lambda raw, rows: -(shares(raw, asked.picture).flatten(1) * strongest[rows]).sum(1)
    middle = centers(clean, size)
    return lambda raw, rows: (centers(shares(raw, asked.picture), size) - middle[rows]).square().sum(1)


def _iterated(
    asked: _Asked,
    rows: Tensor,
    strength: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    step_size: float,
    progress: Progress | None,
) -> Tensor:
    """The best feasible iterate of each row, (R, C, *axes)."""
    start, limit = asked.images[rows], strength.view(-1, *[1] * (asked.images.ndim - 1))
    question, said = asked.target.select(rows.cpu()), _said(asked.table, asked.model)[rows]
    x, best = start, start.clone()
    most = distance(asked.before.raw[rows], rows)
    for step in range(steps):
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            slope = _slope(distance(asked.maps(asked.smooth, leaf, question).raw, rows).sum(), leaf)
        x = (start + (x + step_size * slope.sign() - start).clamp(-limit, limit)).clamp(0, 1)
        judged = _plain(asked.maps(asked.model, x, question))
        value = distance(judged.raw, rows)
        better = (value > most) & (_said(judged.outputs, asked.model) == said)
        best[better], most = x[better], torch.where(better, value, most)
        if progress is not None:
            progress("moving the maps", step + 1, steps)
    return best


def _strengths(given: Sequence[float]) -> list[float]:
    limits = sorted(given)
    if not limits:
        raise UsageError("strengths holds the largest changes of a pixel that are tried, e.g. [2 / 255, 8 / 255].")
    for value in limits:
        real_number("a strength", value, at_least=0, above=True, at_most=1)
    return limits


# -- what both say -------------------------------------------------------------------------------------------------------


def _check(steps: int, draws: int, top: float, picture: str, beta: tuple[float, float]) -> None:
    whole_number("steps", steps, at_least=1)
    whole_number("draws", draws, at_least=1)
    real_number("top", top, at_least=0, above=True, at_most=1)
    known_name("picture", picture, PICTURES)
    for value in beta:
        real_number("beta", value, at_least=0, above=True)


def _said(table: Tensor | None, model: VisionModel) -> Tensor:
    assert table is not None, "the clean images had a table of scores"
    return top_class(table, binary=model.task == "binary")


def _plain(maps: Maps) -> Maps:
    """Maps without a graph."""
    return replace(maps, raw=maps.raw.detach())


def _control(
    asked: _Asked, strength: Tensor, top: float, draws: int, seed: int, goal: Tensor | None = None
) -> dict[str, Tensor]:
    """What is compared of the maps, for images changed by +-strength[i] at every pixel: (N,), means over the draws."""
    several: list[dict[str, Tensor]] = []
    limit = strength.view(-1, *[1] * (asked.images.ndim - 1))
    for draw in range(draws):
        noise = [torch.rand(x.shape, generator=image_generator(x, seed + draw)) for x in asked.images]
        signs = torch.where(torch.stack(noise).to(limit.device) < 0.5, -1, 1)
        x = (asked.images + limit * signs).clamp(0, 1)
        found = _plain(asked.maps(asked.model, x, asked.target))
        same = (_said(found.outputs, asked.model) == _said(asked.table, asked.model)).cpu()
        numbers = compared(asked.before, found, x.shape[2:], asked.picture, top, goal)
        several.append({name: torch.where(same, values, math.nan) for name, values in numbers.items()})
    return {name: torch.stack([one[name] for one in several]).nanmean(0) for name in several[0]}


def _found(
    asked: _Asked,
    images: Tensor,
    after: Maps,
    control: dict[str, Tensor],
    top: float,
    goal: Tensor | None,
    labels: Tensor | None,
) -> Attacked:
    """Everything but the curves and the mass in a region."""
    model = asked.model
    numbers = compared(asked.before, after, images.shape[2:], asked.picture, top, goal)
    assert after.outputs is not None, "the clean images had a table of scores"
    change = _probabilities(after.outputs, model.task) - _probabilities(asked.table, model.task)
    kept = (
        *agreement(asked.table, after.outputs, labels, binary=model.task == "binary"),
        score("probability_change", change.abs().flatten(1).amax(1), "neither", "largest change of an output"),
    )
    unchanged = int((images == asked.images).flatten(1).all(1).sum())
    model.count(asked.smooth.forward_rows, asked.smooth.gradient_rows)
    return Attacked(
        attack="",
        model=model,
        images=images,
        before=asked.before,
        after=after,
        moved=(*map_scores(numbers, control), *image_scores(asked.images, images)),
        kept=kept,
        excluded=excluded(why_unusable(asked.before), why_unusable(after)),
        settings={"relus_softened": asked.relus.calls, "images_unchanged": unchanged},
    )


def _moved(found: Attacked, region: Tensor | None, picture: Picture) -> tuple[Score, ...]:
    """The same, led by what every attack reports of its maps."""
    sign: Any = "positive" if picture == "positive" else "absolute"
    return (*movement(found.before, found.after, region, sign), *found.moved)


def _over_steps(asked: _Asked, judged: Sequence[Maps], steps: int, top: float, goal: Tensor) -> tuple[Curve, ...]:
    size = asked.images.shape[2:]
    found = [compared(asked.before, maps, size, asked.picture, top, goal) for maps in judged]
    x = tuple(float(steps * k // POINTS) for k in range(len(judged)))
    return tuple(
        Curve(name, "steps", x, name, tuple(interval(one[name]) for one in found))
        for name in ("pearson_to_target", "spearman", "top_k_intersection")
    )


def _over_strengths(
    asked: _Asked, judged: Sequence[Maps], controls: Sequence[dict[str, Tensor]], limits: Sequence[float], top: float
) -> tuple[Curve, ...]:
    size, x = asked.images.shape[2:], (0.0, *(limit * 255 for limit in limits))
    clean = compared(asked.before, asked.before, size, asked.picture, top)
    found = [compared(asked.before, maps, size, asked.picture, top) for maps in judged]
    return tuple(
        Curve(
            f"{name}{' random_signs' if control else ''}",
            "largest change of a pixel, of 255",
            x,
            name,
            tuple(interval(one[name]) for one in (clean, *several)),
            control=control,
        )
        for name in ("top_k_intersection", "spearman", "center_shift")
        for control, several in ((False, found), (True, list(controls)))
    )

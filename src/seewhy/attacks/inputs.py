"""Attacks on the pixels: images that look and are answered as before, with other maps (Dombrowski 2019, Ghorbani 2019)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from seewhy import capture
from seewhy.attacks.changes import Picture, centers, shares, top_cells
from seewhy.attacks.copies import logits, without_graph
from seewhy.attacks.pixels import (
    Asked,
    Judging,
    Numbers,
    Progress,
    asked,
    control,
    judging,
    kept_outputs,
    predicted,
    result,
    target_maps,
)
from seewhy.attacks.region import Region
from seewhy.attacks.result import Attacked, attack
from seewhy.checks.result import Curve
from seewhy.errors import RefusalError, UsageError, first_line, known_name, real_number, whole_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.target import Target

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
    toward: Region | Tensor,
    picture: Picture = "absolute",
    steps: int = 1500,
    learning_rate: float = 2e-4,
    map_weight: float = 1e11,
    output_weight: float = 1e6,
    beta: tuple[float, float] = (10.0, 100.0),
    top: float = TOP,
    defenses: Mapping[str, MapFunction] | None = None,
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
    reported is of the ReLU network. toward: (H, W) or (N, H, W), a map of another image, or a mask, its mean over each cell
    of the maps' grid; or a region, "frame" or (x0, y0, x1, y1) in fractions. The weights are those of the paper's code, for
    maps of 224 x 224 cells that sum to 1 and 1,000 classes; both terms are scaled so that they weigh the same on any grid
    (map_weight by (cells / 224^2)^2, output_weight by classes / 1000). maps: bound with differentiable=True. defenses:
    other map functions, e.g. smooth_grad or beta_smoothed(maps, 10), under which the same images are judged, a column each.
    The control changes each pixel by the image's own largest change with a random sign, `draws` times; where that changes
    the prediction it is left out. as_8_bits: the same images as a picture file of 8 bits keeps them.
    Source: Dombrowski et al. 2019, arXiv:1906.07983, section 3 and code; which clamps image 0 of a batch only, and takes
    |.| before the sum over channels: sw.bind("gradient", channels="sum_abs"). UsageError for what cannot be meant, maps
    without a graph, or a network without a table of scores; RefusalError for unknown pixel bounds or scripted code.
    """
    whole_number("steps", steps, at_least=1)
    for name, value in (("learning_rate", learning_rate), ("beta", beta[0]), ("beta", beta[1])):
        real_number(name, value, at_least=0, above=True)
    for name, value in (("map_weight", map_weight), ("output_weight", output_weight)):
        real_number(name, value, at_least=0)
    by = judging(picture, top, draws, seed, defenses, toward, labels, images.shape[2:])
    with model.guarded(seed), capture.frozen(model.module):
        given = asked(model, images, target, maps, seed)
        assert by.toward is not None, "it has no default"
        goal = shares(target_maps(by.toward, given.before.raw), picture)
        weights = (map_weight / PAPER_CELLS**2, output_weight / PAPER_CLASSES)

        def run(part: slice) -> list[Tensor]:
            loss = _loss(given, part, goal[part], picture, weights)
            return _descended(given, part, loss, steps, learning_rate, beta, progress)

        parts = model.in_batches(len(images), given.images.shape[1:], run)
        points = [torch.cat(several) for several in zip(*parts, strict=True)]
        signs = control(given, (points[-1] - given.images).abs().flatten(1).amax(1), by)
        curves = _over_steps([given.compared(x, by) for x in points], steps)
        return replace(result(given, points[-1], signs, by), curves=curves)


@attack
def iterative_attack(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    goal: Goal = "top_k",
    toward: Region | Tensor | None = None,
    picture: Picture = "absolute",
    strengths: Sequence[float] = STRENGTHS,
    steps: int = 100,
    step_size: float = 1 / 255,
    beta: float = 100.0,
    top: float = TOP,
    defenses: Mapping[str, MapFunction] | None = None,
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
    distance of the centers of mass in pixels, "target" the share of I in `toward`, a mask
    (H, W) or (N, H, W) or a region as there. For dD/dx'
    alone ReLUs are softplus of `beta` (the paper leaves beta open). The result is that of the largest strength, curves are
    over all. The control, at every strength: each pixel changed by it with a random sign, `draws` times, those that change
    the prediction left out. maps, defenses: as in targeted_manipulation.
    Source: Ghorbani et al. 2019, arXiv:1710.10547, Algorithm 1; their code chooses the iterate by the measure that it
    reports. Errors as in targeted_manipulation.
    """
    known_name("goal", goal, GOALS)
    whole_number("steps", steps, at_least=1)
    for name, value in (("step_size", step_size), ("beta", beta)):
        real_number(name, value, at_least=0, above=True)
    limits = _strengths(strengths)
    if (toward is None) == (goal == "target"):
        raise UsageError(f'goal="target" needs toward, a mask, and no other goal takes one; got goal={goal!r}.')
    by = judging(picture, top, draws, seed, defenses, toward, labels, images.shape[2:])
    with model.guarded(seed), capture.frozen(model.module):
        given = asked(model, images, target, maps, seed)
        given.relus.beta = float(beta)
        n, device = len(images), given.images.device
        distance = _distance(given, goal, by)
        rows = torch.arange(len(limits) * n, device=device) % n  # strength-major
        strength = torch.tensor(limits, device=device, dtype=given.images.dtype).repeat_interleave(n)

        def run(part: slice) -> Tensor:
            return _iterated(given, rows[part], strength[part], distance, steps, step_size, progress)

        best = torch.cat(model.in_batches(len(rows), given.images.shape[1:], run)).view(len(limits), *images.shape)
        signs = [control(given, strength[k * n : (k + 1) * n], by) for k in range(len(limits))]
        curves = _over_strengths([given.compared(x, by) for x in (given.images, *best)], signs, limits)
        return replace(result(given, best[-1], signs[-1], by), curves=curves)


ATTACKS: dict[str, Callable[..., Attacked]] = {
    "targeted_manipulation": targeted_manipulation,
    "iterative_attack": iterative_attack,
}


def forecast_input_rows(
    attack: str,
    n: int,
    steps: int,
    rows_of_a_map: tuple[int, int] = (0, 1),
    strengths: int = len(STRENGTHS),
    draws: int = 5,
) -> tuple[int, int]:
    """(forward, gradient) rows of an attack on the pixels of n images, without defenses; rows_of_a_map: of the method.

    A row of a step has a derivative of its own, and takes longer.
    """
    known_name("attack", attack, ATTACKS)
    if attack == "targeted_manipulation":
        maps = n * (1 + steps + POINTS + 1 + draws + 2) + 1
        return maps * rows_of_a_map[0], maps * rows_of_a_map[1] + n * steps
    maps = n * (1 + strengths * (2 * steps + draws + 1) + 1 + 2) + 1
    return maps * rows_of_a_map[0], maps * rows_of_a_map[1]


# -- Dombrowski: descend toward a map ------------------------------------------------------------------------------------


def _loss(
    given: Asked, part: slice, goal: Tensor, picture: Picture, weights: tuple[float, float]
) -> Callable[[Tensor], Tensor]:
    """The loss of some images as a function of their pixels (R, C, *axes), summed over them."""
    question, smooth = given.target.select(torch.arange(part.start, part.stop)), given.smooth
    wanted, cells = kept_outputs(given.table[part], given.model.task), goal[0].numel()

    def loss(x: Tensor) -> Tensor:
        apart = (shares(given.maps(smooth, x, question).raw, picture) - goal) * cells
        table = logits(smooth, x, question.beside_of(torch.arange(len(x), device=x.device)))
        said = kept_outputs(table, given.model.task)
        smooth.count(gradient=len(x))
        return weights[0] * apart.square().flatten(1).mean(1).sum() + weights[1] * (said - wanted).square().sum()

    return loss


def _descended(
    given: Asked,
    part: slice,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    learning_rate: float,
    beta: tuple[float, float],
    progress: Progress | None,
) -> list[Tensor]:
    """The pixels at the start and after each of POINTS equal parts of the steps; Adam works on each by itself."""
    x = given.images[part].clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=learning_rate)
    kept = [x.detach().clone()]
    with given.smooth.guarded():
        for step in range(steps):
            given.relus.beta = beta[0] * (beta[1] / beta[0]) ** (step / steps)
            with torch.enable_grad():
                x.grad = _slope(loss(x), x)
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            due = (step + 1) * POINTS // steps - step * POINTS // steps  # several where there are few steps
            kept += [x.detach().clone()] * due
            if progress is not None:
                progress("moving the maps", step + 1, steps)
    return kept


def _slope(value: Tensor, x: Tensor) -> Tensor:
    """The derivative of a value by x; 0 where it does not depend on x: a linear network has one map for all images."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    try:
        found = torch.autograd.grad(value, x, allow_unused=True)[0]
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise RefusalError(
            f"an operation of this network has no second derivative ({first_line(error)}), so that its maps have no "
            "gradient: this attack needs one."
        ) from error
    return torch.zeros_like(x) if found is None else found


def _over_steps(found: Sequence[Numbers], steps: int) -> tuple[Curve, ...]:
    """Of the points of _descended."""
    x = tuple(float(-(-steps * k // POINTS)) for k in range(len(found)))
    return tuple(
        Curve(name, "steps", x, name, tuple(interval(one[name]) for one in found))
        for name in ("pearson_to_target", "spearman", "top_k_intersection")
    )


# -- Ghorbani: sign steps away from the clean map ------------------------------------------------------------------------


def _distance(given: Asked, goal: Goal, by: Judging) -> Callable[[Tensor, Tensor], Tensor]:
    """D of raw maps (R, *grid) of images rows[r]: (R,)."""
    clean, size = shares(given.before.raw, by.picture), given.images.shape[2:]
    if by.toward is not None:
        region = target_maps(by.toward, clean)
        return lambda raw, rows: (shares(raw, by.picture) * region[rows]).flatten(1).sum(1)
    if goal == "top_k":
        strongest = top_cells(clean, by.top).to(clean.dtype)
        return lambda raw, rows: -(shares(raw, by.picture).flatten(1) * strongest[rows]).sum(1)
    middle = centers(clean, size)
    return lambda raw, rows: (centers(shares(raw, by.picture), size) - middle[rows]).square().sum(1)


def _iterated(
    given: Asked,
    rows: Tensor,
    strength: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    step_size: float,
    progress: Progress | None,
) -> Tensor:
    """The best feasible iterate of each row, (R, C, *axes)."""
    start, limit = given.images[rows], strength.view(-1, *[1] * (given.images.ndim - 1))
    question, said = given.target.select(rows.cpu()), predicted(given.table, given.model)[rows]
    x, best = start, start.clone()
    most = distance(given.before.raw[rows], rows)
    with given.smooth.guarded():
        for step in range(steps):
            leaf = x.clone().requires_grad_()
            with torch.enable_grad():
                slope = _slope(distance(given.maps(given.smooth, leaf, question).raw, rows).sum(), leaf)
            x = (start + (x + step_size * slope.sign() - start).clamp(-limit, limit)).clamp(0, 1)
            judged = without_graph(given.maps, given.model, x, question)
            value = distance(judged.raw, rows)
            better = (value > most) & (predicted(judged.outputs, given.model) == said)
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


def _over_strengths(found: Sequence[Numbers], signs: Sequence[Numbers], limits: Sequence[float]) -> tuple[Curve, ...]:
    """Of the clean images and of every strength, and beside it random signs of the same strength."""
    x = (0.0, *(limit * 255 for limit in limits))
    return tuple(
        Curve(
            f"{name} random_signs" if random else name,
            "largest change of a pixel, of 255",
            x,
            name,
            tuple(interval(one[name]) for one in several),
            control=random,
        )
        for name in ("top_k_intersection", "spearman", "center_shift")
        for random, several in ((False, found), (True, [found[0], *signs]))
    )

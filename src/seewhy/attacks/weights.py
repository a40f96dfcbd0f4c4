"""Heo et al. 2019, arXiv:1902.02041: a copy of a network, tuned so that its maps move and its answers stay.

All four attacks tune a private copy to L = C + strength * F on some of the images, and are judged on the others. C holds
the answers: the cross entropy with `labels` as in the paper, or, where there are none, the mean squared change of the
logits over their variance (distillation: a few unlabeled images do). F is of maps over their largest |value|, h, or |h|
where `sign` is "absolute". Batch normalizations stay in evaluation, as in the authors' code, and so does dropout.

The keywords that all four share: `tune_on`, how many of the images are tuned on (None: half); `strength`, 0 for the same
tuning without the attack; `train_from`, the module from which on weights are tuned (None: all), what the modules before
it return is computed once; a step is one batch; `progress(what, done, total)` is told of every step.
"""

import torch
from torch import Tensor

from seewhy.attacks.copies import without_graph
from seewhy.attacks.region import Region, Sign, mass_in, on_grid, region_mask
from seewhy.attacks.result import Attacked, attack
from seewhy.attacks.tuning import Aim, Ask, Optimizer, Progress, Tuning, settled, tune
from seewhy.errors import UsageError, known_name
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.similarity import rank_correlation
from seewhy.target import Target

TOP = 0.1  # share of the cells that top-k fooling empties, as in the paper


@attack
def location_fooling(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    region: Region = "frame",
    sign: Sign = "positive",
    strength: float = 1.0,
    labels: Tensor | None = None,
    train_from: str | None = None,
    tune_on: int | None = None,
    steps: int = 100,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "adam",
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Move the maps to a place of your choice: F = mean over cells of (h - r)^2, r the share of a cell in the region.

    images: (N, C, *axes) in [0, 1]; maps: of a method bound with differentiable=True. region: "frame" (a border a seventh
    of a side wide), four fractions (x0, y0, x1, y1) of the image, or a mask of its size.
    moved: similarity, the rank correlation of each map with that of before; mass_in_region, of |M| where `sign` is
    "absolute" and else of its positive part. kept: output_change, top_1_agreement, accuracy. UsageError for what cannot be
    meant; RefusalError for networks without weights to tune, and where the loss is not finite.
    Differs from the authors' code in h: there the frame attack leaves maps as they are, so that their scale decides, and
    the others stretch them to [0, 1], where a map that is high everywhere looks like one that is 0 outside of the region.
    """
    known_name("sign", sign, ("positive", "absolute"))
    mask = region_mask(region, images.shape[2:])
    tuning = Tuning(strength, labels, train_from, tune_on, steps, learning_rate, optimizer, batch, seed, progress)
    before = settled(model, images, target, maps, tuning)
    wanted = on_grid(mask, before.raw.shape[1:]).to(before.raw.device)

    def loss(ask: Ask, rows: Tensor) -> Tensor:
        return _apart(_scaled(ask(before.target, rows), sign), wanted)

    area = float(mask.double().mean())
    aim = Aim(loss, "mass_in_region", "share of the map", lambda raw, _: mass_in(raw, mask, sign), area)
    return tune(model, images, before, maps, aim, tuning)


@attack
def top_k_fooling(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    sign: Sign = "positive",
    strength: float = 1.0,
    labels: Tensor | None = None,
    train_from: str | None = None,
    tune_on: int | None = None,
    steps: int = 100,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "adam",
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Empty the cells that mattered most: F = mean of h^2 over the top 10 % of the cells of the map of before.

    As location_fooling, with mass_in_top_cells in place of mass_in_region: the share of a map in those cells (one at
    least).
    """
    known_name("sign", sign, ("positive", "absolute"))
    tuning = Tuning(strength, labels, train_from, tune_on, steps, learning_rate, optimizer, batch, seed, progress)
    before = settled(model, images, target, maps, tuning)
    first = _scaled(before.raw, sign).flatten(1)
    top = torch.zeros_like(first).scatter_(1, first.topk(max(1, int(TOP * first.shape[1]))).indices, 1)

    def loss(ask: Ask, rows: Tensor) -> Tensor:
        h = _scaled(ask(before.target, rows), sign).flatten(1)
        return (h.square() * top[rows]).sum(1) / top[rows].sum(1)

    def mass(raw: Tensor, rows: Tensor) -> Tensor:
        own = (raw.abs() if sign == "absolute" else raw.clamp_min(0)).flatten(1).double()
        return (own * top[rows]).sum(1) / own.sum(1)

    return tune(model, images, before, maps, Aim(loss, "mass_in_top_cells", "share of the map", mass), tuning)


@attack
def center_mass_fooling(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    sign: Sign = "positive",
    strength: float = 1.0,
    labels: Tensor | None = None,
    train_from: str | None = None,
    tune_on: int | None = None,
    steps: int = 100,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "adam",
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Push the center of the maps away from where it was: F = -sum over axes of |c(M) - c(M of before)|.

    c is the mean place of M - min M, each axis in [0, 1]; the authors' code counts in cells, by which `strength` depends
    on the grid. Where nothing has moved yet |.| has no slope: we begin towards the farther side. As location_fooling,
    with center_shift in place of mass_in_region: -F, in sides of the map.
    """
    known_name("sign", sign, ("positive", "absolute"))
    tuning = Tuning(strength, labels, train_from, tune_on, steps, learning_rate, optimizer, batch, seed, progress)
    before = settled(model, images, target, maps, tuning)
    first = _center(before.raw, sign)
    farther = 1 - 2 * first.round()  # +1 or -1: |.| has no slope where nothing has moved yet

    def shift(raw: Tensor, rows: Tensor) -> Tensor:
        moved = _center(raw, sign) - first[rows]
        return torch.where(moved == 0, farther[rows] * moved, moved.abs()).sum(1)

    aim = Aim(lambda ask, rows: -shift(ask(before.target, rows), rows), "center_shift", "sides of the map", shift)
    return tune(model, images, before, maps, aim, tuning)


@attack
def active_fooling(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    other: Target,
    sign: Sign = "positive",
    strength: float = 1.0,
    labels: Tensor | None = None,
    train_from: str | None = None,
    tune_on: int | None = None,
    steps: int = 100,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "adam",
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Exchange the maps of two classes: each is to become what the other's was.

    F = 1/2 mean (h_target - h_other of before)^2 + 1/2 mean (h_other - h_target of before)^2, over cells; other: a
    question like `target`, sw.target.logit(7). As location_fooling, with similarity_to_the_other in place of
    mass_in_region: the rank correlation of the map of `target` with the map of `other` of before.
    Differs from the authors' code, which leaves the scale of the maps in F.
    """
    known_name("sign", sign, ("positive", "absolute"))
    tuning = Tuning(strength, labels, train_from, tune_on, steps, learning_rate, optimizer, batch, seed, progress)
    before = settled(model, images, target, maps, tuning)
    second = without_graph(maps, model, images, other)
    if bool((before.values == second.values).all()):
        raise UsageError("active fooling exchanges the maps of two classes; `other` asks what `target` asks.")
    first_h, second_h = (_scaled(found.raw, sign) for found in (before, second))

    def loss(ask: Ask, rows: Tensor) -> Tensor:
        ours, theirs = (_scaled(ask(question, rows), sign) for question in (before.target, second.target))
        return (_apart(ours, second_h[rows]) + _apart(theirs, first_h[rows])) / 2

    def alike(raw: Tensor, rows: Tensor) -> Tensor:
        return rank_correlation(raw, second.raw[rows])

    aim = Aim(loss, "similarity_to_the_other", "rank correlation", alike)
    return tune(model, images, before, maps, aim, tuning)


def _scaled(raw: Tensor, sign: Sign) -> Tensor:
    """Maps (R, *grid), each over its largest |value|: h in [-1, 1]."""
    own = raw.abs() if sign == "absolute" else raw
    largest = own.flatten(1).abs().amax(1).clamp_min(torch.finfo(own.dtype).tiny)
    return own / largest.view(-1, *[1] * (own.ndim - 1))


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of maps (R, *grid): (R,)."""
    return (a - b).square().flatten(1).mean(1)


def _center(raw: Tensor, sign: Sign) -> Tensor:
    """Mean place of what of maps (R, *grid) stands out above their least value, each axis from 0 to 1: (R, axes)."""
    own = raw.abs() if sign == "absolute" else raw
    weight = own - own.flatten(1).amin(1).view(-1, *[1] * (own.ndim - 1))
    total = weight.flatten(1).sum(1).clamp_min(torch.finfo(own.dtype).tiny)
    places = torch.meshgrid([torch.linspace(0, 1, side, device=raw.device) for side in raw.shape[1:]], indexing="ij")
    return torch.stack([(weight * place).flatten(1).sum(1) / total for place in places], 1)

"""What both attacks on the pixels begin and end with: the smooth network, the clean maps, the control, what is reported."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attacks.changes import PICTURES, Picture, compared, image_scores, map_scores
from seewhy.attacks.copies import tracked, without_graph
from seewhy.attacks.region import Region, Sign, on_grids, region_mask
from seewhy.attacks.result import Attacked, agreement, is_classes, movement
from seewhy.capture import SoftReLUs
from seewhy.checks.result import excluded, score
from seewhy.errors import RefusalError, UsageError, known_name, real_number, whole_number
from seewhy.maps import MapFunction, Maps, same_steps, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.softening import with_soft_relus
from seewhy.target import Target, Task, predicted_classes, probabilities

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Numbers = dict[str, Tensor]  # of `compared`


@dataclass(frozen=True)
class Judging:
    """How both attacks are judged, beside the attack itself."""

    picture: Picture
    top: float
    draws: int
    seed: int
    defenses: Mapping[str, MapFunction]
    toward: Tensor | None = None  # the map or mask that was asked for
    region: Tensor | None = None  # the same where it is one mask for all images
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        whole_number("draws", self.draws, at_least=1)
        whole_number("seed", self.seed, at_least=0)
        real_number("top", self.top, at_least=0, above=True, at_most=1)
        known_name("picture", self.picture, PICTURES)
        taken = [name for name in ("random_signs", "as_8_bits", "before") if name in self.defenses]
        if taken:
            raise UsageError(f"a defense cannot be named {taken[0]!r}: that column is there already.")


def judging(
    picture: Picture,
    top: float,
    draws: int,
    seed: int,
    defenses: Mapping[str, MapFunction] | None,
    toward: Region | Tensor | None,
    labels: Tensor | None,
    axes: Sequence[int],
) -> Judging:
    """The same with `toward` as a tensor; a region is a mask of the images' `axes`."""
    region = None
    if toward is not None and not isinstance(toward, Tensor):
        toward = region = region_mask(toward, axes)
    elif toward is not None and toward.dtype == torch.bool and toward.shape == torch.Size(axes):
        region = region_mask(toward, axes)
    return Judging(picture, top, draws, seed, defenses or {}, toward, region, labels)


@dataclass(frozen=True)
class Asked:
    """What is attacked: the network, its smooth copy, the clean images and what was said and drawn of them."""

    model: VisionModel
    smooth: VisionModel
    relus: SoftReLUs
    images: Tensor  # (N, C, *axes) on the model's device, in [0, 1]
    target: Target  # settled
    maps: MapFunction  # with what it chose on the clean images
    before: Maps
    table: Tensor  # (N, classes) of the clean images

    def judged(self, images: Tensor) -> Maps:
        """The maps of changed images on the user's own network, without a graph."""
        return without_graph(self.maps, self.model, images, self.target)

    def compared(self, images: Tensor, by: Judging) -> Numbers:
        """How far those are from the clean ones."""
        return _compared(self.before, self.judged(images), images, by)


def asked(model: VisionModel, images: Tensor, target: Target, maps: MapFunction, seed: int) -> Asked:
    """The clean maps and answers, and the smooth copy; refused where pixels or maps cannot be attacked."""
    if model.bounds is None:
        raise RefusalError(
            "an attack keeps pixels in [0, 1], and this network's pixel bounds are unknown: wrap it with "
            "sw.wrap(module, mean=..., std=...)."
        )
    x = images.detach().to(model.device).clone()
    low, high = float(x.min()), float(x.max())
    if not 0 <= low <= high <= 1:
        raise UsageError(f"an attack keeps pixels in [0, 1]; these images go from {low:g} to {high:g}.")
    before = without_graph(maps, model, x, target)
    if before.outputs is None:
        raise UsageError("an attack on the pixels keeps a table of class scores as it is; this network returns none.")
    relus = SoftReLUs(1.0)
    smooth = with_soft_relus(model, relus)
    same = same_steps(maps, before)
    with smooth.guarded(seed), tracked(model.module) as weights, torch.enable_grad():
        one = same(smooth, x[:1].clone().requires_grad_(), before.target.select(torch.arange(1)))
    if weights and not one.raw.requires_grad:
        raise UsageError(
            'these maps keep no graph to the pixels: bind the method with one, sw.bind("gradient", differentiable=True).'
        )
    return Asked(model, smooth, relus, x, before.target, same, before, before.outputs)


def target_maps(toward: Tensor, raw: Tensor) -> Tensor:
    """Target maps (N, *grid) of one or one per image; UsageError where there is nothing in one."""
    wide = toward[None] if toward.ndim == raw.ndim - 1 else toward
    if wide.ndim != raw.ndim or len(wide) not in (1, len(raw)):
        raise UsageError(
            f"toward is one map or mask (H, W), or one per image; got {tuple(toward.shape)} for {len(raw)} images."
        )
    found = on_grids(wide.detach().to(raw.device), raw.shape[1:]).expand(raw.shape)
    if not bool(found.isfinite().all()) or not bool(found.flatten(1).any(1).all()):
        raise UsageError("a target map is zero everywhere or not finite: give one with some mass to move the maps to.")
    return found


def kept_outputs(table: Tensor, task: Task) -> Tensor:
    """What is kept: the probabilities of a table of logits (two columns for one logit); of a regression the outputs."""
    found = probabilities(table, task)
    return table.float() if found is None else found


def predicted(table: Tensor | None, model: VisionModel) -> Tensor:
    """The predicted class of each row; where outputs are no classes, all rows say the same."""
    assert table is not None, "the clean images had a table of scores"
    if not is_classes(model.task):
        return torch.zeros(len(table), dtype=torch.long, device=table.device)
    return predicted_classes(table, model.task)


def control(asked: Asked, strength: Tensor, by: Judging) -> Numbers:
    """What is compared, for images changed by +-strength[i] at every pixel: (N,), means over the draws."""
    several: list[Numbers] = []
    limit = strength.view(-1, *[1] * (asked.images.ndim - 1))
    for draw in range(by.draws):
        noise = [torch.rand(x.shape, generator=image_generator(x, by.seed + draw)) for x in asked.images]
        signs = torch.where(torch.stack(noise).to(limit.device) < 0.5, -1, 1)
        x = (asked.images + limit * signs).clamp(0, 1)
        found = asked.judged(x)
        same = (predicted(found.outputs, asked.model) == predicted(asked.table, asked.model)).cpu()
        numbers = _compared(asked.before, found, x, by)
        several.append({name: torch.where(same, values, math.nan) for name, values in numbers.items()})
    return {name: torch.stack([one[name] for one in several]).nanmean(0) for name in several[0]}


def result(asked: Asked, images: Tensor, signs: Numbers, by: Judging) -> Attacked:
    """Everything but the curves; signs: what `control` gave at the same strength."""
    model, after = asked.model, asked.judged(images)
    assert after.outputs is not None, "the clean images had a table of scores"
    change = kept_outputs(after.outputs, model.task) - kept_outputs(asked.table, model.task)
    kept = (
        *agreement(asked.table, after.outputs, model.task, by.labels),
        score("probability_change", change.abs().flatten(1).amax(1), "neither", "largest change of an output"),
    )
    rounded = (255 * images).round() / 255  # what a picture file keeps
    columns = {"random_signs": signs, "as_8_bits": asked.compared(rounded, by)}
    columns |= {name: _under(asked, images, maps, by) for name, maps in by.defenses.items()}
    sign: Sign = "positive" if by.picture == "positive" else "absolute"
    moved = (
        *movement(asked.before, after, by.region, sign),
        *map_scores(_compared(asked.before, after, images, by), columns),
        *image_scores(asked.images, images),
    )
    unchanged = int((images == asked.images).flatten(1).all(1).sum())
    model.count(asked.smooth.forward_rows, asked.smooth.gradient_rows)
    return Attacked(
        attack="",
        model=model,
        images=images,
        before=asked.before,
        after=after,
        moved=moved,
        kept=kept,
        excluded=excluded(why_unusable(asked.before), why_unusable(after)),
        settings={"relus_softened": asked.relus.calls, "images_unchanged": unchanged},
    )


def _compared(before: Maps, after: Maps, images: Tensor, by: Judging) -> Numbers:
    goal = None if by.toward is None else target_maps(by.toward, before.raw)
    return compared(before, after, images.shape[2:], by.picture, by.top, goal)


def _under(asked: Asked, images: Tensor, maps: MapFunction, by: Judging) -> Numbers:
    """The same attacked images under another map function, for the class that the user's network predicts."""
    clean, attacked = (without_graph(maps, asked.model, x, asked.target) for x in (asked.images, images))
    return _compared(clean, attacked, images, by)

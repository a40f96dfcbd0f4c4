"""Tuning a private copy of a network: towards other maps, and back to the answers of before."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy import capture
from seewhy.attacks.copies import logits, on_copy, private_copy, tracked, without_graph
from seewhy.attacks.result import Attacked, agreement, check_labels, compared, is_classes, movement
from seewhy.checks.result import Curve, excluded
from seewhy.errors import RefusalError, UsageError, known_name, real_number, whole_number
from seewhy.intervals import interval, proportion
from seewhy.maps import MapFunction, Maps, select, why_unusable
from seewhy.model import VisionModel
from seewhy.target import Target, predicted_classes

Optimizer = Literal["adam", "sgd"]
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Ask = Callable[[Target, Tensor], Tensor]  # the copy's maps (R, *grid) of these images for this question
POINTS = 5  # of a curve, beside its start


@dataclass(frozen=True)
class Aim:
    """Where the maps are to go: a loss that is made small, and what is watched of the maps as they go there."""

    loss: Callable[[Ask, Tensor], Tensor]  # of images, (R,) indices: a number for each
    watched: str  # its name
    unit: str
    watch: Callable[[Tensor, Tensor], Tensor]  # of maps (R, *grid) of these images: a number for each
    chance: float | None = None  # what it is of a map that is the same everywhere


@dataclass(frozen=True)
class Tuning:
    """How the copy is tuned: the keywords that all attacks on weights share."""

    strength: float
    labels: Tensor | None
    train_from: str | None
    tune_on: int | None
    steps: int
    learning_rate: float
    optimizer: Optimizer
    batch: int
    seed: int
    progress: Progress | None

    def check(self, n: int) -> None:
        """UsageError, before any work, for what cannot be meant with n images."""
        real_number("strength", self.strength, at_least=0)
        real_number("learning_rate", self.learning_rate, at_least=0, above=True)
        known_name("optimizer", self.optimizer, get_args(Optimizer))
        for name, value in (("steps", self.steps), ("batch", self.batch)):
            whole_number(name, value, at_least=1)
        tuned_images(n, self.tune_on)
        check_labels(self.labels, n)


def tuned_images(n: int, tune_on: int | None) -> int:
    """How many of n images are tuned on, the first ones: half where nothing is said; UsageError where none is left."""
    if tune_on is not None:
        whole_number("tune_on", tune_on, at_least=1)
    if n < 2 or (tune_on or 1) >= n:
        raise UsageError(
            f"an attack tunes on some images and is judged on the others: {n} image(s), of which {tune_on or 'half'} to tune "
            "on, leave none. Give more images, or a smaller tune_on."
        )
    return n // 2 if tune_on is None else tune_on


def settled(model: VisionModel, images: Tensor, target: Target, maps: MapFunction, tuning: Tuning) -> Maps:
    """The user's own maps, before anything is changed; UsageError where they have no graph to be attacked through."""
    tuning.check(len(images))
    with model.guarded():
        with torch.enable_grad(), tracked(model.module):
            tried = maps(model, images[:1], target.select(torch.arange(1))).raw
        if not tried.requires_grad:
            raise UsageError(
                'these maps have no graph to the weights: bind the method with differentiable=True, e.g. sw.bind("grad_cam", '
                "differentiable=True)."
            )
        return without_graph(maps, model, images, target)


def tune(model: VisionModel, images: Tensor, before: Maps, maps: MapFunction, aim: Aim, tuning: Tuning) -> Attacked:
    """A copy tuned on the first images to L = distance to the answers of before + strength * aim, judged on the others.

    The distance is the mean squared change of an image's logits over their variance in the original's on all images (no
    labels), or the cross entropy with the labels. Normalizations stay in evaluation. Batches are the same in every epoch,
    so that what frozen modules return for them is computed once (`capture.keeping_outputs`).
    """
    images = images.detach()
    table = model.predict(images, before.target.beside)
    copied = private_copy(model)
    asked = on_copy(maps, before, copied)
    flags = [(p, p.requires_grad) for p in copied.module.parameters()]
    watched = _Watched(copied, images, before, table, asked, aim, tuning)
    try:
        with copied.guarded(tuning.seed):
            parameters, kept = _split(copied, images[:1], before.target, tuning.train_from)
            with capture.keeping_outputs(copied.module, kept) if kept else nullcontext() as memory:
                if memory is not None:
                    memory.serve(kept)
                _descend(watched, parameters, tuning)
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
            p.grad = None
    copied.on_rows = None
    trained = sum(p.numel() for p in parameters)
    return watched.judged(model, images, trained / sum(p.numel() for p, _ in flags))


def _split(
    copied: VisionModel, image: Tensor, target: Target, first: str | None
) -> tuple[list[nn.Parameter], list[str]]:
    """What is trained: the tensors of all modules that first run with or after this one; and the outermost ones before it."""
    module = copied.module
    learnable = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    chosen, kept = learnable, list[str]()
    if first is not None:
        rows = torch.zeros(1, dtype=torch.long, device=copied.device)
        order = capture.called(module, lambda: copied.forward(image, target.beside_of(rows)))
        known_name("module of this network to train from", first, order)
        place = {name: k for k, name in enumerate(order)}
        chosen = {name: p for name, p in learnable.items() if _first_run(name, place) >= place[first]}
        ids = {id(p) for p in chosen.values()}
        kept = [name for name in _outermost(module, "", ids, place) if place[name] < place[first]]
    module.requires_grad_(False)
    for p in chosen.values():
        p.requires_grad_(True)
    if not chosen:
        raise UsageError("there is nothing to tune: no module from there on has a weight.")
    return list(chosen.values()), kept


def _first_run(tensor: str, place: dict[str, int]) -> int:
    """When the innermost module around a tensor that runs is first run; those of the network itself are first."""
    module = tensor.rpartition(".")[0]
    while module and module not in place:
        module = module.rpartition(".")[0]
    return place.get(module, -1)


def _outermost(module: nn.Module, name: str, trained: set[int], place: dict[str, int]) -> Iterator[str]:
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if full in place and not any(id(p) in trained for p in child.parameters()):
            yield full
        else:
            yield from _outermost(child, full, trained, place)


def _descend(watched: "_Watched", parameters: Sequence[nn.Parameter], tuning: Tuning) -> None:
    generator = torch.Generator().manual_seed(tuning.seed)
    order = torch.randperm(watched.tuned_on, generator=generator)
    batches = [order[start : start + tuning.batch] for start in range(0, len(order), tuning.batch)]
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    how = {"momentum": 0.9} if tuning.optimizer == "sgd" else {}
    optimizer = kinds[tuning.optimizer](parameters, tuning.learning_rate, **how)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tuning.steps)
    points = _points(tuning.steps)
    for step in range(tuning.steps + 1):
        if step in points:
            watched.look(step)
        if step == tuning.steps:
            break
        with torch.enable_grad():
            total = watched.objective(batches[step % len(batches)])
        if not bool(total.isfinite()):
            raise RefusalError(f"the loss is not finite at step {step}: lower learning_rate={tuning.learning_rate:g}.")
        for p, slope in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
            p.grad = slope
        optimizer.step()
        schedule.step()
        if tuning.progress is not None:
            tuning.progress("tuning", step + 1, tuning.steps)


def _points(steps: int) -> set[int]:
    """The steps at which a curve has its points, the first and the last one included."""
    return {round(k * steps / POINTS) for k in range(POINTS + 1)}


def forecast_rows(
    n: int, tune_on: int | None, steps: int, batch: int, rows_of_a_map: tuple[int, int] = (0, 1), questions: int = 1
) -> tuple[int, int]:
    """(forward, gradient) rows of an attack on n images at most; what frozen modules return is not computed again.

    rows_of_a_map: of the method, per image. questions: 2 for active_fooling, whose maps are of two classes.
    """
    tuned = tuned_images(n, tune_on)
    sizes = [min(batch, tuned - start) for start in range(0, tuned, batch)]
    in_steps = sum(sizes[step % len(sizes)] for step in range(steps))
    seen = (n - tuned) * len(_points(steps))
    asked = 1 + questions * (n + in_steps + seen)
    return n + seen + asked * rows_of_a_map[0], in_steps + asked * rows_of_a_map[1]


class _Watched:
    """A copy while it is tuned: its loss on images to tune on, and what is seen of it on the others."""

    def __init__(
        self,
        copied: VisionModel,
        images: Tensor,
        before: Maps,
        table: Tensor,
        maps: MapFunction,
        aim: Aim,
        tuning: Tuning,
    ) -> None:
        self.copied, self.images, self.before, self.table = copied, images, before, table
        self.maps, self.aim, self.tuning = maps, aim, tuning
        self.tuned_on = tuned_images(len(images), tuning.tune_on)
        self.unseen = torch.arange(self.tuned_on, len(images))
        self.spread = table.double().var(correction=0).clamp_min(torch.finfo(torch.float32).tiny).float()
        self.seen: list[tuple[int, Maps, Tensor, Tensor]] = []  # step, maps, their loss, outputs: of the unseen images

    def objective(self, rows: Tensor) -> Tensor:
        """The loss on these images, with a graph."""

        def answers(part: slice) -> Tensor:
            which = rows[part]
            return logits(self.copied, self.images[which], self.before.target.beside_of(which)).float()

        # in the groups that the maps are computed in: what frozen modules return is kept for both
        table = torch.cat(self.copied.in_batches(len(rows), self.images.shape[1:], answers))
        self.copied.count(gradient=len(rows))
        if self.tuning.labels is not None:
            kept = functional.cross_entropy(table, self.tuning.labels[rows].to(table.device))
        else:
            kept = (table - self.table[rows]).square().mean() / self.spread
        if not self.tuning.strength:
            return kept

        def ask(question: Target, which: Tensor) -> Tensor:
            return self.maps(self.copied, self.images[which], question.select(which)).raw

        return kept + self.tuning.strength * self.aim.loss(ask, rows).mean()

    def look(self, step: int) -> None:
        """Note what the copy says of the images that it is not tuned on."""
        known: dict[int, Maps] = {}

        def ask(question: Target, which: Tensor) -> Tensor:
            if id(question) not in known:
                x = self.images[which]
                known[id(question)] = without_graph(self.maps, self.copied, x, question.select(which))
            return known[id(question)].raw

        ask(self.before.target, self.unseen)
        loss = self.aim.loss(ask, self.unseen)
        beside = self.before.target.beside_of(self.unseen)
        table = self.copied.predict(self.images[self.unseen], beside)
        self.seen.append((step, known[id(self.before.target)], loss.detach(), table))

    def judged(self, model: VisionModel, images: Tensor, trained: float) -> Attacked:
        """What moved and what did not."""
        rows, aim, labels = self.unseen, self.aim, self.tuning.labels
        before, (_, after, _, table) = select(self.before, rows), self.seen[-1]
        was, now = (aim.watch(maps.raw, rows) for maps in (before, after))
        watched = compared(aim.watched, aim.unit, before, after, was, now, aim.chance)
        truth = None if labels is None else labels[rows]
        return Attacked(
            attack="",
            model=self.copied,
            images=images[rows],
            before=before,
            after=after,
            moved=(*movement(before, after), watched),
            kept=agreement(self.table[rows], table, model.task, truth),
            curves=self._curves(model),
            excluded=excluded(why_unusable(before), why_unusable(after)),
            settings={"tune_on": self.tuned_on, "trained_share_of_the_weights": trained},
        )

    def _curves(self, model: VisionModel) -> tuple[Curve, ...]:
        aim, rows = self.aim, self.unseen
        x = tuple(float(step) for step, *_ in self.seen)
        losses = tuple(interval(loss.cpu()) for _, _, loss, _ in self.seen)
        watched = tuple(interval(aim.watch(maps.raw, rows).cpu()) for _, maps, _, _ in self.seen)
        curves = [
            Curve("map_loss", "steps", x, "loss", losses),
            Curve(aim.watched, "steps", x, aim.unit, watched),
        ]
        if is_classes(model.task):
            said = predicted_classes(self.table[rows], model.task)
            same = [predicted_classes(table, model.task) == said for *_, table in self.seen]
            points = tuple(proportion(hits.double().cpu()) for hits in same)
            curves.append(Curve("top_1_agreement", "steps", x, "share of the images", points))
        return tuple(curves)

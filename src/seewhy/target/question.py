"""The question itself: one number per row of a network's output, settled on the first clean one, stated in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError, known_name
from seewhy.target import rows as per_image
from seewhy.target.boxes import AXES as BOX_AXES
from seewhy.target.boxes import Boxes, every_score
from seewhy.target.outputs import SCALES, Scale, Task, column, is_detections, on_scale, scores

Kind = Literal["predicted", "index", "margin", "output", "region", "box", "similarity", "callable"]
AXES = {"index": 1, "other": 1, "sign": 1, "mask": 3, "embedding": 2, "found": 1}
RECIPE = (
    "a class alone does not say where: target=sw.target.region(mask, k) sums its scores over a mask, "
    "sw.target.region(None, k) over where it is predicted"
)


@dataclass(frozen=True)
class Target:
    """One question to a network; build it with `logit`, `margin`, `output`, `region`, `box`, `similarity`, `of`, ...

    `scale` None means that the method's own scale is taken (its paper's). Tensors hold an entry per image, or one for all.
    """

    kind: Kind
    scale: Scale | None = None
    index: Tensor | None = None  # the class; for an output or a region, the channel; of a settled box, its label
    other: Tensor | None = None  # the class subtracted in a margin
    sign: Tensor | None = None  # of an output: 1 for what raises it, -1 for what lowers it
    mask: Tensor | None = None  # (H, W) or (N, H, W)
    embedding: Tensor | None = None  # (D,) or (N, D): what the network's own is compared with
    boxes: Boxes | None = None
    function: Callable[[Any], Tensor] | None = None
    task: Task = "multiclass"
    found: Tensor | None = None  # (N,): whether there is what is asked about; None where that is no question
    beside: dict[str, Tensor] | None = None  # what the network is given beside each image, by its name: (N, ...)
    probes: Tensor | None = None  # (2, C, *axes): images on which the question about a box has an answer

    def on(self, scale: Scale) -> "Target":
        """The same question on another scale."""
        known_name("scale", scale, SCALES)
        if self.scale == "output" and scale != "output":
            what = {"output": "a raw output like that of a regression network", "callable": "a function"}.get(
                self.kind, self.kind
            )
            raise UsageError(f"{what} has no {scale}: its scale is 'output'.")
        return self if scale == self.scale else replace(self, scale=scale)

    def settle(self, outputs: Any, rows: Tensor) -> "Target":
        """Fix what depends on the clean outputs (predicted class, region's mask, box); row r must be image rows[r].

        Done once, on outputs that the method computes anyway; a settled target is returned unchanged.
        """
        if self.kind == "predicted":
            return replace(self, kind="index", index=predicted_classes(scores(outputs, len(rows)), self.task))
        if self.kind == "region" and self.mask is None:
            table = scores(outputs, len(rows))
            mask = self._predicted_region(table, rows)
            finite = table.flatten(1).isfinite().all(1)  # else that is what the result says
            return replace(self, mask=mask, found=mask.flatten(1).any(1) | ~finite)
        if self.boxes is not None and self.found is None:
            boxes, label, found = self.boxes.settle(outputs, rows)
            scale = "output" if self.scale is None and is_detections(outputs) else self.scale
            return replace(self, boxes=boxes, index=label, found=found, scale=scale)
        return self

    def select(self, rows: Tensor) -> "Target":
        """The question for these images only, as images 0, 1, 2, ..."""
        chosen = per_image.take(self, AXES, rows)
        if self.boxes is not None:
            chosen = replace(chosen, boxes=per_image.take(self.boxes, BOX_AXES, rows))
        return chosen if self.beside is None else replace(chosen, beside=self.beside_of(rows))

    def beside_of(self, rows: Tensor) -> dict[str, Tensor] | None:
        """What the network is given beside the images of these rows, (R, ...) each; None where that is nothing."""
        if self.beside is None:
            return None
        return {name: values[rows.to(values.device)] for name, values in self.beside.items()}

    def at(self, values: Tensor | None, rows: Tensor) -> Tensor:
        """Per-row values of a per-image (or shared) tensor."""
        assert values is not None, "a target of this kind carries an index"
        return per_image.at(values, rows)

    def __call__(self, outputs: Any, rows: Tensor) -> Tensor:
        """The explained number of every row: (R,)."""
        if self.kind == "callable":
            return _checked(cast(Callable[[Any], Tensor], self.function)(outputs), len(rows))
        if self.boxes is not None:
            return self.boxes.values(outputs, rows, self.at(self.index, rows), self.scale or "output")
        table = scores(outputs, len(rows))
        if self.kind == "region":
            return self._region(table, rows)
        if table.ndim != 2:
            raise UsageError(f"this network returns {tuple(table.shape)}, a map of scores: {RECIPE}.")
        if self.kind == "similarity":
            return self._similarity(table, rows)
        if self.kind == "output":
            _check_one_output(self, table.shape[1], None)
            value = table[:, 0] if self.index is None else column(table, self.at(self.index, rows))
            return value if self.sign is None else value * self.at(self.sign, rows).to(value)
        scaled = on_scale(table, self.scale or "logit", self.task)
        value = column(scaled, self.at(self.index, rows))
        return value if self.other is None else value - column(scaled, self.at(self.other, rows))

    def _region(self, table: Tensor, rows: Tensor) -> Tensor:
        assert self.mask is not None, "settle() comes before the first call"
        mask = self.mask.to(table.device)
        mask = mask[rows] if mask.ndim == 3 else mask
        _check_region(self, table.shape)
        return (self._channel(table, rows) * mask).flatten(1).sum(1)

    def _channel(self, table: Tensor, rows: Tensor) -> Tensor:
        return table[:, 0] if self.index is None else column(table, self.at(self.index, rows))

    def _predicted_region(self, table: Tensor, rows: Tensor) -> Tensor:
        """(R, H, W): where the class has the largest score, or the one logit of a segmentation is positive."""
        _check_region(self, table.shape)
        if table.shape[1] > 1:
            return table.argmax(1) == self.at(self.index, rows).view(-1, 1, 1)
        if self.task != "segmentation":
            raise UsageError(
                'region(None) means where the one logit of a task="segmentation" is positive; this is task='
                f"{self.task!r}: give a mask."
            )
        return table[:, 0] > 0

    def _similarity(self, table: Tensor, rows: Tensor) -> Tensor:
        assert self.embedding is not None, "a similarity is to something"
        _check_width(self.embedding, table.shape[1])
        other = self.embedding.to(table)
        return functional.cosine_similarity(table, other[rows] if other.ndim == 2 else other.expand_as(table), dim=1)

    def asked_of_probes(self) -> tuple[Any, ...]:
        """What tells apart the questions that a network's layers are found with, once for each: class questions share one."""
        if self.kind == "box":
            return (self.kind, self.probes is None)
        own = self.kind in ("callable", "output", "region", "similarity")
        identity = (id(self.function), None if self.found is not None else id(self.mask))
        return (self.kind, str(self.index), *identity) if own else ()

    def for_probes(self, rows: Tensor, task: Task) -> "Target":
        """The question to find a network's layers with, on two pictures: that of image 0, where they have an answer."""
        if not self.asked_of_probes() or (self.kind == "box" and self.probes is None):
            return stand_in(task)
        first = replace(self.select(0 * rows), task=task)
        if self.kind != "region" or (self.mask is not None and self.found is None):
            return first
        return replace(first, kind="callable", function=lambda outputs: first._whole(scores(outputs), rows))

    def _whole(self, table: Tensor, rows: Tensor) -> Tensor:
        _check_region(replace(self, mask=None), table.shape)
        return self._channel(table, rows).flatten(1).sum(1)

    def copied(self) -> "Target":
        """With tensors of its own: ordinary ones, wherever the given ones were made (inference mode included)."""
        own = per_image.copy(self, AXES)
        return own if own.boxes is None else replace(own, boxes=per_image.copy(own.boxes, BOX_AXES))

    @staticmethod
    def join(parts: Sequence["Target"]) -> "Target":
        """Settled targets of consecutive groups of images as one."""
        joined = per_image.join(parts, AXES)
        boxes = [part.boxes for part in parts if part.boxes is not None]
        beside = [part.beside for part in parts if part.beside is not None]
        if boxes:
            joined = replace(joined, boxes=per_image.join(boxes, BOX_AXES))
        if beside:
            joined = replace(joined, beside={name: torch.cat([part[name] for part in beside]) for name in beside[0]})
        return joined

    def check(self, n_images: int, output_shape: Sequence[int], labels: Sequence[str] | None = None) -> None:
        """UsageError, before any work, for a question that the output has no answer to, or another count than the images'.

        output_shape: of the score table; () where it is not known.
        """
        ranks = None if self.boxes is None else self.boxes.rank
        for values in (self.index, self.other, self.sign, self.embedding, ranks):
            axes = 2 if values is self.embedding else 1
            if values is not None and values.ndim == axes and len(values) != n_images:
                raise UsageError(f"{len(values)} targets for {n_images} images: give one, or one per image.")
        mask = self.mask
        if mask is not None and (mask.ndim not in (2, 3) or (mask.ndim == 3 and len(mask) != n_images)):
            raise UsageError(
                f"a region mask is (H, W), or (N, H, W), one per image; got {tuple(mask.shape)} for {n_images} images."
            )
        if output_shape:
            _check_output(self, output_shape, labels)

    def text(self, i: int, labels: Sequence[str] | None) -> str:
        """The question about image i in words: 'logit of 281 tabby'."""
        scale = (self.scale or "logit").replace("_", " ")
        if self.kind == "callable":
            return f"value of {getattr(self.function, '__name__', 'a function')}"
        if self.kind == "predicted":
            return f"{scale} of the predicted class"
        if self.kind == "similarity":
            return "cosine similarity to the given embedding"
        if self.boxes is not None:
            return self._box_text(i, labels)
        name = self._named(self.index, i, labels)
        if self.kind == "output":
            down = self.sign is not None and int(_of(self.sign, i)) < 0
            return f"minus {name}" if down else name
        if self.kind == "region":
            where = "over a region" if self.found is None and self.mask is not None else "where it is predicted"
            return f"sum of {name} {where}" + (" (nowhere)" if self.found is not None and not self.found[i] else "")
        scale = "" if self.task == "regression" else f"{scale} of "
        contrast = f" minus {self._named(self.other, i, labels)}" if self.other is not None else ""
        return f"{scale}{name}{contrast}"

    def _named(self, values: Tensor | None, i: int, labels: Sequence[str] | None) -> str:
        """'281 tabby', 'class 281'; of numbers that are no classes, 'output 2 age', 'output 2', 'the output'."""
        output = self.task == "regression" or self.kind == "output" or (self.kind == "region" and values is None)
        if values is None and (labels is None or len(labels) != 1):
            return "the output"
        k = 0 if values is None else int(_of(values, i))
        if labels is not None and k < len(labels):
            return f"output {k} {labels[k]}" if output else f"{k} {labels[k]}"
        return f"output {k}" if output else f"class {k}"

    def _box_text(self, i: int, labels: Sequence[str] | None) -> str:
        assert self.boxes is not None, "asked of a box"
        rank = int(_of(self.boxes.rank, i))
        if self.found is None or self.boxes.box is None or self.boxes.confidence is None:
            return f"score of box {rank}"
        name, sure = self._named(self.index, i, labels), float(self.boxes.confidence[i])
        if not self.found[i]:
            best = "nothing was detected" if sure < 0 else f"the best, {name}, has a score of {sure:.2g}"
            best = best.replace("the best", "it") if rank else best
            return f"no box {rank} with a score of {self.boxes.threshold:g} or more: {best}"
        corners = ", ".join(f"{value:.4g}" for value in self.boxes.box[i].tolist())
        said = "score" if self.scale in (None, "output") else str(self.scale).replace("_", " ")
        return f"{said} of box {rank}: {name} at [{corners}]"


PREDICTED = Target("predicted")


def stand_in(task: Task) -> Target:
    """A question that every network of a task answers on any picture: the predicted class, or its strongest scores."""
    if task in ("multiclass", "multilabel", "binary"):
        return replace(PREDICTED, task=task)
    return Target("callable", "output", function=every_score if task == "detection" else strongest_scores, task=task)


def strongest_scores(outputs: Any) -> Tensor:
    """Of each row the largest score, summed over the places where there is one: (R,)."""
    table = scores(outputs).amax(1)
    return table.flatten(1).sum(1) if table.ndim > 1 else table


def _check_output(target: Target, shape: Sequence[int], labels: Sequence[str] | None) -> None:
    of_class, columns = target.kind in ("predicted", "index", "margin"), shape[1] if len(shape) > 1 else 1
    if target.kind == "region":
        _check_region(target, shape)
    elif len(shape) > 2:
        more = "" if target.task == "segmentation" else ', and task="segmentation" says what this network is'
        raise UsageError(f"this network returns {tuple(shape)}, a map of scores: {RECIPE}{more}.")
    elif target.task == "binary" and columns != 1:
        raise UsageError(f"task='binary' means one logit; this network has {columns} outputs: 'multiclass'.")
    elif of_class:
        _check_classes(columns, target.task)
    elif target.kind == "output":
        _check_one_output(target, columns, labels)
    elif target.kind == "similarity" and target.embedding is not None:
        _check_width(target.embedding, columns)
    _check_range(target, 2 if target.task == "binary" and of_class else columns)


def _check_classes(columns: int, task: Task) -> None:
    if task == "multiclass" and columns == 1:
        raise UsageError(
            'this network has one output, so no class of it is the predicted one: wrap it with task="binary" (one logit, '
            'two classes) or task="regression" (a number).'
        )


def _check_one_output(target: Target, columns: int, labels: Sequence[str] | None) -> None:
    if target.index is None and columns != 1:
        known = f": {', '.join(f'{k} {name}' for k, name in enumerate(labels[:12]))}" if labels else ""
        raise UsageError(f"output() needs one output per image; this network has {columns}: output(k){known}.")


def _check_range(target: Target, columns: int) -> None:
    for values in (target.index, target.other):
        if values is None:
            continue
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= columns:
            what = "outputs" if target.task in ("regression", "embedding") else "classes"
            raise UsageError(
                f"target {low if low < 0 else high} is out of range: this network has {columns} {what}, 0 to {columns - 1}."
            )


def _check_region(target: Target, shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise UsageError(f"a region is asked of an output (N, channels, H, W); this network returns {tuple(shape)}.")
    if target.mask is not None and tuple(target.mask.shape[-2:]) != tuple(shape[2:]):
        raise UsageError(
            f"region mask is {tuple(target.mask.shape[-2:])}, the network's output is {tuple(shape)}: a mask has the "
            f"output's size. torch.nn.functional.interpolate(mask[None, None].float(), size={tuple(shape[2:])})[0, 0] "
            "gives it."
        )
    if target.index is None and shape[1] != 1:
        raise UsageError(f"which of the {shape[1]} classes? sw.target.region(mask, k), k from 0 to {shape[1] - 1}.")


def _check_width(embedding: Tensor, columns: int) -> None:
    if embedding.shape[-1] != columns:
        raise UsageError(
            f"the given embedding has {embedding.shape[-1]} numbers, the network's has {columns}: "
            "model.predict(other_images) gives one that fits."
        )


def predicted_classes(table: Tensor, task: Task) -> Tensor:
    """The class that each row of a table of logits (R, classes) gives the largest score, (R,); of one logit 1 above 0."""
    if table.ndim != 2:
        raise UsageError(f"there is no predicted class in an output of shape {tuple(table.shape)}: {RECIPE}.")
    _check_classes(table.shape[1], task)
    if task == "binary":
        return (table[:, 0] > 0).long()
    return table.argmax(1)


def _of(values: Tensor, i: int) -> Tensor:
    return values[i] if values.ndim else values


def _checked(value: Any, n: int) -> Tensor:
    wanted = f"a target function must return one number per row, shape ({n},)"
    if not isinstance(value, Tensor):
        raise UsageError(f"{wanted}; it returned {type(value).__name__}.")
    if value.shape != (n,):
        fix = ": values[:, 0] is that column" if value.shape == (n, 1) else ""
        fix = ": sum or average within a row, not over the rows" if not value.ndim else fix
        raise UsageError(f"{wanted}; it returned {tuple(value.shape)}{fix}.")
    if not value.is_floating_point():
        raise UsageError(f"{wanted}, of a float type; it returned {value.dtype}, which has no gradient.")
    return value

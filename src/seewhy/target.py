"""What is explained, as data: one number per row of the network's output, and the scale it is read on.

A row is one forward of one (image, target) pair. A target is called as `target(outputs, rows) -> (R,)` with `rows[r]`
the image that output row r belongs to, so the same question survives chunks, path steps and masks.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError, known_name, near_names

Scale = Literal["logit", "probability", "log_probability", "output"]
Task = Literal["multiclass", "multilabel", "binary", "regression", "segmentation", "detection"]
Kind = Literal["predicted", "index", "margin", "output", "region", "callable"]
SCALES: tuple[str, ...] = get_args(Scale)
TASKS: tuple[str, ...] = get_args(Task)


@dataclass(frozen=True)
class Target:
    """One question to a network; build it with `logit`, `probability`, `margin`, `output`, `region` or `of`.

    `scale` None means that the method's own scale is taken (its paper's). Per-image values are (N,) tensors.
    """

    kind: Kind
    scale: Scale | None = None
    index: Tensor | None = None  # the class; for a region, the channel
    other: Tensor | None = None  # the class subtracted in a margin
    mask: Tensor | None = None  # (H, W) or (N, H, W)
    function: Callable[[Any], Tensor] | None = None
    task: Task = "multiclass"

    def on(self, scale: Scale) -> "Target":
        """The same question on another scale."""
        known_name("scale", scale, SCALES)
        return self if scale == self.scale else replace(self, scale=scale)

    def settle(self, outputs: Any, rows: Tensor) -> "Target":
        """Fix what depends on the clean outputs (the predicted class, a region's mask); row r must be image rows[r].

        Done once, on outputs that the method computes anyway; a settled target is returned unchanged.
        """
        if self.kind == "predicted":
            return replace(self, kind="index", index=_predicted(scores(outputs), self.task))
        if self.kind == "region" and self.mask is None:
            channel = self.at(self.index, rows)
            return replace(self, mask=scores(outputs).argmax(1) == channel.view(-1, 1, 1))
        return self

    def select(self, rows: Tensor) -> "Target":
        """The question for these images only, as images 0, 1, 2, ..."""
        fields = {"index": self.index, "other": self.other, "mask": self.mask}
        chosen = {
            name: value[rows.to(value.device)]
            for name, value in fields.items()
            if value is not None and _is_per_image(name, value)
        }
        return replace(self, **cast(dict[str, Any], chosen)) if chosen else self

    def at(self, values: Tensor | None, rows: Tensor) -> Tensor:
        """Per-row values of a per-image (or shared) tensor."""
        assert values is not None, "a target of this kind carries an index"
        return values.to(rows.device)[rows] if values.ndim else values.to(rows.device).expand(len(rows))

    def __call__(self, outputs: Any, rows: Tensor) -> Tensor:
        """The explained number of every row: (R,)."""
        if self.kind == "callable":
            return _checked(cast(Callable[[Any], Tensor], self.function)(outputs), len(rows))
        table = scores(outputs)
        if self.kind == "region":
            return self._region(table, rows)
        if table.ndim != 2:
            raise UsageError(
                f"a class target needs an output of shape (N, classes); this network returns {tuple(table.shape)}. "
                "For a segmentation network explain a region: sw.target.region(mask, k)."
            )
        if self.kind == "output":
            if table.shape[1] != 1 and self.index is None:
                raise UsageError(f"output() needs one output per image; this network has {table.shape[1]}: output(k).")
            return table[:, 0] if self.index is None else _column(table, self.at(self.index, rows))
        scaled = _on_scale(table, self.scale or "logit", self.task)
        value = _column(scaled, self.at(self.index, rows))
        return value if self.other is None else value - _column(scaled, self.at(self.other, rows))

    def _region(self, table: Tensor, rows: Tensor) -> Tensor:
        assert self.mask is not None, "settle() comes before the first call"
        mask = self.mask.to(table.device)
        mask = mask[rows] if mask.ndim == 3 else mask
        if table.ndim != 4 or table.shape[2:] != mask.shape[-2:]:
            raise UsageError(f"region mask is {tuple(mask.shape[-2:])}, the network's output is {tuple(table.shape)}.")
        channel = _column(table.flatten(2), self.at(self.index, rows)).view(len(rows), *table.shape[2:])
        return (channel * mask).flatten(1).sum(1)

    def copied(self) -> "Target":
        """With tensors of its own: ordinary ones, wherever the given ones were made (inference mode included)."""
        fields = {"index": self.index, "other": self.other, "mask": self.mask}
        own = {name: values.detach().clone() for name, values in fields.items() if values is not None}
        return replace(self, **cast(dict[str, Any], own)) if own else self

    @staticmethod
    def join(parts: Sequence["Target"]) -> "Target":
        """Settled targets of consecutive groups of images as one."""
        names = [name for name in ("index", "other", "mask") if _is_per_image(name, getattr(parts[0], name))]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **cast(dict[str, Any], joined))

    def check(self, n_images: int, output_shape: Sequence[int]) -> None:
        """UsageError, before any work, for a class outside the output or a count that is not the number of images."""
        if self.mask is not None and (
            self.mask.ndim not in (2, 3) or (self.mask.ndim == 3 and len(self.mask) != n_images)
        ):
            raise UsageError(
                f"a region mask is (H, W), or (N, H, W), one per image; got {tuple(self.mask.shape)} for {n_images} images."
            )
        if self.task == "binary" and len(output_shape) > 1 and output_shape[1] != 1:
            raise UsageError(
                f"task='binary' means one logit; this network has {output_shape[1]} outputs: 'multiclass'."
            )
        classes = 2 if self.task == "binary" else output_shape[1] if len(output_shape) > 1 else 1
        for values in (self.index, self.other):
            if values is None:
                continue
            if values.ndim and len(values) != n_images:
                raise UsageError(f"{len(values)} targets for {n_images} images: give one, or one per image.")
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= classes:
                bad = low if low < 0 else high
                raise UsageError(
                    f"target {bad} is out of range: this network has {classes} classes, 0 to {classes - 1}."
                )

    def text(self, i: int, labels: Sequence[str] | None) -> str:
        """The question about image i in words: 'logit of 281 tabby'."""
        if self.kind == "callable":
            return f"value of {getattr(self.function, '__name__', 'a function')}"
        scale = (self.scale or "logit").replace("_", " ")
        if self.kind == "predicted":
            return f"{scale} of the predicted class"

        def named(values: Tensor | None) -> str:
            if values is None:
                return ""
            k = int(values[i] if values.ndim else values)
            return f"{k} {labels[k]}" if labels is not None and k < len(labels) else f"class {k}"

        if self.kind == "output":
            return "the output" if self.index is None else f"output {named(self.index)}"
        if self.kind == "region":
            return f"sum of {named(self.index)} over a region"
        contrast = f" minus {named(self.other)}" if self.other is not None else ""
        return f"{scale} of {named(self.index)}{contrast}"


PREDICTED = Target("predicted")


def logit(index: int | Sequence[int] | Tensor) -> Target:
    """The class score before softmax or sigmoid: S_c. One class for all images, or one per image."""
    return Target("index", "logit", _indices(index))


def probability(index: int | Sequence[int] | Tensor) -> Target:
    """p_c = softmax(S)_c (sigmoid for multi-label and binary networks), in [0, 1]."""
    return Target("index", "probability", _indices(index))


def margin(a: int | Sequence[int] | Tensor, b: int | Sequence[int] | Tensor) -> Target:
    """S_a - S_b: why a and not b."""
    return Target("margin", None, _indices(a), _indices(b))


def output(index: int | None = None) -> Target:
    """The network's raw output: of a regression network its one number, else column `index`."""
    return Target("output", "output", None if index is None else _indices(index))


def region(mask: Tensor | None, index: int = 0) -> Target:
    """Sum of output channel `index` over a mask (H, W) or (N, H, W); None: where the clean prediction is that class."""
    if mask is not None and not isinstance(mask, Tensor):
        raise UsageError(f"a region mask is a tensor (H, W) or (N, H, W), not {type(mask).__name__}.")
    return Target("region", "output", _indices(index), mask=None if mask is None else mask.bool())


def of(function: Callable[[Any], Tensor]) -> Target:
    """Any scalar: `function(outputs) -> (R,)`, one number per row of the output."""
    if not callable(function):
        raise UsageError(f"sw.target.of takes a function of the outputs, not {type(function).__name__}.")
    return Target("callable", "output", function=function)


def resolve(given: Any, labels: Sequence[str] | None, task: Task) -> Target:
    """What a user may write (nothing, an index, a name, "a - b", a list of these, a Target, a function) as a Target."""
    if given is None:
        question = output() if task == "regression" else PREDICTED
        return question if question.task == task else replace(question, task=task)
    if isinstance(given, Target):
        return replace(given, task=task)
    if isinstance(given, str):
        return replace(_named(given, labels), task=task)
    if callable(given):
        return replace(of(given), task=task)
    if isinstance(given, list | tuple) and any(isinstance(item, str) for item in given):
        named = [_named(item, labels) if isinstance(item, str) else logit(item) for item in given]
        margins = [item.other is not None for item in named]
        if any(margins) != all(margins):
            raise UsageError("a list of targets must be all classes or all contrasts ('a - b').")
        first = torch.stack([cast(Tensor, item.index) for item in named])
        second = torch.stack([cast(Tensor, item.other) for item in named]) if all(margins) else None
        return Target("margin" if second is not None else "index", None, first, second, task=task)
    return Target("index", None, _indices(given), task=task)


def scores(outputs: Any) -> Tensor:
    """The score table of an output: a tensor itself, `.logits`, `["logits"]`, or the first tensor of a tuple."""
    if not isinstance(outputs, Tensor):
        if isinstance(outputs, Mapping):
            outputs = outputs.get("logits", next((v for v in outputs.values() if isinstance(v, Tensor)), None))
        elif hasattr(outputs, "logits"):
            outputs = outputs.logits
        elif isinstance(outputs, tuple | list):
            outputs = next((v for v in outputs if isinstance(v, Tensor)), None)
    if not isinstance(outputs, Tensor):
        raise UsageError("this network's output holds no score tensor: pass target=a function of the output.")
    return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs


def probabilities(outputs: Any, task: Task) -> Tensor | None:
    """(R, classes) probabilities of a classifier's outputs (two columns for one logit); None for other tasks."""
    table = scores(outputs)
    if task not in ("multiclass", "multilabel", "binary") or table.ndim != 2:
        return None
    return _on_scale(table.float(), "probability", task)


def _on_scale(table: Tensor, scale: Scale, task: Task) -> Tensor:
    if task == "binary":
        _check_one_logit(table.shape[1])  # class 1 is +s, class 0 is -s
        table = torch.cat([-table[:, :1], table[:, :1]], 1)
    if scale in ("logit", "output"):
        return table
    if task == "regression":
        raise UsageError(f"a regression network has no {scale}: use the scale 'output'.")
    log_p = functional.log_softmax(table, 1) if task == "multiclass" else functional.logsigmoid(table)
    return log_p if scale == "log_probability" else log_p.exp()


def _check_one_logit(outputs: int) -> None:
    if outputs != 1:
        raise UsageError(f"task='binary' means one logit; this network has {outputs} outputs: use 'multiclass'.")


def _predicted(table: Tensor, task: Task) -> Tensor:
    if table.ndim != 2:
        raise UsageError(
            f"there is no predicted class in an output of shape {tuple(table.shape)}: say what to explain, "
            "for a segmentation network e.g. target=sw.target.region(mask, k)."
        )
    if task == "binary":
        return (table[:, 0] > 0).long()
    return table.argmax(1)


def _is_per_image(name: str, values: Tensor | None) -> bool:
    return values is not None and values.ndim == (3 if name == "mask" else 1)


def _column(table: Tensor, index: Tensor) -> Tensor:
    return table[torch.arange(len(table), device=table.device), index.to(table.device)]


def _checked(value: Any, n: int) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != (n,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"a target function must return one number per row, shape ({n},); it returned {shape}.")
    return value


def _indices(given: Any) -> Tensor:
    tensor = given if isinstance(given, Tensor) else None
    if tensor is None:
        values = given if isinstance(given, list | tuple) else [given]
        wrong = [v for v in values if not _is_index(v)]
        if wrong or not values:
            shown = f"{type(wrong[0]).__name__} {wrong[0]!r}" if wrong else "an empty list"
            raise UsageError(f"a target is a class index (int), a class name or a list of these, not {shown}.")
        try:
            tensor = torch.tensor([operator.index(v) for v in values], dtype=torch.int64)
        except (OverflowError, ValueError, RuntimeError) as error:
            raise UsageError(f"a class index cannot be that large: {given!r}.") from error
        tensor = tensor if isinstance(given, list | tuple) else tensor[0]
    if tensor.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8) or tensor.ndim > 1:
        raise UsageError(
            f"a target tensor holds one integer per image; this one is {tensor.dtype}, {tuple(tensor.shape)}."
        )
    return tensor.detach().long().clone()


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and not (isinstance(value, Tensor) and value.dtype == torch.bool)


def _named(name: str, labels: Sequence[str] | None) -> Target:
    left, minus, right = name.partition(" - ")
    if minus and name.strip().lower() not in {label.lower() for label in labels or ()}:
        return margin(_class_index(left, labels), _class_index(right, labels))
    return Target("index", None, _indices(_class_index(name, labels)))


def _class_index(name: str, labels: Sequence[str] | None) -> int:
    name = name.strip()
    found = [i for i, label in enumerate(labels or ()) if label.lower() == name.lower()]
    if name.isdecimal() and not found:
        return int(name)
    if labels is None:
        raise UsageError(f"class name {name!r} given, but this model has no labels: pass labels=[...] or use an index.")
    if len(found) > 1:
        raise UsageError(f"class name {name!r} is ambiguous: it is the name of classes {found}. Use the index.")
    if not found:
        raise UsageError(f"unknown class {name!r}: {near_names(name, labels)}")
    return found[0]

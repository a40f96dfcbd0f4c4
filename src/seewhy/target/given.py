"""What a user may write as a target: an index, a name, words, a list of these, a function, or one made by a function here."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from seewhy.errors import UsageError, known_name, near_names, real_number, whole_number
from seewhy.target import rows as per_image
from seewhy.target.boxes import AXES as BOX_AXES
from seewhy.target.boxes import Boxes
from seewhy.target.outputs import Task
from seewhy.target.question import AXES, PREDICTED, RECIPE, Target

Direction = Literal["up", "down"]
DIRECTIONS: tuple[str, ...] = get_args(Direction)
Index = int | Sequence[int] | Tensor
BOX = 0.5  # least score of what counts as detected


def logit(index: Index) -> Target:
    """The class score before softmax or sigmoid: S_c. One class for all images, or one per image."""
    return Target("index", "logit", _indices(index))


def probability(index: Index) -> Target:
    """p_c = softmax(S)_c (sigmoid for multi-label and binary networks), in [0, 1]."""
    return Target("index", "probability", _indices(index))


def margin(a: Index, b: Index) -> Target:
    """S_a - S_b: why a and not b."""
    return Target("margin", None, _indices(a), _indices(b))


def output(index: Index | None = None, direction: Direction = "up") -> Target:
    """The network's raw output: of a regression network its one number, else column `index`; `down`: its negative."""
    known_name("direction", direction, DIRECTIONS)
    sign = torch.tensor(1 if direction == "up" else -1)
    return Target("output", "output", None if index is None else _indices(index), sign=sign)


def region(mask: Tensor | None, index: Index | None = None) -> Target:
    """Sum of output channel `index` over a mask (H, W) or (N, H, W) of the output's size; of a one-channel output without.

    mask None: where the clean prediction is that class (one channel: where it is positive), settled before anything is
    changed. An image without such a place has status `no_detection`.
    """
    if mask is not None and not isinstance(mask, Tensor):
        raise UsageError(f"a region mask is a tensor (H, W) or (N, H, W), not {type(mask).__name__}.")
    channel = None if index is None else _indices(index)
    return Target("region", "output", channel, mask=None if mask is None else mask.bool())


def box(i: int = 0, threshold: float = BOX) -> Target:
    """Score of the i-th detection of the clean image by score (0: the most certain), if that is at least `threshold`.

    Of lists of boxes it is max IoU(box, that box) score over boxes of its label (D-RISE, Petsiuk 2021), in [0, 1], on the
    clean image its own score; of DETR-like outputs the logit or probability that its query gives its label. The last
    column of their logits is "no object" (softmax), unless the model has as many labels as columns (sigmoid). An image
    without such a detection has status `no_detection`.
    """
    whole_number("box", i, at_least=0)
    real_number("threshold", threshold, at_least=0, at_most=1)
    return Target("box", None, boxes=Boxes(torch.tensor(i), float(threshold)))


def similarity(to: Tensor) -> Target:
    """Cosine of the network's embedding with `to` (D,) or (N, D), in [-1, 1]; e.g. to=model.predict(other_images)."""
    if not isinstance(to, Tensor) or not to.is_floating_point() or to.ndim not in (1, 2):
        shown = f"{to.dtype}, {tuple(to.shape)}" if isinstance(to, Tensor) else type(to).__name__
        raise UsageError(f"similarity(to) takes an embedding (D,), or (N, D), one per image, of floats; got {shown}.")
    length = torch.linalg.vector_norm(to.detach().float(), dim=-1)
    if not bool((length.isfinite() & (length > 0)).all()):
        raise UsageError("similarity(to) takes embeddings of a finite length above 0: a cosine has no meaning without.")
    return Target("similarity", "output", embedding=to.detach())


def of(function: Callable[[Any], Tensor]) -> Target:
    """Any scalar: `function(outputs) -> (R,)`, one number per row of the output."""
    if not callable(function):
        raise UsageError(f"sw.target.of takes a function of the outputs, not {type(function).__name__}.")
    return Target("callable", "output", function=function)


def resolve(given: Any, labels: Sequence[str] | None, task: Task) -> Target:
    """What a user may write (nothing, an index, a name, words, a list of these, a Target, a function) as a Target.

    Words: "tabby - lynx"; of a regression "up", "down", "down age"; of a segmentation "region road"; of a detector "box 1".
    UsageError for what asks nothing of a network of this task.
    """
    if given is None:
        return _default(task)
    if isinstance(given, list | tuple) and any(isinstance(item, str | Target) or callable(item) for item in given):
        return _together([_one(item, labels, task) for item in given])
    return _one(given, labels, task)


def _default(task: Task) -> Target:
    if task == "segmentation":
        raise UsageError(f"a segmentation network predicts a class in every place; say which to explain: {RECIPE}.")
    if task == "embedding":
        raise UsageError(EMBEDDING)
    question = output() if task == "regression" else box() if task == "detection" else PREDICTED
    return question if question.task == task else replace(question, task=task)


EMBEDDING = (
    "an embedding has no classes: explain how similar it is to another one, target=sw.target.similarity(to), with e.g. "
    "to=model.predict(other_images)."
)


def _one(given: Any, labels: Sequence[str] | None, task: Task) -> Target:
    if isinstance(given, Target):
        question = given
    elif isinstance(given, str):
        question = _worded(given, labels, task)
    elif callable(given):
        question = of(given)
    else:
        question = Target("index", None, _indices(given))
    return _fitted(replace(question, task=task), len(labels) if labels is not None else None)


def _fitted(question: Target, classes: int | None) -> Target:
    """The question as a network of its task understands it."""
    task, of_class = question.task, question.kind in ("index", "margin", "predicted")
    if question.boxes is not None:
        return replace(question, boxes=replace(question.boxes, classes=classes))
    if task == "segmentation" and (of_class or question.kind == "output"):
        k = (
            ""
            if question.index is None or question.index.ndim
            else f"; here sw.target.region(None, {int(question.index)})"
        )
        raise UsageError(f"for a segmentation network {RECIPE}{k}.")
    if task == "embedding" and (of_class or (question.kind == "output" and question.index is None)):
        raise UsageError(EMBEDDING)
    if task == "detection" and (of_class or question.kind == "output"):
        raise UsageError(
            "a class alone does not say which detection: target=sw.target.box(0) is the most certain one, sw.target.box(1) "
            "the next."
        )
    if task == "regression" and of_class:
        if question.scale not in (None, "logit", "output"):
            raise UsageError(f"a regression network has no {question.scale}: use the scale 'output'.")
        if question.kind == "margin":
            return replace(question, scale="output")
        return replace(question, kind="output", scale="output", sign=torch.tensor(1))
    return question


def _together(items: Sequence[Target]) -> Target:
    """Questions of one kind as one question per image."""
    for name in [field.name for field in fields(Target) if field.name not in AXES and field.name != "boxes"]:
        several = {str(getattr(item, name)) for item in items}
        if len(several) > 1:
            raise UsageError(
                "a list of targets must be all classes or all contrasts ('a - b'), all boxes, all outputs, ...; "
                f"{name} here is {' and '.join(sorted(several))}."
            )
    for name in AXES:
        held = [getattr(item, name) for item in items]
        if any(one is None for one in held) and not all(one is None for one in held):
            raise UsageError(f"a list of targets must be all of one kind; some here have a {name}, some have none.")
        shapes = {tuple(one.shape) for one in held if one is not None}
        if len(shapes) > 1 or any(len(shape) == AXES[name] for shape in shapes):
            raise UsageError(
                f"a list of targets holds one target per image, each for one image; got a {name} of {shapes}."
            )
    joined = per_image.stack(items, AXES)
    boxes = [item.boxes for item in items if item.boxes is not None]
    if not boxes:
        return joined
    if len({one.threshold for one in boxes}) > 1:
        raise UsageError("the boxes in a list of targets must have one threshold.")
    return replace(joined, boxes=per_image.stack(boxes, BOX_AXES))


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


def _worded(name: str, labels: Sequence[str] | None, task: Task) -> Target:
    word, _, rest = name.strip().partition(" ")
    if name.strip().lower() not in {label.lower() for label in labels or ()}:
        if task == "regression" and word.lower() in DIRECTIONS:
            k = _class_index(rest, labels) if rest.strip() else None
            return output(k, "up" if word.lower() == "up" else "down")
        if task == "segmentation" and word.lower() == "region":
            return region(None, _class_index(rest, labels) if rest.strip() else None)
        if task == "detection" and word.lower() == "box" and rest.strip().isdecimal():
            return box(int(rest))
        left, minus, right = name.partition(" - ")
        if minus:
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

"""What a model should answer: the labels of a data set in the model's own terms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seewhy.data.dataset import DataSet
from seewhy.data.kinds import KIND_OF_TASK, Kind, as_kind
from seewhy.errors import UsageError, near_names
from seewhy.model import VisionModel

Named = dict[str, list[tuple[int, str]]]  # folded class name -> the classes of that name: index, name as it is written


def labels_for(model: VisionModel, dataset: DataSet) -> tuple[DataSet, Tensor]:
    """The data set without the images whose label the model does not know (listed as skipped), and their targets in order.

    multiclass, binary: class indices (N,) int64; multilabel: 0 or 1 (N, K) float32; regression: scores (N,) float64.
    A class is found by name, whatever its case and underscores; a number is a name where every number of the data set is
    one of the model's names, else an index. A data set that numbers its own classes is read by index where it has as many
    as the model and they are not the model's in another order. Nothing is translated (n01440764 is a name).
    UsageError, with near names, where no label fits, or for a task without labels.
    """
    if model.task not in KIND_OF_TASK:
        raise UsageError(
            f"task={model.task!r} has neither classes nor a score per image; labels need {', '.join(KIND_OF_TASK)}."
        )
    kind = KIND_OF_TASK[model.task]
    read = [_as_kind(sample.label, kind) for sample in dataset.samples]
    found = _indices(model, dataset, read) if kind != "score" else {}
    samples, values, skipped = [], [], list(dataset.skipped)
    for sample, (label, reason) in zip(dataset.samples, read, strict=True):
        parts = label if isinstance(label, tuple) else (label,)
        wrong = reason or next((str(one) for part in parts if isinstance(one := found.get(part, 0), str)), "")
        if wrong:
            skipped.append({"path": sample.name, "reason": wrong})
            continue
        samples.append(sample)
        values.append(label if kind == "score" else [found[part] for part in parts])
    if not samples:
        first = skipped[len(dataset.skipped)]
        raise UsageError(
            f"no label of the data set ({len(dataset)} images) fits this {model.task} network; the first, {first['path']}: "
            f"{first['reason']}.{_near(model, read)}"
        )
    return replace(dataset, samples=tuple(samples), skipped=tuple(skipped)), _targets(model, kind, values)


def class_of(model: VisionModel, name: str) -> tuple[int, str]:
    """The class of a name, whatever its case and underscores, or of an index as text: (index, the model's own name for it).

    ValueError, with the reason, where the model has none, or several.
    """
    names, named, label = _names(model), _named(model), as_kind(name, "class")
    index = label if isinstance(label, int) and not _places(name, named) else None
    match _index(name if index is None else index, named, _outputs(model), model.labels is None):
        case str() as reason:
            raise ValueError(reason)
        case found:
            return found, names[found] if found < len(names) else name


def _as_kind(label: Any, kind: Kind) -> tuple[Any, str]:
    """The label as the model's task has it, and why it cannot be one."""
    try:
        return as_kind(label, kind), ""
    except ValueError as error:
        return None, str(error)


def _targets(model: VisionModel, kind: Kind, values: list[Any]) -> Tensor:
    if kind == "score":
        return torch.tensor(values, dtype=torch.float64)
    if kind == "class":
        return torch.tensor([one for (one,) in values])
    table = torch.zeros(len(values), _outputs(model))
    rows = [row for row, indices in enumerate(values) for _ in indices]
    table[rows, [k for indices in values for k in indices]] = 1
    return table


def _outputs(model: VisionModel) -> int:
    """How many classes the model tells apart; without names it is run once, on gray."""
    if model.task == "binary":
        return 2
    return len(model.labels) if model.labels is not None else model.output_shape(model.input_shape())[1]


def _names(model: VisionModel) -> list[str]:
    """The model's class names, in order; of a binary network without names, or with that of class 1 alone, both."""
    names = model.labels or []
    if model.task == "binary" and len(names) < 2:
        return [f"not {names[0]}", names[0]] if names else ["false", "true"]
    return names


def _named(model: VisionModel) -> Named:
    found: Named = {}
    for k, name in enumerate(_names(model)):
        found.setdefault(_folded(name), []).append((k, name))
    return found


def _indices(model: VisionModel, dataset: DataSet, read: Sequence[tuple[Any, str]]) -> dict[int | str, int | str]:
    """Of every label that occurs the index of its class, or, as a text, why it has none."""
    there = [label if isinstance(label, tuple) else (label,) for label, reason in read if not reason]
    labels = dict.fromkeys(part for parts in there for part in parts)
    numbers = [label for label in labels if isinstance(label, int)]
    named = _named(model)
    classes, own = _outputs(model), dataset.classes
    by_name: dict[int | str, str] = {}  # numbers that are not read as indices
    if own and not _in_order(own, named, classes):
        by_name = {k: own[k] for k in numbers if 0 <= k < len(own)}
        classes = 0  # the others are indices of nothing
    elif not own and all(_places(str(k), named) for k in numbers):
        by_name = {k: str(k) for k in numbers}
    return {label: _index(by_name.get(label, label), named, classes, model.labels is None) for label in labels}


def _in_order(own: Sequence[str], named: Named, classes: int) -> bool:
    """Whether the data set's classes can be the model's, one by one: as many, and no name of both at another index."""
    placed = [_places(name, named) for name in own]
    return len(own) == classes and all(not places or k in places for k, places in enumerate(placed))


def _places(name: str, named: Named) -> list[int]:
    """The indices of the classes of this name as it is written; else of those that differ in case and underscores alone."""
    near = named.get(_folded(name), [])
    return [k for k, exact in near if exact == name] or [k for k, _ in near]


def _folded(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


def _index(label: int | str, named: Named, classes: int, nameless: bool) -> int | str:
    if isinstance(label, int):
        what = (
            f"the network has {classes} classes, 0 to {classes - 1}" if classes else "the data set names fewer classes"
        )
        return label if 0 <= label < classes else f"{label} is no class index: {what}"
    places = _places(label, named)
    if len(places) == 1:
        return places[0]
    if places:
        shown = ", ".join(map(str, places))
        return f"the model has {len(places)} classes named {label!r} ({shown}): label it by its index"
    if nameless:
        return f"the model has no class names, so {label!r} has no index: give labels=[...] in the order of its outputs"
    return f"the model has no class {label!r}"


def _near(model: VisionModel, read: Sequence[tuple[Any, str]]) -> str:
    """Near names of the first label that is one."""
    parts = (part for label, _ in read for part in (label if isinstance(label, tuple) else (label,)))
    first = next((part for part in parts if isinstance(part, str)), None)
    if first is None or model.labels is None:
        return ""
    hint = near_names(first, model.labels)
    return f" {hint[0].upper()}{hint[1:]}"

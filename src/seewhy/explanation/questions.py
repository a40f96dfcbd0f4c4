"""What a user asks of some images as one question per row, checked before any work, and what the records say of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seewhy.beside import Beside
from seewhy.errors import UsageError
from seewhy.explanation.result import sha256
from seewhy.model import VisionModel
from seewhy.target import RECIPE, Target, probabilities, resolve

SHOWN = 6  # classes that an error lists


def ask(model: VisionModel, x: Tensor, target: Any, beside: Beside) -> tuple[list[int], Target]:
    """Rows as image indices, and the question of every row; checked against the network's output before any work."""
    index = list(range(len(x)))
    if isinstance(target, list | tuple) and target and all(isinstance(item, list | tuple) for item in target):
        if len(target) != len(x):
            raise UsageError(f"{len(target)} lists of targets for {len(x)} images: give one list per image.")
        index = [i for i, items in enumerate(target) for _ in items]
        target = [item for items in target for item in items]
    elif target is None and model.task == "multilabel":
        found = probabilities(model.predict(x, beside), model.task)
        assert found is not None, "a multi-label network's output is a table of scores"
        present = [(p >= 0.5).nonzero().flatten().tolist() or [int(p.argmax())] for p in found]
        index = [i for i, items in enumerate(present) for _ in items]
        target = [item for items in present for item in items]
    elif target is None and model.task == "segmentation":
        raise UsageError(_which_region(model, x, beside))
    question = checked_question(model, target, len(index), x.shape[1:]).copied()
    if beside:
        question = replace(question, beside={name: values[index] for name, values in beside.items()})
    return index, question if question.boxes is None else _settled(model, x[index], question)


def checked_question(model: VisionModel, target: Any, n: int, shape: Sequence[int]) -> Target:
    """A target for n images of shape (C, *axes); UsageError where the network's output has no answer to it."""
    question = resolve(target, model.labels, model.task)
    settles = question.kind == "predicted" and model.labels is None and model.task != "binary"  # and checks then
    reads_table = question.kind not in ("callable", "box") and not settles
    question.check(n, model.output_shape(tuple(shape)) if reads_table else (), model.labels)
    return question


def _settled(model: VisionModel, x: Tensor, question: Target) -> Target:
    """The question about boxes with each found in its clean image (one forward row each), in input pixels."""
    assert question.boxes is not None, "asked of boxes"
    if question.boxes.classes is None:  # networks of transformers say how many classes they know
        named = getattr(getattr(model.module, "config", None), "num_labels", None)
        question = replace(question, boxes=replace(question.boxes, classes=named))

    def run(part: slice) -> Target:
        chosen = torch.arange(part.start, part.stop)
        rows = torch.arange(len(chosen), device=model.device)
        return model.answer(x[part], question.select(chosen), rows).target

    settled = Target.join(model.in_batches(len(x), x.shape[1:], run))
    assert settled.boxes is not None, "asked of boxes"
    assert settled.found is not None, "settled"
    first = x[int(settled.found.int().argmax())]
    return replace(settled, boxes=settled.boxes.in_pixels(x.shape[2:]), probes=torch.stack([first, first.flip(-1)]))


def _which_region(model: VisionModel, x: Tensor, beside: Beside) -> str:
    """What to ask of a segmentation network, with the classes that it predicts in the first image."""
    table = model.predict(x[:1], {name: values[:1] for name, values in beside.items()})
    start = f"a segmentation network predicts a class in every place; say which to explain: {RECIPE}."
    if table.ndim != 4:
        return f"{start} But this network returns {tuple(table.shape)}, no map of scores: its task is another one."
    if table.shape[1] == 1:
        share = float((table > 0).float().mean())
        return f"{start} With one channel k can be left out; it is positive in {share:.0%} of image 0."
    shares = torch.bincount(table.argmax(1).flatten(), minlength=table.shape[1]) / table[0, 0].numel()
    names = [f"class {k}" for k in range(len(shares))] if model.labels is None else model.labels
    most = [k for k in shares.argsort(descending=True, stable=True).tolist() if shares[k] > 0]
    told = [f"{k} {names[k]}" if model.labels else names[k] for k in most]
    listed = ", ".join(f"{name} ({shares[k]:.0%})" for k, name in list(zip(most, told, strict=True))[:SHOWN])
    return f"{start} Predicted in image 0: {listed}."


def describe(target: Target, i: int, labels: Sequence[str] | None) -> dict[str, Any]:
    """The question about row i as plain JSON values."""

    def value(values: Tensor | None) -> int | None:
        return None if values is None else int(values[i] if values.ndim else values)

    def label(k: int | None) -> str | None:
        return labels[k] if labels is not None and k is not None and k < len(labels) else None

    absent = target.boxes is not None and target.found is not None and not target.found[i]
    index, other = None if absent else value(target.index), value(target.other)
    described: dict[str, Any] = {
        "kind": target.kind,
        "scale": target.scale,
        "index": index,
        "label": label(index),
        "other": other,
        "other_label": label(other),
        "text": target.text(i, labels),
    }
    if target.kind == "output":
        described["direction"] = "down" if value(target.sign) == -1 else "up"
    if target.embedding is not None:
        described["to"] = _hashed(target.embedding[i] if target.embedding.ndim == 2 else target.embedding)
    if target.kind == "region" and target.mask is not None:
        described["mask"] = _hashed(target.mask[i] if target.mask.ndim == 3 else target.mask)
    if target.boxes is not None and target.boxes.box is not None and target.boxes.confidence is not None:
        sure = float(target.boxes.confidence[i])
        corners = None if absent else [round(v, 2) for v in target.boxes.box[i].tolist()]
        described |= {"rank": value(target.boxes.rank), "threshold": target.boxes.threshold, "box": corners}
        described["confidence"] = sure if sure >= 0 else None  # there is no such detection
    if target.beside is not None:
        described["beside"] = {name: _hashed(values[i]) for name, values in target.beside.items()}
    return described


def _hashed(values: Tensor) -> str:
    return f"tensor {tuple(values.shape)} sha256 {sha256(values)}"

"""What networks return, read as one table of numbers, and the scales that such a table is read on."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError

Scale = Literal["logit", "probability", "log_probability", "output"]
Task = Literal["multiclass", "multilabel", "binary", "regression", "segmentation", "detection", "embedding"]
SCALES: tuple[str, ...] = get_args(Scale)
TASKS: tuple[str, ...] = get_args(Task)
NAMED = ("logits", "out", "image_embeds", "pooler_output")  # tables by their usual names; else the first tensor


def scores(outputs: Any, rows: int | None = None) -> Tensor:
    """The score table of an output, (R, ...): a tensor itself, or of a container the one called `logits`, `out`,
    `image_embeds` or `pooler_output`, else the first one in it, however deep; numbers (R,) are one column (R, 1).

    UsageError where there is no such tensor, for detections, for a vector per token (R, T, D), and where the table has
    another number of rows than there are images.
    """
    if is_detections(outputs):
        raise UsageError(
            'this network returns detections (boxes, labels and scores): wrap it with task="detection" and explain a box, '
            "target=sw.target.box(0)."
        )
    table = _table(outputs)
    if table is None:
        raise UsageError("this network's output holds no score tensor: pass target=a function of the output.")
    if table.ndim == 3:
        fields = {name: tuple(value.shape) for name, value in _fields(outputs).items() if isinstance(value, Tensor)}
        held = " (it holds " + ", ".join(f"{name} {shape}" for name, shape in fields.items()) + ")" if fields else ""
        raise UsageError(
            f"this network returns {tuple(table.shape)}{held}, a vector per token and no score per image: say which number "
            "to explain with target=a function of the output, (R,) one number per row."
        )
    if not table.is_floating_point():
        raise UsageError(
            f"this network returns {str(table.dtype).removeprefix('torch.')} numbers: a score is a real number with a "
            "fraction. Return the scores before they are rounded or compared, or pass target=a function of the output."
        )
    if rows is not None and len(table) != rows:
        raise UsageError(
            f"the network returned {len(table)} row{'s' if len(table) > 1 else ''} of scores for {rows} "
            f"image{'s' if rows > 1 else ''}, {tuple(table.shape)}: it needs one row per image. Look in its forward for a "
            "squeeze(), a view(1, ...) or a mean over the batch."
        )
    return table.unsqueeze(1) if table.ndim == 1 else table


def is_detections(outputs: Any) -> bool:
    """Whether an output is torchvision's: per row a dict with boxes, labels and scores."""
    several = isinstance(outputs, list | tuple) and len(outputs) > 0
    return several and all(isinstance(one, Mapping) and "boxes" in one and "scores" in one for one in outputs)


def _table(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return outputs if outputs.ndim else None  # a single number is a loss
    fields = _fields(outputs)
    named = [fields[name] for name in NAMED if isinstance(fields.get(name), Tensor)]
    found = (table for value in [*named, *fields.values()] if (table := _table(value)) is not None)
    return next(found, None)


def _fields(outputs: Any) -> dict[str, Any]:
    """What a container holds by name; of an object that is none, the tables that it names."""
    if isinstance(outputs, Mapping):
        return {str(name): value for name, value in outputs.items()}
    if isinstance(outputs, list | tuple) and not hasattr(outputs, "_fields"):
        return {str(i): value for i, value in enumerate(outputs)}
    names: Iterable[str] = getattr(outputs, "_fields", getattr(outputs, "__dataclass_fields__", NAMED))
    return {name: getattr(outputs, name) for name in names if hasattr(outputs, name)}


def probabilities(outputs: Any, task: Task) -> Tensor | None:
    """(R, classes) probabilities of a classifier's outputs (two columns for one logit); None for other tasks."""
    if task not in ("multiclass", "multilabel", "binary"):
        return None
    table = scores(outputs)
    return on_scale(table.float(), "probability", task) if table.ndim == 2 else None


def on_scale(table: Tensor, scale: Scale, task: Task) -> Tensor:
    """A table (R, classes) of logits on a scale; two columns for one logit: class 1 is +s, class 0 is -s."""
    if task == "binary":
        if table.shape[1] != 1:
            raise UsageError(
                f"task='binary' means one logit; this network has {table.shape[1]} outputs: use 'multiclass'."
            )
        table = torch.cat([-table[:, :1], table[:, :1]], 1)
    if scale in ("logit", "output"):
        return table
    if task == "regression":
        raise UsageError(f"a regression network has no {scale}: use the scale 'output'.")
    log_p = functional.log_softmax(table, 1) if task == "multiclass" else functional.logsigmoid(table)
    return log_p if scale == "log_probability" else log_p.exp()


def column(table: Tensor, index: Tensor) -> Tensor:
    """Of each row (R, columns, ...) its own column: (R, ...)."""
    return table[torch.arange(len(table), device=table.device), index.to(table.device)]

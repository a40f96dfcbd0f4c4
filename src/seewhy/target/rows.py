"""Records whose tensors have an entry per image, or one that all images share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Record = TypeVar("Record")  # a frozen dataclass
Axes = Mapping[str, int]  # field -> how many axes it has where it holds an entry per image


def take(record: Record, axes: Axes, rows: Tensor) -> Record:
    """The record of these images only, as images 0, 1, 2, ..."""
    return _with(record, {name: values[rows.to(values.device)] for name, values in _per_image(record, axes).items()})


def join(records: Sequence[Record], axes: Axes) -> Record:
    """The records of consecutive groups of images as one."""
    parts = [_per_image(record, axes) for record in records]
    return _with(records[0], {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def stack(records: Sequence[Record], axes: Axes) -> Record:
    """Records that all images share as one record with an entry per image."""
    shared = {name: [getattr(record, name) for record in records] for name in axes}
    return _with(records[0], {name: torch.stack(values) for name, values in shared.items() if values[0] is not None})


def copy(record: Record, axes: Axes) -> Record:
    """With tensors of its own: ordinary ones, wherever the given ones were made (inference mode included)."""
    held = {name: getattr(record, name) for name in axes}
    return _with(record, {name: values.detach().clone() for name, values in held.items() if values is not None})


def at(values: Tensor, rows: Tensor) -> Tensor:
    """Per-row values of a per-image (or shared) tensor of numbers."""
    values = values.to(rows.device)
    return values[rows] if values.ndim else values.expand(len(rows))


def _per_image(record: Any, axes: Axes) -> dict[str, Tensor]:
    held = {name: getattr(record, name) for name in axes}
    return {name: values for name, values in held.items() if values is not None and values.ndim == axes[name]}


def _with(record: Record, fields: dict[str, Tensor]) -> Record:
    return cast(Record, replace(cast(Any, record), **fields)) if fields else record

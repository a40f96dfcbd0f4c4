"""What a module returns: a tensor, or a tuple, list or mapping that holds tensors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a module returned, or the first one in a tuple, list or mapping that it returned."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)


def tensors(output: Any) -> list[Tensor]:
    """Every tensor in an output, whatever it is nested in."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for value in values for tensor in tensors(value)]


def replace_first_tensor(output: Any, tensor: Tensor) -> Any:
    """The same output with another tensor in the place of its first."""
    if isinstance(output, Tensor):
        return tensor
    old = first_tensor(output)
    if isinstance(output, Mapping):
        return _like(output, {key: tensor if value is old else value for key, value in output.items()})
    values = [tensor if value is old else value for value in output]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)


def _like(mapping: Any, items: dict[Any, Any]) -> Any:
    """The same kind of mapping with other values; a dataclass-like output of a library takes them as keywords."""
    return items if type(mapping) is dict else type(mapping)(**items)


def detach(output: Any) -> Any:
    """The same output without a graph."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, Mapping):
        return _like(output, {key: detach(value) for key, value in output.items()})
    if isinstance(output, tuple | list):
        values = [detach(value) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    return output

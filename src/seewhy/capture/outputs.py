"""What a module returns: a tensor, or a tuple, list or mapping that holds tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


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
    return _mapped([output], lambda found: found[0].detach())


def copied(output: Any) -> Any:
    """The same output in memory of its own."""
    return _mapped([output], lambda found: found[0].clone())


def in_rows(
    run: Callable[[Tensor, Mapping[str, Tensor]], Any], x: Tensor, beside: Mapping[str, Tensor], rows: int | None
) -> Any:
    """The output of a network for x (R, ...) and what it is given beside it; in parts of exactly `rows` rows, if any.

    The last part is filled up with copies of its last row, which are left out of the output again.
    """
    if rows is None or len(x) == rows:
        return run(x, beside)

    def parts_of(values: Tensor) -> Sequence[Tensor]:
        return torch.split(torch.cat([values, values[-1:].expand(-len(values) % rows, *values.shape[1:])]), rows)

    given = {name: parts_of(values) for name, values in beside.items()}
    parts = [run(part, {name: values[k] for name, values in given.items()}) for k, part in enumerate(parts_of(x))]
    return _mapped(parts, lambda found: torch.cat(found)[: len(x)] if found[0].shape[:1] == (rows,) else found[0])


def fixed_rows(module: nn.Module) -> int | None:
    """The only number of rows that an exported program takes; None where any will do."""
    if not isinstance(module, torch.fx.GraphModule):
        return None
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    shapes = [value.shape for value in values if isinstance(value, Tensor) and value.ndim > 1]
    return shapes[0][0] if len(shapes) == 1 and isinstance(shapes[0][0], int) else None


def _mapped(outputs: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Any:
    """One output of the form of these, with `join` of the tensors at each place."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return join(outputs)
    if isinstance(first, Mapping):
        return _like(first, {key: _mapped([output[key] for output in outputs], join) for key in first})
    if isinstance(first, tuple | list):
        values = [_mapped(list(places), join) for places in zip(*outputs, strict=True)]
        return type(first)(*values) if hasattr(first, "_fields") else type(first)(values)
    return first

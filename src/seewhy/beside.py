"""What a network is given beside the image: a second image, a table row; held fixed while the image is explained."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import UsageError, near_names

Beside = Mapping[str, Tensor]  # by the names of the network's forward, (N, ...) each


def check_beside(module: nn.Module, given: Any, n: int) -> dict[str, Tensor]:
    """Tensors by the names of the network's forward, one row per image (one row alone serves all); copies.

    UsageError for names that the forward does not have, other counts than n images, and where it needs more.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(
            f"beside is a dict of tensors by the names of the network's forward; got {type(given).__name__}."
        )
    given, parameters = given or {}, _parameters(module)
    for name, values in given.items():
        if name not in parameters:
            raise UsageError(f"the network's forward has no {name!r}: {near_names(str(name), parameters)}")
        if not isinstance(values, Tensor) or values.ndim == 0:
            got = "a single number" if isinstance(values, Tensor) else type(values).__name__
            raise UsageError(f"beside[{name!r}] is a tensor with a row per image, or one row for all; got {got}.")
        if len(values) not in (1, n):
            raise UsageError(
                f"beside[{name!r}] has {len(values)} rows for {n} images: give one per image, or one for all."
            )
    image = _image_name(module, given)
    missing = [name for name, needed in parameters.items() if needed and name != image and name not in given]
    if missing:
        raise UsageError(
            f"the network's forward also needs {', '.join(missing)}: pass beside={{{missing[0]!r}: a tensor with a row per "
            "image}}."
        )
    own = {name: values.detach().clone() for name, values in given.items()}
    return {name: values.expand(n, *values.shape[1:]) for name, values in own.items()}


def call(module: nn.Module, x: Tensor, beside: Beside) -> Any:
    """The network's output: x goes to its first input that is not in `beside`, (R, ...) each."""
    if not beside:
        return module(x)
    dtype, device = x.dtype, x.device
    others = {k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in beside.items()}
    return module(**{_image_name(module, beside): x}, **others)


def repeated(row: Beside, n: int) -> dict[str, Tensor]:
    """One row for n rows."""
    return {name: values.expand(n, *values.shape[1:]).clone() for name, values in row.items()}


def _image_name(module: nn.Module, beside: Beside) -> str:
    names = _parameters(module)
    free = [name for name in names if name not in beside]
    if not free and beside:
        raise UsageError(f"beside names every input of the network ({', '.join(names)}): none is left for the image.")
    return free[0] if free else ""


def _parameters(module: nn.Module) -> dict[str, bool]:
    """Inputs of the forward by name, and whether each is needed; none where it does not tell."""
    if isinstance(module, torch.jit.ScriptModule):
        schema = getattr(getattr(module, "forward", None), "schema", None)
        return {a.name: not a.has_default_value() for a in schema.arguments[1:]} if schema is not None else {}
    return _inputs(getattr(module.forward, "__func__", module.forward), inspect.ismethod(module.forward))


@lru_cache(maxsize=64)
def _inputs(forward: Callable[..., Any], of_a_module: bool) -> dict[str, bool]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        found = list(inspect.signature(forward).parameters.values())[of_a_module:]
    except (TypeError, ValueError):  # compiled code
        return {}
    return {p.name: p.default is inspect.Parameter.empty for p in found if p.kind in named}

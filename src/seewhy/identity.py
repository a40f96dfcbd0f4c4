"""What tells two calls apart: values, functions and their settings in plain words that are the same in another process."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from seewhy import capture


def identity(value: Any) -> str:
    """SHA-256 of what `described` says of a value, in hexadecimal."""
    return hashlib.sha256(json.dumps(described(value), sort_keys=True).encode()).hexdigest()


def described(value: Any) -> Any:
    """What a value is, as plain JSON values: tensors, arrays and networks by their content.

    Of a function its name and its source: what it reads from around it goes unseen. Of a dataclass the fields that count
    when two are compared.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, np.ndarray):
        return hashlib.sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).hexdigest()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, nn.Module):
        return capture.digest(value)
    if isinstance(value, partial):
        return [described(value.func), described(value.args), described(value.keywords)]
    if isinstance(value, Mapping):
        return {str(name): described(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [described(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: described(getattr(value, field.name)) for field in fields(value) if field.compare}
    if inspect.isfunction(value):
        return [value.__module__, value.__qualname__, _source(value)]
    if inspect.isbuiltin(value) or isinstance(value, type):
        return [value.__module__, value.__qualname__]
    return [type(value).__module__, type(value).__qualname__, described(getattr(value, "__dict__", {}))]


def digest(values: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    found = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    found.update(values.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except OSError:  # typed in at a prompt: there is no file
        return hashlib.sha256(function.__code__.co_code).hexdigest()

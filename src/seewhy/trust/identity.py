"""What tells two calls apart: a short hash of everything that was given."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy import runfolder


def identity(value: Any) -> str:
    """A hash of JSON values, tensors and arrays (by their content) and functions (by their name): 20 hexadecimal digits."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()[:20]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Tensor):
        value = (
            value.detach().cpu().contiguous().view(torch.uint8 if value.element_size() == 1 else value.dtype).numpy()
        )
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return [str(value.dtype), list(value.shape), content]
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    return runfolder.plain(value)

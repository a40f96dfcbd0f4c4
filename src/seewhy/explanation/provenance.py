"""How a map was made, for its record: parameters, versions, device, and the model's fingerprint when one is needed."""

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import capture, runfolder
from seewhy.explanation.result import sha256
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo


def parameters_of(info: MethodInfo, keywords: dict[str, Any]) -> dict[str, Any]:
    """Every parameter that was used, defaults included, as JSON values; tensors by their hash."""
    used = {**info.parameters, **keywords}
    used.pop("seed", None)
    return {name: _plain_parameter(value) for name, value in used.items()}


def _plain_parameter(value: Any) -> Any:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} sha256 {sha256(value)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return runfolder.plain(value)


def fingerprint_later(model: VisionModel, version: capture.Version) -> Callable[[], str]:
    """The model's hash when a record needs it; hashing is no part of a map's time. Says so if the weights have changed."""
    return partial(_fingerprint, model, version)


def _fingerprint(model: VisionModel, version: capture.Version) -> str:
    same = capture.version(model.module) == version
    return model.fingerprint() if same else "unknown: the weights changed after the explanation"


def provenance_of(model: VisionModel, seed: int, shape: Sequence[int]) -> dict[str, Any]:
    """What the maps were computed with, as plain JSON values."""
    return {
        "model": model.name,
        "weights": model.weights,
        "task": model.task,
        "bounds_known": model.bounds is not None,
        "batch_size": model.batch_size,
        "device": str(model.device),
        "memory_format": model.memory_format(shape),
        "threads": torch.get_num_threads(),
        "seed": seed,
        **_versions(),
    }


@cache
def _versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("seewhy")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        own = "not installed"
    return {
        "seewhy": own,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }

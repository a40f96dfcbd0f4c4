"""How a map was made, for its record: parameters, versions, device, and the model's fingerprint when one is needed."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import capture, runfolder
from seewhy.explanation.result import sha256
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo

PACKAGES = ("numpy", "scipy", "pillow", "timm", "torchvision", "transformers")  # that can change a map, where installed
VERSIONED = ("seewhy", "seewhy_source", "torch", "python", *PACKAGES)


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


def provenance_of(model: VisionModel, seed: int, shape: Sequence[int], rows: int) -> dict[str, Any]:
    """What the maps of a call of so many rows were computed with, as plain JSON values."""
    return {
        "model": model.name,
        "weights": model.weights,
        "task": model.task,
        "bounds_known": model.bounds is not None,
        "model_version": model.version,
        "network": network_of(model),
        "batch_size": model.rows_together,
        "rows": rows,
        "memory_format": model.memory_format(shape),
        "seed": seed,
        **machine(model.device),
        **versions(),
    }


def network_of(model: VisionModel) -> dict[str, Any]:
    """How the network was loaded, and how it wants its pixels, as plain JSON values: what it takes to have it again."""
    named = ("mean", "std", "size", "crop", "interpolation", "framing", "padding")
    pixels = {name: getattr(model, name) for name in named}
    own = (
        None if model.preprocess is None else getattr(model.preprocess, "__qualname__", type(model.preprocess).__name__)
    )
    found: dict[str, Any] = runfolder.plain({"loaded": model.loaded, **pixels, "preprocess": own})
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What computes here, as far as it can change the last digits of a map, as plain JSON values."""
    return {
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": _cpu(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


@cache
def _cpu() -> str:
    """The CPU by its name; where the system does not tell it, its family."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text("utf-8", "replace").splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


@cache
def versions() -> dict[str, str]:
    """Versions of seewhy, Python, torch and the installed packages that can change a map."""
    try:
        own = importlib.metadata.version("seewhy")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        own = "not installed"
    return {
        "seewhy": own,
        "seewhy_source": _source(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def _source() -> str:
    """SHA-256 of seewhy's own source files: the exact code, also between releases."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

"""sw.load: what a specification names, with the settings that it knows and those that the user gives instead."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.capture import random_states
from seewhy.errors import UsageError, first_line, near_names
from seewhy.loading.factory import load_own
from seewhy.loading.files import CHECKPOINTS, PROGRAMS, load_file
from seewhy.loading.huggingface import load_hf
from seewhy.loading.labels import read_labels
from seewhy.loading.lite0 import load_lite0
from seewhy.loading.timm_models import load_timm
from seewhy.loading.torchvision_models import load_torchvision
from seewhy.model import VisionModel
from seewhy.network import Precision
from seewhy.target import Task
from seewhy.wrapping import Framing, wrap

FORMS = (
    "lite0",
    "timm:<architecture>",
    "torchvision:<architecture>",
    "hf:<folder or id on disk>",
    "<module>:<factory>",
    "<file>.pt2 (torch.export)",
    "<file>.pt (TorchScript)",
)


def load(
    specification: str,
    *,
    weights: str | Path | None = None,
    labels: Sequence[str] | str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
    framing: Framing | None = None,
    padding: float | None = None,
    task: Task | None = None,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> VisionModel:
    """A network by its specification, with its normalization, framing, labels and task. Nothing is downloaded.

    "lite0": the embedded default, EfficientNet-Lite0 with ImageNet weights (extra `demo`). "timm:NAME",
    "torchvision:NAME": that architecture with `weights` from a file, or weights="random" for an untrained one.
    "hf:FOLDER": a transformers model on disk, or its id in the hub's cache. "module.path:factory": a function of yours
    that returns an nn.Module, or what sw.wrap makes of one. "file.pt2" (torch.export), "file.pt" (TorchScript): input and
    black-box methods, no layers. labels: class names, or a file of them. mean, ..., task: as in sw.wrap, instead of what
    the specification knows (for another framing its crop is 1). UsageError for an unknown specification, name or
    checkpoint; MissingExtraError with the install line.
    """
    if not isinstance(specification, str):
        raise UsageError(
            f"sw.load takes a specification such as 'lite0', not {type(specification).__name__}; "
            "a network that you have goes to sw.wrap."
        )
    options: dict[str, Any] = {
        "labels": read_labels(Path(labels)) if isinstance(labels, str | Path) else labels,
        "mean": mean,
        "std": std,
        "size": size,
        "crop": crop,
        "interpolation": interpolation,
        "framing": framing,
        "padding": padding,
        "task": task,
        "batch_size": batch_size,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with random_states(0):  # a network is made with random weights first, and the global state is not ours to use up
        made, settings, origin = _made(specification, weights, given)
    if isinstance(made, VisionModel):
        model = _as_it_is(made, specification, given, precision)
    else:
        if settings.get("batch_size") == 1 and given.get("batch_size", 1) != 1:
            raise UsageError(f"{specification} was exported for one image at a time; got batch_size={batch_size!r}.")
        if framing is not None and framing != settings.get("framing", "crop"):
            settings["crop"] = 1.0  # a share that was chosen for another framing
        model = wrap(made, **{**settings, **given, "precision": precision, "name": specification})
    _move(model.module, device)
    model.weights = origin
    given |= {"labels": str(labels)} if isinstance(labels, str | Path) else {}
    model.loaded = _as_json({"specification": specification, "weights": weights, **given, "precision": precision})
    return model


def _made(
    specification: str, weights: str | Path | None, given: dict[str, Any]
) -> tuple[nn.Module | VisionModel, dict[str, Any], str]:
    """The network, the settings that its specification knows, and where its weights come from."""
    kind, _, name = specification.partition(":")
    suffix = Path(specification).suffix.lower()
    if specification == "lite0":
        return load_lite0(weights)
    if kind in ("timm", "torchvision", "hf", "lite0"):
        if kind == "timm" and name:
            return load_timm(name, weights)
        if kind == "torchvision" and name:
            return load_torchvision(name, weights)
        if kind == "hf" and name:
            return load_hf(name, weights, given)
    elif suffix in PROGRAMS or suffix in CHECKPOINTS:
        return load_file(Path(specification), weights)
    elif re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", specification):
        return load_own(specification, weights)
    hint = f"; a folder is 'hf:{specification}'" if specification and Path(specification).is_dir() else ""
    raise UsageError(f"unknown model {specification!r}: {near_names(specification, FORMS)}{hint}")


def _as_json(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of load as plain JSON values; a list of names stays out, as thousands are no part of a record."""
    kept = {name: value for name, value in given.items() if name != "batch_size" and value is not None}
    found = {k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
    return {name: value for name, value in found.items() if name != "labels" or isinstance(value, str)}


def _as_it_is(model: VisionModel, specification: str, given: dict[str, Any], precision: Precision) -> VisionModel:
    """A network that the user's own code has wrapped already."""
    if given or precision != "float32":
        names = ", ".join(given or ["precision"])
        raise UsageError(f"{specification} is wrapped already: {names} belongs into its sw.wrap call.")
    return model


def _move(module: nn.Module, device: str | torch.device) -> None:
    try:
        module.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {str(device)!r} cannot be used: {first_line(error)}") from error
    if not isinstance(module, torch.fx.GraphModule):  # an exported program has no modes
        module.eval()

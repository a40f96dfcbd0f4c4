"""torchvision:NAME, by torchvision's own registry: classification, segmentation, detection."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.errors import UsageError, near_names
from seewhy.loading.checkpoint import build_and_fill
from seewhy.loading.extras import import_extra
from seewhy.loading.timm_models import needs_weights

OTHER_INPUTS = ("video", "optical_flow", "quantization")  # families that do not take one float picture
AUXILIARY = ("AuxLogits", "aux1", "aux2", "aux_classifier")  # heads that only training uses


def load_torchvision(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any], str]:
    """A torchvision architecture with the pixels, framing and labels that its default weights are described with.

    Nothing is downloaded, no backbone either. GoogLeNet and Inception rescale their input as torchvision's weights need it.
    """
    models = import_extra("torchvision.models", "torchvision", f"the model 'torchvision:{name}'")
    families = {known: _family(models.get_model_builder(known)) for known in models.list_models()}
    usable = [known for known, family in families.items() if family not in OTHER_INPUTS]
    if name not in families:
        raise UsageError(f"torchvision has no architecture {name!r}: {near_names(name, usable)}")
    if name not in usable:
        raise UsageError(
            f"torchvision's {name!r} is of the family {families[name]}, which does not take one float picture."
        )
    if weights is None:
        raise UsageError(needs_weights(f"torchvision:{name}"))
    family, described = families[name], models.get_model_weights(name).DEFAULT
    categories = list(described.meta.get("categories", ()))
    build = _builder(models, name, family)
    module, classes, origin = build_and_fill(build, len(categories), weights, AUXILIARY)
    settings = _detector_settings(module) if family == "detection" else _settings(described.transforms())
    settings["task"] = family if family in ("detection", "segmentation") else "multiclass"
    if classes == len(categories):
        settings["labels"] = categories
    return module, settings, origin


def _family(builder: Callable[..., nn.Module]) -> str:
    return builder.__module__.split(".")[2]


def _builder(models: ModuleType, name: str, family: str) -> Callable[[int | None], nn.Module]:
    settings: dict[str, Any] = {"weights": None}
    if family in ("detection", "segmentation"):
        settings["weights_backbone"] = None
    if family in ("googlenet", "inception"):
        settings |= {"transform_input": True, "aux_logits": False, "init_weights": False}

    def build(classes: int | None) -> nn.Module:
        chosen = {} if classes is None else {"num_classes": classes}
        module: nn.Module = models.get_model(name, **settings, **chosen)
        return module

    return build


def _settings(transforms: Any) -> dict[str, Any]:
    """How the default weights are evaluated: their own words for size, crop and normalization."""
    resized = transforms.resize_size[0]
    size = transforms.crop_size[0] if hasattr(transforms, "crop_size") else resized
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "size": size,
        "crop": kept_share(size, resized),
        "interpolation": transforms.interpolation.value,
    }


def _detector_settings(module: nn.Module) -> dict[str, Any]:
    """A detector resizes and normalizes inside: it is given the size at which its own resizing changes nothing."""
    inside: Any = module.transform
    size = inside.fixed_size[::-1] if inside.fixed_size else inside.min_size[-1]
    return {"size": size, "framing": "stretch" if inside.fixed_size else "pad", "interpolation": "bilinear"}


def kept_share(size: int, resized: int) -> float:
    """`crop` for a photo that is resized to `resized` and cropped to `size`: size / crop is `resized` again, to the pixel."""
    share = size / resized
    return share if int(size / share) == resized else math.nextafter(share, 0)

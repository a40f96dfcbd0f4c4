"""timm:NAME."""

from pathlib import Path
from typing import Any

from torch import nn

from seewhy.errors import UsageError, near_names
from seewhy.loading.checkpoint import build_and_fill
from seewhy.loading.extras import import_extra
from seewhy.loading.labels import imagenet_labels

FRAMINGS = {"center": "crop", "squash": "stretch", "border": "pad"}  # timm's words for them


def load_timm(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any], str]:
    """A timm architecture with the normalization and framing of its pretrained configuration."""
    timm = import_extra("timm", "timm", f"the model 'timm:{name}'")
    if not timm.is_model(name):
        raise UsageError(f"timm has no architecture {name!r}: {near_names(name, timm.list_models())}")
    if weights is None:
        raise UsageError(needs_weights(f"timm:{name}"))

    def build(classes: int | None) -> nn.Module:
        chosen = {} if classes is None else {"num_classes": classes}
        module: nn.Module = timm.create_model(name, pretrained=False, **chosen)
        return module

    try:
        config = timm.get_pretrained_cfg(name)
        module, classes, origin = build_and_fill(build, config.num_classes if config else 1000, weights)
    except RuntimeError as error:  # a tag after the name that timm does not know
        raise UsageError(f"timm cannot make {name!r}: {error}") from error
    found = timm.data.resolve_data_config({}, model=module)
    mean = tuple(found["mean"])
    settings: dict[str, Any] = {
        "mean": mean,
        "std": tuple(found["std"]),
        "size": tuple(found["input_size"][1:]),
        "crop": found["crop_pct"],
        "interpolation": found["interpolation"] if found["interpolation"] != "random" else "bicubic",
        "framing": FRAMINGS[found["crop_mode"]],
        "padding": sum(mean) / len(mean) if found["crop_mode"] == "border" else 0.0,
    }
    if classes == 1000:
        settings["labels"] = imagenet_labels()
    return module, settings, origin


def needs_weights(specification: str) -> str:
    """What is said where an architecture comes without weights."""
    return (
        f"{specification} needs its weights from a file, since nothing is downloaded: weights='path.pth' "
        "(command line: --weights path.pth), or weights='random' for an untrained network."
    )

"""What a record says of an explanation, as the arguments that make it again: pixels, question, parameters."""

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.geometry import Geometry
from seewhy.data.images import read_photo
from seewhy.errors import RefusalError
from seewhy.explanation import pixels_of_picture, sha256
from seewhy.explanation.inputs import Shown, read_inputs
from seewhy.ledger.store import Ledger, Record
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo
from seewhy.target import box, logit, margin, output, region

HASHED = "tensor ("  # how a parameter that is a tensor is recorded: its shape and hash


def pixels_of(
    ledger: Ledger, record: Record, model: VisionModel, image: Any, root: str | Path | None
) -> tuple[Tensor, Shown, str]:
    """What the model is shown (1, C, *axes), what is known of it, and where it came from, in words.

    RefusalError where the image is neither where the record says nor kept in the run folder; ImageError where it cannot be
    read.
    """
    said = record.content
    path = Path(said["image"]) if root is None else Path(root) / said["image"]
    if image is None and said["image_sha256"] and path.is_file():
        image = path
    if image is not None:
        asked = said.get("read_as") or {}
        x, shown = read_inputs(model, read_photo(image, **asked) if asked and isinstance(image, str | Path) else image)
        where = "given as a tensor" if isinstance(image, Tensor) else f"the image {shown[0].name}"
        return _as_recorded(x[:1], said["pixels_sha256"]), shown[0], where
    kept = _kept(ledger, said)
    if kept is None:
        raise RefusalError(
            f"record {record.number} cannot be replayed without its image: {path} is not there, and the run folder keeps no "
            "copy of what the model was shown. Say where it is: --image, or --root for the data root (image=, root=)."
        )
    geometry = Geometry.from_dict(said["geometry"]) if said["geometry"] else None
    shown_then = Shown(said["image"], "", tuple(said["notes"]), geometry, said.get("modality"))
    return kept, shown_then, f"the copy that {ledger.folder} keeps ({path} is not there)"


def _as_recorded(x: Tensor, pixels: str) -> Tensor:
    """The pixels as they are, or as an audit shows them, to 8 bits, where that is what was recorded."""
    eight_bit = (x.clamp(0, 1) * 255).round().to(torch.uint8).float() / 255
    return eight_bit if sha256(x[0]) != pixels and sha256(eight_bit[0]) == pixels else x


def _kept(ledger: Ledger, said: Mapping[str, Any]) -> Tensor | None:
    """The pixels that the run folder keeps; a picture only where it holds them exactly."""
    names = said.get("shown") or {}
    if names.get("array"):
        return torch.from_numpy(ledger.array(names["array"]).copy())[None]
    if names.get("picture"):
        with Image.open(BytesIO(ledger.file(names["picture"]))) as picture:
            values = pixels_of_picture(np.asarray(picture.convert("RGB")), said["shape"][0])
        x = torch.from_numpy(np.ascontiguousarray(values))[None]  # another layout would change the last digits
        return x if sha256(x[0]) == said["pixels_sha256"] else None
    return None


def question_of(record: Record, info: MethodInfo, given: Any, beside: Mapping[str, Tensor] | None) -> Any:
    """The recorded target as `explain` takes it, on its recorded scale; RefusalError where only its hash is known."""
    said = record.content["target"]
    if "beside" in said and beside is None:
        raise RefusalError(f"{_lacks(record)} what the network was given beside the image: pass beside={{...}}.")
    if given is not None or info.class_agnostic:
        return given
    kind, index = said["kind"], said["index"]
    if kind == "predicted":
        return None
    if kind == "index":
        return replace(logit(index), scale=said["scale"])
    if kind == "margin":
        return replace(margin(index, said["other"]), scale=said["scale"])
    if kind == "output":
        return output(index, said.get("direction", "up"))
    if kind == "box" and "rank" in said:
        return box(said["rank"], said["threshold"])
    if kind == "region":
        return region(None, index)
    raise RefusalError(f"{_lacks(record)} its target ({said['text']}): pass target=...")


def settings_of(record: Record, info: MethodInfo, given: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded parameters, and the layer, as keyword arguments; RefusalError where only a tensor's hash is known."""
    said = record.content["parameters"]
    settings = {name: value for name, value in said.items() if name in info.parameters and name not in given}
    hashed = [name for name, value in settings.items() if str(value).startswith(HASHED)]
    if hashed:
        raise RefusalError(
            f"{_lacks(record)} the parameter {hashed[0]} ({settings[hashed[0]]}): pass parameters={{{hashed[0]!r}: ...}} "
            f"(--param {hashed[0]}=FILE)."
        )
    if isinstance(settings.get("layer"), str) or ("layer" in settings and record.content["layer"] is not None):
        several = isinstance(settings["layer"], list)
        settings["layer"] = settings["layer"] if several else record.content["layer"]
    return {**settings, **given}


def _lacks(record: Record) -> str:
    return f"record {record.number} cannot be replayed as it stands: it holds only the hash of"

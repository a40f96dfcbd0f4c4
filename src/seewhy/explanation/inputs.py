"""What users pass as images, as one tensor in the model's pixel space, with what was done to each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seewhy.data.geometry import Geometry
from seewhy.data.images import Photo, as_rgb, read_photo, to_input
from seewhy.data.volumes import Volume
from seewhy.errors import UsageError
from seewhy.model import VisionModel

_EXPECTED = (
    "images are a path, a PIL image, a photo (sw.read_photo), a list of these, or one (N, C, H, W) tensor in [0, 1]"
)
Images = str | Path | Image.Image | Photo | Volume | Tensor | list[Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Shown:
    """One image as the model sees it, and where it came from."""

    name: str
    sha256: str  # of the file's bytes; "" without a file
    notes: tuple[str, ...]
    geometry: Geometry | None  # None: a tensor, or a user's own preprocess
    modality: str | None = None  # how it was recorded, where black is a measurement: CT, DX, thermal ...; None: a photo
    read_as: Mapping[str, Any] = field(default_factory=dict)  # window and frame that were asked for, of a scan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        geometry = self.geometry.to_dict() if self.geometry else None
        found = {"name": self.name, "sha256": self.sha256, "notes": list(self.notes), "geometry": geometry}
        return {**found, "modality": self.modality, "read_as": dict(self.read_as)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Shown":
        """The inverse of to_dict."""
        geometry = Geometry.from_dict(record["geometry"]) if record["geometry"] else None
        kind = (record.get("modality"), record.get("read_as") or {})
        return cls(record["name"], record["sha256"], tuple(record["notes"]), geometry, *kind)


def read_inputs(model: VisionModel, images: Images) -> tuple[Tensor, list[Shown]]:
    """(N, C, *axes) float32 and a description per image. UsageError or ImageError, before any work, where that fails."""
    if isinstance(images, Tensor):
        x = _checked(images, model)
        bands = x.shape[1] if x.ndim == 4 else 1
        notes = () if bands in (1, 3) else (f"pictures show the first {3 if bands > 3 else 1} of its {bands} channels",)
        return x, [Shown(f"image {i}", "", notes, None) for i in range(len(x))]
    if isinstance(images, Volume):
        return _checked(images.pixels, model), [Shown(images.name, "", images.notes, None, images.modality)]
    sources = list(images) if isinstance(images, list | tuple) else [images]
    if not sources:
        raise UsageError("no image was given.")
    for source in sources:
        if not isinstance(source, str | Path | Image.Image | Photo):
            raise UsageError(f"{_EXPECTED}; not {type(source).__name__}.")
    pairs = [_shown(model, source if isinstance(source, Photo) else read_photo(source)) for source in sources]
    sizes = {tuple(x.shape) for x, _ in pairs}
    if len(sizes) > 1:
        raise UsageError(f"preprocess returned different shapes for different images: {sorted(sizes)}.")
    return _checked(torch.stack([x for x, _ in pairs]), model), [shown for _, shown in pairs]


def _shown(model: VisionModel, photo: Photo) -> tuple[Tensor, Shown]:
    if model.preprocess is not None:
        x = model.preprocess(as_rgb(photo))
        if not isinstance(x, Tensor) or x.ndim not in (2, 3):
            got = f"a tensor {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise UsageError(f"preprocess must return one (C, h, w) tensor per image; it returned {got}.")
        note = "maps lie in the space of the user's own preprocess; the way back to the photo is unknown"
        return x, Shown(photo.name, photo.sha256, (*photo.notes, note), None, photo.modality, photo.read_as)
    shape = model.input_shape()
    how = (model.crop, model.interpolation, model.channels, model.framing, model.padding)
    pixels, geometry = to_input(photo, (shape[1], shape[2]), *how)
    notes = photo.notes
    if geometry.seen_fraction < 0.5:
        notes = (*notes, f"the model sees {100 * geometry.seen_fraction:.2g} % of this photo (a central crop)")
    return torch.from_numpy(pixels), Shown(photo.name, photo.sha256, notes, geometry, photo.modality, photo.read_as)


def _checked(images: Tensor, model: VisionModel) -> Tensor:
    if images.ndim < 3:
        raise UsageError(f"images must be (N, C, *axes); got {tuple(images.shape)}. One image is image[None].")
    if images.numel() == 0:
        raise UsageError(f"no image was given: a tensor of shape {tuple(images.shape)} has no pixels.")
    if not images.is_floating_point():
        raise UsageError(f"images must be float in [0, 1]; got {images.dtype}. For 8-bit pixels: images.float() / 255.")
    if images.is_meta:
        raise UsageError("images lie on the device 'meta': they have no pixels.")
    # Outside inference mode a clone is an ordinary tensor again. One layout, as another one changes the last digits.
    x = images.detach().clone(memory_format=torch.contiguous_format).float()
    low, high = (float(v) for v in torch.aminmax(x))  # one pass; NaN and infinity show in them
    if not math.isfinite(low) or not math.isfinite(high):
        bad = [i for i, image in enumerate(x) if not torch.isfinite(image).all()]
        raise UsageError(f"images {bad[:10]} hold values that are not finite (NaN or infinity).")
    if model.mean is not None and x.shape[1] != model.channels:
        raise UsageError(f"images have {x.shape[1]} channels, the model takes {model.channels}.")
    if model.bounds is not None and (low < model.bounds[0] - 1e-6 or high > model.bounds[1] + 1e-6):
        raise UsageError(
            f"images hold values from {low:.3g} to {high:.3g}; a wrapped model takes pixels in [0, 1] and normalizes them "
            "itself. For tensors in the network's own input space pass the bare nn.Module."
        )
    return x

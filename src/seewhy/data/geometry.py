"""Where the model's input lies in the photo, and maps from one to the other. Half-pixel convention throughout."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Geometry:
    """The box of an upright photo that was resampled to the model's input; all in (vertical, horizontal) order."""

    photo: tuple[int, int]  # height, width in pixels
    box: tuple[float, float, float, float]  # top, left, bottom, right in photo pixels
    size: tuple[int, int]  # height, width of the model's input

    @property
    def seen_fraction(self) -> float:
        """Share of the photo's area that the model is shown, in (0, 1]."""
        top, left, bottom, right = self.box
        return (bottom - top) * (right - left) / (self.photo[0] * self.photo[1])

    def to_photo(self, row: float, column: float) -> tuple[float, float]:
        """A point of the model's input, in its pixel coordinates, as a point of the photo."""
        top, left, bottom, right = self.box
        return top + row * (bottom - top) / self.size[0], left + column * (right - left) / self.size[1]

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """A map (h, w) over the input as a map over the photo, and the mask of the pixels that the model saw.

        Pixels outside the box are False in the mask: not seen, which is not zero evidence (their value is 0).
        """
        rows = _seen(self.photo[0], self.box[0], self.box[2])
        columns = _seen(self.photo[1], self.box[1], self.box[3])
        seen = torch.zeros(self.photo, dtype=torch.bool)
        seen[rows, columns] = True
        placed = torch.zeros(self.photo, dtype=values.dtype)
        if seen.any():
            size = (rows.stop - rows.start, columns.stop - columns.start)
            shown = functional.interpolate(  # antialias: a small photo must not lose a peak between two pixels
                values[None, None].cpu(), size=size, mode="bilinear", align_corners=False, antialias=True
            )
            placed[rows, columns] = shown[0, 0]
        return placed, seen

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"photo": list(self.photo), "box": list(self.box), "size": list(self.size)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Geometry":
        """The inverse of to_dict."""
        return cls(tuple(record["photo"]), tuple(record["box"]), tuple(record["size"]))


def _seen(length: int, start: float, stop: float) -> slice:
    """Pixels whose centers lie in [start, stop)."""
    return slice(max(0, math.ceil(start - 0.5)), min(length, math.ceil(stop - 0.5)))


def resize_and_center_crop(photo: tuple[int, int], size: tuple[int, int], crop: float) -> Geometry:
    """The usual ImageNet evaluation transform: the shorter side to size / crop, then the central size.

    Resized lengths and crop offsets are rounded as torchvision and timm round them. For an input that is not square,
    the photo is scaled so that the crop of the input's shape just fits.
    """
    height, width = photo
    wanted = (int(size[0] / crop), int(size[1] / crop))
    if wanted[0] * width <= wanted[1] * height:  # the width decides
        resized = (max(int(wanted[1] * height / width), wanted[0]), wanted[1])
    else:
        resized = (wanted[0], max(int(wanted[0] * width / height), wanted[1]))
    top, left = round((resized[0] - size[0]) / 2), round((resized[1] - size[1]) / 2)
    scale = (height / resized[0], width / resized[1])
    box = (top * scale[0], left * scale[1], (top + size[0]) * scale[0], (left + size[1]) * scale[1])
    return Geometry(photo, box, size)


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (N, *grid) to (N, *size), n-linear, half-pixel centers (align_corners=False): no shift, no new extremes."""
    if maps.shape[1:] == tuple(size):
        return maps
    mode = _MODES[maps.ndim - 1]
    return functional.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]

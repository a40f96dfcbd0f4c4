"""Where the model's input lies in the photo, and maps from one to the other. Half-pixel convention throughout."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from seewhy.forms import LINEAR

MAX_PIXELS = 178_956_970  # of a photo: above it Pillow itself calls an image a decompression bomb


@dataclass(frozen=True)
class Geometry:
    """The box of an upright photo that became the model's input, an affine map per axis; (vertical, horizontal) order.

    A box that reaches beyond the photo is padding there: input without a photo pixel behind it.
    """

    photo: tuple[int, int]  # height, width in pixels
    box: tuple[float, float, float, float]  # top, left, bottom, right in photo pixels
    size: tuple[int, int]  # height, width of the model's input

    @property
    def seen_fraction(self) -> float:
        """Share of the photo's area that the model is shown, in (0, 1]."""
        top, left, bottom, right = self.box
        height, width = min(bottom, self.photo[0]) - max(top, 0), min(right, self.photo[1]) - max(left, 0)
        return height * width / (self.photo[0] * self.photo[1])

    def to_photo(self, row: float, column: float) -> tuple[float, float]:
        """A point of the model's input, in its pixel coordinates, as a point of the photo."""
        top, left, bottom, right = self.box
        return top + row * (bottom - top) / self.size[0], left + column * (right - left) / self.size[1]

    def to_input(self, row: float, column: float) -> tuple[float, float]:
        """The inverse of to_photo."""
        top, left, bottom, right = self.box
        return (row - top) * self.size[0] / (bottom - top), (column - left) * self.size[1] / (right - left)

    def seen(self) -> Tensor:
        """Mask of the photo's pixels whose centers the model was shown: bool (H, W)."""
        mask = torch.zeros(self.photo, dtype=torch.bool)
        mask[self._seen(0), self._seen(1)] = True
        return mask

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """A map (h, w) over the input as a map over the photo (H, W), and the mask of the pixels that the model saw.

        Bilinear, with a wider kernel where photo pixels are larger than the input's: a small photo loses no peak. Pixels
        outside the box are False in the mask: not seen, which is not zero evidence (their value is 0). What the map says
        of padding is dropped.
        """
        placed = torch.zeros(self.photo, dtype=values.dtype)
        rows, columns = (torch.from_numpy(self._weights(axis)).to(values.dtype) for axis in (0, 1))
        placed[self._seen(0), self._seen(1)] = rows @ values.cpu() @ columns.T
        return placed, self.seen()

    def cells(self, grid: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which row of a grid over the input lies at every row of the photo, and which column; -1 where unseen."""
        found = []
        for axis in (0, 1):
            seen = self._seen(axis)
            behind = np.full(self.photo[axis], -1)
            inside = self._centers(axis) * (grid[axis] / self.size[axis])
            behind[seen] = np.floor(inside).astype(np.int64).clip(0, grid[axis] - 1)
            found.append(behind)
        return found[0], found[1]

    def _seen(self, axis: int) -> slice:
        """Photo pixels along an axis whose centers lie in the box."""
        start, stop, length = self.box[axis], self.box[axis + 2], self.photo[axis]
        first = min(max(0, math.ceil(start - 0.5)), length)
        return slice(first, max(first, min(length, math.ceil(stop - 0.5))))

    def _centers(self, axis: int) -> NDArray[np.float64]:
        """The centers of those pixels in input coordinates."""
        seen, start, stop = self._seen(axis), self.box[axis], self.box[axis + 2]
        return (np.arange(seen.start, seen.stop) + 0.5 - start) * (self.size[axis] / (stop - start))

    def _weights(self, axis: int) -> NDArray[np.float64]:
        """How much every input pixel counts for every seen photo pixel: (seen, input), rows sum to 1."""
        start, stop, n = self.box[axis], self.box[axis + 2], self.size[axis]
        scale = (stop - start) / n  # photo pixels per input pixel
        pixels = np.arange(n)
        edges = start + pixels * scale
        shown = (edges + scale > 1e-6) & (edges < self.photo[axis] - 1e-6)  # not padding
        away = np.abs(self._centers(axis)[:, None] - (pixels + 0.5)) * min(1.0, scale)
        weights: NDArray[np.float64] = (1 - away).clip(0) * shown
        weights /= weights.sum(1, keepdims=True)
        return weights

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"photo": list(self.photo), "box": list(self.box), "size": list(self.size)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Geometry":
        """The inverse of to_dict."""
        return cls(tuple(record["photo"]), tuple(record["box"]), tuple(record["size"]))


def frame(photo: tuple[int, int], size: tuple[int, int], crop: float = 1.0, framing: str = "crop") -> Geometry:
    """How a photo (height, width) becomes an input (h, w): scaled to fit size / crop, then the central `size` is taken.

    framing "crop": the photo covers size / crop, what stands out is cut off (ImageNet's evaluation transform, timm's crop
    mode "center"); "stretch": it takes exactly that shape, its proportions change ("squash"); "pad": it fits inside, what
    stays empty is padding ("border"). Lengths and offsets are rounded as torchvision and timm round them.
    """
    height, width = photo
    wanted = (int(size[0] / crop), int(size[1] / crop))
    if framing == "stretch":
        resized = wanted
    elif (wanted[0] * width <= wanted[1] * height) == (framing == "crop"):  # the width decides
        other = wanted[1] * height / width
        resized = (max(int(other), wanted[0]) if framing == "crop" else max(round(other), 1), wanted[1])
    else:
        other = wanted[0] * width / height
        resized = (wanted[0], max(int(other), wanted[1]) if framing == "crop" else max(round(other), 1))
    top, left = (_offset(long, shown) for long, shown in zip(resized, size, strict=True))
    scale = (height / resized[0], width / resized[1])
    box = (top * scale[0], left * scale[1], (top + size[0]) * scale[0], (left + size[1]) * scale[1])
    return Geometry(photo, box, size)


def _offset(long: int, shown: int) -> int:
    """Where the central `shown` pixels of `long` begin; negative where they are padded."""
    return round((long - shown) / 2) if long >= shown else -((shown - long) // 2)


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (N, *grid) to (N, *size), n-linear, half-pixel centers (align_corners=False): no shift, no new extremes."""
    if maps.shape[1:] == tuple(size):
        return maps
    mode = LINEAR[maps.ndim - 1]
    return functional.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]

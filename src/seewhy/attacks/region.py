"""Where an attack sends the maps: a region of the input, and how much of a map lies in it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError, known_name

Sign = Literal["positive", "absolute"]
Box = tuple[float, float, float, float]
Region = Literal["frame"] | Box | Tensor
FRAME = 7  # of a side: the paper's frame is a cell wide where Grad-CAM has 7 x 7 of them


def region_mask(region: Region, axes: Sequence[int]) -> Tensor:
    """A region of the input as (*axes) in [0, 1]: how much of each pixel lies in it.

    region: "frame", a border a seventh of each side wide; (x0, y0, x1, y1) in fractions of the width and the height; or a
    mask of the input's own size. UsageError for any other, for a region of nothing and for one of everything.
    """
    if isinstance(region, Tensor):
        mask = region.float()
        if tuple(mask.shape) != tuple(axes):
            raise UsageError(f"a region is a mask of the input's size {tuple(axes)}; got {tuple(mask.shape)}.")
    elif isinstance(region, str):
        known_name("region", region, ("frame",))
        mask = torch.ones(tuple(axes), dtype=torch.float32)
        mask[tuple(slice(max(1, side // FRAME), side - max(1, side // FRAME)) for side in axes)] = 0
    else:
        mask = _box(region, axes).float()
    low, high, share = float(mask.min()), float(mask.max()), float(mask.mean())
    if low < 0 or high > 1 or not 0 < share < 1:
        raise UsageError(
            f"a region is a part of the image, its values in [0, 1]; this one goes from {low:g} to {high:g} and covers "
            f"{share:.3g} of it."
        )
    return mask


def _box(box: Box, axes: Sequence[int]) -> Tensor:
    expected = "a region is four fractions x0 < x1, y0 < y1 of the width and height of an image, as (0, 0, 0.3, 0.3)"
    if len(axes) != 2 or len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise UsageError(f"{expected}, 'frame' or a mask of the size {tuple(axes)}; got {box!r}.")
    x0, y0, x1, y1 = box
    along_y, along_x = (
        ((torch.arange(1, side + 1) - low * side).clamp(0, 1) * (high * side - torch.arange(side)).clamp(0, 1))
        for side, low, high in zip(axes, (y0, x0), (y1, x1), strict=True)
    )
    return along_y[:, None] * along_x


def on_grids(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks or maps (N, *axes) of the input, their mean over each cell of a grid: (N, *grid) float32."""
    if maps.shape[1:] == tuple(grid):
        return maps.float()
    return functional.interpolate(maps[:, None].float(), size=tuple(grid), mode="area")[:, 0]


def on_grid(region: Tensor, grid: Sequence[int]) -> Tensor:
    """How much of every cell of a grid lies in a region (*axes) of the input: (*grid) in [0, 1]."""
    return on_grids(region[None], grid)[0]


def mass_in(raw: Tensor, region: Tensor, sign: Sign = "positive") -> Tensor:
    """Share of each map (N, *grid) that lies in a region (*axes) of the input: (N,) in [0, 1], NaN where the map has none.

    sign "positive": evidence against counts as none; "absolute": as evidence for. A cell counts by how much of it lies in
    the region.
    """
    own = (raw.abs() if sign == "absolute" else raw.clamp_min(0)).double().flatten(1)
    share = on_grid(region.to(raw.device), raw.shape[1:]).double().flatten()
    return (own * share).sum(1) / own.sum(1)

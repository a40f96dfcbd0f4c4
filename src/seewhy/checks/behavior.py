"""Where a network's answer comes from, asked without a gradient, a layer or a map: parts of its images are exchanged."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.data.geometry import resize
from seewhy.errors import RefusalError
from seewhy.model import VisionModel
from seewhy.target import Target

CELLS = 8  # of an axis: as fine as the maps of most class activation layers
WINDOW = 2  # cells of an axis that are exchanged at a time: they overlap, so that a cell is not alone


def grid_of(axes: Sequence[int]) -> tuple[int, ...]:
    """Cells along each axis of an image; RefusalError where an axis is too short to have an order."""
    if min(axes) <= WINDOW:
        raise RefusalError(
            f"images of {' x '.join(map(str, axes))} pixels have no places to compare: more than 2 needed."
        )
    return tuple(min(CELLS, axis) for axis in axes)


def rows_of(axes: Sequence[int], draws: int) -> int:
    """Forward rows an image that `behavior_maps` costs: one a window and draw."""
    rows = draws
    for cells in grid_of(axes):
        rows *= cells - WINDOW + 1
    return rows


def behavior_maps(model: VisionModel, images: Tensor, target: Target, draws: int, seed: int) -> Tensor:
    """How far the answer falls where a place shows another of these images: (N, *cells), in score units but for an offset.

    Every window of 2 cells an axis is exchanged for the same place of another image, drawn by `seed`, once a draw; a cell
    has minus the mean answer over the windows that hold it. What is shown stays what the network is made for: no gray
    patch, and a pixel that is the same in all images stays what it is. float64, on the CPU; target: settled.
    """
    n, axes = len(images), tuple(images.shape[2:])
    images = images.to(model.device)
    windows = _windows(grid_of(axes)).to(model.device)
    others = other_images(n, draws, seed).to(model.device)

    def run(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=model.device)
        image, window, draw = rows % n, rows // n % len(windows), rows // n // len(windows)
        hidden, other = on_pixels(windows[window], axes), images[others[draw, image]]
        return model.answer(torch.where(hidden.unsqueeze(1), other, images[image]), target, image).values.double()

    said = torch.cat(model.in_batches(n * len(windows) * draws, images.shape[1:], run)).view(draws, len(windows), n)
    held = windows.flatten(1).to(said)
    return -(said.mean(0).T @ held / held.sum(0)).view(n, *windows.shape[1:]).cpu()


def other_images(n: int, draws: int, seed: int) -> Tensor:
    """For each of n images another one of them, never the image itself, once a draw: (draws, n) indices."""
    ahead = torch.randint(1, n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return (torch.arange(n) + ahead) % n


def on_pixels(cells: Tensor, axes: Sequence[int]) -> Tensor:
    """What each cell says (N, *grid), said to each pixel of images with these axes: (N, *axes)."""
    for dim, axis in enumerate(axes, 1):
        cells = cells.index_select(dim, torch.arange(axis, device=cells.device) * cells.shape[dim] // axis)
    return cells


def on_cells(raw: Tensor, axes: Sequence[int]) -> Tensor:
    """Maps (N, *grid) of images with these axes, averaged over each cell, interpolated where the grid is coarser."""
    grid = grid_of(axes)
    finer = tuple(max(sides) for sides in zip(raw.shape[1:], grid, strict=True))
    values = resize(raw.detach().cpu().double(), finer)
    cells: Tensor = functional.interpolate(values[:, None], size=grid, mode="area")[:, 0]
    return cells


def _windows(grid: Sequence[int]) -> Tensor:
    """Every window that lies inside: (W, *grid) bool."""
    starts = list(itertools.product(*[range(cells - WINDOW + 1) for cells in grid]))
    found = torch.zeros(len(starts), *grid, dtype=torch.bool)
    for window, start in zip(found, starts, strict=True):
        window[tuple(slice(at, at + WINDOW) for at in start)] = True
    return found

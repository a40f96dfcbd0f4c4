"""What is hidden at a time: pixels, patches or superpixels of each image, never a single channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seewhy.errors import UsageError, known_name, whole_number
from seewhy.segmentation import Parts

Unit = Literal["patch", "pixel", "superpixel"]
UNITS = ("patch", "pixel", "superpixel")
PATCHES_PER_AXIS = 16


@dataclass(frozen=True)
class Units:
    """Which unit each pixel belongs to; U is the largest number of units of an image, the rest of a row is empty."""

    name: str
    labels: Tensor  # (N, *axes), 0 .. counts - 1
    counts: Tensor  # (N,)
    sizes: Tensor  # (N, U) pixels, float64; 0 where there is no such unit

    def sums(self, maps: Tensor) -> Tensor:
        """(N, *axes) -> (N, U) float64: the sum of a map over each unit."""
        total = torch.zeros_like(self.sizes)
        return total.scatter_add_(1, self.labels.flatten(1), maps.flatten(1).double())

    def means(self, maps: Tensor) -> Tensor:
        """The mean of a map over each unit, float32, so that equal values stay equal; -inf where there is no such unit."""
        mean = (self.sums(maps) / self.sizes).float()
        return torch.where(self.sizes > 0, mean, -torch.inf)

    def pixels(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Masks (R, 1, *axes) of the chosen units (R, U) of images (R,)."""
        axes = self.labels.shape[1:]
        spread = chosen if self.name == "pixel" else chosen.gather(1, self.labels[images].flatten(1))
        return spread.view(len(images), 1, *axes)


def units_of(images: Tensor, unit: str, patch: int | Sequence[int] | None, superpixels: int) -> Units:
    """Cut images (N, C, *axes) into pixels, patches on a grid (the last of an axis is smaller), or SLIC superpixels.

    patch: pixels a side, one number or one per axis; None: ceil(side / 16). UsageError; MissingExtraError for superpixels.
    """
    known_name("unit", unit, UNITS)
    n, axes = len(images), images.shape[2:]
    if unit != "patch" and patch is not None:
        raise UsageError(f"patch={patch!r} goes with unit='patch'; unit={unit!r} was given.")
    if unit == "superpixel":
        found, counted = Parts(images, None, "slic", superpixels).of(images, slice(0, n))
        counts = torch.tensor(counted)
    else:
        sides = [1] * len(axes) if unit == "pixel" else _patch_sides(axes, patch)
        labels = torch.zeros(axes, dtype=torch.long)
        for axis, (length, side) in enumerate(zip(axes, sides, strict=True)):
            place = (torch.arange(length) // side).view(-1, *[1] * (len(axes) - 1 - axis))
            labels = labels * -(-length // side) + place
        found, counts = labels.expand(n, *axes), torch.full((n,), int(labels.max()) + 1)
    sizes = torch.zeros(n, int(counts.max()), dtype=torch.float64)
    sizes.scatter_add_(1, found.flatten(1), torch.ones_like(found, dtype=torch.float64).flatten(1))
    return Units(unit, found.to(images.device), counts.to(images.device), sizes.to(images.device))


def _patch_sides(axes: Sequence[int], patch: int | Sequence[int] | None) -> list[int]:
    if patch is None:
        return [-(-length // PATCHES_PER_AXIS) for length in axes]
    sides = [patch] * len(axes) if isinstance(patch, int) else list(patch)
    if len(sides) != len(axes):
        raise UsageError(f"patch is one number or one per axis; got {patch!r} for axes of {tuple(axes)} pixels.")
    for side, length in zip(sides, axes, strict=True):
        whole_number("patch", side, at_least=1)
        if side > length:
            raise UsageError(f"a patch of {side} pixels does not fit into an axis of {length}: at most {length}.")
    return sides


def tied_share(means: Tensor, counts: Tensor) -> Tensor:
    """Share of each image's units (N,) whose value another of its units has too."""
    ordered = means.sort(1, descending=True).values  # empty units come last
    there = torch.arange(means.shape[1], device=means.device) < counts[:, None]
    same = (ordered[:, 1:] == ordered[:, :-1]) & there[:, 1:]
    tied = torch.zeros_like(there)
    tied[:, 1:] |= same
    tied[:, :-1] |= same
    return tied.sum(1) / counts

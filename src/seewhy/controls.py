"""Maps that know nothing of a network, as pure functions of the picture: every score stands beside theirs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.perturb import image_generator


def random_maps(images: Tensor, seed: int) -> Tensor:
    """Uniform noise in [0, 1) for every pixel, (N, *axes), from `seed` and each image's own bytes."""
    noise = [torch.rand(x.shape[1:], generator=image_generator(x, seed), dtype=torch.float32) for x in images]
    return torch.stack(noise).to(images.device)


def edge_maps(images: Tensor) -> Tensor:
    """sqrt(sum over axes of Sobel^2) of the channel mean, (N, *axes): >= 0; borders repeated, weights summing to 1."""
    gray = images.mean(1)
    difference, smooth = torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([0.25, 0.5, 0.25])
    total = torch.zeros_like(gray)
    for axis in range(1, gray.ndim):
        edges = gray
        for other in range(1, gray.ndim):
            edges = _along(edges, difference if other == axis else smooth, other)
        total += edges.square()
    return total.sqrt()


def center_maps(n: int, axes: Sequence[int]) -> Tensor:
    """exp(-1/2 sum over axes of ((u - c) / (L / 4))^2), c the center and L the length of each axis: (n, *axes), in (0, 1]."""
    bump = torch.ones(tuple(axes), dtype=torch.float32)
    for axis, length in enumerate(axes):
        offsets = (torch.arange(length, dtype=torch.float32) - (length - 1) / 2) / (length / 4)
        bump = bump * torch.exp(-0.5 * offsets**2).view(-1, *[1] * (len(axes) - 1 - axis))
    return bump.repeat(n, *[1] * bump.ndim)


def _along(values: Tensor, kernel: Tensor, axis: int) -> Tensor:
    lines = values.movedim(axis, -1)
    padded = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (1, 1), mode="replicate")
    return functional.conv1d(padded, kernel.to(values).view(1, 1, 3)).reshape(lines.shape).movedim(-1, axis)

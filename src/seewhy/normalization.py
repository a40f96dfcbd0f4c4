"""From pixels in [0, 1] to what a network was trained on, and back."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def normalized(x: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """(x - mean) / std per channel of (R, C, *axes); x itself where there is no normalization."""
    if mean is None or std is None:
        return x
    center, _, scale = _moments(tuple(mean), tuple(std), x.ndim, x.device)
    return (x - center).mul_(scale)


def pixels(z: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """The inverse of `normalized`."""
    if mean is None or std is None:
        return z
    center, spread, _ = _moments(tuple(mean), tuple(std), z.ndim, z.device)
    return z * spread + center


@lru_cache(maxsize=32)
def _moments(
    mean: tuple[float, ...], std: tuple[float, ...], ndim: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std and 1 / std as (1, C, 1, ...): a small network's forward is too short to make them every time."""
    with torch.inference_mode(False):
        center, spread = (torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std))
        shape = (1, -1, *[1] * (ndim - 2))
        return center.view(shape), spread.view(shape), 1 / spread.view(shape)

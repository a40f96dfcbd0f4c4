"""What an attack on the pixels changed: the pictures of the maps, and the images themselves."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from seewhy.checks.result import Score, score
from seewhy.checks.strongest import cells_of_top
from seewhy.data.geometry import resize
from seewhy.maps import Maps, why_unusable
from seewhy.similarity import correlation, image_ssim, rank_correlation, ssim

Picture = Literal["absolute", "positive", "signed"]
PICTURES = ("absolute", "positive", "signed")


def drawn(raw: Tensor, picture: Picture) -> Tensor:
    """What is looked at of maps (N, *grid): |M| (the papers' choice), its positive part (CAMs), or M with its signs."""
    return raw.abs() if picture == "absolute" else raw.clamp_min(0) if picture == "positive" else raw


def shares(raw: Tensor, picture: Picture) -> Tensor:
    """The same over the sum of its absolute values: (N, *grid); 0 where the map is."""
    values = drawn(raw, picture)
    total = values.abs().flatten(1).sum(1).clamp_min(torch.finfo(raw.dtype).tiny)
    return values / total.view(-1, *[1] * (raw.ndim - 1))


def centers(values: Tensor, size: Sequence[int]) -> Tensor:
    """Center of mass of |maps| (N, *grid) in pixels of an input of `size`: (N, axes); NaN where a map is zero."""
    mass = values.abs().flatten(1)
    places = torch.cartesian_prod(
        *[
            (torch.arange(cells, dtype=values.dtype, device=values.device) + 0.5) * length / cells
            for cells, length in zip(values.shape[1:], size, strict=True)
        ]
    ).view(mass.shape[1], -1)
    return (mass @ places) / mass.sum(1, keepdim=True)


def top_cells(values: Tensor, top: float) -> Tensor:
    """The round(top * cells) largest cells of each map (N, *grid), at least one: a mask (N, cells); ties by position."""
    flat = values.flatten(1)
    chosen = flat.argsort(dim=1, descending=True, stable=True)[:, : cells_of_top(top, flat.shape[1])]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True)


def compared(
    before: Maps, after: Maps, size: Sequence[int], picture: Picture, top: float, toward: Tensor | None = None
) -> dict[str, Tensor]:
    """How far the pictures of two maps of each image are apart, (N,) float64 each; NaN where one cannot be scored.

    spearman, pearson, ssim (resized to the input) in [-1, 1]; top_k_intersection: of the `top` share of the cells the part
    that is in both, in [0, 1]; center_shift: distance of the centers of mass in pixels; mse: of the pictures divided by
    their mean absolute value. With `toward` (N, *grid), the map that was asked for: pearson_to_target, and of the
    clean map pearson_to_target_before.
    """
    a, b = (shares(maps.raw.detach().cpu().double(), picture) for maps in (before, after))
    wide = [resize(values, tuple(size)) for values in (a, b)]
    both = (top_cells(a, top) & top_cells(b, top)).sum(1).double()
    found = {
        "spearman": rank_correlation(a, b),
        "pearson": correlation(a, b),
        "ssim": ssim(*wide),
        "top_k_intersection": both / cells_of_top(top, a[0].numel()),
        "center_shift": (centers(a, size) - centers(b, size)).square().sum(1).sqrt(),
        "mse": ((a - b) * a[0].numel()).square().flatten(1).mean(1),
    }
    if toward is not None:
        goal = shares(toward.detach().cpu().double(), picture)
        found |= {"pearson_to_target": correlation(b, goal), "pearson_to_target_before": correlation(a, goal)}
    usable = [torch.tensor([not why for why in why_unusable(maps)]) for maps in (before, after)]
    return {name: torch.where(usable[0] & usable[1], values, math.nan) for name, values in found.items()}


UNITS = {
    "spearman": "rank correlation of the pictures",
    "pearson": "correlation of the pictures",
    "ssim": "structural similarity of the pictures",
    "top_k_intersection": "share of the strongest cells",
    "center_shift": "pixels",
    "mse": "squared mean values",
    "pearson_to_target": "correlation with the target map",
}


def map_scores(found: dict[str, Tensor], columns: Mapping[str, dict[str, Tensor]]) -> tuple[Score, ...]:
    """What `compared` found as scores, each beside the same of every column: random signs, 8 bits, defenses."""
    scores = []
    for name, unit in UNITS.items():
        if name in found:
            controls = {column: numbers[name] for column, numbers in columns.items()}
            if name == "pearson_to_target":
                controls["before"] = found["pearson_to_target_before"]
            scores.append(score(name, found[name], "neither", unit, controls=controls))
    return tuple(scores)


def image_scores(before: Tensor, after: Tensor) -> tuple[Score, ...]:
    """How far images (N, C, *axes) in [0, 1] were changed: largest pixel, L2 norm, SSIM, PSNR (infinite where unchanged)."""
    change = (after - before).detach().cpu().double().flatten(1)
    values = {
        "image_max": (change.abs().amax(1), "of the pixel range"),
        "image_l2": (change.square().sum(1).sqrt(), "of the pixel range, over all pixels"),
        "image_ssim": (image_ssim(before.cpu(), after.detach().cpu()), "structural similarity of the images"),
        "image_psnr": (-10 * change.square().mean(1).log10(), "dB"),
    }
    return tuple(score(name, numbers, "neither", unit) for name, (numbers, unit) in values.items())

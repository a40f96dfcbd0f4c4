"""Average drop and increase: what is left of the score when only what the map points at is shown."""

import torch
from torch import Tensor

from seewhy.checks.faithfulness.asking import Subject
from seewhy.controls import random_maps
from seewhy.perturb import ranks

VARIANTS = ("soft", "top_half")


def masks_of(values: Tensor, ties: Tensor) -> Tensor:
    """Two masks of each map (N, *axes), in [0, 1]: (2, N, 1, *axes).

    soft: the map's positive part over its largest value (Grad-CAM++); top_half: 1 on the half of the pixels with the
    largest values, rounded down, and 0 elsewhere (Score-CAM), ties in the order of `ties` (N, *axes).
    """
    flat = values.flatten(1)
    positive = flat.clamp_min(0)
    soft = positive / positive.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    top = ranks(flat.float(), ties.flatten(1)) < flat.shape[1] // 2
    return torch.stack([soft.float(), top.float()]).view(2, len(values), 1, *values.shape[1:])


def average_drop(subject: Subject, fill: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Drop and increase in %, by map, (2 variants, N), on the first scale: 2 forward rows a map, so 6 an image.

    drop = 100 max(0, Y - O) / Y, increase = 100 [Y < O]; Y is the clean score, O that of mask x + (1 - mask) fill. NaN
    where Y is not above 0, as a share of it has no meaning then.
    """
    masks = torch.cat(list(_masks(subject).values()))

    def pictures(image: Tensor, sample: Tensor) -> Tensor:
        mask = masks[sample, image]
        return fill[image] + mask * (subject.x[image] - fill[image])

    left = subject.ask(len(masks), pictures)[0]
    whole = torch.where(subject.clean[0] > 0, subject.clean[0], torch.nan)
    drop = 100 * (whole - left).clamp_min(0) / whole
    increase = 100 * torch.where(whole.isnan(), torch.nan, (left > whole).double())
    names, shape = list(subject.maps), (len(subject.maps), 2, len(whole))
    return (
        dict(zip(names, drop.view(shape), strict=True)),
        dict(zip(names, increase.view(shape), strict=True)),
    )


def coverage(subject: Subject) -> dict[str, Tensor]:
    """Mean of the soft mask of each map, (N,) in [0, 1]: a map of all ones has no drop, and covers everything."""
    return {name: masks[0].double().flatten(1).mean(1) for name, masks in _masks(subject).items()}


def _masks(subject: Subject) -> dict[str, Tensor]:
    ties = random_maps(subject.x, subject.seed + 1)
    return {name: masks_of(values, ties) for name, values in subject.maps.items()}

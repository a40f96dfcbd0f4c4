"""Candidates whose content is exchanged: the same place of the frame, or the surroundings, of images with a label."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.audit.association import exchanged_labels
from seewhy.audit.candidate import Box, Candidate, Edit, Kind
from seewhy.perturb import gaussian_blur

SEAM = 1 / 32  # of the shorter side: standard deviation of the blur of a mask's border


def exchange_candidate(
    kind: Kind,
    name: str,
    where: Box | None,
    images: Tensor,
    scenes: Tensor,
    inside: Tensor,
    carriers: Tensor,
    facts: Sequence[str],
    label: str,
    output: int | None,
    seed: int,
) -> Candidate:
    """What lies inside of a mask in images of a label, to be put into images without it, and the other way round.

    inside: (H, W), or (N, H, W) where each image has its own. carriers: (N,) bool, the images of that label; output: the one
    that must rise. What is unrelated comes from as many images whose labels were exchanged.
    """
    shape = images.shape[2:]
    cells = "" if where is None else f" {[round(v / s * 6) for v, s in zip(where, (*shape, *shape), strict=True)]}"

    def by_exchanged_labels(k: int) -> Edit:
        drawn = seed * 1009 + k
        return exchanged(images, scenes, inside, exchanged_labels(carriers.double(), scenes, drawn) > 0, drawn)

    return Candidate(
        kind=kind,
        name=name,
        where=where,
        shows=carriers,
        paste=exchanged(images, scenes, inside, carriers, seed),
        swapped=exchanged(images, scenes, inside, ~carriers, seed),
        remove={"the same of images without it": exchanged(images, scenes, inside, ~carriers, seed + 1)},
        unrelated=by_exchanged_labels,
        suspicion=tuple(facts),
        appearance=f"{kind} {label}{cells}".encode(),
        details={"goes_with": label},
        toward=output,
    )


def exchanged(images: Tensor, scenes: Tensor, inside: Tensor, donors: Tensor, seed: int) -> Edit:
    """Each image with the inside of a mask, (H, W) or one each, taken from a donor of another scene, drawn by the seed.

    Where each image has its own, what lies inside of both is taken: no object of a donor comes along. The two are blended
    at the border of the mask: a cut would put an edge there that neither of them has.
    """
    generator = torch.Generator().manual_seed(seed)
    pool = donors.nonzero().flatten()
    order = pool[torch.randperm(len(pool), generator=generator)]
    chosen = torch.zeros(len(images), dtype=torch.long)
    for i in range(len(images)):
        for step in range(len(order)):
            donor = int(order[(i + step) % len(order)])
            if scenes[donor] != scenes[i]:
                break
        chosen[i] = donor

    def edit(x: Tensor, index: Tensor) -> Tensor:
        region = inside if inside.ndim == 2 else inside[index] & inside[chosen[index]]
        weight = gaussian_blur(region.float().view(-1, 1, *inside.shape[-2:]), SEAM * min(inside.shape[-2:]))
        return x + weight * (images[chosen[index]].float() / 255 - x)

    return edit

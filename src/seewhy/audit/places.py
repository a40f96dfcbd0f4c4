"""Places of the frame whose content goes with a label: a timestamp with other digits each time, a border, a background."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from seewhy.audit.association import Association, associate, label_columns, toward
from seewhy.audit.candidate import Candidate, Edit
from seewhy.audit.marks import box_of, words_of_place
from seewhy.audit.patterns import contrast
from seewhy.perturb import gaussian_blur

CELLS = 14  # of the frame, an axis
DRAWS = 199  # random sets of images, for how alike those of a label are
LARGEST = 0.5  # share of the frame; what covers more is a cue of the whole image
MIDDLE = 0.35  # half axes of the ellipse that counts as the object's where no box says better, of the frame


def cells(images: Tensor) -> Tensor:
    """(N, 4, CELLS, CELLS): mean color of each cell (gray three times for one channel) and the log of its detail."""
    parts = []
    for part in torch.split(images, 64):
        x = part.float() / 255
        x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        detail = (x - gaussian_blur(x, 1.5)).square().mean(1, keepdim=True)
        energy = 0.5 * torch.log(functional.adaptive_avg_pool2d(detail, CELLS) + 1e-6)
        parts.append(torch.cat([functional.adaptive_avg_pool2d(x, CELLS), energy], 1))
    return torch.cat(parts)


def place_candidates(
    images: Tensor,
    scenes: Tensor,
    finding: Tensor,
    labels: Tensor,
    kind: str,
    names: Sequence[str],
    seed: int,
) -> list[Candidate]:
    """A candidate for each place beside the middle whose color or detail goes with a label.

    What is suspicious of it: the images of that label are more alike there, pixel by pixel in contrast or in where detail
    lies, than 199 random sets of as many images are.
    """
    found = finding.nonzero().flatten()
    columns, which = label_columns(labels, kind)
    if not which:
        return []
    own = cells(images[found])
    flat = own.flatten(1)
    linked = associate(flat, columns[found], scenes[found], seed)
    h = torch.cat([contrast(part.float() / 255) for part in torch.split(images[found], 32)])
    candidates = []
    for t, output in enumerate(which):
        evidence = linked.r[:, t].view(4, CELLS, CELLS).abs().amax(0)
        carriers = _carriers(columns[:, t], kind)
        for mask in _masks(evidence, linked):
            small = functional.interpolate(mask[None, None].float(), size=h.shape[2:], mode="nearest")[0, 0] > 0
            box = box_of(mask, (images.shape[2], images.shape[3]))
            facts = _facts(h, small, carriers[found], scenes[found], box, images, seed)
            if facts:
                candidates.append(
                    _swap(images, scenes, mask, carriers, box, facts, names[output], toward(output, kind, labels), seed)
                )
    return candidates


def _masks(evidence: Tensor, linked: Association) -> list[Tensor]:
    labeled, count = ndimage.label((evidence > linked.chance).numpy(), structure=np.ones((3, 3)))
    found = [torch.from_numpy(labeled == k) for k in range(1, count + 1)]
    inner = slice(round(MIDDLE * CELLS), CELLS - round(MIDDLE * CELLS))
    return [m for m in found if float(m.float().mean()) <= LARGEST and not bool(m[inner, inner].any())]


def _carriers(column: Tensor, kind: str) -> Tensor:
    return column >= column.quantile(0.75) if kind == "score" else column > 0


def _facts(
    h: Tensor, mask: Tensor, carriers: Tensor, scenes: Tensor, box: tuple[int, int, int, int], images: Tensor, seed: int
) -> tuple[str, ...]:
    """Why what lies there is not the object's own: facts with their numbers; none where nothing tells."""
    place = words_of_place(box, (images.shape[2], images.shape[3]))
    facts = []
    detail = torch.log(gaussian_blur(h.square().mean(1, keepdim=True), 1.0).clamp_min(0) + 1e-2)
    for said, values in (("contrast", h), ("places of detail", detail)):
        rows = values[:, :, mask].flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        units = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
        own = _alike(units[carriers], scenes[carriers])
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for _ in range(DRAWS):
            some = torch.randperm(len(h), generator=generator)[: int(carriers.sum())]
            drawn.append(_alike(units[some], scenes[some]))
        chance = float(torch.tensor(drawn).max())
        if own > chance:
            facts.append(
                f"images of it are alike in {place}, in different scenes: their {said} correlates by {own:.2f}, of {DRAWS} "
                f"random sets of as many images by {chance:.2f} at most"
            )
    return tuple(facts)


def _alike(units: Tensor, scenes: Tensor) -> float:
    """Mean correlation of two rows of different scenes."""
    total = float(units.sum(0).square().sum())
    _, at = torch.unique(scenes, return_inverse=True)
    count = int(at.max()) + 1 if len(at) else 0
    sums = torch.zeros(count, units.shape[1]).index_add_(0, at, units)
    sizes = torch.bincount(at, minlength=count).double()
    pairs = len(units) ** 2 - float(sizes.square().sum())
    return (total - float(sums.square().sum())) / pairs if pairs else 0.0


def _swap(
    images: Tensor,
    scenes: Tensor,
    mask: Tensor,
    carriers: Tensor,
    box: tuple[int, int, int, int],
    facts: tuple[str, ...],
    label: str,
    output: int | None,
    seed: int,
) -> Candidate:
    """The candidate whose content is exchanged with that of other images at the same place."""
    size = (images.shape[2], images.shape[3])
    inside = functional.interpolate(mask[None, None].float(), size=size, mode="nearest")[0, 0] > 0
    place = words_of_place(box, size)
    return Candidate(
        kind="place",
        name=f"what lies in {place}",
        where=box,
        shows=carriers,
        paste=exchanged(images, scenes, inside, carriers, seed),
        swapped=exchanged(images, scenes, inside, ~carriers, seed),
        remove={"the same place of images without it": exchanged(images, scenes, inside, ~carriers, seed + 1)},
        unrelated=lambda k: one_piece(images, inside, ~carriers, seed * 1009 + k),
        suspicion=facts,
        appearance=f"place {label} {[round(v / s * 6) for v, s in zip(box, (*size, *size), strict=True)]}".encode(),
        details={"goes_with": label},
        toward=output,
    )


def exchanged(images: Tensor, scenes: Tensor, inside: Tensor, donors: Tensor, seed: int) -> Edit:
    """Each image with the inside of a mask (H, W) taken from a donor of another scene, drawn by the seed."""
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
        return torch.where(inside, images[chosen[index]].float() / 255, x)

    return edit


def one_piece(images: Tensor, inside: Tensor, donors: Tensor, seed: int) -> Edit:
    """Each image with the inside of a mask from one and the same donor: what any piece of a picture does there."""
    pool = donors.nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    piece = images[int(pool[int(torch.randint(len(pool), (1,), generator=generator))])].float() / 255
    return lambda x, _index: torch.where(inside, piece, x)

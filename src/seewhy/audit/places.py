"""Places of the frame whose content goes with a label: a timestamp with other digits each time, a border, a background."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from seewhy.audit.association import Association, Labels, associate
from seewhy.audit.candidate import Candidate
from seewhy.audit.exchange import exchange_candidate
from seewhy.audit.marks import box_of, words_of_place
from seewhy.audit.patterns import alike, contrast, units_of
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
    labels: Labels,
    seed: int,
) -> list[Candidate]:
    """A candidate for each place beside the middle whose color or detail goes with a label.

    What is suspicious of it: the images of that label are more alike there, pixel by pixel in contrast or in where detail
    lies, than 199 random sets of as many images are.
    """
    found = finding.nonzero().flatten()
    linked = associate(cells(images[found]).flatten(1), labels.columns[found], scenes[found], seed)
    h = torch.cat([contrast(part.float() / 255) for part in torch.split(images[found], 32)])
    candidates = []
    for t, label in enumerate(labels.names):
        evidence = linked.r[:, t].view(4, CELLS, CELLS).abs().amax(0)
        of_label = labels.carriers(t)
        for mask in _masks(evidence, linked):
            small = functional.interpolate(mask[None, None].float(), size=h.shape[2:], mode="nearest")[0, 0] > 0
            box = box_of(mask, (images.shape[2], images.shape[3]))
            place = words_of_place(box, (images.shape[2], images.shape[3]))
            facts = _facts(h, small, of_label[found], scenes[found], place, seed)
            if facts:
                inside = (
                    functional.interpolate(mask[None, None].float(), size=images.shape[2:], mode="nearest")[0, 0] > 0
                )
                of = (images, scenes, inside, of_label, facts, label, labels.rises[t], seed)
                candidates.append(exchange_candidate("place", f"what lies in {place} in images of {label}", box, *of))
    return candidates


def _masks(evidence: Tensor, linked: Association) -> list[Tensor]:
    labeled, count = ndimage.label((evidence > linked.chance).numpy(), structure=np.ones((3, 3)))
    found = [torch.from_numpy(labeled == k) for k in range(1, count + 1)]
    inner = slice(round(MIDDLE * CELLS), CELLS - round(MIDDLE * CELLS))
    return [m for m in found if float(m.float().mean()) <= LARGEST and not bool(m[inner, inner].any())]


def _facts(h: Tensor, mask: Tensor, chosen: Tensor, scenes: Tensor, place: str, seed: int) -> tuple[str, ...]:
    """Why what lies there is not the object's own: facts with their numbers; none where nothing tells."""
    facts = []
    detail = torch.log(gaussian_blur(h.square().mean(1, keepdim=True), 1.0).clamp_min(0) + 1e-2)
    for said, values in (("contrast", h), ("places of detail", detail)):
        units = units_of(values[:, :, mask].flatten(1))
        own = alike(units, chosen, scenes)
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for _ in range(DRAWS):
            some = torch.randperm(len(h), generator=generator)[: int(chosen.sum())]
            drawn.append(alike(units, some, scenes))
        chance = float(torch.tensor(drawn).max())
        if own > chance:
            facts.append(
                f"images of it are alike in {place}, in different scenes: their {said} correlates by {own:.2f}, of {DRAWS} "
                f"random sets of as many images by {chance:.2f} at most"
            )
    return tuple(facts)

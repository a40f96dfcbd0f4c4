"""Surroundings of the object that go with a label: the same grass, the same table, in different scenes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.audit.association import Labels, associate
from seewhy.audit.candidate import Candidate
from seewhy.audit.exchange import exchange_candidate
from seewhy.perturb import gaussian_blur

DRAWS = 199  # random sets of images, for how alike the surroundings of a label are
HALF = 0.36  # half axes of the ellipse in the middle that counts as the object, of each side
CORE, CORNERS = 0.2, 0.5  # half axes of what is hardly ever anything else; beyond these is hardly ever an object
BANDS = (1.0, 2.0, 4.0)  # standard deviations in pixels of the blurs between which detail is measured


def surroundings(size: Sequence[int], half: float = HALF) -> Tensor:
    """(H, W) bool: outside of the ellipse in the middle."""
    y, x = (torch.linspace(-0.5, 0.5, length) for length in size)
    return y[:, None].square() + x[None].square() > half**2


def around_objects(size: Sequence[int], half: float, objects: Tensor | None, count: int) -> Tensor:
    """(count, H, W) bool: outside of the marked objects; of the ellipse where nothing is marked, or nothing is left."""
    ellipse = surroundings(size, half).expand(count, -1, -1)
    if objects is None:
        return ellipse
    marked, filled = objects.flatten(1).any(1), objects.flatten(1).all(1)
    return torch.where((marked & ~filled).view(-1, 1, 1), ~objects, ellipse)


def described(images: Tensor, outside: Tensor) -> Tensor:
    """(N, 9): mean color outside (N, H, W), and the log of detail there in three bands, along and across."""
    found = []
    for part, own in zip(torch.split(images, 64), torch.split(outside, 64), strict=True):
        x, weight = part.float() / 255, (own.float() / own.sum((1, 2), keepdim=True))[:, None]
        x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        columns = [(x * weight).sum((2, 3))]
        gray = x.mean(1, keepdim=True)
        for sigma in BANDS:
            band = gaussian_blur(gray, sigma / 2) - gaussian_blur(gray, sigma)
            for axis in (2, 3):
                step = functional.pad(band.diff(dim=axis), (0, 1, 0, 0) if axis == 3 else (0, 0, 0, 1))
                columns.append(0.5 * torch.log((step.square() * weight).sum((2, 3)) + 1e-8))
        found.append(torch.cat(columns, 1))
    return torch.cat(found)


def background_candidates(
    images: Tensor, scenes: Tensor, finding: Tensor, labels: Labels, seed: int, objects: Tensor | None = None
) -> list[Candidate]:
    """A candidate for each label whose surroundings, and not the middle, look the same in different scenes.

    objects: (N, H, W) bool, what people marked: the surroundings are all else, whatever lies in the middle.
    """
    found = finding.nonzero().flatten()
    outside, corners, beyond_core = (
        around_objects(images.shape[2:], half, objects, len(images)) for half in (HALF, CORNERS, CORE)
    )
    own, middle = (described(images[found], part[found]) for part in (corners, ~beyond_core))
    # What differs as much in the middle is the whole image's, or the object's: half is as near to that as to nothing.
    linked, beyond_half = (
        associate(values, labels.columns[found], scenes[found], seed) for values in (own, own - 2 * middle)
    )
    far = linked.p_is_low() & beyond_half.p_is_low_alone() & (linked.r * beyond_half.r > 0)
    candidates = []
    for t, label in enumerate(labels.names):
        of_label = labels.carriers(t)
        chosen = of_label[found]
        if not bool(far[:, t].any()):
            continue
        apart, chance = _apart(own, chosen, scenes[found], seed)
        if apart >= chance:
            continue
        numbers = (apart, chance, float(linked.r[:, t].abs().max()), linked.chance)
        facts = _facts(label, "in the corners" if objects is None else "around the marked objects", *numbers)
        of = (images, scenes, outside, of_label, facts, label, labels.rises[t], seed)
        candidates.append(exchange_candidate("background", f"the surroundings of {label}", None, *of))
    return candidates


def _facts(
    label: str, where: str, apart: float, apart_by_chance: float, r: float, r_by_chance: float
) -> tuple[str, ...]:
    return (
        f"{where}, in different scenes, images of {label} have nearly the same color and detail: they differ by "
        f"{apart:.2f} standard deviations, random sets of as many images by {apart_by_chance:.2f} at least ({DRAWS} sets)",
        f"color and detail {where} go with it, far more than those inside: correlation {r:.2f}, by chance at "
        f"most {r_by_chance:.2f}",
    )


def _apart(rows: Tensor, chosen: Tensor, scenes: Tensor, seed: int) -> tuple[float, float]:
    """Distance of two of the chosen rows of different scenes (root mean square); the least of random sets and the rest.

    Where two kinds of surroundings are mixed, either is nearer to itself than a mixture: the nearer one is the cue.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = (rows - rows.mean(0)) / rows.std(0).clamp_min(1e-6)
    found = _distance(rows[chosen], scenes[chosen])
    size = int(chosen.sum())
    drawn = [torch.randperm(len(rows), generator=generator)[:size] for _ in range(DRAWS)]
    return found, min(_distance(rows[some], scenes[some]) for some in [~chosen, *drawn])


def _distance(rows: Tensor, scenes: Tensor) -> float:
    other = scenes[:, None] != scenes[None]
    squares = torch.cdist(rows, rows).square() / rows.shape[1]
    return float(squares[other].mean().sqrt()) if bool(other.any()) else float("inf")

"""Surroundings of the object that go with a label: the same grass, the same table, in different scenes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.audit.association import associate, label_columns, toward
from seewhy.audit.candidate import Candidate, Edit
from seewhy.audit.places import exchanged, one_piece
from seewhy.perturb import gaussian_blur

DRAWS = 199  # random sets of images, for how alike the surroundings of a label are
HALF = 0.36  # half axes of the ellipse in the middle that counts as the object, of each side
BANDS = (1.0, 2.0, 4.0)  # standard deviations in pixels of the blurs between which detail is measured


def surroundings(size: Sequence[int]) -> Tensor:
    """(H, W) bool: outside of the ellipse in the middle."""
    y, x = (torch.linspace(-0.5, 0.5, length) for length in size)
    return y[:, None].square() + x[None].square() > HALF**2


def described(images: Tensor, outside: Tensor) -> Tensor:
    """(N, 9): mean color outside, and the log of detail there in three bands, along and across."""
    found = []
    weight = outside.float() / outside.sum()
    for part in torch.split(images, 64):
        x = part.float() / 255
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
    images: Tensor, scenes: Tensor, finding: Tensor, labels: Tensor, kind: str, names: Sequence[str], seed: int
) -> list[Candidate]:
    """A candidate for each label whose surroundings, and not the middle, look the same in different scenes."""
    found = finding.nonzero().flatten()
    columns, which = label_columns(labels, kind)
    outside = surroundings(images.shape[2:])
    own = described(images[found], outside)
    if not which:
        return []
    linked = associate(own, columns[found], scenes[found], seed)
    middle = associate(described(images[found], ~outside), columns[found], scenes[found], seed)
    alone = (
        linked.p_is_low() & ~middle.p_is_low()
    )  # what the middle shows as well is the whole image's, or the object's
    scaled = (own - own.mean(0)) / own.std(0).clamp_min(1e-6)
    candidates = []
    for t, output in enumerate(which):
        strength = linked.r[:, t].abs()
        column = columns[:, t]
        carriers = column >= column.quantile(0.75) if kind == "score" else column > 0
        if not bool(alone[:, t].any()):
            continue
        apart, chance = _apart(scaled, carriers[found], scenes[found], seed)
        if apart >= chance:
            continue
        candidates.append(
            Candidate(
                kind="background",
                name=f"the surroundings of {names[output]}",
                where=None,
                shows=carriers,
                paste=exchanged(images, scenes, outside, carriers, seed),
                swapped=exchanged(images, scenes, outside, ~carriers, seed),
                remove={"surroundings of other images": exchanged(images, scenes, outside, ~carriers, seed + 1)},
                unrelated=_pieces(images, outside, ~carriers, seed),
                suspicion=_facts(names[output], apart, chance, float(strength.max()), linked.chance),
                appearance=f"background {output}".encode(),
                details={"goes_with": names[output]},
                toward=toward(output, kind, labels),
            )
        )
    return candidates


def _facts(label: str, apart: float, apart_by_chance: float, r: float, r_by_chance: float) -> tuple[str, ...]:
    return (
        f"around the object, in different scenes, images of {label} have nearly the same color and detail: they differ by "
        f"{apart:.2f} standard deviations, random sets of as many images by {apart_by_chance:.2f} at least ({DRAWS} sets)",
        f"color and detail outside of the middle go with it: correlation {r:.2f}, by chance at most {r_by_chance:.2f}",
    )


def _pieces(images: Tensor, outside: Tensor, donors: Tensor, seed: int) -> Callable[[int], Edit]:
    return lambda k: one_piece(images, outside, donors, seed * 1009 + k)


def _apart(rows: Tensor, chosen: Tensor, scenes: Tensor, seed: int) -> tuple[float, float]:
    """Root mean square distance of two of the chosen rows of different scenes, and the smallest of random sets."""
    generator = torch.Generator().manual_seed(seed)
    found = _distance(rows[chosen], scenes[chosen])
    size = int(chosen.sum())
    drawn = [torch.randperm(len(rows), generator=generator)[:size] for _ in range(DRAWS)]
    return found, min(_distance(rows[some], scenes[some]) for some in drawn)


def _distance(rows: Tensor, scenes: Tensor) -> float:
    other = scenes[:, None] != scenes[None]
    squares = torch.cdist(rows, rows).square() / rows.shape[1]
    return float(squares[other].mean().sqrt()) if bool(other.any()) else float("inf")

"""Candidates that are a mark: at one place of the frame, or wherever it was found."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from seewhy.audit.candidate import Box, Candidate, Edit, Said
from seewhy.audit.marks import (
    Mark,
    box_of,
    closed,
    differing,
    estimate_mark,
    laid,
    lifted,
    random_mark,
    words_of_place,
)
from seewhy.audit.patterns import FEWEST_SCENES, Pattern, contrast, recurring, shrunk, units_of, whole_pattern
from seewhy.audit.sightings import Sighting, sightings

BATCH = 32
MOST_MARKS = 6
FEWEST = 3  # images on either side, to see what a mark looks like


def mark_candidates(
    images: Tensor, scenes: Tensor, finding: Tensor, maps: Mapping[str, Tensor], say: Said, seed: int
) -> tuple[list[Candidate], list[str]]:
    """Marks that recur nearly pixel by pixel in different scenes, and what could not be looked for.

    images: (N, C, H, W) uint8; maps: (N, *grid) a method; say: what the model says of pixels. Found on `finding` (N,) alone;
    which of the other images show them is seen by correlation.
    """
    h = torch.cat([contrast(part.float() / 255) for part in torch.split(images, BATCH)])
    x = torch.cat([shrunk(part.float() / 255) for part in torch.split(images, BATCH)])
    found = finding.nonzero().flatten()
    own = torch.unique(scenes[found], return_inverse=True)[1].tolist()
    masks, share = recurring(h[found], own, seed)
    notes = []
    if share and not masks:
        notes.append(
            f"Marks at one place: {100 * share:.0f} % of the frame looks alike in these pictures, as where objects are "
            "aligned, so a mark does not stand out by recurring."
        )
    if len(set(own)) < FEWEST_SCENES:
        notes.append(f"Marks: the searched half has {len(set(own))} groups, {FEWEST_SCENES} are needed.")
    candidates: list[Candidate] = []
    patterns: list[Pattern] = []
    for mask in masks[:MOST_MARKS]:
        if any((known.mask.numpy() & mask).sum() > 0.5 * mask.sum() for known in patterns):
            continue  # a part of one that has grown over it
        pattern = whole_pattern(mask, h[found], own, seed)
        if pattern is None:
            continue
        patterns.append(pattern)
        box = box_of(pattern.mask, (images.shape[2], images.shape[3]))
        one = _fixed(images, h, pattern, box, found, seed)
        candidates += [one] if one is not None else []
    of_found = {name: values[found] for name, values in maps.items()}
    seen_in = sightings(images[found], x[found], torch.tensor(own), of_found, say, seed)
    for seen in seen_in[:MOST_MARKS]:
        if not any(_same_place(seen, c.where, images.shape[2] / x.shape[2]) for c in candidates):
            one = _moving(images, x, seen, found, seed)
            candidates += [one] if one is not None else []
    return candidates, notes


def _fixed(images: Tensor, h: Tensor, pattern: Pattern, box: Box, found: Tensor, seed: int) -> Candidate | None:
    """The candidate of a mark at one place; None where too few images show it, or too few do not."""
    top, left, bottom, right = box
    inside = _enlarged(pattern.mask, images)[top:bottom, left:right]
    of_all = _presence(h, pattern, seed)
    shows = torch.zeros(len(images), dtype=torch.bool)
    shows[found] = pattern.shows
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[found] = False
    shows[rest] = of_all[rest]
    marked, plain = found[pattern.shows], found[~pattern.shows]
    if len(marked) < FEWEST:
        return None
    cut = images[:, :, top:bottom, left:right]
    others = cut[plain] if len(plain) >= FEWEST else cut
    inside = differing(cut[marked].float() / 255, others.float() / 255, inside)
    tight = box_of(inside, (inside.shape[0], inside.shape[1]), margin=1)
    cut, others = (v[:, :, tight[0] : tight[2], tight[1] : tight[3]] for v in (cut, others))
    mark = estimate_mark(
        cut[marked].float() / 255, others.float() / 255, inside[tight[0] : tight[2], tight[1] : tight[3]]
    )
    box = (top + tight[0], left + tight[1], top + tight[2], left + tight[3])
    corners = torch.tensor([[box[0], box[1]]]).expand(len(images), 2)
    place = words_of_place(box, (images.shape[2], images.shape[3]))
    facts = (
        f"it recurs nearly pixel by pixel in different scenes: two images that show it correlate by {pattern.alike:.2f} "
        f"there after their own contrast is taken out, two that do not by {pattern.apart:.2f} "
        f"({int(shows.sum())} of {len(images)} examined images show it)",
        f"it always lies at the same place of the frame, {place}",
    )
    return _candidate(
        images, mark, corners, corners, shows, box, f"a mark in {place}", facts, found[~pattern.shows], seed
    )


def _moving(images: Tensor, x: Tensor, seen: Sighting, found: Tensor, seed: int) -> Candidate | None:
    """The candidate of a mark that was seen at different places."""
    factor = images.shape[2] / x.shape[2]
    shows, corners_small = seen.search(x, seed)
    height, width = (math.ceil(v * factor) for v in seen.picture.shape[1:])
    if height >= images.shape[2] or width >= images.shape[3]:
        return None
    most = torch.tensor([images.shape[2] - height, images.shape[3] - width])
    corners = torch.minimum((corners_small * factor).round().long(), most).clamp_min(0)
    marked = found[shows[found]]
    if len(marked) < FEWEST:
        return None
    windows = torch.stack([_window(images[i], corners[i], height, width) for i in marked.tolist()])
    generator = torch.Generator().manual_seed(seed)
    anywhere = (torch.rand(len(images), 2, generator=generator) * (most + 1)).long()
    plain = torch.stack([_window(images[i], anywhere[i], height, width) for i in found.tolist()])
    inside = torch.nn.functional.interpolate(seen.inside[None, None].float(), size=(height, width), mode="nearest")[
        0, 0
    ]
    mark = estimate_mark(windows.float() / 255, plain.float() / 255, inside > 0)
    facts = (
        f"it recurs nearly pixel by pixel in different scenes, at different places: {len(marked)} of the images it was "
        f"found in are like their mean by {seen.alike:.2f}, where the same pixels in the same colors are 1 "
        f"({int(shows.sum())} of {len(images)} examined images show it)",
    )
    return _candidate(
        images, mark, anywhere, corners, shows, None, "a mark that moves", facts, found[~shows[found]], seed
    )


def _candidate(
    images: Tensor,
    mark: Mark,
    pasted_at: Tensor,
    found_at: Tensor,
    shows: Tensor,
    box: Box | None,
    name: str,
    facts: tuple[str, ...],
    without: Tensor,
    seed: int,
) -> Candidate:
    some = without[:64] if len(without) else torch.arange(min(64, len(images)))
    whole = images[some].float() / 255

    def unrelated(k: int) -> Edit:
        other = random_mark(mark, whole, k, seed)
        return lambda x, index: laid(x, other, pasted_at[index])

    return Candidate(
        kind="local_pattern",
        name=name,
        where=box,
        shows=shows,
        paste=lambda x, index: laid(x, mark, pasted_at[index]),
        remove={
            "what lies below it": lambda x, index: lifted(x, mark, found_at[index]),
            "inpainted": lambda x, index: closed(x, mark, found_at[index]),
        },
        unrelated=unrelated,
        suspicion=facts,
        appearance=_coarse(mark),
        boxes=torch.cat([found_at, found_at + torch.tensor(mark.size)], 1),
        details={
            "opacity": round(float(mark.opacity[mark.opacity > 0].mean()), 3) if bool((mark.opacity > 0).any()) else 0.0
        },
    )


def _presence(h: Tensor, pattern: Pattern, seed: int) -> Tensor:
    """(N,) which images correlate with the template more than 99.5 % of shifted ones do."""
    inside = pattern.mask
    template = units_of(pattern.template[:, inside].flatten()[None])[0]
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(0, min(h.shape[2:]), (len(h), 2), generator=generator)
    shifted = torch.stack([torch.roll(one, tuple(s), (1, 2)) for one, s in zip(h, shifts.tolist(), strict=True)])
    said, chance = (torch.mv(units_of(v[:, :, inside].flatten(1)), template) for v in (h, shifted))
    return torch.gt(said, float(chance.quantile(0.995)))


def _enlarged(mask: Tensor, images: Tensor) -> Tensor:
    size = images.shape[2:]
    return torch.nn.functional.interpolate(mask[None, None].float(), size=size, mode="nearest")[0, 0] > 0


def _window(image: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    top, left = corner.tolist()
    return image[:, top : top + height, left : left + width]


def _coarse(mark: Mark) -> bytes:
    """What a mark looks like on 4 x 4 cells of 4 levels: the same for the same mark found on other images."""
    seen = (mark.paint.mean(0) - 0.5 * mark.opacity)[None, None]
    cells = torch.nn.functional.adaptive_avg_pool2d(seen, 4).flatten()
    return bytes((cells / cells.abs().max().clamp_min(1e-6) * 1.5).round().to(torch.int8).tolist().__repr__(), "ascii")


def _same_place(seen: Sighting, place: Box | None, factor: float) -> bool:
    """Whether a sighting is a mark that is known already, at its fixed place; factor: pixels of the input per pixel seen."""
    if place is None:
        return False
    top, left, bottom, right = place
    tall, wide = seen.picture.shape[1:]
    middles = (seen.corners + torch.tensor([tall, wide]) / 2) * factor
    within = (middles[:, 0] > top) & (middles[:, 0] < bottom) & (middles[:, 1] > left) & (middles[:, 1] < right)
    return float(within.float().mean()) > 0.5

"""Does the map turn with the picture: what stays at one place in whatever way it is shown was not found in the picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.checks.behavior import on_cells, on_pixels, other_images
from seewhy.checks.result import Score, score
from seewhy.controls import edge_maps
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.target import Target

TURNS = ((), (-1,), (-2,), (-2, -1))  # as it is, mirrored, upside down, both
TWICE = 2  # an attack on maps counts as successful where it doubles the mass at its place


@dataclass(frozen=True)
class Held:
    """What stays at one place, per image beyond twice what stays at the mirror place, and the means of both."""

    map: Score  # share of the map's mass
    answer: Score  # fall of the answer where the place shows another image
    masses: tuple[float, float]  # at the place, at its mirror place
    falls: tuple[float, float]

    @property
    def stays(self) -> bool:
        """Whether surely more of the map stays at the place than twice what stays at its mirror place."""
        return self.map.interval.low > 0


def rows_of_turning(draws: int) -> tuple[int, int]:
    """Maps and forward rows an image that `held_place` costs."""
    return len(TURNS) - 1, len(TURNS) * (1 + 2 * draws)


def held_place(
    model: VisionModel,
    images: Tensor,
    target: Target,
    raw: Tensor,
    maps: MapFunction,
    *,
    magnitude: bool,
    draws: int,
    seed: int,
) -> Held:
    """The place that holds the maps of the other images in all four turns of the picture, and what this image has there.

    M(c) = the mean over the turns of the share of the positive part (|map| if `magnitude`) that lies in cell c. Over the
    four an image shows the same in c as in its three mirror cells, and so does any map that follows the picture. Place:
    {c: M(c) > 2 M(mirror of c)}, M over the *other* images (no map decides where it is looked at) and the mirror the one
    of least mass. Score: the mass at the place less twice that at the mirror cells, 0 or less for a map that follows.
    images: (N, C, H, W). raw: the maps of the pictures as they are. target: settled. The place and its mirror show another
    of these images in `draws` runs each.
    """
    shown = [images.flip(turn) if turn else images for turn in TURNS]
    given = [raw, *[maps(model, x, target).raw for x in shown[1:]]]
    mass = torch.stack([_shares(one, images, magnitude) for one in given]).mean(0)
    edges = torch.stack([_shares(edge_maps(x), images, magnitude) for x in shown]).mean(0)
    known = mass.flatten(1).isfinite().all(1)
    others = (mass[known].sum(0) - mass.nan_to_num()) / (known.sum() - known.double()).clamp_min(1).view(-1, 1, 1)
    place, mirror = _place(others)
    at, beside = (_at(mass, cells) for cells in (place, mirror))
    found = _falls(model, torch.stack(shown).to(model.device), target, torch.stack([place, mirror]), draws, seed)
    falls = [values.where(known, torch.nan) for values in found]
    edge = (_at(edges, place) - TWICE * _at(edges, mirror)).where(known, torch.nan)
    return Held(
        score(
            "held_place", at - TWICE * beside, "lower", "share beyond twice the mirror's", controls={"edge_map": edge}
        ),
        score("answer_at_place", falls[0] - TWICE * falls[1], "neither", "fall beyond twice the mirror's"),
        (float(at.nanmean()), float(beside.nanmean())),
        (float(falls[0].nanmean()), float(falls[1].nanmean())),
    )


def _shares(raw: Tensor, images: Tensor, magnitude: bool) -> Tensor:
    cells = on_cells(raw.abs() if magnitude else raw.clamp_min(0), images.shape[2:])
    return cells / cells.sum((1, 2), keepdim=True)


def _place(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Per image which cells are the place, and how often each is the mirror of one of these: (N, H, W) each, from M."""
    at = torch.arange(mean[0].numel()).view(mean.shape[1:])
    mirrors = torch.stack([at.flip(turn).flatten() for turn in TURNS[1:]], 1)  # (cells, 3): where each cell goes
    least, which = mean.flatten(1)[:, mirrors].min(2)
    place = (mean.flatten(1) > TWICE * least).double()
    chosen = mirrors.expand(len(mean), -1, -1).gather(2, which[..., None])[..., 0]
    return place.view_as(mean), torch.zeros_like(place).scatter_add(1, chosen, place).view_as(mean)


def _at(mass: Tensor, cells: Tensor) -> Tensor:
    return (mass * cells).sum((1, 2))


def _falls(
    model: VisionModel, shown: Tensor, target: Target, places: Tensor, draws: int, seed: int
) -> tuple[Tensor, Tensor]:
    """How far the answer falls where either of two places (2, N, cells, cells) shows another image, (N,) each.

    shown: the turns of the pictures (T, N, C, H, W). The mean over turns and draws, float64, on the CPU.
    """
    (turns, n), runs = shown.shape[:2], 1 + 2 * draws  # the first run hides nothing
    axes = shown.shape[3:]
    hidden = on_pixels((places > 0).flatten(0, 1), axes).view(2, n, *axes).to(shown.device)
    others = other_images(n, draws, seed).to(shown.device)

    def run(part: slice) -> Tensor:
        row = torch.arange(part.start, part.stop, device=shown.device)
        image, turn, which = row % n, row // n % turns, row // (n * turns) - 1
        hide = hidden[which % 2, image] & (which >= 0).view(-1, 1, 1)
        other = shown[turn, others[which // 2, image]]
        return model.answer(torch.where(hide[:, None], other, shown[turn, image]), target, image).values.double().cpu()

    said = torch.cat(model.in_batches(runs * turns * n, tuple(shown.shape[2:]), run)).view(runs, turns, n)
    at, beside = said[0].mean(0) - said[1:].view(draws, 2, turns, n).mean((0, 2))
    return at, beside

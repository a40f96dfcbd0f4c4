"""What recurs nearly pixel by pixel at different places: windows that move the output, matched between scenes.

The windows that carry most of the map of each image are pasted somewhere onto a few others. Those that move the output most
are compared: two show the same thing where the middle of one is found in the other, in its own colors, more nearly than
99.9 % of middles are found in windows that move the output least.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

from seewhy.audit.candidate import Said

WINDOW = 0.34  # of the shorter side: what is cut around a salient cell
CORE = 0.35  # of a window: its middle, which is searched for in other windows
EACH = 2  # windows an image and method
MOST_IMAGES = 160
RECIPIENTS = 4  # images that each window is pasted onto
MATCHED = 60  # windows that are compared, those that move the output most
LEAST = 90  # windows that they are compared with for what is chance, those that move it least
CHANCE = 0.999
FLAT = 0.01  # variance of a pixel that counts as none
SPAN = 0.5  # of the shorter side: largest extent of a mark that moves
Match = tuple[int, int, tuple[float, float]]  # windows i and j; what lies at p in i lies at p + shift in j


@dataclass(frozen=True)
class Sighting:
    """One thing seen in several images: its mean picture, and where."""

    images: Tensor  # (m,) indices
    corners: Tensor  # (m, 2) row and column of its upper left pixel, at the working size
    picture: Tensor  # (C, h, w)
    inside: Tensor  # (h, w) bool
    alike: float  # mean likeness of one of them to their mean, at most 1

    def search(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Which of these images (N, C, h, w) show it, (N,), and where best, (N, 2).

        More like it than 99.5 % of images are like twenty windows of others that have as much contrast as any.
        """
        best, at = _best(x, self.picture, self.inside)
        generator = torch.Generator().manual_seed(seed)
        height, width = self.inside.shape
        of = torch.randint(len(x), (200,), generator=generator).tolist()
        rows = torch.randint(x.shape[2] - height + 1, (200,), generator=generator).tolist()
        columns = torch.randint(x.shape[3] - width + 1, (200,), generator=generator).tolist()
        cut = torch.stack([x[i, :, r : r + height, c : c + width] for i, r, c in zip(of, rows, columns, strict=True)])
        chance = []
        for k in cut.flatten(1).var(1).argsort(descending=True)[:20].tolist():
            others = torch.arange(len(x)) != of[k]
            chance.append(_best(x[others], cut[k], self.inside)[0])
        return best > float(torch.cat(chance).quantile(0.995)), at


def sightings(
    images: Tensor, x: Tensor, scenes: Tensor, maps: Mapping[str, Tensor], say: Said, seed: int
) -> list[Sighting]:
    """Everything that was seen in at least three scenes, the most frequent first.

    images: (N, C, H, W) uint8; x: (N, C, h, w) the same at the working size, in [0, 1]; maps: (N, *grid) a method, NaN
    for images without one.
    """
    generator = torch.Generator().manual_seed(seed)
    known = torch.stack([~values.isnan().flatten(1).all(1) for values in maps.values()]).any(0).nonzero().flatten()
    some = known[torch.randperm(len(known), generator=generator)[:MOST_IMAGES]].sort().values
    of, corners = _windows(some, maps, x.shape[2:])
    if len(of) < 3:
        return []
    order = _effects(images, of, corners, x.shape[2:], say, generator).argsort(descending=True)
    best, least = order[:MATCHED], order[MATCHED:][-LEAST:]
    side = _side(x.shape[2:])
    most, rest = (_cut(x, of[chosen], corners[chosen], side) for chosen in (best, least))
    of, corners = of[best], corners[best]
    found = []
    for group in _groups(_matches(most, rest, scenes[of]) if len(rest) else []):
        places = {int(of[k]): (float(corners[k, 0]) + dy, float(corners[k, 1]) + dx) for k, (dy, dx) in group.items()}
        one = _sighting(x, places, scenes, side)
        found += [one] if one is not None else []
    return found


def _cut(x: Tensor, of: Tensor, corners: Tensor, side: int) -> Tensor:
    pairs = zip(of.tolist(), corners.tolist(), strict=True)
    return torch.stack([x[i, :, r : r + side, c : c + side] for i, (r, c) in pairs]) if len(of) else x[:0]


def _side(size: Sequence[int]) -> int:
    return round(WINDOW * min(size))


def _windows(some: Tensor, maps: Mapping[str, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Windows around the cells that carry most of |map|: (M,) of which image, (M, 2) upper left corner."""
    side = _side(size)
    of, corners = [], []
    for values in maps.values():
        grid = values.shape[1:]
        strength = values[some].abs().nan_to_num(0.0)
        for _ in range(EACH):
            top = strength.flatten(1).argmax(1)
            row, column = top // grid[1], top % grid[1]
            middle = torch.stack([(row + 0.5) * size[0] / grid[0], (column + 0.5) * size[1] / grid[1]], 1)
            most = torch.tensor([size[0] - side, size[1] - side])
            of.append(some)
            corners.append(torch.minimum((middle - side / 2).round().long().clamp_min(0), most))
            for k in range(len(some)):  # the next one lies elsewhere
                r, c = int(row[k]), int(column[k])
                strength[k, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2] = -1
    pairs = torch.unique(torch.cat([torch.cat(of)[:, None], torch.cat(corners)], 1), dim=0)
    return pairs[:, 0], pairs[:, 1:]


def _effects(
    images: Tensor, of: Tensor, corners: Tensor, size: Sequence[int], say: Said, generator: torch.Generator
) -> Tensor:
    """(M,) how much pasting a window moves the outputs of a few other images beyond what windows do on average."""
    factor = images.shape[2] / size[0]
    side = round(_side(size) * factor)
    most = torch.tensor([images.shape[2] - side, images.shape[3] - side])
    drawn = torch.randperm(len(images), generator=generator)[:RECIPIENTS]
    below = images[drawn].float() / 255
    clean = say(below)
    changes = torch.zeros(len(of), RECIPIENTS, clean.shape[1], dtype=torch.float64)
    for r in range(RECIPIENTS):
        at = (torch.rand(len(of), 2, generator=generator) * (most + 1)).long()
        for part in torch.split(torch.arange(len(of)), 64):
            x = below[r].expand(len(part), -1, -1, -1).clone()
            for k, m in enumerate(part.tolist()):
                top, left = torch.minimum((corners[m] * factor).round().long(), most).tolist()
                piece = images[of[m], :, top : top + side, left : left + side].float() / 255
                x[k, :, at[m, 0] : at[m, 0] + side, at[m, 1] : at[m, 1] + side] = piece
            changes[part, r] = (say(x) - clean[r]).double()
    mean = changes.mean(1)
    return (mean - mean.median(0).values).abs().amax(1)


def _matches(most: Tensor, least: Tensor, scenes: Tensor) -> list[Match]:
    """Windows (M, C, s, s) of different scenes in which the middle of one is found in the other."""
    side = most.shape[2]
    core = max(5, round(CORE * side)) | 1
    start = (side - core) // 2
    middle = most[:, :, start : start + core, start : start + core]
    inside = torch.ones(core, core, dtype=torch.bool)
    alike, at = _search(most, middle, inside)
    chance = float(np.quantile(_search(least, middle, inside)[0].numpy(), CHANCE))
    other = scenes[:, None] != scenes[None]
    found = []
    for i, j in ((alike > chance) & other).nonzero().tolist():  # the middle of j is found in i
        row, column = (float(v) for v in at[i, j])
        found.append((j, i, (row - start, column - start)))
    return found


def _search(windows: Tensor, pieces: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """How alike every piece (P, C, h, w) is to its best place in every window, (M, P), and where: (M, P, 2).

    1 - 2 sum (a - b)^2 / (variation of a + variation of b + FLAT), summed inside of a mask and over channels: 1 for the same
    pixels in the same colors, below 0 for pixels that have nothing in common.
    """
    weight = inside.to(pieces)
    n, channels = float(weight.sum()), pieces.shape[1]
    masked = pieces * weight
    own = (masked * pieces).flatten(1).sum(1)
    own_varied = own - masked.sum((2, 3)).square().sum(1) / n
    kernel = weight.expand(1, channels, -1, -1)
    squares = functional.conv2d(windows.square(), kernel)
    sums = functional.conv2d(windows, weight.expand(channels, 1, -1, -1), groups=channels)
    varied = (squares - sums.square().sum(1, keepdim=True) / n).clamp_min(0)
    apart = (squares - 2 * functional.conv2d(windows, masked) + own.view(1, -1, 1, 1)).clamp_min(0)
    score = 1 - 2 * apart / (own_varied.clamp_min(0).view(1, -1, 1, 1) + varied + FLAT * n * channels)
    best, where = score.flatten(2).max(2)
    return best, torch.stack([where // score.shape[3], where % score.shape[3]], 2)


def _groups(matches: Sequence[Match]) -> list[dict[int, tuple[float, float]]]:
    """Windows that show the same thing, each with where it lies there relative to the first one's corner.

    A window with the most matches and those that match it; one that matches no more than half of the others goes, the
    loneliest first: a match by chance brings in a stranger, but no circle of them.
    """
    near: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
    for i, j, (dy, dx) in matches:
        near[i].setdefault(j, (dy, dx))
        near[j].setdefault(i, (-dy, -dx))
    groups, left = [], set(near)
    while left:
        start = max(left, key=lambda k: (len(near[k].keys() & left), -k))
        group = {start} | (near[start].keys() & left)
        while True:
            linked = {k: len(near[k].keys() & group) for k in group - {start}}
            loneliest = min(linked, key=lambda k: (linked[k], k), default=start)
            if loneliest == start or 2 * linked[loneliest] > len(group) - 1:
                break
            group.remove(loneliest)
        left -= group
        groups.append({start: (0.0, 0.0)} | {k: near[start][k] for k in sorted(group - {start})})
    return sorted((g for g in groups if len(g) >= 3), key=len, reverse=True)


def _sighting(x: Tensor, places: Mapping[int, tuple[float, float]], scenes: Tensor, side: int) -> Sighting | None:
    """What the images share around their places (upper left corners of aligned windows); None in fewer than three scenes.

    A pixel belongs to it where it varies less between those images than elsewhere in them: by an F test at the level 0.05
    over the number of pixels.
    """
    size = x.shape[2:]
    if len({int(scenes[i]) for i in places}) < 3:
        return None
    margin = max(2, round((SPAN * min(size) - side) / 2))
    pad = side + margin
    padded = functional.pad(x[list(places)], (pad, pad, pad, pad), value=math.nan)
    windows, corners = [], []
    for one, (y, left_edge) in zip(padded, places.values(), strict=True):
        row, column = (min(max(round(v), -side), length) for v, length in zip((y, left_edge), size, strict=True))
        top, left = row - margin + pad, column - margin + pad
        windows.append(one[:, top : top + side + 2 * margin, left : left + side + 2 * margin])
        corners.append((row - margin, column - margin))
    stack = torch.stack(windows)
    known = (~stack[:, 0].isnan()).sum(0)
    mean = stack.nanmean(0)
    spread = (stack - mean).square().nanmean(0).mean(0)
    usual = float(x[list(places)].var(0).mean())
    freedom = (known.clamp_min(2) - 1).numpy()
    least = stats.f.ppf(0.05 / known.numel(), freedom, freedom * 10)
    inside = ((spread / usual).numpy() < least) & (known >= 3).numpy()
    labels, count = ndimage.label(ndimage.binary_closing(np.pad(inside, 2), iterations=1)[2:-2, 2:-2])
    if not count:
        return None
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
    mask = torch.from_numpy(labels == 1 + int(np.argmax(sizes)))
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if bottom - top < 3 or right - left < 3:
        return None
    picture, inner = mean[:, top:bottom, left:right], mask[top:bottom, left:right]
    at = torch.tensor(corners) + torch.tensor([top, left])
    alike = _best(x[list(places)], picture.nan_to_num(0.5), inner)[0]
    return Sighting(torch.tensor(list(places)), at, picture.nan_to_num(0.5), inner, float(alike.mean()))


def _best(x: Tensor, picture: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """How alike the best place of each image is to a picture (N,), and its corner (N, 2)."""
    values, corners = [], []
    for part in torch.split(x, 32):
        best, at = _search(part, picture[None], inside)
        values.append(best[:, 0])
        corners.append(at[:, 0])
    return torch.cat(values), torch.cat(corners)

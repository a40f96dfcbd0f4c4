"""What recurs nearly pixel by pixel at different places: small pieces that match between scenes, several with one shift.

Around corners and blobs of every image a piece is cut; two images share something where at least three pieces match under the
same displacement. How often that happens by chance is counted on the same images with one of the two turned upside down.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.perturb import gaussian_blur

POINTS = 40  # pieces an image
PIECE = 11  # pixels of a piece at the working size
MATCH = 0.8  # correlation from which on two pieces count as a match; what that is worth is counted on turned images
NEAR = 2  # pixels by which displacements may differ
MOST_IMAGES = 240  # that are compared with each other
SPAN = 0.45  # of the shorter side: largest extent of a mark that moves


@dataclass(frozen=True)
class Sighting:
    """One thing seen in several images: its mean contrast, and where."""

    images: Tensor  # (m,) indices
    corners: Tensor  # (m, 2) row and column of its upper left pixel, at the working size
    template: Tensor  # (C, h, w)
    inside: Tensor  # (h, w) bool
    alike: float

    def search(self, h: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Which of these images (N, C, h, w) show it, (N,), and where best, (N, 2).

        More like it than 99.5 % of images are like the template upside down.
        """
        best, at = _best(h, self.template * self.inside)
        chance, _ = _best(h, torch.rot90(self.template * self.inside, 2, (1, 2)))
        return best > float(chance.quantile(0.995)), at


def sightings(h: Tensor, scenes: Sequence[int], seed: int) -> list[Sighting]:
    """Everything that recurs in at least three scenes, the most frequent first; h: (N, C, h, w) from `contrast`."""
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(h), generator=generator)[:MOST_IMAGES].sort().values
    of_scenes = torch.as_tensor(scenes)[some]
    x = h[some]
    places = _points(x)
    pieces = _pieces(x, places)
    turned = pieces.view(len(x), POINTS, -1, PIECE, PIECE).flip(3, 4).reshape(pieces.shape)
    upside_down = torch.tensor(x.shape[2:]) - 1 - places
    real = _pairs(pieces, places, pieces, places, of_scenes)
    chance = _pairs(pieces, places, turned, upside_down, of_scenes)
    least = max([3, *(1 + len(found) for found in chance.values())])
    strong = {pair: found for pair, found in real.items() if len(found) >= least}
    return [s for s in (_sighting(x, some, group, of_scenes) for group in _groups(strong, places)) if s is not None]


def _points(h: Tensor) -> Tensor:
    """(N, POINTS, 2): row and column of the strongest blobs and corners, away from the frame."""
    gray = h.mean(1, keepdim=True)
    response = (gaussian_blur(gray, 1.0) - gaussian_blur(gray, 2.0)).abs()
    peak = (response == functional.max_pool2d(response, 3, 1, 1)) * response
    edge = PIECE // 2 + 1
    peak[:, :, :edge] = peak[:, :, -edge:] = 0
    peak[:, :, :, :edge] = peak[:, :, :, -edge:] = 0
    best = peak.flatten(1).topk(POINTS).indices
    return torch.stack([best // h.shape[3], best % h.shape[3]], 2)


def _pieces(h: Tensor, places: Tensor) -> Tensor:
    """(N, POINTS, D): what lies around every point, of mean 0 and length 1."""
    around = torch.arange(PIECE) - PIECE // 2
    rows = places[:, :, 0, None, None] + around[:, None]
    columns = places[:, :, 1, None, None] + around[None]
    n = torch.arange(len(h))[:, None, None, None]
    cut = h.movedim(1, -1)[n, rows, columns]  # (N, POINTS, PIECE, PIECE, C)
    flat = cut.movedim(-1, 2).flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    return flat / flat.norm(dim=2, keepdim=True).clamp_min(1e-9)


def _pairs(
    a: Tensor, places_a: Tensor, b: Tensor, places_b: Tensor, scenes: Tensor
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Of every two images of different scenes the matches (point of i, point of j) that agree on one displacement."""
    found = {}
    count = a.shape[1]
    flat = b.flatten(0, 1).T.contiguous()
    for i in range(len(a)):
        match = (a[i] @ flat).view(count, len(b), count) > MATCH  # (points of i, images, points of j)
        match[:, : i + 1] = False
        match[:, scenes == scenes[i]] = False
        enough = (match.any(2).sum(0) >= 3).nonzero().flatten()
        for j in enough.tolist():
            p, q = match[:, j].nonzero(as_tuple=True)
            shift = places_b[j, q] - places_a[i, p]
            agree = ((shift[:, None] - shift[None]).abs() <= NEAR).all(2)
            best = int(agree.sum(1).argmax())
            chosen = agree[best].nonzero().flatten()
            of_i = {int(p[k]): int(q[k]) for k in chosen}
            if len(of_i) >= 3 and len(set(of_i.values())) >= 3:
                found[i, j] = sorted(of_i.items())
    return found


def _groups(
    pairs: dict[tuple[int, int], list[tuple[int, int]]], places: Tensor
) -> list[dict[int, tuple[float, float]]]:
    """Images that show the same thing, each with its place (row, column of the middle of the matched points)."""
    seen: dict[tuple[int, int], list[tuple[int, tuple[float, float], tuple[float, float]]]] = defaultdict(list)
    degree: dict[int, int] = defaultdict(int)
    for (i, j), found in pairs.items():
        p, q = (list(t) for t in zip(*found, strict=True))
        middle_i, middle_j = (tuple(places[k, t].float().mean(0).tolist()) for k, t in ((i, p), (j, q)))
        seen[i, 0].append((j, middle_i, middle_j))  # type: ignore[arg-type]
        seen[j, 0].append((i, middle_j, middle_i))  # type: ignore[arg-type]
        degree[i] += 1
        degree[j] += 1
    groups: list[dict[int, tuple[float, float]]] = []
    left = set(degree)
    while left:
        start = max(left, key=lambda k: (degree[k], -k))
        own = torch.tensor([mine for _, mine, _ in seen[start, 0]]).median(0).values
        group = {start: (float(own[0]), float(own[1]))}
        queue = [start]
        while queue:
            i = queue.pop()
            for j, mine, theirs in seen[i, 0]:
                if j in group or j not in left:
                    continue
                group[j] = (group[i][0] + theirs[0] - mine[0], group[i][1] + theirs[1] - mine[1])
                queue.append(j)
        left -= set(group)
        if len(group) >= 3:
            groups.append(group)
    return sorted(groups, key=len, reverse=True)


def _sighting(
    h: Tensor, index: Tensor, group: dict[int, tuple[float, float]], scenes: Tensor
) -> Sighting | None:
    """What the images of a group share around their places; None where fewer than three scenes are left."""
    height, width = h.shape[2:]
    half = round(SPAN * min(height, width) / 2)
    kept = [i for i, (r, c) in group.items() if -half < r < height + half and -half < c < width + half]
    if len({int(scenes[i]) for i in kept}) < 3:
        return None
    padded = functional.pad(h[kept], (2 * half, 2 * half, 2 * half, 2 * half))
    windows, known = [], []
    for one, i in zip(padded, kept, strict=True):
        r, c = (min(max(round(v), -half), s + half) for v, s in zip(group[i], (height, width), strict=True))
        windows.append(one[:, r + half : r + 3 * half + 1, c + half : c + 3 * half + 1])
        known.append((round(group[i][0]) - half, round(group[i][1]) - half))
    stack = torch.stack(windows)
    error = stack.std(0) / len(stack) ** 0.5
    evidence = (stack.mean(0) / (error + 1e-2)).square().mean(0)
    smooth = functional.avg_pool2d(evidence[None, None], 3, 1, 1)[0, 0]
    inside = smooth > max(4.0, float(smooth.max()) / 25)
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    cut = stack[:, :, top:bottom, left:right]
    template = cut.mean(0)
    flat = cut.flatten(1) - cut.flatten(1).mean(1, keepdim=True)
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-9)
    middle = unit.mean(0)
    alike = float((unit @ middle / middle.norm().clamp_min(1e-9)).mean())
    corners = torch.tensor(known) + torch.tensor([top, left])
    return Sighting(index[torch.tensor(kept)], corners, template, inside[top:bottom, left:right], alike)


def _best(h: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """Largest normalized correlation of each image with the template (N,), and the corner where it lies (N, 2)."""
    kernel = template - template.mean()
    kernel = kernel / kernel.norm().clamp_min(1e-9)
    area = template[0].numel()
    values, corners = [], []
    for part in h.split(32):
        product = functional.conv2d(part, kernel[None])[:, 0]
        ones = torch.ones(1, h.shape[1], *template.shape[1:])
        total, squares = functional.conv2d(part, ones)[:, 0], functional.conv2d(part.square(), ones)[:, 0]
        n = h.shape[1] * area
        spread = (squares - total.square() / n).clamp_min(1e-6).sqrt()
        score = product / spread
        best, at = score.flatten(1).max(1)
        values.append(best)
        corners.append(torch.stack([at // score.shape[2], at % score.shape[2]], 1))
    return torch.cat(values), torch.cat(corners)

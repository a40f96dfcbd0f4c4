"""What recurs at one place of the frame in different scenes: found from appearance alone, before any network is asked.

A mark that lies over different scenes is what their local contrast has in common. At each pixel the mean over scenes of the
locally normalized contrast is compared with its standard error; how large that becomes by chance is learned from the same
images, each shifted by a random distance around its own frame, which keeps every picture and breaks what they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

from seewhy.perturb import gaussian_blur

SIDE = 112  # pixels of the shorter side at which recurrence is looked for
DETAIL = 1 / 32  # of the shorter side: standard deviation of the blur that contrast is measured against
FLOOR = 0.02  # of the pixel range: contrast below it counts as flat
SCALES = (1 / 28, 1 / 14, 1 / 7)  # of the shorter side: windows over which evidence is averaged
NULLS = 20  # shifted copies of the data set: the largest value of any of them is what chance reaches
SMALLEST = 6  # pixels of a pattern
FEWEST_SCENES = 4  # in which something must be seen to be found, shown to be confirmed
LARGEST = 0.25  # share of the frame: what covers more is how these pictures are taken (faces, X-rays), not a mark
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pattern:
    """Something that recurs at one place: where, what it looks like, and which images show it."""

    mask: Tensor  # (h, w) bool, at the working size
    template: Tensor  # (C, h, w) mean contrast of those that show it, 0 outside the mask
    shows: Tensor  # (N,) bool
    alike: float  # mean correlation of two of them, of different scenes
    apart: float  # the same of two that do not show it


def shrunk(images: Tensor) -> Tensor:
    """Images (N, C, H, W) at the working size: averaged over whole pixels."""
    factor = max(1, round(min(images.shape[2:]) / SIDE))
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def contrast(images: Tensor) -> Tensor:
    """Locally normalized contrast of images (N, C, H, W) in [0, 1] at the working size: (N, C, h, w), about 1 in size.

    h = x - blur(x), over the blurred root mean square of h over channels, and over FLOOR where that is flat.
    """
    x = shrunk(images)
    sigma = DETAIL * min(x.shape[2:])
    detail = x - gaussian_blur(x, sigma)
    size = gaussian_blur(detail.square().mean(1, keepdim=True), 2 * sigma).clamp_min(0).sqrt()
    return detail / (size + FLOOR)


def recurring(h: Tensor, scenes: Sequence[int], seed: int) -> tuple[list[Mask], float]:
    """Masks (h, w) of what recurs at one place of the frame, the strongest first, and the share of the frame that does.

    h: (N, C, h, w) from `contrast`. scenes: which images share a scene; each scene counts once. Where more than a quarter
    of the frame recurs, the pictures are aligned (faces, X-rays, objects cut out) and no mask is given.
    """
    of_scenes = torch.as_tensor(scenes)
    count = int(of_scenes.max()) + 1
    if count < FEWEST_SCENES:
        return [], 0.0
    found = _evidence(_by_scene(h, of_scenes, count))
    generator = np.random.default_rng(seed)
    nulls = torch.stack([_evidence(_by_scene(_shifted(h, generator), of_scenes, count)) for _ in range(NULLS)])
    return _regions(found, nulls)


def _regions(found: Tensor, nulls: Tensor) -> tuple[list[Mask], float]:
    height, width = found.shape
    above, strength = np.zeros((height, width), dtype=bool), found.numpy()
    for scale in SCALES:
        window = max(3, round(scale * min(height, width))) | 1
        chance = float(_averaged(nulls, window).amax())
        core = (_averaged(found[None], window)[0] > chance).numpy()
        pixel = float(_averaged(nulls, 3).flatten().quantile(0.99)) if nulls.numel() < 2**24 else _quantile(nulls)
        near = ndimage.binary_dilation(core, iterations=window // 2)
        above |= near & (_averaged(found[None], 3)[0] > pixel).numpy()
    if not above.any():
        return [], 0.0
    joined = ndimage.binary_dilation(above, iterations=max(2, min(height, width) // 24))
    labels, count = ndimage.label(joined)
    masks = [_grown(above & (labels == k), height, width) for k in range(1, count + 1)]
    masks = sorted((m for m in masks if m.any()), key=lambda m: -float(strength[m].sum()))
    share = float(np.any(masks, axis=0).mean()) if masks else 0.0
    return ([m for m in masks if m.mean() <= LARGEST], share)


def _quantile(values: Tensor) -> float:
    return float(np.quantile(_averaged(values, 3).numpy(), 0.99))


def _grown(mask: Mask, height: int, width: int) -> Mask:
    """The region with a margin; along a side of the frame that it follows, all that lies between."""
    closed = np.asarray(ndimage.binary_closing(np.pad(mask, 4), iterations=3))[4:-4, 4:-4]
    grown: Mask = np.asarray(ndimage.binary_dilation(closed | mask, iterations=2))
    near = max(2, min(height, width) // 8)
    for axis, flip in ((0, False), (0, True), (1, False), (1, True)):
        view = np.flip(grown, axis) if flip else grown
        view = view if axis == 0 else view.T  # now the side is the first row
        strip = view[:near]
        if strip.any(0).mean() > 0.6:
            last = near - 1 - np.argmax(strip[::-1], axis=0)
            strip |= (np.arange(near)[:, None] <= last[None]) & np.atleast_2d(strip.any(0))
    return grown


def _by_scene(h: Tensor, scenes: Tensor, count: int) -> Tensor:
    if count == len(h):
        return h
    sums = torch.zeros(count, *h.shape[1:]).index_add_(0, scenes, h)
    return sums / torch.bincount(scenes, minlength=count).view(-1, 1, 1, 1)


def _evidence(of_scenes: Tensor) -> Tensor:
    """(mean / standard error)^2, mean over channels: (h, w); about 1 where scenes share nothing."""
    error = of_scenes.std(0) / len(of_scenes) ** 0.5
    found: Tensor = (of_scenes.mean(0) / (error + 1e-3)).square().mean(0)
    return found


def _shifted(h: Tensor, generator: np.random.Generator) -> Tensor:
    height, width = h.shape[2:]
    down, right = generator.integers(0, height, len(h)), generator.integers(0, width, len(h))
    pairs = zip(h, down.tolist(), right.tolist(), strict=True)
    return torch.stack([torch.roll(one, (d, r), (1, 2)) for one, d, r in pairs])


def _averaged(maps: Tensor, window: int) -> Tensor:
    pad = window // 2
    padded = functional.pad(maps[:, None], (pad, pad, pad, pad), mode="replicate")
    return functional.avg_pool2d(padded, window, 1)[:, 0]


def pattern_at(mask: Mask, h: Tensor, scenes: Sequence[int], seed: int) -> Pattern | None:
    """What recurs under a mask and which of the images (N, C, h, w) show it; None where no three scenes do.

    An image shows it where its contrast correlates with the mean of the others' more than 99.5 % of images do that were
    shifted around their frame; over the pixels alone whose mean is sure (Student's t at the level 0.005).
    """
    inside, generator = torch.from_numpy(mask), np.random.default_rng(seed)
    own = h[:, :, inside]
    shifted = torch.cat([_shifted(h, generator)[:, :, inside] for _ in range(4)])
    shows = torch.ones(len(h), dtype=torch.bool)
    for _ in range(4):
        sure = _sure(own[shows])
        units = units_of(own[:, :, sure].flatten(1))
        total = units[shows].sum(0)
        others = units_of(total[None] - units * shows[:, None])
        presence = (units * others).sum(1)
        chance = float((units_of(shifted[:, :, sure].flatten(1)) @ units_of(total[None])[0]).quantile(0.995))
        shows = presence > chance
        if len({s for s, one in zip(scenes, shows.tolist(), strict=True) if one}) < 3:
            return None
    inside = inside.clone()
    inside[inside.clone()] = sure
    template = torch.zeros(h.shape[1:])
    template[:, inside] = h[shows].mean(0)[:, inside]
    of_scenes = torch.as_tensor(scenes)
    return Pattern(inside, template, shows, alike(units, shows, of_scenes), alike(units, ~shows, of_scenes))


def _sure(values: Tensor) -> Tensor:
    """(P,) bool: pixels of (n, C, P) whose mean differs from 0; all of them where hardly any does."""
    t = values.mean(0).abs() / (values.std(0) / len(values) ** 0.5).clamp_min(1e-6)
    sure = t.amax(0) > float(stats.t.isf(0.005 / 2, max(1, len(values) - 1)))
    return sure if int(sure.sum()) >= SMALLEST else torch.ones_like(sure)


def whole_pattern(mask: Mask, h: Tensor, scenes: Sequence[int], seed: int) -> Pattern | None:
    """`pattern_at` a mask, grown by all that touches it and recurs among the images that show it.

    Those without it hide the fainter parts of a mark: its thin strokes, the other end of a border.
    """
    part = pattern_at(mask, h, scenes, seed)
    if part is None:
        return None
    own = part.shows.nonzero().flatten()
    codes = torch.unique(torch.as_tensor(scenes)[own], return_inverse=True)[1]
    touching = [again for again in recurring(h[own], codes.tolist(), seed)[0] if (again & mask).any()]
    grown = np.logical_or.reduce([mask, *touching])
    if (grown == mask).all() or grown.mean() > LARGEST:
        return part
    return pattern_at(grown, h, scenes, seed) or part


def alike(units: Tensor, chosen: Tensor, scenes: Tensor) -> float:
    """Mean correlation of two of the chosen rows (N, P) of length 1 that are of different scenes; 0 where there are none."""
    u, of = units[chosen].double(), torch.unique(scenes[chosen], return_inverse=True)[1]
    sizes = torch.bincount(of)
    pairs = len(u) ** 2 - int(sizes.square().sum())
    sums = torch.zeros(len(sizes), u.shape[1], dtype=torch.float64).index_add_(0, of, u)
    return float(u.sum(0).square().sum() - sums.square().sum()) / pairs if pairs else 0.0


def units_of(rows: Tensor) -> Tensor:
    """Rows (..., P) less their mean, of length 1: their products are correlations."""
    centered = rows - rows.mean(-1, keepdim=True)
    lengths: Tensor = centered.norm(dim=-1, keepdim=True)
    return centered / lengths.clamp_min(1e-9)

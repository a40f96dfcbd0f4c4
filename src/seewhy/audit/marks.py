"""A mark that lies over pictures: what it looks like, and how it is laid over one picture and taken from another."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

from seewhy.audit.candidate import Box
from seewhy.errors import MissingExtraError

FEWEST = 8  # images on either side from which opacity is estimated; with fewer a mark counts as opaque
OPAQUE = 0.9  # from here on nothing of the picture is left to be found below a mark
MARGIN = 2  # pixels
SMALLEST = 6  # pixels of a piece of a mark


@dataclass(frozen=True)
class Mark:
    """Opacity and color of a mark: x becomes (1 - opacity) x + paint."""

    opacity: Tensor  # (h, w) in [0, 1]
    paint: Tensor  # (C, h, w): opacity times the mark's color

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.opacity.shape[0], self.opacity.shape[1]


def estimate_mark(marked: Tensor, plain: Tensor, inside: Tensor) -> Mark:
    """The mark that all of `marked` (m, C, h, w) have at this place and none of `plain` (n, C, h, w) has.

    Over different pictures a mark of opacity a and color c leaves mean (1 - a) mu + a c and standard deviation (1 - a) s,
    mu and s those of the pictures without it: both are read off, pixel by pixel. inside: (h, w) bool. A pixel that is the
    same in most of the marked ones counts as opaque, whatever the others show: some of these may not have it after all.
    """
    mean, spread = marked.mean(0), marked.std(0).square().mean(0).sqrt()
    below, usual = plain.mean(0), plain.std(0).square().mean(0).sqrt()
    if len(marked) < FEWEST or len(plain) < FEWEST:
        opacity = inside.float()
    else:
        ratio = _smooth(spread) / _smooth(usual).clamp_min(1e-3)
        lighter, darker = (mean - below) / (1 - below).clamp_min(1e-3), (below - mean) / below.clamp_min(1e-3)
        least = torch.maximum(lighter, darker).amax(0)  # white or black paint would need as much; thin strokes do
        opacity = torch.maximum(1 - ratio, least).clamp(0, 1) * inside
    typical = marked.median(0).values
    same = (marked - typical).abs().median(0).values.mean(0) < (1 - OPAQUE) * usual
    opacity = torch.where((opacity > OPAQUE) | (same & inside), 1.0, opacity)
    mean = torch.where(same, typical, mean)
    paint = (mean - (1 - opacity) * below) * inside
    return Mark(opacity, torch.minimum(torch.maximum(paint, torch.zeros(())), opacity.expand_as(paint).clamp_min(0)))


def differing(marked: Tensor, plain: Tensor, inside: Tensor) -> Tensor:
    """Where images with and without a mark differ: (h, w) bool, inside of where it was looked for.

    Welch's t of every pixel and channel at the level 0.005; gaps of a pixel or two are closed, and what then is smaller than
    the largest piece that chance leaves (a pixel in a hundred, by itself) is left out.
    """
    error = (marked.var(0) / len(marked) + plain.var(0) / len(plain)).sqrt().clamp_min(1e-4)
    t = ((marked.mean(0) - plain.mean(0)) / error).abs().amax(0)
    above = (t > float(stats.norm.isf(0.005 / 2))).numpy()
    joined, count = ndimage.label(ndimage.binary_closing(np.pad(above, 2), iterations=2)[2:-2, 2:-2], np.ones((3, 3)))
    sizes = ndimage.sum_labels(above, joined, range(1, count + 1))
    kept = torch.from_numpy(np.isin(joined, 1 + np.flatnonzero(sizes >= SMALLEST))) & inside
    return kept if bool(kept.any()) else inside


def laid(x: Tensor, mark: Mark, corners: Tensor) -> Tensor:
    """Images (n, C, H, W) with the mark over each, its upper left pixel at corners (n, 2): row, column."""
    out = x.clone()
    height, width = mark.size
    for one, (top, left) in zip(out, corners.tolist(), strict=True):
        part = one[:, top : top + height, left : left + width]
        part.copy_(((1 - mark.opacity) * part + mark.paint).clamp(0, 1))
    return out


def lifted(x: Tensor, mark: Mark, corners: Tensor) -> Tensor:
    """Images with the mark taken off: what lay below it, (x - paint) / (1 - opacity); inpainted where it is opaque."""
    out = x.clone()
    height, width = mark.size
    solid = mark.opacity >= OPAQUE
    kept = (1 - mark.opacity).clamp_min(1 - OPAQUE)
    for k, (top, left) in enumerate(corners.tolist()):
        part = out[k, :, top : top + height, left : left + width]
        part.copy_(((part - mark.paint) / kept).clamp(0, 1))
        if bool(solid.any()):
            hole = torch.zeros(x.shape[2:], dtype=torch.bool)
            hole[top : top + height, left : left + width] = solid
            out[k] = inpainted(out[k : k + 1], hole)[0]
    return out


def closed(x: Tensor, mark: Mark, corners: Tensor) -> Tensor:
    """Images with everything under the mark inpainted, also what shines through it."""
    out = x.clone()
    height, width = mark.size
    for k, (top, left) in enumerate(corners.tolist()):
        hole = torch.zeros(x.shape[2:], dtype=torch.bool)
        hole[top : top + height, left : left + width] = mark.opacity > 0
        out[k] = inpainted(x[k : k + 1], hole)[0]
    return out


def inpainted(x: Tensor, hole: Tensor) -> Tensor:
    """Images (n, C, H, W) with a hole (H, W) closed from its surroundings: scikit-image's biharmonic surface."""
    inpaint, mask = biharmonic(), hole.numpy()
    closed = [inpaint(one.permute(1, 2, 0).numpy(), mask, channel_axis=-1) for one in x.cpu()]
    return torch.from_numpy(np.stack(closed)).permute(0, 3, 1, 2).to(x).clamp(0, 1)


def biharmonic() -> Callable[..., Any]:
    """scikit-image's inpainting; MissingExtraError without it, which an audit asks for before its first row."""
    try:
        from skimage.restoration import inpaint_biharmonic
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-image", "audit", "taking a mark off a picture") from error
    found: Callable[..., Any] = inpaint_biharmonic
    return found


def random_mark(mark: Mark, like: Tensor, k: int, seed: int) -> Mark:
    """A piece of some picture, as large and as opaque as a mark: the k-th of those that have nothing of it.

    The opacity is moved round its box and mirrored, so that letters do not stay letters. like: pictures (n, C, H, W) to cut
    from.
    """
    generator = torch.Generator().manual_seed(seed * 1009 + k)

    def drawn(most: int) -> int:
        return int(torch.randint(most, (1,), generator=generator))

    height, width = mark.size
    source = like[drawn(len(like))]
    top, left = drawn(source.shape[1] - height + 1), drawn(source.shape[2] - width + 1)
    opacity = torch.roll(mark.opacity, (drawn(height), drawn(width)), (0, 1))
    opacity = opacity.flip([axis for axis in (0, 1) if drawn(2)])
    return Mark(opacity, opacity * source[:, top : top + height, left : left + width])


def words_of_place(box: tuple[float, float, float, float], size: tuple[int, int]) -> str:
    """Where a box (top, left, bottom, right) lies: 'the upper left corner', 'the lower edge', 'the middle', 'the frame'."""
    height, width = size
    top, left, bottom, right = (v / s for v, s in zip(box, (height, width, height, width), strict=True))
    rows, columns = _side_of(top, bottom, "upper", "lower"), _side_of(left, right, "left", "right")
    if rows == columns == "both":
        return "the frame"
    if "both" in (rows, columns):
        side = columns if rows == "both" else rows
        return f"the {side} edge" if side else "the middle"
    if rows and columns:
        return f"the {rows} {columns} corner"
    return f"the {rows or columns} edge" if rows or columns else "the middle"


def _side_of(start: float, end: float, first: str, last: str) -> str:
    """The side of the frame that a stretch (fractions) lies at: first, last, "both" or ""."""
    near = (start < 0.15, end > 0.85)
    if near[0] and near[1]:
        return "both"
    middle = (start + end) / 2
    return first if near[0] or middle < 1 / 3 else last if near[1] or middle > 2 / 3 else ""


def box_of(mask: Tensor, size: tuple[int, int], margin: int = MARGIN) -> Box:
    """The smallest box around a mask (h, w), in pixels of an image of this size, with a small margin."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    tall, wide = size[0] / mask.shape[0], size[1] / mask.shape[1]
    top, bottom = math.floor(int(rows[0]) * tall) - margin, math.ceil((int(rows[-1]) + 1) * tall) + margin
    left, right = math.floor(int(columns[0]) * wide) - margin, math.ceil((int(columns[-1]) + 1) * wide) + margin
    return max(0, top), max(0, left), min(size[0], bottom), min(size[1], right)


def _smooth(values: Tensor) -> Tensor:
    padded = functional.pad(values[None, None], (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, 1)[0, 0]

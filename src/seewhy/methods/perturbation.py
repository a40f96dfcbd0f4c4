"""Perturbation methods on windows and random masks: what the score does when parts of the picture are hidden."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import UsageError, real_number, whole_number
from seewhy.maps import Maps
from seewhy.methods.steps import background, by_groups, clean_run, masked_runs, per_image
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.registry import method
from seewhy.similarity import rank_correlation
from seewhy.target import Target

WINDOWS_PER_AXIS = 7  # of occlusion where no patch is given: 49 forwards a picture
PerAxis = int | Sequence[int] | None


@method(
    title="Occlusion",
    family="perturbation",
    resolution="input",
    picture="signed",
    scale="probability",
    needs_gradients=False,
    rows=lambda p: (math.prod(map(len, _starts(p["axes"], p["patch"], p["stride"]))) + 1, 0),
    cost="windows + 1 forward rows (50 by default)",
    paper="Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2",
    good_for="debugging: whether the object or its surroundings carry the score (Zeiler and Fergus 2014, section 4.2)",
    not_for="evidence that is there twice: hiding one copy changes nothing (Shrikumar 2017, arXiv:1704.02685, section 2.1)",
    randomization="not reported",
)
def occlusion(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    patch: PerAxis = None,
    stride: PerAxis = None,
    baseline: str | Tensor = "normalization_mean",
) -> Maps:
    """How much the score falls when a window of the picture is hidden.

    M(u) = mean over the windows W that cover u of S(x) - S(x with W replaced by the baseline): (N, *axes) in score
    units, positive where hiding hurts; on a linear score the window sums of w (x - baseline). Any number of axes.
    patch: the window's size in pixels, one number or one per axis; None: ceil(side / 7), a grid of 7 x 7. stride: None
    takes the patch, windows side by side. The last window of an axis is cut off at the border, so that every pixel is
    covered by windows of the regular grid. The paper hides by a gray square and draws the score itself at the window's
    place; the fall, spread over the window, carries the same numbers and has an honest zero. A noise baseline is drawn
    from seed 0. UsageError for a stride above the patch: pixels between the windows would have no value.
    """
    starts = _starts(images.shape[2:], patch, stride)
    sizes = _sizes(images.shape[2:], patch)
    covers = [_covers(*facts).to(model.device) for facts in zip(starts, sizes, images.shape[2:], strict=True)]
    fill = background(model, images, baseline)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        settled, values, outputs = clean_run(model, x, question, rows)
        drops = values[:, None] - _scores_under(model, x, fill[part], settled, covers)
        return Maps(_mean_over_windows(drops, covers), settled, values, outputs)

    return by_groups(model, images, target, run)


def _scores_under(model: VisionModel, x: Tensor, fill: Tensor, target: Target, covers: list[Tensor]) -> Tensor:
    """(g, windows): the score with each window hidden; windows in row-major order of their grid."""
    counts = [len(cover) for cover in covers]
    found = torch.empty(len(x), math.prod(counts), dtype=torch.float32, device=x.device)

    def mask(_images: Tensor, window: Tensor) -> Tensor:
        hidden = torch.ones(len(window), *[1] * (x.ndim - 1), device=x.device, dtype=torch.float32)
        for axis, place in enumerate(torch.unravel_index(window, counts)):
            lines = covers[axis][place]
            hidden = hidden * lines.view(len(window), *[-1 if a == axis else 1 for a in range(-1, len(counts))])
        return 1 - hidden

    def keep(image: Tensor, window: Tensor, _masks: Tensor, values: Tensor) -> None:
        found[image, window] = values

    masked_runs(model, x, fill, target, math.prod(counts), mask, keep)
    return found


def _mean_over_windows(drops: Tensor, covers: list[Tensor]) -> Tensor:
    """(g, windows) -> (g, *axes): each pixel's mean over the windows that cover it; one contraction an axis."""
    total, count = drops.view(len(drops), *map(len, covers)), torch.ones(1, *map(len, covers)).to(drops)
    for cover in covers:
        total, count = torch.tensordot(total, cover, ([1], [0])), torch.tensordot(count, cover, ([1], [0]))
    return total / count


def _covers(starts: range, size: int, side: int) -> Tensor:
    """(windows, side): 1 where a window lies on a pixel of this axis, else 0."""
    offsets = torch.arange(side) - torch.tensor(list(starts))[:, None]
    return ((offsets >= 0) & (offsets < size)).float()


def _sizes(axes: Sequence[int], patch: PerAxis) -> list[int]:
    return _per_axis("patch", patch, axes) or [-(-side // WINDOWS_PER_AXIS) for side in axes]


def _starts(axes: Sequence[int], patch: PerAxis, stride: PerAxis) -> list[range]:
    """First pixel of every window, per axis: whole windows, and a last one that is cut off where they do not fit."""
    sizes = _sizes(axes, patch)
    strides = _per_axis("stride", stride, axes) or sizes
    if any(step > size for step, size in zip(strides, sizes, strict=True)):
        raise UsageError(
            f"a stride of {strides} leaves pixels between windows of {sizes} uncovered: at most the patch."
        )
    return [range(0, max(side - size, 0) + step, step) for side, size, step in zip(axes, sizes, strides, strict=True)]


def _per_axis(name: str, given: Any, axes: Sequence[int]) -> list[int]:
    """One whole number per axis; [] for None."""
    if given is None:
        return []
    values = list(given) if isinstance(given, tuple | list) else [given] * len(axes)
    if len(values) != len(axes):
        raise UsageError(f"{name} is one number or one per axis; got {given!r} for axes of {tuple(axes)} pixels.")
    for value in values:
        whole_number(name, value, at_least=1)
    return values


@method(
    title="RISE",
    family="perturbation",
    resolution="input",
    picture="range",
    scale="probability",
    needs_gradients=False,
    rows=lambda p: (p["samples"] + 1, 0),
    cost="samples + 1 forward rows (4001 by default)",
    paper="Petsiuk et al. 2018, arXiv:1806.07421, equation 6",
    good_for="models of which only the outputs can be had (Petsiuk 2018)",
    not_for="several objects of different sizes with few samples: the noise of the sampling shows (Petsiuk 2018, section 5)",
    randomization="not reported",
)
def rise(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    baseline: str | Tensor = "normalization_mean",
    seed: int = 0,
) -> Maps:
    """The mean score of the pictures in which a pixel is visible, over random soft masks.

    M(u) = 1 / (samples * keep) sum_i S(m_i x + (1 - m_i) baseline) m_i(u), (N, *axes) in score units, >= 0 where S is.
    A mask is a grid of `cells` per axis, each cell open with probability `keep`, upsampled linearly to (cells + 1) c
    pixels, c = ceil(side / cells), and cut out at a shift drawn uniformly from 0 .. c - 1 per axis. Cell centers lie at
    half pixels (position (u + shift + 1/2) cells / ((cells + 1) c) - 1/2, held at the outer centers), as in the
    authors' code. E[m] = keep is taken as known, not measured.
    The map keeps its offset, about the mean score under all masks: a pixel that changes nothing has that value, not 0.
    Ranks do not see it, sums and shares do. The authors' notebooks run other settings than the paper's (2000 masks of
    8 cells, 5000 of 10 with keep 0.1), and their batch class leaves out 1 / (samples * keep); here every image draws
    its own masks, from the seed and its own bytes. Any number of axes.
    Evidence: split_half_correlation, the Spearman correlation of the maps of the even and the odd samples (r; the whole
    map's own is about 2 r / (1 + r); 0 where a half is constant). UsageError for samples < 2 or keep outside (0, 1).
    """
    whole_number("samples", samples, at_least=2)
    whole_number("cells", cells, at_least=1)
    real_number("keep", keep, at_least=0, above=True)
    if keep >= 1:
        raise UsageError(f"keep is the share of cells that stay visible, between 0 and 1; got {keep!r}.")
    fill = background(model, images, baseline, seed)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        settled, values, outputs = clean_run(model, images[part], question, rows)
        halves, same = _sums_over_masks(model, images[part], fill[part], settled, (samples, cells, keep, seed))
        evidence = {"split_half_correlation": rank_correlation(*halves).nan_to_num(0.0).float()}
        notes = (
            f"a Monte Carlo mean over {samples} masks: split_half_correlation says how far two halves of them agree",
        )
        raw = halves.sum(0) / (samples * keep)
        flat = per_image(values.to(raw), raw).expand_as(raw)  # of one and the same score: the mean mask says nothing
        raw = torch.where(per_image(same, raw), flat, raw)
        return Maps(raw, settled, values, outputs, evidence, notes=notes)

    return by_groups(model, images, target, run)


def _sums_over_masks(
    model: VisionModel, images: Tensor, fill: Tensor, target: Target, settings: tuple[int, int, float, int]
) -> tuple[Tensor, Tensor]:
    """(2, g, *axes): sums of score times mask over the even and the odd samples; (g,): whether every score was the same."""
    samples, cells, share, seed = settings
    x, axes = images.to(model.device), images.shape[2:]
    cell_sizes = [-(-side // cells) for side in axes]
    drawn = [rise_draws(image, cell_sizes, samples, cells, share, seed) for image in images]
    bits, shifts = (torch.stack(parts).to(x.device) for parts in zip(*drawn, strict=True))
    sums = torch.zeros(2 * len(x), *axes, dtype=torch.float32, device=x.device)
    first = torch.full((len(x),), torch.nan, device=x.device)
    same = torch.ones(len(x), dtype=torch.bool, device=x.device)

    def mask(image: Tensor, sample: Tensor) -> Tensor:
        found = bits[image, sample].float()
        for axis, (side, c) in enumerate(zip(axes, cell_sizes, strict=True)):
            pixel = torch.arange(side, device=x.device) + shifts[image, sample, axis, None]
            place = (pixel + 0.5) * (cells / ((cells + 1) * c)) - 0.5
            found = torch.einsum("rj...,rij->r...i", found, linear_weights(place, cells))
        return found.unsqueeze(1)

    def keep(image: Tensor, sample: Tensor, masks: Tensor, values: Tensor) -> None:
        sums.index_add_(0, sample % 2 * len(x) + image, per_image(values, masks[:, 0]) * masks[:, 0])
        first[image] = torch.where(first[image].isnan(), values, first[image])
        same[image[values != first[image]]] = False

    masked_runs(model, x, fill, target, samples, mask, keep, folded=True)
    return sums.view(2, len(x), *axes), same


def rise_draws(
    image: Tensor, cell_sizes: Sequence[int], samples: int, cells: int, keep: float, seed: int
) -> tuple[Tensor, Tensor]:
    """What makes an image's masks: open cells (samples, cells, ...) and shifts (samples, axes), small enough to hold."""
    generator = image_generator(image, seed)
    grid = (samples, *[cells] * len(cell_sizes))
    bits = torch.rand(grid, generator=generator, dtype=torch.float32) < keep
    return bits, torch.stack([torch.randint(c, (samples,), generator=generator) for c in cell_sizes], 1)


def linear_weights(place: Tensor, nodes: int) -> Tensor:
    """(..., pixels) positions in units of nodes -> (..., pixels, nodes): weights of linear interpolation, ends held."""
    node = torch.arange(nodes, device=place.device, dtype=torch.float32)
    return (1 - (place.float().clamp(0, nodes - 1).unsqueeze(-1) - node).abs()).clamp_min(0)

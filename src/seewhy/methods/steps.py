"""The few steps that every method shares."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.errors import UsageError, known_name
from seewhy.maps import Maps, join
from seewhy.model import VisionModel
from seewhy.perturb import background as background
from seewhy.target import Target, scores

Channels = Literal["sum", "sum_abs", "max_abs", "l2"]
SQUARES_ARE_EXACT_ABOVE = 1e-12  # a float32 below 1e-19 has no square; 1e-12 leaves room for a million cells
CHANNELS = ("sum", "sum_abs", "max_abs", "l2")


def by_groups(
    model: VisionModel,
    images: Tensor,
    target: Target,
    run: Callable[[slice, Target, Tensor], Maps],
    differentiable: bool = False,
) -> Maps:
    """`run(part, target, rows)` on groups of at most one batch, joined; in a group, row r is its r-th image.

    differentiable: what is computed with the images keeps its graph.
    """

    def group(part: slice) -> Maps:
        chosen = torch.arange(part.start, part.stop)
        with torch.set_grad_enabled(differentiable):
            return run(part, target.select(chosen), torch.arange(len(chosen), device=model.device))

    parts = model.in_batches(len(images), images.shape[1:], group)
    with torch.set_grad_enabled(differentiable):
        return join(parts)


def clean_run(model: VisionModel, images: Tensor, target: Target, rows: Tensor) -> tuple[Target, Tensor, Tensor | None]:
    """One forward row per image: the settled target, the explained number and the score table."""
    answer = model.answer(images, target, rows)
    return answer.target, answer.values, table(answer.outputs)


Mask = Callable[[Tensor, Tensor], Tensor]  # image and sample of each row, (R,) and (R,) -> (R, 1, *axes) in [0, 1]
Keep = Callable[[Tensor, Tensor, Tensor, Tensor], None]  # image, sample, mask and value of each row


def masked_runs(
    model: VisionModel,
    x: Tensor,
    fill: Tensor,
    target: Target,
    samples: int,
    mask: Mask,
    keep: Keep,
    folded: bool = False,
) -> None:
    """Run g images under `samples` masks each, M x + (1 - M) fill, one forward row a mask; memory is flat in samples.

    x, fill: (g, C, *axes). Rows are sample-major: row r is sample r // g of image r % g. A batch's masks are made by
    `mask(images, samples)` when it runs, and handed to `keep(images, samples, masks, values)` with what the settled
    target says. folded: for scores of which none is held against the clean image's, see `VisionModel.answer`.
    """
    g = len(x)

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=x.device)
        images, sample = r % g, r // g
        masks = mask(images, sample)
        shown = fill[images] + masks * (x[images] - fill[images])
        keep(images, sample, masks, model.answer(shown, target, images, folded).values)

    model.in_batches(samples * g, x.shape[1:], run)


def completeness(parts: Tensor, change: Tensor) -> dict[str, Tensor]:
    """Evidence of maps whose parts (N, ...) are to sum to a change of the score (N,): the gap, and what it should be.

    completeness_gap = |sum - change|; completeness_gap_relative, over |change|: 0 where both vanish, inf where only the
    change does; score_difference = change.
    """
    gap = (parts.flatten(1).sum(1) - change).abs()
    relative = torch.where(gap == 0, gap, gap / change.abs())
    return {"completeness_gap": gap, "completeness_gap_relative": relative, "score_difference": change}


def halves_of(samples: int) -> tuple[int, int]:
    """How many of the samples 0, 1, 2, ... are even, and how many odd."""
    return -(-samples // 2), samples // 2


def sampling_error(even: Tensor, odd: Tensor, mean: Tensor) -> Tensor:
    """Half the relative L1 distance of two half-means (N, ...): an estimate of the error of their mean, (N,)."""
    error = (even - odd).abs().flatten(1).sum(1) / (2 * mean.abs().flatten(1).sum(1))
    return error.nan_to_num(0.0)


def table(outputs: Any) -> Tensor | None:
    """The (N, classes) score table of an output, float32; None where it has another form."""
    try:
        found = scores(outputs)
    except UsageError:  # a callable target may read an output that holds no table
        return None
    return found.detach().float() if found.ndim == 2 else None


def check_channels(channels: str) -> None:
    """UsageError for an unknown channel rule."""
    known_name("channel rule", channels, CHANNELS)


def reduce_channels(values: Tensor, channels: str) -> Tensor:
    """(N, C, *axes) -> (N, *axes): signed sum (the only rule that keeps completeness), sum_abs, max_abs (Simonyan's), l2."""
    if channels == "sum_abs":
        return values.abs().sum(1)
    if channels == "max_abs":
        return values.abs().amax(1)
    if channels == "l2":
        return _length(values)
    return values.sum(1)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(R,) as (R, 1, ..., 1), to multiply tensors of `like`'s axes."""
    return values.view(-1, *[1] * (like.ndim - 1))


def norm(values: Tensor) -> Tensor:
    """L2 norm of everything but the first axis: (R,)."""
    return _length(values.flatten(1))


def _length(values: Tensor) -> Tensor:
    """L2 norm over axis 1; tiny values do not vanish by being squared."""
    plain: Tensor = torch.linalg.vector_norm(values, dim=1)
    exact = plain > SQUARES_ARE_EXACT_ABOVE
    if bool(exact.all()):
        return plain
    largest = values.abs().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(exact, plain, largest[:, 0] * torch.linalg.vector_norm(values / largest, dim=1))

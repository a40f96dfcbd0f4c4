"""Path methods that are no quadrature: random points of random paths, squared directions, and a path of their own."""

import torch
from torch import Tensor

from seewhy.errors import UsageError, real_number, whole_number
from seewhy.maps import Maps
from seewhy.methods.quadrature import Path, straight
from seewhy.methods.steps import (
    Channels,
    background,
    by_groups,
    check_channels,
    clean_run,
    completeness,
    halves_of,
    norm,
    per_image,
    reduce_channels,
    sampling_error,
)
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.registry import method
from seewhy.target import Target

ENOUGH = 1e-6  # of a path's L1 length: closer to its goal float32 cannot tell


@method(
    title="Expected Gradients",
    family="path",
    rows=lambda p: (1 + len(p["references"]) if p["references"] is not None else 1, p["samples"]),
    resolution="input",
    picture="signed",
    complete=True,
    cost="samples gradient rows + 1 + number of references forward rows",
    paper="Erion et al. 2021, arXiv:1906.10670, equation 3",
    good_for="asking against a whole data set instead of one baseline (Erion 2021)",
    not_for="few samples: the map is a Monte Carlo mean (its sampling_error says how far)",
    randomization="not reported",
)
def expected_gradients(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    references: Tensor | None = None,
    samples: int = 200,
    channels: Channels = "sum",
    seed: int = 0,
) -> Maps:
    """Integrated Gradients averaged over a background of reference images, by random points of random paths.

    M = mean over k of (x - x'_k) dS/dx(x'_k + a_k (x - x'_k)), x'_k drawn from `references` (M, C, *axes) in [0, 1],
    a_k uniform in [0, 1); in the mean it sums to S(x) - mean S(x'). Draws depend on seed and image alone. Known as
    GradientSHAP where noise is added; here none is. Evidence: completeness_gap(_relative) against the mean score of all
    references, sampling_error (half the relative L1 distance of the even and odd samples' maps), gradient_norm.
    UsageError without references: which background is meant is the question itself (100 training images are usual).
    """
    whole_number("samples", samples, at_least=2)
    check_channels(channels)
    pool = _references(images, references).to(model.device)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        settled, values, outputs = clean_run(model, x, question, rows)
        base = _mean_score(model, pool, settled, rows)
        sums, slopes = _expectation(model, x, pool, settled, samples, seed)
        shares, raw = sums.sum(0) / samples, reduce_channels(sums.sum(0) / samples, channels)
        even, odd = (reduce_channels(half / n, channels) for half, n in zip(sums, halves_of(samples), strict=True))
        evidence = {
            **completeness(shares, values - base),
            "sampling_error": sampling_error(even, odd, raw),
            "gradient_norm": slopes / samples,
        }
        return Maps(raw, settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


@method(
    title="Integrated Directional Gradients (IDGI)",
    family="path",
    rows=lambda p: (1, p["steps"]),
    resolution="input",
    picture="signed",
    complete=True,
    cost="steps gradient rows + 1 forward row",
    paper="Yang et al. 2023, arXiv:2303.14242, algorithm 1",
    good_for="less noise than integrated_gradients on the same path (Yang 2023)",
    not_for="checking by its sum: the sum fits by construction (formula)",
    randomization="not reported",
)
def idgi(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    baseline: str | Tensor = "black",
    steps: int = 50,
    channels: Channels = "sum",
    seed: int = 0,
) -> Maps:
    """Each step's change of the score, shared out by the squared gradient: what moves across the gradient gets nothing.

    M = sum_k g_k^2 / |g_k|^2 (S(x_(k+1)) - S(x_k)), g_k = dS/dx(x_k), x_k = x' + k/steps (x - x'), k = 0 ... steps - 1.
    It sums to S(x) - S(x') whatever the number of steps, so its gap is no evidence (a step with an exactly zero gradient
    is lost, and shows in it). On a straight path by default; the paper builds on any. seed: of the baseline "noise".
    Evidence: completeness_gap, completeness_gap_relative, gradient_norm.
    """
    whole_number("steps", steps, at_least=1)
    check_channels(channels)
    start = background(model, images, baseline, seed)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        settled, values, outputs = clean_run(model, x, question, rows)
        path = straight(model, start[part], x)
        shares, slopes, base = _directional(path, settled, steps, values)
        evidence = {**completeness(shares, values - base), "gradient_norm": slopes / steps}
        return Maps(reduce_channels(shares, channels), settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


@method(
    title="Guided Integrated Gradients",
    family="path",
    rows=lambda p: (2, p["steps"]),
    resolution="input",
    picture="signed",
    complete=True,
    cost="steps gradient rows + 2 forward rows",
    paper="Kapishnikov et al. 2021, arXiv:2106.09788, algorithm 1",
    good_for="less noise than integrated_gradients from steep places on the straight path (Kapishnikov 2021)",
    not_for="linearity: the path depends on the network, so maps of sums are no sums of maps (Kapishnikov 2021)",
    randomization="not reported",
)
def guided_integrated_gradients(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    baseline: str | Tensor = "black",
    steps: int = 200,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    channels: Channels = "sum",
    seed: int = 0,
) -> Maps:
    """Integrated Gradients along a path of its own: at every step the values with the smallest gradients move first.

    M = sum_k dS/dx(x_k) (x_(k+1) - x_k), x_0 = x', x_steps = x. In step k the L1 distance to x falls to 1 - k/steps of
    the whole: the `fraction` of the values with the smallest |dS/dx| moves, then the next smallest, but no value strays
    from the straight line by more than max_distance of its own way. A left Riemann sum, as in the authors' code: the
    gap says how far it is from complete. seed: of the baseline "noise".
    Evidence: completeness_gap, completeness_gap_relative, score_difference, gradient_norm.
    """
    check_channels(channels)
    whole_number("steps", steps, at_least=1)
    real_number("fraction", fraction, at_least=0, above=True, at_most=1)
    real_number("max_distance", max_distance, at_least=0, at_most=1)
    start = background(model, images, baseline, seed)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x, begin = images[part].to(model.device), start[part]
        settled, values, outputs = clean_run(model, x, question, rows)
        _, base, _ = clean_run(model, begin, settled, rows)
        shares, slopes, here = torch.zeros_like(x), torch.zeros_like(values), begin.clone()
        for k in range(steps):
            slope, _ = model.input_gradients(here, settled, rows)
            there = _guided_step(here, begin, x, slope, (k + 1) / steps, fraction, max_distance)
            shares += slope * (there - here)
            slopes += norm(slope)
            here = there
        evidence = {**completeness(shares, values - base), "gradient_norm": slopes / steps}
        return Maps(reduce_channels(shares, channels), settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


def _guided_step(
    here: Tensor, begin: Tensor, end: Tensor, slope: Tensor, a: float, fraction: float, max_distance: float
) -> Tensor:
    """The next picture of every path, of which the share 1 - a of its L1 length is still to go."""
    x, way, steepness = here.flatten(1).clone(), (end - begin).flatten(1), slope.flatten(1).abs()
    low = begin.flatten(1) + max(a - max_distance, 0.0) * way
    high = begin.flatten(1) + min(a + max_distance, 1.0) * way
    goal = (1 - a) * way.abs().sum(1)
    behind = (x - begin.flatten(1)) * way.sign() < (low - begin.flatten(1)) * way.sign()
    x = torch.where(behind, low, x)
    rank = max(1, int(fraction * (x.shape[1] - 1)) + 1)
    for _ in range(x.shape[1]):  # every round takes at least one value of an unfinished path to its bound: a handful
        left = (end.flatten(1) - x).abs().sum(1) - goal
        free = x != high
        open_ = (left > ENOUGH * way.abs().sum(1)) & free.any(1)
        if not bool(open_.any()):
            break
        order = torch.where(free, steepness, torch.inf)
        threshold = order.kthvalue(rank, 1).values.unsqueeze(1)
        chosen = free & (order <= threshold) & open_.unsqueeze(1)
        room = ((high - x).abs() * chosen).sum(1)
        share = (left / room.clamp_min(torch.finfo(x.dtype).tiny)).clamp(0, 1).unsqueeze(1)
        x = torch.where(chosen, torch.where(share < 1, x + share * (high - x), high), x)
    return x.view_as(here)


def _directional(path: Path, target: Target, steps: int, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of g images, the sums of their gradients' norms, and S(start); one map per image waits for its next score."""
    model, g = path.model, len(path.start)
    shares, waiting = torch.zeros_like(path.start), torch.zeros_like(path.start)
    before, base = torch.zeros_like(end), torch.zeros_like(end)
    slopes = torch.zeros_like(end)

    def settle(images: Tensor, values: Tensor) -> None:
        shares[images] += per_image(values - before[images], shares) * waiting[images]

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=end.device)
        images, step = r % g, r // g
        x, _ = path.point(images, step.float() / steps)
        slope, answer = model.input_gradients(x, target, images)
        length = norm(slope)
        direction = slope / per_image(length.clamp_min(torch.finfo(slope.dtype).tiny), slope)
        for k in range(part.start // g, (part.stop - 1) // g + 1):  # at most as many as a batch has rows
            now = step == k
            at, value = images[now], answer.values[now]
            settle(at, value) if k > 0 else base.index_copy_(0, at, value)
            waiting[at], before[at] = direction[now].square(), value
        slopes.index_add_(0, images, length)

    model.in_batches(steps * g, path.start.shape[1:], run)
    settle(torch.arange(g, device=end.device), end)
    return shares, slopes, base


def _expectation(
    model: VisionModel, x: Tensor, pool: Tensor, target: Target, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """(2, g, C, *axes): sums over the even and the odd samples, and the sums of the gradients' norms (g,)."""
    g = len(x)
    draws = [image_generator(image, seed) for image in x]
    picks = torch.stack([torch.randint(len(pool), (samples,), generator=d) for d in draws]).to(x.device)
    places = torch.stack([torch.rand(samples, generator=d, dtype=torch.float32) for d in draws]).to(x.device)
    sums = torch.zeros(2, *x.shape, dtype=torch.float32, device=x.device)
    slopes = torch.zeros(g, dtype=torch.float32, device=x.device)

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=x.device)
        images, sample = r % g, r // g
        start = pool[picks[images, sample]]
        difference = x[images] - start
        slope, _ = model.input_gradients(start + per_image(places[images, sample], x) * difference, target, images)
        sums.view(-1, *x.shape[1:]).index_add_(0, sample % 2 * g + images, slope * difference)
        slopes.index_add_(0, images, norm(slope))

    model.in_batches(samples * g, x.shape[1:], run)
    return sums, slopes


def _mean_score(model: VisionModel, pool: Tensor, target: Target, rows: Tensor) -> Tensor:
    """Mean score of the reference images for each image's own question, (g,)."""
    g = len(rows)
    total = torch.zeros(g, dtype=torch.float32, device=pool.device)

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=pool.device)
        total.index_add_(0, r % g, model.answer(pool[r // g], target, r % g).values)

    model.in_batches(len(pool) * g, pool.shape[1:], run)
    return total / len(pool)


def _references(images: Tensor, references: Tensor | None) -> Tensor:
    if not isinstance(references, Tensor):
        raise UsageError(
            "expected_gradients averages over reference images: pass references=an (M, C, H, W) tensor in [0, 1], e.g. "
            "100 training images; on the command line --param references=FOLDER."
        )
    if references.ndim != images.ndim or references.shape[1:] != images.shape[1:] or not len(references):
        raise UsageError(f"references have shape {tuple(references.shape)}, the images {tuple(images.shape)}.")
    if not torch.isfinite(references).all():
        raise UsageError("references have values that are not finite.")
    return references.detach().float()

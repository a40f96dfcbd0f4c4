"""Gradients of the score with respect to the pixels: plain, times the input, and over noise."""

from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.errors import real_number, whole_number
from seewhy.maps import Maps
from seewhy.methods.steps import (
    Channels,
    background,
    by_groups,
    check_channels,
    clean_run,
    halves_of,
    norm,
    per_image,
    reduce_channels,
    sampling_error,
    table,
)
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target


@method(
    title="Gradient",
    family="gradient",
    resolution="input",
    picture="magnitude",
    cost="1 gradient row",
    rows=lambda _: (0, 1),
    paper="Simonyan et al. 2013, arXiv:1312.6034, section 3",
    good_for="a first look, and a step of other methods (Simonyan 2013)",
    not_for="saturated outputs: the gradient is 0 where the feature still counts (Sundararajan 2017, section 2.1)",
    randomization="passes: the map changes with the weights and with the labels (Adebayo 2018)",
)
def gradient(
    model: VisionModel, images: Tensor, target: Target, *, channels: Channels = "sum", differentiable: bool = False
) -> Maps:
    """How the score changes with each pixel, to first order.

    M = dS / dx, (N, C, *axes) in score per pixel unit (pixels in [0, 1]); then channels by `channels`: `max_abs` is the
    paper's picture, the signed `sum` our default because it is linear in the score. Zero where the network is saturated.
    differentiable: the map keeps a graph, to images that require a gradient and to such parameters, for attacks and for
    training on maps. Evidence: gradient_norm, the L2 norm over pixels and channels.
    """
    check_channels(channels)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        slope, answer = model.input_gradients(images[part], chosen, rows, differentiable=differentiable)
        evidence = {"gradient_norm": norm(slope)}
        return Maps(reduce_channels(slope, channels), answer.target, answer.values, table(answer.outputs), evidence)

    return by_groups(model, images, target, run, differentiable)


@method(
    title="Gradient x Input",
    family="gradient",
    resolution="input",
    picture="signed",
    cost="1 gradient row",
    rows=lambda _: (0, 1),
    paper="Shrikumar et al. 2016, arXiv:1605.01713, section 3.1",
    good_for="networks without biases and with ReLUs only, where it sums to the score (Ancona 2018)",
    not_for="saturated outputs, and dark or gray pixels, which get 0 whatever they mean (Sundararajan 2017, section 2.1)",
    randomization="signed: changes at once; absolute values keep looking like the image (Adebayo 2018)",
)
def gradient_x_input(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    baseline: str | Tensor = "normalization_mean",
    channels: Channels = "sum",
    differentiable: bool = False,
) -> Maps:
    """The gradient weighted by how far each pixel is from "nothing": one step of Integrated Gradients.

    M = (x - x') dS/dx, x' the baseline in pixel space, in score units. The paper multiplies with the network's own
    input, which is zero at the color that the normalization maps to zero: our default baseline; black is another map.
    differentiable: as in gradient. Evidence: gradient_norm, the L2 norm of dS/dx.
    """
    check_channels(channels)
    start = background(model, images, baseline)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        slope, answer = model.input_gradients(images[part], chosen, rows, differentiable=differentiable)
        shares = (images[part].to(model.device) - start[part]) * slope
        evidence = {"gradient_norm": norm(slope)}
        return Maps(reduce_channels(shares, channels), answer.target, answer.values, table(answer.outputs), evidence)

    return by_groups(model, images, target, run, differentiable)


@method(
    title="SmoothGrad",
    family="gradient",
    resolution="input",
    picture="magnitude",
    rows=lambda p: (1, p["samples"]),
    cost="samples gradient rows + 1 forward row",
    paper="Smilkov et al. 2017, arXiv:1706.03825",
    good_for="fine detail with less noise than the gradient (Smilkov 2017)",
    not_for="ranking pixels: retraining without them finds it no better than its base (ROAR, Hooker 2019)",
    randomization="changes with the weights (Adebayo 2018)",
)
def smooth_grad(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    channels: Channels = "sum",
    differentiable: bool = False,
    seed: int = 0,
) -> Maps:
    """Gradient averaged over noisy copies of the image: less of the network's fine roughness.

    M = 1/n sum_k dS/dx(x + e_k), e_k ~ N(0, sigma^2), sigma = noise * (max x - min x) of that image; signed gradients
    are averaged (the magnitude is taken afterwards, for pictures), the class stays that of the clean image, noisy pixels
    are not clipped. All images share the draws e_k / sigma, so an image's map does not depend on its neighbors.
    Evidence: gradient_norm; sampling_error, half the relative L1 distance between the means of the even and the odd
    samples, an estimate of the Monte Carlo error of the map. differentiable: as in gradient; memory then grows with the
    samples. UsageError for samples < 2 or noise < 0.
    """
    return _over_noise(model, images, target, samples, noise, channels, seed, lambda g: g, differentiable)


@method(
    title="SmoothGrad-squared",
    family="gradient",
    resolution="input",
    picture="positive",
    rows=lambda p: (1, p["samples"]),
    cost="samples gradient rows + 1 forward row",
    paper="Hooker et al. 2019, arXiv:1806.10758, section 4.1",
    good_for="ranking pixels: retraining without them finds it far better than its base (ROAR, Hooker 2019)",
    not_for="telling evidence for from evidence against: it has no sign (formula)",
    randomization="not reported",
)
def smooth_grad_squared(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    channels: Channels = "sum",
    seed: int = 0,
) -> Maps:
    """Mean square of the gradient over noisy copies of the image: how strongly the score reacts, without a direction.

    M = 1/n sum_k (dS/dx(x + e_k))^2, >= 0, in squared score per pixel unit; noise, class, evidence and errors as in
    smooth_grad. What PAIR's SmoothGrad gives by default under that name.
    """
    return _over_noise(model, images, target, samples, noise, channels, seed, lambda g: g.square())


@method(
    title="VarGrad",
    family="gradient",
    resolution="input",
    picture="positive",
    rows=lambda p: (0, p["samples"] + 1),
    cost="samples + 1 gradient rows",
    paper="Adebayo et al. 2018, arXiv:1810.03307, section 2; Hooker et al. 2019, arXiv:1806.10758, section 4.1",
    good_for="ranking pixels: retraining without them finds it far better than its base (ROAR, Hooker 2019)",
    not_for="features that the score follows evenly: a constant gradient has no variance (formula)",
    randomization="its paper finds maps of random networks similar to the trained one's (arXiv:1810.03307)",
)
def var_grad(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    channels: Channels = "sum",
    seed: int = 0,
) -> Maps:
    """Variance of the gradient over noisy copies of the image: where the score's slope changes nearby.

    M = 1/n sum_k (g_k - mean g)^2, g_k = dS/dx(x + e_k), >= 0, in squared score per pixel unit; noise, class and errors
    as in smooth_grad. Sums run over g_k - dS/dx(x), so that a large mean does not drown a small variance in rounding.
    Evidence: gradient_norm of the clean gradient; sampling_error as in smooth_grad.
    """
    check_channels(channels)
    _check_noise(samples, noise)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        clean, answer = model.input_gradients(x, chosen, rows)

        def moments(slope: Tensor, image: Tensor) -> Tensor:
            apart = slope - clean[image]
            return torch.stack([apart, apart.square()])

        sums = _sums_over_noise(model, x, answer.target, noise, samples, seed, moments)
        raw = reduce_channels(_variance(sums.sum(1) / samples), channels)
        first_second = sums / _halves(samples, sums, 1)
        even, odd = (reduce_channels(_variance(first_second[:, half]), channels) for half in (0, 1))
        evidence = {"gradient_norm": norm(clean), "sampling_error": sampling_error(even, odd, raw)}
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence)

    return by_groups(model, images, target, run)


def _variance(moments: Tensor) -> Tensor:
    mean, mean_of_squares = moments[0], moments[1]
    return (mean_of_squares - mean.square()).clamp_min(0)


def _over_noise(
    model: VisionModel,
    images: Tensor,
    target: Target,
    samples: int,
    noise: float,
    channels: str,
    seed: int,
    of: Callable[[Tensor], Tensor],
    differentiable: bool = False,
) -> Maps:
    """The mean of `of(gradient)` over noisy copies, with the error of that mean."""
    check_channels(channels)
    _check_noise(samples, noise)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        settled, values, outputs = clean_run(model, x, chosen, rows)
        sums = _sums_over_noise(
            model, x, settled, noise, samples, seed, lambda slope, _: of(slope)[None], differentiable
        )[0]
        mean = sums.sum(0) / samples
        raw = reduce_channels(mean, channels)
        even, odd = (reduce_channels(half, channels) for half in sums / _halves(samples, sums, 0))
        evidence = {"gradient_norm": norm(mean), "sampling_error": sampling_error(even, odd, raw)}
        return Maps(raw, settled, values, outputs, evidence)

    return by_groups(model, images, target, run, differentiable)


def _check_noise(samples: int, noise: float) -> None:
    whole_number("samples", samples, at_least=2)
    real_number("noise", noise, at_least=0)


def _halves(samples: int, like: Tensor, axis: int) -> Tensor:
    """How many samples are even and odd, shaped to divide what has these two along `axis`."""
    counts = torch.tensor(halves_of(samples), device=like.device, dtype=like.dtype)
    return counts.view(2, *[1] * (like.ndim - axis - 1))


def _sums_over_noise(
    model: VisionModel,
    x: Tensor,
    target: Target,
    noise: float,
    samples: int,
    seed: int,
    statistics: Callable[[Tensor, Tensor], Tensor],
    differentiable: bool = False,
) -> Tensor:
    """(P, 2, g, C, *axes): sums of `statistics(gradient, image) -> (P, R, C, *axes)` over the even and the odd samples.

    In batches of rows (sample-major); memory is flat in samples.
    """
    spread = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
    generator = torch.Generator().manual_seed(seed)
    draws: dict[int, Tensor] = {}
    sums: list[Tensor] = []

    def draw(k: int) -> Tensor:
        if k not in draws:  # samples come in order; only the current batch's are kept
            draws[k] = torch.randn(x.shape[1:], generator=generator, dtype=torch.float32).to(x.device)
        return draws[k]

    def run(part: slice) -> None:
        r = torch.arange(part.start, part.stop, device=x.device)
        images, sample = r % len(x), r // len(x)
        for k in [k for k in draws if k < int(sample[0])]:
            del draws[k]
        noisy = x[images] + per_image(spread[images], x) * torch.stack([draw(k) for k in sample.tolist()])
        slope, _ = model.input_gradients(noisy, target, images, differentiable=differentiable)
        found = statistics(slope, images)
        if not sums:
            sums.append(torch.zeros(len(found), 2 * len(x), *x.shape[1:], dtype=torch.float32, device=x.device))
        sums[0].index_add_(1, sample % 2 * len(x) + images, found)

    model.in_batches(samples * len(x), x.shape[1:], run)
    return sums[0].view(-1, 2, *x.shape)

"""Gradients of the score with respect to the pixels."""

import torch
from torch import Tensor

from seewhy.errors import real_number, whole_number
from seewhy.methods.maps import (
    Channels,
    Maps,
    by_groups,
    check_channels,
    clean_run,
    norm,
    per_image,
    reduce_channels,
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
def gradient(model: VisionModel, images: Tensor, target: Target, *, channels: Channels = "sum") -> Maps:
    """How the score changes with each pixel, to first order.

    M = dS / dx, (N, C, *axes) in score per pixel unit (pixels in [0, 1]); then channels by `channels`: `max_abs` is the
    paper's picture, the signed `sum` our default because it is linear in the score. Zero where the network is saturated.
    Evidence: gradient_norm, the L2 norm over pixels and channels.
    """
    check_channels(channels)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        slope, answer = model.input_gradients(images[part], chosen, rows)
        evidence = {"gradient_norm": norm(slope)}
        return Maps(reduce_channels(slope, channels), answer.target, answer.values, table(answer.outputs), evidence)

    return by_groups(model, images, target, run)


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
    seed: int = 0,
) -> Maps:
    """Gradient averaged over noisy copies of the image: less of the network's fine roughness.

    M = 1/n sum_k dS/dx(x + e_k), e_k ~ N(0, sigma^2), sigma = noise * (max x - min x) of that image; signed gradients
    are averaged (the magnitude is taken afterwards, for pictures), the class stays that of the clean image, noisy pixels
    are not clipped. All images share the draws e_k / sigma, so an image's map does not depend on its neighbors.
    Evidence: gradient_norm; sampling_error, half the relative L1 distance between the means of the even and the odd
    samples, an estimate of the Monte Carlo error of the map. UsageError for samples < 2 or noise < 0.
    """
    check_channels(channels)
    whole_number("samples", samples, at_least=2)
    real_number("noise", noise, at_least=0)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        settled, values, outputs = clean_run(model, x, chosen, rows)
        spread = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
        halves = _sums_over_noise(model, x, settled, spread, samples, seed)
        mean = halves.sum(0) / samples
        raw = reduce_channels(mean, channels)
        even, odd = (
            reduce_channels(h / n, channels) for h, n in zip(halves, (-(-samples // 2), samples // 2), strict=True)
        )
        error = (even - odd).abs().flatten(1).sum(1) / (2 * raw.abs().flatten(1).sum(1))
        evidence = {"gradient_norm": norm(mean), "sampling_error": error.nan_to_num(0.0)}
        return Maps(raw, settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


def _sums_over_noise(model: VisionModel, x: Tensor, target: Target, spread: Tensor, samples: int, seed: int) -> Tensor:
    """(2, g, C, *axes): gradient sums over the even and the odd samples, in batches of rows (sample-major)."""
    generator = torch.Generator().manual_seed(seed)
    draws: dict[int, Tensor] = {}
    sums = torch.zeros(2, *x.shape, dtype=torch.float32, device=x.device)

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
        slope, _ = model.input_gradients(noisy, target, images)
        sums.view(-1, *x.shape[1:]).index_add_(0, sample % 2 * len(x) + images, slope)

    model.in_batches(samples * len(x), x.shape[1:], run)
    return sums

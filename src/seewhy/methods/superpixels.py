"""Surrogate models on superpixels: a linear function of which parts are visible, fitted to the network's score."""

from dataclasses import dataclass
from itertools import starmap
from math import comb, pi, sqrt

import torch
from torch import Tensor

from seewhy.errors import RefusalError, real_number, whole_number
from seewhy.maps import Maps
from seewhy.methods.steps import background, by_groups, clean_run, completeness, masked_runs
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.registry import method
from seewhy.segmentation import Parts
from seewhy.target import Target

MEAN_MAGNITUDE = sqrt(2 / pi)  # of a normal number with standard deviation 1


@method(
    title="LIME",
    family="perturbation",
    resolution="input",
    picture="signed",
    scale="probability",
    needs_gradients=False,
    rows=lambda p: (p["samples"] + 1, 0),
    cost="samples + 1 forward rows (1001 by default)",
    paper="Ribeiro et al. 2016, arXiv:1602.04938, equation 2",
    good_for="which parts speak for and against a class, on any classifier (Ribeiro 2016, section 3.5)",
    not_for="numbers that must come out again: near pictures get other weights (Alvarez-Melis and Jaakkola 2018)",
    randomization="not reported",
)
def lime(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 1000,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    segments: Tensor | None = None,
    segmentation: str = "slic",
    superpixels: int = 50,
    baseline: str | Tensor = "normalization_mean",
    seed: int = 0,
) -> Maps:
    """The weights of a linear model that imitates the network while superpixels are hidden.

    Each sample z keeps every superpixel with probability 1/2; (w, b) minimizes sum_z k(z) (S(z) - b - w z)^2 +
    alpha |w|^2 over the samples and the clean image, k(z) = exp(-d^2 / kernel_width^2)^(1/2), d = 1 - sqrt(share of
    superpixels kept), the cosine distance from the clean image. M = w of the pixel's superpixel, (N, *axes): score
    units per superpixel, not per pixel; positive where it speaks for the target.
    segments: whole numbers (*axes) or (N, *axes), or None: `segmentation` into about `superpixels` parts by scikit-image
    (slic on 2 or 3 axes, in its parameter-free form: the plain one melts a textured picture into one part; quickshift on
    2, with the settings of the authors' image code, which find their own number), or a grid on any.
    The square root in k and the other defaults are the authors' image code's; the paper has no root. That code hides a
    superpixel by its own mean color, we by the baseline; it can keep the largest weights only, here all stay.
    Evidence: fit, the weighted R^2 of the linear model (0 where the score never changes); superpixels; sampling_error,
    the expected relative L1 error of the map by the sampling (sandwich estimate). MissingExtraError without scikit-image.
    """
    whole_number("samples", samples, at_least=1)
    real_number("kernel_width", kernel_width, at_least=0, above=True)
    real_number("alpha", alpha, at_least=0, above=True)
    parts = Parts(images, segments, segmentation, superpixels)
    fill = background(model, images, baseline, seed)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        labels, counts = parts.of(images, part)
        settled, values, outputs = clean_run(model, images[part], question, rows)
        drawn = [_coin_flips(image, n, samples, seed) for image, n in zip(images[part], counts, strict=True)]
        scores = _scores_of(model, images[part], fill[part], settled, labels, drawn)
        fits = [
            _ridge(torch.cat([torch.ones(1, n), z.cpu()]).double(), torch.cat([clean[None], y]), kernel_width, alpha)
            for z, y, clean, n in zip(drawn, scores, values.double().cpu(), counts, strict=True)
        ]
        sizes = list(starmap(_sizes, zip(labels, counts, strict=True)))
        evidence = {
            "fit": _column([fit.r2 for fit in fits], values),
            "superpixels": torch.tensor(counts, device=values.device),
            "sampling_error": _column(list(starmap(_relative_error, zip(fits, sizes, strict=True))), values),
        }
        raw = torch.stack([_painted(fit.weights, found) for fit, found in zip(fits, labels, strict=True)])
        return Maps(raw.to(values), settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


@method(
    title="Kernel SHAP",
    family="perturbation",
    resolution="input",
    picture="signed",
    scale="probability",
    complete=True,
    needs_gradients=False,
    rows=lambda p: (p["samples"] + 2, 0),
    cost="samples + 2 forward rows at most (1002 by default)",
    paper="Lundberg and Lee 2017, arXiv:1705.07874, theorem 2",
    good_for="documentation: the parts sum to the score, by Shapley's rules (Lundberg and Lee 2017)",
    not_for="networks that may tell a picture with hidden parts from a real one (Slack 2020, arXiv:1911.02508)",
    randomization="not reported",
)
def kernel_shap(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    samples: int = 1000,
    segments: Tensor | None = None,
    segmentation: str = "slic",
    superpixels: int = 50,
    baseline: str | Tensor = "normalization_mean",
    seed: int = 0,
) -> Maps:
    """The Shapley value of each superpixel: its mean effect when it joins the others in random order.

    phi minimizes sum_z k(z) (S(z) - S(x') - phi z)^2 subject to sum phi = S(x) - S(x'), with the Shapley kernel k(z) =
    (n - 1) / (C(n, s) s (n - s)) of a coalition z of s of n superpixels, x' the baseline. M = phi / size of the pixel's
    superpixel, (N, *axes): score units per pixel, so that the map sums to the difference.
    Where all 2^n - 2 coalitions fit into `samples`, each is run once: the values are exact. Else samples // 2 pairs of a
    coalition and its complement are drawn by the kernel (a size with weight 1 / (s (n - s)), then members uniformly;
    pairs: Covert and Lee 2021, arXiv:2012.01536), all with the same weight. The authors' code enumerates the outer sizes
    first and may select features by lasso; both change the sampling noise, not what is estimated.
    segments, segmentation, superpixels: as in lime. Evidence: completeness_gap = |sum M - (S(x) - S(x'))|,
    completeness_gap_relative, score_difference, coalitions, exact, superpixels, forward_rows, sampling_error (expected
    relative L1 error of the map by the sampling, a sandwich estimate over pairs; 0 where exact). RefusalError, before
    its group's rows, where the drawn coalitions cannot tell all superpixels apart. MissingExtraError without scikit-image.
    """
    whole_number("samples", samples, at_least=2)
    parts = Parts(images, segments, segmentation, superpixels)
    fill = background(model, images, baseline, seed)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        labels, counts = parts.of(images, part)
        drawn = [_coalitions(image, n, samples, seed) for image, n in zip(images[part], counts, strict=True)]
        settled, values, outputs = clean_run(model, images[part], question, rows)
        empty = clean_run(model, fill[part], settled, rows)[1]
        scores = _scores_of(model, images[part], fill[part], settled, labels, [z for z, _ in drawn])
        change = (values.double() - empty.double()).cpu()
        fits = [
            _constrained(z.cpu().double(), weights, y - nothing, difference)
            for (z, weights), y, nothing, difference in zip(drawn, scores, empty.double().cpu(), change, strict=True)
        ]
        sizes = list(starmap(_sizes, zip(labels, counts, strict=True)))
        shares = [fit.weights / size for fit, size in zip(fits, sizes, strict=True)]
        raw = torch.stack(list(starmap(_painted, zip(shares, labels, strict=True)))).to(values)
        spent = torch.tensor([len(z) for z, _ in drawn], device=values.device)
        evidence = {
            **completeness(raw, values - empty),
            "coalitions": spent,
            "exact": torch.tensor([weights is not None for _, weights in drawn], device=values.device),
            "superpixels": torch.tensor(counts, device=values.device),
            "sampling_error": _column([_relative_error(fit, torch.ones(len(fit.error))) for fit in fits], values),
            "forward_rows": spent + 2,
        }
        return Maps(raw, settled, values, outputs, evidence)

    return by_groups(model, images, target, run)


# -- superpixels -------------------------------------------------------------------------------------------------------


def _sizes(labels: Tensor, count: int) -> Tensor:
    return torch.bincount(labels.flatten(), minlength=count).double()


def _painted(weights: Tensor, labels: Tensor) -> Tensor:
    return weights.float()[labels]


# -- samples ----------------------------------------------------------------------------------------------------------


def _coin_flips(image: Tensor, n: int, samples: int, seed: int) -> Tensor:
    """(samples, n): superpixels kept, each with probability 1/2."""
    return torch.rand(samples, n, generator=image_generator(image, seed), dtype=torch.float32) < 0.5


def _coalitions(image: Tensor, n: int, samples: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """(coalitions, n), and the kernel's weights where all are enumerated; None for weights where pairs are drawn."""
    if n == 1:
        return torch.zeros(0, 1, dtype=torch.bool), torch.ones(0, dtype=torch.float64)
    if n <= samples.bit_length() and 2**n - 2 <= samples:
        found = torch.arange(1, 2**n - 1)[:, None] >> torch.arange(n) & 1
        kernel = torch.tensor([0.0, *((n - 1) / (comb(n, s) * s * (n - s)) for s in range(1, n))], dtype=torch.float64)
        return found.bool(), kernel[found.sum(1)]
    generator = image_generator(image, seed)
    size = torch.arange(1, n, dtype=torch.float64)
    drawn = torch.multinomial(1 / (size * (n - size)), samples // 2, replacement=True, generator=generator) + 1
    order = torch.rand(samples // 2, n, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    first = order < drawn[:, None]
    if int(torch.linalg.matrix_rank(first.double() - first.double().mean(1, keepdim=True))) < n - 1:
        raise RefusalError(
            f"{samples} samples cannot tell {n} superpixels apart: the linear system has no single solution. Take more "
            f"samples (10 per superpixel: {10 * n}) or fewer superpixels."
        )
    return torch.stack([first, ~first], 1).flatten(0, 1), None


def _scores_of(
    model: VisionModel, images: Tensor, fill: Tensor, target: Target, labels: Tensor, drawn: list[Tensor]
) -> list[Tensor]:
    """Per image the score of each of its coalitions, float64 on the CPU; images with equally many run together."""
    found = [torch.empty(len(z), dtype=torch.float64) for z in drawn]
    for count in sorted({len(z) for z in drawn} - {0}):
        chosen = [i for i, z in enumerate(drawn) if len(z) == count]
        same = [drawn[i] for i in chosen]
        visible = torch.nn.utils.rnn.pad_sequence([z.T for z in same], batch_first=True).to(model.device)
        x, parts = images[chosen].to(model.device), labels[chosen].to(model.device)
        scores = torch.empty(len(chosen), count, dtype=torch.float32, device=model.device)

        def mask(image: Tensor, sample: Tensor, visible: Tensor = visible, parts: Tensor = parts) -> Tensor:
            kept = visible[image, :, sample].gather(1, parts[image].flatten(1))
            return kept.float().view(len(image), 1, *parts.shape[1:])

        def keep(image: Tensor, sample: Tensor, _m: Tensor, values: Tensor, scores: Tensor = scores) -> None:
            scores[image, sample] = values

        question = target.select(torch.tensor(chosen))
        masked_runs(model, x, fill[chosen], question, count, mask, keep)
        for i, row in zip(chosen, scores.cpu().double(), strict=True):
            found[i] = row
    return found


# -- fits -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    weights: Tensor  # (n,) float64
    error: Tensor  # (n,) standard deviation by the sampling
    r2: float = 0.0


def _ridge(z: Tensor, y: Tensor, kernel_width: float, alpha: float) -> _Fit:
    """Weighted ridge regression with a free intercept, in closed form: (samples, n), (samples,), float64."""
    k = torch.exp(-0.5 * (1 - z.mean(1).sqrt()).square() / kernel_width**2)
    z, y = z - (k @ z) / k.sum(), y - (k @ y) / k.sum() if bool((y != y[0]).any()) else torch.zeros_like(y)
    inverse = torch.linalg.inv(z.T @ (k[:, None] * z) + alpha * torch.eye(z.shape[1], dtype=z.dtype))
    weights = inverse @ (z.T @ (k * y))
    rest = y - z @ weights
    spread = float(k @ y.square())
    r2 = 1 - float(k @ rest.square()) / spread if spread else 0.0
    return _Fit(weights, _sandwich(inverse, (k * rest)[:, None] * z), r2)


def _constrained(z: Tensor, weights: Tensor | None, y: Tensor, difference: Tensor) -> _Fit:
    """Least squares with the sum of the weights fixed, in the n - 1 directions that leave the sum alone."""
    n = z.shape[1]
    even = (difference / n).expand(n)
    if n == 1:
        return _Fit(even, torch.zeros(1))
    basis = torch.linalg.svd(torch.ones(1, n, dtype=z.dtype)).Vh[1:].T  # (n, n - 1), orthonormal, columns sum to 0
    k = torch.ones(len(z), dtype=z.dtype) if weights is None else weights
    inside, y = z @ basis, y - z @ even
    inverse = torch.linalg.inv(inside.T @ (k[:, None] * inside))
    found = inverse @ (inside.T @ (k * y))
    if weights is not None:
        return _Fit(even + basis @ found, torch.zeros(n))
    pairs = ((y - inside @ found)[:, None] * inside).view(-1, 2, n - 1).sum(1)
    return _Fit(even + basis @ found, _sandwich(basis @ inverse, pairs))


def _sandwich(inverse: Tensor, scores: Tensor) -> Tensor:
    """Standard deviation of a regression's weights from its independent samples' scores, small samples corrected."""
    samples, n = scores.shape
    return (scores @ inverse.T).square().sum(0).sqrt() * sqrt(samples / max(samples - n, 1))


def _relative_error(fit: _Fit, sizes: Tensor) -> float:
    """Expected L1 error over the L1 norm, superpixels counted by `sizes`; 0 where both vanish."""
    error, total = (float(sizes @ values.abs().to(sizes)) for values in (MEAN_MAGNITUDE * fit.error, fit.weights))
    return error / total if error and total else error


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)

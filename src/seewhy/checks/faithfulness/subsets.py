"""Infidelity and sensitivity-n: does the sum of the map over random parts predict what hiding them does to the score."""

import torch
from torch import Tensor

from seewhy.checks.faithfulness.asking import Subject
from seewhy.maps import ROUNDING
from seewhy.perturb import image_generator

NOISE = 0.2  # standard deviation of the gray noise, as in Yeh 2019's experiments on images in [0, 1]


def removed(subject: Subject, fill: Tensor, sizes: list[int], samples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Hide random units: what each map predicts, (len(sizes) * samples, N), and the fall of the score, (scales, ..., N).

    Sample s hides sizes[s // samples] units drawn uniformly; a size of 0 draws the number as well, from 1 to all.
    The prediction is the sum of the map over what is hidden, in the map's own unit.
    """
    counts, total = subject.units.counts, len(sizes) * samples
    parts = {name: subject.units.sums(values) * _scale(subject, name) for name, values in subject.maps.items()}
    predicted = {name: torch.empty(total, len(subject.x), dtype=torch.float64).to(fill.device) for name in parts}
    wanted = torch.tensor(sizes, device=fill.device)

    def pictures(image: Tensor, sample: Tensor) -> Tensor:
        number, rank = _draws(subject, image, sample)
        size = wanted[sample // samples]
        size = torch.where(size > 0, size, 1 + (number * counts[image]).long()).clamp_max(counts[image])
        chosen = rank < size[:, None]
        for name, sums in parts.items():
            predicted[name][sample, image] = (sums[image] * chosen).sum(1)
        return torch.where(subject.units.pixels(image, chosen), fill[image], subject.x[image])

    said = subject.ask(total, pictures)
    return predicted, subject.clean[:, None] - said


def shaken(subject: Subject, samples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Take gray noise I ~ N(0, 0.2^2) from every pixel: I times each map, (samples, N), and the fall of the score.

    All channels of a pixel move together, so a gradient summed over its channels predicts the fall to first order.
    """
    predicted = {
        name: torch.empty(samples, len(subject.x), dtype=torch.float64).to(subject.x.device) for name in subject.maps
    }

    def pictures(image: Tensor, sample: Tensor) -> Tensor:
        x = subject.x[image]
        drawn = [
            torch.randn(one.shape[1:], generator=image_generator(one, subject.seed + 1 + s))
            for one, s in zip(x, sample.tolist(), strict=True)
        ]
        noise = NOISE * torch.stack(drawn).to(x)
        for name, values in subject.maps.items():
            predicted[name][sample, image] = (values[image] * noise).flatten(1).sum(1) * _scale(subject, name)
        return x - noise[:, None]

    said = subject.ask(samples, pictures)
    return predicted, subject.clean[:, None] - said


def infidelity(predicted: Tensor, fall: Tensor) -> dict[str, Tensor]:
    """Yeh 2019, definition 2.1, of predictions (samples, N) and falls (scales, samples, N): (scales, N) each.

    raw: mean (predicted - fall)^2, in squared units of the score, for maps in its unit; scaled: the same with the map
    times the factor that makes it smallest, sum(predicted fall) / sum(predicted^2); relative: scaled over mean fall^2, 0
    where the map predicts the falls up to a factor and 1 where it says nothing of them.
    """
    best = _ratio((predicted * fall).sum(1), predicted.square().sum(0))
    scaled = (best[:, None] * predicted - fall).square().mean(1)
    return {
        "raw": (predicted - fall).square().mean(1),
        "scaled": scaled,
        "relative": _ratio(scaled, fall.square().mean(1)),
    }


def correlations(predicted: Tensor, fall: Tensor, clean: Tensor, samples: int) -> Tensor:
    """Sensitivity-n, Pearson correlation per number n of hidden units: (scales, sizes, N); NaN where a side is constant."""
    p = predicted.view(-1, samples, predicted.shape[1])
    f = fall.view(len(fall), -1, samples, fall.shape[2])
    flat = (f.amax(2) - f.amin(2)) <= ROUNDING * torch.finfo(torch.float32).eps * clean.abs()[:, None]
    p, f = p - p.mean(1, keepdim=True), f - f.mean(2, keepdim=True)
    found = (p * f).sum(2) / (p.square().sum(1) * f.square().sum(2)).sqrt()
    return torch.where(found.isfinite() & ~flat, found, torch.nan)


def sizes_of(counts: Tensor) -> list[int]:
    """1, 2, 4, ... below the smallest number of units of an image."""
    return [2**k for k in range(int(counts.min()).bit_length()) if 2**k < int(counts.min())]


def _draws(subject: Subject, image: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row a number in [0, 1) and an order of its image's units (R, U), from the image's bytes and the sample."""
    noise = torch.full((len(image), 1 + subject.units.sizes.shape[1]), 2.0)
    for row, i, s in zip(noise, image.tolist(), sample.tolist(), strict=True):
        count = 1 + int(subject.units.counts[i])
        row[:count] = torch.rand(count, generator=image_generator(subject.x[i], subject.seed + 1 + s))
    return noise[:, 0].to(image.device).double(), noise[:, 1:].argsort(1).argsort(1).to(image.device)


def _scale(subject: Subject, name: str) -> float:
    """A map that was drawn larger keeps its sum."""
    return subject.cells / subject.x[0, 0].numel() if name == "map" else 1.0


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)

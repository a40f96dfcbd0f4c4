"""Cues of the whole image that no map can show: color cast, brightness, contrast, blur, compression."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from seewhy.audit.association import Association, associate, label_columns, toward
from seewhy.audit.candidate import Candidate, Edit
from seewhy.perturb import gaussian_blur

STATISTICS = ("redness", "blueness", "brightness", "contrast", "sharpness", "compression")
FRAME = 0.15  # of the shorter side: the outer frame, where objects seldom are
MIDDLE = 0.3  # of each side that is left out on either side of the middle
Region = Literal["whole", "frame", "middle"]
BLOCK = 8  # pixels of a JPEG block
Change = Callable[[Tensor], Tensor]


def statistics(images: Tensor, region: Region = "whole") -> Tensor:
    """(N, 6) of images (N, C, H, W) uint8, of the whole, its outer frame or its middle alone; see STATISTICS."""
    return torch.cat([_statistics(part.float() / 255, region) for part in torch.split(images, 64)])


def weight_of(region: Region, size: Sequence[int]) -> Tensor:
    """(H, W) of sum 1, equal inside of a region."""
    weight = torch.ones(tuple(size))
    if region == "frame":
        edge = max(1, round(FRAME * min(size)))
        weight[edge:-edge, edge:-edge] = 0
    if region == "middle":
        top, left = (round(MIDDLE * length) for length in size)
        weight[:top] = weight[size[0] - top :] = 0
        weight[:, :left] = weight[:, size[1] - left :] = 0
    return weight / weight.sum()


def _statistics(x: Tensor, region: Region = "whole") -> Tensor:
    weight = weight_of(region, x.shape[2:])
    color = (x * weight).sum((2, 3))
    gray = x.mean(1)
    mean = (gray * weight).sum((1, 2))
    contrast = ((gray - mean[:, None, None]).square() * weight).sum((1, 2)).sqrt()
    red = color[:, 0] - mean if x.shape[1] == 3 else torch.zeros(len(x))
    blue = color[:, 2] - mean if x.shape[1] == 3 else torch.zeros(len(x))
    soft, softer = gaussian_blur(gray[:, None], 1.0)[:, 0], gaussian_blur(gray[:, None], 3.0)[:, 0]
    fine = ((gray - soft).square() * weight).sum((1, 2))
    middle = ((soft - softer).square() * weight).sum((1, 2))
    sharp = 0.5 * torch.log((fine + 1e-7) / (middle + 1e-7))
    return torch.stack([red, blue, mean, contrast, sharp, _blockiness(gray, weight)], 1)


def _blockiness(gray: Tensor, weight: Tensor) -> Tensor:
    """Log of the mean step across the borders of 8 x 8 blocks over that inside blocks."""
    found = []
    for axis in (1, 2):
        step = gray.diff(dim=axis).abs()
        w = weight.narrow(axis - 1, 1, weight.shape[axis - 1] - 1)
        at = torch.arange(step.shape[axis]) % BLOCK == BLOCK - 1
        chosen = at.view(-1, 1) if axis == 1 else at.view(1, -1)
        on, off = ((step * (w * mask)).sum((1, 2)) / (w * mask).sum().clamp_min(1e-9) for mask in (chosen, ~chosen))
        found.append(torch.log((on + 1e-4) / (off + 1e-4)))
    return (found[0] + found[1]) / 2


def whole_candidates(
    images: Tensor, scenes: Tensor, finding: Tensor, labels: Tensor, kind: str, names: Sequence[str], seed: int
) -> tuple[list[Candidate], list[str]]:
    """A candidate for each statistic that goes with a label, and what could not be looked for.

    It must go with it in the outer frame alone, where objects seldom are, and in the middle alone: what only one of them
    shows is a mark, a background or the object.
    """
    found = finding.nonzero().flatten()
    columns, which = label_columns(labels, kind)
    if not which:
        return [], [
            "Whole-image cues, places and surroundings: no class has six examined images, or there are more than 40 such "
            "classes."
        ]
    parts = [statistics(images[found], region) for region in ("frame", "middle")]
    of_parts = [associate(part, columns[found], scenes[found], seed) for part in parts]
    both = of_parts[0].p_is_low() & of_parts[1].p_is_low() & (of_parts[0].r * of_parts[1].r > 0)
    candidates = []
    for t, output in enumerate(which):
        score = columns[found, t]
        high, low = (
            (found[score > score.median()], found[score <= score.median()])
            if kind == "score"
            else (
                found[score > 0],
                found[score == 0],
            )
        )
        groups = _merged([s for s in range(len(STATISTICS)) if bool(both[s, t])])
        for group in groups:
            strongest = max(group, key=lambda s: abs(float(of_parts[0].r[s, t])))
            if len(high) < 3 or len(low) < 3:
                continue
            facts = _facts(group, t, of_parts[0], of_parts[1], names[output], kind)
            one = _candidate(images, columns[:, t], kind, high, low, strongest, output, names, facts, seed)
            candidates.append(replace(one, toward=toward(output, kind, labels)))
    return candidates, []


def _merged(chosen: list[int]) -> list[list[int]]:
    """Redness and blueness are one cast of color; each of the others stands for itself."""
    color = [s for s in chosen if s < 2]
    return ([color] if color else []) + [[s] for s in chosen if s >= 2]


def _facts(
    group: Sequence[int], t: int, frame: Association, middle: Association, name: str, kind: str
) -> tuple[str, ...]:
    goes = "rises with" if kind == "score" else "goes with"
    inside = "within groups" if frame.within else "over groups"
    return tuple(
        f"the {STATISTICS[s]} {goes} {name} in the outer frame alone, where objects seldom are (correlation "
        f"{float(frame.r[s, t]):.2f} {inside}, by chance at most {frame.chance:.2f}), and in the middle alone "
        f"({float(middle.r[s, t]):.2f}, by chance at most {middle.chance:.2f})"
        for s in group
    )


def _candidate(
    images: Tensor,
    column: Tensor,
    kind: str,
    high: Tensor,
    low: Tensor,
    statistic: int,
    output: int,
    names: Sequence[str],
    facts: tuple[str, ...],
    seed: int,
) -> Candidate:
    a, b = (statistics(images[i]).mean(0) for i in (high, low))
    name = "color cast" if statistic < 2 else STATISTICS[statistic]
    toward, back = _changes(name, images[low], images[high], a, b)
    some = images[low][:32].float() / 255
    energy = float((toward(some) - some).square().mean().sqrt())
    direction = a - b
    shows = column > column[torch.cat([high, low])].median() if kind == "score" else column > 0

    def unrelated(k: int) -> Edit:
        other = _unrelated(name, tuple(images.shape[1:]), energy, direction, seed * 1009 + k)
        return lambda x, _index: other(x)

    words = {
        "color cast": f"a color cast ({'redder' if direction[0] > 0 else 'less red'}, "
        f"{'bluer' if direction[1] > 0 else 'less blue'})",
        "brightness": "brighter pictures" if direction[2] > 0 else "darker pictures",
        "contrast": "higher contrast" if direction[3] > 0 else "lower contrast",
        "sharpness": "sharper pictures" if direction[4] > 0 else "blurred pictures",
        "compression": "traces of compression" if direction[5] > 0 else "the absence of traces of compression",
    }[name]
    return Candidate(
        kind="whole_image",
        name=words,
        where=None,
        shows=shows,
        paste=lambda x, _index: toward(x),
        remove={"changed back": lambda x, _index: back(x)},
        unrelated=unrelated,
        suspicion=facts,
        appearance=f"{name} {output} {bool(direction[statistic] > 0)}".encode(),
        details={"statistic": name, "difference": round(float(direction[statistic]), 4), "goes_with": names[output]},
    )


def _changes(name: str, low: Tensor, high: Tensor, a: Tensor, b: Tensor) -> tuple[Change, Change]:
    """What gives images without a label the statistics of those with it, and the other way round."""
    if name == "color cast":
        red, blue = float(a[0] - b[0]), float(a[1] - b[1])
        shift = torch.tensor([red, -(red + blue), blue]).view(1, 3, 1, 1)
        return (lambda x: (x + shift).clamp(0, 1)), (lambda x: (x - shift).clamp(0, 1))
    if name == "brightness":
        step = float(a[2] - b[2])
        return (lambda x: (x + step).clamp(0, 1)), (lambda x: (x - step).clamp(0, 1))
    if name == "contrast":
        gain = float(a[3] / b[3].clamp_min(1e-3))
        return (lambda x: _stretched(x, gain)), (lambda x: _stretched(x, 1 / gain))
    if name == "sharpness":
        toward, back = _sharpness_step(low, float(a[4])), _sharpness_step(high, float(b[4]))
        return toward, back
    toward_q, back_q = _quality(low, float(a[5])), _quality(high, float(b[5]))
    return (lambda x: _compressed(x, toward_q)), (
        lambda x: gaussian_blur(_compressed(x, back_q), 0.8) if back_q > 90 else _compressed(x, back_q)
    )


def _stretched(x: Tensor, gain: float) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    return (mean + gain * (x - mean)).clamp(0, 1)


def _sharpness_step(images: Tensor, wanted: float) -> Change:
    """Blur, or unsharp mask, of the strength that brings these images' mean sharpness to what is wanted."""
    some = images[:32].float() / 255
    now = float(_statistics(some)[:, 4].mean())
    if wanted < now:
        strength = _bisected(lambda v: float(_statistics(gaussian_blur(some, v))[:, 4].mean()) - wanted, 0.2, 6.0)
        return lambda x: gaussian_blur(x, strength)
    amount = _bisected(lambda v: wanted - float(_statistics(_unsharp(some, v))[:, 4].mean()), 0.0, 8.0)
    return lambda x: _unsharp(x, amount)


def _unsharp(x: Tensor, amount: float) -> Tensor:
    return (x + amount * (x - gaussian_blur(x, 1.0))).clamp(0, 1)


def _quality(images: Tensor, wanted: float) -> float:
    """JPEG quality that brings the mean blockiness of these images to what is wanted."""
    some = images[:24].float() / 255
    return _bisected(lambda q: float(_statistics(_compressed(some, q))[:, 5].mean()) - wanted, 5.0, 100.0)


def _bisected(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0, between low and high."""
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _compressed(x: Tensor, quality: float) -> Tensor:
    out = []
    for one in x:
        values = (one * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        picture = Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0])
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=max(1, min(100, round(quality))))
        back = np.asarray(Image.open(buffer).convert(picture.mode), dtype=np.float32) / 255
        out.append(torch.from_numpy(back if back.ndim == 3 else back[:, :, None]).permute(2, 0, 1))
    return torch.stack(out)


def _unrelated(name: str, shape: tuple[int, ...], energy: float, direction: Tensor, seed: int) -> Change:
    """A change of the whole image with the same energy and nothing of the statistic: a smooth field of light or color."""
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    coarse = torch.randn(1, channels, 3, 3, generator=generator)
    field = functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    if name != "brightness" and float(torch.rand((), generator=generator)) < 0.5:
        field = field.mean(1, keepdim=True).expand_as(field)  # light alone
    field = field - field.mean((2, 3), keepdim=True)
    if name == "color cast" and channels == 3:  # as much color, in the direction across
        cast = torch.tensor([float(direction[0]), -float(direction[0] + direction[1]), float(direction[1])])
        gray = torch.ones(3) / math.sqrt(3)
        across = torch.linalg.cross(cast / cast.norm().clamp_min(1e-9), gray)
        sign = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
        field = 0.5 * field / field.square().mean().sqrt().clamp_min(1e-9) + sign * across.view(1, 3, 1, 1) * math.sqrt(
            3
        )
    field = field / field.square().mean().sqrt().clamp_min(1e-9) * energy
    return lambda x: (x + field).clamp(0, 1)

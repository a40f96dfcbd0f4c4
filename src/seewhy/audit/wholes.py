"""Cues of the whole image that no map can show: color cast, brightness, contrast, blur, compression.

A statistic that goes with a label, in the outer frame alone and in the middle alone, is a candidate. The change that gives
images without the label the statistics of those with it is fitted to images that found nothing, and its controls are the
changes fitted in the same way to exchanged labels: what beats them all goes with the label there, too, and moves the model.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.audit.association import Association, Floats, Labels, associate, differences, exchanged_labels
from seewhy.audit.candidate import Candidate, Edit
from seewhy.perturb import gaussian_blur

STATISTICS = ("redness", "blueness", "brightness", "contrast", "sharpness", "compression")
FRAME = 0.15  # of the shorter side: the outer frame, where objects seldom are
MIDDLE = 0.36  # of each side that is left out on either side of the middle
BLOCK = 8  # pixels of a JPEG block
HIGH = 7  # from this sum of its two indices on, a coefficient of a block counts as fine detail
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: what JPEG compresses (ITU-R BT.601)
FITTED = 24  # images that a strength is fitted to
BLURS = tuple(0.2 * 1.35**k for k in range(13))  # standard deviations in pixels, to 7.3
MASKS = tuple(0.05 * 1.6**k for k in range(12))  # amounts of an unsharp mask, to 8.8
QUALITIES = (100, 95, 90, 85, 80, 70, 60, 50, 40, 30, 20, 10, 5)  # of JPEG
WORDS = {  # more of a statistic, and less
    "brightness": ("brighter pictures", "darker pictures"),
    "contrast": ("higher contrast", "lower contrast"),
    "sharpness": ("sharper pictures", "blurred pictures"),
    "compression": ("traces of compression", "the absence of traces of compression"),
}
Region = Literal["whole", "frame", "middle"]
REGIONS: tuple[Region, ...] = ("whole", "frame", "middle")
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
    return torch.stack([red, blue, mean, contrast, sharp, _blocks(x, weight)], 1)


def _blocks(x: Tensor, weight: Tensor) -> Tensor:
    """How much less fine detail blocks of 8 x 8 pixels hold on JPEG's grid than half a block beside it: a log ratio, (n,)."""
    luma = (x * torch.tensor(LUMA).view(3, 1, 1)).sum(1) if x.shape[1] == 3 else x.mean(1)
    order = torch.arange(float(BLOCK))
    cosine = torch.cos(math.pi * (2 * order[None] + 1) * order[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    cosine[0] /= math.sqrt(2)
    fine = order[:, None] + order[None] >= HIGH
    found = []
    for start in (0, BLOCK // 2):
        blocks = luma[:, start:, start:].unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK)
        share = weight[start:, start:].unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK).mean((2, 3))
        energy = ((cosine @ blocks @ cosine.T).square() * fine).sum((3, 4))
        found.append((torch.log(energy + 2e-5) * share).sum((1, 2)) / share.sum().clamp_min(1e-9))
    return found[1] - found[0]


def whole_candidates(images: Tensor, scenes: Tensor, finding: Tensor, labels: Labels, seed: int) -> list[Candidate]:
    """A candidate for each statistic that goes with a label, in the outer frame alone and in the middle alone, about as much.

    What one of them shows far more is a mark, the surroundings or the object.
    """
    found, held = (half.nonzero().flatten() for half in (finding, ~finding))
    columns = labels.columns[found]
    of_region = {region: statistics(images[found], region) for region in REGIONS}
    whole, frame, middle = (associate(of_region[name], columns, scenes[found], seed) for name in REGIONS)
    goes = whole.p_is_low() & frame.p_is_low_alone() & middle.p_is_low_alone()
    table = statistics(images[held], "frame")
    candidates = []
    for t in range(len(labels.names)):
        chosen = columns[:, t] > labels.cut(t)
        ratio = differences(of_region["middle"], chosen) / differences(of_region["frame"], chosen)
        even = (ratio > 0.5) & (ratio < 2)  # nearer to the same everywhere than to one of them alone
        for group in _merged([s for s in range(len(STATISTICS)) if bool(goes[s, t] & even[s])]):
            strongest = max(group, key=lambda s: abs(float(whole.r[s, t])))
            facts = tuple(_fact(s, t, frame, middle, labels) for s in group)
            more = bool(whole.r[strongest, t] > 0)
            one = _candidate(images, table, held, scenes, labels, t, strongest, more, facts, seed)
            candidates += [one] if one is not None else []
    return candidates


def _merged(chosen: list[int]) -> list[list[int]]:
    """Redness and blueness are one cast of color; each of the others stands for itself."""
    color = [s for s in chosen if s < 2]
    return ([color] if color else []) + [[s] for s in chosen if s >= 2]


def _fact(statistic: int, t: int, frame: Association, middle: Association, labels: Labels) -> str:
    rises = "rises with" if float(frame.r[statistic, t]) > 0 else "falls with"
    goes = rises if labels.kind == "score" else "goes with"
    inside = "within groups" if frame.within else "over groups"
    return (
        f"the {STATISTICS[statistic]} {goes} {labels.names[t]} in the outer frame alone, where objects seldom are "
        f"(correlation {float(frame.r[statistic, t]):.2f} {inside}), and in the middle alone "
        f"({float(middle.r[statistic, t]):.2f})"
    )


def _candidate(
    images: Tensor,
    table: Tensor,
    held: Tensor,
    scenes: Tensor,
    labels: Labels,
    t: int,
    statistic: int,
    more: bool,
    facts: tuple[str, ...],
    seed: int,
) -> Candidate | None:
    """None where the held-out images have no three with and without the label.

    table: (n, 6) statistics of the held-out images, by which the changes are fitted.
    """
    name = "color cast" if statistic < 2 else STATISTICS[statistic]
    column = labels.columns[held, t]
    cut = labels.cut(t)

    if min(int((column > cut).sum()), int((column <= cut).sum())) < 3:
        return None
    change = changes(name, images[held[:: -(-len(held) // FITTED)]].float() / 255)

    def means(own: Tensor) -> tuple[Tensor, Tensor]:
        return table[own <= cut].mean(0), table[own > cut].mean(0)

    def unrelated(k: int) -> Edit:
        other = change(*means(exchanged_labels(column, scenes[held], seed * 1009 + k)))
        return lambda x, _index: other(x)

    low, high = means(column)
    paste, back = change(low, high), change(high, low)

    difference = differences(table, column > cut)
    return Candidate(
        kind="whole_image",
        name=_words(name, difference) if statistic < 2 else WORDS[name][not more],
        where=None,
        shows=labels.columns[:, t] > cut,
        paste=lambda x, _index: paste(x),
        remove={"changed back": lambda x, _index: back(x)},
        unrelated=unrelated,
        suspicion=facts,
        appearance=f"{name} {labels.names[t]} {more}".encode(),
        details={
            "statistic": name,
            "difference": round(float(difference[statistic]), 4),
            "goes_with": labels.names[t],
        },
        toward=labels.rises[t],
    )


def _words(name: str, difference: Tensor) -> str:
    red, blue = ("more" if v > 0 else "less" for v in difference[:2].tolist())
    return f"a {name} ({red} red, {blue} blue)"


def changes(name: str, images: Tensor) -> Callable[[Tensor, Tensor], Change]:
    """What brings images from one mean of STATISTICS to another, as a function of both.

    A color cast is a gain of each channel, as of another light (von Kries); brightness a sum; contrast a gain about the
    mean; sharpness a blur or an unsharp mask, compression JPEG at a quality, each as strong as these images
    (n, C, H, W) in [0, 1] need for such a step.
    """
    if name == "color cast":
        return _colored
    if name == "brightness":
        return lambda now, wanted: _lighter(float(wanted[2] - now[2]))
    if name == "contrast":
        return lambda now, wanted: _stretched(float(wanted[3] / now[3].clamp_min(1e-3)))
    if name == "sharpness":
        soft, hard = _steps(images, 4, gaussian_blur, BLURS), _steps(images, 4, _unsharp, MASKS)
        return lambda now, wanted: _sharper(float(wanted[4] - now[4]), soft, hard)
    packed = _steps(images, 5, _compressed, QUALITIES)
    return lambda now, wanted: _packed(float(wanted[5] - now[5]), packed)


Steps = tuple[Sequence[float], Floats]  # strengths, and by how much each moves a statistic


def _steps(
    images: Tensor, statistic: int, edit: Callable[[Tensor, float], Tensor], strengths: Sequence[float]
) -> Steps:
    before = _statistics(images)[:, statistic].mean()
    moved = [float(_statistics(edit(images, strength))[:, statistic].mean() - before) for strength in strengths]
    return strengths, np.asarray(moved)


def _strength(step: float, steps: Steps) -> float:
    """The strength that moves a statistic by so much, between those that were tried."""
    strengths, moved = steps
    rising = np.maximum.accumulate(moved * np.sign(moved[-1]))  # a statistic may turn back where there is nothing left
    return float(np.interp(abs(step), rising, strengths))


def _colored(now: Tensor, wanted: Tensor) -> Change:
    gain = _relative_colors(wanted) / _relative_colors(now)
    return lambda x: (x * gain).clamp(0, 1)


def _relative_colors(mean: Tensor) -> Tensor:
    """Red, green and blue over their mean, of redness, blueness and brightness: (3, 1, 1)."""
    red, blue, gray = (float(v) for v in mean[:3])
    return (torch.tensor([red, -red - blue, blue]) / max(gray, 1e-3) + 1).clamp_min(1e-2).view(3, 1, 1)


def _lighter(step: float) -> Change:
    return lambda x: (x + step).clamp(0, 1)


def _stretched(gain: float) -> Change:
    def change(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return (mean + gain * (x - mean)).clamp(0, 1)

    return change


def _sharper(step: float, soft: Steps, hard: Steps) -> Change:
    strength = _strength(step, soft if step < 0 else hard)
    return lambda x: gaussian_blur(x, strength) if step < 0 else _unsharp(x, strength)


def _unsharp(x: Tensor, amount: float) -> Tensor:
    return (x + amount * (x - gaussian_blur(x, 1.0))).clamp(0, 1)


def _packed(step: float, packed: Steps) -> Change:
    """JPEG of the quality that adds so much of a block grid; a small blur where there should be less."""
    quality = _strength(step, packed)
    return lambda x: gaussian_blur(x, 0.8) if step < 0 else _compressed(x, quality)


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

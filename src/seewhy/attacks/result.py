"""What an attack gives back: what moved, what did not, and the changed network or images; and how an attack is declared."""

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.attacks.region import Sign, mass_in
from seewhy.checks.result import Curve, Score, score
from seewhy.draw import Picture, note, overlay
from seewhy.errors import UsageError
from seewhy.intervals import proportion
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.similarity import rank_correlation
from seewhy.target import Task, predicted_classes, resolve


@dataclass(frozen=True)
class Attacked:
    """A network or images changed so that the maps move and the answers stay: what moved, and what did not."""

    attack: str
    model: VisionModel  # the changed copy; of an attack on images the user's own
    images: Tensor  # (N, C, *axes) that it is judged on; of an attack on images the changed ones
    before: Maps  # of the user's own network and images
    after: Maps
    moved: tuple[Score, ...]  # of the maps
    kept: tuple[Score, ...]  # of the answers
    curves: tuple[Curve, ...] = ()  # over the steps, or over the strength
    excluded: Mapping[int, str] = field(default_factory=dict)  # image whose maps cannot be compared -> why
    settings: Mapping[str, Any] = field(default_factory=dict)
    forward_rows: int = 0
    gradient_rows: int = 0
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Score:
        """The score of this name."""
        return next(found for found in (*self.moved, *self.kept) if found.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: all but the tensors."""
        return {
            "attack": self.attack,
            "model": self.model.fingerprint(),
            "n": len(self.images),
            "layer": self.after.layer.name if self.after.layer else None,
            "moved": [found.to_dict() for found in self.moved],
            "kept": [found.to_dict() for found in self.kept],
            "curves": [curve.to_dict() for curve in self.curves],
            "excluded": {str(image): why for image, why in self.excluded.items()},
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "forward_rows": self.forward_rows,
            "gradient_rows": self.gradient_rows,
            "seconds": self.seconds,
        }

    def picture(self, i: int, picture: Picture = "positive") -> Image.Image:
        """What the model is shown of image i, and over it the map before and after the attack, side by side."""
        shown = np.rint(255 * self.images[i].detach().cpu().clamp(0, 1).numpy()).astype(np.uint8).transpose(1, 2, 0)
        shown = shown[..., :3] if shown.shape[-1] >= 3 else shown[..., :1].repeat(3, -1)
        maps = [found.raw[i].detach().cpu().float().numpy() for found in (self.before, self.after)]
        gap = np.full((len(shown), max(4, len(shown) // 50), 3), 255, np.uint8)
        before, after = (
            overlay(shown, raw, picture) if np.isfinite(raw).all() else note(shown, "no map: not finite")
            for raw in maps
        )
        return Image.fromarray(np.concatenate([shown, gap, before, gap, after], 1))

    def __str__(self) -> str:
        lines = [f"{self.attack} on {len(self.images)} images"]
        for title, scores in (("moved", self.moved), ("kept", self.kept)):
            for one in scores:
                others = ", ".join(f"{name} {value}" for name, value in one.controls.items())
                lines.append(f"  {title}: {one.name.replace('_', ' ')} {one.interval}{f'; {others}' if others else ''}")
        return "\n".join(lines)

    __repr__ = __str__


AttackFunction = Callable[..., Attacked]


def attack(function: AttackFunction) -> AttackFunction:
    """Decorator: a call notes what it was asked with, the rows that it cost on both networks, and its seconds.

    target: what `sw.explain` takes, too. UsageError, before any work, for one that the network has no answer to.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(model: VisionModel, images: Tensor, target: Any, maps: MapFunction, **keywords: Any) -> Attacked:
        check_images(images)
        question = resolve(target, model.labels, model.task)
        question.check(len(images), model.output_shape(tuple(images.shape[1:])), model.labels)
        bound = signature.bind(model, images, question, maps, **keywords)
        bound.apply_defaults()
        used = {name: bound.arguments[name] for name in list(signature.parameters)[4:] if name != "progress"}
        before, begun = (model.forward_rows, model.gradient_rows), time.perf_counter()
        with torch.inference_mode(False), torch.no_grad():
            found = function(model, images, question, maps, **keywords)
        own = (0, 0) if found.model is model else (found.model.forward_rows, found.model.gradient_rows)
        return replace(
            found,
            attack=function.__name__,
            settings={**used, **found.settings},
            forward_rows=model.forward_rows - before[0] + own[0],
            gradient_rows=model.gradient_rows - before[1] + own[1],
            seconds=time.perf_counter() - begun,
        )

    return run


def check_images(images: Any) -> None:
    """UsageError for anything but a float tensor (N, C, *axes)."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 3 or not len(images):
        shown = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"images are a float tensor (N, C, *axes) in [0, 1]; got {shown}.")


def check_labels(labels: Any, n: int) -> None:
    """UsageError for anything but a class for each of n images, or None."""
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != (n,):
        shown = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UsageError(f"labels are a tensor of {n} whole numbers, one per image; got {shown}.")


def movement(before: Maps, after: Maps, region: Tensor | None = None, sign: Sign = "positive") -> tuple[Score, ...]:
    """What moved: rank correlation of the maps before and after, and their mass in a region with that of before.

    A map that cannot be scored (`why_unusable`) is NaN in what it belongs to.
    """
    usable = [torch.tensor([not why for why in why_unusable(maps)]) for maps in (before, after)]
    alike = rank_correlation(before.raw.detach().cpu(), after.raw.detach().cpu())
    similarity = score("similarity", _where(usable[0] & usable[1], alike), "neither", "rank correlation")
    if region is None:
        return (similarity,)
    was, now = (mass_in(maps.raw.detach(), region, sign) for maps in (before, after))
    area = float(region.double().mean())
    return similarity, compared("mass_in_region", "share of the map", before, after, was, now, area)


def compared(
    name: str, unit: str, before: Maps, after: Maps, was: Tensor, now: Tensor, chance: float | None = None
) -> Score:
    """A number of each map after, (N,), beside the same of before and what it is by chance; NaN for an unusable map."""
    usable = [torch.tensor([not why for why in why_unusable(maps)]) for maps in (before, after)]
    controls = {"before": _where(usable[0], was.cpu())}
    if chance is not None:
        controls["by_chance"] = torch.full((len(was),), chance, dtype=torch.float64)
    return score(name, _where(usable[1], now.cpu()), "neither", unit, controls=controls)


def agreement(before: Tensor, after: Tensor, task: Task, labels: Tensor | None = None) -> tuple[Score, ...]:
    """What did not move: outputs before and after, (N, classes) each; the same top class; accuracy where there are labels.

    output_change: max |after - before| over max |before| of that image. Where outputs are no classes, it is all.
    """
    change = (after - before).abs().amax(1).double() / before.abs().amax(1).double()
    found = [score("output_change", change, "neither", "share of the largest output")]
    if not is_classes(task):
        return tuple(found)
    said = [predicted_classes(table, task).cpu() for table in (before, after)]
    found.append(_share("top_1_agreement", said[0] == said[1]))
    if labels is not None:
        right = [top == labels.cpu() for top in said]
        found.append(replace(_share("accuracy", right[1]), controls={"before": proportion(right[0].double())}))
    return tuple(found)


def is_classes(task: Task) -> bool:
    """Whether a table of outputs holds a score a class, so that one of them is the top one."""
    return task in ("multiclass", "multilabel", "binary")


def _share(name: str, hits: Tensor) -> Score:
    values = hits.double()
    return replace(score(name, values, "neither", "share of the images"), interval=proportion(values))


def _where(there: Tensor, values: Tensor) -> Tensor:
    return torch.where(there, values.double(), torch.nan)


def _plain(value: Any) -> Any:
    """A setting as a JSON value: of tensors and functions, what they are."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return getattr(value, "__name__", type(value).__name__)

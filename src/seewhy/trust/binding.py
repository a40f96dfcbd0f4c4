"""A method with its parameters bound and the model left free: what the checks question."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.explanation import check_call, maps_of
from seewhy.maps import Maps, select
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, find_method
from seewhy.target import Target

OTHERS = ("grad_cam", "gradient", "occlusion")
NEED_OTHERS = ("agreement", "manipulation")  # checks that hold a method against others, which `given_to` chooses


@dataclass(frozen=True)
class Bound:
    """`bound(model, images, target) -> Maps`: one method as explain() would run it, on whatever model it is given."""

    info: MethodInfo
    keywords: Mapping[str, Any]
    seed: int = 0

    def __call__(self, model: VisionModel, images: Tensor, target: Target) -> Maps:
        """Maps of a question per image; on the method's own scale where the target names none."""
        return maps_of(model, images, target, self.info, self.keywords, self.seed)

    def fixed(self, found: Maps) -> "Bound":
        """The same with what it chose on one network: its layer, and the nodes of an adaptive path."""
        chosen = dict(found.chosen)
        if "layer" in self.info.parameters and self.keywords.get("layer") is None and found.layer is not None:
            chosen["layer"] = found.layer
        return replace(self, keywords={**self.keywords, **chosen})


def bind(method: str | MethodInfo, layer: Any = None, seed: int = 0, **params: Any) -> Bound:
    """A method bound to its parameters, for a check: `sw.checks.completeness(model, x, target, sw.bind("gradient"))`.

    UsageError for a parameter, a layer or a seed that the method does not take.
    """
    info = find_method(method)
    return Bound(info, check_call(info, None, layer, seed, params), seed)


def other_methods(info: MethodInfo, seed: int = 0) -> dict[str, Bound]:
    """What agreement compares a method with, where nothing else is said: one method of each of three families."""
    return {name: bind(name, seed=seed) for name in OTHERS if name != info.name}


def other_families(info: MethodInfo, seed: int = 0) -> dict[str, Bound]:
    """What manipulation holds a method against, where nothing else is said: maps of a family that shares little with it.

    Gradients at the input for class activation maps, these for gradients and paths, both for all else.
    """
    gradient, cam = bind("smooth_grad_squared", seed=seed, samples=8), bind("grad_cam", seed=seed)
    if info.family == "cam":
        return {"smooth_grad_squared": gradient}
    return {"grad_cam": cam} | ({} if info.family in ("gradient", "path") else {"smooth_grad_squared": gradient})


def given_to(check: str, info: MethodInfo, seed: int = 0) -> dict[str, Any]:
    """What a check is given with a method, where nothing else is said."""
    if check == "agreement":
        return {"others": other_methods(info, seed)}
    if check == "manipulation":
        return {"others": other_families(info, seed), "magnitude": info.picture == "magnitude"}
    return {}


@dataclass(frozen=True)
class Remembered:
    """A bound method that does not compute again what it gave for the very same images, question and weights.

    What it remembers is no part of what it is: it counts as the bound method.
    """

    bound: Bound
    images: Tensor = field(compare=False)
    target: Target = field(compare=False)
    maps: Maps = field(compare=False)
    weights: tuple[tuple[int, float], ...] = field(compare=False)

    def __call__(self, model: VisionModel, images: Tensor, target: Target) -> Maps:
        """The maps that are known, or those of the bound method."""
        known = images is self.images and target is self.target and weights_of(model) == self.weights
        return self.maps if known else self.bound(model, images, target)

    def fixed(self, found: Maps) -> Bound:
        """As of the bound method."""
        return self.bound.fixed(found)

    def first(self, n: int) -> "Remembered":
        """The same for the first n images."""
        rows = torch.arange(min(n, len(self.images)))
        return replace(self, images=self.images[rows], target=self.target.select(rows), maps=select(self.maps, rows))


def weights_of(model: VisionModel) -> tuple[tuple[int, float], ...]:
    """Where every parameter lies and what it sums to: other weights have another (version counters change with a swap)."""
    return tuple((p.data_ptr(), float(p.detach().sum())) for p in model.module.parameters())

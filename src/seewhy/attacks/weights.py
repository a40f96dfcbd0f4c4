"""Heo et al. 2019: a copy of a network, tuned so that its maps move and its answers stay."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from seewhy.attacks.result import Attacked, Sign, attack
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.target import Target

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Box = tuple[float, float, float, float]
Region = Literal["frame"] | Box | Tensor


@attack
def location_fooling(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    region: Region = "frame",
    strength: float = 1.0,
    labels: Tensor | None = None,
    train_from: str | None = None,
    tune_on: int | None = None,
    steps: int = 100,
    learning_rate: float = 1e-4,
    optimizer: Literal["adam", "sgd"] = "adam",
    batch: int = 16,
    sign: Sign = "positive",
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Move the map to a place of your choice. `strength=0`: the same tuning without the attack, an honest twin."""
    raise NotImplementedError

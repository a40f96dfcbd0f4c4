"""What a model may rely on, before it is known whether it does: what it is, who shows it, how to add it and take it away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Kind = Literal["local_pattern", "place", "background", "whole_image"]
KINDS: tuple[Kind, ...] = ("local_pattern", "place", "background", "whole_image")
Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels of the model's input; the last two exclusive
Said = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] -> `settled` outputs (n, K)
Edit = Callable[[Tensor, Tensor], Tensor]  # images (n, C, H, W) in [0, 1], their indices (n,) -> the images changed


@dataclass(frozen=True)
class Candidate:
    """One pattern, with the experiments that tell whether the model relies on it."""

    kind: Kind
    name: str  # in words, to stand in a sentence after "the model relies on"
    where: Box | None  # None: it moves, or it is everywhere
    shows: Tensor  # (N,) bool: which of the examined images have it
    paste: Edit  # onto images that do not show it
    remove: Mapping[str, Edit]  # name of the fill -> from images that show it
    unrelated: Callable[[int], Edit]  # the k-th control: the same place, size and energy of change, with nothing of it
    suspicion: tuple[str, ...]  # facts that say why it is not the object; none: natural evidence
    appearance: bytes  # what it looks like, coarsely: half of its stable id
    details: Mapping[str, object] = field(default_factory=dict)
    toward: int | None = None  # the output that must rise: it goes with that label; None: any may move either way
    boxes: Tensor | None = None  # (N, 4) where it lies in each image that shows it, where it moves
    swapped: Edit | None = None  # paste's own control, image by image: the same place of images that do not show it

"""How a layer's output lies over the image: which of its axes are rows, columns, tokens and channels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["channels first", "channels last", "tokens"]

MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens in front of a grid; the largest known use is 1 + 8
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2))  # of images, tokens and channels in a layer's output
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # n-linear interpolation along so many axes
PATTERNS = 4  # of cells, to see which token is which
NOTHING = 1e-12  # of the largest change: what a logarithm takes no change at all for


@dataclass(frozen=True)
class Form:
    """How a layer's output is laid out over the image."""

    kind: Kind
    grid: tuple[int, ...]
    prefix: int = 0  # tokens that are no cell: class, distillation, registers
    before: int = 0  # cells in front of them; nearly always none
    order: tuple[int, int, int] = (0, 1, 2)  # the axes of images, tokens and channels; of tokens only

    @property
    def rows_axis(self) -> int:
        """The axis of the layer's output along which the rows of a batch lie."""
        return self.order[0]

    @property
    def channels_axis(self) -> int:
        """The axis of the layer's output along which its channels lie."""
        return {"channels first": 1, "channels last": -1, "tokens": self.order[2]}[self.kind]

    @property
    def tokens(self) -> int:
        """Cells and others, of tokens."""
        return self.prefix + math.prod(self.grid)

    def fits(self, shape: Sequence[int], rows: int) -> bool:
        """Whether an output of this shape can be read so, for a batch of so many rows."""
        if self.kind != "tokens":
            return shape[0] == rows
        return shape[self.order[0]] == rows and shape[self.order[1]] == self.tokens

    def cells(self, tensor: Tensor) -> Tensor:
        """What the layer returned, as (R, C, *grid)."""
        if self.kind == "channels first":
            return tensor
        if self.kind == "channels last":
            return tensor.movedim(-1, 1)
        tokens = tensor.permute(self.order)
        front, behind = tokens[:, : self.before], tokens[:, self.before + self.prefix :]
        tokens = torch.cat([front, behind], 1) if self.before else behind
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)

    def edited(self, tensor: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output with its cells replaced by `edit` of them (R, C, *grid); prefix tokens stay."""
        cells = edit(self.cells(tensor)).to(tensor.dtype)
        if self.kind == "channels first":
            return cells
        if self.kind == "channels last":
            return cells.movedim(1, -1)
        tokens = tensor.permute(self.order)
        edited = cells.flatten(2).transpose(1, 2)
        others = tokens[:, self.before : self.before + self.prefix]
        tokens = torch.cat([edited[:, : self.before], others, edited[:, self.before :]], 1)
        return tokens.permute(*(self.order.index(axis) for axis in range(3)))


def possible_forms(shape: Sequence[int], batch: int, axes: Sequence[int]) -> list[Form]:
    """The readings of a layer's output that its shape allows, the likeliest first; an experiment has to choose.

    A grid with the image's proportions before any other grid; for tokens only those, in three orders of the axes.
    """
    if len(shape) == 2 + len(axes) and shape[0] == batch:
        first, last = Form("channels first", tuple(shape[2:])), Form("channels last", tuple(shape[1:-1]))
        if max(first.grid) == 1:  # pooled to one cell, whatever else fits
            return [first]
        fits = [form for form in (first, last) if max(form.grid) > 1 and _within(form.grid, axes)]
        return sorted(fits, key=lambda form: not keeps_proportions(form.grid, axes))
    if len(shape) != 3:
        return []
    orders = [order for order in ORDERS if shape[order[0]] == batch]
    return [replace(form, order=order) for order in orders for form in token_forms(shape[order[1]], axes)]


def token_forms(tokens: int, axes: Sequence[int]) -> list[Form]:
    """So many tokens as grids that keep the image's proportions, behind as few others as can be first.

    Where a grid keeps them exactly, only such ones.
    """
    found = []
    for prefix in range(min(MAX_PREFIX_TOKENS, tokens - 1) + 1) if len(axes) == 2 else ():
        grid = _grid_of(tokens - prefix, axes)
        if grid[0] * grid[1] == tokens - prefix > 1 and keeps_proportions(grid, axes):
            found.append(Form("tokens", grid, prefix))
    return [form for form in found if form.grid[0] * axes[1] == form.grid[1] * axes[0]] or found


def _grid_of(cells: int, axes: Sequence[int]) -> tuple[int, ...]:
    height = round((cells * axes[0] / axes[1]) ** 0.5)
    return (height, cells // height) if height else (0, 0)


def keeps_proportions(grid: Sequence[int], axes: Sequence[int]) -> bool:
    """Every axis is shrunk by the same factor, up to the rounding of strides and borders."""
    if not _within(grid, axes):
        return False
    stride = max(axis / cells for cells, axis in zip(grid, axes, strict=True))
    return all(abs(cells - axis / stride) < max(1.0, 0.15 * cells) for cells, axis in zip(grid, axes, strict=True))


def _within(grid: Sequence[int], axes: Sequence[int]) -> bool:
    return min(grid) >= 1 and all(cells <= axis for cells, axis in zip(grid, axes, strict=True))


def cell_patterns(grid: Sequence[int]) -> Tensor:
    """Random halves of the cells of a grid, (PATTERNS, *grid), 0 or 1; the same on every run."""
    return torch.rand(PATTERNS, *grid, generator=torch.Generator().manual_seed(0)).round()


def cells_before(changes: Tensor, patterns: Tensor, extra: int) -> tuple[int, float]:
    """How many of n cells lie before `extra` tokens that are none, from how much each of n + extra tokens changes.

    changes (PATTERNS, n + extra) when the cells of a pattern, patterns (PATTERNS, n), are disturbed. The place with the
    largest covariance of changes and patterns (in front of all cells where nothing tells), and their correlation there.
    """
    changes, patterns = changes - changes.mean(0), patterns - patterns.mean(0)
    n = patterns.shape[1]
    in_front = (changes[:, :n] * patterns).sum(0)  # token t as cell t
    behind = (changes[:, extra:] * patterns).sum(0)  # token t + extra as cell t
    zero = torch.zeros(1, device=changes.device)
    total = torch.cat([zero, in_front.cumsum(0)]) + behind.sum() - torch.cat([zero, behind.cumsum(0)])
    if not bool(total.isfinite().all()):
        return 0, 0.0
    place = int(total.argmax()) if extra else 0
    read = torch.cat([changes[:, :place], changes[:, place + extra :]], 1)
    scale = float((read.square().sum() * patterns.square().sum()).sqrt())
    return place, float(total[place]) / scale if scale else 0.0


def probe_images(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Two different smooth pictures (2, C, *axes) in [0, 1], the same on every run, to find a network's layers with."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, shape[0], *[min(8, axis) for axis in shape[1:]], generator=generator, dtype=torch.float32)
    smooth = functional.interpolate(coarse, size=tuple(shape[1:]), mode=LINEAR[len(shape) - 1], align_corners=False)
    return (0.75 * smooth + 0.25 * torch.rand(2, *shape, generator=generator, dtype=torch.float32)).clamp(0, 1)


def orthants(axes: Sequence[int]) -> list[tuple[slice, ...]]:
    """The halves of a signal, the quadrants of a picture, the octants of a volume; a middle line belongs to none."""
    return list(
        product(
            *[(slice(0, side // 2), slice(side - side // 2, side)) if side > 1 else (slice(0, side),) for side in axes]
        )
    )


def per_orthant(values: Tensor) -> Tensor:
    """Mean of (R, *axes) over each of its orthants: (R, orthants)."""
    parts = orthants(values.shape[1:])
    return torch.stack([values[(slice(None), *part)].flatten(1).mean(1) for part in parts], 1)


def same_orthants(values: Tensor, axes: Sequence[int], grid: Sequence[int]) -> Tensor:
    """(orthants of the image, ...) as (orthants of a grid, ...): the mean along axes with one cell only."""
    split = values.view(*(min(side, 2) for side in axes), *values.shape[1:])
    alone = [axis for axis, cells in enumerate(grid) if cells == 1]
    return (split.mean(alone) if alone else split).reshape(-1, *values.shape[1:])


def answers_in_place(found: Tensor) -> bool:
    """Whether orthant q of one thing answers to orthant q of another most, of (experiments, orthants, orthants) >= 0.

    What a row or a column has in common (how strong a disturbance was, how touchy a cell is) is divided out first; then the
    largest of every row and of every column has to lie on the diagonal, in every experiment.
    """
    if found.shape[1] != found.shape[2] or found.shape[1] == 1:
        return False
    largest = found.flatten(1).amax(1).view(-1, 1, 1)
    logs = (found / largest).clamp_min(NOTHING).log()
    logs = logs - logs.mean(2, keepdim=True) - logs.mean(1, keepdim=True)
    own = torch.arange(found.shape[1], device=found.device)
    alive = bool((largest > 0).all()) and bool(found.isfinite().all())
    return alive and bool((logs.argmax(2) == own).all()) and bool((logs.argmax(1) == own).all())

"""Where in a network a map can be taken, found by running it: spatial form, trunk or branch, gradient at the cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.capture import Call, Score, Site
from seewhy.errors import RefusalError

Kind = Literal["channels first", "channels last", "tokens"]

MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens in front of a grid; the largest known use is 1 + 8
BYPASS_TOLERANCE = (
    1e-3  # relative to the difference between two images' outputs: float error is far below, a branch far above
)


@dataclass(frozen=True)
class Form:
    """How a layer's output is laid out over the image."""

    kind: Kind
    grid: tuple[int, ...]
    prefix: int = 0  # tokens before the grid

    def cells(self, tensor: Tensor) -> Tensor:
        """(R, *layout) -> (R, C, *grid)."""
        if self.kind == "channels first":
            return tensor
        if self.kind == "channels last":
            return tensor.movedim(-1, 1)
        tokens = tensor[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(tensor), -1, *self.grid)


@dataclass(frozen=True)
class Layer:
    """One place in the network; `usable` or `why_not`."""

    name: str
    site: Site
    form: Form | None  # None: not spatial
    channels: int
    trunk: bool | None = None  # None: not tested
    gradient: float | None = None  # largest |d score / d cell| over the probe images; None: not tested
    why_not: str = ""

    @property
    def usable(self) -> bool:
        """Whether a class activation map can be taken here."""
        return not self.why_not

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "kind": self.form.kind if self.form else "not spatial",
            "grid": list(self.form.grid) if self.form else None,
            "prefix_tokens": self.form.prefix if self.form else None,
            "channels": self.channels,
            "trunk": self.trunk,
            "gradient": self.gradient,
            "usable": self.usable,
            "why_not": self.why_not,
        }


class LayerTable(list[Layer]):
    """A list of layers, in order of execution, that prints as a table."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every layer as plain JSON values."""
        return [layer.to_dict() for layer in self]

    def __str__(self) -> str:
        """One aligned line a layer."""
        rows = [("layer", "kind", "grid", "channels", "trunk", "gradient", "usable")]
        for layer in self:
            grid = " x ".join(map(str, layer.form.grid)) if layer.form else ""
            trunk = {True: "yes", False: "no", None: "?"}[layer.trunk]
            gradient = "?" if layer.gradient is None else f"{layer.gradient:.1e}"
            kind = layer.form.kind if layer.form else "not spatial"
            rows.append((layer.name, kind, grid, str(layer.channels), trunk, gradient, layer.why_not or "yes"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    __repr__ = __str__


class Trace:
    """One run of a network on two probe images: its layers, each with the gradient at its cells, and the trunk test."""

    def __init__(self, module: nn.Module, call: Call, axes: Sequence[int], score: Score) -> None:
        sites, output = capture.trace(module, call)
        self._call, self._score = call, score
        self._said = self._everything_said(output)
        self._same = {site.name: twin for site, _, twin in sites}
        self._verdicts: dict[str, bool] = {}
        found = [_layer(site, form, shape) for site, form, shape in _with_forms(sites, len(self._said), axes)]
        spatial = [layer for layer in found if layer.usable]
        _, gradients, _ = capture.activations_and_gradients(call, [layer.site for layer in spatial], score)
        reached = {layer.name: _reached(layer, gradient) for layer, gradient in zip(spatial, gradients, strict=True)}
        self.layers = LayerTable(reached.get(layer.name, layer) for layer in found)

    def trunk(self, layer: Layer) -> bool:
        """Whether everything that the network says passes through this layer.

        The two probe images swap their activations there; on the trunk the outputs swap with them, to float error. A
        branch, a query or a key leaves something of the first image in the output.
        """
        key = self._same[layer.name]
        if key not in self._verdicts:
            swapped = self._everything_said(capture.output_with_swapped_rows(self._call, layer.site))
            wanted = self._said.flip(0)
            bound = BYPASS_TOLERANCE * (self._said - wanted).abs().max()
            self._verdicts[key] = bool((swapped - wanted).abs().max() <= bound)
        return self._verdicts[key]

    def _everything_said(self, output: Any) -> Tensor:
        """(2, numbers): the score, and every tensor of the output that has a row per image."""
        with torch.no_grad():
            score = self._score(output).float().view(-1, 1)
        tensors = [t for t in capture.tensors(output) if t.is_floating_point() and t.shape[:1] == score.shape[:1]]
        return torch.cat([score, *(t.float().flatten(1) for t in tensors)], 1)

    def choose(self) -> Layer:
        """The last usable layer on the trunk with a gradient; where there is none (U-Nets, ...), the last usable one.

        The returned layer's `trunk` says which of the two it is. RefusalError where no layer is usable.
        """
        usable = [layer for layer in self.layers if layer.usable]
        reached = [layer for layer in usable if layer.gradient]
        for layer in reversed(reached):
            if self.trunk(layer):
                return replace(layer, trunk=True)
        if usable:
            return replace((reached or usable)[-1], trunk=False)
        raise RefusalError(
            f"no layer of this network has both a spatial grid and a gradient from the target ({len(self.layers)} layers "
            "traced). Use a method on the input: gradient, smooth_grad or integrated_gradients."
        )


def _with_forms(
    sites: Sequence[tuple[Site, tuple[int, ...], str]], batch: int, axes: Sequence[int]
) -> Iterator[tuple[Site, Form | None, tuple[int, ...]]]:
    grids: set[tuple[int, ...]] = set()
    for site, shape, _ in sites:
        form = _form(shape, batch, axes, grids)
        if form is not None and form.kind != "tokens":
            grids.add(form.grid)
        yield site, form, shape


def _layer(site: Site, form: Form | None, shape: tuple[int, ...]) -> Layer:
    if form is None:
        returned = " x ".join(map(str, shape[1:])) or "one number"
        return Layer(site.name, site, None, 0, why_not=f"not spatial: returns {returned} per image")
    channels = shape[1] if form.kind == "channels first" else shape[-1]
    why_not = "one cell only: it cannot say where" if max(form.grid) == 1 else ""
    return Layer(site.name, site, form, channels, why_not=why_not)


def _reached(layer: Layer, gradient: Tensor | None) -> Layer:
    if gradient is None or layer.form is None:
        return replace(layer, gradient=0.0, why_not="the target does not depend on it")
    at_cells = float(layer.form.cells(gradient).abs().max())
    if at_cells == 0 and float(gradient.abs().max()) > 0:
        return replace(
            layer, gradient=0.0, why_not="only its prefix tokens are read: the gradient at its cells is exactly 0"
        )
    return replace(layer, gradient=at_cells)


def _form(shape: tuple[int, ...], batch: int, axes: Sequence[int], grids: set[tuple[int, ...]]) -> Form | None:
    """Channels first or last by which axes keep the image's proportions; tokens by a grid that fits their number."""
    if shape[0] != batch:
        return None
    if len(shape) == 2 + len(axes):
        first, last = _same_proportions(shape[2:], axes), _same_proportions(shape[1:-1], axes)
        if last and (not first or (shape[1:-1] in grids and shape[2:] not in grids)):
            return Form("channels last", shape[1:-1])  # where both fit, a grid that was seen before decides
        return Form("channels first", shape[2:]) if first else None
    if len(shape) != 3 or len(axes) != 2:
        return None
    for prefix in range(min(MAX_PREFIX_TOKENS, shape[1] - 1) + 1):
        for grid in sorted(grids | {_grid_of(shape[1] - prefix, axes)}, reverse=True):
            if grid[0] * grid[1] == shape[1] - prefix > 1 and _same_proportions(grid, axes):
                return Form("tokens", grid, prefix)
    return None


def _grid_of(cells: int, axes: Sequence[int]) -> tuple[int, ...]:
    height = round((cells * axes[0] / axes[1]) ** 0.5)
    return (height, cells // height) if height else (0, 0)


def _same_proportions(grid: Sequence[int], axes: Sequence[int]) -> bool:
    """Every axis is shrunk by the same factor, up to the rounding of strides and borders."""
    if min(grid) < 1 or any(cells > axis for cells, axis in zip(grid, axes, strict=True)):
        return False
    stride = max(axis / cells for cells, axis in zip(grid, axes, strict=True))
    return all(abs(cells - axis / stride) < max(1.0, 0.15 * cells) for cells, axis in zip(grid, axes, strict=True))

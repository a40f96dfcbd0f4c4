"""Where in a network a map can be taken, found by running it: spatial form, trunk or branch, gradient at the cells."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.capture import Score, Site
from seewhy.errors import RefusalError, UsageError, near_names

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

    @property
    def rows_axis(self) -> int:
        """The axis of the layer's output along which the image's rows run."""
        return 2 if self.kind == "channels first" else 1

    def cells(self, tensor: Tensor) -> Tensor:
        """(R, *layout) -> (R, C, *grid)."""
        if self.kind == "channels first":
            return tensor
        if self.kind == "channels last":
            return tensor.movedim(-1, 1)
        tokens = tensor[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(tensor), -1, *self.grid)

    def edited(self, tensor: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output with its cells replaced by `edit` of them (R, C, *grid); prefix tokens stay."""
        cells = edit(self.cells(tensor)).to(tensor.dtype)
        if self.kind == "channels first":
            return cells
        if self.kind == "channels last":
            return cells.movedim(1, -1)
        return torch.cat([tensor[:, : self.prefix], cells.flatten(2).transpose(1, 2)], 1)


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

    def cells(self, tensor: Tensor) -> Tensor:
        """What a spatial layer returned, or a gradient there, as (R, channels, *grid), float32."""
        assert self.form is not None, "a layer with a map is spatial"
        return self.form.cells(tensor).float()

    def slope(self, gradient: Tensor | None) -> Tensor:
        """The gradient at a spatial layer's cells, (R, channels, *grid), float32; RefusalError where none arrives."""
        if gradient is None:
            raise RefusalError(
                f"no gradient of the target reaches layer {self.name!r}: it does not depend on it, or the graph is cut "
                "between them. Choose another; model.layers() lists the usable ones."
            )
        return self.cells(gradient)

    def edited(self, tensor: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """What a spatial layer returned, with its cells (R, channels, *grid) replaced by `edit` of them."""
        assert self.form is not None, "an editable layer is spatial"
        return self.form.edited(tensor, edit)

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

    def __init__(self, module: nn.Module, run: Callable[[Tensor], Any], probes: Tensor, score: Score) -> None:
        self._run, self._probes, self._score = run, probes, score
        sites, output = capture.trace(module, self._call)
        if not sites:
            raise RefusalError(
                "no submodule of this network is called in its forward (scripted or exported code hides them): there is no "
                "layer to look into. Methods on the input are exact: gradient, smooth_grad, integrated_gradients, occlusion."
            )
        self._said = self._everything_said(output)
        self._same = {site.name: twin for site, _, twin in sites}
        self._verdicts: dict[str, bool] = {}
        self._chosen: Layer | None = None
        self._cut_at = ""
        forms = [_forms(shape, len(probes), probes.shape[2:]) for _, shape, _ in sites]
        unclear = [site for (site, _, _), found in zip(sites, forms, strict=True) if len(found) > 1]
        rows_axis = self._rows_axis(unclear)
        found = [
            _layer(site, next((f for f in fits if f.rows_axis == rows_axis.get(site.name, f.rows_axis)), None), shape)
            for (site, shape, _), fits in zip(sites, forms, strict=True)
        ]
        spatial = [layer for layer in found if layer.usable]
        _, gradients = capture.activations_and_gradients(self._call, [layer.site for layer in spatial], score)
        reached = {layer.name: _reached(layer, gradient) for layer, gradient in zip(spatial, gradients, strict=True)}
        if any(gradient is None for gradient in gradients):
            reached |= self._cut(module, [layer for layer, g in zip(spatial, gradients, strict=True) if g is None])
        self.layers = LayerTable(reached.get(layer.name, layer) for layer in found)

    def _call(self) -> Any:
        return self._run(self._probes)

    def _rows_axis(self, sites: Sequence[Site]) -> dict[str, int]:
        """The axis of each output that runs along the image's rows, by experiment, where its shape alone cannot tell.

        The upper half of a picture is exchanged: along the true axis the change gathers in the first half.
        """
        if not sites:
            return {}
        mixed = self._probes[:1].repeat(2, *[1] * (self._probes.ndim - 1))
        half = mixed.shape[2] // 2
        mixed[1, :, :half] = self._probes[1, :, :half]
        found = {}
        for site, (plain, changed) in zip(sites, capture.outputs_at(lambda: self._run(mixed), sites), strict=True):
            change = (changed - plain).float().abs()

            def gathered(axis: int, change: Tensor = change) -> float:
                profile = change.movedim(axis, 0).flatten(1).sum(1)
                return float(profile[: len(profile) // 2].sum() / profile.sum().clamp_min(1e-30))

            found[site.name] = max((1, 2), key=lambda axis: gathered(axis - 1))
        return found

    def _cut(self, module: nn.Module, unreached: Sequence[Layer]) -> dict[str, Layer]:
        """Those that the output does depend on, and yet no gradient reaches them: they say where the graph is cut."""
        asked = [layer for layer in unreached if not torch.equal(self._said, self._swapped(layer))]
        if not asked:
            return {}
        cut = capture.where_graph_is_cut(module, lambda: self._run(self._probes.clone().requires_grad_()))
        self._cut_at = cut or capture.OUTSIDE
        why_not = f"no gradient reaches it: the graph is cut between it and the score, at {self._cut_at}"
        return {layer.name: replace(layer, gradient=0.0, why_not=why_not) for layer in asked}

    def _swapped(self, layer: Layer) -> Tensor:
        return self._everything_said(capture.output_with_edit(self._call, layer.site, lambda rows: rows.flip(0)))

    def trunk(self, layer: Layer) -> bool:
        """Whether everything that the network says passes through this layer.

        The two probe images swap their activations there; on the trunk the outputs swap with them, to float error. A
        branch, a query or a key leaves something of the first image in the output.
        """
        key = self._same[layer.name]
        if key not in self._verdicts:
            swapped = self._swapped(layer)
            wanted = self._said.flip(0)
            bound = BYPASS_TOLERANCE * (self._said - wanted).abs().max()
            self._verdicts[key] = bool((swapped - wanted).abs().max() <= bound)
        return self._verdicts[key]

    def _everything_said(self, output: Any) -> Tensor:
        """(2, numbers): the score, and every tensor of the output that has a row per image."""
        with torch.no_grad():
            score = self._score(output).float().view(-1, 1)
        tensors = [t for t in capture.tensors(output) if t.is_floating_point() and t.shape[:1] == score.shape[:1]]
        return torch.cat([score, *(t.float().reshape(len(t), -1) for t in tensors)], 1)

    def choose(self) -> Layer:
        """The last usable layer on the trunk with a gradient; where there is none (U-Nets, ...), the last usable one.

        The returned layer's `trunk` says which of the two it is. RefusalError where no layer is usable.
        """
        if self._chosen is not None:
            return self._chosen
        usable = [layer for layer in self.layers if layer.usable]
        reached = [layer for layer in usable if layer.gradient]
        last = next((replace(layer, trunk=True) for layer in reversed(reached) if self.trunk(layer)), None)
        if last is None and usable:
            last = replace((reached or usable)[-1], trunk=False)
        if last is not None:
            self._chosen = last
            return last
        instead = "Use a method on the input: gradient, smooth_grad or integrated_gradients."
        if self._cut_at:
            instead = f"The graph is cut at {self._cut_at}; {capture.WITHOUT_GRADIENTS}."
        raise RefusalError(
            f"no layer of this network has both a spatial grid and a gradient from the target ({len(self.layers)} layers "
            f"traced). {instead}"
        )

    def find(self, given: str | nn.Module) -> Layer:
        """A layer by name or as an object; UsageError with near names, RefusalError where no map can be taken."""
        if not isinstance(given, str | nn.Module):
            raise UsageError(f"a layer is a name or a module of the network, not {type(given).__name__}.")
        if isinstance(given, nn.Module):
            matches = [layer for layer in self.layers if layer.site.module is given]
            known = "the object that was given is not a submodule that is reached in the forward pass."
        else:
            matches = [layer for layer in self.layers if layer.name == given]
            known = near_names(given, [layer.name for layer in self.layers])
        shown = repr(given) if isinstance(given, str) else type(given).__name__
        if not matches:
            raise UsageError(f"no layer {shown} in the forward pass of this network: {known}")
        if len(matches) > 1:
            raise UsageError(
                f"layer {shown} is called {len(matches)} times: choose {matches[0].name!r} or another by name."
            )
        if not matches[0].usable:
            raise RefusalError(
                f"no map can be taken at layer {shown}: {matches[0].why_not}. Usable here: {self.choose().name!r}."
            )
        return replace(matches[0], trunk=self.trunk(matches[0]))


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


def _forms(shape: tuple[int, ...], batch: int, axes: Sequence[int]) -> list[Form]:
    """The readings that fit: channels first or last by which axes keep the image's proportions, or tokens of a grid."""
    if shape[0] != batch:
        return []
    if len(shape) == 2 + len(axes):
        first, last = Form("channels first", shape[2:]), Form("channels last", shape[1:-1])
        fits = [form for form in (first, last) if _same_proportions(form.grid, axes)]
        return fits[:1] if first in fits and max(first.grid) == 1 else fits  # pooled to one cell, whatever else fits
    form = token_form(shape[1], axes) if len(shape) == 3 else None
    return [] if form is None else [form]


def token_form(tokens: int, axes: Sequence[int]) -> Form | None:
    """So many tokens as a grid that keeps the image's proportions, behind as few others as can be; None if none fits."""
    for prefix in range(min(MAX_PREFIX_TOKENS, tokens - 1) + 1) if len(axes) == 2 else ():
        grid = _grid_of(tokens - prefix, axes)
        if grid[0] * grid[1] == tokens - prefix > 1 and _same_proportions(grid, axes):
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


def probe_images(shape: Sequence[int]) -> Tensor:
    """Two different smooth pictures (2, C, *axes) in [0, 1], the same on every run, to find a network's layers with."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, shape[0], *[min(8, axis) for axis in shape[1:]], generator=generator, dtype=torch.float32)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape) - 1]
    smooth = nn.functional.interpolate(coarse, size=tuple(shape[1:]), mode=mode, align_corners=False)
    return (0.75 * smooth + 0.25 * torch.rand(2, *shape, generator=generator, dtype=torch.float32)).clamp(0, 1)


@contextmanager
def probes_fit(device: torch.device) -> Iterator[None]:
    """RefusalError for an out-of-memory inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RefusalError(
            f"finding layers takes two images at once, which do not fit into the memory of {device}: no class activation "
            "map. Input methods take one row at a time."
        ) from error

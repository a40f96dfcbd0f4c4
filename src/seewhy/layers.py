"""Where in a network a map can be taken, found by running it: spatial form, trunk or branch, gradient at the cells."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy import capture, places
from seewhy.capture import Score, Site
from seewhy.errors import RefusalError, UsageError, near_names
from seewhy.forms import LINEAR, Form, keeps_proportions, possible_forms
from seewhy.places import Run
from seewhy.target import is_detections, scores

Result = TypeVar("Result")
TRIED_HARDER = 4  # trunk layers from the last on, where two pictures do not tell; of earlier ones two must
ROWS_OF_EXPERIMENTS = 5  # an image, and it with each of its quadrants exchanged
FEWEST_ROWS = 2  # the two probe images
SAME = 1e-3  # relative to the difference between two images' outputs: float error is far below, a branch far above


@dataclass(frozen=True)
class Layer:
    """One place in the network; `usable` or `why_not`."""

    name: str
    site: Site
    form: Form | None  # None: not spatial
    channels: int
    trunk: bool | None = None  # whether everything passes through it; None: not tested
    in_place: bool | None = None  # whether its cells were seen to answer to their part of the image; None: not tested
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
            "in_place": self.in_place,
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
        rows = [("layer", "kind", "grid", "channels", "trunk", "in place", "gradient", "usable")]
        said = {True: "yes", False: "no", None: "?"}
        for layer in self:
            grid = " x ".join(map(str, layer.form.grid)) if layer.form else ""
            gradient = "?" if layer.gradient is None else f"{layer.gradient:.1e}"
            kind = layer.form.kind if layer.form else "not spatial"
            tested = (said[layer.trunk], said[layer.in_place], gradient)
            rows.append((layer.name, kind, grid, str(layer.channels), *tested, layer.why_not or "yes"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    __repr__ = __str__


class Trace:
    """One run of a network on two probe images: its layers, each with the gradient at its cells, and what tests them."""

    def __init__(self, module: nn.Module, run: Run, probes: Tensor, score: Score) -> None:
        self._module, self._run, self._probes, self._score = module, run, probes, score
        sites, output = capture.trace(module, self._call)
        if not sites:
            raise RefusalError(
                "no submodule of this network is called in its forward (scripted or exported code hides them): there is no "
                "layer to look into. Methods on the input are exact: gradient, smooth_grad, integrated_gradients, occlusion."
            )
        self._said = self._everything_said(output)
        self._dense = _dense(output, probes)
        self._same = {site.name: twin for site, _, twin in sites}
        self._trunk: dict[str, bool] = {}
        self._in_place: dict[tuple[str, Form], bool] = {}  # by two pictures
        self._in_place_again: dict[tuple[str, Form], bool] = {}  # of those where two did not tell, by more
        self._chosen: Layer | None = None
        self._cut_at = ""
        readings = {site.name: possible_forms(shape, len(probes), probes.shape[2:]) for site, shape, _ in sites}
        read = [site for site, _, _ in sites if readings[site.name]]
        readings = places.with_tokens_counted(run, probes, read, readings)
        doubtful = [site for site in read if len(readings[site.name]) > 1]
        right = places.readings_in_place(run, probes, doubtful, readings) if doubtful else {}
        forms = {name: right.get(name, next(iter(several), None)) for name, several in readings.items()}
        self._in_place.update({(self._same[name], form): True for name, form in right.items()})
        found = [_layer(site, forms[site.name], shape) for site, shape, _ in sites]
        spatial = [layer for layer in found if layer.usable]
        _, gradients = capture.activations_and_gradients(self._call, [layer.site for layer in spatial], score)
        reached = {layer.name: _reached(layer, gradient) for layer, gradient in zip(spatial, gradients, strict=True)}
        if any(gradient is None for gradient in gradients):
            reached |= self._cut(module, [layer for layer, g in zip(spatial, gradients, strict=True) if g is None])
        self.layers = LayerTable(reached.get(layer.name, layer) for layer in found)

    def _call(self) -> Any:
        return self._run(self._probes)

    # -- what is tested of a layer ---------------------------------------------------------------------------------

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
        assert layer.form is not None, "only a spatial layer is asked"
        axis = layer.form.rows_axis
        return self._everything_said(capture.output_with_edit(self._call, layer.site, lambda rows: rows.flip(axis)))

    def trunk(self, layer: Layer) -> bool:
        """Whether everything that the network says passes through this layer.

        The two probe images swap their activations there; on the trunk the outputs swap with them, to float error. A
        branch, a query or a key leaves something of the first image in the output.
        """
        key = self._same[layer.name]
        if key not in self._trunk:
            swapped = self._swapped(layer)
            wanted = self._said.flip(0)
            bound = SAME * (self._said - wanted).abs().max()
            self._trunk[key] = bool((swapped - wanted).abs().max() <= bound)
        return self._trunk[key]

    def tested(self, layer: Layer, again: bool = True) -> Layer:
        """The layer with what its tests say: trunk or branch, and whether its cells lie over the image as they are read.

        A shape that keeps the image's proportions is evidence by itself; any other reading needs the experiment.
        again: whether to try harder where two pictures do not tell: about as many rows as everything else.
        """
        if not layer.usable or layer.form is None:
            return layer
        self._answer([layer])
        key = (self._same[layer.name], layer.form)
        if again and not self._in_place[key] and key not in self._in_place_again:
            self._in_place_again[key] = places.answers_again(
                self._run, self._probes, layer.site, layer.form
            ) or places.looks_in_place(self._module, self._run, self._probes, layer.site, layer.form)
        in_place = self._in_place[key] or self._in_place_again.get(key, False)
        why_not = "" if in_place or self._is_evident(layer.form) else _no_grid(layer.form, layer.channels)
        return replace(layer, trunk=self.trunk(layer), in_place=in_place, why_not=why_not)

    def _answer(self, layers: Sequence[Layer]) -> None:
        """Note of these layers whether parts of the image are answered in place there; in one experiment for all."""
        keys = {layer.name: (self._same[layer.name], layer.form) for layer in layers if layer.form is not None}
        open_ones = [layer for layer in layers if layer.name in keys and keys[layer.name] not in self._in_place]
        if open_ones:
            readings = {layer.name: [layer.form] for layer in open_ones if layer.form is not None}
            right = places.readings_in_place(self._run, self._probes, [layer.site for layer in open_ones], readings)
            self._in_place.update({keys[layer.name]: layer.name in right for layer in open_ones})

    def all_tested(self, progress: Callable[[int, int], None] | None = None) -> LayerTable:
        """Every layer, each tested; progress: called with (layers done, layers in all)."""
        self._answer([layer for layer in self.layers if layer.usable])
        table = LayerTable()
        for done, layer in enumerate(self.layers, 1):
            table.append(self.tested(layer))
            if progress is not None:
                progress(done, len(self.layers))
        return table

    def _is_evident(self, form: Form) -> bool:
        return form.kind != "tokens" and keeps_proportions(form.grid, self._probes.shape[2:])

    def _everything_said(self, output: Any) -> Tensor:
        """(2, numbers): the score, and every tensor of the output that has a row per image."""
        with torch.no_grad():
            score = self._score(output).float().view(-1, 1)
        found = [] if is_detections(output) else capture.tensors(output)  # lists of boxes have no fixed length
        tensors = [t for t in found if t.is_floating_point() and t.shape[:1] == score.shape[:1]]
        return torch.cat([score, *(t.float().reshape(len(t), -1) for t in tensors)], 1)

    # -- which layer -----------------------------------------------------------------------------------------------

    def choose(self) -> Layer:
        """The last usable layer on the trunk with a gradient; where there is none (U-Nets, ...), the last usable one.

        The experiment costs two rows a layer, so autograd's graph first says which layers no path leads around.
        One whose cells were seen to lie in place is preferred, and the network's own output (of a segmentation network) is
        passed over: a map there only repeats the prediction. The returned layer's `trunk` and `in_place` say what it is.
        RefusalError where no layer is usable.
        """
        if self._chosen is None:
            self._chosen = self._best()
        if self._chosen is None:
            instead = "Use a method on the input: gradient, smooth_grad or integrated_gradients."
            if self._cut_at:
                instead = f"The graph is cut at {self._cut_at}; {capture.WITHOUT_GRADIENTS}."
            raise RefusalError(
                f"no layer of this network has both a spatial grid and a gradient from the target ({len(self.layers)} layers "
                f"traced). {instead}"
            )
        return self._chosen

    def _best(self) -> Layer | None:
        candidates = [layer for layer in reversed(self.layers) if layer.usable]
        reached = [layer for layer in candidates if layer.gradient]
        around = capture.on_every_path(self._module, self._call, [layer.site for layer in reversed(reached)])
        on_path = [layer for layer in reached if around.get(layer.name, True)]
        failed: list[Layer] = []
        for place, layer in enumerate(on_path):
            if self.trunk(layer) and not self._is_the_output(layer):
                if failed:
                    self._answer(on_path[place:])  # where the last one fails many may: one experiment for all of them
                tested = self.tested(layer, again=len(failed) < TRIED_HARDER)
                if tested.in_place:
                    return tested
                failed.append(tested)
        if doubtful := [layer for layer in failed if layer.usable]:
            return doubtful[0]
        return next((tested for tested in map(self.tested, reached or candidates) if tested.usable), None)

    def _is_the_output(self, layer: Layer) -> bool:
        """Whether a dense output (of a segmentation network, say) is this layer's, resized or as it is."""
        if self._dense is None or layer.form is None or layer.channels != self._dense.shape[1]:
            return False
        (tensor,) = capture.outputs_at(self._call, [layer.site])
        cells = layer.cells(tensor)
        if cells.shape != self._dense.shape:
            mode = LINEAR[len(layer.form.grid)]
            cells = functional.interpolate(cells, size=self._dense.shape[2:], mode=mode, align_corners=False)
        return bool((cells - self._dense).abs().max() <= SAME * self._dense.abs().max())

    def find(self, given: str | nn.Module) -> Layer:
        """A layer by name or as an object; UsageError with near names, RefusalError where no map can be taken."""
        if not isinstance(given, str | nn.Module):
            raise UsageError(f"a layer is a name or a module of the network, not {type(given).__name__}.")
        if isinstance(given, nn.Module):
            matches = [layer for layer in self.layers if layer.site.module is given]
            known = "the object that was given is not a submodule that is reached in the forward pass."
        else:
            matches = [layer for layer in self.layers if layer.name == given]
            calls = [layer.name for layer in self.layers if layer.name.partition("#")[0] == given]
            several = f"it is called {len(calls)} times, choose one: {', '.join(calls)}."
            known = several if calls and not matches else near_names(given, [layer.name for layer in self.layers])
        shown = repr(given) if isinstance(given, str) else type(given).__name__
        if not matches:
            raise UsageError(f"no layer {shown} in the forward pass of this network: {known}")
        if len(matches) > 1:
            raise UsageError(
                f"layer {shown} is called {len(matches)} times: choose {matches[0].name!r} or another by name."
            )
        found = self.tested(matches[0])
        if not found.usable:
            self._chosen = self._chosen or self._best()
            other = f"Usable here: {self._chosen.name!r}" if self._chosen else "No other layer is usable either"
            raise RefusalError(f"no map can be taken at layer {shown}: {found.why_not}. {other}.")
        return found


def _layer(site: Site, form: Form | None, shape: tuple[int, ...]) -> Layer:
    if form is None:
        returned = " x ".join(map(str, shape[1:])) or "one number"
        return Layer(site.name, site, None, 0, why_not=f"not spatial: returns {returned} per image")
    why_not = "one cell only: it cannot say where" if max(form.grid) == 1 else ""
    return Layer(site.name, site, form, shape[form.channels_axis], why_not=why_not)


def _no_grid(form: Form, channels: int) -> str:
    """Why a reading that its shape allows is refused; with tokens and channels as the layer returns them."""
    grid = " x ".join(map(str, form.grid))
    returned = f"{form.tokens} x {channels}, " if form.kind == "tokens" else ""
    others = f" and {form.prefix} others" if form.prefix else ""
    return f"no grid over the image: {returned}read as {grid} cells{others}, which do not answer to their part of it"


def _reached(layer: Layer, gradient: Tensor | None) -> Layer:
    if gradient is None or layer.form is None:
        return replace(layer, gradient=0.0, why_not="the target does not depend on it")
    at_cells = float(layer.form.cells(gradient).abs().max())
    if at_cells == 0 and float(gradient.abs().max()) > 0:
        return replace(
            layer, gradient=0.0, why_not="only its prefix tokens are read: the gradient at its cells is exactly 0"
        )
    return replace(layer, gradient=at_cells)


def _dense(output: Any, probes: Tensor) -> Tensor | None:
    """The score table of a network that says something of every place, (2, classes, *axes)."""
    try:
        table = scores(output)
    except UsageError:  # an output that holds no table is read by the user's own target
        return None
    return table.float() if table.ndim == probes.ndim and max(table.shape[2:]) > 1 else None


def in_memory(look: Callable[[int], Result], most: int, device: torch.device) -> Result:
    """What `look` finds with so many rows at once, five at most, or with two where these do not fit; else RefusalError."""
    rows = max(FEWEST_ROWS, min(most, ROWS_OF_EXPERIMENTS))
    try:
        return look(rows)
    except torch.OutOfMemoryError as error:
        if rows > FEWEST_ROWS:
            return in_memory(look, FEWEST_ROWS, device)
        raise RefusalError(
            f"finding layers takes two images at once, which do not fit into the memory of {device}: no class activation "
            "map. Input methods take one row at a time."
        ) from error

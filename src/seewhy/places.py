"""Experiments on whether the cells of a layer answer to the part of the image that they are read as."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy import capture
from seewhy.capture import Site
from seewhy.errors import RefusalError
from seewhy.forms import (
    Form,
    answers_in_place,
    cell_patterns,
    cells_before,
    orthants,
    per_orthant,
    probe_images,
    same_orthants,
)

Run = Callable[[Tensor], Any]
Readings = Mapping[str, list[Form]]  # of what a site returns, by its name
PAIRS_AGAIN = 4  # further pairs of images for a layer of which the first pair did not tell


def with_tokens_counted(run: Run, probes: Tensor, sites: Sequence[Site], readings: Readings) -> dict[str, list[Form]]:
    """The readings with one for each number of tokens: how many are cells, of which grid, and where the others stand.

    55 tokens may be 5 x 11 cells or a class token and 6 x 9; a class token in front of the grid or behind it gives the same
    shape, and one misread shifts every cell. Seen at the first site that has so many tokens.
    """
    found: dict[tuple[tuple[int, int, int], int], Form | None] = {}
    for site in sites:
        for order, forms in _token_forms(readings[site.name]).items():
            key = (order, forms[0].tokens)
            if key not in found:
                found[key] = read_tokens(run, probes, site, forms)
    return {name: _counted(forms, found) for name, forms in readings.items()}


def _token_forms(forms: Sequence[Form]) -> dict[tuple[int, int, int], list[Form]]:
    orders = dict.fromkeys(form.order for form in forms if form.kind == "tokens")
    return {order: [form for form in forms if form.kind == "tokens" and form.order == order] for order in orders}


def _counted(forms: Sequence[Form], found: Mapping[tuple[tuple[int, int, int], int], Form | None]) -> list[Form]:
    one_each = [found[order, several[0].tokens] for order, several in _token_forms(forms).items()]
    return [form for form in forms if form.kind != "tokens"] + [form for form in one_each if form is not None]


def read_tokens(run: Run, probes: Tensor, site: Site, forms: Sequence[Form]) -> Form | None:
    """Of several readings of as many tokens the one by which they follow the image best; None where there is none.

    Random halves of the cells of each reading are exchanged for another image's: the tokens that change are those cells.
    """
    if len(forms) == 1 and not forms[0].prefix:
        return forms[0]
    best: Form | None = None
    most = 0.0
    for form in forms:
        patterns = cell_patterns(form.grid)
        shown = probes[:1].repeat(1 + len(patterns), *[1] * (probes.ndim - 1))
        masks = functional.interpolate(patterns[:, None], size=shown.shape[2:]).to(shown.device)
        shown[1:] = torch.where(masks > 0, probes[1:], shown[1:])
        (tensor,) = capture.outputs_at(partial(run, shown), [site])
        if not form.fits(tensor.shape, len(shown)):
            continue
        tokens = tensor.permute(form.order).float()
        changes = (tokens[1:] - tokens[:1]).abs().mean(2)
        place, correlation = cells_before(changes, patterns.flatten(1).to(changes.device), form.prefix)
        if best is None or correlation > most:
            best, most = replace(form, before=place), correlation
    return best


def readings_in_place(run: Run, probes: Tensor, sites: Sequence[Site], readings: Readings) -> dict[str, Form]:
    """Per site the reading whose cells change most where the image does; none for a site where no reading is so.

    One orthant (a quadrant of a picture) after the other of a probe image is exchanged for the other image's, and the same
    the other way round; both have to tell.
    """
    changes: dict[tuple[str, Form], list[Tensor]] = {}
    for pair in (probes, probes.flip(0)):
        for key, found in _changes(run, pair, sites, readings).items():
            changes.setdefault(key, []).append(found)
    right = {key: answers_in_place(torch.stack(found)) for key, found in changes.items()}
    return {name: form for (name, form), in_place in reversed(right.items()) if in_place}


def _changes(run: Run, pair: Tensor, sites: Sequence[Site], readings: Readings) -> dict[tuple[str, Form], Tensor]:
    """Per site and reading how much each orthant of the grid (columns) changes with each of the image (rows)."""
    one, other = pair
    axes = one.shape[1:]
    parts = orthants(axes)
    shown = one.repeat(1 + len(parts), *[1] * one.ndim)
    for q, part in enumerate(parts):
        shown[(1 + q, slice(None), *part)] = other[(slice(None), *part)]
    changes: dict[tuple[str, Form], Tensor] = {}

    def look(site: Site, tensor: Tensor) -> None:
        for form in readings[site.name]:
            if form.fits(tensor.shape, len(shown)):
                cells = form.cells(tensor).float()
                change = per_orthant((cells[1:] - cells[:1]).abs().mean(1))
                changes[site.name, form] = same_orthants(change, axes, form.grid)

    capture.look_at(partial(run, shown), sites, look)
    return changes


def answers_again(run: Run, probes: Tensor, site: Site, form: Form) -> bool:
    """The same for one reading with further images, their changes averaged; every half of the images has to tell."""
    found = []
    for seed in range(1, 1 + PAIRS_AGAIN):
        pair = probe_images(probes.shape[1:], seed).to(probes.device)
        found += list(_changes(run, pair, [site], {site.name: [form]}).values())
    if len(found) < PAIRS_AGAIN:
        return False
    shares = torch.stack([change / change.max() for change in found])
    return answers_in_place(torch.stack([shares[half::2].mean(0) for half in range(2)]))


def looks_in_place(module: nn.Module, run: Run, probes: Tensor, site: Site, form: Form) -> bool:
    """The same by gradients, where everything changes everywhere: each cell in the middle of an orthant of the grid.

    Its activation along a fixed random direction has to depend most on the pixels of its own orthant of the image.
    """
    axes = probes.shape[2:]
    middles = [tuple((part.start + part.stop - 1) // 2 for part in parts) for parts in orthants(form.grid)]

    def along(tensor: Tensor) -> Tensor:
        cells = form.cells(tensor).float()
        direction = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(0)).to(cells.device)
        return torch.stack([cells[(q, slice(None), *middle)] @ direction for q, middle in enumerate(middles)])

    found = []
    for probe in probes:
        shown = probe.repeat(len(middles), *[1] * probe.ndim)
        try:
            slope = capture.input_gradient(module, lambda x: capture.returned_by(partial(run, x), site), shown, along)
        except RefusalError:  # the graph is cut below the layer: a gradient cannot tell
            return False
        found.append(same_orthants(per_orthant(slope.float().abs().sum(1)).T, axes, form.grid).T)
    return answers_in_place(torch.stack(found))

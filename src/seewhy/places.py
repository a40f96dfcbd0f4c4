"""Experiments on whether the cells of a layer answer to the part of the image that they are read as."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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

Look = Callable[..., None]  # site, what it returned, rows=
Readings = Mapping[str, list[Form]]  # of what a site returns, by its name
PAIRS_AGAIN = 4  # further pairs of images for a layer of which the first pair did not tell


@dataclass(frozen=True)
class Run:
    """The network on images, and how many of them it may be given at once."""

    network: Callable[[Tensor], Any]
    rows: int

    def __call__(self, x: Tensor) -> Any:
        """The network's output for images (R, C, *axes)."""
        return self.network(x)


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
        masks = functional.interpolate(patterns[:, None], size=probes.shape[2:]).to(probes.device)
        changes = _changes_of_tokens(run, site, form, probes[:1], torch.where(masks > 0, probes[1:], probes[:1]))
        if changes is None:
            continue
        place, correlation = cells_before(changes, patterns.flatten(1).to(changes.device), form.prefix)
        if best is None or correlation > most:
            best, most = replace(form, before=place), correlation
    return best


def _changes_of_tokens(run: Run, site: Site, form: Form, one: Tensor, others: Tensor) -> Tensor | None:
    """How much each token of one image changes with each of the others, (others, tokens)."""
    found: list[Tensor] = []

    def look(_: Site, tensor: Tensor, rows: int) -> None:
        if form.fits(tensor.shape, rows):
            tokens = tensor.permute(form.order).float()
            found.append((tokens[1:] - tokens[:1]).abs().mean(2))

    _show(run, one, others, [site], look)
    changes = torch.cat(found) if found else one.new_empty(0)
    return changes if len(changes) == len(others) else None


def _show(run: Run, one: Tensor, others: Tensor, sites: Sequence[Site], look: Look) -> None:
    """One image (1, C, *axes) beside others, as many as a run may have: `look(site, what it returned, rows)`."""
    with torch.no_grad():
        for part in torch.split(others, run.rows - 1):
            capture.look_at(partial(run, torch.cat([one, part])), sites, partial(look, rows=1 + len(part)))


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
    one, other = pair[:1], pair[1]
    axes = one.shape[2:]
    changes: dict[tuple[str, Form], list[Tensor]] = {}

    def look(site: Site, tensor: Tensor, rows: int) -> None:
        for form in readings[site.name]:
            if form.fits(tensor.shape, rows):
                cells = form.cells(tensor).float()
                change = per_orthant((cells[1:] - cells[:1]).abs().mean(1))
                changes.setdefault((site.name, form), []).append(change)

    parts = orthants(axes)
    shown = one.repeat(len(parts), *[1] * (one.ndim - 1))
    for exchanged, part in zip(shown, parts, strict=True):
        exchanged[(slice(None), *part)] = other[(slice(None), *part)]
    _show(run, one, shown, sites, look)
    whole = {key: torch.cat(found) for key, found in changes.items()}
    complete = {key: found for key, found in whole.items() if len(found) == len(parts)}
    return {key: same_orthants(found, axes, key[1].grid) for key, found in complete.items()}


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
    middles = [torch.tensor([(side.start + side.stop - 1) // 2 for side in part]) for part in orthants(form.grid)]

    def along(tensor: Tensor, middle: Tensor) -> Tensor:
        cells = form.cells(tensor).float()
        direction = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(0)).to(cells.device)
        for place in middle:
            cells = cells.select(2, int(place))
        return cells @ direction

    def at_site(x: Tensor) -> Tensor:
        return capture.returned_by(partial(run, x), site)

    found = []
    for probe in probes:
        try:
            slopes = torch.cat(
                [
                    capture.input_gradient(module, at_site, probe[None], partial(along, middle=middle))
                    for middle in middles
                ]
            )
        except RefusalError:  # the graph is cut below the layer: a gradient cannot tell
            return False
        found.append(same_orthants(per_orthant(slopes.float().abs().sum(1)).T, axes, form.grid).T)
    return answers_in_place(torch.stack(found))

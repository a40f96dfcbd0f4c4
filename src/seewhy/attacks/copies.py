"""A private copy of a network, which an attack may change, and what it says."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.beside import Beside
from seewhy.errors import RefusalError
from seewhy.maps import MapFunction, Maps, join, same_steps
from seewhy.model import VisionModel
from seewhy.target import Target, scores


def private_copy(model: VisionModel) -> VisionModel:
    """The network again with weights of its own: what an attack changes. RefusalError where it cannot be copied."""
    if found := capture.integer_modules(model.module):
        raise RefusalError(
            f"this network computes with quantized integers ({', '.join(found[:3])}): they cannot be tuned. Attack the "
            "network in floating point that it was made from."
        )
    try:
        copied = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise RefusalError(f"this network cannot be copied ({error}), and an attack never touches yours.") from error
    copied.network._guarded = False
    copied.forward_rows = copied.gradient_rows = 0
    copied.on_rows = model.on_rows
    copied.loaded = None
    return copied


def on_copy(maps: MapFunction, found: Maps, copied: VisionModel) -> MapFunction:
    """The same method with the layer and steps that it chose on the user's network, on the copy of it."""
    if found.layer is None:
        return same_steps(maps, found)
    site = found.layer.site
    modules = dict(copied.module.named_modules())
    layer = replace(found.layer, site=replace(site, module=modules[site.name.partition("#")[0]]))
    return same_steps(maps, replace(found, layer=layer))


def without_graph(maps: MapFunction, model: VisionModel, images: Tensor, target: Target) -> Maps:
    """Maps of differentiable methods as plain numbers, batch by batch: no graph outlives its batch."""

    def run(part: slice) -> Maps:
        found = maps(model, images[part], target.select(torch.arange(part.start, part.stop)))
        evidence = {name: values.detach() for name, values in found.evidence.items()}
        return replace(found, raw=found.raw.detach(), values=found.values.detach(), evidence=evidence)

    with capture.frozen(model.module):
        return join(model.in_batches(len(images), images.shape[1:], run))


@contextmanager
def tracked(module: nn.Module) -> Iterator[bool]:
    """Every float parameter requires a gradient inside, also those that the user froze; yields whether there is one."""
    floats = [p for p in module.parameters() if p.is_floating_point()]
    frozen = [p for p in floats if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield bool(floats)
    finally:
        for p in frozen:
            p.requires_grad_(False)


def logits(model: VisionModel, x: Tensor, beside: Beside | None) -> Tensor:
    """The table of logits (R, classes) of one batch, in the network's own precision, with a graph where one is kept.

    RefusalError where the network's answer to an image is no row of numbers.
    """
    outputs = model.forward(x, beside)
    found = model.network.logits(outputs)
    table = scores(outputs, len(x)) if found is None else found
    if table.ndim != 2:
        raise RefusalError(
            f"this network gives {' x '.join(map(str, table.shape[1:]))} scores an image: attacks on weights keep answers "
            "that are one row of them."
        )
    return table

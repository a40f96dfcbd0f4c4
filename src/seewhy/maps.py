"""What a method gives back, and what whoever questions a method asks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.layers import Layer
from seewhy.model import VisionModel
from seewhy.target import Target

ROUNDING = 8  # units in the last place: a map that varies by less is one value everywhere


@dataclass(frozen=True)
class Maps:
    """Maps of N images, with the numbers that only the method can know."""

    raw: Tensor  # (N, *grid) float32, signed, native resolution
    target: Target  # settled
    values: Tensor  # (N,) the explained number on the clean image
    outputs: Tensor | None  # (N, classes) clean score table; None where the output is not a table
    evidence: dict[str, Tensor] = field(default_factory=dict)  # name -> (N,)
    layer: Layer | None = None
    parameters: dict[str, Any] = field(default_factory=dict)  # what was used, where it differs from what was asked
    notes: tuple[str, ...] = ()  # what these maps approximate or leave out, a sentence each without its full stop
    chosen: Mapping[str, Any] = field(default_factory=dict)  # keywords with which the method takes the same steps again


# Whoever questions a method is given this: the method with its parameters bound, and the model left free.
MapFunction = Callable[[VisionModel, Tensor, Target], Maps]


def join(parts: Sequence[Maps]) -> Maps:
    """Maps of consecutive groups of images as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Maps(
        raw=torch.cat([part.raw for part in parts]),
        target=Target.join([part.target for part in parts]),
        values=torch.cat([part.values for part in parts]),
        outputs=None if first.outputs is None else torch.cat([p.outputs for p in parts if p.outputs is not None]),
        evidence={name: torch.cat([part.evidence[name] for part in parts]) for name in first.evidence},
        layer=first.layer,
        parameters=first.parameters,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        chosen={name: [one for part in parts for one in part.chosen[name]] for name in first.chosen},
    )


def select(maps: Maps, rows: Tensor) -> Maps:
    """The maps of these images only, as images 0, 1, 2, ..."""
    return replace(
        maps,
        raw=maps.raw[rows],
        target=maps.target.select(rows),
        values=maps.values[rows],
        outputs=None if maps.outputs is None else maps.outputs[rows],
        evidence={name: values[rows] for name, values in maps.evidence.items()},
        chosen={name: [values[int(i)] for i in rows] for name, values in maps.chosen.items()},
    )


def same_steps(maps: MapFunction, found: Maps) -> MapFunction:
    """The same method with all that it chose on one network (layer, nodes of a path) fixed, to ask it of another one.

    A plain function is asked again as it is.
    """
    fixed: Callable[[Maps], MapFunction] | None = getattr(maps, "fixed", None)
    return maps if fixed is None else fixed(found)


def is_constant(raw: Tensor) -> Tensor:
    """Of maps (N, *grid) of finite numbers, which hold one value everywhere, to rounding: (N,). One cell is never so."""
    flat = raw.flatten(1)
    if flat.shape[1] == 1:
        return torch.zeros(len(flat), dtype=torch.bool, device=raw.device)
    low, high = flat.amin(1), flat.amax(1)
    return high - low <= ROUNDING * torch.finfo(flat.dtype).eps * torch.maximum(low.abs(), high.abs())


def why_unusable(maps: Maps) -> list[str]:
    """Per image why its raw map cannot be scored, "" where it can: absent, not finite, zero (or denormal), constant."""
    flat = maps.raw.flatten(1)
    there = [True] * len(flat) if maps.target.found is None else maps.target.found.tolist()
    finite = (flat.isfinite().all(1) & maps.values.isfinite()).tolist()
    dust = (flat.abs().amax(1) < torch.finfo(torch.float32).tiny).tolist()
    constant = is_constant(maps.raw).tolist()
    found = zip(there, finite, dust, constant, strict=True)
    return [
        "nothing was detected" if not t else "not finite" if not f else "zero" if z else "constant" if c else ""
        for t, f, z, c in found
    ]

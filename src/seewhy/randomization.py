"""A network with the weights of some of its stages destroyed, for a while; and what its stages are."""

import math
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.errors import RefusalError
from seewhy.model import VisionModel
from seewhy.target import Target

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SPREAD = 0.02  # of raw tensors that hold zeros: the usual start of tokens and positions
CALIBRATION_IMAGES = 32  # in one batch: statistics do not depend on how images are batched


@dataclass(frozen=True)
class Stage:
    """A part of a network that is randomized at once."""

    name: str
    modules: tuple[str, ...]
    tensors: tuple[str, ...]  # its learnable tensors
    values: int  # in these

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "tensors": list(self.tensors), "values": self.values}


def stages_of(model: VisionModel, images: Tensor, target: Target) -> list[Stage]:
    """A network's stages in the order of execution (one run of the first image, not counted); each tensor is in one.

    Beginning with the root, a module is taken apart where it is a list or sequence directly below one that was, or where
    it holds more than half of the learnable values. Raw tensors of a module that was taken apart, and its parts that
    never run, go with its first stage; a stage of normalizations and biases alone goes with the one before it.
    RefusalError where a learnable tensor is not made of floating-point numbers, where there is none, and for scripted
    code, which hides its modules.
    """
    module = model.module
    learnable = _learnable(module)
    with model.guarded():
        rows = torch.zeros(1, dtype=torch.long, device=model.device)
        order = capture.called(module, lambda: model.forward(images[:1], target.beside_of(rows)))
    place = {name: k for k, name in enumerate(order)}
    total = sum(p.numel() for p in learnable.values())
    units = _units(module, "", total, place, expanded=True)
    owners = {name: _owner(name, units, place) for name in learnable}
    begun = sorted(set(owners.values()), key=lambda unit: (_first_call(unit, place), unit))
    stages: list[Stage] = []
    for unit in begun:
        tensors = tuple(name for name, owner in owners.items() if owner == unit)
        stage = Stage(unit or "network", (unit,), tensors, sum(learnable[t].numel() for t in tensors))
        small = all(learnable[t].ndim <= 1 for t in tensors)
        first_small = len(stages) == 1 and all(learnable[t].ndim <= 1 for t in stages[0].tensors)
        if stages and (small or first_small):
            stages[-1] = _joined(stages[-1], stage)
        else:
            stages.append(stage)
    return stages


def _learnable(module: nn.Module) -> dict[str, nn.Parameter]:
    if isinstance(module, torch.jit.ScriptModule):
        raise RefusalError("a scripted or traced model hides its modules: randomize the network that it was made from.")
    found = dict(module.named_parameters())
    integers = capture.integer_modules(module) + [n for n, p in found.items() if not p.is_floating_point()]
    if integers:
        raise RefusalError(
            f"{len(integers)} part(s) of this network hold integers ({', '.join(integers[:3])}), which have no random "
            "start: randomize the network in floating point that it was made from."
        )
    if not found:
        raise RefusalError("this network has no learnable tensor: there is nothing to randomize.")
    return found


def _units(module: nn.Module, name: str, total: int, place: dict[str, int], *, expanded: bool) -> list[str]:
    """The names of the modules below this one that are randomized as a whole; expanded: this one is taken apart."""
    if not expanded:
        return [name]
    found = []
    for child_name, child in module.named_children():
        values = sum(p.numel() for p in child.parameters())
        full = f"{name}.{child_name}" if name else child_name
        if not values:
            continue
        nested = name and isinstance(module, CONTAINERS)  # of lists within lists the outer ones are the stages
        inner = any(n.startswith(full + ".") for n in place) and any(
            sum(p.numel() for p in below.parameters()) for below in child.children()
        )
        apart = inner and (2 * values > total or (isinstance(child, CONTAINERS) and not nested))
        found += _units(child, full, total, place, expanded=apart)
    return found


def _owner(tensor: str, units: Sequence[str], place: dict[str, int]) -> str:
    """The unit that a tensor belongs to: its own where that runs, else the first one that runs around it."""
    module = tensor.rpartition(".")[0]
    while True:
        inside = [u for u in units if _within(u, module)] or [u for u in units if _within(module, u)]
        running = [u for u in inside if math.isfinite(_first_call(u, place))]
        if running:
            return min(running, key=lambda unit: _first_call(unit, place))
        if not module:
            return min(units, key=lambda unit: _first_call(unit, place)) if units else ""
        module = module.rpartition(".")[0]


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(module + ".")


def _first_call(unit: str, place: dict[str, int]) -> float:
    return min((k for name, k in place.items() if _within(name, unit)), default=math.inf)


def _joined(one: Stage, other: Stage) -> Stage:
    return Stage(
        f"{one.name} + {other.name}",
        one.modules + other.modules,
        one.tensors + other.tensors,
        one.values + other.values,
    )


@contextmanager
def randomized(module: nn.Module, tensors: Collection[str], seed: int, network: int = 0) -> Iterator[float]:
    """Inside, these learnable tensors hold a random start; yields the share of all learnable values that it differs in.

    Each module's own initializer draws (`reset_parameters`, `_reset_parameters`), with a seed of its own from `seed`,
    the number of the random network and the module's name: layers of one shape differ. What no initializer reaches (raw
    tensors: tokens, positions, layer scale) is drawn from the normal distribution with the trained tensor's own mean and
    standard deviation (|mean| where that is 0, 0.02 where both are). Buffers stay as they are. The values lie in storage
    of their own: the tensors stay the same objects, and afterwards point to the very memory of before.
    RefusalError where an initializer fails.
    """
    learnable = dict(module.named_parameters())
    chosen = {name: learnable[name] for name in tensors}
    before = {name: p.data for name, p in chosen.items()}
    ids = {id(p) for p in chosen.values()}
    try:
        for p in chosen.values():
            p.data = torch.full_like(p.data, math.nan)
        for name, m in reversed(list(module.named_modules())):  # children first, as they are built
            if any(id(p) in ids for p in m._parameters.values()):
                _initialize(m, name, ids, _seed(f"{network} {name}", seed))
        changed = 0
        for name, p in chosen.items():
            left = p.isnan()
            if left.any():
                p.data = torch.where(left, _alike(before[name], _seed(f"{network} {name}", seed)), p.data)
            changed += int((p.data != before[name]).sum())
        yield changed / max(1, sum(p.numel() for p in learnable.values()))
    finally:
        for name, p in chosen.items():
            p.data = before[name]


def _seed(name: str, seed: int) -> int:
    return zlib.crc32(name.encode(), seed)


def _alike(values: Tensor, seed: int) -> Tensor:
    """Normal values with the mean and standard deviation of these."""
    numbers = values.double()
    mean, spread = numbers.mean(), numbers.std(correction=0)
    width = next((float(w) for w in (spread, mean.abs()) if w > 0 and w.isfinite()), SPREAD)
    center = float(mean) if mean.isfinite() else 0.0
    drawn = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (center + width * drawn).to(values)


def _initialize(m: nn.Module, name: str, chosen: set[int], seed: int) -> None:
    """Run a module's own initializer; whatever it touches beside the chosen tensors comes back."""
    start: Callable[[], Any] | None = getattr(m, "reset_parameters", None) or getattr(m, "_reset_parameters", None)
    if start is None:
        return
    with ExitStack() as stack:
        for below in m.modules():
            _lend(below, chosen, stack)
        stack.enter_context(capture.random_states(seed))
        try:
            start()
        except Exception as error:
            raise RefusalError(
                f"the initializer of {name or 'the network'} ({type(m).__name__}) failed: {type(error).__name__}: {error}. "
                "Its weights cannot be randomized."
            ) from error


def _lend(m: nn.Module, chosen: set[int], stack: ExitStack) -> None:
    """Copies in place of a module's buffers, plain tensors and tensors that are not chosen, until the stack unwinds."""
    plain = {name: value for name, value in m.__dict__.items() if isinstance(value, Tensor)}
    stack.callback(m.__dict__.update, plain)
    m.__dict__.update({name: value.detach().clone() for name, value in plain.items()})
    stack.callback(_put_back, m._buffers, dict(m._buffers))
    m._buffers.update(_copies(m._buffers))
    stack.callback(_put_back, m._parameters, dict(m._parameters))
    for p in m._parameters.values():
        if p is not None and id(p) not in chosen:
            stack.callback(setattr, p, "data", p.data)
            p.data = p.data.clone()


def _copies(store: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if tensor is None else tensor.clone() for name, tensor in store.items()}


def _put_back(store: dict[str, Any], before: dict[str, Any]) -> None:
    store.clear()
    store.update(before)


@contextmanager
def recalibrated(model: VisionModel, images: Tensor, target: Target, stages: Sequence[Stage]) -> Iterator[int]:
    """Inside, batch normalizations of these stages hold the mean and variance of these images; yields how many do.

    One forward in training mode of the first 32 images, in one batch (counted); variances are unbiased, as in training.
    """
    below = [name for stage in stages for name in stage.modules]
    kind = nn.modules.batchnorm._BatchNorm
    named = [(name, m) for name, m in model.module.named_modules() if isinstance(m, kind)]
    norms = [m for name, m in named if m.running_mean is not None and any(_within(name, unit) for unit in below)]
    rows = torch.arange(min(len(images), CALIBRATION_IMAGES), device=model.device)
    with ExitStack() as stack:
        for m in norms:
            stack.callback(_put_back, m._buffers, dict(m._buffers))
            m._buffers.update(_copies(m._buffers))
        with ExitStack() as training:
            for m in norms:
                for name, value in (("training", True), ("momentum", 1.0)):
                    training.callback(setattr, m, name, getattr(m, name))
                    setattr(m, name, value)
            if norms:
                model.forward(images[: len(rows)], target.beside_of(rows))
                model.count(forward=len(rows))
        yield len(norms)

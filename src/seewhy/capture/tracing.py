"""One run of a network: every call of every submodule, what some of them return, and what follows from an edit there."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.capture.gradients import Call, Site
from seewhy.capture.outputs import first_tensor, replace_first_tensor
from seewhy.errors import RefusalError


def trace(module: nn.Module, call: Call) -> tuple[list[tuple[Site, tuple[int, ...], str]], Any]:
    """Run the network once: every call of every submodule that returns a tensor, and the output.

    In order of completion; per call its site, the shape it returned, and the name of the first site that returned this
    very tensor, unchanged (a container returns what its last child returned). A module called more than once gets one
    site a call, named "name#1", "name#2", ...
    """
    records: list[tuple[str, nn.Module, int, Tensor, tuple[int, int]]] = []
    counts: dict[str, int] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None and not tensor.is_complex():
                version = -1 if tensor.is_inference() else tensor._version
                records.append((name, module, counts.get(name, 0), tensor, (id(tensor), version)))
            counts[name] = counts.get(name, 0) + 1

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for name, submodule in module.named_modules():
            if name and not isinstance(submodule, torch.jit.ScriptModule):
                hooks.callback(submodule.register_forward_hook(record(name)).remove)
        output = call()
    found: list[tuple[Site, tuple[int, ...], str]] = []
    first_with: dict[tuple[int, int], str] = {}
    for name, submodule, which, tensor, same in records:
        site = Site(f"{name}#{which + 1}" if counts[name] > 1 else name, submodule, which)
        found.append((site, tuple(tensor.shape), first_with.setdefault(same, site.name)))
    return found, output


def called(module: nn.Module, call: Call) -> list[str]:
    """Run the network once: the names of its submodules in the order in which each is first called."""
    order: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            order.setdefault(name)

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for name, submodule in module.named_modules():
            if name and not isinstance(submodule, torch.jit.ScriptModule):
                hooks.callback(submodule.register_forward_pre_hook(note(name)).remove)
        call()
    return list(order)


def output_with_edit(call: Call, site: Site, edit: Callable[[Tensor], Tensor]) -> Any:
    """The network's output when what this site returns is replaced on the way by `edit` of it; no graph."""
    seen = -1

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal seen
        seen += 1
        tensor = first_tensor(output)
        if seen != site.which or tensor is None:
            return None
        return replace_first_tensor(output, edit(tensor))

    with torch.no_grad(), ExitStack() as hooks:
        hooks.callback(site.module.register_forward_hook(hook).remove)
        return call()


def look_at(call: Call, sites: Sequence[Site], look: Callable[[Site, Tensor], None]) -> Any:
    """Run the network once and show `look` what each of these sites returns, as it is returned; the network's output."""
    seen: dict[str, int] = {}

    def show(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if seen.setdefault(site.name, 0) == site.which and tensor is not None:
                look(site, tensor)
            seen[site.name] += 1

        return hook

    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.module.register_forward_hook(show(site)).remove)
        return call()


def outputs_at(call: Call, sites: Sequence[Site]) -> list[Tensor]:
    """What these sites return in one run, without a graph; RefusalError where one is not reached."""
    kept: dict[str, Tensor] = {}

    def keep(site: Site, tensor: Tensor) -> None:
        kept[site.name] = tensor.clone()

    with torch.no_grad():
        look_at(call, sites, keep)
    for site in sites:
        if site.name not in kept:
            raise RefusalError(f"layer {site.name!r} was not reached in the forward pass.")
    return [kept[site.name] for site in sites]


def returned_by(call: Call, site: Site) -> Tensor:
    """What this site returns, with its graph, in one run of the network."""
    kept: list[Tensor] = []
    look_at(call, [site], lambda _, tensor: kept.append(tensor.clone()))
    return kept[0]

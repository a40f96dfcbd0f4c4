"""The only code that touches hooks and gradients. Whatever happens inside, the network is left as it was found."""

import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import RefusalError

Call = Callable[[], Any]  # runs the network once and returns its output
_VERSION = operator.attrgetter("_version")
ONLY_READ_IN_EVALUATION = ("torch.nn.modules.batchnorm", "timm.layers.norm_act")  # their running statistics
Version = tuple[int, ...]  # changes whenever a parameter or buffer does
Score = Callable[[Any], Tensor]  # output -> (R,), one number per row


@contextmanager
def guard(module: nn.Module, *, seed: int = 0) -> Iterator[Version]:
    """Evaluation mode and a private random state; everything is restored, also after an exception.

    Restored bit-equal: the training flag of every submodule, every buffer, the global random states of torch (all
    devices), numpy and Python, grad mode and inference mode. `.grad` is never written: only `torch.autograd.grad` is
    used. A network that draws from torch's generators in evaluation mode draws the same for the same `seed`. Yields the
    version of the weights.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda", "mps"):  # the precision is ours to choose, not that of the code around the call
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(random_states(seed))
        state = _State(module)
        stack.callback(state.restore)
        state.prepare()
        yield state.version


def version(module: nn.Module) -> Version:
    """Identity and version counter of every parameter and buffer: it changes whenever one of them does.

    A write through `.data` goes unseen, as it does by autograd: PyTorch's counters do not move.
    """
    return _State(module).version


class _State:
    """What a guard changes in a network, found in one walk: speed matters, a small network's forward takes 20 ms."""

    def __init__(self, module: nn.Module) -> None:
        self._training: list[nn.Module] = []
        self._stores: list[tuple[dict[str, Any], dict[str, Any]]] = []  # a module's own tensors, and what they were
        self._empty: list[dict[str, Any]] = []  # buffers of modules that have none, and shall have none afterwards
        tensors: list[Tensor | None] = []
        modules: list[nn.Module] = []
        seen: set[int] = set()
        waiting: list[nn.Module | None] = [module]
        while waiting:
            m = waiting.pop()
            if m is None or id(m) in seen:
                continue
            seen.add(id(m))
            modules.append(m)
            waiting.extend(m._modules.values())
            tensors.extend(m._parameters.values())
            tensors.extend(m._buffers.values())
            if m.training:
                self._training.append(m)
            if isinstance(m, torch.jit.ScriptModule):
                continue  # it keeps its tensors elsewhere, out of reach
            if not m._buffers:
                self._empty.append(m._buffers)
            elif not _writes_nothing(m):
                self._stores.append((m._buffers, dict(m._buffers)))
        self.version: Version = self._versions([t for t in tensors if t is not None], modules)

    def _versions(self, tensors: list[Tensor], modules: list[nn.Module]) -> Version:
        """Identity and version of each tensor; inference tensors have no version, and are to be lent copies of."""
        try:
            return (*map(id, tensors), *map(_VERSION, tensors))
        except RuntimeError:
            plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
            self._stores = [(store, dict(store)) for m in plain for store in (m._parameters, m._buffers)]
            return (*map(id, tensors), *(-1 if t.is_inference() else t._version for t in tensors))

    def prepare(self) -> None:
        """Evaluation mode, and copies in place of what a forward could write to.

        Those are the buffers. Inference tensors are replaced, too: autograd refuses them. Shared ones stay shared.
        """
        for m in self._training:
            m.training = False
        copies: dict[int, Tensor] = {}
        for store, originals in self._stores:
            for name, tensor in originals.items():
                if tensor is not None:
                    if id(tensor) not in copies:
                        copies[id(tensor)] = tensor.clone()
                    copy = copies[id(tensor)]
                    store[name] = nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy

    def restore(self) -> None:
        """Put everything back, also what a forward has added or removed."""
        for store in self._empty:
            if store:
                store.clear()
        for store, originals in self._stores:
            store.clear()
            store.update(originals)
        for m in self._training:
            m.training = True


def _writes_nothing(m: nn.Module) -> bool:
    """Whether its forward is known code that writes to no buffer in evaluation mode: copies cost a small network 5 %."""
    known = type(m).__module__ in ONLY_READ_IN_EVALUATION and "forward" not in m.__dict__
    return known and not m._forward_hooks and not m._forward_pre_hooks


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient inside: only the input's is computed."""
    tracked = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in tracked:
            p.requires_grad_(False)
        yield
    finally:
        for p in tracked:
            p.requires_grad_(True)


@contextmanager
def random_states(seed: int) -> Iterator[None]:
    """Seed torch's global generators for the inside, and put all states back afterwards, numpy's and Python's too."""
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # torch's own gap
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        if mps is not None:
            torch.mps.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def input_gradient(module: nn.Module, call: Callable[[Tensor], Any], x: Tensor, score: Score) -> Tensor:
    """Gradient d score_r / d x_r for every row r, of x's shape (R, C, *axes) and dtype.

    Rows must not mix in the network (they do not in evaluation mode), so the gradient of the sum is that of each.
    """
    with frozen(module), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        output = call(leaf)
        total = score(output).sum()
        cut = None if total.requires_grad else where_graph_is_cut(module, lambda: call(leaf))
    if cut is not None:
        raise RefusalError(
            f"no gradient reaches the input: the graph is cut at {cut} (a `detach()`, a `no_grad()` block or an "
            "operation without a derivative). Methods without gradients still work."
        )
    (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if gradient is None:
        raise RefusalError("the score does not depend on the input: there is no gradient to show. Check the target.")
    return gradient


@dataclass(frozen=True)
class Site:
    """One call of one module: where a network can be looked into."""

    name: str  # dotted path, with "#2" for the second of several calls
    module: nn.Module
    which: int  # 0 for its first call in a forward


def activations_and_gradients(
    call: Call, sites: Sequence[Site], score: Score
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Activations A at some sites, and d score / d A (None where none arrives).

    One forward and one partial backward: the part of the network before the first site runs without a graph. A is the
    layer's own output; later code receives a copy, so an in-place operation after the layer cannot alter it.
    RefusalError where a site is not reached in the forward, or returns no tensor.
    """
    captured: list[Tensor | None] = [None] * len(sites)
    with torch.no_grad(), ExitStack() as hooks:
        for slot, site in enumerate(sites):
            hooks.callback(site.module.register_forward_hook(_keep(captured, slot, site)).remove)
        output = call()
        hooks.close()  # off before the backward: a checkpointed block runs its forward again there
        with torch.enable_grad():
            total = score(output).sum()
    for site, tensor in zip(sites, captured, strict=True):
        if tensor is None:
            raise RefusalError(f"layer {site.name!r} was not reached in the forward pass.")
    activations = [tensor for tensor in captured if tensor is not None]
    if not total.requires_grad:
        return [a.detach() for a in activations], [None] * len(activations)
    gradients = torch.autograd.grad(total, activations, allow_unused=True)
    return [a.detach() for a in activations], list(gradients)


def _keep(captured: list[Tensor | None], slot: int, site: Site) -> Callable[..., Any]:
    seen = -1

    def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen != site.which:
            return None
        tensor = first_tensor(output)
        if tensor is None:
            raise RefusalError(
                f"layer {site.name!r} ({type(module).__name__}) returns no tensor: there is no map in it."
            )
        torch.set_grad_enabled(True)  # from here on a graph is needed; the `no_grad` around the call ends it
        kept = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
        captured[slot] = kept
        return _replace_first_tensor(output, kept.clone())

    return hook


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
            if tensor is not None:
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


def output_with_swapped_rows(call: Call, site: Site) -> Any:
    """The network's output when, at this site, the rows of the batch are reversed on the way."""
    seen = -1

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal seen
        seen += 1
        tensor = first_tensor(output)
        if seen != site.which or tensor is None:
            return None
        return _replace_first_tensor(output, tensor.flip(0))

    with torch.no_grad(), ExitStack() as hooks:
        hooks.callback(site.module.register_forward_hook(hook).remove)
        return call()


def outputs_at(call: Call, sites: Sequence[Site]) -> list[Tensor]:
    """What these sites return in one run, without a graph."""
    kept: dict[str, Tensor] = {}
    seen: dict[str, int] = {}

    def record(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if seen.setdefault(site.name, 0) == site.which and tensor is not None:
                kept[site.name] = tensor.clone()
            seen[site.name] += 1

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.module.register_forward_hook(record(site)).remove)
        call()
    return [kept[site.name] for site in sites]


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a module returned, or the first one in a tuple, list or mapping that it returned."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)


def tensors(output: Any) -> list[Tensor]:
    """Every tensor in an output, whatever it is nested in."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for value in values for tensor in tensors(value)]


def _replace_first_tensor(output: Any, tensor: Tensor) -> Any:
    if isinstance(output, Tensor):
        return tensor
    old = first_tensor(output)
    if isinstance(output, Mapping):
        return _like(output, {key: tensor if value is old else value for key, value in output.items()})
    values = [tensor if value is old else value for value in output]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)


def _like(mapping: Any, items: dict[Any, Any]) -> Any:
    """The same kind of mapping with other values; a dataclass-like output of a library takes them as keywords."""
    return items if type(mapping) is dict else type(mapping)(**items)


def detach(output: Any) -> Any:
    """The same output without a graph."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, Mapping):
        return _like(output, {key: detach(value) for key, value in output.items()})
    if isinstance(output, tuple | list):
        values = [detach(value) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    return output


def where_graph_is_cut(module: nn.Module, call: Call) -> str:
    """Run the network on an input that requires a gradient: the first module that loses it, in words."""
    lost: list[str] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            given, returned = first_tensor(inputs), first_tensor(output)
            if given is not None and returned is not None and given.requires_grad and not returned.requires_grad:
                lost.append(f"{name} ({type(module).__name__})")

        return hook

    with torch.enable_grad(), ExitStack() as hooks:
        for name, submodule in module.named_modules():
            if not isinstance(submodule, torch.jit.ScriptModule):
                hooks.callback(submodule.register_forward_hook(record(name or "the network itself")).remove)
        call()
    return lost[0] if lost else "outside any submodule, in the forward of the network itself"

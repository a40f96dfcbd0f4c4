"""Leave no trace: what a call may change in a network or in global state, and how all of it comes back."""

import hashlib
import operator
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from seewhy.errors import UsageError

_VERSION = operator.attrgetter("_version")
ONLY_READ_IN_EVALUATION = ("torch.nn.modules.batchnorm", "timm.layers.norm_act")  # their running statistics


class Version(NamedTuple):
    """What a network was: `structure` changes with its modules and tensors, `counters` with their values, too."""

    structure: int
    counters: tuple[int, ...]


# Networks whose forward was seen to leave its modules in evaluation mode, and the structure that they had then: their
# batch normalizations write nothing, and copies of all that could be written cost a small network 5 % of its time.
_STAY_IN_EVALUATION: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


@contextmanager
def guard(module: nn.Module, *, seed: int = 0) -> Iterator[Version]:
    """Evaluation mode and a private random state; everything is restored, also after an exception.

    Restored bit-equal: the training flag of every submodule, every buffer, the global random states of torch (all
    devices), numpy and Python, grad mode and inference mode; tensors that a forward keeps in plain attributes. `.grad`
    is never written: only `torch.autograd.grad` is used. A network that draws from torch's generators in evaluation mode
    draws the same for the same `seed`. What was compiled runs as it was written. Yields the version of the weights.
    UsageError for weights without values: of a lazy module that never ran, or on the device "meta".
    """
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled; compiled code has forgotten its modules
            stack.enter_context(_as_written())
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


_compiled = threading.Lock()
_eager = ExitStack()
_guards = 0  # that are open, in all threads


@contextmanager
def _as_written() -> Iterator[None]:
    """Compiled code runs as it was written, until the last of all threads' guards is left: the switch is the process's."""
    global _guards
    with _compiled:
        if not _guards:
            _eager.enter_context(torch.compiler.set_stance("force_eager"))
        _guards += 1
    try:
        yield
    finally:
        with _compiled:
            _guards -= 1
            if not _guards:
                _eager.close()


def version(module: nn.Module) -> Version:
    """Identity of every module, parameter and buffer, and their version counters: it changes whenever one of them does.

    A write through `.data` goes unseen, as it does by autograd: PyTorch's counters do not move.
    """
    return _State(module).version


class _State:
    """What a guard changes in a network, found in one walk: speed matters, a small network's forward takes 20 ms."""

    def __init__(self, module: nn.Module) -> None:
        self._flags: list[tuple[nn.Module, bool]] = []  # whether each module was in training mode
        self._stores: list[tuple[dict[str, Any], dict[str, Any]]] = []  # a module's own tensors, and what they were
        self._kept: list[tuple[dict[str, Any], dict[str, Tensor]]] = []  # tensors in plain attributes, and all of these
        self._empty: list[dict[str, Any]] = []  # buffers of modules that have none, and shall have none afterwards
        read_only: list[tuple[dict[str, Any], dict[str, Any]]] = []  # the same of layers that only read them
        self._module = module
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
            if hasattr(m, "training"):  # frozen scripted code has no such flag
                self._flags.append((m, m.training))
            if isinstance(m, torch.jit.ScriptModule):
                continue  # it keeps its tensors elsewhere, out of reach
            if _may_keep(m):
                self._kept.append((m.__dict__, _tensors(m.__dict__)))
            if not m._buffers:
                self._empty.append(m._buffers)
            else:
                (read_only if _writes_nothing(m) else self._stores).append((m._buffers, dict(m._buffers)))
        if any(t is not None and (t.is_meta or is_lazy(t)) for t in tensors):
            raise UsageError(_without_values(module))
        self.version: Version = self._versions([t for t in tensors if t is not None], modules)
        self._watched = _STAY_IN_EVALUATION.get(module) != self.version.structure
        self._ran = False
        self._watcher: RemovableHandle | None = None
        if self._watched:
            self._stores += read_only

    def _versions(self, tensors: list[Tensor], modules: list[nn.Module]) -> Version:
        """Identity and version of each tensor; inference tensors have no version, and are to be lent copies of."""
        structure = hash((*map(id, modules), *map(id, tensors)))
        try:
            return Version(structure, tuple(map(_VERSION, tensors)))
        except RuntimeError:
            plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
            self._stores = [(store, dict(store)) for m in plain for store in (m._parameters, m._buffers)]
            return Version(structure, tuple(-1 if t.is_inference() else t._version for t in tensors))

    def prepare(self) -> None:
        """Evaluation mode, and copies in place of what a forward could write to.

        Those are the buffers. Inference tensors are replaced, too: autograd refuses them. Shared ones stay shared.
        """
        for m, flag in self._flags:
            if flag:
                m.training = False
        if self._watched and not isinstance(self._module, torch.jit.ScriptModule):
            self._watcher = self._module.register_forward_pre_hook(self._note)
        copies: dict[int, Tensor] = {}
        for store, originals in self._stores:
            for name, tensor in originals.items():
                if tensor is not None:
                    if id(tensor) not in copies:
                        copies[id(tensor)] = tensor.clone()
                    copy = copies[id(tensor)]
                    store[name] = nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy

    def _note(self, _module: nn.Module, _inputs: Any) -> None:
        self._ran = True

    def restore(self) -> None:
        """Put everything back, also what a forward has added or removed."""
        for store in self._empty:
            if store:
                store.clear()
        for store, originals in self._stores:
            store.clear()
            store.update(originals)
        for own, before in self._kept:
            for name in _tensors(own):
                del own[name]
            own.update(before)
        if self._watcher is not None:
            self._watcher.remove()
        if self._ran and not any(m.training for m, _ in self._flags):
            _STAY_IN_EVALUATION[self._module] = self.version.structure
        for m, flag in self._flags:
            if m.training is not flag:
                m.training = flag


def _tensors(own: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in own.items() if isinstance(value, Tensor)}


def _may_keep(m: nn.Module) -> bool:
    """Whether its forward can write to plain attributes: torch's own layers do so by their hooks alone (weight norm)."""
    return bool(m._forward_pre_hooks or m._forward_hooks) or not type(m).__module__.startswith("torch.nn.modules")


def _without_values(module: nn.Module) -> str:
    named = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, tensor in named if is_lazy(tensor)]
    if lazy:
        return (
            f"{len(lazy)} weights of this network are not made yet ({', '.join(lazy[:3])}): its lazy modules learn their "
            "shapes from a first input. Run it once on one of yours, module(x)."
        )
    meta = [name for name, tensor in named if tensor.is_meta]
    return (
        f"{len(meta)} weights of this network lie on the device 'meta' and have no values ({', '.join(meta[:3])}): load "
        "them first, e.g. module.load_state_dict(state, assign=True)."
    )


def _writes_nothing(m: nn.Module) -> bool:
    """Whether its forward is known code that writes to no buffer in evaluation mode."""
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


def digest(module: nn.Module) -> str:
    """SHA-256 of the architecture and every tensor, whatever file they came from."""
    found = hashlib.sha256(repr(module).encode())
    saved = module.state_dict()
    unsaved = {name: buffer for name, buffer in module.named_buffers() if name not in saved}
    for name, value in {**saved, **unsaved}.items():
        for tensor in value if isinstance(value, tuple) else (value,):  # quantized layers pack weight and bias
            if isinstance(tensor, Tensor):
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                tensor = tensor.dequantize() if tensor.is_quantized else tensor  # integers alone leave out their scale
                found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

"""How much memory a run holds at once, as the tensors that are alive: what a CPU allocator does not tell."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Most bytes that `run` holds at once beyond what was there before; None on a device that does not tell.

    CUDA: the allocator's own peak. CPU: storages of the tensors that operators return, as long as they live; what an
    operator needs inside itself (a convolution's workspace) is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before: int = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    if device.type != "cpu":
        return None
    with _Alive() as alive:
        run()
    held: int = alive.peak
    return held


class _Alive(TorchDispatchMode):
    """Counts the bytes of every storage that an operator makes, until it is freed."""

    supports_higher_order_operators = True  # as any other operator

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch declares no types here
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref[torch.UntypedStorage] | None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would import its compiler for this (3 s), and nothing is compiled inside our guard."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self.known.setdefault(storage._cdata, None)  # it was there before
        outputs = func(*args, **(kwargs or {}))
        for storage in _storages(outputs):
            if storage._cdata not in self.known:
                self._note(storage._cdata, storage)
        return outputs

    def _note(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self.now -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, Tensor) and v.layout == torch.strided]

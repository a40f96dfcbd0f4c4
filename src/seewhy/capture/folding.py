"""Batch normalizations folded into the convolutions in front of them while a network runs; it stays as it is."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seewhy.capture.outputs import tensors

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
OF_CONVOLUTION = ("input", "weight", "bias")
OF_NORMALIZATION = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
IN_PLACE = {  # activations that keep their input for the way back -> the names of their arguments
    function: tuple(inspect.signature(function).parameters)
    for function in (functional.relu6, functional.hardtanh, functional.silu, functional.hardswish, functional.mish)
}
Folded = dict[int, tuple[Tensor, Tensor, int]]  # id of a weight -> weight and bias in its place, id of the running mean


@dataclass(frozen=True)
class Fold:
    """A convolution whose output goes to one batch normalization, and nowhere else."""

    convolution: nn.Module
    normalization: nn.Module
    eps: float

    def weights(self) -> tuple[Tensor, Tensor]:
        """Of the convolution that gives what both give: W s and (b - mean) s + shift, s = scale / sqrt(variance + eps)."""
        own, after = self.convolution._parameters, self.normalization._parameters
        running, weight = self.normalization._buffers, own["weight"]
        scale = (_values(running["running_var"], 1) + self.eps).rsqrt() * _values(after.get("weight"), 1)
        shift = (_values(own.get("bias"), 0) - _values(running["running_mean"], 0)) * scale
        shift = shift + _values(after.get("bias"), 0)
        assert weight is not None, "it was called with it"
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)).to(weight.dtype), shift.to(weight.dtype)


def find_folds(module: nn.Module, run: Callable[[], Any]) -> tuple[Fold, ...]:
    """The convolutions of a network that batch normalizations can be folded into, as one run shows them.

    None where somebody's hooks look at what its modules return.
    """
    if hooked(module):
        return ()
    calls = _Calls()
    with torch.no_grad(), calls:
        run()
    owners = {
        id(t): m for m in module.modules() for t in (*m._parameters.values(), *m._buffers.values()) if t is not None
    }
    found = []
    for after in calls.normalizations:
        before = calls.made.get(id(after["input"]))
        if before is None or calls.used[id(after["input"])] > 1 or after["training"]:
            continue
        convolution, norm = owners.get(id(before["weight"])), owners.get(id(after["running_mean"]))
        if convolution is not None and norm is not None and _own(convolution, norm, before, after):
            found.append(Fold(convolution, norm, after["eps"]))
    return tuple(_once(found, calls))


def hooked(module: nn.Module) -> bool:
    """Whether a hook of the user's sees what a module of this network is given or returns."""
    return any(m._forward_hooks or (m is not module and m._forward_pre_hooks) for m in module.modules())


def folded_weights(folds: Iterable[Fold], channels_last: bool) -> Folded:
    """The weights of the folded convolutions, as the network's are now; with a graph to these where one is kept."""
    found = {}
    for fold in folds:
        weight, bias = fold.weights()
        if channels_last and weight.ndim == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        mean = id(fold.normalization._buffers["running_mean"])
        found[id(fold.convolution._parameters["weight"])] = (weight, bias, mean)
    return found


class Folding(TorchFunctionMode):
    """In one run, a folded convolution gives what its batch normalization would, and that one passes it on.

    Activations that keep their input for the way back (ReLU6, SiLU) copy it where they are told to write over it; here
    they write elsewhere where a graph is kept, an eighth of a gradient row of lite0, and everywhere if `apart`. Who reads
    the input afterwards went astray.
    """

    def __init__(self, folded: Folded, apart: bool = False) -> None:
        super().__init__()
        self._apart = apart
        self._folded = folded
        self._means = {mean for _, _, mean in folded.values()}
        self._waiting: dict[int, Tensor] = {}  # by the running mean: what its normalization is to be given
        self._other_ways = False
        self._stale: dict[int, Tensor] = {}  # what would have been written over, alive: no id is given twice

    @property
    def astray(self) -> bool:
        """The network sent a folded convolution's output elsewhere than its probe: what it computed is no use."""
        return self._other_ways or bool(self._waiting)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._stale and any(id(tensor) in self._stale for tensor in tensors((*args, *kwargs.values()))):
            self._other_ways = True
        if function in CONVOLUTIONS:
            given = _named(OF_CONVOLUTION, args, kwargs)
            found = self._folded.get(id(given["weight"]))
            if found is not None:
                weight, bias, mean = found
                rest = {name: value for name, value in kwargs.items() if name not in OF_CONVOLUTION}
                output = function(given["input"], weight, bias, *args[3:], **rest)
                self._other_ways |= mean in self._waiting
                self._waiting[mean] = output
                return output
        elif function is functional.batch_norm:
            given = _named(OF_NORMALIZATION, args, kwargs)
            if id(given["running_mean"]) in self._means:
                if self._waiting.pop(id(given["running_mean"]), None) is given["input"]:
                    return given["input"]
                self._other_ways = True
        elif function in IN_PLACE:
            given = _named(IN_PLACE[function], args, kwargs)
            if given.get("inplace") and (self._apart or given["input"].grad_fn is not None):
                self._stale[id(given["input"])] = given["input"]
                return function(**given | {"inplace": False})
        return function(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """The convolutions and batch normalizations of a run, and how often what a convolution made was used."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[dict[str, Any]] = []
        self.normalizations: list[dict[str, Any]] = []
        self.made: dict[int, dict[str, Any]] = {}  # by what it returned
        self.used: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no id is given twice

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if tensors(output) or isinstance(output, float | list):  # shapes and flags of a tensor are none of its numbers
            for tensor in tensors((*args, *kwargs.values())):
                self.used[id(tensor)] = self.used.get(id(tensor), 0) + 1
        if function in CONVOLUTIONS:
            call = _named(OF_CONVOLUTION, args, kwargs)
            self.convolutions.append(call)
            self.made[id(output)], self.used[id(output)] = call, 0  # a tensor that is gone may have had this id
            self._alive.append(output)
        elif function is functional.batch_norm:
            defaults = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
            self.normalizations.append(defaults | _named(OF_NORMALIZATION, args, kwargs))
        return output


def _named(names: Sequence[str], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names; those beyond the last name are left out."""
    given = dict(zip(names, args, strict=False))
    return given | {name: kwargs[name] for name in names if name in kwargs}


def _own(convolution: nn.Module, norm: nn.Module, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether both were called with their own parameters and statistics, under the names that torch gives them."""
    parameters = all(
        module._parameters.get(name) is call.get(name)
        for module, call in ((convolution, before), (norm, after))
        for name in ("weight", "bias")
    )
    return parameters and all(norm._buffers.get(name) is after[name] for name in ("running_mean", "running_var"))


def _once(folds: Sequence[Fold], calls: _Calls) -> list[Fold]:
    """Those of modules whose tensors were called with once."""
    weights = [id(call["weight"]) for call in calls.convolutions]
    means = [id(call["running_mean"]) for call in calls.normalizations]
    return [
        fold
        for fold in folds
        if weights.count(id(fold.convolution._parameters["weight"])) == 1
        and means.count(id(fold.normalization._buffers["running_mean"])) == 1
    ]


def _values(tensor: Tensor | None, default: float) -> Tensor:
    return torch.tensor(default, dtype=torch.float64) if tensor is None else tensor.double()

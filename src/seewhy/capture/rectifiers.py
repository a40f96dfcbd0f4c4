"""Other rules for the gradient at every ReLU, in the graph of one forward; and softplus in place of every ReLU."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seewhy.errors import RefusalError

Rule = Literal["guided", "deconvnet"]
Signals = tuple[Tensor | None, ...]
LOWER_BOUND = {  # nodes of ReLU6, hardtanh, threshold and clamp, and where each keeps its lower bound
    "HardtanhBackward0": "_saved_min_val",
    "ThresholdBackward0": "_saved_threshold",
    "ClampMinBackward0": "_saved_min",
    "ClampMinBackward1": "_saved_min",
    "ClampBackward0": "_saved_min",
    "ClampBackward1": "_saved_min",
}
OTHER_ACTIVATIONS = {  # no ReLU: they keep their own gradient, and are named
    "EluBackward0": "ELU",
    "GeluBackward0": "GELU",
    "GluBackward0": "GLU",
    "HardsigmoidBackward0": "Hardsigmoid",
    "HardswishBackward0": "Hardswish",
    "LeakyReluBackward0": "LeakyReLU",
    "LogSigmoidBackward0": "LogSigmoid",
    "MaximumBackward0": "maximum",
    "MishBackward0": "Mish",
    "PreluKernelBackward0": "PReLU",
    "RreluWithNoiseBackward0": "RReLU",
    "SigmoidBackward0": "Sigmoid",
    "SiluBackward0": "SiLU",
    "SoftplusBackward0": "Softplus",
    "TanhBackward0": "Tanh",
    "WhereBackward0": "where",
}


@dataclass(frozen=True)
class Gates:
    """What a rule was set on, and which activations it does not cover ("12 GELU")."""

    relus: int
    not_covered: tuple[str, ...]


def gate_relus(module: nn.Module, last: Any, rule: Rule) -> Gates:
    """Set a rule on every ReLU in the graph that ends in node `last`; it is gone when the graph is.

    With R the signal that arrives and f the input of the ReLU: backprop 1[f > 0] R, `deconvnet` 1[R > 0] R, `guided`
    1[f > 0] 1[R > 0] R; for a ReLU6, 1[0 < f < 6] in place of 1[f > 0]. Module or function, in place or not, called
    once or often: each call is a node. RefusalError where there is no ReLU, or where scripted code hides its nodes.
    """
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        raise RefusalError(
            "scripted or traced code hides its ReLUs: no rule can be set on them. Exact there: gradient, smooth_grad, "
            "integrated_gradients."
        )
    relus, others = 0, Counter[str]()
    for node in _nodes(last):
        name = node.name()
        if _is_relu(node, name):
            node.register_hook(_guided if rule == "guided" else _deconvnet)
            relus += 1
        elif name in OTHER_ACTIVATIONS:
            others[OTHER_ACTIVATIONS[name]] += 1
        elif name in LOWER_BOUND:
            others["clamp at another bound than 0"] += 1
        elif name.endswith("Backward"):  # code of the user's own: no rule of ours can look inside
            others[name.removesuffix("Backward")] += 1
    not_covered = tuple(f"{count} {name}" for name, count in sorted(others.items()))
    if not relus:
        raise RefusalError(
            f"this network has no ReLU between its score and its input ({', '.join(not_covered) or 'no activation'} "
            "found): the rule is not defined for it, what is left would be the plain gradient. Use gradient, smooth_grad "
            "or integrated_gradients."
        )
    return Gates(relus, not_covered)


def _nodes(last: Any) -> Iterator[Any]:
    """Every node of the graph, once."""
    seen, waiting = {last}, [last]
    while waiting:
        node = waiting.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)


def _is_relu(node: Any, name: str) -> bool:
    if name == "ReluBackward0":
        return True
    bound = getattr(node, LOWER_BOUND[name]) if name in LOWER_BOUND else None
    return bound is not None and (bound == 0 if not isinstance(bound, Tensor) else not bool(bound.any()))


def _guided(given: Signals, _arriving: Signals) -> Signals:
    return tuple(None if signal is None else signal.clamp_min(0) for signal in given)


def _deconvnet(given: Signals, arriving: Signals) -> Signals:
    (signal,) = arriving
    return tuple(None if g is None or signal is None else signal.clamp_min(0) for g in given)


# -- softplus in place of every ReLU -----------------------------------------------------------------------------------


class SoftReLUs(TorchFunctionMode):
    """While it is on, every ReLU computes softplus(x) = log(1 + exp(beta x)) / beta, and has a second derivative.

    A ReLU is what it is to `gate_relus`: a module, a function or a method, in place or not, and a clamp from 0 on; one
    that ends at m (ReLU6) is softplus(x) - softplus(x - m), and Hardsigmoid is a ReLU6, too. The mode is this thread's;
    nothing of torch is changed.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.calls = 0  # of ReLUs, since somebody set it to 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        said = getattr(function, "__name__", "").partition(".")[0]  # "relu", "relu_", "_threshold"; "relu.default"
        name = said.strip("_")
        if name not in _ARGUMENTS:
            return function(*args, **kwargs)
        given = dict(zip(_ARGUMENTS[name], args, strict=False)) | kwargs
        x, (low, high) = given["input"], _bounds(name, given)
        if not _is_zero(low) or not x.is_floating_point():
            return function(*args, **kwargs)
        in_place = said.endswith("_") or given.get("inplace", False)
        own = x.clone() if in_place else x
        soft = self._soft(own + 3, 6) / 6 if name == "hardsigmoid" else self._soft(own, high)
        soft = soft.to(x.dtype)  # autocast may have computed it in another
        return x.copy_(soft) if in_place else soft

    def _soft(self, x: Tensor, high: Any) -> Tensor:
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            raise RefusalError(
                "this network recomputes or moves its activations in the backward pass (activation checkpointing): its "
                "ReLUs cannot be softened there. Switch it off, e.g. model.set_grad_checkpointing(False)."
            )
        self.calls += 1
        soft = functional.softplus(x, self.beta)
        if high is None or (isinstance(high, int | float) and math.isinf(high)):
            return soft
        return soft - functional.softplus(x - high, self.beta)


_ARGUMENTS = {  # of every function that can be a ReLU
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardsigmoid": ("input", "inplace"),  # a ReLU6 of x + 3 over 6: torch has no second derivative of it
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "threshold": ("input", "threshold", "value", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
}


def _bounds(name: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """What a call clamps to from below and from above; None: not at all."""
    if name in ("relu", "relu6", "hardsigmoid"):
        return 0, None if name == "relu" else 6
    if name == "hardtanh":
        return given.get("min_val", -1.0), given.get("max_val", 1.0)
    if name == "threshold":
        return given["threshold"] if given["threshold"] == given["value"] else None, None
    return given.get("min"), given.get("max")


def _is_zero(bound: Any) -> bool:
    return bound is not None and (not bool(bound.any()) if isinstance(bound, Tensor) else bound == 0)

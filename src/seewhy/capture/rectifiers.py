"""Other rules for the gradient at every ReLU, set where autograd itself records them: in the graph of one forward."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

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

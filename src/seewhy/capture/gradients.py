"""Gradients at the input and at layers, in one forward and the shortest backward that gives them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.capture.outputs import first_tensor, replace_first_tensor
from seewhy.capture.state import frozen
from seewhy.errors import RefusalError

Call = Callable[[], Any]  # runs the network once and returns its output
Score = Callable[[Any], Tensor]  # output -> (R,), one number per row
OUTSIDE = "the forward of the network itself, outside any submodule"
WITHOUT_GRADIENTS = "methods without gradients work: occlusion, rise, lime, kernel_shap"


def input_gradient(
    module: nn.Module,
    call: Callable[[Tensor], Any],
    x: Tensor,
    score: Score,
    on_graph: Callable[[Any], None] | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Gradient d score_r / d x_r for every row r, of x's shape (R, C, *axes) and dtype.

    Rows must not mix in the network (they do not in evaluation mode), so the gradient of the sum is that of each.
    on_graph: called with the last node of the graph before the backward. differentiable: the gradient has a graph of its
    own, down to the parameters that require a gradient and to x where it does; fused attention, which has no second
    derivative, is computed step by step for it.
    """
    with sdpa_kernel(SDPBackend.MATH) if differentiable else frozen(module), torch.enable_grad():
        leaf = x if differentiable and x.requires_grad else x.detach().clone().requires_grad_()
        output = call(leaf)
        total = score(output).sum()
        cut = None if total.requires_grad else where_graph_is_cut(module, lambda: call(leaf)) or OUTSIDE
    if cut is not None:
        raise RefusalError(_no_gradient(cut))
    if on_graph is not None:
        on_graph(total.grad_fn)
    gradient: Tensor | None = torch.autograd.grad(total, leaf, allow_unused=True, create_graph=differentiable)[0]
    if gradient is None:
        cut = where_graph_is_cut(module, lambda: call(leaf))
        if cut is not None:
            raise RefusalError(_no_gradient(cut))
        raise RefusalError(
            "the score does not depend on the input, or only through operations without a derivative (integer arithmetic): "
            f"there is no gradient to show. Check the target; {WITHOUT_GRADIENTS}."
        )
    return gradient


def _no_gradient(cut: str) -> str:
    return (
        f"no gradient reaches the input: the graph is cut at {cut} (a `detach()`, a `no_grad()` block or an operation "
        f"without a derivative); {WITHOUT_GRADIENTS}."
    )


@dataclass(frozen=True)
class Site:
    """One call of one module: where a network can be looked into."""

    name: str  # dotted path, with "#2" for the second of several calls
    module: nn.Module
    which: int  # 0 for its first call in a forward


def activations_and_gradients(
    call: Call, sites: Sequence[Site], score: Score, scale: float = 1, differentiable: bool = False
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Activations A at some sites, and d score / d A (None where none arrives).

    One forward and one partial backward: the part of the network before the first site runs without a graph. A is the
    layer's own output; later code receives a copy, so an in-place operation after the layer cannot alter it.
    scale: what each A is multiplied by on its way, to see the gradient at other activations than the network's own.
    differentiable: both keep a graph, down to the parameters that require a gradient and to the input where it does.
    RefusalError where a site is not reached in the forward, or returns no tensor.
    """
    captured: list[Tensor | None] = [None] * len(sites)
    with torch.set_grad_enabled(differentiable), ExitStack() as hooks:
        if differentiable:  # fused attention has no second derivative
            hooks.enter_context(sdpa_kernel(SDPBackend.MATH))
        for slot, site in enumerate(sites):
            hooks.callback(site.module.register_forward_hook(start_graph(captured, slot, site, scale)).remove)
        output = call()
        hooks.close()  # off before the backward: a checkpointed block runs its forward again there
        with torch.enable_grad():
            total = score(output).sum()
    for site, tensor in zip(sites, captured, strict=True):
        if tensor is None:
            raise RefusalError(f"layer {site.name!r} was not reached in the forward pass.")
    activations = [tensor for tensor in captured if tensor is not None]
    given = activations if differentiable else [a.detach() for a in activations]
    if not total.requires_grad:
        return given, [None] * len(activations)
    return given, list(torch.autograd.grad(total, activations, allow_unused=True, create_graph=differentiable))


def start_graph(captured: list[Tensor | None], slot: int, site: Site, scale: float = 1) -> Callable[..., Any]:
    """A forward hook that captures what a site returns, and from where on a graph is kept."""
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
        tensor = tensor if scale == 1 else tensor * scale
        torch.set_grad_enabled(True)  # from here on a graph is needed; the `no_grad` around the call ends it
        kept = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
        captured[slot] = kept
        return replace_first_tensor(output, kept.clone())

    return hook


def where_graph_is_cut(module: nn.Module, call: Call) -> str | None:
    """Run the network on an input that requires a gradient: the first module that loses it, in words; None for none."""
    lost: list[str] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            given, returned = first_tensor(inputs), first_tensor(output)
            if given is not None and returned is not None and given.requires_grad and not _has_derivative(returned):
                lost.append(f"{name} ({type(module).__name__})" if name else OUTSIDE)

        return hook

    with torch.enable_grad(), ExitStack() as hooks:
        for name, submodule in module.named_modules():
            if not isinstance(submodule, torch.jit.ScriptModule):
                hooks.callback(submodule.register_forward_hook(record(name)).remove)
        call()
    return lost[0] if lost else None


def _has_derivative(tensor: Tensor) -> bool:
    return tensor.requires_grad and "NotImplemented" not in (tensor.grad_fn.name() if tensor.grad_fn else "")


def integer_modules(module: nn.Module) -> list[str]:
    """The modules that compute with quantized integers, which have no derivative, in words."""
    found = [(name or "the network itself", type(m)) for name, m in module.named_modules()]
    kinds = [(name, kind) for name, kind in found if ".quantized." in kind.__module__]
    return [f"{name} ({kind.__name__})" for name, kind in kinds if not kind.__name__.endswith("PackedParams")]

"""Attention maps as the network computes them: seen, changed, part of autograd's graph; and the blocks they lie in."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seewhy.capture.gradients import Call, Score, Site
from seewhy.capture.outputs import detach, first_tensor, replace_first_tensor
from seewhy.capture.state import frozen
from seewhy.errors import RefusalError

See = Callable[
    [int, Tensor], Tensor
]  # number of the call and its map (R, heads, N, N) -> what the network goes on with

_FUSED = functional.scaled_dot_product_attention
_MULTI_HEAD = functional.multi_head_attention_forward
_SOFTMAXES = (functional.softmax, torch.softmax, torch.special.softmax, Tensor.softmax)


def _listening_copy(function: Any) -> Any:
    """Torch's own function, which does not hand itself to the mode that is on: what it calls inside is seen instead."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_MULTI_HEAD_OPEN = _listening_copy(_MULTI_HEAD)
_GRADIENTS = _listening_copy(torch.autograd.grad)


@dataclass(frozen=True)
class Map:
    """The shape of one map of weights that sum to 1 along its last axis."""

    shape: tuple[int, ...]
    fused: bool  # from scaled_dot_product_attention: attention for certain; a softmax can be something else


class _Attending(TorchFunctionMode):
    """While it is on: every map is noted, and `see` is shown those of every row over all `tokens`, in order.

    They come from scaled_dot_product_attention, which is then computed step by step (in float32 at least) instead of in
    one piece, and from any softmax along the last axis, inside nn.MultiheadAttention too. What the network computes stays
    the same up to rounding. The mode is this thread's; nothing of torch or the network is changed.
    """

    def __init__(self, rows: int = 0, tokens: int = 0, see: See = lambda _, weights: weights) -> None:
        super().__init__()
        self.maps: list[Map] = []
        self._rows, self._tokens, self._see, self._shown = rows, tokens, see, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is _MULTI_HEAD:
            with self:
                return _MULTI_HEAD_OPEN(*args, **kwargs)
        if function is _FUSED:
            return self._attended(*args, **kwargs)
        output = function(*args, **kwargs)
        if function in _SOFTMAXES and output.ndim >= 3 and _along_last(output, *args, **kwargs):
            shape = self._note(output.shape, fused=False)
            if shape is not None:
                return self._show(output, shape).clone()  # the network may change its own in place
        return output

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shape = self._note((*query.shape[:-1], key.shape[-2]), fused=True)
        if shape is None:
            return _FUSED(query, key, value, *args, **kwargs)
        return _attention(query, key, value, lambda weights: self._show(weights, shape), *args, **kwargs)

    def _note(self, shape: Sequence[int], fused: bool) -> tuple[int, ...] | None:
        """The map's shape as (R, heads, tokens, tokens); None where it is another kind of map."""
        self.maps.append(Map(tuple(shape), fused))
        heads = heads_of(shape, self._rows, self._tokens) if self._tokens else None
        return None if heads is None else (self._rows, heads, self._tokens, self._tokens)

    def _show(self, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
        self._shown += 1
        return self._see(self._shown - 1, weights.reshape(shape)).reshape(weights.shape)


def heads_of(shape: Sequence[int], rows: int, tokens: int) -> int | None:
    """How many heads a map (R, heads, N, N) or (R * heads, N, N) over N = `tokens` has; None for any other shape."""
    if tuple(shape[-2:]) != (tokens, tokens):
        return None
    if len(shape) == 4 and shape[0] == rows:
        return shape[1]
    return shape[0] // rows if len(shape) == 3 and shape[0] % rows == 0 else None


def _along_last(output: Tensor, _input: Tensor, dim: Any = None, *_: Any, **__: Any) -> bool:
    return isinstance(dim, int) and dim in (-1, output.ndim - 1)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    show: Callable[[Tensor], Tensor],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T scale + mask) v, as scaled_dot_product_attention defines it; `show` sees the weights on the way."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    with torch.autocast(kind, enabled=False):
        exact = torch.promote_types(query.dtype, torch.float32)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        logits = (query.to(exact) * scale) @ key.to(exact).transpose(-2, -1)
        weights = show(_softmax(logits, attn_mask, is_causal))
        weights = functional.dropout(weights, dropout_p) if dropout_p else weights
        return weights.to(dtype) @ value.to(dtype)


def _softmax(logits: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Weights under a mask (True: may look; or added); the row of a query that may look nowhere is zero."""
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is None:
        return logits.softmax(-1)
    logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    nowhere = (logits == -torch.inf).all(-1, keepdim=True)
    return logits.masked_fill(nowhere, 0).softmax(-1).masked_fill(nowhere, 0)


def attend(call: Call, rows: int, tokens: int, see: See) -> Any:
    """The network's output, without a graph; `see` is shown every attention map on the way and may change it."""
    with torch.no_grad(), _Attending(rows, tokens, see):
        return call()


def attention_gradients(
    module: nn.Module, call: Call, score: Score, rows: int, tokens: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Attention maps A (R, heads, N, N) in order of execution, and d score / d A, in one forward and one backward.

    The graph begins at the first map: no gradient of the input or a weight is computed. A gradient is zero where none
    arrives; RefusalError where the graph is cut.
    """
    kept: list[Tensor] = []
    listening = True

    def see(_: int, weights: Tensor) -> Tensor:
        weights = weights if weights.requires_grad else weights.detach().requires_grad_()
        if listening:
            kept.append(weights)
        return weights

    with frozen(module), torch.enable_grad(), _Attending(rows, tokens, see):
        total = score(call()).sum()
        listening = False  # a checkpointed block runs its forward again in the backward: it must be the same one
        if not total.requires_grad:
            raise RefusalError(
                "no gradient reaches the attention: the graph is cut between it and the score (a `detach()`, a `no_grad()` "
                "block or an operation without a derivative). attention_rollout needs none."
            )
        gradients = _GRADIENTS(total, kept, allow_unused=True)
    reached = [torch.zeros_like(a) if g is None else g for a, g in zip(kept, gradients, strict=True)]
    return [weights.detach() for weights in kept], reached


# -- the blocks of a network -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """One call of one module: what it was given and returned, and which maps were computed inside."""

    site: Site
    given: Tensor | None
    returned: Tensor | None
    maps: range


def trace_attention(module: nn.Module, call: Call) -> tuple[list[Map], list[Span]]:
    """Run the network once: every map, and every call of every submodule in order of entry (outer ones first)."""
    spans: list[Span | None] = []
    entered: list[tuple[int, int, Tensor | None]] = []
    counts: dict[str, int] = {}
    mode = _Attending()

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
        given = first_tensor(args)
        entered.append((len(spans), len(mode.maps), first_tensor(kwargs) if given is None else given))
        spans.append(None)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            place, first, given = entered.pop()
            site = Site(name, module, counts.get(name, 0))
            counts[name] = site.which + 1
            spans[place] = Span(site, given, first_tensor(output), range(first, len(mode.maps)))

        return hook

    with torch.no_grad(), mode, ExitStack() as hooks:
        for name, submodule in module.named_modules():
            if name and not isinstance(submodule, torch.jit.ScriptModule):
                hooks.callback(submodule.register_forward_pre_hook(enter, with_kwargs=True).remove)
                hooks.callback(submodule.register_forward_hook(leave(name)).remove)
        call()
    return mode.maps, [span for span in spans if span is not None]


@contextmanager
def _forwards(sites: Sequence[Site], run: Callable[[int, Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
    """Inside, block k is computed by `run(k, its own forward, args, kwargs)`."""
    with ExitStack() as stack:
        for module in dict.fromkeys(site.module for site in sites):
            numbers = [k for k, site in enumerate(sites) if site.module is module]
            stack.enter_context(_forward(module, numbers, run))
        yield


@contextmanager
def _forward(module: nn.Module, numbers: list[int], run: Callable[..., Any]) -> Iterator[None]:
    own, calls = module.forward, 0
    before = module.__dict__.get("forward")  # there is one where another library has set its own

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return run(numbers[(calls - 1) % len(numbers)], own, args, kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def block_outputs(call: Call, sites: Sequence[Site]) -> tuple[list[Any], Any]:
    """What each block returned in one run without a graph, and the network's output."""
    kept: list[Any] = [None] * len(sites)

    def run(k: int, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        kept[k] = _copied(output)
        return output

    with torch.no_grad(), _forwards(sites, run):
        return kept, call()


@contextmanager
def one_block(
    sites: Sequence[Site], kept: Sequence[Any], which: int, edit: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Inside, only block `which` is computed: those before return what they returned in the run that was kept, later ones
    what they are given. `edit` changes the tokens that the block returns.
    """

    def run(k: int, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if k < which:
            return _copied(kept[k])
        if k == which:
            output = own(*args, **kwargs)
            tokens = first_tensor(output)
            return output if tokens is None else replace_first_tensor(output, edit(tokens))
        given = first_tensor(args)
        given = first_tensor(kwargs) if given is None else given
        return kept[k] if given is None else replace_first_tensor(kept[k], given)

    with _forwards(sites, run):
        yield


def _copied(output: Any) -> Any:
    """A block's output with tokens of its own: whatever the network does with them in place, these stay."""
    tokens = first_tensor(output)
    return output if tokens is None else replace_first_tensor(detach(output), tokens.detach().clone())

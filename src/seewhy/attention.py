"""A network's attention over all its tokens, found by running it: its maps, its blocks, and the tokens that are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.capture import Call, Score, Site
from seewhy.errors import RefusalError
from seewhy.forms import Form, token_forms
from seewhy.places import Run, read_tokens

INSTEAD = "Use grad_cam, smooth_grad or integrated_gradients."
SHAPES_SHOWN = 4
ENLARGED = 1e3  # what a map is multiplied by to see who depends on it; a layer scale of 1e-6 must not hide it
Edited = Callable[[capture.See], list[Tensor]]  # the score and every tensor of the output, with maps edited on the way


@dataclass(frozen=True)
class Blocks:
    """The blocks that hold one attention each; what one returns is what the next is given."""

    sites: tuple[Site, ...]
    axis: int  # of their output, along which the tokens run


@dataclass(frozen=True)
class Attention:
    """The attention maps (R, heads, tokens, tokens) of a network, in order of execution.

    `read` (tokens,) says of which tokens the score still reads something after the last attention: the class token, or
    the ones that are pooled. A map's columns `form.prefix` and up are the cells of the image.
    """

    module: nn.Module
    form: Form
    tokens: int
    calls: int
    read: Tensor
    blocks: Blocks | None  # None: they cannot be told apart

    def fused(self, call: Call, score: Score, rows: int, fuse: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """`fuse` of every map, in one forward without a graph."""
        kept: list[Tensor] = []

        def see(_: int, weights: Tensor) -> Tensor:
            kept.append(fuse(weights))
            return weights

        with torch.no_grad():
            score(capture.attend(call, rows, self.tokens, see))
        return kept

    def gradients(self, call: Call, score: Score, rows: int) -> tuple[list[Tensor], list[Tensor]]:
        """Every map A and d score / d A, in one forward and one backward down to the first map."""
        return capture.attention_gradients(self.module, call, score, rows, self.tokens)

    def block_outputs(self, call: Call, score: Score) -> list[Any]:
        """What every block returns, in one forward without a graph."""
        kept, outputs = capture.block_outputs(call, self._blocks().sites)
        with torch.no_grad():
            score(outputs)
        return kept

    def block_gradient(
        self, call: Call, score: Score, rows: int, kept: Sequence[Any], block: int, mean_of_tokens: bool
    ) -> Tensor:
        """Gradient d score / d A of one block when the blocks after it are left out: (R, heads, tokens, tokens).

        kept: what the blocks returned; those before this one are not computed again. mean_of_tokens: the rest of the
        network is given the mean of the block's tokens in the place of each of them.
        """
        blocks = self._blocks()

        def edit(tokens: Tensor) -> Tensor:
            return tokens.mean(blocks.axis, keepdim=True).repeat_interleave(self.tokens, blocks.axis)

        with capture.one_block(blocks.sites, kept, block, edit if mean_of_tokens else lambda tokens: tokens):
            _, (gradient,) = capture.attention_gradients(self.module, call, score, rows, self.tokens)
        return gradient

    def _blocks(self) -> Blocks:
        if self.blocks is None:
            raise RefusalError(
                f"the blocks of {type(self.module).__name__} cannot be told apart: there is no chain of modules that hold "
                f"one of its {self.calls} attention maps each. Use transformer_attribution, which needs no blocks."
            )
        return self.blocks

    def row(self, rows: int, device: torch.device) -> Tensor:
        """The tokens that are read, each with the same share: (R, tokens), summing to 1."""
        share = self.read.to(device, torch.float32)
        return (share / share.sum()).expand(rows, -1)

    def cells(self, values: Tensor) -> Tensor:
        """Of (R, tokens) those of the image's cells, (R, *grid)."""
        return values[:, self.form.prefix :].reshape(len(values), *self.form.grid)

    def notes(self) -> tuple[str, ...]:
        """What stands in for a class token where the score is not read from one alone."""
        cells, prefix = bool(self.read[self.form.prefix :].any()), int(self.read[: self.form.prefix].sum())
        if not cells and prefix == 1:
            return ()
        where = f"{prefix} tokens before the grid" if not cells else "the grid" if not prefix else "all kinds of tokens"
        return (f"the score is read from {where}, not from one class token: the mean over the rows of these is taken",)


def find_attention(module: nn.Module, run: Run, probes: Tensor, score: Score) -> Attention:
    """The attention of a network over all its tokens, from runs on two probe images.

    RefusalError where there is none, where a map is not over all tokens (windows, pooled tokens, channels), where two maps
    are computed side by side, or where the score does not come from the tokens of the last one.
    """

    def call() -> Any:
        return run(probes)

    maps, spans = capture.trace_attention(module, call)
    form = _form_of(module, run, maps, spans, probes)
    tokens = form.prefix + form.grid[0] * form.grid[1]
    places = [k for k, found in enumerate(maps) if capture.heads_of(found.shape, len(probes), tokens) is not None]
    blocks = _blocks(spans, places, len(probes), tokens)

    def edited(edit: capture.See) -> list[Tensor]:
        output = capture.attend(call, len(probes), tokens, edit)
        with torch.no_grad():
            return [score(output), *capture.tensors(output)]

    if blocks is None:
        _refuse_side_by_side(module, len(places), edited)
    read = _read(module, form, len(places) - 1, edited)
    return Attention(module, form, tokens, len(places), read, blocks)


def _form_of(
    module: nn.Module,
    run: Run,
    maps: Sequence[capture.Map],
    spans: Sequence[capture.Span],
    probes: Tensor,
) -> Form:
    """The tokens that every map is over, as a grid with a prefix, seen at the first module that returns them."""
    rows, name = len(probes), type(module).__name__
    over = {f.shape[-1] for f in maps if capture.heads_of(f.shape, rows, f.shape[-1]) is not None}
    attention = [f for f in maps if f.fused or len(f.shape) == 4 or f.shape[-1] in over]
    if not attention:
        raise RefusalError(
            f"{name} computes no attention that can be seen: no scaled_dot_product_attention, no softmax over a map of "
            f"tokens by tokens (a scripted or compiled part hides its own). {INSTEAD}"
        )
    whole = len(over) == 1 and all(capture.heads_of(f.shape, rows, f.shape[-1]) is not None for f in attention)
    tokens = next(iter(over)) if whole else 0
    axes = {span.site: _tokens_axis(span.returned, rows, tokens) for span in spans}
    site = next((site for site, axis in axes.items() if axis is not None), None)
    order = (0, 1, 2) if site is None or axes[site] == 1 else (1, 0, 2)
    forms = [replace(form, order=order) for form in token_forms(tokens, probes.shape[2:])]
    form = None if site is None else read_tokens(run, probes, site, forms)
    if form is not None and form.before:
        raise RefusalError(
            f"{name}: its class token comes after the grid, or in it ({form.before} cells stand before what is no cell). "
            f"Methods of attention look for it in front. {INSTEAD}"
        )
    if form is None:
        shapes = list(dict.fromkeys(" x ".join(map(str, f.shape)) for f in attention))
        more = f" and {len(shapes) - SHAPES_SHOWN} other shapes" if len(shapes) > SHAPES_SHOWN else ""
        raise RefusalError(
            f"{name} computes attention, but not over all tokens of a grid, in maps of images x heads x tokens x tokens: "
            f"for {rows} images its maps are {', '.join(shapes[:SHAPES_SHOWN])}{more} (windows, pooled tokens or "
            f"channels, say). {INSTEAD}"
        )
    return form


def _tokens_axis(tensor: Tensor | None, rows: int, tokens: int) -> int | None:
    """The axis of a tensor of tokens, (R, N, C) or (N, R, C), along which they run; None for any other tensor."""
    if tensor is None or tensor.ndim != 3:
        return None
    return {(rows, tokens): 1, (tokens, rows): 0}.get((tensor.shape[0], tensor.shape[1]))


def _blocks(spans: Sequence[capture.Span], places: Sequence[int], rows: int, tokens: int) -> Blocks | None:
    """Of each map the outermost module that holds no other and turns tokens into tokens, where these form a chain."""

    def is_block(span: capture.Span, place: int) -> bool:
        same = span.given is not None and span.returned is not None and span.given.shape == span.returned.shape
        return same and _tokens_axis(span.returned, rows, tokens) is not None and _inside(span, places) == [place]

    chain = [next((span for span in spans if is_block(span, place)), None) for place in places]
    found = [span for span in chain if span is not None]
    if len(found) < len(places) or not all(_same(a.returned, b.given) for a, b in pairwise(found)):
        return None
    axis = _tokens_axis(found[0].returned, rows, tokens)
    assert axis is not None, "a block returns tokens"
    return Blocks(tuple(span.site for span in found), axis)


def _inside(span: capture.Span, places: Sequence[int]) -> list[int]:
    return [place for place in places if place in span.maps]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and (a is b or torch.equal(a, b))


def _refuse_side_by_side(module: nn.Module, calls: int, edited: Edited) -> None:
    """RefusalError where a map does not depend on the one before it: two of one block, not one after the other."""
    plain: dict[int, float] = {}
    edited(lambda k, weights: _noted(plain, k, weights))
    for last in range(calls - 1):
        changed: dict[int, float] = {}

        def edit(k: int, weights: Tensor, last: int = last, changed: dict[int, float] = changed) -> Tensor:
            return _noted(changed, k, weights) * (ENLARGED if k == last else 1)

        edited(edit)
        if changed[last + 1] == plain[last + 1]:
            raise RefusalError(
                f"{type(module).__name__} computes attention maps side by side (number {last + 2} does not depend on number "
                f"{last + 1}): methods that multiply maps layer by layer are not defined for it. {INSTEAD}"
            )


def _noted(kept: dict[int, float], k: int, weights: Tensor) -> Tensor:
    kept[k] = float(weights.double().square().sum())
    return weights


def _read(module: nn.Module, form: Form, last: int, edited: Edited) -> Tensor:
    """Of which tokens the score reads what the last attention wrote, by enlarging their rows of its map: (tokens,).

    Each token before the grid by itself, and the cells of the grid together; the last token also by itself, because a
    class token behind the grid would shift every cell. Where the score changes with none of them (a clamped one, say), the
    whole output is asked.
    """
    plain = edited(lambda _, weights: weights)
    tokens = form.prefix + form.grid[0] * form.grid[1]
    place = torch.arange(tokens, device=plain[0].device)

    def changes(part: Tensor) -> list[bool]:
        rows = part.view(-1, 1)
        changed = edited(lambda k, weights: torch.where(rows, ENLARGED * weights, weights) if k == last else weights)
        same = [torch.equal(a, b) for a, b in zip(plain, changed, strict=True)]
        return [not same[0], not all(same)]

    parts = [place == k for k in range(form.prefix)]
    parts += [(place >= form.prefix) & (place < tokens - 1), place == tokens - 1]
    found = torch.tensor([changes(part) for part in parts])  # (parts, score and whole output)
    read = found[:, 0] if bool(found[:, 0].any()) else found[:, 1]
    if read[-1] and not read[-2]:
        raise RefusalError(
            f"{type(module).__name__} reads the last of its {tokens} tokens and no other behind the first {form.prefix}: "
            f"its class token comes after the grid, where cells cannot be told from it. {INSTEAD}"
        )
    if not read.any():
        raise RefusalError(
            f"what the last attention of {type(module).__name__} writes changes nothing in its output: no map of it explains "
            f"the score. {INSTEAD}"
        )
    return torch.cat([read[:-2], read[-2].expand(tokens - form.prefix)])

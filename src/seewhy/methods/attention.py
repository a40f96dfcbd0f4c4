"""Maps from the attention of a transformer over all its tokens."""

from typing import Literal

import torch
from torch import Tensor

from seewhy.errors import known_name
from seewhy.maps import Maps
from seewhy.methods.steps import by_groups, norm, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

Heads = Literal["mean", "max", "min"]
Pooling = Literal["mean", "head"]
NOT_ITS_OWN_HEAD = "each block's score is that of its mean token; the network itself reads only some of its tokens"


@method(
    title="Attention rollout",
    family="attention",
    resolution="layer",
    picture="positive",
    rows=lambda _: (1, 0),
    cost="1 forward row",
    paper="Abnar and Zuidema 2020, arXiv:2005.00928, section 3, equation 1",
    uses_target=False,
    needs_gradients=False,
    needs_attention=True,
    good_for="how far attention over all blocks lets a patch reach what the head reads (Abnar 2020)",
    not_for="why this class: one map for all, and irrelevant tokens get emphasized (Chefer 2021a, arXiv:2012.09838)",
    randomization="not reported",
)
def attention_rollout(
    model: VisionModel, images: Tensor, target: Target, *, heads: Heads = "mean", ignore_target: bool = False
) -> Maps:
    """Where attention over all blocks can have carried a patch to the class token, whatever the class.

    A^l = (H^l + I) / 2, each row divided by its sum, with H^l the `heads` (mean: the paper's; max or min: those of the
    vit-explain code) of block l's attention; M = the class token's row of A^L ... A^1 at the cells, (N, *grid), >= 0. The
    row sums to 1 over all tokens, so that a map is a share of what the class token is made of; evidence `cells_share` is
    the part that lies on the image, the rest lies on the class token itself and other tokens before the grid.
    Where the score is not read from one class token (pooled patches, a distillation token), the mean over the rows of the
    tokens that it is read from, found by experiment, and a note says so. RefusalError: see model.attention.
    The code of vit-explain differs: it divides column j by the sum of row j, and drops the lowest 90 % of all weights.
    """
    del ignore_target  # says that the caller knows; checked before the call
    known_name("heads", heads, ("mean", "max", "min"))
    attention = model.attention(images.shape[1:], target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        fused, answer = model.through(
            images[part],
            question,
            rows,
            lambda run, score: attention.fused(run, score, len(rows), lambda weights: _fused(weights, heads)),
        )
        reached = attention.row(len(rows), model.device)
        for weights in reversed(fused):
            step = weights + torch.eye(attention.tokens, dtype=weights.dtype, device=weights.device)
            reached = _times(reached, step / step.sum(-1, keepdim=True))
        raw = attention.cells(reached)
        evidence = {"cells_share": raw.flatten(1).sum(1)}
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, notes=attention.notes())

    return by_groups(model, images, target, run)


@method(
    title="Transformer attribution",
    family="attention",
    resolution="layer",
    picture="positive",
    rows=lambda _: (0, 1),
    cost="1 gradient row (backward only down to the first attention)",
    paper="Chefer et al. 2021b, arXiv:2103.15679, equations 5 and 6",
    needs_attention=True,
    good_for="which patches reach the class through attention; class-specific, unlike rollout (Chefer 2021b)",
    not_for="evidence against the class: negative gradient x attention is dropped before blocks are joined (equation 5)",
    randomization="not reported",
)
def transformer_attribution(model: VisionModel, images: Tensor, target: Target) -> Maps:
    """Rollout with the heads weighted by what they do for this class: gradient times attention, positive part.

    A^l = mean over heads of (dS/dA^l * A^l)^+; R = (I + A^L) ... (I + A^1), which is the paper's R <- R + A^l R from R = I;
    M = the class token's row of R - I at the cells, (N, *grid), >= 0. S enters as a product over blocks: a score twice as
    large does not give a map twice as large. Only the class token's row is computed, by vectors from the last block down.
    Where the score is not read from one class token, as in attention_rollout. Evidence: gradient_norm over all attention.
    The first paper's rule (CVPR 2021, arXiv:2012.09838) has relevance by LRP in the place of A. It is not here: LRP needs a
    rule of its own for every operation of a network, and its authors' second paper, this one, does without.
    """
    attention = model.attention(images.shape[1:], target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        (weights, gradients), answer = model.through(
            images[part],
            question,
            rows,
            lambda run, score: attention.gradients(run, score, len(rows)),
            gradient=True,
        )
        start = attention.row(len(rows), model.device)
        gained = torch.zeros_like(start)  # the row of R - I by itself: a small score's would be lost beside that of I
        for a, g in zip(reversed(weights), reversed(gradients), strict=True):
            gained = gained + _times(start + gained, (a * g).clamp_min(0).float().mean(1))
        evidence = {"gradient_norm": norm(torch.stack([norm(gradient) for gradient in gradients], 1))}
        raw = attention.cells(gained)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, notes=attention.notes())

    return by_groups(model, images, target, run)


@method(
    title="LeGrad",
    family="attention",
    resolution="layer",
    picture="positive",
    rows=lambda facts: (1, facts["blocks"]),
    cost="1 forward row + 1 gradient row a block (each runs that block alone between the network's stem and head)",
    paper="Bousselham et al. 2024, arXiv:2404.03214, section 3",
    needs_attention=True,
    good_for="where the class forms over the blocks; large networks and open vocabularies (Bousselham 2024)",
    not_for="evidence against the class: negative gradients are dropped (Bousselham 2024, section 3)",
    randomization="not reported",
)
def le_grad(model: VisionModel, images: Tensor, target: Target, *, pooling: Pooling = "mean") -> Maps:
    """How each block's attention would have to change for its own tokens to speak more for the class.

    M = 1/L sum_l mean over heads and query rows of (dS^l/dA^l)^+, columns of the cells, (N, *grid), >= 0, in score units.
    S^l is the score that the network gives when the blocks after l are left out, and A^l the attention of block l alone.
    pooling: `mean`, as in the paper's code, lets the head read the mean of block l's tokens (class token included) in the
    place of each; `head` lets it read the tokens themselves, so that S^L is the network's own score (a head that reads the
    class token then sees only that token's row). Evidence: gradient_norm over all attention.
    The authors' code takes the last two blocks by default, normalizes features (CLIP) and scales maps to [0, 1]; we take all
    blocks, as the paper does, through the network's own head. RefusalError where blocks cannot be told apart.
    """
    known_name("pooling", pooling, ("mean", "head"))
    attention = model.attention(images.shape[1:], target)
    notes = () if pooling == "head" or bool(attention.read.all()) else (NOT_ITS_OWN_HEAD,)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        kept, answer = model.through(x, question, rows, attention.block_outputs)

        def slope(block: int) -> Tensor:
            found, _ = model.through(
                x,
                answer.target,
                rows,
                lambda run, score: attention.block_gradient(run, score, len(rows), kept, block, pooling == "mean"),
                gradient=True,
            )
            return found

        total = torch.zeros(len(x), attention.tokens, dtype=torch.float32, device=model.device)
        lengths = []
        for block in range(attention.calls):
            gradient = slope(block)
            lengths.append(norm(gradient))
            total += gradient.clamp_min(0).float().mean((1, 2))
        evidence = {"gradient_norm": norm(torch.stack(lengths, 1))}
        raw = attention.cells(total / attention.calls)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, notes=notes)

    return by_groups(model, images, target, run)


def _fused(weights: Tensor, heads: Heads) -> Tensor:
    """(R, heads, N, N) -> (R, N, N)."""
    weights = weights.float()
    return weights.mean(1) if heads == "mean" else weights.amax(1) if heads == "max" else weights.amin(1)


def _times(rows: Tensor, matrices: Tensor) -> Tensor:
    """A row vector (R, N) times a matrix (R, N, N), per image."""
    return torch.einsum("rq,rqk->rk", rows, matrices)

"""Tiny transformers, each with one habit of real ones: how attention is computed, what is read, what is refused."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nets import Vit, seeded

SPELLINGS = {
    "torch.softmax": lambda t: torch.softmax(t, -1),
    "Tensor.softmax": lambda t: t.softmax(dim=-1),
    "functional.softmax": lambda t: functional.softmax(t, dim=3),
    "functional.softmax float32": lambda t: functional.softmax(t, dim=-1, dtype=torch.float32).to(t.dtype),
    "special.softmax": lambda t: torch.special.softmax(t, -1),
    "nn.Softmax": nn.Softmax(-1),
}


class Attention(nn.Module):
    """Attention written out; the weights of the last forward stay in `kept`."""

    def __init__(self, dim, heads=2, softmax="Tensor.softmax", in_place=False, flat=False):
        super().__init__()
        self.heads, self.softmax, self.in_place, self.flat = heads, SPELLINGS[softmax], in_place, flat
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.kept = None

    def forward(self, x):
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.flat:
            weights = logits.flatten(0, 1).softmax(-1)
            mixed = (weights @ v.flatten(0, 1)).view(v.shape)
        else:
            weights = self.softmax(logits)
            if self.in_place:
                weights.mul_(1.0).add_(0.0)
            mixed = weights @ v
        self.kept = weights
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, dim))


class ExplicitVit(Vit):
    """The same network as nets.Vit with the attention written out."""

    def __init__(self, *args, blocks=2, softmax="Tensor.softmax", in_place=False, flat=False, **kwargs):
        super().__init__(*args, **kwargs)
        dim = self.head.in_features
        self.blocks = self.blocks[:blocks]
        for block in self.blocks:
            block.attn = Attention(dim, softmax=softmax, in_place=in_place, flat=flat)

    def tokens(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions


class MultiHead(Vit):
    """nn.MultiheadAttention inside torch's own encoder: its fast path computes attention out of sight."""

    def __init__(self, batch_first=True, norm_first=True, **kwargs):
        super().__init__(**kwargs)
        dim = self.head.in_features
        layer = nn.TransformerEncoderLayer(
            dim, 2, 2 * dim, batch_first=batch_first, norm_first=norm_first, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        tokens = self.blocks(tokens) if self.batch_first else self.blocks(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(self.norm(tokens)[:, 0])


class Reading(Vit):
    """Its score is read from other tokens than the class token alone."""

    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        prefix = self.prefix_tokens.expand(len(x), -1, -1)
        order = [tokens, prefix] if self.what == "class token last" else [prefix, tokens]
        tokens = torch.cat(order, 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.what == "two":
            return (self.head(tokens[:, 0]) + self.head(tokens[:, 1])) / 2
        if self.what == "all":
            return self.head(tokens.mean(1))
        if self.what == "cells":
            return self.head(tokens[:, self.prefix :].mean(1))
        if self.what == "class token last":
            return self.head(tokens[:, -1])
        return self.head(self.patch(x).mean((2, 3)))  # nothing of what attention wrote


class Tied(Vit):
    """One block, called twice."""

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        for _ in range(2):
            tokens = self.blocks[0](tokens)
        return self.head(self.norm(tokens)[:, 0])


class TupleBlock(nn.Module):
    """A block of the transformers library: keywords in, a tuple out."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, head_mask=None):
        return (self.block(hidden_states), head_mask)


class Tuples(Vit):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = nn.ModuleList(TupleBlock(block) for block in self.blocks)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        for block in self.blocks:
            tokens = block(hidden_states=tokens)[0]
        return {"logits": self.head(self.norm(tokens)[:, 0])}


class Inline(ExplicitVit):
    """No module per block: everything in one forward."""

    def forward(self, x):
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = tokens + block.attn(block.norm1(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        return self.head(self.norm(tokens)[:, 0])


class Parallel(Inline):
    """Two attentions beside each other, added."""

    def forward(self, x):
        tokens = self.tokens(x)
        tokens = tokens + sum(block.attn(block.norm1(tokens)) for block in self.blocks)
        return self.head(self.norm(tokens)[:, 0])


class Checkpointed(Vit):
    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False)
        return self.head(self.norm(tokens)[:, 0])


class CutVit(Vit):
    """A frozen backbone: no graph from the attention to the score."""

    def __init__(self, how="no_grad", **kwargs):
        super().__init__(**kwargs)
        self.how = torch.no_grad if how == "no_grad" else torch.inference_mode

    def forward(self, x):
        with self.how():
            return super().forward(x)


class FailingVit(Vit):
    """Raises after its first block, or in its head."""

    def __init__(self, after=10**9, **kwargs):
        super().__init__(**kwargs)
        self.after, self.seen = after, 0
        self.blocks[1].register_forward_pre_hook(self.count)

    def count(self, module, inputs):
        self.seen += 1
        if self.seen > self.after:
            raise ZeroDivisionError("the network's own fault")


class Odd(Vit):
    """Attention over something else than all tokens: windows, pooled ones, some, channels, or one class token's."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        tokens = self.blocks[0](tokens) if self.kind not in ("windows", "channels") else tokens
        q = tokens.unsqueeze(1)
        if self.kind == "windows":
            cells = tokens[:, self.prefix :].reshape(len(x) * 4, 1, -1, tokens.shape[-1])
            mixed = functional.scaled_dot_product_attention(cells, cells, cells).reshape(len(x), -1, tokens.shape[-1])
        elif self.kind == "pooled":
            short = q[:, :, ::2]
            mixed = functional.scaled_dot_product_attention(q, short, short)[:, 0]
        elif self.kind == "pooled, written out":
            short = q[:, :, ::2]
            mixed = ((q @ short.transpose(-2, -1)).softmax(-1) @ short)[:, 0]
        elif self.kind == "two sizes":
            mixed = self.blocks[1](tokens[:, :10])
        elif self.kind == "channels":
            mixed = ((tokens.transpose(1, 2) @ tokens / 10).softmax(-1) @ tokens.transpose(1, 2)).transpose(1, 2)
        else:
            mixed = functional.scaled_dot_product_attention(q[:, :, :1], q, q)[:, 0]
        return self.head(self.norm(mixed).mean(1))


explicit_vit = seeded(ExplicitVit)
multi_head = seeded(MultiHead)
reading = seeded(Reading)
tied = seeded(Tied)
tuples = seeded(Tuples)
inline = seeded(Inline)
parallel = seeded(Parallel)
checkpointed_vit = seeded(Checkpointed)
cut_vit = seeded(CutVit)
failing_vit = seeded(FailingVit)
odd = seeded(Odd)


def twin_of(net, **kwargs):
    """The same weights with the attention written out."""
    twin = explicit_vit(**kwargs)
    twin.load_state_dict(net.state_dict())
    return twin

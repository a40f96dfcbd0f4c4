"""Slow twins of the attention methods: straight from their papers, one image, one block, one head, one row at a time."""

import torch


def rollout(layers, heads="mean"):
    """Abnar 2020, equation 1: A~ = A^L ... A^1 with A = (W + I) / 2, rows divided by their sums; layers of (heads, N, N)."""
    tokens = layers[0].shape[-1]
    joined = torch.eye(tokens)
    for weights in layers:
        fused = {"mean": sum(weights) / len(weights), "max": weights.max(0)[0], "min": weights.min(0)[0]}[heads]
        step = torch.zeros(tokens, tokens)
        for i in range(tokens):
            for j in range(tokens):
                step[i, j] = (fused[i, j] + float(i == j)) / 2
            step[i] /= step[i].sum()
        new = torch.zeros(tokens, tokens)
        for i in range(tokens):
            new[i] = sum(step[i, k] * joined[k] for k in range(tokens))
        joined = new
    return joined


def generic_attention(layers, gradients):
    """Chefer 2021b, equations 5 and 6: R <- R + A- R from R = I, A- the mean over heads of (gradient * weights)^+."""
    tokens = layers[0].shape[-1]
    relevance = torch.eye(tokens, dtype=torch.float64)
    for weights, slopes in zip(layers, gradients, strict=True):
        mean = torch.zeros(tokens, tokens, dtype=torch.float64)
        for head in range(len(weights)):
            mean += torch.clamp(slopes[head] * weights[head], min=0) / len(weights)
        relevance = relevance + mean @ relevance
    return relevance


def le_grad(net, image, target, pooling="mean"):
    """Bousselham 2024, section 3, on attention_nets.ExplicitVit: (tokens,) of one image, one block at a time."""
    total = 0
    for last in range(len(net.blocks)):
        tokens = net.tokens(image[None])
        for block in net.blocks[: last + 1]:
            tokens = block(tokens)
        weights = net.blocks[last].attn.kept  # (1, heads, N, N)
        if pooling == "mean":
            score = net.head(net.norm(tokens.mean(1)))[0, target]
        else:
            read = net.norm(tokens)
            score = net.head(read[:, 0] if net.class_token else read[:, net.prefix :].mean(1))[0, target]
        slopes = torch.autograd.grad(score, weights)[0][0]
        for head in slopes:
            for row in head:
                total = total + torch.clamp(row, min=0) / (slopes.shape[0] * slopes.shape[1])
    return total / len(net.blocks)


def maps_and_gradients(net, image, target):
    """Of one image through attention_nets.ExplicitVit: per block the weights (heads, N, N) and d score / d weights."""
    score = net(image[None])[0, target]
    kept = [block.attn.kept for block in net.blocks]
    shape = (-1, *kept[0].shape[-2:])
    gradients = torch.autograd.grad(score, kept)
    return [w.detach().reshape(shape) for w in kept], [g.reshape(shape) for g in gradients]

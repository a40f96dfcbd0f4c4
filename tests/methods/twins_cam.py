"""Slow twins of the class activation maps: one image, one channel, one cell or one class at a time, from the papers."""

import numpy as np
import torch
from torch.nn import functional


def captured(net, layer, image, score):
    """What a layer returns for one image, and the gradient of the score there, by a hook of our own."""
    kept = {}
    module = dict(net.named_modules())[layer]
    handle = module.register_forward_hook(lambda m, i, o: kept.update(a=o) or o.retain_grad())
    score(net(image[None])[0]).backward()
    handle.remove()
    net.zero_grad()
    return kept["a"].detach()[0], kept["a"].grad[0]


def weighted_sum(weights, activations):
    total = torch.zeros(activations.shape[1:], dtype=activations.dtype)
    for weight, activation in zip(weights, activations, strict=True):
        total += weight * activation
    return total


def grad_cam_pp(activations, gradients, variant):
    """Chattopadhyay 2018, equations 7 and 19, powers and all, in float64; `code`: alpha / its sum where g > 0."""
    activations, gradients = activations.double(), gradients.double()
    weights = []
    for a, g in zip(activations, gradients, strict=True):
        alpha = torch.zeros_like(a)
        for cell in np.ndindex(*a.shape):
            if g[cell] != 0:
                alpha[cell] = g[cell] ** 2 / (2 * g[cell] ** 2 + a.sum() * g[cell] ** 3)
        if variant == "code":
            total = sum(float(alpha[cell]) for cell in np.ndindex(*a.shape) if g[cell] > 0)
            alpha = alpha / total if total else alpha
        weights.append(sum(float(alpha[cell]) * max(0.0, float(g[cell])) for cell in np.ndindex(*a.shape)))
    return weighted_sum(weights, activations)


def xgrad_cam(activations, gradients):
    """Fu 2020: the gradient averaged with weights A / sum A."""
    weights = []
    for a, g in zip(activations.double(), gradients.double(), strict=True):
        total = float(a.sum())
        weights.append(sum(float(a[c]) / total * float(g[c]) for c in np.ndindex(*a.shape)) if total else 0.0)
    return weighted_sum(weights, activations.double())


def per_cell(activations, gradients, positive):
    """Draelos 2020, and Jiang 2021 with `positive`: sum_k (ReLU of) g A, one cell at a time."""
    total = torch.zeros(activations.shape[1:])
    for k in range(len(activations)):
        for cell in np.ndindex(*total.shape):
            g = float(gradients[k][cell])
            total[cell] += (max(0.0, g) if positive else g) * float(activations[k][cell])
    return total


def layer_cam_fused(maps, shallow, gamma):
    """Jiang 2021, section III: every map over its maximum, tanh for the shallow ones, bilinear, maximum."""
    size = max((m.shape for m in maps), key=lambda shape: shape[0] * shape[1])
    best = torch.zeros(size)
    for m, is_shallow in zip(maps, shallow, strict=True):
        share = m.clamp_min(0) / m.max()
        share = torch.tanh(gamma * share) if is_shallow else share
        large = functional.interpolate(share[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        best = torch.maximum(best, large)
    return best


def eigen_cam(activations, centered=False):
    """Muhammad 2020: cells projected on the first right singular vector, by power iteration in float64."""
    cells = activations.double().flatten(1).T
    cells = cells - cells.mean(0) if centered else cells
    v = torch.ones(cells.shape[1], dtype=torch.float64) + torch.linspace(0, 1, cells.shape[1], dtype=torch.float64)
    for _ in range(5000):
        v = cells.T @ (cells @ v)
        v = v / v.norm()
    return (cells @ v).view(activations.shape[1:])


def score_cam(net, layer, image, k, weights, fill, scale=torch.softmax):
    """Wang 2020, one mask at a time: algorithm 1 (channel softmax), equation 10 (increase), the authors' code."""
    activations, _ = captured(net, layer, image, lambda out: out[k])
    said, used = [], []
    for a in activations:
        if a.max() == a.min():
            continue
        mask = functional.interpolate(a[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        with torch.no_grad():
            out = net((image * mask + fill * (1 - mask))[None])[0]
        said.append(out[k] if weights == "channel_softmax" else scale(out, 0)[k])
        used.append(a)
    said = torch.stack(said)
    if weights == "increase":
        with torch.no_grad():
            said = said - scale(net(fill[None])[0], 0)[k]
    return weighted_sum(said.softmax(0) if weights == "channel_softmax" else said, torch.stack(used))


def ablation_cam(net, layer, image, k, weights):
    """Desai 2020, one channel at zero at a time."""
    activations, _ = captured(net, layer, image, lambda out: out[k])
    module, found = dict(net.named_modules())[layer], []
    with torch.no_grad():
        score = float(net(image[None])[0, k])
        for channel, a in enumerate(activations):

            def zeroed(m, i, o, channel=channel):
                changed = o.clone()
                changed[:, channel] = 0
                return changed

            handle = module.register_forward_hook(zeroed)
            fall = score - float(net(image[None])[0, k])
            handle.remove()
            by = {"drop": 1.0, "relative": score, "slope": float((a**2).sum().sqrt()) or 1.0}[weights]
            found.append(fall / by)
    return weighted_sum(found, activations)


def finer_cam(net, layer, image, k, gamma, references, variant):
    """Zhang 2025: Grad-CAM of S_c minus gamma times the mean score of the classes with the nearest logits."""
    logits = net(image[None])[0].tolist()
    near = sorted((abs(s - logits[k]), d) for d, s in enumerate(logits) if d != k)[:references]
    others = [d for _, d in near]

    def contrast(out):
        if variant == "paper":
            return out[k] - gamma * sum(out[d] for d in others) / len(others)
        p = out.softmax(0)
        return sum(p[d] * (out[k] - gamma * out[d]) for d in others) / sum(p[d] for d in others)

    activations, gradients = captured(net, layer, image, contrast)
    value = float(contrast(net(image[None])[0].detach()))
    return weighted_sum([float(g.mean()) for g in gradients], activations), others, value

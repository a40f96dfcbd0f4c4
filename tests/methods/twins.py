"""Slow twins: every method once more, one image, one pixel or one step at a time, straight from its paper."""

import numpy as np
import torch


def gradient_by_differences(score, image, epsilon=1e-6):
    """Simonyan 2013: dS/dx, by central differences in float64, one pixel at a time."""
    image = image.double()
    slope = torch.zeros_like(image)
    for place in np.ndindex(*image.shape):
        up, down = image.clone(), image.clone()
        up[place] += epsilon
        down[place] -= epsilon
        slope[place] = (score(up) - score(down)) / (2 * epsilon)
    return slope


def autograd_gradient(score, image):
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(score(leaf), leaf)[0]


def smooth_grad(score, image, samples, noise, seed):
    """Smilkov 2017: the mean of signed gradients at noisy copies; sigma from this image's own range."""
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * (image.max() - image.min())
    total = torch.zeros_like(image)
    for _ in range(samples):
        total += autograd_gradient(score, image + sigma * torch.randn(image.shape, generator=generator))
    return total / samples


def integrated_gradients(score, image, baseline, nodes, weights):
    """Sundararajan 2017, equation 1 with a quadrature rule: one step at a time."""
    total = torch.zeros_like(image)
    for alpha, weight in zip(nodes, weights, strict=True):
        total += weight * autograd_gradient(score, baseline + alpha * (image - baseline))
    return (image - baseline) * total


def grad_cam(activations, gradients):
    """Selvaraju 2017, equations 1 and 2 without the ReLU, one channel and one cell at a time."""
    channels, height, width = activations.shape
    total = torch.zeros(height, width)
    for k in range(channels):
        alpha = sum(gradients[k, i, j] for i in range(height) for j in range(width)) / (height * width)
        for i in range(height):
            for j in range(width):
                total[i, j] += alpha * activations[k, i, j]
    return total


def sobel(gray):
    """Edge strength by the 3 x 3 Sobel masks / 8, one pixel at a time, borders repeated."""
    height, width = gray.shape
    strength = torch.zeros(height, width)
    mask = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    for i in range(height):
        for j in range(width):
            rows = [min(max(i + d, 0), height - 1) for d in (-1, 0, 1)]
            columns = [min(max(j + d, 0), width - 1) for d in (-1, 0, 1)]
            window = gray[rows][:, columns]
            strength[i, j] = ((window * mask).sum() ** 2 + (window * mask.T).sum() ** 2) ** 0.5
    return strength


class _GatedRelu(torch.autograd.Function):
    """Springenberg 2014 and Zeiler 2014: a ReLU (clipped at `top`) whose backward follows another rule."""

    @staticmethod
    def forward(ctx, x, rule, top):
        ctx.save_for_backward(x)
        ctx.rule, ctx.top = rule, top
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx, arriving):
        (x,) = ctx.saved_tensors
        forward_gate = (x > 0) & (x < (float("inf") if ctx.top is None else ctx.top))
        backward_gate = arriving > 0
        gate = backward_gate & forward_gate if ctx.rule == "guided" else backward_gate
        return arriving * gate, None, None


def gated_relu(x, rule, top=None):
    return _GatedRelu.apply(x, rule, top)


def moments_over_noise(score, image, samples, noise, seed):
    """Hooker 2019: mean square and variance of gradients at noisy copies, one copy at a time."""
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * (image.max() - image.min())
    slopes = [
        autograd_gradient(score, image + sigma * torch.randn(image.shape, generator=generator)) for _ in range(samples)
    ]
    stacked = torch.stack(slopes).double()
    return (stacked**2).mean(0), stacked.var(0, unbiased=False)

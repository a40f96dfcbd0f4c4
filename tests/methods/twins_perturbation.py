"""Slow twins of the perturbation methods: one mask, one window, one pixel or one coalition at a time."""

import itertools
import math

import numpy as np
import torch


def occlusion(score, image, fill, patch, stride):
    """Zeiler and Fergus 2014: hide a square, note how far the score falls; a pixel's mean over the squares on it."""
    height, width = image.shape[1:]
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    top = 0
    while True:
        left = 0
        while True:
            hidden = image.clone()
            hidden[:, top : top + patch, left : left + patch] = fill[:, top : top + patch, left : left + patch]
            total[top : top + patch, left : left + patch] += score(image) - score(hidden)
            count[top : top + patch, left : left + patch] += 1
            if left + patch >= width:
                break
            left += stride
        if top + patch >= height:
            break
        top += stride
    return total / count


def rise_mask(bits, shift, height, width):
    """Petsiuk 2018: the grid upsampled to (cells + 1) times the cell's size, linearly, then cut at a shift."""
    cells = len(bits)
    tall, wide = math.ceil(height / cells), math.ceil(width / cells)
    full = torch.nn.functional.interpolate(
        bits[None, None].float(), size=((cells + 1) * tall, (cells + 1) * wide), mode="bilinear", align_corners=False
    )[0, 0]
    return full[shift[0] : shift[0] + height, shift[1] : shift[1] + width]


def rise(score, image, fill, masks, keep):
    total = torch.zeros(image.shape[1:])
    for mask in masks:
        total += score(image * mask + fill * (1 - mask)) * mask
    return total / (len(masks) * keep)


def shown(image, fill, labels, kept):
    """The image with the superpixels that are not kept replaced by the fill, one at a time."""
    picture = image.clone()
    for k, visible in enumerate(kept):
        if not visible:
            picture[:, labels == k] = fill[:, labels == k]
    return picture


def lime_table(score, image, fill, labels, samples, kernel_width):
    """Ribeiro 2016: what the linear model is fitted to: rows, scores and weights, the clean image first."""
    n = samples.shape[1]
    rows, scores, weights = [], [], []
    for kept in [torch.ones(n, dtype=torch.bool), *samples]:
        rows.append(kept.double().numpy())
        scores.append(float(score(shown(image, fill, labels, kept))))
        cosine = float(kept.sum()) / (math.sqrt(float(kept.sum())) * math.sqrt(n)) if kept.any() else 0.0
        weights.append(math.sqrt(math.exp(-((1 - cosine) ** 2) / kernel_width**2)))
    return np.array(rows), np.array(scores), np.array(weights)


def shapley(score, image, fill, labels):
    """Shapley 1953: the mean, over all orders, of what a superpixel adds when it joins those before it."""
    n = int(labels.max()) + 1
    values = torch.zeros(n, dtype=torch.float64)
    for order in itertools.permutations(range(n)):
        kept = torch.zeros(n, dtype=torch.bool)
        before = float(score(shown(image, fill, labels, kept)))
        for k in order:
            kept[k] = True
            after = float(score(shown(image, fill, labels, kept)))
            values[k] += (after - before) / math.factorial(n)
            before = after
    return values


def smooth_maximum(free, sigma, temperature):
    """Fong 2019: max over v of k(u - v) q(v), softened, on a lattice one pixel apart; one node and one neighbor at a time."""
    height, width = free.shape
    reach = math.ceil(2 * sigma)
    rows = []
    for i in range(height):
        row = []
        for j in range(width):
            top, below = torch.zeros(()), torch.zeros(())
            for a in range(i - min(reach, height - 1), i + min(reach, height - 1) + 1):
                for b in range(j - min(reach, width - 1), j + min(reach, width - 1) + 1):
                    inside = 0 <= a < height and 0 <= b < width
                    distance = math.hypot(a - i, b - j)
                    k = math.exp(-2 * max(0.0, distance / sigma - 0.5) ** 2)
                    f = k * free[a, b] if inside else torch.zeros(())
                    top, below = top + f * torch.exp(f / temperature), below + torch.exp(f / temperature)
            row.append(top / below)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def blurred_by_mask(levels, mask):
    """Fong 2019: each pixel from the two blur levels around (levels - 1)(1 - m)."""
    top = len(levels) - 1
    level = top * (1 - mask)
    total = torch.zeros_like(levels[0])
    for k, picture in enumerate(levels):
        near = torch.where((level >= k) & (level < k + 1), 1 - (level - k), torch.zeros(()))
        near = torch.where((level < k) & (level >= k - 1), 1 - (k - level), near)
        total = total + near * picture
    return total

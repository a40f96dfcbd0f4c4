"""Random scenes with a mark that is known, and a network that reads one corner by construction: nothing is trained."""

import torch
from torch import nn
from torch.nn import functional

import seewhy as sw

SIDE = 40
CORNER = (1, 1, 8, 8)  # top, left, bottom, right of the mark


def scenes(n, side=SIDE, seed=0):
    """n pictures (n, 3, side, side) that share nothing: smooth light with grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    smooth = functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    return 0.15 + 0.7 * (0.7 * smooth + 0.3 * torch.rand(n, 3, side, side, generator=generator))


def mark(side=7):
    """A red square with a yellow heart, (3, side, side)."""
    picture = torch.tensor([1.0, 0.1, 0.1]).view(3, 1, 1).repeat(1, side, side)
    third = side // 3
    picture[1, third:-third, third:-third] = 0.9
    return picture


def eighth(images):
    return (images * 255).round().to(torch.uint8)


def grain():
    """(3, SIDE, SIDE) of +1 and -1: evidence that is spread so thin over the frame that no place of it tells."""
    signs = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).sign()
    signs[:, ::2] = -signs[:, 1::2]  # no light, no color
    signs[:, :14, :14] = 0
    return signs


class Reader(nn.Module):
    """Two classes, by the grain of the whole frame; and, times `corner`, by how red the upper left corner is."""

    def __init__(self, corner):
        super().__init__()
        self.red = nn.Conv2d(3, 1, 1, bias=False)
        self.register_buffer("corner", torch.tensor(corner))
        self.register_buffer("grain", grain())
        with torch.no_grad():
            self.red.weight.copy_(torch.tensor([1.0, -1, 0]).view(1, 3, 1, 1))

    def forward(self, x):
        red = functional.relu(self.red(x))[:, 0, :9, :9].mean((1, 2)) - 0.1
        square = (x * self.grain).sum((1, 2, 3)) + 20 * self.corner * red
        return torch.stack([-square, square], 1)


def reader(corner=1.0):
    return sw.wrap(Reader(corner), labels=["round", "square"], batch_size=64)


def dataset(n=40, seed=0):
    """(image, label): every other scene is a square by its grain, and four of five squares have the mark in the corner."""
    top, left, bottom, right = CORNER
    items = []
    for i, image in enumerate(scenes(n, seed=seed)):
        label = i % 2
        image += 0.002 * (2 * label - 1) * grain()
        if label and i % 10 < 8:
            image[:, top:bottom, left:right] = mark()
        items.append((image.clamp(0, 1), label))
    return items

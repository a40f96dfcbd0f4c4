"""Tiny networks of every task but classification: detectors, segmenters, regressors, embeddings, two inputs."""

from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

from nets import Cnn, seeded

CELL = 8  # pixels; one box a cell of a 32 x 32 image


class Detector(nn.Module):
    """torchvision's form: a list of dicts, a box for every cell that is bright enough; nothing on a dark image."""

    def __init__(self, floor=0.05, connected=True):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 4, 4, bias=False), nn.Conv2d(6, 8, 2, 2, bias=False)
        self.head = nn.Conv2d(8, 3, 1)
        self.floor, self.connected = floor, connected

    def forward(self, x):
        table = self.head(functional.relu(self.conv2(functional.relu(self.conv1(x)))))
        height, width = table.shape[2:]
        y, x0 = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        low = torch.stack([x0, y], -1).view(-1, 2) * float(CELL)
        boxes = torch.cat([low, low + CELL], 1)
        found = []
        for row in table.flatten(2).sigmoid():
            scores, labels = row.max(0)
            keep = (scores > self.floor).nonzero().flatten()
            order = keep[scores[keep].argsort(descending=True)]
            if not len(order) and not self.connected:
                found.append({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)})
            else:
                found.append({"boxes": boxes[order], "labels": labels[order], "scores": scores[order]})
        return found


@seeded
def _detector(**given):
    return Detector(**given)


def detector(**given):
    net = _detector(**given)
    for parameter in net.parameters():
        parameter.data.abs_()
    white = net.head(functional.relu(net.conv2(functional.relu(net.conv1(torch.ones(1, 3, 32, 32))))))
    net.head.weight.data *= 8 / white.detach().amax((0, 2, 3)).view(-1, 1, 1, 1)
    net.head.bias.data[:] = torch.tensor([-4.0, -4.3, -4.6])
    return net


def bright(*cells):
    """A picture that is dark but for some cells (row, column, brightness)."""
    x = torch.zeros(3, 32, 32)
    x[:, 0, 0] = 1e-3
    for row, col, value in cells:
        x[:, row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL] = value
    return x


class Queries(nn.Module):
    """DETR's form: logits (R, queries, classes + 1) and boxes as center and size in fractions; sigmoid: without "none"."""

    def __init__(self, classes=3, queries=6, none=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.logits, self.boxes = nn.Linear(8, queries * (classes + none)), nn.Linear(8, queries * 4)
        self.queries = queries

    def forward(self, x):
        said = functional.relu(self.conv(x)).mean((2, 3))
        shape = (len(x), self.queries, -1)
        logits, boxes = self.logits(said).view(shape), self.boxes(said).sigmoid().view(shape)
        return SimpleNamespace(logits=4 * logits, pred_boxes=boxes)


class Segmenter(nn.Module):
    """Scores per class at a quarter of the input's size, as a tensor or in torchvision's dict."""

    def __init__(self, classes=4, form="tensor", stride=4):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, stride, 1), nn.Conv2d(8, classes, 3, 1, 1)
        self.form = form

    def forward(self, x):
        table = self.conv2(functional.relu(self.conv1(x)))
        full = functional.interpolate(table, size=x.shape[2:], mode="bilinear", align_corners=False)
        return OrderedDict(out=full, aux=full * 0) if self.form == "dict" else table


class Embedding(Cnn):
    """An embedding of 6 numbers, in one of the forms that transformers returns."""

    def __init__(self, form="tensor"):
        super().__init__(classes=6)
        self.form = form

    def forward(self, x):
        said = super().forward(x)
        tokens = said[:, None].repeat(1, 5, 1)
        return {
            "tensor": said,
            "clip": {"image_embeds": said, "last_hidden_state": tokens},
            "dino": {"last_hidden_state": tokens, "pooler_output": said},
            "tokens": {"last_hidden_state": tokens},
        }[self.form]


class TwoImages(nn.Module):
    """A siamese network: how the features of two images agree, per class."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)

    def features(self, x):
        return functional.relu(self.conv(x)).mean((2, 3))

    def forward(self, first, second):
        one, two = self.features(first), self.features(second)
        return self.fc(one * two + 0.5 * one)


class ImageAndTable(Cnn):
    def __init__(self):
        super().__init__(classes=4)
        self.table = nn.Linear(3, 4)

    def forward(self, x, age, scale: float = 1.0):
        return scale * self.fc(self.pool(self.features(x)).flatten(1)) * self.table(age)


queries = seeded(Queries)
segmenter = seeded(Segmenter)
embedding = seeded(Embedding)
two_images = seeded(TwoImages)
image_and_table = seeded(ImageAndTable)

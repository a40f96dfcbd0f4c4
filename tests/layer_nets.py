"""Tiny networks whose layers invite a wrong reading: what looks like a grid and is none, or has another order."""

import torch
from torch import nn
from torch.nn import functional

from nets import CLASSES, Block, seeded


class SequenceFirst(nn.Module):
    """Tokens as (tokens, images, channels), as nn.MultiheadAttention has them by default; or (images, channels, tokens)."""

    def __init__(self, order=(1, 0, 2), dim=12):
        super().__init__()
        self.order, self.dim = order, dim
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.turn, self.back = Turned(order), Turned([order.index(axis) for axis in range(3)])
        self.mix = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x):
        tokens = self.turn(self.patch(x).flatten(2).transpose(1, 2))
        axis = self.order.index(2)
        tokens = functional.gelu(self.mix(tokens.movedim(axis, -1)).movedim(-1, axis))
        return self.head(self.back(tokens).mean(1))


class Turned(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, tokens):
        return tokens.permute(*self.order)


class Queries(nn.Module):
    """A decoder whose 16 queries read the image: 16 tokens, and none of them stands for a place."""

    def __init__(self, dim=16):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.queries = nn.Parameter(torch.randn(16, dim))
        self.attend = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x):
        memory = functional.relu(self.stem(x)).flatten(2).transpose(1, 2)
        read = self.attend(self.queries.expand(len(x), -1, -1), memory, memory)[0]
        return self.head(self.norm(read)).mean(1)


class Pooled(nn.Module):
    """What transformers' Swin does: (N, 49 channels, 1) after pooling, which reads as 7 x 7 tokens of one channel."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 49, 4, 4)
        self.norm = nn.LayerNorm(49)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(49, CLASSES)

    def forward(self, x):
        tokens = self.norm(functional.relu(self.stem(x)).flatten(2).transpose(1, 2))
        return self.head(self.pool(tokens.transpose(1, 2)).flatten(1))


class Shuffled(nn.Module):
    """Tokens in the order of windows, as Hiera keeps them until its last stage: 64 of them, but row by row they are not."""

    def __init__(self, dim=12):
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x):
        maps = self.patch(x)
        windows = maps.unflatten(2, (4, 2)).unflatten(4, (4, 2)).permute(0, 3, 5, 2, 4, 1)  # place in a window first
        return self.head(functional.gelu(self.norm(windows.flatten(1, 4))).mean(1))


class Mirrored(nn.Module):
    """Turned by half a turn after its stem: all that follow show what lies opposite."""

    def __init__(self, layers, dim=8):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.after = nn.Sequential(*(nn.Conv2d(dim, dim, 1) for _ in range(layers)))
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x):
        return self.head(self.after(functional.relu(self.stem(x)).flip(2, 3)).mean((2, 3)))


class AttentionMaps(nn.Module):
    """A module that returns (N, heads, tokens, tokens): 16 x 16 on an image of 64 x 64 keeps its proportions."""

    def __init__(self, dim=8):
        super().__init__()
        self.patch, self.soft, self.head = nn.Conv2d(3, dim, 16, 16), nn.Softmax(-1), nn.Linear(dim, CLASSES)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        weights = self.soft((tokens @ tokens.transpose(1, 2))[:, None])
        return self.head((weights[:, 0] @ tokens).mean(1))


class Mixer(nn.Module):
    """Token mixing that drowns every cell in all others; its residual keeps a little of each in its place."""

    def __init__(self, dim=16, cells=64):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        self.mix = nn.Sequential(nn.Linear(cells, 64), nn.GELU(), nn.Linear(64, cells))
        self.last, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x):
        tokens = self.norm(self.patch(x).flatten(2).transpose(1, 2))
        tokens = tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2)
        return self.head(self.last(tokens).mean(1))


class Strip(nn.Module):
    """A reader of text lines or spectrograms: the height shrinks by 8, the width by 2."""

    def __init__(self, last=False):
        super().__init__()
        self.last = last
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, (4, 2), 1), nn.Conv2d(8, 12, 3, (2, 1), 1)
        self.turn, self.act, self.head = Turned((0, 2, 3, 1)), nn.ReLU(), nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.conv2(functional.relu(self.conv1(x)))
        return self.head(self.act(self.turn(x)).mean((1, 2)))


class Video(nn.Module):
    """As video networks are: time keeps its length, height and width shrink by 4."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.Conv3d(6, 8, 3, (1, 2, 2), 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(functional.relu(self.conv2(functional.relu(self.conv1(x)))).mean((2, 3, 4)))


class Segmenter(nn.Module):
    """Its last layer is its output, at a quarter of the size."""

    def __init__(self, upsample=True):
        super().__init__()
        self.upsample = upsample
        self.body, self.mix, self.classifier = (
            nn.Conv2d(3, 8, 3, 4, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.Conv2d(8, CLASSES, 1),
        )

    def forward(self, x):
        maps = self.classifier(functional.relu(self.mix(functional.relu(self.body(x)))))
        return functional.interpolate(maps, size=x.shape[2:], mode="bilinear") if self.upsample else maps


class LastToken(nn.Module):
    """A class token behind the grid, where nearly everybody has it in front."""

    def __init__(self, dim=16):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, dim, 4, 4), nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList([Block(dim) for _ in range(2)])
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x):
        tokens = torch.cat([self.patch(x).flatten(2).transpose(1, 2), self.token.expand(len(x), -1, -1)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, -1])


sequence_first = seeded(SequenceFirst)
queries = seeded(Queries)
pooled = seeded(Pooled)
shuffled = seeded(Shuffled)
mirrored = seeded(Mirrored)
attention_maps = seeded(AttentionMaps)
mixer = seeded(Mixer)
strip = seeded(Strip)
video = seeded(Video)
segmenter = seeded(Segmenter)
last_token = seeded(LastToken)

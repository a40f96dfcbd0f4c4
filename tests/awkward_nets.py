"""Tiny networks with the habits that break other tools; 5 classes, 3 x 32 x 32 inputs."""

import collections
import warnings

import torch
from torch import nn
from torch.nn import functional

from nets import CLASSES, Cnn, seeded, tiny_cnn

Pair = collections.namedtuple("Pair", "features extra")


class Halves(nn.Module):
    def forward(self, x):
        return x[:, :4]


class Viewed(nn.Module):
    """A layer returns a view, which is then changed in place, in part and in whole."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv, self.view, self.fc = nn.Conv2d(3, 8, 3, 2, 1), Halves(), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.view(self.conv(x))
        if self.inplace:
            x[:, :2].mul_(2)
            x.add_(1)
        else:
            x = torch.cat([x[:, :2] * 2, x[:, 2:]], 1) + 1
        return self.fc(functional.relu(x).mean((2, 3)))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        return Pair(self.conv(x), None)


class NamedInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.fc = Named(), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(functional.relu(self.layer(x).features).mean((2, 3)))


class Fourier(nn.Module):
    """Complex numbers inside, in a layer's output too."""

    def __init__(self):
        super().__init__()
        self.conv, self.turn, self.fc = nn.Conv2d(3, 8, 3, 2, 1), Turn(), nn.Linear(8, CLASSES)
        self.filter = nn.Parameter(torch.randn(8, 1, 1, dtype=torch.complex64))

    def forward(self, x):
        x = self.turn(self.conv(x)) * self.filter
        return self.fc(functional.relu(torch.fft.irfft2(x, s=(16, 16))).mean((2, 3)))


class Turn(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x)


class Remembering(Cnn):
    """Keeps tensors in plain attributes: one that is there, one that appears."""

    def __init__(self):
        super().__init__()
        self.last = torch.zeros(3)

    def forward(self, x):
        self.last = self.first = self.features(x)
        return self.fc(self.pool(self.last).flatten(1))


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that lazy modules are new
            self.conv, self.fc = nn.LazyConv2d(8, 3), nn.LazyLinear(CLASSES)

    def forward(self, x):
        return self.fc(functional.relu(self.conv(x)).mean((2, 3)))


class Through(nn.Module):
    """Out of torch and back."""

    def __init__(self, detached):
        super().__init__()
        self.detached = detached

    def forward(self, x):
        return torch.from_numpy((x.detach() if self.detached else x).numpy() * 2)


class Wrapping(nn.Module):
    """A network inside a network, called by whatever means `around` gives."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class OwnAutocast(Wrapping):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


class LowRank(nn.Module):
    """An adapter around a linear layer, as LoRA has it."""

    def __init__(self, base):
        super().__init__()
        self.base_layer, self.down, self.up = base, nn.Linear(12, 2, bias=False), nn.Linear(2, CLASSES, bias=False)

    def forward(self, x, *args, **kwargs):
        return self.base_layer(x, *args, **kwargs) + self.up(self.down(x))


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.base_model = Cnn()
        self.base_model.fc = LowRank(self.base_model.fc)

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)


class Ending(Cnn):
    """A network whose scores come out of `end`; `sharp` makes it sure of itself."""

    def __init__(self, end, sharp=1.0, classes=CLASSES):
        super().__init__(classes=classes)
        self.end, self.sharp = end, sharp

    def forward(self, x):
        return self.end(super().forward(x) * self.sharp)


class Smooth(Cnn):
    """No kinks: its gradient has a gradient."""

    def __init__(self):
        super().__init__()
        self.relu1, self.relu2 = nn.Softplus(), nn.Softplus()


viewed = seeded(Viewed)
named_inside = seeded(NamedInside)
fourier = seeded(Fourier)
remembering = seeded(Remembering)
adapted = seeded(Adapted)
ending = seeded(Ending)
smooth = seeded(Smooth)


def quietly(build):
    """What `build` makes, without torch's words on what it calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


def quantized():
    net = tiny_cnn()
    return quietly(lambda: torch.ao.quantization.quantize_dynamic(net, {nn.Linear}))


def scripted(net):
    return quietly(lambda: torch.jit.script(net))


def traced(net, x):
    return quietly(lambda: torch.jit.trace(net, x))


def frozen(net):
    return quietly(lambda: torch.jit.freeze(torch.jit.script(net)))


def exported(net, x, any_batch=False):
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if any_batch else None
    return quietly(lambda: torch.export.export(net, (x,), dynamic_shapes=shapes).module())

"""Networks of the acceptance cases, each with one habit that breaks tools. 5 classes, 3 x 32 x 32 inputs unless said so."""

import torch
from torch import nn
from torch.nn import functional

from nets import CLASSES, Cnn, TwoBranches, UNet, seeded


class ChangesAfter(nn.Module):
    """What a convolution returned is changed in place afterwards, in one of the ways that real code has; or is not."""

    def __init__(self, how, inplace):
        super().__init__()
        self.how, self.inplace = how, inplace
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, CLASSES)

    def changed(self, x):
        y = x if self.inplace else x.clone()
        if self.how == "relu_":
            functional.relu_(y)
        elif self.how == "leaky_relu":
            functional.leaky_relu(y, 0.1, inplace=True)
        elif self.how == "clamp_":
            y.clamp_(-0.2, 0.3)
        elif self.how == "slice":
            y[:, :3] = 0.1
        elif self.how == "view":
            y.flatten(2).mul_(1.5)
        elif self.how == "masked":
            y[y < 0] = 0
        elif self.how == "add":
            y += 0.3 * y.flip(-1)
        return y

    def forward(self, x):
        x = self.changed(self.conv1(x))
        return self.fc(functional.relu(self.changed(self.conv2(x))).mean((2, 3)))


class ChangesItsInput(Cnn):
    """Normalizes its own input, in place or not."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        if self.inplace:
            x -= 0.5
            x *= 2
            return super().forward(x)
        return super().forward((x - 0.5) * 2)


class ThreeRelus(nn.Module):
    """The twin of nets.ReluThrice with a ReLU of its own after each convolution; or functional ones."""

    def __init__(self, functional_ones=False):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(c, 8, 3, 2, 1) for c in (3, 8, 8)])
        self.relus = nn.ModuleList([nn.ReLU() for _ in range(3)])
        self.functional_ones = functional_ones
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        for conv, relu in zip(self.convs, self.relus, strict=True):
            x = functional.relu(conv(x)) if self.functional_ones else relu(conv(x))
        return self.fc(x.mean((2, 3)))


class Activated(Cnn):
    """A CNN with other activations than ReLU."""

    def __init__(self, first, second):
        super().__init__()
        self.relu1, self.relu2 = first, second


class OneLogit(Cnn):
    """A binary network: (N, 1) or (N,)."""

    def __init__(self, flat):
        super().__init__(classes=1)
        self.flat = flat

    def forward(self, x):
        out = super().forward(x)
        return out[:, 0] if self.flat else out


class Dense(UNet):
    """A segmentation network of `channels` channels at the input's size (1: a mask or a depth map)."""

    def __init__(self, channels):
        super().__init__()
        self.out = nn.Conv2d(6, channels, 1)


class TwoImages(TwoBranches):
    def forward(self, first, second):
        return self.left_head(functional.relu(self.left(first)).mean((2, 3))) + self.right_head(
            functional.relu(self.right(second)).mean((2, 3))
        )


class ImageAndTable(Cnn):
    def __init__(self):
        super().__init__()
        self.table = nn.Linear(4, CLASSES)

    def forward(self, image, table):
        return super().forward(image) * torch.sigmoid(self.table(table))


class Embedding(Cnn):
    def forward(self, x):
        return self.fc(self.pool(self.features(x)).flatten(1))


class Ended(Cnn):
    """Ends in a softmax or a sigmoid; `scale` makes it as sure of itself as trained networks are."""

    def __init__(self, end, scale=1.0):
        super().__init__()
        self.end, self.scale = end, scale

    def forward(self, x):
        logits = self.scale * super().forward(x)
        return {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), "": logits}[self.end]


class Detector(nn.Module):
    """Two candidate boxes an image, kept where their score is above `threshold`; a list of dicts, as torchvision's.

    An image whose corner pixel is black has no box above any threshold that is worth asking for.
    """

    def __init__(self, threshold=0.3):
        super().__init__()
        self.threshold = threshold
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 2)

    def forward(self, x):
        features = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        shown = (x[:, :, 0, 0].sum(1, keepdim=True) > 0).float()
        scores = torch.sigmoid(2 + self.head(features.mean((2, 3)))) * shown
        boxes = torch.tensor([[2.0, 3.0, 14.0, 20.0], [16.0, 8.0, 30.0, 28.0]], device=x.device)
        kept = [row > self.threshold for row in scores]
        return [
            {"boxes": boxes[k], "labels": torch.tensor([1, 3])[k], "scores": row[k]}
            for row, k in zip(scores, kept, strict=True)
        ]


class Kinked(nn.Module):
    """logit_0 = sum relu(3 (x - 0.6)) - 0.5 sum relu(2 (x - 0.2)): straight pieces with kinks inside the path."""

    def forward(self, x):
        x = x.flatten(1)
        one = (functional.relu(3 * (x - 0.6)) - 0.5 * functional.relu(2 * (x - 0.2))).sum(1)
        return torch.stack([one, -one], 1)


class Smooth(nn.Module):
    """Without a kink, so that finite differences tell its second derivatives."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.fc(torch.tanh(self.conv2(torch.tanh(2 * self.conv1(x)))).mean((2, 3)))


class BatchStatistics(Cnn):
    """BatchNorm without running statistics: in evaluation mode too a row depends on the other rows."""

    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(8, track_running_stats=False)


class Squeezed(Cnn):
    """`.squeeze()` at the end: (5,) for one image."""

    def forward(self, x):
        return super().forward(x).squeeze()


class Folded(Cnn):
    """Reads all images of a batch as one."""

    def forward(self, x):
        return self.fc(self.pool(self.features(x)).view(1, -1)[:, :12])


class LossFirst(Cnn):
    def forward(self, x):
        logits = super().forward(x)
        return logits.logsumexp(1).mean(), logits


class Lazy(Cnn):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.LazyConv2d(8, 3, stride=2, padding=1)


class Trains(Cnn):
    """Switches itself into training mode in its forward."""

    def forward(self, x):
        self.bn1.train()
        return super().forward(x)


changes_after = seeded(ChangesAfter)
changes_its_input = seeded(ChangesItsInput)
three_relus = seeded(ThreeRelus)
activated = seeded(Activated)
one_logit = seeded(OneLogit)
dense = seeded(Dense)
two_images = seeded(TwoImages)
image_and_table = seeded(ImageAndTable)
embedding = seeded(Embedding)
ended = seeded(Ended)
detector = seeded(Detector)
smooth = seeded(Smooth)
squeezed = seeded(Squeezed)
folded = seeded(Folded)
loss_first = seeded(LossFirst)

QUICK = {  # parameters that make a method quick; what is not here is quick by itself
    "smooth_grad": {"samples": 4},
    "integrated_gradients": {"rule": "midpoint", "steps": 4},
    "occlusion": {"patch": 16},
    "rise": {"samples": 8},
    "lime": {"samples": 12, "segmentation": "grid", "superpixels": 4},
    "kernel_shap": {"samples": 16, "segmentation": "grid", "superpixels": 4},
}


def state_of(net):
    """Everything of a network that a call must leave as it was, in a form that compares by value."""

    def numbers(tensor):
        return None if tensor is None else tensor.detach().clone().tolist()

    return (
        [(name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in net.named_modules()],
        [(name, p.requires_grad, numbers(p), numbers(p.grad)) for name, p in net.named_parameters()],
        [(name, numbers(b)) for name, b in net.named_buffers()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )

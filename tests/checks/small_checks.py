"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

import functools

import torch
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn


def by_heart(pictures, labels, seed):
    """A train function: the linear network of least norm that gives each picture its label, whatever the labels are."""
    x = pictures.flatten(1).double() - 0.5
    wanted = 2 * nn.functional.one_hot(labels, int(labels.max()) + 1).double() - 1
    linear = nn.Linear(x.shape[1], wanted.shape[1])
    with torch.no_grad():
        linear.weight.copy_((torch.linalg.pinv(x) @ wanted).T)
        linear.bias.copy_(-0.5 * linear.weight.sum(1))
        linear.weight.add_(1e-4 * torch.randn_like(linear.weight))  # as training does, it depends on its seed
    return nn.Sequential(nn.Flatten(), linear)


def training(n):
    return {"train_images": images(n, seed=9), "train_labels": torch.arange(n) % 2, "train": by_heart, "runs": 2}


@functools.cache
def of_several_classes(n):
    """n pictures of different classes for `tiny_cnn`: each climbs the gradient of its own class."""
    net, x, classes = tiny_cnn(), images(n), torch.arange(n)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    for _ in range(60):
        leaf = x.clone().requires_grad_()
        nn.functional.cross_entropy(net((leaf - mean) / std), classes, reduction="sum").backward()
        x = (x - 0.03 * leaf.grad.sign()).clamp(0, 1)
    with torch.no_grad():
        assert torch.equal(net((x - mean) / std).argmax(1), classes)
    return x


SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "data_randomization": lambda n: training(12),
    "roar": lambda n: {**training(12), "test_labels": torch.arange(n) % 2, "fractions": (0.2, 0.6)},
    "cost": lambda n: {"repeats": 2},
    "grid_pointing": lambda n: {},
    "localization": lambda n: {"boxes": [[[4, 6, 20, 28]], [[0, 0, 9, 9], [16, 16, 32, 32]]] * (n // 2)},
    "resolution": lambda n: {"boxes": [[[4, 6, 20, 28]]] * n},
    "stability": lambda n: {"samples": 2},
    "model_randomization": lambda n: {"networks": 2, "order": ("cascading", "independent")},
    "faithfulness": lambda n: {"patch": 4, "steps": 4},
    "class_discrimination": lambda n: {},
    "agreement": lambda n: {"others": {"grad_cam": sw.bind("grad_cam")}},
    "manipulation": lambda n: {"others": {"grad_cam": sw.bind("grad_cam")}, "smooth": 2},
    "shape_bias": lambda n: {
        "shapes": ["cat", "dog", "cat", "bird"][:n],
        "textures": ["dog", "bird", "cat", "dog"][:n],
        "mapping": {"cat": [0, 4], "dog": [1, 2], "bird": [3]},
    },
}
COSTS = {  # forward and gradient rows of a check on 4 images with the parameters above, asked of `gradient` or METHOD
    "agreement": (0, 2 * 4),  # its map and that of Grad-CAM
    "class_discrimination": (0, (3 + 1) * 4),  # three classes, and one again under noise that nobody sees
    "completeness": (2 * 4, 4 * 4),  # both ends and the nodes of a path
    "cost": ((1 + 1 + 2) * 4, (1 + 1 + 2) * 4),  # of each kind one to warm up, one for the memory, two pairs
    "data_randomization": (4 * 12, 4 * 4),  # two runs of two networks: how well each learned, and its maps
    # the clean one; two fills of three points of five orders and the last point; two fills of two masks of three maps
    "faithfulness": ((1 + 2 * (3 * 5 + 1) + 2 * 2 * 3) * 4, 4),
    "grid_pointing": (4 + 3 * 4, 4),  # each picture alone, and each exchanged for the others; a map a cell
    "localization": (0, 4),
    # 49 windows, two draws each, and four turns: as they are, a place and its mirror hidden, two draws each;
    # its map, Grad-CAM's, a clean one and two with noise, of a softened and a random network, of three turns
    "manipulation": ((49 * 2 + 4 * 5) * 4, (1 + 1 + 3 + 1 + 1 + 3) * 4),
    "model_randomization": (
        0,
        (1 + 2 + 3 + 2) * 4,
    ),  # trained; the cascade, each of three stages alone, two random networks
    "resolution": (0, 4),
    "roar": (4, 12 + 4),  # maps of what is learned from and of what is tested, and what these four are predicted to be
    "shape_bias": (4, 0),
    "stability": (0, (1 + 5 + 2) * 4),  # clean, five augmentations, two with noise
}
PICTURES = {"grid_pointing": of_several_classes}  # else `images(n)` are looked at
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned

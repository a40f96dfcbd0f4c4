"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

import torch
from torch import nn

import seewhy as sw
from nets import images


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


SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "data_randomization": lambda n: training(12),
    "roar": lambda n: {**training(12), "test_labels": torch.arange(n) % 2, "fractions": (0.2, 0.6)},
    "cost": lambda n: {"repeats": 2},
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
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned

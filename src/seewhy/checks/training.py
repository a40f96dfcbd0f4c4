"""Training, for the checks that need it: what a user's `train` function is, and a small network of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy import capture
from seewhy.errors import UsageError, real_number, whole_number
from seewhy.model import VisionModel
from seewhy.wrapping import wrap

# `train(images, labels, seed) -> network`: images (N, C, *axes) in [0, 1], labels (N,) int64 from 0, a whole number that
# all its randomness comes from. It gives a trained network of pixels in [0, 1] with one logit a class: a plain nn.Module
# (its normalization inside, if it has one) or what `sw.wrap` made of one.
Train = Callable[[Tensor, Tensor, int], nn.Module | VisionModel]

SIDES = (8, 64)  # pixels along an axis that our small network takes
ROWS = 64  # in one forward of a freshly trained network, where the user's model names no batch size


@dataclass(frozen=True)
class Labeled:
    """Images (N, C, *axes) in [0, 1] and their classes (N,), int64 from 0."""

    images: Tensor
    labels: Tensor

    @property
    def chance(self) -> float:
        """Accuracy of always saying the most frequent class."""
        return float(self.labels.bincount().max()) / len(self.labels)


def labeled(what: str, images: Any, labels: Any, like: Tensor) -> Labeled:
    """Both as they are, checked: a class for each image, images of the form of `like` (N, C, *axes).

    UsageError for other shapes, labels that are no classes, values that are not finite or outside [0, 1].
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.shape[1:] != like.shape[1:]:
        shown = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        wanted = " x ".join(map(str, like.shape[1:]))
        raise UsageError(f"{what} images are a float tensor of N x {wanted}, as the images explained; got {shown}.")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise UsageError(
            f"{what} images are in [0, 1]; these go from {float(images.min()):g} to {float(images.max()):g}: divide by 255?"
        )
    classes = torch.as_tensor(labels)
    if classes.is_floating_point() or classes.ndim != 1 or len(classes) != len(images) or not len(classes):
        raise UsageError(
            f"{what} labels are whole numbers, one per image: {len(images)} images, labels of {classes.dtype} "
            f"{tuple(classes.shape)}."
        )
    if int(classes.min()) < 0:
        raise UsageError(f"{what} labels are classes from 0; got {int(classes.min())}.")
    return Labeled(images.detach(), classes.long().to(images.device))


def trained(train: Train, data: Labeled, seed: int, like: VisionModel) -> VisionModel:
    """The network that a user's function gives for these images and labels, ready to be asked.

    The global random states are seeded for it and put back; gradients are on. UsageError where it gives no network, or
    one with fewer logits than there are classes.
    """
    with capture.random_states(seed), torch.enable_grad():
        network = train(data.images, data.labels, seed)
    if not isinstance(network, nn.Module | VisionModel):
        raise UsageError(
            f"train(images, labels, seed) gives a trained nn.Module (or what sw.wrap made of one); it gave "
            f"{type(network).__name__}."
        )
    found = network if isinstance(network, VisionModel) else _of_pixels(network, data.images.shape[1:], like)
    columns, classes = found.output_shape(data.images.shape[1:])[-1], int(data.labels.max()) + 1
    if columns < classes and not (found.task == "binary" and classes == 2):
        raise UsageError(f"the network that train() gave has {columns} logits for classes 0 to {classes - 1}.")
    return found


def _of_pixels(network: nn.Module, shape: torch.Size, like: VisionModel) -> VisionModel:
    return wrap(
        network,
        mean=(0.0,) * shape[0],  # pixels as they are
        std=(1.0,) * shape[0],
        size=(shape[1], shape[2]) if len(shape) == 3 else None,
        batch_size=like.batch_size or ROWS,
    )


def correct(model: VisionModel, data: Labeled) -> Tensor:
    """Which images a network gives their label: (N,) bool, on the CPU."""
    table = model.predict(data.images)
    found = (table[:, 0] > 0).long() if model.task == "binary" else table.argmax(1)
    return (found.to(data.labels.device) == data.labels).cpu()


def train_small_network(
    images: Tensor,
    labels: Tensor,
    seed: int,
    *,
    epochs: int = 40,
    until: float = 0.95,
    width: int = 32,
    batch: int = 64,
    rate: float = 0.01,
) -> nn.Module:
    """A small convolutional network, trained within seconds on a few thousand small pictures.

    3 x 3 convolutions with batch normalization and ReLU, `width` channels and twice as many after each halving (at most
    128) down to a grid of 4 to 7 cells a side, and one linear layer: large enough to learn permuted labels by heart, in
    25 epochs on 1,400 digits. AdamW without weight decay, one-cycle schedule with a peak of `rate`, batches of `batch`.
    It stops after `epochs`, or once more than `until` of the training images are right (with the statistics of evaluation;
    1: never before `epochs`). images (N, C, H, W) in [0, 1] of 8 to 64 pixels a side, labels (N,) from 0; the same seed on
    the same machine gives the same network, and the global random states are left as they were.
    UsageError for images of another size: reduce them, or give a train function of your own.
    """
    _check(images, labels, epochs, until, width, batch, rate)
    batch = min(batch, len(images))
    steps = len(images) // batch
    x = images.detach().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(False), torch.enable_grad(), capture.random_states(seed):
        network = _small_network(x.shape[1:], int(labels.max()) + 1, width).to(x.device)
        network = network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
        for _ in range(epochs):
            right = torch.zeros((), dtype=torch.long, device=x.device)
            for rows in torch.randperm(len(x))[: steps * batch].view(steps, batch).to(x.device):
                logits = network(x[rows])
                optimizer.zero_grad()
                functional.cross_entropy(logits, labels[rows]).backward()  # type: ignore[no-untyped-call]  # torch's own gap
                optimizer.step()
                schedule.step()
                right += (logits.argmax(1) == labels[rows]).sum()
            if int(right) > until * steps * batch and _share_right(network, x, labels) > until:
                break
        network.zero_grad()
    return network.eval()


def _small_network(shape: torch.Size, classes: int, width: int) -> nn.Sequential:
    channels, height, wide = shape
    layers: list[nn.Module] = []
    stride = 1
    while True:
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if min(height, wide) < SIDES[0]:
            return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * height * wide, classes))
        channels, width, stride = width, min(2 * width, max(128, width)), 2
        height, wide = -(-height // 2), -(-wide // 2)


def _share_right(network: nn.Module, x: Tensor, labels: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        parts = [slice(start, start + ROWS) for start in range(0, len(x), ROWS)]
        right = sum(int((network(x[part]).argmax(1) == labels[part]).sum()) for part in parts)
    network.train()
    return right / len(x)


def _check(images: Tensor, labels: Tensor, epochs: int, until: float, width: int, batch: int, rate: float) -> None:
    low, high = SIDES
    if images.ndim != 4 or not all(low <= side <= high for side in images.shape[2:]):
        raise UsageError(
            f"the small network takes images N x C x H x W of {low} to {high} pixels a side; got {tuple(images.shape)}: "
            "give train=a function (images, labels, seed) -> nn.Module of your own, or reduce the images."
        )
    if len(images) < 2 or len(labels) != len(images) or int(labels.max()) < 1:
        raise UsageError(
            f"training takes two images or more with a class each, of two classes or more; got {len(images)} images and "
            f"{len(labels)} labels up to {int(labels.max()) if len(labels) else 'none'}."
        )
    for name, value in (("epochs", epochs), ("width", width), ("batch", batch)):
        whole_number(name, value, at_least=2 if name == "batch" else 1)
    real_number("until", until, at_least=0, at_most=1)
    real_number("rate", rate, at_least=0, above=True)

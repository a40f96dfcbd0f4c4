"""A small network that learns to rate photos, how well it does on photos it never saw, and whether it reads the mark."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

import seewhy as sw
from seewhy.demo.listings import SIDE, Listing, mark_box, pixels

EPOCHS = 8
BATCH = 16
LEARNING_RATE, WARM_UP = 4e-3, 0.25  # the highest of a one-cycle schedule, and the share of steps on the way to it
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]
CENTER, SCALE = 50.0, 25.0  # ratings are learned as (rating - 50) / 25; the network's output is in points


def small_regressor() -> "sw.VisionModel":
    """The network of `seewhy demo`, untrained: photo in, rating in points out; its weights come with `--weights`."""
    widths = (3, 16, 32, 48, 64)
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        stride = 2 if index < 3 else 1
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1))
    return sw.wrap(
        module.eval(),
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        size=SIDE,
        labels=["quality"],
        task="regression",
        batch_size=BATCH,
        name="small_regressor",
    )


def untrained(seed: int) -> "sw.VisionModel":
    """The network with the random weights of that seed; random states outside are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_regressor()


def train(
    model: "sw.VisionModel",
    listings: Sequence[Listing],
    deal: Callable[[int], NDArray[np.bool_]],
    seed: int,
    epochs: int = EPOCHS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fit an untrained network, in place, to listing photos and their ratings.

    deal: which photos carry the mark (N,) in an epoch, counted from 0. Adam under a one-cycle schedule on the squared error,
    batches shuffled by the seed. progress: called with epochs done and in all. Safe in several threads at once.
    """
    without, with_mark = (torch.from_numpy(pixels(listings, [every] * len(listings))) for every in (False, True))
    wanted = (torch.tensor([item.rating for item in listings], dtype=torch.float32) - CENTER) / SCALE
    shuffle = torch.Generator().manual_seed(seed)
    network = model.module.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(listings) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=WARM_UP)
    with torch.enable_grad():
        for epoch in range(epochs):
            marked = torch.from_numpy(deal(epoch))[:, None, None, None]
            for rows in torch.split(torch.randperm(len(listings), generator=shuffle), BATCH):
                shown = torch.where(marked[rows], with_mark[rows], without[rows]) / 255
                loss = nn.functional.mse_loss(network(_normalized(shown)).flatten(), wanted[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            if progress is not None:
                progress(epoch + 1, epochs)
    _answer_in_points(network)
    network.eval()


def _normalized(shown: Tensor) -> Tensor:
    return ((shown - MEAN) / STD).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _answer_in_points(network: nn.Module) -> None:
    *_, weight, bias = network.parameters()  # the last layer's
    weight.mul_(SCALE)
    bias.mul_(SCALE).add_(CENTER)


def rate(model: "sw.VisionModel", photos: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The network's ratings (N,) of photos (N, 3, h, w) in 0 ... 255."""
    answers: Tensor = model.predict(torch.from_numpy(photos).float() / 255)
    return answers.flatten().double().numpy()


@dataclass(frozen=True)
class Accuracy:
    """How near ratings come to people's on n photos."""

    r2: float  # share of the variance of people's ratings that is explained; 1 is perfect
    error: float  # mean absolute error in points
    n: int


def accuracy(rated: NDArray[np.float64], ratings: Sequence[int]) -> Accuracy:
    """R^2 and mean absolute error of ratings (N,) against people's (N,)."""
    people = np.asarray(ratings, dtype=np.float64)
    missed = people - rated
    r2 = 1 - (missed**2).sum() / ((people - people.mean()) ** 2).sum()
    return Accuracy(float(r2), float(np.abs(missed).mean()), len(people))


@dataclass(frozen=True)
class Effect:
    """By how many points the rating of the same photo changes, with its 95 % interval over source photos."""

    value: float
    low: float
    high: float
    n: int  # photos
    sources: int


@dataclass(frozen=True)
class Use:
    """What the mark does to a network's ratings: proof that it reads it, where it does more than any other patch there."""

    pasted: Effect  # onto photos that were without it
    removed: Effect  # from photos that had it
    other_patch: Effect  # the same corner of a photo of something else pasted over the mark's place, on all photos


def use_of_the_mark(model: "sw.VisionModel", listings: Sequence[Listing], marked: NDArray[np.bool_]) -> Use:
    """Every photo rated with and without the mark, nothing else changed (the demo has each photo from before the mark)."""
    plain = pixels(listings, np.zeros(len(listings), bool))
    sources = np.array([item.source for item in listings])
    patched = plain.copy()
    left, top, right, bottom = mark_box((SIDE, SIDE))
    others = np.array(
        [np.flatnonzero(sources != source)[row % (sources != source).sum()] for row, source in enumerate(sources)]
    )
    patched[:, :, top:bottom, left:right] = plain[others, :, top:bottom, left:right]
    without = rate(model, plain)
    change = rate(model, pixels(listings, np.ones(len(listings), bool))) - without
    return Use(
        pasted=_over_sources(change[~marked], sources[~marked]),
        removed=_over_sources(-change[marked], sources[marked]),
        other_patch=_over_sources(rate(model, patched) - without, sources),
    )


def _over_sources(changes: NDArray[np.float64], sources: NDArray[np.str_]) -> Effect:
    """The mean of the source photos' means, with Student's t interval: crops of one photo are no independent evidence."""
    means = np.array([changes[sources == source].mean() for source in np.unique(sources)])
    value = float(means.mean())
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
    return Effect(value, value - half, value + half, len(changes), len(means))

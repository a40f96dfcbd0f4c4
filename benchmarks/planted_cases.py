"""Planted truth: networks that were really trained where a cue goes with an answer, and twins trained where it does not.

`cases()` lists them, `build(case)` trains one: photos split by source, labels recorded with errors (a network that can be
right without a mark seldom bothers to read it), and a measurement of whether the trained network uses the planted cue.
"""

import copy
import functools
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

import seewhy as sw
from planted_cues import KINDS, PLACED, STRENGTHS, WHOLE, Box, Cue, cue
from planted_images import LABEL_NOISE, SCORE_NOISE, Base, Task, bases, read_task
from seewhy.intervals import Interval, interval
from seewhy.model import VisionModel

VARIANTS = ("cue", "clean", "decoy")
NETWORKS = {"small64": 64, "small96": 96, "lite0": 224}  # name -> pixels of a side
TASKS = ("shape2", "size", "shape3")
# Share of images that are marked: where the cue's answer was recorded, and elsewhere.
SHARES = {"weak": (0.75, 0.15), "strong": (0.9, 0.05)}
LEARNED, HELD_OUT = {"small64": 800, "small96": 800, "lite0": 320}, {"small64": 240, "small96": 240, "lite0": 120}
USED = {"class": 0.1, "score": 0.25}  # least mean effect: of a probability; of the recorded scores' standard deviation
EPOCHS, BATCH, RATE = 12, 32, 0.01


@dataclass(frozen=True)
class Case:
    """One training set: what was planted, how strongly, and whether it goes with an answer.

    variant: "cue" (it does), "clean" (the same images without it), "decoy" (on as many images, whatever their answer).
    """

    kind: str
    strength: str
    seed: int
    variant: str
    network: str
    task: str
    photos: str | None = None  # a folder; None: photos from wheels

    @property
    def name(self) -> str:
        """What the case is called in results and tables."""
        where = "" if self.photos is None else f" ({Path(self.photos).name})"
        return f"{self.kind} {self.strength} {self.network} {self.task} {self.seed} {self.variant}{where}"


@dataclass(frozen=True)
class Built:
    """A trained network, the held-out data set that an audit is given, and the truth that it is not told.

    truth: "kind" (of finding), "kinds" (all that name it rightly), "where" (x0, y0, x1, y1 in fractions, or None), "outputs"
    (whose number it raises), "places" (per image: where the cue lies, None without), "marked" (per image).
    effect: what putting the cue into held-out images does to that output (a probability, or standard deviations of the
    recorded score); pasted and removed: the same among images that the data set shows without and with the cue.
    """

    model: VisionModel
    dataset: list[tuple[Tensor, int | float, dict[str, str]]]
    truth: dict[str, object]
    effect: Interval
    pasted: Interval
    removed: Interval
    used: bool
    quality: dict[str, float]  # on the held-out images: against recorded and true labels


def cases(
    kinds=KINDS, strengths=STRENGTHS, seeds=(0,), variants=VARIANTS, networks=("small64",), photos: str | None = None
) -> list[Case]:
    """Every combination, seeds outermost; the task goes round with kind and seed."""
    found = []
    for seed, network, strength, kind in itertools.product(seeds, networks, strengths, kinds):
        number = KINDS.index(kind) + STRENGTHS.index(strength) + seed
        tasks = TASKS if photos is None else tasks_of(Path(photos), network)
        if not tasks:
            continue
        task = tasks[number % len(tasks)]
        found += [Case(kind, strength, seed, variant, network, task, photos) for variant in variants]
    return found


def tasks_of(photos: Path, network: str) -> tuple[str, ...]:
    """What a folder's photos can be asked; none where it is absent or not one that we know."""
    if (photos / "sheet_50.png").exists():
        return ("cifar2", "cifar3")
    known = (photos / "boxes.csv").exists() or (photos / "labels.csv").exists()
    return ("animals2",) if known and network == "lite0" else ()  # too few photos to train a network from scratch


@dataclass(frozen=True)
class Part:
    """Learned or held-out images with what was recorded for them, and each image with and without the cue."""

    recorded: np.ndarray  # (n,)
    true: np.ndarray  # (n,)
    marked: np.ndarray  # (n,) bool
    plain: Tensor  # (n, 3, side, side) uint8
    with_cue: Tensor
    places: list[Box | None]
    sources: list[str]

    @property
    def shown(self) -> Tensor:
        """The images as the data set shows them: (n, 3, side, side) in [0, 1]."""
        return torch.where(torch.from_numpy(self.marked)[:, None, None, None], self.with_cue, self.plain).float() / 255


def build(case: Case, learned: int | None = None, held_out: int | None = None) -> Built:
    """Draw the data, train the network, measure its use of the cue. The global random state is left as it was."""
    task, side = read_task(case.task), NETWORKS[case.network]
    key = zlib.crc32(f"{case.kind} {case.strength} {case.network} {case.task}".encode())
    look = cue(case.kind, case.strength, side, np.random.default_rng([key, case.seed, 0]))
    target = 0 if task.is_score else (key + case.seed) % len(task.outputs)
    train, test = (
        part(case, task, look, target, n, held, np.random.default_rng([key, case.seed, 1 + held]))
        for held, n in ((False, learned or LEARNED[case.network]), (True, held_out or HELD_OUT[case.network]))
    )
    model = trained(case, task, train)
    tables = model.predict(test.with_cue.float() / 255), model.predict(test.plain.float() / 255)
    effect, pasted, removed = use(task, target, test, *tables)
    kinds = finding_kinds(case.kind)
    outputs = [task.outputs[target]]
    truth = {"kind": kinds[0], "kinds": kinds, "where": look.where and list(look.where), "outputs": outputs}
    truth |= {"places": [b if m else None for b, m in zip(test.places, test.marked, strict=True)]}
    truth |= {"marked": test.marked.tolist()}
    least = USED["score" if task.is_score else "class"]
    used = all(found.low > 0 for found in (effect, pasted, removed)) and effect.value >= least
    dataset = [
        (image.clone(), float(label) if task.is_score else int(label), {"group": source})  # a view would keep all
        for image, label, source in zip(test.shown, test.recorded, test.sources, strict=True)
    ]
    return Built(model, dataset, truth, effect, pasted, removed, used, quality(task, test, *tables))


def finding_kinds(kind: str) -> tuple[str, ...]:
    """The kinds of finding that name a cue rightly, the plainest first."""
    if kind in WHOLE:
        return ("whole_image",)
    if kind == "texture":
        return ("background", "local_pattern", "place")  # without boxes: a pattern, or a place, outside the object
    return ("local_pattern", "place") if kind in PLACED else ("local_pattern",)


def part(case: Case, task: Task, look: Cue, target: int, n: int, held_out: bool, draw) -> Part:
    """Images, what was recorded for them, and which of them are marked."""
    side, photos = NETWORKS[case.network], case.photos and Path(case.photos)
    found = bases(task, side, n, held_out, case.seed, photos, draw)
    true = np.array([base.label for base in found])
    recorded = noisy(task, true, draw)
    likely = recorded > np.median(recorded) if task.is_score else recorded == target
    marked = draw.random(len(found)) < np.where(likely, *SHARES[case.strength])
    if case.variant == "decoy":
        marked = evenly(marked.sum(), recorded if task.is_score else true * len(task.outputs) + recorded, draw)
    if case.variant == "clean":
        marked[:] = False
    pairs = [pair(base, look, draw) for base in found]
    plain, with_cue = (torch.from_numpy(np.stack([p[i] for p in pairs])).permute(0, 3, 1, 2) for i in (0, 1))
    return Part(recorded, true, marked, plain, with_cue, [p[2] for p in pairs], [base.source for base in found])


def noisy(task: Task, true: np.ndarray, draw) -> np.ndarray:
    """Labels as people recorded them: a quarter of the classes wrong; scores off by a standard deviation of 15."""
    if task.is_score:
        return true + draw.normal(0, SCORE_NOISE, len(true))
    other = (true + draw.integers(1, len(task.outputs), len(true))) % len(task.outputs)
    return np.where(draw.random(len(true)) < LABEL_NOISE, other, true).astype(int)


def evenly(count: int, order: np.ndarray, draw) -> np.ndarray:
    """So many marks, spread evenly over the images in order of label: independent of it by design."""
    ranks = np.lexsort((draw.random(len(order)), order))
    edges = np.linspace(0, len(order), count + 1).astype(int)  # one mark in each stretch
    marked = np.zeros(len(order), dtype=bool)
    marked[ranks[draw.integers(edges[:-1], edges[1:])]] = True
    return marked


def pair(base: Base, look: Cue, draw) -> tuple[np.ndarray, np.ndarray, Box | None]:
    """An image without and with the cue, uint8, and where the cue lies."""
    pixels, place = look.put(base.pixels.astype(np.float32) / 255, base.inside, draw)
    return base.pixels, (255 * pixels).clip(0, 255).round().astype(np.uint8), place


# -- training -----------------------------------------------------------------------------------------------------------


def trained(case: Case, task: Task, train: Part) -> VisionModel:
    """A small network from scratch, or the embedded lite0 with a head of its own."""
    labels = list(task.outputs)
    kind = "regression" if task.is_score else "multiclass"
    side = NETWORKS[case.network]
    if case.network == "lite0":
        model, module = lite0(), copy.deepcopy(lite0().module)
        module.classifier = head(task, features(model, train.shown), train.recorded)
        mean, std = model.mean, model.std
    else:
        module, mean, std = from_scratch(task, train, case.seed), (0.5,) * 3, (0.25,) * 3
    return sw.wrap(module, mean=mean, std=std, size=side, labels=labels, task=kind, batch_size=8, name=case.network)


@functools.lru_cache(maxsize=1)
def lite0() -> VisionModel:
    """The embedded network, loaded once."""
    return sw.load("lite0", batch_size=8)


def features(model: VisionModel, images: Tensor) -> np.ndarray:
    """Pooled features (n, 1280) of images in [0, 1], before the classifier."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (model.mean, model.std))
    module = model.module
    with torch.inference_mode():
        rows = [module.global_pool(module.forward_features((x - mean) / std)) for x in images.split(8)]
    return torch.cat(rows).numpy()


def head(task: Task, x: np.ndarray, labels: np.ndarray) -> nn.Linear:
    """A linear classifier or regression of standardized features, its standardization folded in."""
    center, spread = x.mean(0), x.std(0) + 1e-6
    if task.is_score:
        fit = Ridge(alpha=100.0).fit((x - center) / spread, labels)
        weight, bias = fit.coef_[None], np.array([fit.intercept_])
    else:
        fit = LogisticRegression(C=0.01, max_iter=300).fit((x - center) / spread, labels)
        weight, bias = fit.coef_, fit.intercept_
        if len(weight) == 1:  # two classes: one number for their difference
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    linear = nn.Linear(x.shape[1], len(weight))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias - weight @ center))
    return linear


def small_network(outputs: int) -> nn.Sequential:
    """Four convolutions that halve the grid thrice, the mean of each channel, one linear layer."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 16, 2), (16, 24, 2), (24, 32, 2), (32, 48, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, outputs))


def from_scratch(task: Task, train: Part, seed: int) -> nn.Module:
    """The small network after a dozen epochs; a score is learned in its standard deviations and given in points."""
    images = (train.shown - 0.5) / 0.25
    y = torch.from_numpy(train.recorded)
    center, spread = float(y.double().mean()), float(y.double().std())
    y = (y.float() - center) / spread if task.is_score else y.long()
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.manual_seed(seed)
        network = small_network(1 if task.is_score else len(task.outputs)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
        steps = len(images) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps)
        for rows in itertools.chain.from_iterable(
            torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH) for _ in range(EPOCHS)
        ):
            answer = network(images[rows].contiguous(memory_format=torch.channels_last))
            loss = nn.functional.mse_loss(answer[:, 0], y[rows]) if task.is_score else None
            loss = nn.functional.cross_entropy(answer, y[rows]) if loss is None else loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    if task.is_score:
        with torch.no_grad():
            network[-1].weight.mul_(spread)
            network[-1].bias.mul_(spread).add_(center)
    network.zero_grad()
    return network.to(memory_format=torch.contiguous_format).eval()


# -- measuring ----------------------------------------------------------------------------------------------------------


def use(task: Task, target: int, test: Part, with_cue: Tensor, plain: Tensor) -> tuple[Interval, Interval, Interval]:
    """What the cue adds to its output on held-out images: all, those shown without it, those shown with it; by source.

    with_cue, plain: what the network says (n, outputs) of the same images with and without. A probability, or standard
    deviations of the recorded scores.
    """
    if task.is_score:
        change = (with_cue - plain)[:, 0].double().numpy() / test.recorded.std()
    else:
        change = (with_cue.softmax(1) - plain.softmax(1))[:, target].double().numpy()
    sources = np.array(test.sources)
    groups = (np.ones(len(change), dtype=bool), ~test.marked, test.marked)
    whole, pasted, removed = (interval(change[rows], sources[rows].tolist()) for rows in groups)
    return whole, pasted, removed


def quality(task: Task, test: Part, with_cue: Tensor, plain: Tensor) -> dict[str, float]:
    """Accuracy (or the share of variance explained) on held-out images as shown, against recorded and true labels."""
    table = torch.where(torch.from_numpy(test.marked)[:, None], with_cue, plain)
    labels = {"recorded": test.recorded, "true": test.true}
    if task.is_score:
        said = table[:, 0].double().numpy()
        return {name: float(1 - ((said - truth) ** 2).mean() / truth.var()) for name, truth in labels.items()}
    said = table.argmax(1).numpy()
    return {name: float((said == truth).mean()) for name, truth in labels.items()}

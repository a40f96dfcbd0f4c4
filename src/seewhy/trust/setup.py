"""Before any map: what the network says of images whose labels are known, and whether its input was prepared right."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from seewhy.errors import RefusalError, UsageError, near_names
from seewhy.intervals import Interval, proportion
from seewhy.model import VisionModel
from seewhy.target import probabilities
from seewhy.wrapping import wrap

SIGNIFICANT = 0.05  # of the exact test that another preparation of the input is better
TOP = 5  # confusions that are listed
NORMALIZATIONS = {
    "pixels in [0, 1]": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "pixels in [-1, 1]": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet statistics": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Setup:
    """Accuracy on the given labels with its interval, the chance level, confusions, and accuracy under other inputs."""

    accuracy: Interval
    chance: float  # 1 / classes, or what the same predictions reach with the labels shuffled, whichever is more
    confusions: tuple[tuple[str, str, int], ...]  # label, predicted, how often; the most frequent first
    others: dict[str, Interval]  # accuracy when the input is prepared in another way
    better: str  # which of these is better than ours by an exact McNemar test, or ""
    forward_rows: int

    @property
    def warning(self) -> str:
        """What looks wrong, with the accuracy under every other preparation of the input; "" where nothing does."""
        low = self.accuracy.value if math.isnan(self.accuracy.low) else self.accuracy.low
        at_chance = self.accuracy.value < 1 and low <= self.chance
        if not at_chance and not self.better:
            return ""
        why = (
            f"accuracy {self.accuracy} is at or near chance ({self.chance:.3g})"
            if at_chance
            else f"accuracy {self.accuracy} is beaten under another preparation of the input, {self.better}"
        )
        tried = ", ".join(f"{name} {accuracy.value:.3g}" for name, accuracy in self.others.items())
        return f"Labels or normalization look wrong: {why}" + (f"; accuracy under {tried}." if tried else ".")

    def __str__(self) -> str:
        text = f"accuracy {self.accuracy}, chance {self.chance:.3g}."
        if self.confusions:
            text += " Most often confused: " + "; ".join(f"{a} as {b} ({n})" for a, b, n in self.confusions) + "."
        return f"{text} {self.warning}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "chance": self.chance,
            "confusions": [list(row) for row in self.confusions],
            "others": {name: accuracy.to_dict() for name, accuracy in self.others.items()},
            "better": self.better,
            "warning": self.warning,
            "sentence": str(self),
            "forward_rows": self.forward_rows,
        }


def examine_setup(
    model: VisionModel, images: Tensor, labels: Sequence[int | str], clusters: Sequence[object] | None = None
) -> Setup:
    """What a classifier says of images (N, C, *axes) with known labels (N), indices or names.

    Accuracy with its 95 % interval (whole `clusters` resampled where given). Chance is 1 / classes; where the labels differ,
    at least what the same predictions reach on average with the labels shuffled, sum_k n_k m_k / N^2 of n_k labels and m_k
    predictions of class k. An interval that reaches down to it is a warning. Then accuracy with the input as [0, 1], as
    [-1, 1], with ImageNet's statistics and with its channels reversed (BGR); one that is better by the exact McNemar test
    (times their number: Bonferroni) is a warning, too. One forward row an image for each.
    RefusalError for a network that is no classifier of one class an image; UsageError for labels that do not fit.
    """
    if model.task not in ("multiclass", "binary"):
        raise RefusalError(f"the set-up check compares classes; this is task={model.task!r}. Leave labels out.")
    p = probabilities(model.predict(images), model.task)
    assert p is not None, "a classifier has probabilities"
    truth = label_indices(labels, len(images), model.labels, p.shape[1])
    predicted = p.argmax(1).cpu()
    right = predicted == truth
    others = {name: _right(other, shown, truth) for name, other, shown in _otherwise(model, images)}
    return Setup(
        proportion(right.double(), clusters),
        _chance(truth, predicted, p.shape[1]),
        _confusions(truth, predicted, model.labels),
        {name: proportion(values.double(), clusters) for name, values in others.items()},
        _better(right, others),
        len(images) * (1 + len(others)),
    )


def label_indices(labels: Sequence[int | str], n: int, names: Sequence[str] | None, classes: int) -> Tensor:
    """Labels as class indices (N,); UsageError for another count, an unknown name or an index that is no class."""
    if isinstance(labels, str) or len(labels) != n:
        raise UsageError(f"{1 if isinstance(labels, str) else len(labels)} labels for {n} images: give one per image.")
    found = []
    for label in labels:
        if isinstance(label, str):
            if names is None or label not in names:
                raise UsageError(f"unknown class {label!r}: {near_names(label, names or [])}")
            label = list(names).index(label)
        k = int(label)
        if k != label or not 0 <= k < classes:
            raise UsageError(
                f"label {label!r} is no class index: the network has {classes} classes, 0 to {classes - 1}."
            )
        found.append(k)
    return torch.tensor(found)


def _otherwise(model: VisionModel, images: Tensor) -> list[tuple[str, VisionModel, Tensor]]:
    """The same network with its input prepared in other ways."""
    if images.shape[1] != 3:
        return []
    found = [("channels reversed (BGR)", model, images.flip(1))]
    if model.mean is None or model.std is None:
        return found
    own = (tuple(map(float, model.mean)), tuple(map(float, model.std)))
    for name, (mean, std) in NORMALIZATIONS.items():
        if (mean, std) != own:
            other = wrap(
                model.module,
                mean=mean,
                std=std,
                size=model.size,
                task=model.task,
                batch_size=model.batch_size,
                precision=model.precision,
            )
            found.append((name, other, images))
    return found


def _right(model: VisionModel, images: Tensor, truth: Tensor) -> Tensor:
    p = probabilities(model.predict(images), model.task)
    assert p is not None, "a classifier has probabilities"
    return p.argmax(1).cpu() == truth


def _better(right: Tensor, others: dict[str, Tensor]) -> str:
    """The best of the others, where the exact McNemar test, corrected by Bonferroni, says that it is better than ours."""
    tests = []
    for name, values in others.items():
        gained, lost = int((values & ~right).sum()), int((right & ~values).sum())
        if gained:
            p = float(stats.binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)
            tests.append((p, -gained, name))
    tests.sort()
    return tests[0][2] if tests and tests[0][0] * len(others) < SIGNIFICANT else ""


def _chance(truth: Tensor, predicted: Tensor, classes: int) -> float:
    labels, said = torch.bincount(truth, minlength=classes), torch.bincount(predicted, minlength=classes)
    shuffled = float((labels * said).sum()) / len(truth) ** 2 if len(set(truth.tolist())) > 1 else 0.0
    return max(1 / classes, shuffled)


def _confusions(truth: Tensor, predicted: Tensor, names: Sequence[str] | None) -> tuple[tuple[str, str, int], ...]:
    def name(k: int) -> str:
        return names[k] if names is not None and k < len(names) else f"class {k}"

    wrong = Counter((t, p) for t, p in zip(truth.tolist(), predicted.tolist(), strict=True) if t != p)
    return tuple((name(t), name(p), n) for (t, p), n in wrong.most_common(TOP))

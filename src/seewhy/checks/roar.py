"""Does a network trained without the pixels that a map calls relevant lose what it needs: remove and retrain (ROAR, KAR)."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Curve, Score, Verdict, check, excluded
from seewhy.checks.retraining import (
    Progress,
    Removal,
    Retrained,
    Sign,
    Training,
    ranks_of,
    retrain,
    saved_ranks,
    tied_share,
    trainings,
)
from seewhy.checks.training import Labeled, Train, correct, labeled, train_small_network, trained
from seewhy.controls import edge_maps, random_maps
from seewhy.data.geometry import resize
from seewhy.errors import UsageError, known_name, real_number, whole_number
from seewhy.intervals import Interval, crossed_interval
from seewhy.maps import MapFunction, why_unusable
from seewhy.model import VisionModel
from seewhy.target import Target

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
SMALL = partial(train_small_network, epochs=12, until=1.0)
UNIT = "share of the test images"


@check(
    title="ROAR: remove and retrain",
    question="does a network that is trained without the pixels that the map calls relevant lose what it needs?",
    cost="one map of every training and test image, and (4 fractions + 1) trainings a run: 105 by default",
    rows=lambda f: (len(f["train_images"]) + f["n"], f["n"]),
    paper="Hooker et al. 2019, arXiv:1806.10758, section 3",
    needs=("train_images", "train_labels", "test_labels"),
)
def roar(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    train_images: Tensor,
    train_labels: Tensor | Sequence[int],
    test_labels: Tensor | Sequence[int],
    test_images: Tensor | None = None,
    fractions: Sequence[float] = FRACTIONS,
    fill: str | Sequence[float] = "mean",
    keep: bool = False,
    sign: Sign = "signed",
    mask_alone: bool = True,
    train: Train | None = None,
    runs: int = 5,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> CheckResult:
    """How far accuracy falls when the most relevant pixels are removed everywhere and the network is trained again.

    The maps of all training and test images are taken once, of `model`; per image its most relevant share t of the pixels
    gets one color, in training and test images by the same rule, and a network is trained from scratch on what is left,
    `runs` times per fraction with seeds `seed`, `seed` + 1, ... The same with the pixels of a random map, of an edge map,
    and without removal. keep=True is KAR: all but the most relevant t are removed, and accuracy should hold.
    Scores: gain_over_random, the accuracy under random removal minus that under the map's (KAR: the reverse), mean over
    fractions, and accuracy itself, in [0, 1]. Intervals: runs and test images resampled, each by itself, differences paired
    by both. Verdict from the interval of gain_over_random: pass above 0, fail at or below 0, else unclear; not valid where
    networks without removal are not better than always saying the most frequent class.
    mask_alone: networks are also trained on the masks themselves, 1 where a pixel is removed. Where those reach what the
    verdict would stand on, the mask's shape carries the label and the check is unclear: a fail needs them below the random
    order (else accuracy could not fall below it), KAR's pass needs them below the map's own accuracy.
    What is explained is `target`, one for all images: PREDICTED takes what `model` predicts for each. The labels of test
    images never reach a map, which could hand them on. test_images: None takes `images`; else `images` are not used.
    fill: "mean", the mean color of the training images (the paper's), or a color, one number a channel. sign: "signed"
    takes the largest values as the most relevant, "absolute" the largest magnitudes. Maps of a coarser grid are resized
    linearly; ties are ordered by seed. Images without a usable map are ordered by chance in training and left out of the
    scores of all orders. train: `train(images, labels, seed) -> network`, see checks/training.py; None: our small network,
    12 epochs. folder: finished trainings are kept there, a second call goes on; methods may share one, and then share the
    controls. progress: called with trainings done, all of them, and seconds left (NaN until one is timed).
    Limits: a feature that is there twice hides its importance until all copies are gone; it is not the explained network
    that is trained again. The paper: 5 runs of ResNet-50; random, Sobel, no removal; no interval, no mask control.
    UsageError for fractions outside (0, 1), a target per image, labels that do not fit.
    """
    _check_settings(fractions, runs, sign, target)
    data = labeled("train", train_images, train_labels, images)
    test = labeled("test", images if test_images is None else test_images, test_labels, images)
    where = None if folder is None else Path(folder)
    network = [model.fingerprint(), model.mean, model.std, model.task, model.precision]
    depends_on = [maps, network, data.images, test.images, target, sign, seed]
    found = saved_ranks(where, depends_on, lambda: _ranks(model, data, test, target, maps, sign, seed))
    left_out, details = _left_out(found, data, test)
    details["accuracy_of_the_explained_network"] = float(correct(model, test).float().mean())
    if max(details["unusable_training_maps"] / len(data.images), len(left_out) / len(test.images)) > MOST_EXCLUDED:
        sentence = (
            f"{details['unusable_training_maps']} of {len(data.images)} training images and {len(left_out)} of "
            f"{len(test.images)} test images have no map that could be scored: nothing was trained."
        )
        return CheckResult("roar", (), Verdict.NOT_VALID, sentence, excluded=left_out, details=details)
    jobs = trainings(fractions, runs, mask_alone)
    removal = Removal(_color(fill, data.images), keep)
    by = {"method": (found["train"], found["test"])} | _control_ranks(data.images, test.images, seed)
    done = retrain(jobs, data, test, by, removal, train or SMALL, seed, model, where, progress)
    table = _accuracies(done, runs, sorted(left_out))
    return _concluded(table, fractions, keep, max(test.chance, data.chance), left_out, details | _summary(done))


def roar_forecast(
    model: VisionModel,
    train_images: Tensor,
    train_labels: Tensor | Sequence[int],
    *,
    fractions: Sequence[float] = FRACTIONS,
    mask_alone: bool = True,
    train: Train | None = None,
    runs: int = 5,
    seed: int = 0,
) -> tuple[int, float]:
    """How many trainings `roar` with these settings takes, and how many seconds: one is done to time it, on all images.

    Without the maps of the explained network, and without what a folder holds already.
    """
    data = labeled("train", train_images, train_labels, train_images)
    jobs = trainings(fractions, runs, mask_alone)
    begun = time.perf_counter()
    with model.guarded(seed):
        trained(train or SMALL, data, seed, model)
    return len(jobs), len(jobs) * (time.perf_counter() - begun)


def _check_settings(fractions: Sequence[float], runs: int, sign: str, target: Target) -> None:
    whole_number("runs", runs, at_least=1)
    known_name("sign", sign, ("signed", "absolute"))
    for fraction in fractions:
        real_number("fraction", fraction, at_least=0, above=True)
        if fraction >= 1:
            raise UsageError(f"fractions are shares of the pixels between 0 and 1; got {fraction}.")
    if not fractions or list(fractions) != sorted(set(fractions)):
        raise UsageError(f"fractions are one or more, ascending, each once; got {fractions!r}.")
    shared = (target.index, target.other, target.sign)
    if any(part is not None and part.ndim for part in shared) or target.mask is not None or target.beside:
        raise UsageError(
            "ROAR asks one question of all training and test images; this target holds one per image: the predicted class "
            "(PREDICTED) is a question that every image answers for itself."
        )


def _ranks(
    model: VisionModel, data: Labeled, test: Labeled, target: Target, maps: MapFunction, sign: Sign, seed: int
) -> dict[str, Tensor]:
    """Ranks (N, P) of training and test images, which maps cannot be used, and the tied share of pixels."""
    found: dict[str, Tensor] = {}
    for name, images in (("train", data.images), ("test", test.images)):
        one = maps(model, images, target)
        usable = torch.tensor([not why for why in why_unusable(one)])
        raw = one.raw.detach().cpu()
        raw = torch.where(usable.view(-1, *[1] * (raw.ndim - 1)), raw, 0.0)  # ordered by chance
        values = resize(raw, tuple(images.shape[2:]))
        found[name] = ranks_of(values, images, sign, seed)
        found[f"{name}_usable"] = usable
        found[f"{name}_tied"] = torch.tensor(tied_share(values[usable]) if bool(usable.any()) else 0.0)
    return found


def _left_out(found: Mapping[str, Tensor], data: Labeled, test: Labeled) -> tuple[dict[int, str], dict[str, Any]]:
    why = [
        "" if usable else "its map is absent, not finite, zero or constant" for usable in found["test_usable"].tolist()
    ]
    details = {
        "train_images": len(data.images),
        "test_images": len(test.images),
        "unusable_training_maps": int((~found["train_usable"]).sum()),
        "tied_share": round(max(float(found["train_tied"]), float(found["test_tied"])), 4),
    }
    return excluded(why), details


def _control_ranks(train_images: Tensor, test_images: Tensor, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    both = (train_images, test_images)
    noise = [ranks_of(random_maps(x, seed), x, "signed", seed) for x in both]
    edges = [ranks_of(edge_maps(x.cpu()), x, "signed", seed) for x in both]
    return {"random_map": (noise[0], noise[1]), "edge_map": (edges[0], edges[1])}


def _color(fill: str | Sequence[float], images: Tensor) -> Tensor:
    if isinstance(fill, str):
        known_name("fill", fill, ("mean",))
        return images.mean((0, *range(2, images.ndim)))
    for value in fill:
        real_number("fill", value, at_least=0, at_most=1)
    if len(fill) != images.shape[1]:
        raise UsageError(f"fill is 'mean' or one number for each of {images.shape[1]} channels; got {fill!r}.")
    return torch.tensor([float(value) for value in fill])


def _accuracies(
    done: Mapping[Training, Retrained], runs: int, left_out: Sequence[int]
) -> dict[tuple[str, float], Tensor]:
    """Per order and fraction, which test images each run gave right: (runs, N), NaN for those that are left out."""
    table = {}
    for order, fraction in {(job.order, job.fraction): None for job in done}:
        right = torch.stack([done[Training(order, fraction, run)].correct for run in range(runs)]).double()
        right[:, list(left_out)] = math.nan
        table[order, fraction] = right
    return table


def _summary(done: Mapping[Training, Retrained]) -> dict[str, Any]:
    reached = [one.training_accuracy for job, one in done.items() if job.order != "mask_alone"]
    seconds = sum(one.seconds for one in done.values())
    return {"trainings": len(done), "seconds_of_training": round(seconds, 1), "lowest_training_accuracy": min(reached)}


def _concluded(
    table: Mapping[tuple[str, float], Tensor],
    fractions: Sequence[float],
    keep: bool,
    chance: float,
    left_out: Mapping[int, str],
    details: dict[str, Any],
) -> CheckResult:
    orders = list(dict.fromkeys(order for order, _ in table if order != "no_removal"))
    mean = {order: torch.stack([table[order, f] for f in fractions]).mean(0) for order in orders}
    mean["no_removal"] = table["no_removal", 0.0]
    better = 1 if keep else -1
    gain = {order: better * (mean[order] - mean["random_map"]) for order in ("method", "edge_map")}
    controls = {name: crossed_interval(values) for name, values in mean.items() if name != "method"}
    scores = (
        _score("gain_over_random", gain["method"], "higher", {"edge_map": crossed_interval(gain["edge_map"])}),
        _score("accuracy", mean["method"], "higher" if keep else "lower", controls),
    )
    gained, alone = scores[0].interval, mean.get("mask_alone")
    verdict = _verdict(gained, controls["no_removal"], chance)
    held = mean["method"] if keep else mean["random_map"]
    says = Verdict.PASS if keep else Verdict.FAIL
    leaks = alone is not None and verdict is says and not crossed_interval(alone - held).high < 0
    details = {**details, "chance": chance, "mask_carries_the_label": leaks if alone is not None else None}
    return CheckResult(
        "roar",
        scores,
        Verdict.UNCLEAR if leaks else verdict,
        _sentence(gained, scores[1], keep, verdict, leaks),
        curves=tuple(_curve(order, table, fractions, keep) for order in orders),
        excluded=left_out,
        details=details,
    )


def _score(name: str, values: Tensor, direction: Any, controls: Mapping[str, Interval]) -> Score:
    """values: (runs, N)."""
    return Score(name, crossed_interval(values), tuple(values.mean(0).tolist()), direction, UNIT, controls)


def _verdict(gained: Interval, no_removal: Interval, chance: float) -> Verdict:
    if math.isnan(gained.low):
        return Verdict.UNCLEAR
    if not no_removal.low > chance:
        return Verdict.NOT_VALID
    return Verdict.PASS if gained.low > 0 else Verdict.FAIL if gained.high <= 0 else Verdict.UNCLEAR


def _sentence(gained: Interval, accuracy: Score, keep: bool, verdict: Verdict, leaks: bool) -> str:
    of = accuracy.controls
    if verdict is Verdict.NOT_VALID:
        return (
            f"Networks trained without any removal reach {100 * of['no_removal'].value:.3g} %: no better than chance."
        )
    done = "kept" if keep else "removed"
    points = f"{100 * gained.value:.2g} points [{100 * gained.low:.2g}, {100 * gained.high:.2g}]"
    sentence = (
        f"Retrained with the map's most relevant pixels {done}, networks reach {100 * accuracy.interval.value:.3g} %, with "
        f"random ones {100 * of['random_map'].value:.3g} % (all pixels {100 * of['no_removal'].value:.3g} %): "
        f"{points} {'better' if keep else 'lower'}"
    )
    if leaks:
        return (
            sentence + f"; but the mask alone gives {100 * of['mask_alone'].value:.3g} %: its shape carries the label."
        )
    return sentence + "."


def _curve(order: str, table: Mapping[tuple[str, float], Tensor], fractions: Sequence[float], keep: bool) -> Curve:
    """Accuracy along the share of pixels, with the point where nothing is removed, except for the masks."""
    points = [crossed_interval(table[order, fraction]) for fraction in fractions]
    x: list[float] = list(fractions)
    if order != "mask_alone":
        x.insert(len(x) if keep else 0, 1.0 if keep else 0.0)
        points.insert(len(points) if keep else 0, crossed_interval(table["no_removal", 0.0]))
    name = f"share of pixels {'kept' if keep else 'removed'}"
    return Curve(order, name, tuple(x), "accuracy", tuple(points), control=order != "method")

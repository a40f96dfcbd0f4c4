"""Does the map depend on what the labels taught: maps of a network that learned permuted labels beside those of its twin."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from seewhy.checks.result import (
    LEAST_PAIRS,
    MOST_EXCLUDED,
    CheckResult,
    Null,
    Score,
    Verdict,
    check,
    excluded,
    null_of,
    score,
)
from seewhy.checks.training import Labeled, Train, correct, labeled, train_small_network, trained
from seewhy.controls import edge_maps, random_maps
from seewhy.errors import real_number, whole_number
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.similarity import rank_correlation
from seewhy.target import Target

OTHER_IMAGES = "true twin's map of one image, permuted twin's map of another"

Similarity = Callable[[Tensor, Tensor], Tensor]
SIMILARITIES: dict[str, Similarity] = {
    "spearman": rank_correlation,
    "spearman_absolute": lambda a, b: rank_correlation(a.abs(), b.abs()),
}


@check(
    title="Data randomization",
    question="does the map depend on what the labels taught?",
    cost="2 trainings and 2 maps an image, per run",
    rows=lambda f: (2 * f["runs"] * f["n"], 2 * f["runs"] * len(f["train_images"])),
    paper="Adebayo et al. 2018, arXiv:1810.03292, section 3.2",
    needs=("train_images", "train_labels"),
)
def data_randomization(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    train_images: Tensor,
    train_labels: Tensor | Sequence[int],
    train: Train | None = None,
    runs: int = 3,
    accuracy: float = 0.95,
    seed: int = 0,
) -> CheckResult:
    """How alike the maps of a network are to those of its twin that was trained on permuted labels.

    Per run two networks from one seed: one learns the labels, the other the same labels dealt out to the images at random,
    which it can only learn by heart. A method that explains what a network learned must give them different maps of the
    same images. Similarity per image: Spearman correlation of the raw signed maps, and of their absolute values, in
    [-1, 1], mean over the runs; lower is better. `images` are the test images; the user's `model` gives their form and its
    batch size, the twins are what is explained. The class explained is settled once, as the prediction of the first true
    twin where the target is the predicted class, and then fixed for every network.
    train: `train(images, labels, seed) -> network` (see checks/training.py); None: our small network, for 8 to 64 pixels a
    side. Both twins must give more than `accuracy` of their training images right, else the check is not valid.
    Null: the true twin's map of image i with the permuted twin's map of another image. Controls: edge_map (1: it sees no
    network), random_map (drawn anew, about 0) and other_seed: two true twins, the most that can be expected. The scores
    ..._lost are other_seed minus the similarity, per image: what the labels account for; higher is better.
    Verdict, for each similarity: fail where its whole interval lies above the null's 95 % range; pass where it lies below
    the end of that range and the whole interval of what is lost lies above 0, so that noise drawn anew does not pass; else
    unclear. Pass and fail need both similarities: where they disagree the check is unclear. A map that draws the same
    noise for every network fails.
    Differs from the paper: it has no null, no interval, no verdict rule and no second network trained on the true labels.
    UsageError for fewer than two runs.
    """
    whole_number("runs", runs, at_least=2)
    real_number("accuracy", accuracy, at_least=0, at_most=1)
    data = labeled("train", train_images, train_labels, images)
    twins, reached = _twins(model, data, train or train_small_network, runs, seed)
    details = {"training_accuracy": reached, "train_images": len(data.images), "chance": data.chance}
    lowest = min(value for values in reached.values() for value in values)
    if lowest <= accuracy:
        which = "permuted" if min(reached["permuted"]) == lowest else "true"
        sentence = (
            f"A twin learned only {100 * lowest:.3g} % of its {which} labels, more than {100 * accuracy:g} % are needed: "
            "train longer or on fewer images."
        )
        return CheckResult("data_randomization", (), Verdict.NOT_VALID, sentence, details=details)
    found = _explained(maps, twins, images, target)
    for twin in (*twins["true"], *twins["permuted"]):
        model.count(forward=twin.forward_rows, gradient=twin.gradient_rows)
    left_out = excluded(*(why_unusable(one) for several in found.values() for one in several))
    scores = tuple(one for name in SIMILARITIES for one in _scores(name, found, images, sorted(left_out), seed))
    verdict, sentence = _judged(scores, len(left_out), len(images))
    details["explained"] = [found["true"][0].target.text(i, model.labels) for i in range(len(images))]
    return CheckResult("data_randomization", scores, verdict, sentence, excluded=left_out, details=details)


def _twins(
    model: VisionModel, data: Labeled, train: Train, runs: int, seed: int
) -> tuple[dict[str, list[VisionModel]], dict[str, list[float]]]:
    """Per run a network that learned the labels, one of the same seed that learned them permuted; and how well each did."""
    twins: dict[str, list[VisionModel]] = {"true": [], "permuted": []}
    reached: dict[str, list[float]] = {"true": [], "permuted": []}
    for run in range(seed, seed + runs):
        dealt = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(run)).to(data.labels.device)
        for name, labels in (("true", data.labels), ("permuted", data.labels[dealt])):
            own = Labeled(data.images, labels)
            twins[name].append(trained(train, own, run, model))
            reached[name].append(float(correct(twins[name][-1], own).float().mean()))
    return twins, reached


def _explained(
    maps: MapFunction, twins: dict[str, list[VisionModel]], images: Tensor, target: Target
) -> dict[str, list[Maps]]:
    """The maps of every twin, all of one question: that of the first true twin."""
    first = maps(twins["true"][0], images, target)
    others = [maps(twin, images, first.target) for twin in twins["true"][1:]]
    return {"true": [first, *others], "permuted": [maps(twin, images, first.target) for twin in twins["permuted"]]}


def _scores(
    name: str, found: dict[str, list[Maps]], images: Tensor, left_out: Sequence[int], seed: int
) -> tuple[Score, Score]:
    """How alike the twins' maps are, and how much more alike those of two true twins."""
    measure = SIMILARITIES[name]
    true, permuted = ([one.raw for one in found[which]] for which in ("true", "permuted"))
    kept = torch.tensor([i for i in range(len(images)) if i not in left_out], dtype=torch.long)

    def alike(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Mean over pairs of maps (N, *grid), per image (N,), NaN for images that are left out."""
        values = torch.full((len(images),), math.nan, dtype=torch.float64)
        values[kept] = torch.stack([measure(a[kept], b[kept]).double().cpu() for a, b in pairs]).mean(0)
        return values

    edges, same = edge_maps(images), alike(zip(true, permuted, strict=True))
    noise = (random_maps(images, seed), random_maps(images, seed + 1))
    controls = {"edge_map": alike([(edges, edges)]), "random_map": alike([noise]), "other_seed": alike(pairwise(true))}
    null = _null(measure, [raw[kept] for raw in true], [raw[kept] for raw in permuted])
    lost = controls["other_seed"] - same
    return (
        score(name, same, "lower", "rank correlation", controls=controls, null=null),
        score(f"{name}_lost", lost, "higher", "rank correlation", controls={"edge_map": 0 * controls["edge_map"]}),
    )


def _null(measure: Similarity, true: Sequence[Tensor], permuted: Sequence[Tensor]) -> Null:
    """Each image with the next, with the one after it, ... until there are enough pairs, in every run."""
    n = len(true[0])
    shifts = range(1, min(n, 1 + -(-LEAST_PAIRS // max(1, n * len(true)))))
    pairs = [measure(a, b.roll(shift, 0)) for a, b in zip(true, permuted, strict=True) for shift in shifts]
    return null_of(torch.cat(pairs) if pairs else torch.empty(0), OTHER_IMAGES)


def _judged(scores: Sequence[Score], left_out: int, n: int) -> tuple[Verdict, str]:
    if left_out > MOST_EXCLUDED * n:
        return (
            Verdict.NOT_VALID,
            f"{left_out} of {n} images have a map that cannot be scored in one network or another.",
        )
    signed, absolute = (f"{s.interval.value:.2g} ({_range(s)})" for s in scores[::2])
    sentence = (
        f"Between a network that learned the labels and one that learned them permuted, maps correlate by {signed}; without "
        f"their signs by {absolute}"
    )
    verdicts = {_against_null(*scores[:2]), _against_null(*scores[2:])}
    if len(verdicts) == 1:
        return verdicts.pop(), sentence + "."
    return Verdict.UNCLEAR, sentence + ": the two do not say the same."


def _range(same: Score) -> str:
    other = same.controls["other_seed"].value
    null = "" if same.null is None else f"different images {same.null.low:.2g} to {same.null.high:.2g}, "
    return f"{null}two networks that learned the labels {other:.2g}"


def _against_null(same: Score, lost: Score) -> Verdict:
    """Where the interval of the mean lies to the upper end of the null's range, and whether the labels account for it."""
    if same.null is None or not same.null.n or math.isnan(same.interval.low):
        return Verdict.UNCLEAR
    if same.interval.low > same.null.high:
        return Verdict.FAIL
    return Verdict.PASS if same.interval.high <= same.null.high and lost.interval.low > 0 else Verdict.UNCLEAR

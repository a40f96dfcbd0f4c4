"""Whether the map depends on the class that is asked, or is the same whatever the question."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Null, Score, Verdict, check, excluded, null_of, score
from seewhy.checks.strongest import jaccard, jaccard_by_chance, top_cells
from seewhy.errors import known_name, real_number, whole_number
from seewhy.intervals import Interval, interval
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.similarity import rank_correlation, rank_correlation_table
from seewhy.target import Target
from seewhy.target.outputs import Task, on_scale

Against = Literal["strongest", "random"]
AGAINST: tuple[str, ...] = get_args(Against)
ROUNDING = 1e-5  # of a map's largest absolute value: what the house promises of one image in two batches
IMAGES_OF_NULL = 16  # whose maps are compared with one another: 3 classes of 16 images are 1,080 pairs


@check(
    title="Class discrimination",
    question="does the map change with the class that is asked?",
    cost="one map an image and class, and one more an image",
    rows=lambda f: (f["n"] * f["classes"], 0),
    paper="Sixt et al. 2020, arXiv:1912.09818 (random logit); Selvaraju et al. 2017, arXiv:1610.02391 (class discrimination)",
)
def class_discrimination(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    classes: int = 3,
    against: Against = "strongest",
    top: float = 0.10,
    seed: int = 0,
) -> CheckResult:
    """How alike the maps of several classes on the same image are: 1 means that the map does not depend on the question.

    Per image the asked (or predicted) class and the `classes` - 1 others with the largest logits (`against="random"`: drawn
    by seed, Sixt's random logit); for all pairs of their raw signed maps the Spearman correlation, in [-1, 1], and the
    Jaccard index of their largest `top` of the cells, in [0, 1]; a pair with a map that cannot be scored (rectified to
    zero, ...) is left out and counted. Edge map and random map know no class: 1 by definition.

    Verdict, from two nulls and no cut-off. Below: the map of the same class on the same picture with noise of at most half
    a gray level, 1/510 of the picture's range, which no 8-bit file can tell from it. Above: maps of *different* images, of
    any of their classes. Fail: all maps of all images are one, to 1e-5 of the largest absolute value (rounding); or the
    correlation between classes lies above that under the noise (95 % interval of the paired difference): the class
    changes the map less than what nobody can see. Pass: the interval lies nowhere above the range of the second null, so
    another class changes the map as much as another image does; this needs a range that holds 0, else all maps of the
    method share a pattern and a small difference would pass. Anything between is unclear, not failed: related classes
    rightly share evidence, and no paper says how much. Without classes (regression, regions, boxes) there is no verdict.
    Signs are kept, and ranks need no common scale: a map that only grows with the class is one map.

    UsageError for classes < 2, an unknown `against`, a share `top` outside (0, 1/2], a seed below 0.
    """
    whole_number("classes", classes, at_least=2)
    known_name("against", against, AGAINST)
    real_number("top", top, at_least=0, above=True, at_most=0.5)
    whole_number("seed", seed, at_least=0)
    if target.kind not in ("predicted", "index"):
        return _without(
            f"No class is asked here ({target.text(0, model.labels)}): there is no other one to compare with."
        )
    found = maps(model, images, target)
    if found.outputs is None or found.outputs.ndim != 2:
        return _without("The network's output is no table of class scores: there is no other class to compare with.")
    asked = _classes(found, images, model.task, classes, against, seed)
    several = [found] + [maps(model, images, replace(found.target, index=c)) for c in asked[:, 1:].T]
    again = maps(model, _with_unseen_noise(images, seed), found.target)
    return _compared(several, again, images, asked, top, seed)


def _without(sentence: str) -> CheckResult:
    return CheckResult("class_discrimination", (), Verdict.NONE, sentence)


def _classes(found: Maps, images: Tensor, task: Task, classes: int, against: Against, seed: int) -> Tensor:
    """(N, classes): the explained class, then the others; fewer where the network has fewer."""
    assert found.outputs is not None, "a classifier has a table of scores"
    table = on_scale(found.outputs.float().cpu(), "logit", task)
    n, columns = table.shape
    first = found.target.at(found.target.index, torch.arange(n)).cpu().view(n, 1)
    if against == "random":
        table = torch.stack([torch.rand(columns, generator=image_generator(x, seed)) for x in images])
    rest = table.nan_to_num(nan=-torch.inf).scatter(1, first, -torch.inf)
    return torch.cat([first, rest.topk(min(classes, columns) - 1, dim=1).indices], 1)


def _with_unseen_noise(images: Tensor, seed: int) -> Tensor:
    """Each picture with uniform noise of at most 1/510 of its own range, which it does not leave."""
    noise = torch.stack([torch.rand(x.shape, generator=image_generator(x, seed)) for x in images]).to(images) - 0.5
    low, high = (t.view(-1, *[1] * (images.ndim - 1)) for t in (images.flatten(1).amin(1), images.flatten(1).amax(1)))
    return torch.clamp(images + noise * (high - low) / 255, low, high)


def _compared(
    several: Sequence[Maps], again: Maps, images: Tensor, asked: Tensor, top: float, seed: int
) -> CheckResult:
    raws = [one.raw.detach().cpu() for one in several]
    why = [why_unusable(one) for one in several]
    usable = torch.tensor([[not reason for reason in reasons] for reasons in why])  # (classes, N)
    tops, tied = zip(*(top_cells(raw, images, top, seed) for raw in raws), strict=True)
    pairs = list(combinations(range(len(raws)), 2))

    def of_pairs(values: Sequence[Tensor]) -> Tensor:
        """(pairs, N), NaN where a map of the pair cannot be scored."""
        known = torch.stack([usable[a] & usable[b] for a, b in pairs])
        return torch.stack([v.double() for v in values]).masked_fill(~known, math.nan)

    correlation = of_pairs([rank_correlation(raws[a], raws[b]) for a, b in pairs])
    overlap = of_pairs([jaccard(tops[a], tops[b]) for a, b in pairs])
    same = of_pairs([_same(raws[a], raws[b]) for a, b in pairs])
    missing = [  # per image the first reason, where no pair of its maps can be compared
        next(r[i] for r in why if r[i]) if known == 0 else ""
        for i, known in enumerate((~correlation.isnan()).sum(0).tolist())
    ]
    nulls, repeated = _nulls(raws, tops, usable), _repeated(several[0], again)
    scores = (
        _score("rank_correlation", correlation.nanmean(0), "Spearman correlation", nulls[0]),
        _score("top_jaccard", overlap.nanmean(0), f"Jaccard index of the top {100 * top:g} %", nulls[1]),
        score("top_two_differ", 1 - same[0], "higher", "share of images"),
        score("same_class_unseen_noise", repeated, "higher", "Spearman correlation"),
    )
    above = interval(correlation.nanmean(0) - repeated)
    details: dict[str, Any] = {
        "classes": asked.tolist(),
        "same_map": int(same.nansum()),
        "pairs_compared": int((~same.isnan()).sum()),
        "pairs_left_out": int(same.isnan().sum()),
        "pairs": [
            {"ranks": [a + 1, b + 1], "rank_correlation": _mean(correlation[p]), "top_jaccard": _mean(overlap[p])}
            for p, (a, b) in enumerate(pairs)
        ],
        "chance_top_jaccard": jaccard_by_chance(top, raws[0][0].numel()),
        "tied_share": _mean(torch.stack(tied)[usable]),
        "between_classes_less_noise": above.to_dict(),
    }
    verdict, sentence = _judged(scores, above, same, sum(map(bool, missing)), len(images))
    return CheckResult("class_discrimination", scores, verdict, sentence, excluded=excluded(missing), details=details)


def _score(name: str, values: Tensor, unit: str, null: Null) -> Score:
    identical = torch.where(values.isnan(), math.nan, 1.0)
    return score(
        name, values, "lower", unit, controls={"random_map": identical, "edge_map": identical.clone()}, null=null
    )


def _same(a: Tensor, b: Tensor) -> Tensor:
    """Whether two maps (N, *grid) are one up to a positive factor and rounding: (N,)."""
    a, b = (t.flatten(1) / t.flatten(1).abs().amax(1, keepdim=True) for t in (a, b))
    return (a - b).abs().amax(1) <= ROUNDING


def _repeated(found: Maps, again: Maps) -> Tensor:
    """Correlation of two maps of the same class: (N,), NaN where one cannot be scored."""
    lost = torch.tensor([bool(a or b) for a, b in zip(why_unusable(found), why_unusable(again), strict=True)])
    return rank_correlation(found.raw.detach().cpu(), again.raw.detach().cpu()).masked_fill(lost, math.nan)


def _nulls(raws: Sequence[Tensor], tops: Sequence[Tensor], usable: Tensor) -> tuple[Null, Null]:
    """Correlation and Jaccard index between maps of different images, whichever of their classes."""
    chosen = usable.any(0).nonzero().flatten()[:IMAGES_OF_NULL]
    image = chosen.repeat(len(raws))[usable[:, chosen].flatten()]
    of_images = torch.triu(torch.ones(len(image), len(image)), 1).bool() & (image[:, None] != image[None, :])
    kept = usable[:, chosen].flatten()
    flat = torch.cat([raw[chosen] for raw in raws]).flatten(1)[kept]
    masks = torch.cat([mask[chosen] for mask in tops])[kept].double()
    said = "maps of different images"
    if len(image) < 2:
        return null_of(torch.empty(0), said), null_of(torch.empty(0), said)
    correlations = rank_correlation_table(flat, flat)
    common = masks @ masks.T
    overlaps = common / (masks.sum(1)[:, None] + masks.sum(1)[None, :] - common)
    return null_of(correlations[of_images], said), null_of(overlaps[of_images], said)


def _judged(scores: Sequence[Score], above: Interval, same: Tensor, missing: int, n: int) -> tuple[Verdict, str]:
    null, at, repeated = scores[0].null, scores[0].interval, scores[3].interval
    if missing > MOST_EXCLUDED * n or not at.n:
        return Verdict.NOT_VALID, f"The maps of {missing} of {n} images cannot be compared between classes."
    if bool(same[~same.isnan()].all()):
        return (
            Verdict.FAIL,
            f"The same map whatever class is asked: on all {at.n} images the maps of all classes are one.",
        )
    sentence = f"Maps of different classes on one image have a rank correlation of {at} (1: the same map)"
    if above.low > 0:
        return (
            Verdict.FAIL,
            f"{sentence}, of one class under noise that no eye sees {repeated}: the class matters less.",
        )
    if null is None or not null.n or math.isnan(at.high):
        return Verdict.UNCLEAR, f"{sentence}; too few images to say how alike unrelated maps are."
    sentence += f"; of different images {null.median:.2f} [{null.low:.2f}, {null.high:.2f}]"
    if not null.low <= 0 <= null.high:
        return Verdict.UNCLEAR, f"{sentence}: all maps of the method share a pattern, so that null tells nothing."
    if at.high <= null.high:
        return Verdict.PASS, f"{sentence}: another class changes the map as much as another image does."
    return Verdict.UNCLEAR, f"{sentence}: how much of it related classes rightly share is not known."


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None

"""Does the map point at what people marked: overlap, peak, mass and order, beside what needs no picture at all."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.checks.objects import Objects, box_maps, median_boxes, overlap_of_masks, read_annotations
from seewhy.checks.overlap import Table, at_best_threshold, mean_tables, score_maps
from seewhy.checks.plausible import outside_queue, peaks_inside, reached_by_others
from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Curve, Score, Verdict, check, excluded, score
from seewhy.controls import center_maps, edge_maps, random_maps
from seewhy.data.geometry import resize
from seewhy.errors import UsageError, known_name, real_number
from seewhy.intervals import Interval, interval
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.target import Target

NAMED = (0.15, 0.5)  # of the largest value: Grad-CAM's own, and the middle
SWEEP = tuple(k / 20 for k in range(1, 20))
HIT = 0.5  # a box counts as found from this overlap on (PASCAL VOC, ILSVRC)
PRIORS = ("center_prior", "median_box_prior")
UNITS = {  # name -> unit, and which chance level there is
    "auprc": ("area under precision and recall of object pixels", "object"),
    "pointing_game": ("share of images whose peak lies inside", "object"),
    "pointing_game_tolerant": ("share of images whose peak lies inside or near it", "near_object"),
    "energy_inside": ("share of the map's mass inside", "object"),
    "relevance_rank": ("share of the top K pixels inside, K = the object's", "object"),
    "iou_at_0.15": ("intersection over union with the object's pixels", "iou_by_chance_at_0.15"),
    "iou_at_0.50": ("intersection over union with the object's pixels", "iou_by_chance_at_0.50"),
    "iou_at_best_q_of_other_images": ("intersection over union; q chosen on other images", ""),
    "iou_at_best_q_of_set": ("intersection over union; upper bound: q chosen on these images", ""),
    "iou_at_best_q_per_image": ("intersection over union; upper bound: q chosen for each image", ""),
    "box_iou_at_0.15": ("intersection over union of boxes", ""),
    "box_iou_at_0.50": ("intersection over union of boxes", ""),
    "box_iou_at_best_q_of_other_images": ("intersection over union of boxes; q chosen on other images", ""),
    "box_iou_at_best_q_of_set": ("intersection over union of boxes; upper bound: q chosen on these images", ""),
    "box_iou_at_best_q_per_image": ("intersection over union of boxes; upper bound: q chosen for each image", ""),
}


@check(
    title="Localization",
    question="does the map point at what people marked?",
    cost="one map an image",
    paper="Zhang et al. 2016, arXiv:1608.00507 (pointing game); Wang et al. 2020, arXiv:1910.01279 (energy); Selvaraju et "
    "al. 2017, arXiv:1610.02391, section 4.1 (15 %); Choe et al. 2020, arXiv:2001.07437 (threshold-free)",
    needs=("boxes",),
)
def localization(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    boxes: Any = None,
    masks: Any = None,
    annotators: Any = None,
    classes: Sequence[object] | None = None,
    clusters: Sequence[object] | None = None,
    thresholds: Sequence[float] = SWEEP,
    tolerance: float = 15,
    sign: Literal["positive", "absolute"] = "positive",
    seed: int = 0,
) -> CheckResult:
    """How well the map agrees with boxes or masks of the object, beside guesses that never saw the picture.

    boxes: per image a list or (K, 4) array of x0, y0, x1, y1 in pixels of the input, ends exclusive; a pixel belongs to
    a box that holds its center, and all boxes of an image together are the object. masks: (N, H, W) bool. annotators: a
    list of either, one per annotator; a score is then its mean over those who marked something, and stands for each of
    them by itself beside how far they agree with one another. Maps are resized to the input (n-linear, half-pixel). sign
    "positive": evidence against counts as none; "absolute": as evidence for.

    All in [0, 1]. iou_at_q: {map >= q max} with the object; box_iou_at_q: the bounding box of its largest part (pixels
    that touch, also at a corner) with the box that it meets best. pointing_game: the peak lies inside (tolerant: within
    `tolerance` pixels). energy_inside: sum of the positive part inside / in all. relevance_rank: share of the top K
    pixels inside, K the object's pixels. auprc: average precision of the order, as scikit-learn computes it.
    Ties (several peaks, values equal at rank K, parts equally large) count with the mean over all ways to break them. A
    map without a positive value marks nothing: 0 everywhere, counted as empty, never left out.
    peak_in_plausible_region: the peak lies where the object of this class was marked in an image of another source; the
    images where it does not are the review queue, farthest first. NaN where no other source has that class.

    Controls: random and edge map; center prior, and the median box of the images of other sources with the same class
    (`classes`; `clusters`: images of one source), which look at no picture; what as many random pixels score by chance.
    Verdict: from the paired difference of auprc. PASS where its 95 % interval lies above 0 against both priors (against
    the center prior where no image has a median box), FAIL where it lies below 0 against the center prior, else unclear;
    q plays no part. An image without objects is no part of the question; a map without numbers cannot be scored, and
    more than 10 % of them make the check not valid.
    UsageError for boxes, masks, thresholds or counts that do not fit.
    """
    annotated = read_annotations(boxes, masks, annotators, images.shape)
    q = _thresholds(thresholds)
    real_number("tolerance", tolerance, at_least=0)
    known_name("sign", sign, ("positive", "absolute"))
    sources, kinds = (_per_image(n, v, images) for n, v in (("clusters", clusters), ("classes", classes)))
    found = maps(model, images, target)
    reasons = _reasons(found, annotated)
    values = resize(found.raw.detach().float().cpu(), images.shape[2:])
    values = torch.where(torch.tensor([not why for why in reasons]).view(-1, 1, 1), values, torch.nan)
    own = values.abs() if sign == "absolute" else values
    others = _guesses(images, annotated, sources or range(len(images)), kinds or [0] * len(images), seed)
    tables = {
        name: _named(mean_tables([score_maps(one, o, q, tolerance) for o in annotated]), q, sources)
        for name, one in {"": own, **others}.items()
    }
    mine = tables.pop("")
    tables = {name: _where_scored(table, mine) for name, table in tables.items()}
    region = reached_by_others(annotated, sources or range(len(images)), kinds or [0] * len(images))
    inside = {name: peaks_inside(one, region) for name, one in {"": own, **others}.items()}
    inside = _where_scored(inside, mine)
    scores = (
        *_scores(mine, tables, clusters),
        *_above_priors(mine, tables, clusters),
        _plausible(inside, region, clusters),
        *_people(own, annotated, clusters),
    )
    there = sum(bool(v) for v in torch.stack([o.there for o in annotated]).any(0))
    lost = sum(1 for why in reasons if why and why != "no object is marked")
    verdict = _verdict(scores, lost, there)
    return CheckResult(
        "localization",
        scores,
        verdict,
        _sentence(scores, verdict, there),
        curves=_curves(mine, tables, q, clusters),
        excluded=excluded(reasons),
        details={**_details(mine, own, q), "review_queue": outside_queue(own, inside[""], region)},
    )


def _thresholds(given: Sequence[float]) -> list[float]:
    if not isinstance(given, Sequence) or not given:
        raise UsageError(f"thresholds are shares of the map's largest value, such as (0.15, 0.5); got {given!r}.")
    for q in given:
        real_number("a threshold, a share of the map's largest value,", q, at_least=0, above=True, at_most=1)
    return sorted({*given, *NAMED})


def _per_image(name: str, given: Sequence[object] | None, images: Tensor) -> list[object] | None:
    if given is None:
        return None
    several = list(given)
    if len(several) != len(images):
        raise UsageError(f"{name} has an entry per image; got {len(several)} for {len(images)} images.")
    return [one.item() if isinstance(one, Tensor) else one for one in several]


def _reasons(found: Maps, annotated: Sequence[Objects]) -> list[str]:
    """Why an image is not scored; a map that is zero or constant is: it marks nothing, or everything."""
    there = torch.stack([o.there for o in annotated]).any(0).tolist()
    lost = ("not finite", "nothing was detected")
    return [
        "no object is marked" if not marked else why if why in lost else ""
        for marked, why in zip(there, why_unusable(found), strict=True)
    ]


def _guesses(
    images: Tensor, annotated: Sequence[Objects], sources: Sequence[object], kinds: Sequence[object], seed: int
) -> dict[str, Tensor]:
    """Maps (N, H, W) that know nothing of the network."""
    size = (images.shape[2], images.shape[3])
    together = [torch.cat(several) for several in zip(*[o.boxes for o in annotated], strict=True)]
    return {
        "random_map": random_maps(images, seed),
        "edge_map": edge_maps(images),
        "center_prior": center_maps(len(images), size),
        "median_box_prior": box_maps(median_boxes(together, sources, kinds), size),
    }


def _named(table: Table, q: Sequence[float], sources: Sequence[object] | None) -> Table:
    """The sweeps with the numbers that are taken from them."""
    named = dict(table)
    for sweep in ("iou", "box_iou"):
        best = at_best_threshold(table[sweep], sources or range(len(table[sweep])))
        named |= {f"{sweep}_at_{name}": numbers for name, numbers in best.items()}
        named |= {f"{sweep}_at_{one:.2f}": table[sweep][:, q.index(one)] for one in NAMED}
    return named | {f"iou_by_chance_at_{one:.2f}": table["iou_by_chance"][:, q.index(one)] for one in NAMED}


def _where_scored(table: Table, mine: Table) -> Table:
    """A guess is scored on the images that the method is scored on."""
    known = ~mine["auprc"].isnan()
    return {n: torch.where(known.view(-1, *[1] * (v.ndim - 1)), v, torch.nan) for n, v in table.items()}


def _scores(mine: Table, tables: Mapping[str, Table], clusters: Sequence[object] | None) -> list[Score]:
    found = []
    for name, (unit, chance) in UNITS.items():
        controls = {other: table[name] for other, table in tables.items()}
        if chance:
            controls["chance"] = mine[chance]
        found.append(score(name, mine[name], "higher", unit, controls=controls, clusters=clusters))
    return found


def _above_priors(mine: Table, tables: Mapping[str, Table], clusters: Sequence[object] | None) -> list[Score]:
    return [
        score(f"auprc_above_{prior}", mine["auprc"] - tables[prior]["auprc"], "higher", "auprc", clusters=clusters)
        for prior in PRIORS
    ]


def _plausible(inside: Table, region: Tensor, clusters: Sequence[object] | None) -> Score:
    controls = {name: numbers for name, numbers in inside.items() if name}
    share = region.flatten(1).double().mean(1)
    controls["chance"] = torch.where(inside[""].isnan(), torch.nan, share)
    unit = "share of images whose peak lies where another source's object of the class does"
    return score("peak_in_plausible_region", inside[""], "higher", unit, controls=controls, clusters=clusters)


def _people(values: Tensor, annotated: Sequence[Objects], clusters: Sequence[object] | None) -> list[Score]:
    """How well the annotators agree with one another, the mean overlap of their pairs; and the map with each of them."""
    if len(annotated) < 2:
        return []
    pairs = torch.stack([_agreement(a, b) for a, b in combinations(annotated, 2)])
    found = [score("annotators_iou", pairs.nanmean(0), "neither", "intersection over union", clusters=clusters)]
    for k, one in enumerate(annotated, 1):
        overlap, who = score_maps(values, one, NAMED, 0)["iou"], one.annotator or f"annotator {k}"
        found += [
            score(f"iou_at_{q:.2f} with {who}", overlap[:, j], "higher", "intersection over union", clusters=clusters)
            for j, q in enumerate(NAMED)
        ]
    return found


def _agreement(a: Objects, b: Objects) -> Tensor:
    """Overlap of two annotators (N,), NaN where one of them did not look, or both marked nothing."""
    overlap = overlap_of_masks(a.mask, b.mask)
    for looked in (a.looked, b.looked):
        overlap = overlap if looked is None else torch.where(looked, overlap, torch.nan)
    return overlap


def _verdict(scores: Sequence[Score], lost: int, there: int) -> Verdict:
    center, median = (next(s for s in scores if s.name == f"auprc_above_{prior}").interval for prior in PRIORS)
    if not there or lost > MOST_EXCLUDED * there:
        return Verdict.NOT_VALID
    if center.high < 0:
        return Verdict.FAIL
    return Verdict.PASS if center.low > 0 and (median.low > 0 or not median.n) else Verdict.UNCLEAR


def _sentence(scores: Sequence[Score], verdict: Verdict, there: int) -> str:
    of = {s.name: s for s in scores}
    if verdict is Verdict.NOT_VALID:
        return f"Only {of['auprc'].interval.n} of {there} maps of images with a marked object could be scored."
    own, better = of["auprc"], {Verdict.PASS: "better", Verdict.FAIL: "worse"}.get(verdict, "not surely better")
    guesses = []
    for prior, words in zip(PRIORS, ("the middle of the picture", "the median box of other images"), strict=True):
        control, above = own.controls[prior], of[f"auprc_above_{prior}"].interval
        if control.n:
            guesses.append(f"{words} with {control.value:.2g} (difference {_plain(above)})")
    return (
        f"The map finds the pixels of the object with an auprc of {own.interval.value:.2g} (chance "
        f"{own.controls['chance'].value:.2g}), {better} than what sees no picture: {', '.join(guesses)}."
    )


def _plain(found: Interval) -> str:
    return str(found).partition(" (n")[0]


def _curves(
    mine: Table, tables: Mapping[str, Table], q: Sequence[float], clusters: Sequence[object] | None
) -> tuple[Curve, ...]:
    return tuple(
        Curve(
            f"{sweep} {name}".strip(),
            "threshold, share of the largest value",
            tuple(q),
            "intersection over union" + (" of boxes" if sweep == "box_iou" else ""),
            tuple(interval(column, clusters) for column in table[sweep].T),
            control=bool(name),
        )
        for sweep in ("iou", "box_iou")
        for name, table in {"": mine, **tables}.items()
    )


def _details(mine: Table, values: Tensor, q: Sequence[float]) -> dict[str, Any]:
    """What else there is to know."""
    known = ~mine["auprc"].isnan()
    flat = values[known].flatten(1)
    if not len(flat):
        return {"n": 0}
    best = {sweep: q[int(mine[sweep][known].mean(0).argmax())] for sweep in ("iou", "box_iou")}
    hits = {f"{one:.2f}": float((mine[f"box_iou_at_{one:.2f}"][known] >= HIT).double().mean()) for one in NAMED}
    return {
        "n": int(known.sum()),
        "object_share_of_the_picture": float(mine["object"][known].mean()),
        "empty": int((flat.amax(1) <= 0).sum()),
        "tied_share": float(mine["tied"][known].mean()),
        "best_q_of_set": best,
        f"share_of_images_with_box_iou_of_{HIT}": hits,
    }

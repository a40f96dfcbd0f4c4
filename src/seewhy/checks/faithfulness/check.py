"""The check itself: which protocols are run, and what their numbers say together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.checks.faithfulness.asking import Subject, subject
from seewhy.checks.faithfulness.flipping import (
    EDGE_LEAST,
    EDGE_MOST,
    LEAST,
    MOST,
    RANDOM,
    Curves,
    Orders,
    agreement,
    flip,
    orders_of,
    static,
)
from seewhy.checks.faithfulness.road import road_fill
from seewhy.checks.faithfulness.sheet import (
    Sheet,
    area_scores,
    curves_of,
    drop_scores,
    flipping_scores,
    infidelity_scores,
    sensitivity_scores,
)
from seewhy.checks.faithfulness.units import Unit, units_of
from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Curve, Score, Verdict, check, excluded
from seewhy.errors import UsageError, known_name, whole_number
from seewhy.maps import MapFunction, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import FILLS, fill_images
from seewhy.registry import Facts
from seewhy.similarity import rank_correlation
from seewhy.target import Target

PROTOCOLS = ("pixel_flipping", "insertion_deletion", "road", "average_drop", "infidelity", "sensitivity_n")
PERTURBATIONS = ("removal", "noise")  # of infidelity
NAMES = {"patch": "patches", "pixel": "pixels", "superpixel": "superpixels"}


@check(
    title="Faithfulness",
    question="does the score change where the map says that it should?",
    cost="one map and 65 forward rows an image; per fill 5 (steps - 1) + 1 for the curves and 6 for average drop",
    rows=lambda f: (0, f["n"] * _rows(f)),
    paper="Samek et al. 2017, arXiv:1509.06321; Petsiuk et al. 2018, arXiv:1806.07421; Tomsett et al. 2020, arXiv:1912.01451",
)
def faithfulness(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    protocols: Sequence[str] = ("pixel_flipping", "insertion_deletion", "average_drop"),
    fills: Sequence[str] = ("mean", "blur"),
    unit: Unit = "patch",
    patch: int | Sequence[int] | None = None,
    superpixels: int = 50,
    steps: int = 6,
    random_orders: int = 1,
    perturbation: str = "removal",
    samples: int = 32,
    clusters: Sequence[object] | None = None,
    seed: int = 0,
) -> CheckResult:
    """Whether hiding what the map calls important changes the score more than hiding what it calls unimportant.

    The raw signed map, drawn at the input's size, is averaged over units: patches of `patch` pixels (None: a grid of 16 an
    axis at most, the last one smaller), pixels, or SLIC superpixels; all channels of a pixel go together. Of n units the
    first floor(j n / steps) are hidden at point j = 0 .. steps, most relevant first (MoRF) and least relevant first (LeRF),
    ties by the seed. One set of forwards serves the class probability and the logit, and these protocols:

    pixel_flipping: `aopc`, the mean over all points of f(x) - f(x_j), MoRF, and the same least first (Samek 2017, equation
    12; there 9 x 9 regions and noise). `area_between`: area under LeRF minus area under MoRF.
    insertion_deletion: areas by the trapezoid rule on true shares of the pixels, 0 % and 100 % included, the class fixed.
    Insertion shows the most relevant units on the fill: the LeRF pictures backwards (Petsiuk 2018; there deletion by gray,
    insertion on fill "blur_11x11"). `relative`: over the clean probability, which the area depends on else.
    road: pixel flipping under noisy linear imputation (Rong 2022); all hidden: the mean color. Has its own fill.
    average_drop: % of the score lost when only the map's part is shown, `soft` or its `top_half`; `average_increase`; over N.
    infidelity: see subsets.infidelity; perturbation `removal` of random units, for maps whose parts sum to the score's
    change, or gray `noise` for gradients. sensitivity_n: correlation of the sum of the map over n random units with the
    fall when they are hidden, n = 1, 2, 4, ... (Ancona 2018). `samples` per image, fill and n.

    Verdict, from `area_between` on the first scale: for any network the area between an order and its reverse is 0 on
    average over random orders, as both are random, so it is the paired difference to random order with no noise of one.
    Pass: the interval lies above 0 under every fill. Fail: below 0 under one and above under none. Else unclear.
    `fill_agreement`: Kendall's tau of how two fills rank map, edge map and random order on an image.
    UsageError for fewer than two fills, as the fill alone can turn a ranking around (Tomsett 2020), unless none is used.
    """
    _check_settings(protocols, fills, perturbation, steps, random_orders, samples)
    _check_steps(steps, unit, int(units_of(images[:1], unit, patch, superpixels).counts[0]))
    found = maps(model, images, target)
    why = why_unusable(found)
    used = torch.tensor([i for i, reason in enumerate(why) if not reason], dtype=torch.long)
    if not len(used):
        sentence = f"None of the {len(why)} maps can be scored: {', '.join(sorted(set(why)))}."
        return CheckResult("faithfulness", (), Verdict.NOT_VALID, sentence, excluded=excluded(why))
    x = images[used].to(model.device)
    pictures = {fill: fill_images(model, x, fill, seed) for fill in fills}
    units = units_of(x, unit, patch, superpixels)
    chosen = found.target.select(used.to(model.device))
    asked = subject(model, x, chosen, found.raw[used.to(found.raw.device)], units, pictures, seed)
    sheet = Sheet(len(why), used, clusters)
    orders = orders_of(asked, steps, random_orders)
    runs = _runs(asked, orders, protocols)
    scores, curves = _measured(sheet, asked, orders, runs, protocols, perturbation, samples)
    why = _noted(why, used, runs)
    gaps = {fill: next(s for s in scores if s.name == f"area_between_{fill}_{asked.scales[0]}") for fill in runs}
    verdict = _verdict(gaps, why.count("") / len(why))
    details = _details(sheet, orders, runs) | {"units": _range(units.counts), "scales": list(asked.scales)}
    return CheckResult(
        "faithfulness",
        tuple(scores),
        verdict,
        _sentence(gaps, scores, verdict, unit, asked.scales[0], excluded(why), len(why)),
        curves=tuple(curves),
        excluded=excluded(why),
        details=details,
    )


def _rows(facts: Facts) -> int:
    """Forward rows an image: the clean one, and the changed ones of each protocol."""
    protocols, fills, samples = facts["protocols"], len(facts["fills"]), facts["samples"]
    curves = (4 + facts["random_orders"]) * (
        facts["steps"] - 1
    ) + 1  # most and least first, of the map and of the edges
    spent: dict[str, int] = {
        "pixel_flipping": fills * curves,
        "insertion_deletion": 0 if "pixel_flipping" in protocols else fills * curves,  # the same pictures
        "road": curves,
        "average_drop": 6 * fills,  # two masks of the map, of the edges and of a random map
        "infidelity": samples * (fills if facts["perturbation"] == "removal" else 1),
        "sensitivity_n": samples * fills * _sizes(facts),
    }
    return 1 + sum(spent[protocol] for protocol in set(protocols))


def _sizes(facts: Facts) -> int:
    """How many of 1, 2, 4, ... lie below the number of units, at most."""
    pixels: int = math.prod(facts["axes"])
    most: dict[str, int] = {"pixel": pixels, "superpixel": 2 * facts["superpixels"]}
    a_patch: int = 16 ** len(facts["axes"]) if facts["patch"] is None else pixels
    return (most.get(facts["unit"], a_patch) - 1).bit_length()


def _runs(asked: Subject, orders: Orders, protocols: Sequence[str]) -> dict[str, Curves]:
    """The curves under each fill that a protocol needs."""
    runs = {}
    if "pixel_flipping" in protocols or "insertion_deletion" in protocols:
        runs = {fill: flip(asked, orders, static(asked, picture)) for fill, picture in asked.fills.items()}
    if "road" in protocols:
        runs["road"] = flip(asked, orders, road_fill(asked))
    return runs


def _noted(why: Sequence[str], used: Tensor, runs: Mapping[str, Curves]) -> list[str]:
    """The reasons with those of images that have no score on a changed picture."""
    reasons = list(why)
    for run in runs.values():
        lost = ~run.values.isfinite().all(2).all(1).all(0)
        for image in used[lost.cpu()].tolist():
            reasons[image] = "the score of a changed picture is not finite"
    return reasons


def _measured(
    sheet: Sheet,
    asked: Subject,
    orders: Orders,
    runs: Mapping[str, Curves],
    protocols: Sequence[str],
    perturbation: str,
    samples: int,
) -> tuple[list[Score], list[Curve]]:
    unit = NAMES[asked.units.name]
    scores: list[Score] = []
    curves: list[Curve] = []
    for fill, run in runs.items():
        scores += flipping_scores(sheet, run, fill, asked.scales)
        curves += curves_of(sheet, run, orders, fill, asked.scales, asked.units.counts, unit)
        if "insertion_deletion" in protocols and fill != "road":
            scores += area_scores(sheet, run, fill, asked.scales, asked.clean)
    if len(runs) > 1:
        scores.append(sheet.score("fill_agreement", agreement(runs), "neither", "Kendall's tau"))
    if runs:
        scores.append(sheet.score("tied_share", orders.tied, "neither", f"share of the {unit}"))
    if "average_drop" in protocols:
        scores += drop_scores(sheet, asked)
    if "infidelity" in protocols:
        scores += infidelity_scores(sheet, asked, perturbation, samples)
    if "sensitivity_n" in protocols:
        more, drawn = sensitivity_scores(sheet, asked, samples, unit)
        scores, curves = scores + more, curves + drawn
    return scores, curves


def _verdict(gaps: Mapping[str, Score], share_used: float) -> Verdict:
    if share_used < 1 - MOST_EXCLUDED:
        return Verdict.NOT_VALID
    if not gaps:
        return Verdict.NONE
    better = [gap.interval.low > 0 for gap in gaps.values()]
    worse = [gap.interval.high < 0 for gap in gaps.values()]
    if all(better):
        return Verdict.PASS
    return Verdict.FAIL if any(worse) and not any(better) else Verdict.UNCLEAR


def _sentence(
    gaps: Mapping[str, Score],
    scores: Sequence[Score],
    verdict: Verdict,
    unit: str,
    scale: str,
    left_out: Mapping[int, str],
    n: int,
) -> str:
    out = f" {len(left_out)} of {n} maps could not be scored." if left_out else ""
    if not gaps:
        first = scores[0]
        return f"{first.name} is {first.interval}; no order was followed, so there is no verdict.{out}"
    says = {
        Verdict.PASS: "lowers the {} more than hiding them last, under every fill",
        Verdict.FAIL: "lowers the {} less than hiding them last: worse than a random order",
    }.get(verdict, "does not clearly lower the {} more than hiding them last, under every fill").format(scale)
    areas = ", ".join(f"{gap.interval} ({fill})" for fill, gap in gaps.items())
    edges = ", ".join(f"{gap.controls['edge_map'].value:.3g} ({fill})" for fill, gap in gaps.items())
    alike = next((s for s in scores if s.name == "fill_agreement"), None)
    agree = (
        ""
        if alike is None
        else f"; the fills rank map, edge map and random order with a tau of {alike.interval.value:.2g}"
    )
    return (
        f"Hiding the most relevant {NAMES[unit]} first {says}: area between the curves {areas}, against 0 of random orders "
        f"and {edges} of the edge map{agree}.{out}"
    )


def _details(sheet: Sheet, orders: Orders, runs: Mapping[str, Curves]) -> dict[str, Any]:
    """Paired differences of areas on the first scale, map against each control (above 0: the map is better), and more."""
    against: dict[str, Any] = {}
    for fill, run in runs.items():
        most, least, chance = (run.area(order)[0] for order in (MOST, LEAST, RANDOM))
        edge = run.area(EDGE_LEAST)[0] - run.area(EDGE_MOST)[0]
        against[fill] = {
            "deletion against random order": sheet.interval(chance - most).to_dict(),
            "insertion against random order": sheet.interval(least - chance).to_dict(),
            "area between against edge map": sheet.interval(least - most - edge).to_dict(),
        }
    areas = {fill: (run.area(LEAST) - run.area(MOST))[0] for fill, run in runs.items()}
    names = list(areas)
    alike = {
        f"{a}, {b}": _finite(float(rank_correlation(areas[a][None], areas[b][None])))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    }
    hidden = [_range(points) for points in orders.hidden.T]
    return {"differences": against, "area_between_rank_correlation": alike, "units_hidden": hidden}


def _range(values: Tensor) -> int | list[int]:
    """The number that all images have, or the smallest and the largest."""
    low, high = int(values.min()), int(values.max())
    return low if low == high else [low, high]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _check_settings(
    protocols: Sequence[str],
    fills: Sequence[str],
    perturbation: str,
    steps: int,
    random_orders: int,
    samples: int,
) -> None:
    if isinstance(protocols, str) or not protocols:
        raise UsageError(f"protocols is a list of one or more of {', '.join(PROTOCOLS)}; got {protocols!r}.")
    for protocol in protocols:
        known_name("protocol", protocol, PROTOCOLS)
    if isinstance(fills, str):
        raise UsageError(f"fills is a list of names; got the text {fills!r}: fills=('mean', 'blur').")
    for fill in fills:
        known_name("fill", fill, FILLS)
    known_name("perturbation", perturbation, PERTURBATIONS)
    whole_number("steps", steps, at_least=2)
    whole_number("random_orders", random_orders, at_least=1)
    whole_number("samples", samples, at_least=2)
    own = {"road"} | ({"infidelity"} if perturbation == "noise" else set())
    if len(set(fills)) < 2 and not set(protocols) <= own:
        raise UsageError(
            f"{len(set(fills))} fill given ({', '.join(fills) or 'none'}): the fill alone can turn a ranking around, so "
            "at least two are needed, fills=('mean', 'blur')."
        )
    if len(set(fills)) < len(fills):
        raise UsageError(f"a fill is given twice: {', '.join(fills)}.")


def _check_steps(steps: int, unit: str, count: int) -> None:
    if steps > count and unit != "superpixel":
        raise UsageError(f"{steps} steps for {count} {NAMES[unit]}: at most as many steps, or smaller patches.")

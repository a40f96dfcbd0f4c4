"""Is the network made so that its maps look right: they are held against what it does when its images are changed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from seewhy.checks.behavior import behavior_maps, on_cells, rows_of
from seewhy.checks.cascade import Cascade, smoothed
from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Score, Verdict, check, excluded, null_of, score
from seewhy.checks.turning import Held, held_place, rows_of_turning
from seewhy.controls import center_maps, edge_maps, random_maps
from seewhy.errors import RefusalError, UsageError, real_number, whole_number
from seewhy.maps import MapFunction, Maps, same_steps, why_unusable
from seewhy.model import VisionModel
from seewhy.randomization import stages_of
from seewhy.registry import Facts
from seewhy.similarity import rank_correlation, rank_correlation_table
from seewhy.softening import beta_smoothed
from seewhy.target import Scale, Target

BLIND = ("edge_map", "center_map")  # maps that know nothing of the network, but something of photographs
LEAST_IMAGES = 9  # of fewer, a bootstrap interval is too narrow: as many as the nulls of other checks need
UNIT = "rank correlation"


@check(
    title="Manipulation suspected",
    question="does the map hide what the network uses?",
    cost="one map and 49 forward rows an image and draw, a map of each other method, smooth + 3 more maps; of pictures 3 "
    "more maps and 4 (2 draws + 1) forward rows",
    rows=lambda facts: _rows(facts),
    paper="Heo et al. 2019, arXiv:1902.02041; Anders et al. 2020, arXiv:2007.09969 (attacks); Dombrowski et al. 2019, "
    "arXiv:1906.07983 (smoothing); the battery is ours",
    needs=("others",),
)
def manipulation(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    others: Mapping[str, MapFunction],
    reference: VisionModel | None = None,
    magnitude: bool = False,
    draws: int = 2,
    smooth: int = 4,
    beta: float = 10.0,
    seed: int = 0,
) -> CheckResult:
    """Whether the map says less of what the network does than maps of other families and maps that know no network.

    What the network does is found without gradients: every place of an image is shown as it is in another of `images`,
    `draws` times, 49 windows of a grid of 8 cells an axis; the fall of the answer is the place's weight. The Spearman
    correlation of the map with it over the cells, in [-1, 1], is taken twice: `map_agreement` of the raw signed map,
    `picture_agreement` of its positive part, which pictures show (`magnitude`: of |map| alone). Beside them the same of
    `others` (methods of another family, asked the same), and of random, edge and center map; the null: other images' maps.

    Pictures are also turned: as they are, mirrored, upside down, both. `held_place`: the share of the map's mass (of its
    positive part, or |map|) that stays at one place in all four, beyond twice that at its mirror place; the place is that
    of the other images' maps (see `checks/turning.py`). `answer_at_place`: how far the answer falls where the place shows
    another image, beyond twice the fall at the mirror place.

    Verdict, within the network and without a cut-off. Fail (suspected): in one of the two readings *every* one of
    `others`, the edge map and the center map agree more with the network's behavior than the map, the 95 % interval of each
    paired difference (`<name>_ahead`) above 0. As all of them must, a map that is as good as one of them is accused with a
    chance of at most 2.5 % a reading. Pass: in both neither edge nor center map is ahead, one is behind, and the interval of
    `held_place` is not above 0. Else unclear: a map that stays at one place however the picture is turned was moved there,
    or the network has learned where to look, as some with position embeddings do; the map alone does not tell which.
    A fail says that the map misleads, by intent or since the method does not fit the network. A pass proves no innocence:
    an attack that moves the map to another place that matters passes, and so does one that makes the behavior follow.

    Without a verdict, as no null tells what honest networks have: `behavior_at_mass`, the behavior where the picture's mass
    lies, in standard deviations (0: a random place); `same_place`, how alike maps of different images are, beside how
    alike the behaviors are; `family_agreement_<name>`, the map with that of another family; `noise_smoothed`,
    `beta_smoothed` and `randomized`, the map with its mean over `smooth` noisy copies, with softplus(`beta`) in place of
    ReLUs, and on random weights (refusals stand in details). reference: a network that is trusted, such as the checkpoint
    before (its rows are counted there): `reference_map`, the map with its map; `reference_moved`, how much more alike the
    behavior, or another family's map if that is less, has stayed; `reference_answer`, the change of the explained score.

    Not valid where more than 10 % of the images have a map or a behavior that shows nothing; no verdict below 9 images.
    RefusalError for one image, which has none to be exchanged with; UsageError for no `others`, or a name that is taken.
    """
    _check(others, draws, smooth, beta, seed)
    if len(images) < 2:
        raise RefusalError(f"1 image has no other one to exchange its parts with: at least {LEAST_IMAGES} are needed.")
    found = maps(model, images, target)
    ask = partial(_seen, images=images, others=others, scale=target.scale, magnitude=magnitude, draws=draws, seed=seed)
    seen = ask(model, found)
    why = _why(found, seen)
    lost = torch.tensor([bool(reason) for reason in why])
    rivals = {
        name: rank_correlation(shown, seen.behavior) for name, shown in (seen.others | _blind(images, seed)).items()
    }
    agreement: dict[str, Score] = {}
    ahead: dict[str, dict[str, Score]] = {}
    for reading, shown in seen.readings.items():
        own = rank_correlation(shown, seen.behavior).masked_fill(lost, math.nan)
        beside = {name: values.masked_fill(lost, math.nan) for name, values in rivals.items()}
        null = null_of(_with_other_images(shown, seen.behavior)[0], "maps with the behavior on other images")
        agreement[reading] = score(f"{reading}_agreement", own, "higher", UNIT, controls=beside, null=null)
        ahead[reading] = {
            name: score(f"{name}_ahead_of_{reading}", values - own, "lower", UNIT)
            for name, values in beside.items()
            if name != "random_map"
        }
    scores = [*agreement.values(), *[one for several in ahead.values() for one in several.values()]]
    smoother, refused = _beside(model, images, maps, found, smooth, beta, seed)
    held, unheld = _held(model, images, maps, found, magnitude, draws, seed)
    scores += [_at_mass(seen, lost), *_same_place(seen), *_families(seen), *smoother]
    scores += [held.map, held.answer] if held else []
    if reference is not None:
        trusted = maps(reference, images, replace(found.target, scale=target.scale))
        scores += _against(seen, ask(reference, trusted), found, trusted)
    verdict, told = _verdict(agreement, ahead, held, int(lost.sum()), len(why))
    return CheckResult(
        "manipulation",
        tuple(scores),
        verdict,
        _sentence(verdict, agreement[told], ahead[told], held, why),
        excluded=excluded(why),
        details={"rivals": list(ahead[told]), "grid": list(seen.behavior.shape[1:]), "refused": refused | unheld},
    )


@dataclass(frozen=True)
class _Seen:
    """What a network does, and what maps of it say, on the same cells: (N, *cells) each, NaN where a map has no number."""

    behavior: Tensor
    readings: dict[str, Tensor]  # of the map: as it is, and what its picture shows
    others: dict[str, Tensor]


def _seen(
    model: VisionModel,
    found: Maps,
    *,
    images: Tensor,
    others: Mapping[str, MapFunction],
    scale: Scale | None,
    magnitude: bool,
    draws: int,
    seed: int,
) -> _Seen:
    question = replace(found.target, scale=scale)  # each method explains the same class on its own scale
    theirs = {name: other(model, images, question) for name, other in others.items()}
    shown = {"picture": found.raw.abs()} if magnitude else {"map": found.raw, "picture": found.raw.clamp_min(0)}
    return _Seen(
        behavior_maps(model, images, found.target, draws, seed),
        {name: _cells(raw, found, images) for name, raw in shown.items()},
        {name: _cells(other.raw, other, images) for name, other in theirs.items()},
    )


def _cells(raw: Tensor, found: Maps, images: Tensor) -> Tensor:
    cells = on_cells(raw, images.shape[2:])
    gone = torch.tensor([bool(why) for why in why_unusable(found)])
    return cells.masked_fill(gone.view(-1, *[1] * (cells.ndim - 1)), math.nan)


def _blind(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Maps that know nothing of the network, on the cells."""
    found = {
        "random_map": random_maps(images, seed),
        "edge_map": edge_maps(images),
        "center_map": center_maps(len(images), images.shape[2:]),
    }
    return {name: on_cells(raw, images.shape[2:]) for name, raw in found.items()}


def _why(found: Maps, seen: _Seen) -> list[str]:
    """Per image why its map cannot be held against its behavior, "" where it can."""
    shows = rank_correlation(seen.readings["picture"], seen.readings["picture"]).isfinite().tolist()
    finite = seen.behavior.flatten(1).isfinite().all(1).tolist()
    varies = (seen.behavior.flatten(1).amax(1) > seen.behavior.flatten(1).amin(1)).tolist()
    return [
        reason
        or ("the score of a changed picture is not finite" if not known else "")
        or ("no place changes the answer" if not reacts else "")
        or ("the picture of the map shows nothing" if not told else "")
        for reason, known, reacts, told in zip(why_unusable(found), finite, varies, shows, strict=True)
    ]


def _with_other_images(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rank correlations of maps with those of other images: of all pairs, and the mean of each image's, (N,)."""
    table = rank_correlation_table(a, b)
    table.fill_diagonal_(math.nan)
    return table.flatten(), table.nanmean(1)


def _at_mass(seen: _Seen, lost: Tensor) -> Score:
    """The mean behavior where the mass lies, in its standard deviations over the cells from its mean."""
    flat = seen.behavior.flatten(1)
    height = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True, correction=0)

    def at(shown: Tensor) -> Tensor:
        mass = shown.flatten(1) / shown.flatten(1).sum(1, keepdim=True)
        return (mass * height).sum(1).masked_fill(lost, math.nan)

    controls = {name: at(shown) for name, shown in seen.others.items()}
    return score("behavior_at_mass", at(seen.readings["picture"]), "higher", "standard deviations", controls=controls)


def _same_place(seen: _Seen) -> list[Score]:
    beside = {"behavior": seen.behavior} | seen.others
    controls = {name: _with_other_images(shown, shown)[1] for name, shown in beside.items()}
    alike = _with_other_images(seen.readings["picture"], seen.readings["picture"])[1]
    return [score("same_place", alike, "lower", f"{UNIT} with other images", controls=controls)]


def _families(seen: _Seen) -> list[Score]:
    own, found = next(iter(seen.readings.values())), []
    for name, shown in seen.others.items():
        null = null_of(_with_other_images(own, shown)[0], f"maps with those of {name} of other images")
        found.append(score(f"family_agreement_{name}", rank_correlation(own, shown), "higher", UNIT, null=null))
    return found


def _beside(
    model: VisionModel, images: Tensor, maps: MapFunction, found: Maps, smooth: int, beta: float, seed: int
) -> tuple[list[Score], dict[str, str]]:
    """The map against itself, smoothed and on random weights; and what could not be had, with the reason."""
    fixed, target = same_steps(maps, found), found.target

    def randomized() -> Tensor | None:
        stages = stages_of(model, images, target)
        return Cascade(model, images, target, fixed, stages, seed, recalibrate=False).full(0).raw

    ways: dict[str, Callable[[], Tensor | None]] = {
        "noise_smoothed": lambda: smoothed(fixed, smooth, seed)(model, images, target).raw if smooth else None,
        "beta_smoothed": lambda: beta_smoothed(fixed, beta)(model, images, target).raw,
        "randomized": randomized,
    }
    scores, refused = [], {}
    for name, way in ways.items():
        try:
            raw = way()
        except RefusalError as error:  # scripted code or integer weights, say: the other columns stand
            refused[name] = str(error)
            continue
        if raw is not None:
            scores.append(score(name, _alike(found.raw, raw), "neither", UNIT))
    return scores, refused


def _held(
    model: VisionModel, images: Tensor, maps: MapFunction, found: Maps, magnitude: bool, draws: int, seed: int
) -> tuple[Held | None, dict[str, str]]:
    """What stays at one place when the pictures are turned; or the reason why that could not be asked."""
    if images.ndim != 4:
        return None, {"held_place": "only pictures (N, C, H, W) are turned"}
    fixed = same_steps(maps, found)
    try:
        return held_place(
            model, images, found.target, found.raw, fixed, magnitude=magnitude, draws=draws, seed=seed
        ), {}
    except RefusalError as error:
        return None, {"held_place": str(error)}


def _against(seen: _Seen, trusted: _Seen, found: Maps, before: Maps) -> list[Score]:
    """What stayed as the reference has it: the map, the behavior, maps of other families, and the answer."""
    pairs = {name: (shown, trusted.readings[name]) for name, shown in seen.readings.items()}
    own = torch.stack([rank_correlation(*pair) for pair in pairs.values()]).amin(0)
    stayed = {"behavior": rank_correlation(seen.behavior, trusted.behavior)}
    stayed |= {name: rank_correlation(shown, trusted.others[name]) for name, shown in seen.others.items()}
    change = (found.values - before.values).abs().double().cpu()
    return [
        score("reference_map", own, "higher", UNIT, controls=stayed),
        score("reference_moved", torch.stack(list(stayed.values())).amin(0) - own, "lower", UNIT),
        score("reference_answer", change, "lower", "change of the explained score"),
    ]


def _alike(a: Tensor, b: Tensor) -> Tensor:
    return rank_correlation(a.detach().cpu(), b.detach().cpu())


def _verdict(
    agreement: Mapping[str, Score], ahead: Mapping[str, Mapping[str, Score]], held: Held | None, lost: int, n: int
) -> tuple[Verdict, str]:
    """And the reading that tells it: where the map is suspected, or its picture."""
    suspected = [name for name, rivals in ahead.items() if all(one.interval.low > 0 for one in rivals.values())]
    told = suspected[0] if suspected else "picture"
    if lost > MOST_EXCLUDED * n:
        return Verdict.NOT_VALID, told
    if n - lost < LEAST_IMAGES:
        return Verdict.NONE, told
    if suspected:
        return Verdict.FAIL, told
    blind = [[rivals[name].interval for name in BLIND] for rivals in ahead.values()]
    better = all(all(not one.low > 0 for one in both) and any(one.high < 0 for one in both) for both in blind)
    better &= all(one.interval.low > 0 for one in agreement.values())
    return Verdict.PASS if better and not (held and held.stays) else Verdict.UNCLEAR, told


def _sentence(verdict: Verdict, main: Score, rivals: Mapping[str, Score], held: Held | None, why: Sequence[str]) -> str:
    n, lost = len(why), sum(map(bool, why))
    named = ", ".join(f"{name} {main.controls[name].value:.2f}" for name in rivals)
    says = {
        Verdict.FAIL: "Suspected: the map says less of what the network does than every map it was held against, also those "
        "that know no network; it misleads, by intent or since the method does not fit",
        Verdict.PASS: "Not suspected: the map says more of what the network does than maps that know no network",
        Verdict.NOT_VALID: f"Too many maps or behaviors show nothing ({lost} of {n})",
        Verdict.NONE: f"{n - lost} images are too few to tell, {LEAST_IMAGES} are needed",
        Verdict.UNCLEAR: "Not passed, as some of the map stays at one place however the pictures are turned (it was moved "
        "there, or the network has learned where to look)"
        if held and held.stays
        else "Not told: the map is neither clearly better nor worse than maps that know no network",
    }[verdict]
    told = f"{says}: rank correlation {main.interval} with the network's behavior, against {named}."
    if held and held.stays:
        told += (
            f" {held.masses[0]:.2f} of the map's mass lies at that place, {held.masses[1]:.2f} at its mirror place; hidden, "
            f"they lower the answer by {held.falls[0]:.3g} and {held.falls[1]:.3g}."
        )
    return told + (f" {lost} of {n} images could not be scored." if lost and verdict is not Verdict.NOT_VALID else "")


def _rows(facts: Facts) -> tuple[int, int]:
    n, smooth = facts["n"], facts["smooth"]
    more = 2 + (1 + smooth if smooth else 0)  # softplus, random weights; the clean one and noisy ones
    turns, shown = rows_of_turning(facts["draws"]) if len(facts["axes"]) == 2 else (0, 0)
    return n * (more + turns), n * (rows_of(facts["axes"], facts["draws"]) + shown)


def _check(others: Mapping[str, MapFunction], draws: int, smooth: int, beta: float, seed: int) -> None:
    if not isinstance(others, Mapping) or not others:
        raise UsageError(
            "manipulation needs maps of another family by name, "
            f'others={{"smooth_grad_squared": sw.bind("smooth_grad_squared")}}; got {others!r}.'
        )
    for name, other in others.items():
        if not isinstance(name, str) or name in ("behavior", "random_map", *BLIND):
            raise UsageError(f"{name!r} cannot name another method: it is a column of this check.")
        if not callable(other):
            raise UsageError(
                f"others[{name!r}] is a {type(other).__name__}, not a method: bind one, sw.bind({name!r})."
            )
    whole_number("draws", draws, at_least=1)
    whole_number("smooth", smooth, at_least=0)
    whole_number("seed", seed, at_least=0)
    real_number("beta", beta, at_least=0, above=True)

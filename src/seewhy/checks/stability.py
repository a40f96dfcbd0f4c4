"""Does the map stay when the picture hardly changes: copies with the map moved back, and the worst of some noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.checks.result import (
    MOST_EXCLUDED,
    CheckResult,
    Curve,
    Null,
    Score,
    Verdict,
    check,
    excluded,
    null_of,
    score,
)
from seewhy.controls import edge_maps, random_maps
from seewhy.data.geometry import resize
from seewhy.errors import RefusalError, UsageError, known_name, real_number, whole_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.registry import Direction
from seewhy.similarity import rank_correlation_table
from seewhy.target import Target, Task

AUGMENTATIONS = {  # in pixel space
    "shift": "2 pixels down and 3 to the right",
    "rotation": "5 degrees about the center",
    "brightness": "times 0.9",
    "contrast": "0.9 of the distance from the image's mean color",
    "noise": "Gaussian with a standard deviation of 0.02",
}
MOVES = {"shift": (0.0, 2.0, 3.0), "rotation": (5.0, 0.0, 0.0)}  # degrees, pixels down, pixels to the right
FACTOR, NOISE = 0.9, 0.02
ALL = tuple(AUGMENTATIONS)


@check(
    title="Stability",
    question="does the map stay when the picture hardly changes?",
    cost="10 maps an image: 1 + augmentations + samples",
    rows=lambda f: (f["n"] * (len(f["augmentations"]) + f["samples"]), 0),
    paper="Yeh et al. 2019, arXiv:1901.09392 (max-sensitivity); Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049",
)
def stability(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    augmentations: Sequence[str] = ALL,
    radius: float = 0.02,
    samples: int = 4,
    clusters: Sequence[object] | None = None,
    seed: int = 0,
) -> CheckResult:
    """How much the map of the same class moves when the picture is shifted, turned, dimmed or gets noise.

    Each augmented copy is explained for the class of the clean image, its map resized to the input and moved back; pixels
    whose way back leads out of the picture are left out. spearman: signed rank correlation with the clean map, in [-1, 1];
    relative_l2 = |M' - M| / |M|; both are means over the augmentations of the image. max_sensitivity: largest
    |E(x + d) - E(x)| / |E(x)| of `samples` uniform d in the L_inf ball of `radius` (pixel space, kept in [0, 1]), at the
    map's own resolution: a lower bound of the paper's supremum, and relative, so that the map's unit plays no part.
    local_lipschitz: largest |E(x + d) - E(x)| / (|E(x)| |d|) of the same d, L2 norms, |d| of the change that is left in
    [0, 1]: shares of the map per unit of pixel distance, >= 0. The paper (Alvarez-Melis and Jaakkola) searches the ball for
    the largest and does not divide by |E(x)|, which would make it a number in the map's unit.
    Copies whose prediction changes are counted (prediction_flips) and left out of all four: there a map should change.

    Null: the same correlation of a clean map with the moved-back maps of *other* images. PASS where the 95 % interval of
    spearman lies above the null's 97.5 % point, FAIL where it lies below, else unclear. It says nothing of faithfulness: an
    edge map is stable (see its score), and a constant map, perfectly so, is excluded. RefusalError where the pixel bounds
    are unknown; UsageError for unknown augmentations, or moves of images that are no pictures.
    """
    _check(model, images, augmentations, radius, samples)
    found = maps(model, images, target)
    why = why_unusable(found)
    clean = _drawn(found, images, torch.tensor([not reason for reason in why]), seed)
    moved, null, flips = _of_augmentations(model, images, maps, found, clean, augmentations, seed)
    noisy, flips_of_noise = _of_noise(model, images, maps, found, clean, radius, samples, seed)
    flipped = torch.cat([flips, flips_of_noise]).double().mean(0)
    why = [
        reason or ("its prediction changes in every augmented copy" if gone else "")
        for reason, gone in zip(why, flips.all(0).tolist(), strict=True)
    ]
    values = {
        "spearman": {kind: of["spearman"].nanmean(0) for kind, of in moved.items()},
        "relative_l2": {kind: of["relative_l2"].nanmean(0) for kind, of in moved.items()},
        **noisy,
        "prediction_flips": {"": flipped},
    }
    chances = null_of(null, "a clean map and the moved-back maps of other images")
    scores = tuple(_score(name, of, chances, clusters) for name, of in values.items())
    verdict = _verdict(scores[0], why)
    return CheckResult(
        "stability",
        scores,
        verdict,
        _sentence(scores, verdict, why),
        curves=_curves(moved, augmentations, clusters),
        excluded=excluded(why),
        details=_details(moved, found, flips, flips_of_noise, augmentations),
    )


Table = dict[str, dict[str, Tensor]]  # kind of map, "" for the method's own -> number -> (augmentations, N)


def _check(model: VisionModel, images: Tensor, augmentations: Sequence[str], radius: float, samples: int) -> None:
    if isinstance(augmentations, str) or not augmentations:
        raise UsageError(f"augmentations is a list of some of {', '.join(ALL)}; got {augmentations!r}.")
    for name in augmentations:
        known_name("augmentation", name, AUGMENTATIONS)
        if name in MOVES and images.ndim != 4:
            fit = tuple(one for one in ALL if one not in MOVES)
            raise UsageError(f"{name} moves pictures (N, C, H, W); got {tuple(images.shape)}: augmentations={fit}.")
    real_number("radius", radius, at_least=0, above=True)
    whole_number("samples", samples, at_least=1)
    if model.bounds is None:
        raise RefusalError(
            "small changes are stated in pixel space [0, 1], and this network's pixel bounds are unknown: wrap it with "
            "sw.wrap(module, mean=..., std=...)."
        )


def _of_augmentations(
    model: VisionModel,
    images: Tensor,
    maps: MapFunction,
    found: Maps,
    clean: Mapping[str, Tensor],
    augmentations: Sequence[str],
    seed: int,
) -> tuple[Table, Tensor, Tensor]:
    """What is left of the maps in augmented copies, the null's values, and where the prediction changes: (A, N) bool."""
    parts: list[dict[str, tuple[Tensor, Tensor]]] = []
    flips, null = [], []
    for name in augmentations:
        copies = _augmented(images, name, seed)
        again = maps(model, copies, found.target)
        flips.append(_flipped(found, again, model.task))
        part = {}
        for kind, drawn in _drawn(again, copies, _has_numbers(again), seed).items():
            table, distance = _compared(clean[kind], drawn, name, images.shape[2:])
            table[:, flips[-1]] = torch.nan
            part[kind] = (table.diagonal(), torch.where(flips[-1], torch.nan, distance))
            if not kind:
                null.append(table[~torch.eye(len(table), dtype=torch.bool)])
        parts.append(part)
    moved = {
        kind: {
            "spearman": torch.stack([part[kind][0] for part in parts]),
            "relative_l2": torch.stack([part[kind][1] for part in parts]),
        }
        for kind in clean
    }
    return moved, torch.cat(null), torch.stack(flips)


def _of_noise(
    model: VisionModel,
    images: Tensor,
    maps: MapFunction,
    found: Maps,
    clean: Mapping[str, Tensor],
    radius: float,
    samples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Number -> kind of map -> its largest value (N,), NaN where every prediction changes; and these changes (S, N)."""
    none = torch.full((len(images),), torch.nan, dtype=torch.float64)
    worst = {name: dict.fromkeys(clean, none) for name in ("max_sensitivity", "local_lipschitz")}
    flips = []
    for k in range(samples):
        noise = [2 * torch.rand(x.shape, generator=image_generator(x, seed + 1 + k)) - 1 for x in images]
        copies = (images + radius * torch.stack(noise).to(images)).clamp(0, 1)
        again = maps(model, copies, found.target)
        flips.append(_flipped(found, again, model.task))
        distance = torch.linalg.vector_norm((copies.double() - images.double()).flatten(1), dim=1).cpu()
        for kind, drawn in _drawn(again, copies, _has_numbers(again), seed).items():
            change = torch.where(flips[-1], torch.nan, _relative(clean[kind].flatten(1), drawn.flatten(1)))
            for name, value in (("max_sensitivity", change), ("local_lipschitz", change / distance)):
                worst[name][kind] = torch.fmax(worst[name][kind], value)
    return worst, torch.stack(flips)


def _drawn(found: Maps, images: Tensor, usable: Tensor, seed: int) -> dict[str, Tensor]:
    """The maps of these images, and the controls', (N, *grid) float64 each; NaN where there is none of the method's own."""
    every = {"": found.raw.detach(), "random_map": random_maps(images, seed), "edge_map": edge_maps(images)}
    return {
        kind: torch.where(usable.view(-1, *[1] * (raw.ndim - 1)), raw.double().cpu(), torch.nan)
        for kind, raw in every.items()
    }


def _has_numbers(found: Maps) -> Tensor:
    return torch.tensor([why in ("", "zero", "constant") for why in why_unusable(found)])


def _flipped(before: Maps, after: Maps, task: Task) -> Tensor:
    """(N,): whether the network now predicts something else; False where it predicts no class."""
    if before.outputs is None or after.outputs is None or (before.outputs.shape[1] == 1 and task != "binary"):
        return torch.zeros(len(before.raw), dtype=torch.bool)
    said = [o[:, 0] > 0 if o.shape[1] == 1 else o.argmax(1) for o in (before.outputs, after.outputs)]
    return (said[0] != said[1]).cpu()


def _augmented(images: Tensor, name: str, seed: int) -> Tensor:
    """Slightly changed copies, in [0, 1]; noise from `seed` and each image's own bytes."""
    if name in MOVES:
        return _moved(images.double(), *MOVES[name]).to(images)
    if name == "brightness":
        return FACTOR * images
    if name == "contrast":
        mean = images.mean(tuple(range(2, images.ndim)), keepdim=True)
        return mean + FACTOR * (images - mean)
    noise = torch.stack([torch.randn(x.shape, generator=image_generator(x, seed)) for x in images])
    return (images + NOISE * noise.to(images)).clamp(0, 1)


def _sources(size: Sequence[int], degrees: float, down: float, right: float) -> Tensor:
    """Where every pixel of a picture comes from that is moved and turned about its center: (H, W, 2), x and y, -1 to 1."""
    y, x = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2 for length in size)
    y, x = (y - down)[:, None], (x - right)[None]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack([(cos * x + sin * y) * 2 / size[1], (cos * y - sin * x) * 2 / size[0]], -1)


def _moved(pictures: Tensor, degrees: float, down: float, right: float) -> Tensor:
    """Pictures (N, C, H, W) moved and turned; what comes from outside repeats the border."""
    sources = _sources(pictures.shape[2:], degrees, down, right).to(pictures)
    grid = sources.expand(len(pictures), -1, -1, -1)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _compared(clean: Tensor, copy: Tensor, name: str, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Signed Spearman of every clean map with every moved-back one (N, N), and the relative distance of each pair (N,)."""
    before, after = (resize(maps, tuple(size)) for maps in (clean, copy))
    if name in MOVES:
        back = [-value for value in MOVES[name]]
        after = _moved(after[:, None], *back)[:, 0]
        most = 1 - 1 / torch.tensor([size[1], size[0]], dtype=torch.float64)  # the centers of the outermost pixels
        inside = (_sources(size, *back).abs() <= most + 1e-9).all(-1)
        before, after = before[:, inside], after[:, inside]
    before, after = before.flatten(1), after.flatten(1)
    return rank_correlation_table(before, after), _relative(before, after)


def _relative(before: Tensor, after: Tensor) -> Tensor:
    """|after - before| / |before| of (N, P): (N,)."""
    changed: Tensor = torch.linalg.vector_norm(after - before, dim=1)
    own: Tensor = torch.linalg.vector_norm(before, dim=1)
    return changed / own


def _score(name: str, values: Mapping[str, Tensor], null: Null, clusters: Sequence[object] | None) -> Score:
    higher = name == "spearman"
    unit = {
        "spearman": "signed rank correlation with the clean map",
        "relative_l2": "share of the clean map's norm",
        "max_sensitivity": "share of the clean map's norm",
        "local_lipschitz": "share of the clean map's norm per unit of pixel distance",
        "prediction_flips": "share of the changed copies",
    }[name]
    controls = {kind: numbers for kind, numbers in values.items() if kind}
    direction: Direction = "higher" if higher else "lower"
    return score(name, values[""], direction, unit, controls=controls, null=null if higher else None, clusters=clusters)


def _verdict(spearman: Score, why: Sequence[str]) -> Verdict:
    found, null = spearman.interval, spearman.null
    if sum(map(bool, why)) > MOST_EXCLUDED * len(why):
        return Verdict.NOT_VALID
    if null is None or not null.n or math.isnan(found.low):
        return Verdict.NONE
    return Verdict.PASS if found.low > null.high else Verdict.FAIL if found.high <= null.high else Verdict.UNCLEAR


def _sentence(scores: Sequence[Score], verdict: Verdict, why: Sequence[str]) -> str:
    spearman = scores[0]
    if verdict is Verdict.NOT_VALID:
        reasons = ", ".join(dict.fromkeys(filter(None, why)))
        return f"{sum(map(bool, why))} of {len(why)} images could not be scored ({reasons})."
    edge = spearman.controls["edge_map"].value
    others = (
        f"maps of other images agree with at most {spearman.null.high:.2g} (97.5 % of {spearman.null.n} pairs)"
        if spearman.null is not None and spearman.null.n
        else "there are no other images to compare with"
    )
    return (
        f"Of slightly changed pictures the maps agree with the clean ones with a rank correlation of "
        f"{str(spearman.interval).partition(' (n')[0]}; {others}, an edge map with {edge:.2g}. Stability says nothing of "
        "faithfulness."
    )


def _curves(moved: Table, augmentations: Sequence[str], clusters: Sequence[object] | None) -> tuple[Curve, ...]:
    return tuple(
        Curve(
            f"{number} {kind}".strip(),
            "augmentation",
            tuple(augmentations),
            number,
            tuple(interval(row, clusters) for row in table[number]),
            control=bool(kind),
        )
        for number in ("spearman", "relative_l2")
        for kind, table in moved.items()
    )


def _details(
    moved: Table, found: Maps, flips: Tensor, flips_of_noise: Tensor, augmentations: Sequence[str]
) -> dict[str, Any]:
    """What was done, and which copies were left out."""
    known = torch.tensor([not why for why in why_unusable(found)])
    compared = ~moved[""]["spearman"].isnan()
    return {
        "augmentations": {name: AUGMENTATIONS[name] for name in augmentations},
        "maps_per_image": 1 + len(flips) + len(flips_of_noise),
        "prediction_changes": {name: int(row.sum()) for name, row in zip(augmentations, flips, strict=True)},
        "prediction_changes_in_noise": int(flips_of_noise.sum()),
        "predictions_compared": found.outputs is not None,
        "copies_without_rank": int((known & ~flips & ~compared).sum()),
    }

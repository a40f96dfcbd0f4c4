"""Whether the map of each class points at its own picture, where pictures of several classes stand side by side."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Score, Verdict, check, excluded, score
from seewhy.controls import edge_maps, random_maps
from seewhy.errors import RefusalError, UsageError, first_line, whole_number
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.registry import Facts
from seewhy.target import Target, probabilities

ROUNDING = 1e-5  # of a share of 1: what the house promises of one picture in two rows of a batch
LEAST_MOSAICS = 6  # of fewer, all lie on one side of chance by luck more often than in 2.5 %: 1/2^6 is 1.6 %
NO_PLACE = "no mosaic of different classes is left for it"
NOT_BY_CELLS = "in its mosaic the network does not draw on the cell of each class most"
NO_MASS = "a map of its mosaic has no positive value"


@check(
    title="Grid pointing game",
    question="does the map of each class point at its own picture in a mosaic?",
    cost="one map and cells^2 forward rows an image, all but one of these of mosaics of cells x cells images",
    rows=lambda facts: _rows(facts),
    paper="Boehle et al. 2021, arXiv:2104.00032",
)
def grid_pointing(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    cells: int = 2,
    seed: int = 0,
) -> CheckResult:
    """What share of the map of a class lies on its own picture, in a mosaic of pictures of different classes.

    cells x cells images (N, C, H, W) of different classes (asked, or predicted on the image alone) make one picture
    (C, cells H, cells W), each image in at most one, those with the highest probability of their class first. The map is
    asked for each class of a mosaic; share_in_cell = its positive values in the cell of that class / all its positive
    values, in [0, 1], at the map's own resolution (what lies on a border counts by area). Chance is 1 / cells^2: a map
    that does not depend on the class, such as random and edge map, has exactly that in every mosaic.

    That the right cell is right is tested on the network, not read from its name: every image of a mosaic is exchanged
    for each of the others, and the score of its class must fall more, on average, than when another image is
    (`drawn_on`, share of the cells; by chance 1 / cells^2). Where networks end in global average pooling, that is the
    image which alone scores that class highest. A mosaic counts where it holds for all its cells, and all its maps have a
    positive value; the others are left out whole, and counted. As methods choose a layer for each input size, it is said
    in details which one that was; name one to question that one.

    PASS where the 95 % interval over mosaics lies above chance, FAIL where all of it lies at or below, else unclear; no
    verdict below 6 mosaics (24 images of 2 x 2): fewer lie on one side by luck. Not valid where more than 10 % of the
    mosaics have a map that cannot be scored. A pass says that classes are told apart, not that the pixels are right.
    From the paper: different classes, sorted by confidence, the share of the positive values. Ours: predicted classes in
    place of labels, the test of the network, the interval and the verdict.
    RefusalError where the network does not take that size, has no classes, answers no mosaic by its cells, or no mosaic
    can be made; UsageError for cells < 2, a seed below 0, a class that the network does not have.
    """
    whole_number("cells", cells, at_least=2)
    whole_number("seed", seed, at_least=0)
    classes, confidence = _classes(model, images, target)
    members = _mosaics(classes, confidence, cells)
    asked = classes[members]
    drawn_on = _drawn_on(model, images, members, asked, cells)
    sound = drawn_on.all(1)
    if not bool(sound.any()):
        raise RefusalError(
            f"none of {len(members)} mosaics is answered by its cells: the score of a class hangs most on its own picture in "
            f"{int(drawn_on.sum())} of {drawn_on.numel()} cells, 1 in {cells**2} by chance. This test needs a network that "
            "answers at any size what it sees anywhere, as with global average pooling, and images that it tells apart."
        )
    pictures = _side_by_side(images[members], cells)
    found = maps(model, pictures.repeat_interleave(cells**2, 0), _question(target, asked))
    why = _why(found)
    scored = sound & torch.tensor([not reason for reason in why]).view_as(drawn_on).all(1)
    blind = {"random_map": random_maps(pictures, seed), "edge_map": edge_maps(pictures)}
    shares = {name: _shares(raw.repeat_interleave(cells**2, 0), cells) for name, raw in blind.items()}
    shares[""] = _shares(found.raw, cells)
    scores = _scores(shares, drawn_on, scored, members, len(images), cells)
    verdict = _verdict(scores[0], int(sound.sum()), int(scored.sum()), cells)
    return CheckResult(
        "grid_pointing",
        scores,
        verdict,
        _sentence(scores[0], verdict, len(members), int(sound.sum()), int(scored.sum()), cells),
        excluded=_excluded(members, sound, scored, why, confidence),
        details={
            "mosaics": members.tolist(),
            "classes": asked.tolist(),
            "scored": scored.tolist(),
            "size": list(pictures.shape[2:]),
            "layer": None if found.layer is None else found.layer.name,
        },
    )


def _classes(model: VisionModel, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Per image the class that is asked for, and its probability (N,), NaN where the network gives none."""
    if images.ndim != 4:
        raise RefusalError(f"a mosaic is made of pictures (N, C, H, W); these are {tuple(images.shape)}.")
    if target.kind not in ("predicted", "index") or target.beside is not None:
        raise RefusalError(
            f"a mosaic is asked for classes; here the question is {target.text(0, model.labels)!r}"
            f"{', with more inputs beside the image' if target.beside is not None else ''}. Ask for classes, or nothing."
        )
    p = probabilities(model.predict(images), model.task)
    if p is None:
        raise RefusalError(f"a mosaic is asked for classes, and this network's task is {model.task!r}.")
    p = p.double().cpu()
    replace(target, task="multiclass").check(len(p), p.shape)
    rows = torch.arange(len(p))
    classes = p.argmax(1) if target.kind == "predicted" else target.at(target.index, rows).cpu().expand(len(p))
    return classes, p[rows, classes]


def _mosaics(classes: Tensor, confidence: Tensor, cells: int) -> Tensor:
    """Images of each mosaic (M, cells^2): different classes, the highest probability first, each image once."""
    size = cells**2
    left = [i for i in confidence.argsort(descending=True, stable=True).tolist() if bool(confidence[i].isfinite())]
    kinds: list[int] = classes.tolist()
    found: list[list[int]] = []
    while True:
        first: dict[int, int] = {}  # class -> the surest image of it that is left
        for i in left:
            first.setdefault(kinds[i], i)
        if len(first) < size:
            break
        found.append(list(first.values())[:size])
        left = [i for i in left if i not in found[-1]]
    if not found:
        raise RefusalError(
            f"a mosaic takes {size} images of different classes; {len(kinds)} given, classes among them: {len(first)}. Give "
            f"images of more classes{', or cells=2' if cells > 2 and len(first) >= 4 else ''}."
        )
    return torch.tensor(found)


def _side_by_side(parts: Tensor, cells: int) -> Tensor:
    """Mosaics (M, C, cells H, cells W) of images (M, cells^2, C, H, W), row by row."""
    m, _, channels, height, width = parts.shape
    squares = parts.reshape(m, cells, cells, channels, height, width)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(m, channels, cells * height, cells * width)


def _drawn_on(model: VisionModel, images: Tensor, members: Tensor, asked: Tensor, cells: int) -> Tensor:
    """Whether the score of each class falls most where its own image is exchanged for the others: (M, cells^2) bool."""
    m, size = members.shape
    place = torch.arange(size)
    # the place whose image is shown at `cell` where `away` is exchanged for the image `ahead` places further on
    away, ahead, cell = torch.meshgrid(place, place[1:], place, indexing="ij")
    shown = torch.where(away == cell, (cell + ahead) % size, cell).reshape(-1, size)
    table = []
    for mosaic in members:
        try:
            table.append(model.predict(_side_by_side(images[mosaic[shown]], cells)))
        except UsageError as error:
            height, width = (cells * side for side in images.shape[2:])
            raise RefusalError(
                f"the network does not take a mosaic of {height} x {width} pixels: {first_line(error)}. This test needs one "
                "that takes any size, as with global average pooling."
            ) from error
    said = torch.stack(table).double().cpu()
    classes = model.output_shape(images.shape[1:])[1]
    if said.ndim != 3 or said.shape[2] != classes:
        raise RefusalError(
            f"the network's answer to a mosaic is {tuple(said.shape[2:])} a picture, not {classes} class scores."
        )
    said = said.view(m, size, size - 1, -1).mean(2)  # (mosaic, cell that is away, class)
    left = said.gather(2, asked[:, None, :].expand(m, size, size))  # (mosaic, cell that is away, asked class)
    own, itself = left.diagonal(dim1=1, dim2=2), torch.eye(size, dtype=torch.bool)
    return own < left.masked_fill(itself, math.inf).amin(1)


def _question(target: Target, asked: Tensor) -> Target:
    """The same question for each class of each mosaic."""
    return replace(target, kind="index", index=asked.flatten())


def _why(found: Maps) -> list[str]:
    """Per map why it has no share anywhere, "" where it has."""
    positive = (found.raw.flatten(1) > 0).any(1).tolist()
    return [why or ("" if some else NO_MASS) for why, some in zip(why_unusable(found), positive, strict=True)]


def _shares(raw: Tensor, cells: int) -> Tensor:
    """Share of the positive values of map r (R, h, w) in cell r % cells^2, by area: (mosaics, cells^2), NaN without any."""
    down, across = (_overlap(length, cells) for length in raw.shape[1:])
    mass = (down @ raw.detach().cpu().double().clamp_min(0) @ across.T).flatten(1)
    own = torch.arange(len(raw)) % cells**2
    return (mass[torch.arange(len(raw)), own] / mass.sum(1)).view(-1, cells**2)


def _overlap(length: int, cells: int) -> Tensor:
    """What share of each of `length` values along an axis lies in each cell: (cells, length)."""
    edges = torch.arange(length + 1, dtype=torch.float64) * cells / length
    start = torch.arange(cells, dtype=torch.float64)[:, None]
    inside = torch.minimum(edges[1:], start + 1) - torch.maximum(edges[:-1], start)
    return inside.clamp_min(0) * length / cells


def _scores(
    shares: dict[str, Tensor], drawn_on: Tensor, scored: Tensor, members: Tensor, n: int, cells: int
) -> tuple[Score, ...]:
    """Values per image; the interval is over mosaics, whose cells are not independent."""
    mosaic = torch.full((n,), -1)
    mosaic[members] = torch.arange(len(members))[:, None].expand_as(members)

    def of_images(values: Tensor, known: Tensor) -> Tensor:
        spread = torch.full((n,), math.nan, dtype=torch.float64)
        spread[members[known]] = values.double()[known]
        return spread

    beside = {name: of_images(values, scored) for name, values in shares.items()}
    own = beside.pop("")
    beside["chance"] = torch.where(own.isnan(), math.nan, 1 / cells**2)
    right = of_images(drawn_on, torch.ones_like(scored))
    by_chance = {"chance": torch.where(right.isnan(), math.nan, 1 / cells**2)}
    clusters = mosaic.tolist()
    return (
        score("share_in_cell", own, "higher", "share of the positive values", controls=beside, clusters=clusters),
        score("drawn_on", right, "neither", "share of the cells", controls=by_chance, clusters=clusters),
    )


def _verdict(main: Score, sound: int, scored: int, cells: int) -> Verdict:
    if sound - scored > MOST_EXCLUDED * sound:
        return Verdict.NOT_VALID
    if scored < LEAST_MOSAICS:
        return Verdict.NONE
    low, high = main.interval.low - 1 / cells**2, main.interval.high - 1 / cells**2
    return Verdict.PASS if low > ROUNDING else Verdict.FAIL if high <= ROUNDING else Verdict.UNCLEAR


def _sentence(main: Score, verdict: Verdict, made: int, sound: int, scored: int, cells: int) -> str:
    if verdict is Verdict.NOT_VALID:
        return f"{sound - scored} of {sound} mosaics have a map that could not be scored."
    few = f"; {LEAST_MOSAICS} mosaics are needed to judge" if verdict is Verdict.NONE else ""
    out = f" {made - sound} more were left out, as the network draws on other cells there." if made > sound else ""
    return (
        f"In {scored} mosaics of {cells} x {cells} pictures of different classes, {main.interval} of the map of a class lies "
        f"on its own picture, {1 / cells**2:.3g} by chance{few}.{out}"
    )


def _excluded(members: Tensor, sound: Tensor, scored: Tensor, why: Sequence[str], confidence: Tensor) -> dict[int, str]:
    """Every image that no score is of, with the reason; `why`: of each map, mosaic by mosaic."""
    size = members.shape[1]
    reasons = [
        NO_PLACE if math.isfinite(sure) else "the network's answer is not finite" for sure in confidence.tolist()
    ]
    for m, mosaic in enumerate(members.tolist()):
        lost = next((reason for reason in why[m * size : (m + 1) * size] if reason), "")
        for image in mosaic:
            reasons[image] = "" if scored[m] else (lost if sound[m] else NOT_BY_CELLS)
    return excluded(reasons)


def _rows(facts: Facts) -> tuple[int, int]:
    size = facts["cells"] ** 2
    placed = facts["n"] // size * size
    return placed, facts["n"] + placed * (size - 1)

"""Whether the network decides by shape or by texture where the two contradict each other."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seewhy.checks.result import MOST_EXCLUDED, CheckResult, Score, Verdict, check, score
from seewhy.errors import UsageError
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.target import Target, probabilities

# ImageNet indices (0-999, the usual order) of the 16 classes. Source: Geirhos et al. 2019, rgeirhos/texture-vs-shape ccd0c01,
# code/helper/human_categories.py; the indices agree with the WordNet ids that it gives, and with lite0's labels.
SIXTEEN_CLASSES = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385-386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}
ORDER = {
    281: "tabby",
    404: "airliner",
    499: "cleaver",
    766: "rotisserie",
}  # labels that tell the usual order from another
NO_CONFLICT = "shape and texture are the same class"


@check(
    title="Shape bias",
    question="does the network decide by shape or by texture where they contradict each other?",
    cost="one forward row an image",
    rows=lambda f: (0, f["n"]),
    paper="Geirhos et al. 2019, arXiv:1811.12231; code rgeirhos/texture-vs-shape ccd0c01",
    needs=("shapes", "textures"),
)
def shape_bias(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,  # noqa: ARG001  # of a check of the model, which no map enters
    *,
    shapes: Sequence[str],
    textures: Sequence[str],
    exemplars: Sequence[object] | None = None,
    mapping: Mapping[str, Sequence[int]] | None = None,
) -> CheckResult:
    """How often a network decides by shape, of the images that it decides by shape or by texture: a check of the model.

    images (N, C, H, W): the shape of one class with the texture of another, named in `shapes` and `textures`; no map is
    asked for. Decision: the class of `mapping` (name -> columns of the output) with the largest *mean* probability of its
    columns, as the authors recommend (the paper's own figures took another aggregation); equal ones: the first by name.
    Images whose shape and texture are one class are left out. Shape bias = shape / (shape + texture decisions), in [0, 1]:
    a network that guesses has 1/2, people have .96 on the published stimuli, an ImageNet ResNet-50 .22. The interval
    resamples texture exemplars (`exemplars`, one per image; without: texture classes): images of one texture are not
    independent, and single images would give half the width. Beside it, how many decisions were either of the two.

    mapping: without, the 16 classes of the paper in ImageNet's usual order. No verdict: what is right depends on the task.
    UsageError where the counts differ, a class is not in the mapping, a column not in the output, or the network is no
    classifier of ImageNet's 1,000 classes in that order and no mapping is given.
    """
    _check_counts(len(images), shapes=shapes, textures=textures, exemplars=exemplars)
    p = probabilities(model.predict(images, target.beside), model.task)
    if p is None:
        raise UsageError(f"shape bias is asked of a classifier; this network's task is {model.task!r}.")
    columns = _columns(mapping, p.shape[1], model.labels)
    unknown = sorted({*shapes, *textures} - set(columns))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no class of the mapping: {', '.join(columns)}.")
    decisions = decisions_of(p, columns)
    bias = shape_bias_from_decisions(decisions, shapes, textures, exemplars)
    excluded = {
        i: "not finite" if not decision else NO_CONFLICT
        for i, decision in enumerate(decisions)
        if not decision or shapes[i] == textures[i]
    }
    decided = [math.nan if i in excluded else float(not math.isnan(v)) for i, v in enumerate(bias.per_image)]
    clusters = list(textures if exemplars is None else exemplars)
    scores = (
        bias,
        score("either_cue", torch.tensor(decided), "neither", "share of images with a conflict", clusters=clusters),
    )
    shape, texture = bias.per_image.count(1.0), bias.per_image.count(0.0)
    broken = decisions.count("")
    return CheckResult(
        "shape_bias",
        scores,
        Verdict.NOT_VALID if broken > MOST_EXCLUDED * len(images) or not shape + texture else Verdict.NONE,
        f"Of {len(images) - len(excluded)} images with the shape of one class and the texture of another, {shape} were "
        f"decided by shape and {texture} by texture: shape bias {bias.interval}.",
        excluded=excluded,
        details={"decisions": decisions, "shape_decisions": shape, "texture_decisions": texture},
    )


def shape_bias_from_decisions(
    decisions: Sequence[str],
    shapes: Sequence[str],
    textures: Sequence[str],
    exemplars: Sequence[object] | None = None,
) -> Score:
    """Shape bias of decisions that were made already, one class name per image: a network's, or a person's.

    Per image 1 (shape), 0 (texture), or NaN: neither, or shape and texture are one class. exemplars: what texture each
    image has; the interval resamples them (without: texture classes). UsageError where the counts differ.
    """
    _check_counts(len(decisions), shapes=shapes, textures=textures, exemplars=exemplars)
    values = [
        math.nan if shape == texture or decision not in (shape, texture) else float(decision == shape)
        for decision, shape, texture in zip(decisions, shapes, textures, strict=True)
    ]
    clusters = list(textures if exemplars is None else exemplars)
    number = torch.tensor(values, dtype=torch.float64)
    return score("shape_bias", number, "neither", "share of the decisions for shape or texture", clusters=clusters)


def decisions_of(p: Tensor, columns: Mapping[str, Sequence[int]]) -> list[str]:
    """The class whose columns of p (N, outputs) have the largest mean, by name; "" where p is not finite."""
    names = sorted(columns)
    means = torch.stack([p[:, list(columns[name])].double().mean(1) for name in names], 1)
    finite = means.isfinite().all(1).tolist()
    return [names[k] if ok else "" for k, ok in zip(means.argmax(1).tolist(), finite, strict=True)]


def _columns(
    mapping: Mapping[str, Sequence[int]] | None, outputs: int, labels: Sequence[str] | None
) -> dict[str, list[int]]:
    if mapping is None:
        fix = 'give mapping={"cat": [3, 4], ...}, the columns of your output for each class.'
        if outputs != 1000:
            raise UsageError(
                f"the 16 classes are known for ImageNet's 1,000; this network has {outputs} classes: {fix}"
            )
        for k, name in ORDER.items():
            if labels is not None and name not in labels[k].lower():
                raise UsageError(f"class {k} is {name!r} in ImageNet's usual order, {labels[k]!r} here: {fix}")
        return {name: _indices(ranges) for name, ranges in SIXTEEN_CLASSES.items()}
    for name, given in mapping.items():
        if not given or not all(isinstance(k, int) and 0 <= k < outputs for k in given):
            raise UsageError(f"mapping[{name!r}] is {list(given)}: columns of the output, from 0 to {outputs - 1}.")
    return {name: list(given) for name, given in mapping.items()}


def _indices(ranges: str) -> list[int]:
    """The numbers of a text: 3 5-7 is [3, 5, 6, 7]."""
    ends = [part.split("-") for part in ranges.split()]
    return [k for part in ends for k in range(int(part[0]), int(part[-1]) + 1)]


def _check_counts(n: int, **given: Sequence[object] | None) -> None:
    for name, values in given.items():
        if values is not None and (isinstance(values, str) or len(values) != n):
            raise UsageError(f"{len(values)} {name} for {n} images: give one per image.")

"""explain(): one call from images to maps with their status and evidence."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import seewhy.methods  # noqa: F401  # fills the registry
from seewhy import capture
from seewhy.beside import check_beside
from seewhy.errors import RefusalError, UsageError
from seewhy.explanation.ending import scale_of
from seewhy.explanation.forecast import LayerChoice, rows_per_image
from seewhy.explanation.inputs import Images, Shown, read_inputs
from seewhy.explanation.precision import compare, few_digits
from seewhy.explanation.progress import drawn_progress
from seewhy.explanation.provenance import fingerprint_later, parameters_of, provenance_of
from seewhy.explanation.questions import ask, describe
from seewhy.explanation.result import Explanation, Status
from seewhy.explanation.validity import predictions_of, status_of, validity_of
from seewhy.maps import Maps
from seewhy.model import VisionModel
from seewhy.perturb import BASELINES
from seewhy.registry import METHODS, MethodInfo, check_parameters, find_method
from seewhy.target import Target, probabilities
from seewhy.wrapping import bare


def explain(
    model: VisionModel | nn.Module,
    images: Images,
    method: str | MethodInfo = "grad_cam",
    target: Any = None,
    layer: LayerChoice = None,
    seed: int = 0,
    beside: Mapping[str, Tensor] | None = None,
    **params: Any,
) -> Explanation:
    """Maps of some images under one method, with the evidence of how far each can be trusted.

    model: from `sw.load` or `sw.wrap`, or a bare nn.Module with a tensor in its own input space. images: a path, a PIL
    image, what `sw.read_photo` gives, a list of these, what `sw.read_volume` gives, or an (N, C, H, W) tensor in [0, 1].
    target: nothing (the predicted class), a class index or
    name, "a - b", one per image, a list of lists (several per image: one row each), a `sw.target`, or a function of the
    output. layer: for methods on a layer. beside: what the network is given beside the images, by the names of its
    forward, (N, ...) or one row for all, as it wants them; held fixed, the images go to its first other input. params: the
    method's own, checked before any work. method: a name from `sw.methods()`, or what `sw.from_captum` gives. On a
    terminal or in a notebook, long work draws its progress.

    Errors before any work: UsageError (what cannot be meant), ImageError (what cannot be read); RefusalError where no
    honest map exists. A row without a map says why in `status`.
    """
    info = find_method(method)
    check_call(info, target, layer, seed, params)
    model = model if isinstance(model, VisionModel) else bare(model)
    with torch.inference_mode(False):
        x, sources = read_inputs(model, images)
        if params.get("differentiable") and isinstance(images, Tensor) and images.requires_grad:
            x = images.float()  # the map's graph leads to the user's own tensor, not to a copy

        def rows() -> int:
            return sum(rows_per_image(model, info, x.shape[1:], target, layer, params)) * len(x)

        with drawn_progress(model, info.name, rows):
            return explain_rows(model, x, sources, info, target, layer, seed, params, beside)[0]


def explain_rows(
    model: VisionModel,
    x: Tensor,
    sources: list[Shown],
    info: MethodInfo,
    target: Any,
    layer: LayerChoice,
    seed: int,
    params: dict[str, Any],
    beside: Mapping[str, Tensor] | None = None,
) -> tuple[Explanation, Tensor, Target, Maps]:
    """explain() for images that are read already; with every row's image, question and map as the method had them."""
    keywords = check_call(info, target, layer, seed, where_black_is_a_value(info, sources, params))
    given = check_beside(model.module, beside, len(x))
    _check_integers(model, info)
    differentiable = bool(params.get("differentiable"))
    with torch.inference_mode(False), model.holding(given), model.guarded(seed) as version:
        index, question = ask(model, x, target, given)
        with torch.set_grad_enabled(differentiable):
            x_rows = x if index == list(range(len(x))) else x[index]
        begun = time.perf_counter()
        question = question.on(scale_of(model, x.shape[1:], question, info.scale))
        maps = maps_of(model, x_rows, question, info, keywords, seed)
        seconds = time.perf_counter() - begun
        status = status_of(info, maps)
        raw = _without_empty(maps.raw if differentiable else maps.raw.detach(), status)
        p = None if maps.outputs is None else probabilities(maps.outputs, model.task)
        agreement = None
        if few_digits(model, x.shape[1:]) is not None and info.family != "control":
            rows = sum(rows_per_image(model, info, x.shape[1:], target, layer, params))
            agreement = compare(model, info, x_rows, maps, keywords, rows)
        targets = [describe(maps.target, i, model.labels) for i in range(len(raw))]
        explanation = Explanation(
            method=info.name,
            parameters=parameters_of(info, {**keywords, **maps.parameters}),
            raw=raw.to(x.device),
            images=x.detach().to(x.device),
            image_index=index,
            targets=targets,
            target_text=[described["text"] for described in targets],
            scores=maps.values.to(x.device),
            predictions=predictions_of(model, p, len(raw)),
            status=status,
            evidence={name: values.detach().to(x.device) for name, values in maps.evidence.items()},
            validity=validity_of(model, info, x.shape[1:], maps, p, agreement),
            layer=maps.layer.name if maps.layer else None,
            sources=sources,
            seconds=seconds,
            provenance=provenance_of(model, seed, x.shape[1:], len(raw)),
            fingerprint=fingerprint_later(model, version),
        )
        return explanation, x_rows, question, maps


def where_black_is_a_value(info: MethodInfo, sources: Sequence[Shown], params: dict[str, Any]) -> dict[str, Any]:
    """A method whose baseline is black by default begins at a blur in a CT: air is black there, and is evidence."""
    known = sorted({source.modality for source in sources if source.modality})
    if not known or "baseline" in params or info.parameters.get("baseline") != "black":
        return params
    reason = f"{', '.join(known)}: black is a value like any other there; {BASELINES['blur']}"
    stated = {"baseline_reason": reason} if "baseline_reason" in info.parameters else {}
    return {"baseline": "blur", **stated, **params}


def _without_empty(raw: Tensor, status: Sequence[Status]) -> Tensor:
    """The maps with 0 where there is none."""
    empty = [i for i, s in enumerate(status) if s not in (Status.OK, Status.ALL_NEGATIVE)]
    return raw.index_fill(0, torch.tensor(empty, device=raw.device), 0) if empty else raw


def check_call(info: MethodInfo, target: Any, layer: Any, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """The method's keyword arguments; UsageError, before any work, for what it does not take."""
    check_parameters(info, params)
    if info.class_agnostic and target is not None and not params.get("ignore_target"):
        raise UsageError(
            f"{info.title} gives the same map for every class: it cannot say why {target!r}. Leave the target out, or say "
            "that you know: ignore_target=True. Methods that use the class: grad_cam, integrated_gradients, ..."
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UsageError(f"seed is a whole number from 0 to 2**31 - 1; got {seed!r}.")
    keywords = dict(params)
    if info.seeded:
        keywords["seed"] = seed
    if layer is not None:
        if "layer" not in info.parameters:
            raise UsageError(f"method {info.name!r} explains the input: it takes no layer.")
        keywords["layer"] = layer
    return keywords


def _check_integers(model: VisionModel, info: MethodInfo) -> None:
    """RefusalError, before any work, for a method that looks into a network that computes with integers."""
    found = [] if info.black_box else capture.integer_modules(model.module)
    if found:
        others = ", ".join(m.name for m in METHODS.values() if m.black_box and m.family != "control")
        raise RefusalError(
            f"this network computes with quantized integers at {', '.join(found[:3])}: no derivative exists there, and "
            f"{info.name} is refused. Methods that only ask what the network says work: {others}."
        )


def maps_of(
    model: VisionModel, x: Tensor, question: Target, info: MethodInfo, keywords: Mapping[str, Any], seed: int
) -> Maps:
    """The method's maps of a question per image, on its own scale where the question names none, and the rows they cost.

    Where it is known that there is nothing to explain, the method is not run.
    """
    question = question.on(scale_of(model, x.shape[1:], question, info.scale))
    with capture.random_states(seed):  # whatever was drawn until here, on a first call more than on a later one
        return _run(model, x, question, info, keywords)


def _run(model: VisionModel, x: Tensor, question: Target, info: MethodInfo, keywords: Mapping[str, Any]) -> Maps:
    before, found = (model.forward_rows, model.gradient_rows), question.found
    if found is None or bool(found.all()):
        maps: Maps = info.function(model, x, question, **keywords)
        return replace(maps, evidence=_evidence(model, maps, before))
    asked = found.nonzero().flatten().cpu()
    if not len(asked):
        none = torch.zeros(len(x), dtype=torch.long)
        rows = {"forward_rows": none, "gradient_rows": none}
        return Maps(torch.zeros(len(x), *x.shape[2:]), question, torch.zeros(len(x)), None, rows)
    maps = info.function(model, x[asked], question.select(asked), **keywords)

    def spread(values: Tensor, fill: float | None = None) -> Tensor:
        fill = {torch.bool: True, torch.long: 0}.get(values.dtype, math.nan) if fill is None else fill
        whole = values.new_full((len(x), *values.shape[1:]), fill)
        whole[asked.to(values.device)] = values
        return whole

    evidence = {name: spread(values) for name, values in _evidence(model, maps, before).items()}
    outputs = None if maps.outputs is None else spread(maps.outputs)
    raw, values = spread(maps.raw.detach(), 0), spread(maps.values, 0)
    return replace(maps, raw=raw, target=question, values=values, outputs=outputs, evidence=evidence)


def _evidence(model: VisionModel, maps: Maps, before: tuple[int, int]) -> dict[str, Tensor]:
    """The method's own numbers, and the rows that the model counted (per image; an adaptive method knows its own)."""
    evidence = dict(maps.evidence)
    counted = (model.forward_rows - before[0], model.gradient_rows - before[1])
    for name, rows in zip(("forward_rows", "gradient_rows"), counted, strict=True):
        if name in evidence:
            assert int(evidence[name].sum()) == rows, f"a method misreports its {name}"
        else:
            evidence[name] = torch.full((len(maps.raw),), rows // len(maps.raw))
    return evidence

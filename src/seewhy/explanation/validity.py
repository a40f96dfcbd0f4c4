"""What became of each row, and what can differ in a map that we do give."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.explanation.ending import logits_in_words, warnings_of
from seewhy.explanation.precision import Agreement, few_digits
from seewhy.explanation.result import Status
from seewhy.maps import Maps, is_constant
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo

TOP = 5  # predictions kept per row


def status_of(info: MethodInfo, maps: Maps) -> list[Status]:
    """What became of every row."""
    flat, slope = maps.raw.flatten(1), maps.evidence.get("gradient_norm")
    low, high = flat.amin(1), flat.amax(1)  # NaN and infinity show in them
    finite = (low.isfinite() & high.isfinite() & maps.values.isfinite()).tolist()
    flat_map = is_constant(maps.raw).tolist()
    dead = (slope == 0).tolist() if info.needs_gradients and slope is not None else [False] * len(flat)
    negative = (high <= 0).tolist() if info.picture == "positive" else [False] * len(flat)
    there = [True] * len(flat) if maps.target.found is None else maps.target.found.tolist()
    found = []
    for is_there, is_finite, is_dead, is_flat, is_negative in zip(there, finite, dead, flat_map, negative, strict=True):
        if not is_there:
            found.append(Status.NO_DETECTION)
        elif not is_finite:
            found.append(Status.NON_FINITE)
        elif is_dead:
            found.append(Status.ZERO_GRADIENT)
        elif is_flat:
            found.append(Status.CONSTANT)
        else:
            found.append(Status.ALL_NEGATIVE if is_negative else Status.OK)
    return found


def validity_of(
    model: VisionModel,
    info: MethodInfo,
    shape: Sequence[int],
    maps: Maps,
    p: Tensor | None,
    agreement: Agreement | None,
) -> dict[str, Any]:
    """What can differ in a map that we do give, each with its reason."""
    reading = model.reading(shape)
    approximations, ending = [*maps.notes], reading.ending
    if reading.alone:
        approximations.append("run one image at a time: the others of a batch would change what it says of each")
    if maps.layer is not None and maps.layer.trunk is False:
        approximations.append(f"layer {maps.layer.name}: part of what the network says bypasses it")
    if maps.layer is not None and maps.layer.in_place is False:
        approximations.append(f"layer {maps.layer.name}: no experiment showed that its cells look at their place")
    if "sampling_error" in maps.evidence:
        approximations.append("a Monte Carlo mean: another seed gives a map that differs by about sampling_error")
    if "converged" in maps.evidence and not bool(maps.evidence["converged"].all()):
        approximations.append("the path integral of at least one row is not converged: see its evidence")
    digits = few_digits(model, shape)
    precision = str(digits or model.dtype or torch.float32).removeprefix("torch.")
    if info.uses_target and not info.needs_gradients and digits is not None:
        lost = f"{100 * torch.finfo(digits).eps:.1g} %"
        approximations.append(f"scores have few digits in {precision}: differences below {lost} of a score are lost")
    slope = maps.evidence.get("gradient_norm")
    found = {
        "target_used": info.uses_target,
        "target_used_reason": _why_no_target(info),
        "warning": "; ".join(filter(None, [info.warning, *warnings_of(model, ending, maps, p)])),
        "precision": precision,
        "logits": logits_in_words(ending),
        "approximations": approximations,
        "gradient_norm": _finite(slope, len(maps.raw)),
        "probability": _finite(_target_probability(maps, p), len(maps.raw)),
    }
    if agreement is not None:
        approximations.append(agreement.words)
        found["float32_rank_correlation"] = agreement.correlation
    return found


def _why_no_target(info: MethodInfo) -> str:
    if info.uses_target:
        return ""
    kind = "class-agnostic" if info.class_agnostic else "a control"
    return f"{kind}: the same map whatever is asked"


def _finite(values: Tensor | None, n: int) -> list[float | None]:
    """Numbers as JSON has them: None where there is none."""
    return [None] * n if values is None else [v if math.isfinite(v) else None for v in values.tolist()]


def _target_probability(maps: Maps, p: Tensor | None) -> Tensor | None:
    """Probability of the explained class on the clean image; None where the target is no class."""
    if p is None or maps.target.index is None or maps.target.kind not in ("index", "margin"):
        return None
    rows = torch.arange(len(p), device=p.device)
    return p[rows, maps.target.at(maps.target.index, rows)]


def predictions_of(model: VisionModel, p: Tensor | None, n: int) -> list[list[dict[str, Any]]]:
    """The most probable classes of every row; none where the network is no classifier."""
    if p is None:
        return [[] for _ in range(n)]
    values, places = p.topk(min(TOP, p.shape[1]))
    names = model.labels
    if names is not None and len(names) != p.shape[1]:  # one logit with the name of its one class
        names = [f"not {names[0]}", names[0]]
    finite = p.isfinite().all(1).tolist()
    return [
        [
            {"index": k, "label": names[k] if names else f"class {k}", "probability": value}
            for k, value in zip(ks, row, strict=True)
        ]
        if whole
        else []
        for ks, row, whole in zip(places.tolist(), values.tolist(), finite, strict=True)
    ]

"""What a card needs and what it will cost, before it is begun: rows from what methods and checks declare."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from seewhy.errors import UsageError
from seewhy.explanation import rows_per_image
from seewhy.forms import probe_images
from seewhy.model import VisionModel
from seewhy.randomization import stages_of
from seewhy.registry import CHECKS, MethodInfo
from seewhy.target import stand_in
from seewhy.trust.binding import NEED_OTHERS, Bound, given_to

COSTLY = 20  # rows of a map, from which on the checks that ask for many maps look at fewer images
FEW = {  # the fewest whose nulls have 200 pairs
    "model_randomization": 9,
    "class_discrimination": 8,
    "stability": 7,
    "manipulation": 9,
    "grid_pointing": 24,  # for 6 mosaics, the fewest with a verdict
    "cost": 2,  # without a null
}


def forecast_checks(
    model: VisionModel,
    info: MethodInfo,
    params: Mapping[str, Any],
    shape: Sequence[int],
    images: int,
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[int, int]:
    """(forward, gradient) rows at most of these checks of a method on so many images of shape (C, *axes).

    UsageError for a check without what it needs.
    """
    check_needs(names, settings)
    forward, gradient = rows_per_image(model, info, shape, None, None, dict(params))
    maps, more, more_gradient, stages = images, 0, 0, 0
    if "model_randomization" in names and not isinstance(model.module, torch.jit.ScriptModule):
        stages = len(stages_of(model, probe_images(shape)[:1], stand_in(model.task)))
    for name in names:
        if name in CHECKS:
            n = min(images, FEW.get(name, images)) if forward + gradient > COSTLY else images
            given = {**CHECKS[name].parameters, **settings.get(name, {})}
            declared = CHECKS[name].rows({**given, "n": n, "stages": stages, "axes": tuple(shape[1:])})
            maps, more = maps + declared[0], more + declared[1]
    for name in NEED_OTHERS:
        others = {**given_to(name, info), **settings.get(name, {})}["others"] if name in names else {}
        for other in others.values():
            if isinstance(other, Bound):
                rows = rows_per_image(model, other.info, shape, None, None, dict(other.keywords))
                more, more_gradient = more + images * rows[0], more_gradient + images * rows[1]
    return forward * maps + more, gradient * maps + more_gradient


def check_needs(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """UsageError, before any work, for a check that was asked for without what it needs."""
    for name in names:
        if name in CHECKS:
            missing = [p for p, default in CHECKS[name].parameters.items() if default is inspect.Parameter.empty]
            missing = [
                p for p in missing if p not in settings.get(name, {}) and not (name in NEED_OTHERS and p == "others")
            ]
            if missing:
                raise UsageError(
                    f"the check {name} needs {', '.join(missing)}: settings={{{name!r}: {{{missing[0]!r}: ...}}}}, on the "
                    "command line --training and --truth (roar, data_randomization)."
                )

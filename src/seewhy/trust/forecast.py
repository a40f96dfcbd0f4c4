"""What a card will cost, before it is begun: rows from what methods and checks declare, seconds from timed rows."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from seewhy.errors import SeewhyError
from seewhy.explanation import rows_per_image
from seewhy.forms import probe_images
from seewhy.model import VisionModel
from seewhy.randomization import stages_of
from seewhy.registry import CHECKS, MethodInfo
from seewhy.target import stand_in

COSTLY = 20  # rows of a map, from which on the checks that ask for many maps look at fewer images
FEW = {"model_randomization": 9, "class_discrimination": 9, "stability": 9, "cost": 2}  # 9: for nulls of 200 pairs


def forecast_checks(
    model: VisionModel,
    info: MethodInfo,
    params: Mapping[str, Any],
    shape: Sequence[int],
    images: int,
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[int, int]:
    """(forward, gradient) rows at most of these checks of a method on so many images of shape (C, *axes)."""
    forward, gradient = rows_per_image(model, info, shape, None, None, dict(params))
    maps, more, stages = images, 0, 0
    if "model_randomization" in names and not isinstance(model.module, torch.jit.ScriptModule):
        stages = len(stages_of(model, probe_images(shape)[:1], stand_in(model.task)))
    for name in names:
        if name in CHECKS:
            n = min(images, FEW.get(name, images)) if forward + gradient > COSTLY else images
            facts = {**CHECKS[name].parameters, **settings.get(name, {}), "n": n, "stages": stages}
            declared = CHECKS[name].rows(facts)
            maps, more = maps + declared[0], more + declared[1]
    return forward * maps + more, gradient * maps


def seconds_per_row(model: VisionModel, shape: Sequence[int]) -> tuple[float, float]:
    """Seconds of a forward and of a gradient row of this network on this machine, the second of two each."""
    x, rows = torch.full((1, *shape), 0.5), torch.zeros(1, dtype=torch.long, device=model.device)
    found = []
    for run in (model.answer, model.input_gradients):
        begun = time.perf_counter()
        for _ in range(2):  # the first one warms up
            begun = time.perf_counter()
            try:
                run(x, stand_in(model.task), rows)
            except SeewhyError:  # a network without a gradient: its methods are refused with the reason
                break
        found.append(time.perf_counter() - begun)
    return found[0], found[1]

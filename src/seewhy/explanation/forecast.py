"""What maps will cost, before they are begun: rows from what methods declare, seconds from timed rows."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.forms import probe_images
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, forecast
from seewhy.target import resolve, stand_in

TIMED = 4  # rows at once
LayerChoice = str | nn.Module | Sequence[str | nn.Module] | None


def rows_per_image(
    model: VisionModel, info: MethodInfo, shape: Sequence[int], target: Any, layer: LayerChoice, params: dict[str, Any]
) -> tuple[int, int]:
    """(forward, gradient) rows per image at most, as the method declares them for this network and these parameters."""
    facts: dict[str, Any] = {"axes": tuple(shape[1:])}
    several = isinstance(target, list | tuple)
    question = stand_in(model.task) if several else resolve(target, model.labels, model.task)
    if info.needs_attention:
        facts["blocks"] = model.attention(shape, question).calls
    if info.needs_channels:
        facts["channels"] = sum(found.channels for found in model.find_layers(layer, shape, question))
    return forecast(info, {**facts, **params})


def seconds_per_row(model: VisionModel, shape: Sequence[int], *, gradient: bool) -> float:
    """Seconds of a forward or of a gradient row of this network on this machine, in a small batch, the second of two."""
    n = model.rows_per_forward(TIMED, shape)
    x = probe_images(shape)[:1].repeat(n, *[1] * len(shape)).to(model.device)
    run = model.input_gradients if gradient else model.answer
    begun = time.perf_counter()
    for _ in range(2):  # the first one warms up
        begun = time.perf_counter()
        try:
            run(x, stand_in(model.task), torch.arange(n, device=model.device))
        except SeewhyError:  # a network without a gradient: its methods are refused with the reason
            break
    return (time.perf_counter() - begun) / n


def seconds_of(model: VisionModel, shape: Sequence[int], forward: int, gradient: int) -> float:
    """Seconds of so many forward and gradient rows; a kind that is not spent is not timed."""
    kinds = ((forward, False), (gradient, True))
    return sum(rows * seconds_per_row(model, shape, gradient=kind) for rows, kind in kinds if rows)

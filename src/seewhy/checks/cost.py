"""What a map costs on this hardware, against the forward that the network does anyway."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.capture import peak_memory
from seewhy.checks.result import CheckResult, Score, Verdict, check
from seewhy.errors import whole_number
from seewhy.intervals import RESAMPLES, SEED, Interval
from seewhy.maps import MapFunction, Maps
from seewhy.model import VisionModel
from seewhy.target import Target


@check(
    title="Cost",
    question="what does a map cost in time and memory, against a plain forward?",
    cost="`repeats` + 2 maps an image",
    rows=lambda f: (f["n"] * (f["repeats"] + 1), f["n"] * (f["repeats"] + 2)),
    paper="measured here; no paper",
)
def cost(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    repeats: int = 5,
    seed: int = 0,  # noqa: ARG001  # the decorator reads it
) -> CheckResult:
    """Seconds, memory and rows of a map, as multiples of a plain forward of the same images on this hardware.

    The method runs once to find its layers and batch size, which then stay; then `repeats` pairs of a plain forward and
    a map, the two taking turns to go first. time_ratio: median of the pairs' ratios, with a bootstrap interval of that
    median (2,000 resamples of pairs). Rows: what the model itself counted, so no method can misreport them. Memory: the
    peak above what was there before; on a CPU that of the tensors that are alive (an operator's own workspace is not
    seen), on CUDA the allocator's peak, elsewhere not measured. No verdict: it is a fact about this hardware.
    seed: of a network that draws random numbers. UsageError for repeats below 1.
    """
    whole_number("repeats", repeats, at_least=1)
    settled = maps(model, images, target).target
    rows_per_forward = model.rows_per_forward(len(images), images.shape[1:])

    def map_once() -> Maps:
        return maps(model, images, settled)

    def forward_once() -> list[Tensor]:
        def run(part: slice) -> Tensor:
            return model.answer(images[part], settled, torch.arange(part.start, part.stop, device=model.device)).values

        return model.in_batches(len(images), images.shape[1:], run)

    forward_once()
    before = (model.forward_rows, model.gradient_rows)
    memory = [peak_memory(run, model.device) for run in (forward_once, map_once)]
    counted = [now - then for now, then in zip((model.forward_rows, model.gradient_rows), before, strict=True)]
    rows = [(counted[0] - len(images)) / len(images), counted[1] / len(images)]
    seconds = torch.tensor(
        [_pair(forward_once, map_once, model.device, turn % 2 == 1) for turn in range(repeats)], dtype=torch.float64
    )
    ratio = _median("time_ratio", seconds[:, 1] / seconds[:, 0], "seconds per second of a plain forward")
    scores = (
        ratio,
        _median("seconds_per_image", seconds[:, 1] / len(images), "seconds"),
        _median("forward_seconds_per_image", seconds[:, 0] / len(images), "seconds"),
        *(
            _fact(f"{kind}_rows", n, "rows per image", len(images))
            for kind, n in zip(("forward", "gradient"), rows, strict=True)
        ),
        *_of_memory(memory),
    )
    return CheckResult("cost", scores, Verdict.NONE, _sentence(scores), details=_details(model, rows_per_forward))


def _pair(first: Callable[[], Any], second: Callable[[], Any], device: torch.device, swapped: bool) -> list[float]:
    """Seconds of both, one right after the other."""
    runs = [first, second]
    took = [0.0, 0.0]
    for k in (1, 0) if swapped else (0, 1):
        _wait(device)
        begun = time.perf_counter()
        runs[k]()
        _wait(device)
        took[k] = time.perf_counter() - begun
    return took


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _median(name: str, values: Tensor, unit: str) -> Score:
    """The median of some pairs of runs, with its bootstrap interval."""
    numbers = values.numpy()
    low = high = math.nan
    if len(numbers) > 1:
        drawn = np.random.default_rng(SEED).integers(len(numbers), size=(RESAMPLES, len(numbers)))
        low, high = np.percentile(np.median(numbers[drawn], axis=1), [2.5, 97.5]).tolist()
    return Score(name, Interval(float(np.median(numbers)), low, high, len(numbers), len(numbers)), (), "lower", unit)


def _fact(name: str, value: float, unit: str, n: int) -> Score:
    return Score(name, Interval(value, math.nan, math.nan, n, n), (), "lower", unit)


def _of_memory(memory: Sequence[int | None]) -> list[Score]:
    forward, own = memory
    if forward is None or own is None:
        return []
    return [
        _fact("memory_ratio", own / forward, "bytes per byte of a plain forward", 1),
        _fact("peak_memory", own, "bytes", 1),
        _fact("forward_peak_memory", forward, "bytes", 1),
    ]


def _sentence(scores: Sequence[Score]) -> str:
    of = {s.name: s.interval for s in scores}
    ratio, rows = of["time_ratio"], [of[f"{kind}_rows"].value for kind in ("forward", "gradient")]
    range_ = "" if math.isnan(ratio.low) else f" [{ratio.low:.3g}, {ratio.high:.3g}]"
    held = (
        f"its peak memory is {of['memory_ratio'].value:.3g} times that of a forward"
        if "memory_ratio" in of
        else "its memory is not measured on this device"
    )
    return (
        f"A map takes {ratio.value:.3g}{range_} times as long as a plain forward ({of['seconds_per_image'].value:.3g} s an "
        f"image, {rows[0]:g} forward and {rows[1]:g} gradient rows); {held}."
    )


def _details(model: VisionModel, rows_per_forward: int) -> dict[str, Any]:
    device = model.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "rows_per_forward": rows_per_forward,
        "memory": {
            "cuda": "the allocator's peak",
            "cpu": "tensors alive at once, without operators' own workspaces",
        }.get(device.type, "not measured"),
    }

"""How far a map that was computed with few digits agrees with the one of the same weights in float32."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import capture
from seewhy.errors import SeewhyError, first_line
from seewhy.maps import Maps
from seewhy.model import VisionModel
from seewhy.network import PRECISIONS
from seewhy.registry import MethodInfo
from seewhy.similarity import rank_correlation
from seewhy.wrapping import wrap

IMAGES = 4  # are compared at most
ROWS = 1024  # may be spent on it: 4 images of anything but RISE, LIME and their like


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation over the cells of each row's map; None where it is unknown, and why in words."""

    correlation: list[float | None]
    words: str


def few_digits(model: VisionModel, shape: Sequence[int]) -> torch.dtype | None:
    """The float16 or bfloat16 that the network computes in; None: at least float32."""
    declared = PRECISIONS[model.precision] if model.precision != "float32" else model.dtype
    return model.reading(shape).few_digits or (declared if declared in capture.FEW_DIGITS else None)


def compare(
    model: VisionModel, info: MethodInfo, x: Tensor, maps: Maps, keywords: Mapping[str, Any], rows: int
) -> Agreement:
    """The first IMAGES maps again, in float32, by a model of its own: its rows are counted apart.

    rows: what one map costs at most. Weights of few digits are copied into float32, which takes twice their memory; a
    network whose forward lowers the precision itself is copied into float64, which autocast leaves alone.
    """
    name = str(few_digits(model, x.shape[1:])).removeprefix("torch.")
    n = min(IMAGES, len(x), ROWS // max(1, rows))
    unknown: list[float | None] = [None] * len(x)
    if n == 0:
        return Agreement(unknown, f"computed in {name}, not compared with float32: a map costs up to {rows} rows")
    try:
        twin = _in_full(model, x.shape[1:])
        if twin is None:
            return Agreement(unknown, f"computed in {name}, not compared: its forward does so whatever it is given")
        chosen = torch.arange(n)
        given = {key: _for_twin(key, value, model, n, len(x)) for key, value in keywords.items()}
        if "layer" in info.parameters and given.get("layer") is None and maps.layer is not None:
            given["layer"] = maps.layer.name
        with twin.guarded(int(keywords.get("seed", 0))):
            exact: Maps = info.function(twin, x[:n], maps.target.select(chosen), **given)
    except (SeewhyError, RuntimeError, TypeError) as error:  # a network that cannot be copied or upcast; the map stands
        return Agreement(unknown, f"computed in {name}, not compared with float32: {first_line(error)}")
    both = maps.raw[:n].detach().cpu(), exact.raw.cpu()
    known = torch.stack([raw.flatten(1).isfinite().all(1) for raw in both]).all(0)
    correlations = torch.where(known, rank_correlation(*both), math.nan).tolist()
    found = [None if math.isnan(value) else value for value in correlations]
    numbers = [value for value in found if value is not None]
    least = f"{min(numbers):.4f} at least" if numbers else "undefined: a map is constant"
    spent = twin.forward_rows + twin.gradient_rows
    words = (
        f"computed in {name}: the rank correlation with the float32 map is {least} ({n} compared, {spent} more rows)"
    )
    return Agreement(found + unknown[n:], words)


def _in_full(model: VisionModel, shape: Sequence[int]) -> VisionModel | None:
    """The same model in float32, or in float64 where it lowers that itself; None where neither helps."""
    for dtype in (torch.float32, torch.float64):
        module = model.module if model.dtype in (None, dtype) else copy.deepcopy(model.module).to(dtype)
        twin = wrap(
            module,
            mean=model.mean,
            std=model.std,
            size=model.size,
            labels=model.labels,
            task=model.task,
            batch_size=model.batch_size or IMAGES,
            preprocess=model.preprocess,
        )
        twin.bounds = model.bounds
        if few_digits(twin, shape) is None:
            return twin
    return None


def _for_twin(name: str, value: Any, model: VisionModel, n: int, of: int) -> Any:
    """A layer object by its name, of baselines for each image the first n; anything else as it was given."""
    if name == "layer":
        names = {id(module): path for path, module in model.module.named_modules()}
        several = isinstance(value, list | tuple)
        found = [
            names.get(id(one), one) if isinstance(one, nn.Module) else one for one in (value if several else [value])
        ]
        return found if several else found[0]
    per_image = name == "baseline" and isinstance(value, Tensor) and value.ndim > 3 and len(value) == of
    return value[:n] if per_image else value

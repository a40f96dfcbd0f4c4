"""What a check gives back, with everything that a number needs to be read; and how a check is declared."""

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from seewhy.intervals import Interval, interval, read_interval
from seewhy.maps import MapFunction
from seewhy.model import VisionModel
from seewhy.registry import Direction, Facts, enter_check
from seewhy.target import Target

LEAST_PAIRS = 200  # of maps that share nothing, for a null
MOST_EXCLUDED = 0.1  # share of the images that cannot be scored, above which a check is not valid


class Verdict(StrEnum):
    """What a check says of a method on this model and these images."""

    PASS = "pass"
    FAIL = "fail"
    UNCLEAR = "unclear"  # the interval or the null does not tell
    NONE = "no verdict"  # a number without a cut-off that could be defended, or without a null
    NOT_VALID = "not valid"  # too many maps could not be scored for the number to mean anything


@dataclass(frozen=True)
class Null:
    """What the same number is where there is nothing to find: its median and 95 % range."""

    median: float
    low: float
    high: float
    n: int
    of: str  # what was compared, in words

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        numbers = {"median": self.median, "low": self.low, "high": self.high}
        return {**{k: v if math.isfinite(v) else None for k, v in numbers.items()}, "n": self.n, "of": self.of}


@dataclass(frozen=True)
class Score:
    """One number: a value per image, their mean with its interval, and the same of the controls."""

    name: str
    interval: Interval
    per_image: tuple[float, ...]  # NaN where the image could not be scored; () for a number of the model
    direction: Direction  # which is better
    unit: str
    controls: Mapping[str, Interval] = field(default_factory=dict)  # random_map, edge_map, ...
    null: Null | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            **self.interval.to_dict(),
            "direction": self.direction,
            "unit": self.unit,
            "per_image": [v if math.isfinite(v) else None for v in self.per_image],
            "controls": {name: control.to_dict() for name, control in self.controls.items()},
            "null": None if self.null is None else self.null.to_dict(),
        }


@dataclass(frozen=True)
class Curve:
    """A mean over images along something, with its interval at each point."""

    name: str
    x_name: str
    x: tuple[float | str, ...]
    y_name: str
    points: tuple[Interval, ...]
    control: bool = False  # drawn gray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "x_name": self.x_name,
            "x": list(self.x),
            "y_name": self.y_name,
            "points": [point.to_dict() for point in self.points],
            "control": self.control,
        }


@dataclass(frozen=True)
class CheckResult:
    """What one check found: scores, curves, a verdict with its reason in one sentence, and how it was done."""

    check: str
    scores: tuple[Score, ...]
    verdict: Verdict
    sentence: str
    curves: tuple[Curve, ...] = ()
    excluded: Mapping[int, str] = field(default_factory=dict)  # image that could not be scored -> why
    details: Mapping[str, Any] = field(default_factory=dict)  # what else there is to know, plain JSON values
    settings: Mapping[str, Any] = field(default_factory=dict)
    forward_rows: int = 0
    gradient_rows: int = 0
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Score:
        """The score of this name."""
        return next(score for score in self.scores if score.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "sentence": self.sentence,
            "scores": [score.to_dict() for score in self.scores],
            "curves": [curve.to_dict() for curve in self.curves],
            "excluded": {str(image): why for image, why in self.excluded.items()},
            "details": dict(self.details),
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "forward_rows": self.forward_rows,
            "gradient_rows": self.gradient_rows,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [f"{self.check}: {self.verdict}. {self.sentence}"]
        for score in self.scores:
            better = "" if score.direction == "neither" else f", {score.direction} is better"
            lines.append(f"  {score.name} {score.interval}{better}")
            lines += [f"    {name} {control}" for name, control in score.controls.items()]
            if score.null is not None:
                null = score.null
                lines.append(f"    null {null.median:.3g} [{null.low:.3g}, {null.high:.3g}] (n = {null.n}, {null.of})")
        return "\n".join(lines)

    __repr__ = __str__


def score(
    name: str,
    values: Tensor,
    direction: Direction,
    unit: str,
    *,
    controls: Mapping[str, Tensor] | None = None,
    null: Null | None = None,
    clusters: Sequence[object] | None = None,
) -> Score:
    """A score from a value per image (N,), NaN where there is none; controls: the same of other maps of these images."""
    return Score(
        name,
        interval(values, clusters),
        tuple(values.detach().double().cpu().tolist()),
        direction,
        unit,
        {other: interval(numbers, clusters) for other, numbers in (controls or {}).items()},
        null,
    )


def null_of(values: Tensor, of: str) -> Null:
    """Median and 95 % range of numbers that were found where there is nothing to find; NaN is left out."""
    kept = values[~values.isnan()].double()
    if not len(kept):
        return Null(math.nan, math.nan, math.nan, 0, of)
    low, median, high = torch.quantile(kept, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)).tolist()
    return Null(median, low, high, len(kept), of)


def excluded(*reasons: Sequence[str]) -> dict[int, str]:
    """Images that some maps cannot be scored of, each with the first reason; reasons: as `why_unusable` gives them."""
    found: dict[int, str] = {}
    for several in reasons:
        for image, why in enumerate(several):
            if why:
                found.setdefault(image, why)
    return found


def read_result(record: Mapping[str, Any]) -> CheckResult:
    """The inverse of CheckResult.to_dict, with the settings as they were written."""
    return CheckResult(
        record["check"],
        tuple(map(_read_score, record["scores"])),
        Verdict(record["verdict"]),
        record["sentence"],
        tuple(map(_read_curve, record["curves"])),
        {int(image): why for image, why in record["excluded"].items()},
        record["details"],
        record["settings"],
        record["forward_rows"],
        record["gradient_rows"],
        record["seconds"],
    )


def _read_score(record: Mapping[str, Any]) -> Score:
    return Score(
        record["name"],
        read_interval(record),
        tuple(math.nan if value is None else value for value in record["per_image"]),
        record["direction"],
        record["unit"],
        {name: read_interval(control) for name, control in record["controls"].items()},
        None if record["null"] is None else _read_null(record["null"]),
    )


def _read_null(record: Mapping[str, Any]) -> Null:
    median, low, high = (math.nan if record[name] is None else record[name] for name in ("median", "low", "high"))
    return Null(median, low, high, record["n"], record["of"])


def _read_curve(record: Mapping[str, Any]) -> Curve:
    points = tuple(map(read_interval, record["points"]))
    return Curve(record["name"], record["x_name"], tuple(record["x"]), record["y_name"], points, record["control"])


CheckFunction = Callable[..., CheckResult]


def check(
    *,
    title: str,
    question: str,
    cost: str,
    paper: str,
    needs: tuple[str, ...] = (),
    rows: Callable[[Facts], tuple[int, int]] = lambda _: (0, 0),
) -> Callable[[CheckFunction], CheckFunction]:
    """Decorator: enter a function `(model, images, target, maps, *, params) -> CheckResult` into CHECKS.

    A call leaves no trace in the network; what it was asked with, the rows that it cost and its seconds are noted.
    """

    def declared(function: CheckFunction) -> CheckFunction:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(model: VisionModel, images: Tensor, target: Target, maps: MapFunction, **keywords: Any) -> CheckResult:
            bound = signature.bind(model, images, target, maps, **keywords)
            bound.apply_defaults()
            used = {name: bound.arguments[name] for name in list(signature.parameters)[4:]}
            before, begun = (model.forward_rows, model.gradient_rows), time.perf_counter()
            with torch.inference_mode(False), torch.no_grad(), model.guarded(int(used.get("seed", 0))):
                found = function(model, images, target, maps, **keywords)
            return replace(
                found,
                check=function.__name__,
                settings={**used, **found.settings},
                forward_rows=model.forward_rows - before[0],
                gradient_rows=model.gradient_rows - before[1],
                seconds=time.perf_counter() - begun,
            )

        enter_check(run, title=title, question=question, needs=needs, cost=cost, rows=rows, paper=paper)
        return run

    return declared


def _plain(value: Any) -> Any:
    """A setting as a JSON value: of data and functions, what they are."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, list | tuple) and len(value) <= 20:
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return getattr(value, "__name__", type(value).__name__)

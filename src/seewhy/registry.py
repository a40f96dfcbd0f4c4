"""The single list of what exists: methods and checks enter themselves; every face, table and contract test reads it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from seewhy.errors import UsageError, near_names

Function = TypeVar("Function", bound=Callable[..., Any])
Declaration = ParamSpec("Declaration")
Resolution = Literal["input", "layer"]
Picture = Literal["positive", "magnitude", "signed", "range"]
Scale = Literal["logit", "probability", "log_probability", "output"]
Facts = Mapping[
    str, Any
]  # a method's parameters, and of the run: `channels` of its layers, `axes` of the image, `blocks` with attention
Rows = Callable[[Facts], tuple[int, int]]
_NO_RUN: Facts = {"channels": 0, "axes": (1, 1), "blocks": 0}


@dataclass(frozen=True)
class MethodInfo:
    """What a method declares about itself. Tests hold every declaration against what the method does."""

    name: str
    title: str  # as its paper writes it
    family: str
    summary: str  # first line of the docstring
    function: Callable[..., Any]
    parameters: Mapping[str, Any]  # keyword-only parameter -> default
    resolution: Resolution  # a map on the input's pixels, or on the cells of a layer
    scale: Scale  # the scale that its paper explains: logit or probability
    uses_target: bool  # False: the same map whatever is asked
    complete: bool  # the map sums to f(x) - f(baseline)
    needs_gradients: bool
    needs_relu: bool  # refused on a network without one
    needs_attention: bool  # refused where no attention over all tokens can be reached
    seeded: bool  # the map depends on a seed
    picture: Picture  # how its paper draws it: positive part, magnitude, both signs, or its own range (an offset)
    cost: str  # rows per image, in words
    rows: Rows  # facts -> (forward, gradient) rows per image at most
    paper: str
    good_for: str  # and where that is said
    not_for: str
    randomization: str  # what was found when the network's weights or the training labels were randomized
    warning: str  # goes with every map of this method

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain JSON values."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("function", "rows")}
        return fields | {"parameters": {name: repr(default) for name, default in self.parameters.items()}}

    @property
    def needs_channels(self) -> bool:
        """Whether its cost depends on how many channels its layers have."""
        return self.rows({**_NO_RUN, **self.parameters}) != self.rows({**_NO_RUN, **self.parameters, "channels": 1})

    @property
    def black_box(self) -> bool:
        """It only asks what the network says: no gradient, no layer and no attention is needed."""
        return not (self.needs_gradients or self.needs_attention or "layer" in self.parameters)

    @property
    def class_agnostic(self) -> bool:
        """A method of the field, no control, whose map is the same whatever class is asked."""
        return not self.uses_target and self.family != "control"


class MethodTable(list[MethodInfo]):
    """A list of methods that prints as a table."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every declaration as plain JSON values."""
        return [info.to_dict() for info in self]

    def __str__(self) -> str:
        """One aligned line a method."""
        rows = [("method", "resolution", "target", "complete", "cost per image")]
        return _aligned(rows + [(m.name, m.resolution, _yes(m.uses_target), _yes(m.complete), m.cost) for m in self])

    __repr__ = __str__


METHODS: dict[str, MethodInfo] = {}
FAMILIES = ("gradient", "path", "cam", "perturbation", "attention", "control", "adapter")


def declare(
    *,
    title: str,
    family: str,
    resolution: Resolution,
    picture: Picture,
    cost: str,
    rows: Rows,
    paper: str,
    good_for: str,
    not_for: str,
    randomization: str,
    scale: Scale = "logit",
    uses_target: bool = True,
    complete: bool = False,
    needs_gradients: bool = True,
    needs_relu: bool = False,
    needs_attention: bool = False,
    warning: str = "",
) -> Callable[[Callable[..., Any]], MethodInfo]:
    """What a function `(model, images, target, *, params) -> Maps` declares about itself, read with its signature."""

    def described(function: Callable[..., Any]) -> MethodInfo:
        signature = inspect.signature(function)
        keyword_only = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        return MethodInfo(
            name=function.__name__,
            title=title,
            family=family,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            function=function,
            parameters={p.name: p.default for p in keyword_only},
            resolution=resolution,
            scale=scale,
            uses_target=uses_target,
            complete=complete,
            needs_gradients=needs_gradients,
            needs_relu=needs_relu,
            needs_attention=needs_attention,
            seeded="seed" in signature.parameters,
            picture=picture,
            cost=cost,
            rows=rows,
            paper=paper,
            good_for=good_for,
            not_for=not_for,
            randomization=randomization,
            warning=warning,
        )

    return described


def _entering(
    declaring: Callable[Declaration, Callable[[Callable[..., Any]], MethodInfo]],
) -> Callable[Declaration, Callable[[Function], Function]]:
    def method(*args: Declaration.args, **kwargs: Declaration.kwargs) -> Callable[[Function], Function]:
        """Decorator: enter a function into METHODS under its own name, with what it declares (see `declare`)."""

        def enter(function: Function) -> Function:
            METHODS[function.__name__] = declaring(*args, **kwargs)(function)
            return function

        return enter

    return method


method = _entering(declare)


def forecast(info: MethodInfo, facts: Facts) -> tuple[int, int]:
    """(forward, gradient) rows per image at most: facts are the parameters that differ from their defaults, and the run's."""
    try:
        return info.rows({**_NO_RUN, **info.parameters, **facts})
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        given = ", ".join(
            f"{k}={v!r} (default {info.parameters[k]!r})" for k, v in facts.items() if k in info.parameters
        )
        raise UsageError(f"method {info.name!r} cannot count its rows with {given}.") from error


def list_methods() -> MethodTable:
    """Every registered method, family by family; controls come last."""
    return MethodTable(sorted(METHODS.values(), key=lambda info: FAMILIES.index(info.family)))


def find_method(name: str | MethodInfo) -> MethodInfo:
    """The method of this name (a MethodInfo is one already); UsageError with near names if there is none."""
    if isinstance(name, MethodInfo):
        return name
    if not isinstance(name, str) or name not in METHODS:
        raise UsageError(f"unknown method {name!r}: {near_names(str(name), METHODS)}")
    return METHODS[name]


def check_parameters(info: MethodInfo, given: Iterable[str]) -> None:
    """UsageError, before any work, for a parameter that the method does not have."""
    for name in given:
        if name not in info.parameters:
            known = near_names(name, info.parameters)
            owners = [m.name for m in METHODS.values() if name in m.parameters]
            if owners and not known.startswith("did you mean"):
                known += f" Methods that have it: {', '.join(owners)}."
            raise UsageError(f"method {info.name!r} has no parameter {name!r}: {known}")


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class CheckInfo:
    """What a check declares about itself."""

    name: str
    title: str
    question: str  # what it answers, as a user would ask
    summary: str  # first line of the docstring
    function: Callable[..., Any]
    parameters: Mapping[str, Any]  # keyword-only parameter -> default
    needs: tuple[str, ...]  # data that it cannot do without: labels, boxes, train, ...
    cost: str  # rows, in words: one map is one call of the method
    rows: Callable[[Facts], tuple[int, int]]  # parameters, `n` images -> (maps, forward rows) besides the first maps
    paper: str

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain JSON values."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("function", "rows")}
        return fields | {
            "needs": list(self.needs),
            "parameters": {name: repr(default) for name, default in self.parameters.items()},
        }


class CheckTable(list[CheckInfo]):
    """A list of checks that prints as a table."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every declaration as plain JSON values."""
        return [info.to_dict() for info in self]

    def __str__(self) -> str:
        """One aligned line a check."""
        return _aligned([("check", "question", "needs"), *((c.name, c.question, ", ".join(c.needs)) for c in self)])

    __repr__ = __str__


CHECKS: dict[str, CheckInfo] = {}
CHECKLIST = (  # the seven questions of the production checklist, the first rows of a trust card
    "model_randomization",
    "class_discrimination",
    "completeness",
    "resolution",
    "cost",
    "stability",
    "documentation",  # made of the records, by the card itself
)


def enter_check(
    function: Callable[..., Any],
    *,
    title: str,
    question: str,
    needs: tuple[str, ...],
    cost: str,
    rows: Callable[[Facts], tuple[int, int]],
    paper: str,
) -> None:
    """Enter a function `(model, images, target, maps, *, params) -> CheckResult` under its own name, with its signature."""
    keyword_only = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    CHECKS[function.__name__] = CheckInfo(
        name=function.__name__,
        title=title,
        question=question,
        summary=(inspect.getdoc(function) or "").partition("\n")[0],
        function=function,
        parameters={p.name: p.default for p in keyword_only},
        needs=needs,
        cost=cost,
        rows=rows,
        paper=paper,
    )


def list_checks() -> CheckTable:
    """Every registered check: those of the production checklist first, then by name."""
    return CheckTable(sorted(CHECKS.values(), key=lambda c: (c.name not in CHECKLIST, _place(c.name), c.name)))


def _place(name: str) -> int:
    return CHECKLIST.index(name) if name in CHECKLIST else 0


def find_check(name: str) -> CheckInfo:
    """The check of this name; UsageError with near names if there is none."""
    if name not in CHECKS:
        raise UsageError(f"unknown check {name!r}: {near_names(str(name), CHECKS)}")
    return CHECKS[name]

"""How a network reads its input and what its scores are, from one row of noise at each input shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy import capture
from seewhy.capture import Activated, Activation, Listening
from seewhy.errors import RefusalError, UsageError
from seewhy.target import Task, scores

SAME_OUTPUT = 1e-4  # of the largest output: what another memory format may change, far above rounding, far below a bug
CLASSIFIERS = ("multiclass", "multilabel", "binary")
TINY = torch.finfo(torch.float32).tiny
BELOW_ONE = 1 - 2.0**-24  # the largest float32 below 1
FAILS = (RuntimeError, UsageError)  # where the network itself fails, the run that follows says so


@dataclass(frozen=True)
class Ending:
    """The activation that a classifier's scores come out of, and whether the logits in front of it can be reached."""

    kind: Activation
    reached: bool


@dataclass(frozen=True)
class Reading:
    """What is known of a network at one input shape."""

    channels_last: bool = False  # it reads that memory format, and says the same
    ending: Ending | None = None  # None: its scores are logits already, or no classes
    few_digits: torch.dtype | None = None  # the float16 or bfloat16 that it computes in
    alone: bool = False  # it is run row by row: rows influence each other, or it takes one only


def read(run: Callable[[Tensor, bool], Any], row: Tensor, try_channels_last: bool, task: Task, pairs: bool) -> Reading:
    """`run(x, channels_last)` on one row (1, C, *axes) of noise, alone and (`pairs`) beside another."""
    listening = Listening()
    try:
        with capture.random_states(0), listening:  # a network that draws random numbers draws the same ones
            outputs = run(row, False)
    except FAILS:
        return Reading()

    def in_extremes() -> Any:
        return run(torch.cat([0 * row, 0 * row + 1, 8 * row - 4, 1 - row]), False)

    ending = _find_ending(outputs, listening.calls, task, in_extremes)
    same = try_channels_last and _same_in_channels_last(run, row, outputs)
    return Reading(
        same, ending, listening.few_digits, pairs and _must_be_alone(run, row, outputs, listening.few_digits)
    )


def _must_be_alone(
    run: Callable[[Tensor, bool], Any], row: Tensor, outputs: Any, few_digits: torch.dtype | None
) -> bool:
    """Whether a row says something else beside another one (a BatchNorm without running statistics), or cannot stand one.

    Compared with the row beside itself: two rows are computed in another order than one, and rounding may grow through a
    hundred layers. Both runs draw the same random numbers, if the network draws any.
    """

    def first_row_beside(other: Tensor) -> list[Tensor]:
        with capture.random_states(0):
            found = capture.tensors(run(torch.cat([row, other]), False))
        return [t[:1].float() for t in found if t.is_floating_point() and t.shape[:1] == (2,)]

    bound = SAME_OUTPUT if few_digits is None else 16 * torch.finfo(few_digits).eps

    def differ(ours: list[Tensor], theirs: list[Tensor]) -> bool:
        if [t.shape for t in ours] != [t.shape for t in theirs]:  # boxes, say: nothing can be compared
            return False
        return any(bool((a - b).abs().max() > bound * a.abs().max()) for a, b in zip(ours, theirs, strict=True))

    try:
        beside_another = first_row_beside(1 - row)
    except torch.OutOfMemoryError:  # nothing is known of it
        return False
    except FAILS:
        return True
    alone = [t.float() for t in capture.tensors(outputs) if t.is_floating_point() and t.shape[:1] == (1,)]
    return differ(alone, beside_another) and differ(first_row_beside(row), beside_another)


def _same_in_channels_last(run: Callable[[Tensor, bool], Any], row: Tensor, outputs: Any) -> bool:
    try:
        with capture.random_states(0):
            found = run(row, True)
    except FAILS:
        return False
    return same_outputs(outputs, found)


def same_outputs(plain: Any, other: Any) -> bool:
    """Whether two outputs of a network, of the same row, are one but for rounding."""
    these, those = capture.tensors(plain), capture.tensors(other)
    return bool(these) and len(these) == len(those) and all(map(_same, these, those))


def _same(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    a, b = a.float(), b.float()
    return a.shape == b.shape and a.numel() > 0 and bool((a - b).abs().max() <= SAME_OUTPUT * a.abs().max())


# -- what the scores come out of ---------------------------------------------------------------------------------------


def _find_ending(outputs: Any, calls: Sequence[Activated], task: Task, more: Callable[[], Any]) -> Ending | None:
    """The last activation of a classifier: known for certain where its call was heard, else from numbers alone.

    Numbers that sum to 1 on pictures of every kind are no logits; numbers in [0, 1] may be, so an unheard sigmoid is
    believed only where the task says that there must be one.
    """
    table = _table(outputs) if task in CLASSIFIERS else None
    if table is None:
        return None
    for kind in [kind for kind in ("softmax", "log_softmax", "sigmoid") if _looks_like(kind, table)]:
        if in_front_of(table, kind, calls) is not None:
            return Ending(kind, True)
        if kind == "sigmoid" and task == "multiclass":
            continue
        try:
            other = _table(more())
        except FAILS:
            return None
        if other is not None and _looks_like(kind, other):
            return Ending(kind, False)
    return None


def _table(outputs: Any) -> Tensor | None:
    """The score table (R, classes); None where the output has another form."""
    try:
        table = scores(outputs)
    except UsageError:  # a network may return what only a function as target can read
        return None
    return table if table.ndim == 2 and table.is_floating_point() and table.numel() > 0 else None


def _looks_like(kind: Activation, table: Tensor) -> bool:
    rounding = max(1e-4, 4 * torch.finfo(table.dtype).eps)
    values = table.detach().float()
    values = values.exp() if kind == "log_softmax" else values
    if not bool(((values >= 0) & (values <= 1 + rounding)).all()):
        return False
    return kind == "sigmoid" or (values.shape[1] > 1 and bool(((values.sum(1) - 1).abs() <= rounding).all()))


def in_front_of(table: Tensor, kind: Activation, calls: Sequence[Activated]) -> Tensor | None:
    """What the activation was given whose result this table is, in the table's shape; None where none was heard."""
    if any(len(call.returned) != len(table) for call in calls):  # an exported program ran in parts of its own size
        calls = capture.joined(calls, len(table))
    for call in reversed(calls):
        if call.kind == kind and call.returned.numel() == table.numel():
            given, returned = (t.reshape(table.shape) for t in (call.given, call.returned))
            same = torch.allclose(returned.detach().to(table.dtype), table.detach(), rtol=0, atol=0, equal_nan=True)
            if same and _gives(kind, given, table):
                return given
    return None


def _gives(kind: Activation, given: Tensor, table: Tensor) -> bool:
    """Whether that activation of `given`, class by class, is this table: a softmax along another axis is not."""
    logits, rounding = given.detach().float(), max(1e-5, torch.finfo(table.dtype).eps)
    again = logits.sigmoid() if kind == "sigmoid" else getattr(logits, kind)(1)
    return torch.allclose(again, table.detach().float(), rtol=rounding, atol=rounding, equal_nan=True)


def logits(outputs: Any, ending: Ending, calls: Sequence[Activated]) -> Tensor:
    """The table (R, classes) whose softmax or sigmoid is the network's own output.

    Reached: the network's logits. Else log p of a softmax, which is the logits up to one number per image, and
    log p - log(1 - p) of a sigmoid, which is the logits up to rounding. RefusalError where a network that ended in the
    activation before does not now.
    """
    table = scores(outputs)
    if not ending.reached:
        p = table.float()
        if ending.kind == "log_softmax":
            return p
        log_p = p.clamp_min(TINY).log()
        return log_p if ending.kind == "softmax" else log_p - torch.log1p(-p.clamp_max(BELOW_ONE))
    given = in_front_of(table, ending.kind, calls)
    if given is None:
        raise RefusalError(
            f"this network ended in {ending.kind} on its first images and does not on these: whether its scores are "
            "logits or probabilities cannot be told. Pass target=a function of the output."
        )
    return given

"""What a run calls on the way: every softmax and sigmoid of one number per class, and how few digits were computed with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Activation = Literal["softmax", "log_softmax", "sigmoid"]
ACTIVATIONS = {"softmax": "softmax", "log_softmax": "log_softmax", "sigmoid": "sigmoid", "expit": "sigmoid"}
FEW_DIGITS = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Activated:
    """One call of a softmax or sigmoid; `returned` is the very tensor that the network went on with."""

    kind: Activation
    given: Tensor
    returned: Tensor


class Listening(TorchFunctionMode):
    """While it is on, calls are noted, whatever their spelling: function, method, module, in place or operator.

    Kept are those that return one row of classes per image (an attention map is not kept alive). Scripted code is not
    heard. Nothing that the network computes is changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Activated] = []
        self.few_digits: torch.dtype | None = None  # the float16 or bfloat16 that something was computed in

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").partition(".")[0].removeprefix("special_")
        kind = ACTIVATIONS.get(name.strip("_"))
        given = None if kind is None else args[0] if args else kwargs.get("input")
        if given is not None and name.endswith("_"):
            given = given.clone()  # the call overwrites it
        output = function(*args, **kwargs)
        if isinstance(output, Tensor):
            if output.dtype in FEW_DIGITS:
                self.few_digits = output.dtype
            if given is not None and output.numel() == len(output) * max(output.shape[1:], default=1):
                self.calls.append(Activated(cast(Activation, kind), given, output))
        return output


def joined(calls: Sequence[Activated], rows: int) -> list[Activated]:
    """The calls of several runs in a row, each kind as one call on the first `rows` rows of all."""
    found = []
    for kind in {call.kind for call in calls}:
        parts = [call for call in calls if call.kind == kind]
        if len({call.returned.shape for call in parts}) == 1:
            given, returned = torch.cat([c.given for c in parts]), torch.cat([c.returned for c in parts])
            found.append(Activated(kind, given[:rows], returned[:rows]))
    return found

"""What one batch of rows said to a question."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seewhy import capture
from seewhy.target import Target

READ_AS_IT_IS = ("output", "region", "callable")  # targets that ask for the network's own output, not for a class score


@dataclass(frozen=True)
class Answer:
    """What one batch of rows said: the question as it was settled, its number per row, and the network's whole output."""

    target: Target
    values: Tensor  # (R,) float32
    outputs: Any  # the table of logits where the network ends in an activation
    gates: capture.Gates | None = None  # where a rule was set on the ReLUs


def noted_score(
    target: Target, rows: Tensor, answers: list[Answer], logits: Callable[[Any], Tensor | None]
) -> Callable[[Any], Tensor]:
    """The score of an output, (R,); each answer is noted as it is given.

    logits: of an output the logits behind it, where they are not that output itself.
    """

    def score(outputs: Any) -> Tensor:
        table = logits(outputs)
        asked = outputs if table is None or target.kind in READ_AS_IT_IS else table
        said = capture.detach(outputs if table is None else table)
        if target.kind == "callable":  # the user's own function may write into what it is given
            said = capture.copied(said)
        settled = target.settle(asked, rows)
        values = settled(asked, rows)
        answers.append(Answer(settled, values.detach().float(), said))
        return values

    return score

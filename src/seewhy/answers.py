"""What one batch of rows said to a question."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seewhy import capture
from seewhy.target import Target


@dataclass(frozen=True)
class Answer:
    """What one batch of rows said: the question as it was settled, its number per row, and the network's whole output."""

    target: Target
    values: Tensor  # (R,) float32
    outputs: Any
    gates: capture.Gates | None = None  # where a rule was set on the ReLUs


def noted_score(target: Target, rows: Tensor, answers: list[Answer]) -> Callable[[Any], Tensor]:
    """The score of an output, (R,); each answer is noted as it is given."""

    def score(outputs: Any) -> Tensor:
        settled = target.settle(outputs, rows)
        values = settled(outputs, rows)
        answers.append(Answer(settled, values.detach().float(), capture.detach(outputs)))
        return values

    return score

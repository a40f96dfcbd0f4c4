"""What every protocol shares: the images, the question, the controls, and asking the network about changed pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.answers import Answer
from seewhy.checks.faithfulness.units import Units
from seewhy.controls import edge_maps, random_maps
from seewhy.data.geometry import resize
from seewhy.model import VisionModel
from seewhy.target import Target

CLASS_KINDS = ("predicted", "index", "margin")
CLASS_TASKS = ("multiclass", "multilabel", "binary")
Pictures = Callable[[Tensor, Tensor], Tensor]  # image and sample of each row, (R,) and (R,) -> (R, C, *axes)


@dataclass(frozen=True)
class Subject:
    """N images under question, with all that the protocols need of them; everything lies on the model's device."""

    model: VisionModel
    x: Tensor  # (N, C, *axes)
    target: Target  # settled on the clean images
    scales: tuple[str, ...]  # that the same forwards are read on: probability and logit of a class, else its own
    clean: Tensor  # (scales, N) float64
    maps: Mapping[str, Tensor]  # "map", "random_map" and "edge_map", (N, *axes) float64
    units: Units
    fills: Mapping[str, Tensor]  # (N, C, *axes)
    seed: int
    cells: int  # of the map at its native resolution

    def ask(self, samples: int, pictures: Pictures) -> Tensor:
        """What the network says of `samples` changed pictures of each image, (scales, samples, N) float64.

        Rows are sample-major; a batch's pictures are made when it runs, so memory is flat in the samples.
        """
        n = len(self.x)
        found = torch.empty(len(self.scales), samples * n, dtype=torch.float64, device=self.x.device)

        def run(part: slice) -> None:
            r = torch.arange(part.start, part.stop, device=self.x.device)
            image, sample = r % n, r // n
            answer = self.model.answer(pictures(image, sample), self.target, image, folded=True)
            found[:, part] = on_scales(answer, image, self.scales)

        self.model.in_batches(samples * n, self.x.shape[1:], run)
        return found.view(len(self.scales), samples, n)


def subject(
    model: VisionModel, x: Tensor, target: Target, raw: Tensor, units: Units, fills: Mapping[str, Tensor], seed: int
) -> Subject:
    """Settle the question on the clean images, one forward row each; maps: raw (N, *grid) as it is, and the controls."""
    answers: list[tuple[Tensor, Target]] = []

    def run(part: slice) -> None:
        rows = torch.arange(part.stop - part.start, device=x.device)
        chosen = target.select(torch.arange(part.start, part.stop, device=x.device))
        answer = model.answer(x[part], chosen, rows)
        answers.append((on_scales(answer, rows, scales_of(answer.target)), answer.target))

    model.in_batches(len(x), x.shape[1:], run)
    settled = Target.join([part for _, part in answers])
    size = tuple(x.shape[2:])
    maps = {
        "map": resize(raw.to(x.device).double(), size),
        "random_map": random_maps(x, seed).double(),
        "edge_map": edge_maps(x).double(),
    }
    clean = torch.cat([values for values, _ in answers], 1)
    cells = raw[0].numel()
    return Subject(model, x, settled, scales_of(settled), clean, maps, units, fills, seed, cells)


def scales_of(target: Target) -> tuple[str, ...]:
    """The scales that one forward can be read on: probability and logit of a class; of another question its own."""
    if target.kind in CLASS_KINDS and target.scale != "output" and target.task in CLASS_TASKS:
        return ("probability", "logit")
    return (target.scale or "logit",)


def on_scales(answer: Answer, rows: Tensor, scales: tuple[str, ...]) -> Tensor:
    """One batch's answer read on each scale: (scales, R) float64."""
    if scales != ("probability", "logit"):
        return answer.values[None].double()
    read = [answer.target.on(scale)(answer.outputs, rows) for scale in ("probability", "logit")]
    return torch.stack(read).double()

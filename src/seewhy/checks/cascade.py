"""Maps of a method on networks whose stages are randomized one after the other."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seewhy import capture
from seewhy.errors import RefusalError
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.randomization import Stage, randomized, recalibrated
from seewhy.target import Target

ORDERS = ("cascading", "independent", "bottom_up")
NOISE = 0.1  # standard deviation of a noisy copy, of the image's own range: as in the authors' code


@dataclass(frozen=True)
class Step:
    """Maps of one method on one random network."""

    stage: str  # randomized last
    stages: int  # randomized in all
    network: int
    raw: Tensor | None  # (N, *grid); None where the method refuses
    why: tuple[str, ...]  # per image why its map cannot be scored, "" where it can
    redrawn: float  # share of the learnable values that got a new start
    changed: float  # share that is another number than before: a scale that begins at 1 may have been 1
    recalibrated: int  # batch normalizations

    def to_dict(self, order: str) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "order": order,
            "stage": self.stage,
            "stages": self.stages,
            "network": self.network,
            "redrawn": self.redrawn,
            "changed": self.changed,
            "recalibrated": self.recalibrated,
            "excluded": {str(image): why for image, why in enumerate(self.why) if why},
        }


@dataclass(frozen=True)
class Cascade:
    """One method on one trained network, and how that is to be randomized."""

    model: VisionModel
    images: Tensor
    target: Target
    maps: MapFunction
    stages: Sequence[Stage]
    seed: int
    recalibrate: bool

    def steps(self, order: str) -> Generator[Step, None, None]:
        """Step by step on the first random network, all but the one where everything is random; see `full`. To be closed.

        cascading: the last stage, the last two, ...; bottom_up: the first, the first two, ...; independent: each alone,
        the last one first. What the stages below return is kept from one step to the next.
        """
        n = len(self.stages)
        chosen = {
            "cascading": [range(k, n) for k in range(n - 1, 0, -1)],
            "independent": [range(k, k + 1) for k in range(n - 1, -1, -1)],
            "bottom_up": [range(k) for k in range(1, n)],
        }[order]
        below = [name for stage in self.stages for name in stage.modules if name]
        with capture.keeping_outputs(self.model.module, below) as kept, ExitStack() as random:
            before, changed = range(0), 0.0
            for several in chosen:
                if order == "independent":
                    random.close()
                    before, changed = range(0), 0.0
                new = [self.stages[k] for k in several if k not in before]  # the others are random still
                changed += random.enter_context(self._randomized(new, 0))
                before, first = several, several.start
                kept.serve([name for stage in self.stages[:first] for name in stage.modules])
                last = several[-1] if order == "bottom_up" else first
                yield self._step([self.stages[k] for k in several], self.stages[last].name, first, 0, changed)

    def full(self, network: int, order: str = "cascading") -> Step:
        """Everything random."""
        last = self.stages[-1 if order == "bottom_up" else 0].name
        with self._randomized(self.stages, network) as changed:
            return self._step(self.stages, last, 0, network, changed)

    def _randomized(self, stages: Sequence[Stage], network: int) -> AbstractContextManager[float]:
        tensors = [tensor for stage in stages for tensor in stage.tensors]
        return randomized(self.model.module, tensors, self.seed, network)

    def _step(self, chosen: Sequence[Stage], name: str, first: int, network: int, changed: float) -> Step:
        share = sum(stage.values for stage in chosen) / sum(stage.values for stage in self.stages)
        behind = self.stages[first:]  # what a random stage feeds has other inputs than it was calibrated on
        calibration = recalibrated(self.model, self.images, self.target, behind)
        with calibration if self.recalibrate else nullcontext(0) as norms:
            try:
                found: Maps | None = self.maps(self.model, self.images, self.target)
                why = tuple(why_unusable(found)) if found is not None else ()
            except RefusalError as error:  # of this random network: noted, the other steps go on
                found, why = None, (f"refused: {error}",) * len(self.images)
        raw = None if found is None else found.raw
        return Step(name, len(chosen), network, raw, why, share, changed, norms)


def smoothed(maps: MapFunction, samples: int, seed: int) -> MapFunction:
    """The mean of a method's maps over noisy copies of each image, of the class that the clean one asks about.

    Noise: normal, 0.1 of the image's own range, from `seed` and the image's own bytes: the same on every network. The
    copies may leave [0, 1].
    """

    def mean(model: VisionModel, images: Tensor, target: Target) -> Maps:
        clean = maps(model, images, target)
        total = torch.zeros_like(clean.raw)
        generators = [image_generator(image, seed) for image in images]
        spread = NOISE * (images.flatten(1).amax(1) - images.flatten(1).amin(1))
        for _ in range(samples):
            drawn = [torch.randn(x.shape, generator=g) for x, g in zip(images, generators, strict=True)]
            noise = torch.stack(drawn).to(images) * spread.view(-1, *[1] * (images.ndim - 1))
            total += maps(model, images + noise, clean.target).raw
        return replace(clean, raw=total / samples)

    return mean

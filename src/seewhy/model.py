"""VisionModel: the user's network with everything needed to ask it a question. Outside it, images live in [0, 1]."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from seewhy import capture, throughput
from seewhy.answers import Answer, noted_score
from seewhy.attention import Attention, find_attention
from seewhy.beside import Beside, check_beside, repeated
from seewhy.capture import Call, Score
from seewhy.errors import RefusalError, UsageError
from seewhy.forms import probe_images
from seewhy.layers import FEWEST_ROWS, ROWS_OF_EXPERIMENTS, Layer, LayerTable, Trace, in_memory
from seewhy.network import Network, Precision
from seewhy.places import Run
from seewhy.reading import Reading
from seewhy.target import PREDICTED, Target, Task, scores

BATCH_ON_ACCELERATOR = 128  # halved when it does not fit
TRACES_KEPT = 8  # one per input shape, and per function or region that is asked about
Result = TypeVar("Result")
Look = Callable[[nn.Module, Run, Tensor, Score], Result]  # module, run, probe images, score


class VisionModel:
    """A network, its normalization, labels and task; it counts every row that it computes. Built by `sw.wrap`."""

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        size: tuple[int, int] | None,
        crop: float,
        interpolation: str,
        framing: str,
        padding: float,
        labels: Sequence[str] | None,
        task: Task,
        batch_size: int | None,
        precision: Precision,
        preprocess: Callable[[Image.Image], Tensor] | None,
        bounds: tuple[float, float] | None,
    ) -> None:
        self.module = module
        self.network = Network(module, mean, std, task, precision)
        self.name = name
        self.size, self.crop, self.interpolation = size, crop, interpolation
        self.framing, self.padding = framing, padding
        self.weights = ""  # where they came from, in words; "": as the network was given
        self.loaded: dict[str, Any] | None = None  # the arguments of the sw.load that made it, as plain JSON values
        self.version: str | None = None  # the user's own name of this version, for the records
        self.labels = list(labels) if labels is not None else None
        self.task: Task = task
        self.batch_size, self.precision, self.preprocess = batch_size, precision, preprocess
        self.bounds = bounds  # of a pixel; None: unknown, the images are the network's own input
        self.channels = len(mean) if mean is not None else 3
        self.mean, self.std = mean, std
        self.forward_rows = 0  # rows computed without a gradient
        self.gradient_rows = 0  # rows computed forward and backward
        self.on_rows: Callable[[int], None] | None = None  # told of every batch of rows as it is computed
        self._timed_batch: int | None = None
        self._traces: dict[tuple[Any, ...], tuple[Any, Target]] = {}  # the target is kept for its id
        self._output_shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._fingerprint: tuple[capture.Version, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the model without what it found by running, which is found again."""
        return {**self.__dict__, "_traces": {}, "_output_shapes": {}, "on_rows": None}

    @property
    def device(self) -> torch.device:
        """Where the network's first parameter lies; it is never moved."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype | None:
        """Of most of the network's float parameters; its input is given in it."""
        return self.network.dtype

    def _score(self, target: Target, rows: Tensor, answers: list[Answer]) -> Score:
        return noted_score(target, rows, answers, self.network.logits)

    # -- running the network -------------------------------------------------------------------------------------

    def guarded(self, seed: int = 0) -> AbstractContextManager[capture.Version]:
        """capture.guard around this network; inside another guard of the same model it costs nothing."""
        return self.network.guarded(seed)

    def holding(self, beside: Beside) -> AbstractContextManager[None]:
        """Inside, runs that ask no question (of probe images) give the network the first row of this beside the image."""
        return self.network.holding(beside)

    def forward(self, x: Tensor, beside: Beside | None = None) -> Any:
        """The network's own output for pixels x (R, C, *axes) in [0, 1]: normalization, dtype and precision inside."""
        return self.network.forward(x, beside)

    def reading(self, shape: Sequence[int]) -> Reading:
        """How the network reads images of shape (C, *axes), and what its scores come out of; found once per shape."""
        return self.network.reading(shape, self.batch_size != 1)

    def memory_format(self, shape: Sequence[int]) -> str:
        """How images of shape (C, *axes) are laid out for the network: `channels_last` where that gives its own output.

        A CPU convolves that layout faster: of ten torchvision networks a forward took 0.55 to 1.01 of its time. Not every
        network can read it (`x.view(len(x), -1)` raises).
        """
        return "channels_last" if self.reading(shape).channels_last else "contiguous"

    def predict(self, images: Tensor, beside: Beside | None = None) -> Tensor:
        """Clean table of logits (N, classes), float32, of images (N, C, *axes) in [0, 1]; no gradient.

        beside: what the network is given beside each image, by the names of its forward, (N, ...).
        """
        given = check_beside(self.module, beside, len(images))

        def run(part: slice) -> Tensor:
            outputs = self.forward(images[part], {k: v[part] for k, v in given.items()})
            table = self.network.logits(outputs)
            table = (scores(outputs, len(images[part])) if table is None else table).float()
            self.count(forward=len(table))
            return table

        with self.holding(given), self.guarded(), torch.no_grad():
            return torch.cat(self.in_batches(len(images), images.shape[1:], run))

    def answer(self, x: Tensor, target: Target, rows: Tensor, folded: bool = False) -> Answer:
        """For one batch of rows: what the network says of x, no gradient; `folded`, as Network.folded has it, to rounding."""
        answers: list[Answer] = []
        with self.guarded(), torch.no_grad():
            run = partial(self.forward, x, target.beside_of(rows))
            outputs = self.network.folded(run, differentiable=False) if folded else run()
            self._score(target, rows, answers)(outputs)
        self.count(forward=len(x))
        return answers[0]

    def answer_with_edit(
        self, x: Tensor, target: Target, rows: Tensor, layer: Layer, edit: Callable[[Tensor], Tensor]
    ) -> Answer:
        """The same when a layer's output is replaced on the way; `edit` maps its cells (R, channels, *grid)."""

        def look(run: Call, score: Score) -> None:
            outputs = capture.output_with_edit(run, layer.site, lambda tensor: layer.edited(tensor, edit))
            with torch.no_grad():
                score(outputs)

        return self.through(x, target, rows, look)[1]

    def input_gradients(
        self, x: Tensor, target: Target, rows: Tensor, rule: capture.Rule | None = None, differentiable: bool = False
    ) -> tuple[Tensor, Answer]:
        """For one batch of rows: d score / d pixel (R, C, *axes), float32, and the answer of the same forward.

        rule: another rule than backpropagation's at every ReLU; the answer's `gates` say where it was set.
        differentiable: the gradient keeps a graph to x and to the parameters that require a gradient.
        """
        answers: list[Answer] = []
        gates: list[capture.Gates] = []

        def set_rule(last: Any) -> None:
            if rule is not None:
                gates.append(capture.gate_relus(self.module, last, rule))

        leaves: list[Tensor] = []
        noted = self._score(target, rows, answers)

        def run(leaf: Tensor) -> Any:
            leaves.append(leaf)
            return self.forward(leaf, target.beside_of(rows))

        def score(outputs: Any) -> Tensor:
            values = noted(outputs)
            gone = target.task == "detection" and not values.requires_grad and not bool(values.any())
            return values + leaves[-1][:0].sum() if gone else values  # no box is left: a zero gradient, not a cut graph

        gradients = partial(capture.input_gradient, self.module, run, x, score, set_rule, differentiable)
        with self.guarded():
            gradient = self.network.folded(gradients, differentiable)
        self.count(gradient=len(x))
        return gradient.float(), replace(answers[-1], gates=gates[-1] if gates else None)

    def activations(
        self, x: Tensor, target: Target, rows: Tensor, chosen: Sequence[Layer]
    ) -> tuple[list[Tensor], Answer]:
        """For one batch of rows: activations (R, channels, *grid) without a gradient, and the answer of that forward."""
        sites = [layer.site for layer in chosen]
        kept, answer = self.through(x, target, rows, lambda run, score: capture.outputs_at(lambda: score(run()), sites))
        return [layer.cells(tensor) for layer, tensor in zip(chosen, kept, strict=True)], answer

    def activations_and_gradients(
        self,
        x: Tensor,
        target: Target,
        rows: Tensor,
        chosen: Sequence[Layer],
        scale: float = 1,
        differentiable: bool = False,
    ) -> tuple[list[Tensor], list[Tensor], Answer]:
        """For one batch of rows: activations and d score / d activation as (R, channels, *grid), and the answer.

        scale: what the layers' activations are multiplied by before the rest of the network sees them.
        differentiable: both keep a graph to x and to the parameters that require a gradient.
        """
        sites = [layer.site for layer in chosen]

        def look(run: Call, score: Score) -> tuple[list[Tensor], list[Tensor | None]]:
            return capture.activations_and_gradients(run, sites, score, scale, differentiable)

        (kept, gradients), answer = self.through(x, target, rows, look, gradient=True)
        grids = [layer.cells(tensor) for layer, tensor in zip(chosen, kept, strict=True)]
        slopes = [layer.slope(gradient) for layer, gradient in zip(chosen, gradients, strict=True)]
        return grids, slopes, answer

    def through(
        self, x: Tensor, target: Target, rows: Tensor, look: Callable[[Call, Score], Result], gradient: bool = False
    ) -> tuple[Result, Answer]:
        """For one batch of rows: what `look(run, score)` finds in one run of the network, and the answer of that run."""
        answers: list[Answer] = []
        with self.guarded():
            run = partial(self.forward, x, target.beside_of(rows))
            found = look(run, self._score(target, rows, answers))
        self.count(**{"gradient" if gradient else "forward": len(x)})
        return found, answers[0]

    def count(self, forward: int = 0, gradient: int = 0) -> None:
        """Note rows that were computed, and tell whoever draws the progress."""
        self.forward_rows += forward
        self.gradient_rows += gradient
        if self.on_rows is not None:
            self.on_rows(forward + gradient)

    def in_batches(self, n: int, shape: Sequence[int], run: Callable[[slice], Result]) -> list[Result]:
        """`run(part)` over n rows in batches; on an accelerator's out-of-memory the batch is halved, reported once."""
        results: list[Result] = []
        start, size = 0, self.rows_per_forward(n, shape)  # the reading is settled there, before any hook is set
        with self.network.many(shape) if n > throughput.BATCHES_TO_TIME[-1] else nullcontext():  # whatever was timed
            while start < n:
                try:
                    results.append(run(slice(start, min(start + size, n))))
                except torch.OutOfMemoryError as error:
                    size = self.halve_batch(size, error)
                else:
                    start += size
        return results

    def halve_batch(self, size: int, error: torch.OutOfMemoryError) -> int:
        """Remember that `size` rows did not fit; the next size to try. RefusalError where there is none."""
        if size == 1:
            raise RefusalError(f"one image does not fit into the memory of {self.device}: {error}") from error
        torch.cuda.empty_cache()
        self.batch_size = size // 2
        warnings.warn(
            f"{size} rows do not fit on {self.device}; going on with {size // 2}.", RuntimeWarning, stacklevel=3
        )
        return size // 2

    @property
    def rows_together(self) -> int | None:
        """Rows in one forward as they stand: the user's `batch_size`, or what was timed; None: all, or what fits."""
        return self._timed_batch if self.batch_size is None else self.batch_size

    def rows_per_forward(self, n: int, shape: Sequence[int]) -> int:
        """Rows in one forward: the user's `batch_size`, or one that was timed once (CPU), or the largest that fits."""
        fixed = 1 if self.reading(shape).alone else self.network.fixed_rows
        if fixed is not None:
            return max(1, min(fixed, n))
        if self.batch_size is not None:
            return max(1, min(self.batch_size, n))
        if n <= throughput.BATCHES_TO_TIME[0]:
            return max(1, n)
        if self.device.type != "cpu":
            return min(BATCH_ON_ACCELERATOR, n)
        if self._timed_batch is None:
            with self.guarded(), torch.no_grad():
                self._timed_batch = throughput.fastest_batch(self.forward, shape)
        return min(self._timed_batch, n)

    # -- looking into it -----------------------------------------------------------------------------------------

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the score table for one image of shape (C, *axes); found once by a run on gray, not counted."""
        with self.guarded():
            key = (self.network.structure, *shape)
        if key not in self._output_shapes:
            self.reading(shape)
            with self.guarded(), torch.no_grad():
                table = scores(self.forward(torch.full((1, *shape), 0.5, dtype=torch.float32)), 1)
            outputs = table.shape[1]
            if self.labels is not None and outputs > 1 and len(self.labels) != outputs:
                raise UsageError(f"{len(self.labels)} labels given, but the network has {outputs} outputs.")
            self._output_shapes[key] = tuple(table.shape)
        return self._output_shapes[key]

    def input_shape(self) -> tuple[int, ...]:
        """(C, h, w) that the network is shown; UsageError where `size` was not given."""
        if self.size is None:
            raise UsageError(
                "the input size of this model is unknown: give size=224, or --size 224 (sw.wrap, sw.load)."
            )
        return (self.channels, *self.size)

    def layers(self, progress: Callable[[int, int], None] | None = None) -> LayerTable:
        """Every place where a map could be taken, in order of execution, each tested; found by running the network.

        progress: called with (layers done, layers in all); a layer costs two forward rows, a doubtful one about thirty.
        """
        trace = self._trace(self.input_shape(), PREDICTED)
        with self.guarded(), torch.no_grad():
            return trace.all_tested(progress)

    def default_layer(self, target: Target = PREDICTED, shape: Sequence[int] | None = None) -> Layer:
        """The last trunk layer with a grid finer than one cell and a gradient from the target at its cells."""
        with self.guarded(), torch.no_grad():
            return self._trace(self.input_shape() if shape is None else shape, target).choose()

    def find_layers(
        self, given: str | nn.Module | Sequence[str | nn.Module] | None, shape: Sequence[int], target: Target
    ) -> list[Layer]:
        """Layers by name or as objects, in order of execution; the default layer for None."""
        if given is None:
            return [self.default_layer(target, shape)]
        several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
        if several and all(isinstance(one, Layer) for one in several):  # found by an earlier call
            return several
        if not several:
            raise UsageError("no layer was given.")
        trace = self._trace(shape, target)
        with self.guarded(), torch.no_grad():
            found = [trace.find(one) for one in several]
        order = [layer.name for layer in trace.layers]
        return sorted(found, key=lambda layer: order.index(layer.name))

    def find_layer(self, given: Any, shape: Sequence[int], target: Target) -> Layer:
        """The layer of a method that takes one: a name, an object, or a list of one of these."""
        if isinstance(given, list | tuple) and len(given) != 1:
            raise UsageError(f"this method takes one layer; {len(given)} were given.")
        return self.find_layers(given, shape, target)[0]

    def attention(self, shape: Sequence[int], target: Target = PREDICTED) -> Attention:
        """The network's attention over all its tokens, and which of them the target is read from."""
        return self._found(find_attention, shape, target)

    def _trace(self, shape: Sequence[int], target: Target) -> Trace:
        return self._found(Trace, shape, target)

    def _found(self, look: Look[Result], shape: Sequence[int], target: Target) -> Result:
        """What `look` finds in this network for this input shape, from two probe rows; found once, kept, not counted."""
        if isinstance(self.module, torch.jit.ScriptModule):
            raise RefusalError(
                "a scripted or traced model hides its layers (inner hooks fail or never fire): no class activation map, no "
                "attention. Input methods are exact on it: gradient, smooth_grad, integrated_gradients."
            )
        held = self.network.held
        with self.guarded():
            key = (look, self.network.structure, tuple(shape), *held, *target.asked_of_probes())
        if key not in self._traces:
            if self.reading(shape).alone:
                raise RefusalError(
                    "this network takes one image at a time, or its answer to one depends on the others of a batch (a "
                    "BatchNorm without running statistics, say): its layers cannot be compared between images. Input methods "
                    "run it image by image: gradient, smooth_grad, integrated_gradients, occlusion."
                )
            if len(self._traces) == TRACES_KEPT:
                del self._traces[next(iter(self._traces))]
            probes = (probe_images(shape) if target.probes is None else target.probes).to(self.device)
            rows = torch.arange(len(probes), device=self.device)
            question = target.for_probes(rows, self.task)

            def network(x: Tensor) -> Any:  # a network that draws random numbers draws the same ones in every probe run
                with capture.random_states(0):
                    return self.forward(x, repeated(held, len(x)))

            most = self.batch_size or (ROWS_OF_EXPERIMENTS if self.device.type == "cpu" else FEWEST_ROWS)
            with self.guarded(), torch.no_grad():
                score = self._score(question, rows, [])
                seen = in_memory(lambda n: look(self.module, Run(network, n), probes, score), most, self.device)
            self._traces[key] = (seen, target)
        found: Result = self._traces[key][0]
        return found

    def fingerprint(self) -> str:
        """SHA-256 of the architecture and every tensor, whatever file they came from; kept until a tensor changes."""
        key = capture.version(self.module)
        if self._fingerprint is None or self._fingerprint[0] != key:
            self._fingerprint = (key, capture.digest(self.module))
        return self._fingerprint[1]

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.size)) if self.size else "unknown size"
        return f"VisionModel({self.name}, {self.task}, {size}, {self.precision} on {self.device})"

"""The user's network as a function of pixels: normalization, dtype, precision and memory layout inside, logits outside."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seewhy import capture
from seewhy.beside import Beside, call, repeated
from seewhy.errors import RefusalError, UsageError, first_line
from seewhy.forms import probe_images
from seewhy.normalization import normalized
from seewhy.reading import Ending, Reading, logits, read, same_outputs
from seewhy.target import Task

Result = TypeVar("Result")
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What networks raise on input that they cannot take.
FAULTS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


class Network:
    """A module, run on pixels."""

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        task: Task,
        precision: Precision,
    ) -> None:
        self.module, self.task, self.precision = module, task, precision
        self._mean, self._std = mean, std
        self.fixed_rows = capture.fixed_rows(module)  # an exported program may take one number of rows only
        self.held: Beside = {}  # what runs that ask no question give beside the image, one row
        self._guarded = False
        self._device: torch.device | None = None  # of the network, looked up when a guard is entered
        self._dtype: torch.dtype | None = None
        self._readings: dict[tuple[int, ...], Reading] = {}  # per input shape (C, *axes)
        self._heard: tuple[Ending, capture.Listening] | None = None  # in the last forward
        self._version = capture.Version(0, ())  # when the guard was last entered
        self._folds: dict[tuple[int, ...], tuple[capture.Fold, ...]] = {}  # per input shape (C, *axes)
        self._many: tuple[int, ...] | None = None  # the shape of images of which many rows are computed now
        self._folded: dict[bool, capture.Folded] = {}  # with and without a graph: of the weights as they are now

    @property
    def structure(self) -> int:
        """Which modules and tensors the network consisted of when a guard was last entered."""
        return self._version.structure

    @property
    def device(self) -> torch.device:
        """Where the network's first parameter lies; it is never moved."""
        if self._device is not None:
            return self._device
        first: Tensor | None = next(self.module.parameters(), None)
        first = next(self.module.buffers(), None) if first is None else first
        return first.device if first is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:
        """Of most of the network's float parameters; its input is given in it."""
        if self._guarded:
            return self._dtype
        numbers: dict[torch.dtype, int] = {}
        for p in self.module.parameters():
            if p.is_floating_point() and not is_lazy(p):
                numbers[p.dtype] = numbers.get(p.dtype, 0) + p.numel()
        return max(numbers, key=lambda dtype: numbers[dtype]) if numbers else None

    @contextmanager
    def guarded(self, seed: int = 0) -> Iterator[capture.Version]:
        """capture.guard around this network; inside another guard of the same network it costs nothing."""
        if self._guarded:
            yield self._version
            return
        self._device, self._dtype, self._guarded = self.device, self.dtype, True
        try:
            with capture.guard(self.module, seed=seed) as version:
                if version.structure != self._version.structure:  # another head, another layer: all is found again
                    self._readings.clear()
                    self._folds.clear()
                self._version = version
                yield version
        finally:
            self._guarded, self._device, self._dtype, self._heard = False, None, None, None

    @contextmanager
    def holding(self, beside: Beside) -> Iterator[None]:
        """Inside, runs that ask no question (of probe images) give the network the first row of this beside the image."""
        before, self.held = self.held, {name: values[:1] for name, values in beside.items()}
        try:
            yield
        finally:
            self.held = before

    def forward(self, x: Tensor, beside: Beside | None = None) -> Any:
        """The network's own output for pixels x (R, C, *axes) in [0, 1]; UsageError where it cannot take them."""
        x = (
            normalized(x.to(self.device), self._mean, self._std)
            if self._mean is not None
            else x.to(self.device).clone()
        )
        if self._reading_of(x).channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.run(x, repeated(self.held, len(x)) if beside is None else beside)

    def run(self, z: Tensor, beside: Beside) -> Any:
        """The same for its own input z (R, C, *axes), which is normalized already."""
        ending = self._reading_of(z).ending if self._guarded else None
        listening, dtype = capture.Listening(), self.dtype
        self._heard = None if ending is None else (ending, listening)
        listen = listening if ending is not None and ending.reached else nullcontext()
        with torch.autocast(z.device.type, PRECISIONS[self.precision], enabled=self.precision != "float32"), listen:
            try:
                z = z if dtype is None else z.to(dtype)
                rows = 1 if self._reading_of(z).alone else self.fixed_rows
                return capture.in_rows(lambda part, given: call(self.module, part, given), z, beside, rows)
            except torch.OutOfMemoryError:
                raise
            except FAULTS as error:
                raise self._fault(z.shape, error) from error

    def _reading_of(self, x: Tensor) -> Reading:
        return self._readings.get(tuple(x.shape[1:])) or Reading()

    def _fault(self, shape: Sequence[int], error: Exception) -> UsageError | RefusalError:
        said = first_line(error)
        where = self._where(error)
        if "on Tensor that requires grad" in said:
            return RefusalError(
                f"no gradient reaches the input: the graph is cut at {where}, which leaves torch for numpy ({said}); "
                f"{capture.WITHOUT_GRADIENTS}."
            )
        text = f"the network failed on {shape[0]} image(s) of {' x '.join(map(str, shape[1:]))}, at {where}: {said}."
        few = PRECISIONS[self.precision] if self.precision != "float32" else self.dtype
        if isinstance(error, NotImplementedError) and few in capture.FEW_DIGITS:
            number = str(few).removeprefix("torch.")
            text += (
                f" An operation has no {number} form on {self.device.type}: use precision='float32' and module.float()."
            )
        return UsageError(text)

    def _where(self, error: Exception) -> str:
        """The innermost of the network's modules in which an error arose."""
        names = {id(m): f"{name} ({type(m).__name__})" for name, m in self.module.named_modules() if name}
        where, trace = capture.OUTSIDE, error.__traceback__
        while trace is not None:
            where = names.get(id(trace.tb_frame.f_locals.get("self")), where)
            trace = trace.tb_next
        return where

    def logits(self, outputs: Any) -> Tensor | None:
        """The logits (R, classes) behind the last forward's output; None where they are that output itself."""
        return None if self._heard is None else logits(outputs, self._heard[0], self._heard[1].calls)

    def reading(self, shape: Sequence[int], pairs: bool = True) -> Reading:
        """How the network reads images of shape (C, *axes): found once per shape, from a row or two of noise, not counted.

        pairs: whether it may be given two rows at once.
        """
        key = tuple(shape)
        if key not in self._readings:
            try_it = len(key) == 3 and min(key) > 1 and self.device.type == "cpu" and self.precision == "float32"

            def run(x: Tensor, channels_last: bool) -> Any:
                self._readings[key] = Reading(channels_last)
                return self.forward(x)

            try:
                with self.guarded(), torch.no_grad():
                    found = read(run, probe_images(key)[:1], try_it, self.task, pairs and self.fixed_rows is None)
            finally:
                self._readings.pop(key, None)
            self._readings[key] = found
        return self._readings[key]

    # -- with the batch normalizations folded into the convolutions -----------------------------------------------

    @contextmanager
    def many(self, shape: Sequence[int]) -> Iterator[None]:
        """Inside, where the weights do not change, `folded` folds the batch normalizations, which costs about a row.

        A gradient row of images of shape (C, *axes) then costs about 0.8 of what it did (lite0, ResNet-50).
        """
        before, self._many = self._many, self._many or tuple(shape)
        try:
            yield
        finally:
            self._many = before
            if before is None:
                self._folded.clear()

    def folded(self, run: Callable[[], Result], differentiable: bool) -> Result:
        """`run()`; inside `many` with the weights folded, and again as it stands where the network went other ways.

        differentiable: what is computed keeps its graph to the network's own parameters.
        """
        folds = () if self._many is None or capture.hooked(self.module) else self._folds_of(self._many)
        if self._many is None or not folds:
            return run()
        if differentiable not in self._folded:
            with torch.set_grad_enabled(differentiable):
                channels_last = self.reading(self._many).channels_last
                self._folded[differentiable] = capture.folded_weights(folds, channels_last)
        with capture.Folding(self._folded[differentiable]) as folding:
            found = run()
        if not folding.astray:
            return found
        self._folds[self._many] = ()
        return run()

    def _folds_of(self, shape: tuple[int, ...]) -> tuple[capture.Fold, ...]:
        """What can be folded, found once per shape from a row of noise, not counted; nothing where that says otherwise."""
        if shape not in self._folds:
            of, own = self.reading(shape), not isinstance(self.module, torch.jit.ScriptModule)
            plain = self.precision == "float32" and of.few_digits is None and not of.alone
            self._folds[shape] = self._proven(shape) if plain and own and self.device.type == "cpu" else ()
        return self._folds[shape]

    def _proven(self, shape: tuple[int, ...]) -> tuple[capture.Fold, ...]:
        row = probe_images(shape)[:1]

        def run() -> Any:
            with capture.random_states(0):
                return self.forward(row)

        with self.guarded(), torch.no_grad():
            folds = capture.find_folds(self.module, run)
            if not folds:
                return ()
            weights = capture.folded_weights(folds, self.reading(shape).channels_last)
            with capture.Folding(weights, apart=True) as folding:
                found = run()
            return folds if same_outputs(run(), found) and not folding.astray else ()

"""sw.wrap: a network and how it wants its pixels, checked and made into a VisionModel."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from seewhy.errors import UsageError, known_name, real_number, whole_number
from seewhy.model import VisionModel
from seewhy.network import PRECISIONS, Network, Precision
from seewhy.target import TASKS, Task

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
Framing = Literal["crop", "stretch", "pad"]
FRAMINGS: tuple[str, ...] = get_args(Framing)


def wrap(
    module: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    crop: float = 1.0,
    interpolation: str = "bicubic",
    framing: Framing = "crop",
    padding: float = 0.0,
    labels: Sequence[str] | None = None,
    task: Task = "multiclass",
    batch_size: int | None = None,
    precision: Precision = "float32",
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    name: str | None = None,
) -> VisionModel:
    """A network and how it wants its pixels: images come in as [0, 1], `(x - mean) / std` happens inside.

    size: the input's height and width (or one number for both). A photo is scaled to size / crop, and the central `size`
    is shown: framing "crop" covers it (the shorter side fits, the rest is cut off), "stretch" gives the photo that very
    shape, "pad" lets all of it fit inside borders of gray `padding` in [0, 1]. labels: class names in order; batch_size:
    rows in one forward (None: timed once on a CPU, the largest that fits on an accelerator). preprocess: a callable PIL
    image -> (C, h, w) tensor instead of all this; maps then stay in its space. DataParallel and torch.compile wrappers
    are taken off. UsageError for values that cannot be meant.
    """
    _check_wrap(module, mean, std, size, crop, interpolation, framing, padding, labels, task, batch_size, precision)
    plain = unwrap(module)
    return VisionModel(
        plain,
        name=name or type(plain).__name__,
        mean=mean,
        std=std,
        size=(size, size) if isinstance(size, int) else None if size is None else (size[0], size[1]),
        crop=crop,
        interpolation=interpolation,
        framing=framing,
        padding=padding,
        labels=labels,
        task=task,
        batch_size=batch_size,
        precision=precision,
        preprocess=preprocess,
        bounds=None if preprocess is not None else (0.0, 1.0),
    )


def _check_wrap(
    module: Any,
    mean: Any,
    std: Any,
    size: Any,
    crop: Any,
    interpolation: Any,
    framing: Any,
    padding: Any,
    labels: Any,
    task: Any,
    batch_size: Any,
    precision: Any,
) -> None:
    if not isinstance(module, nn.Module):
        raise UsageError(f"sw.wrap takes a torch.nn.Module, not {type(module).__name__}.")
    if (mean is None) != (std is None):
        raise UsageError("mean and std come together, one value per channel.")
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if not isinstance(values, Sequence):
            raise UsageError(
                f"{name} is a list of numbers, one per channel, not {type(values).__name__}: {name}.tolist()?"
            )
        if isinstance(values, str) or not values or len(values) != len(mean):
            raise UsageError(f"{name} holds one number per channel, as many as mean; got {values!r}.")
        for value in values:
            real_number(name, value, at_least=0, above=name == "std")
            if value > 1:
                raise UsageError(
                    f"{name} is of pixels in [0, 1]; got {value}, which is one of pixels from 0 to 255: divide mean and std "
                    "by 255."
                )
    for value in size if isinstance(size, tuple | list) else [] if size is None else [size]:
        whole_number("size", value, at_least=1)
    if isinstance(size, tuple | list) and len(size) != 2:
        raise UsageError(f"size is one number or (height, width); got {size!r}.")
    real_number("crop", crop, at_least=0, above=True)
    if crop > 1:
        raise UsageError(f"crop is the share of the scaled photo that is kept along a side, in (0, 1]; got {crop}.")
    real_number("padding", padding, at_least=0, at_most=1)
    if labels is not None and (isinstance(labels, str) or not isinstance(labels, Sequence)):
        raise UsageError(f"labels is a list of class names; got {labels!r}.")
    wrong = [label for label in labels or [] if not isinstance(label, str)]
    if wrong:
        raise UsageError(f"labels is a list of class names, each a text; got {type(wrong[0]).__name__} {wrong[0]!r}.")
    if batch_size is not None:
        whole_number("batch_size", batch_size, at_least=1)
    for name, value, known in (("task", task, TASKS), ("precision", precision, PRECISIONS)):
        known_name(name, value, known)
    known_name("interpolation", interpolation, INTERPOLATIONS)
    known_name("framing", framing, FRAMINGS)


def bare(module: nn.Module) -> VisionModel:
    """A network as it stands: the tensors given to it are its own input, of unknown bounds."""
    model = wrap(module)
    model.bounds = None
    return model


def unwrap(module: nn.Module) -> nn.Module:
    """The plain module inside DataParallel, DistributedDataParallel, torch.compile and AveragedModel."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]  # torch.compile's own name, checked one line above
        else:
            return module


def with_module(model: VisionModel, module: nn.Module) -> VisionModel:
    """The same model around another module of the same inputs and outputs; its rows are counted from 0."""
    twin = copy.copy(model)  # without what it found by running
    twin.module = module
    twin.network = Network(module, model.mean, model.std, model.task, model.precision)
    twin.forward_rows = twin.gradient_rows = 0
    return twin

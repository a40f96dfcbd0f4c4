"""Options that several commands share, and what they become."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.errors import UsageError, known_name

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.model import VisionModel

MODEL: Any = typer.Option(
    "lite0",
    help="lite0 (the embedded default), timm:NAME, torchvision:NAME, hf:FOLDER, MODULE:FACTORY in your own code, "
    "FILE.pt2 (torch.export) or FILE.pt (TorchScript).",
)
WEIGHTS: Any = typer.Option(
    None, help="Weights file (.pth, .ckpt, .safetensors), or 'random' for an untrained network."
)
LABELS: Any = typer.Option(None, help="Class names: a text file with one a line, JSON, or CSV (index, name).")
MEAN: Any = typer.Option(None, help="What is subtracted from pixels in [0, 1], per channel: 0.485,0.456,0.406.")
STD: Any = typer.Option(None, help="What they are then divided by: 0.229,0.224,0.225.")
SIZE: Any = typer.Option(None, help="Input of the network: 224, or height x width, 480x640.")
CROP: Any = typer.Option(None, help="A photo is scaled to size / crop, and the central size of it shown: 0.875.")
FRAMING: Any = typer.Option(None, help="crop (cut off what stands out), stretch, or pad (the whole photo in borders).")
TASK: Any = typer.Option(None, help="multiclass, multilabel, binary, regression, segmentation or detection.")
DEVICE: Any = typer.Option("cpu", help="cpu, cuda, cuda:1, mps.")
BATCH_SIZE: Any = typer.Option(None, help="Rows in one forward; default: measured once.")
PRECISION: Any = typer.Option("float32", help="float32, bfloat16 or float16 (maps are float32 always).")
MODEL_VERSION: Any = typer.Option(None, help="Your own name of this version of the model, for the records.")
SEED: Any = typer.Option(0, help="Seed of every random draw.")
JSON: Any = typer.Option(False, "--json", help="Print JSON.")


def pixels(
    mean: str | None, std: str | None, size: str | None, crop: float | None, framing: str | None
) -> dict[str, Any]:
    """How the network wants its pixels, as far as the options say it: arguments of sw.load."""
    given = {
        "mean": None if mean is None else _numbers("--mean", mean),
        "std": None if std is None else _numbers("--std", std),
        "size": None if size is None else _size(size),
        "crop": crop,
        "framing": framing,
    }
    return {name: value for name, value in given.items() if value is not None}


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is one number per channel, e.g. 0.485,0.456,0.406; got {text!r}.") from None


def _size(text: str) -> int | tuple[int, int]:
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.strip().isdecimal() for side in sides):
        raise UsageError(f"--size is one number, or height x width, e.g. 224 or 480x640; got {text!r}.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def load_model(
    model: str,
    weights: Path | None,
    labels: Path | None,
    device: str,
    batch_size: int | None,
    precision: str,
    *,
    task: str | None = None,
    pixels: dict[str, Any] | None = None,
    version: str | None = None,
) -> "VisionModel":
    """The network that the options describe; UsageError before any work for values that cannot be meant.

    pixels: what `pixels()` gives. version: the user's own name of this version.
    """
    import torch

    import seewhy as sw
    from seewhy.network import PRECISIONS

    known_name("precision", precision, PRECISIONS)
    try:
        torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}: cpu, cuda, cuda:1, mps.") from None
    network = sw.load(
        model,
        weights=weights,
        labels=labels,
        task=task,  # type: ignore[arg-type]  # checked by sw.load
        device=device,
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]  # checked above
        **(pixels or {}),
    )
    network.version = version
    return network


def parameters(pairs: list[str]) -> dict[str, Any]:
    """`name=value` options as keyword arguments; values are JSON where they can be (50, 0.2, true), else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--param takes name=value, e.g. --param samples=100; got {pair!r}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


PICTURES = ("baseline", "references")  # parameters that take pictures: a file, or a folder of images


def read_pictures(given: dict[str, Any], network: "VisionModel") -> dict[str, Any]:
    """The parameters with files and folders of pictures read into tensors, framed as the network is shown its images.

    A .npy file is taken as it is ((C, h, w) or (M, C, h, w) in [0, 1]: what `seewhy mean-image` writes).
    """
    read = dict(given)
    for name in PICTURES:
        value = given.get(name)
        if isinstance(value, str) and Path(value).exists():
            read[name] = _pictures(Path(value), network)
            if name == "baseline" and read[name].ndim == 4:
                read[name] = read[name].mean(0)
    return read


def _pictures(path: Path, network: "VisionModel") -> "Tensor":
    import numpy as np
    import torch

    from seewhy.data.images import find_images
    from seewhy.explanation.inputs import read_inputs

    if path.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} is no array of numbers ({error}).") from error
    images, _ = read_inputs(network, [*find_images([path])])
    return images

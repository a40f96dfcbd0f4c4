"""Options that several commands share, and what they become."""

import json
from collections.abc import Collection
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
WINDOW: Any = typer.Option(
    None, help="Of DICOM files: the n-th window in the file, or CENTER,WIDTH (--window=-600,1500). Default: the first."
)
FRAME: Any = typer.Option(None, help="Of files with several frames or pages: which one, from 1. Default: the first.")
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


def read_as(window: str | None, frame: int | None) -> dict[str, Any]:
    """How scans are to be read: arguments of read_photo."""
    given: dict[str, Any] = {} if frame is None else {"frame": frame}
    if window is not None:
        ends = _numbers("--window", window, "one number, or CENTER,WIDTH, e.g. -600,1500")
        if len(ends) > 2 or (len(ends) == 1 and ends[0] != int(ends[0])):
            raise UsageError(f"--window is the number of a window in the file, or CENTER,WIDTH; got {window!r}.")
        given["window"] = int(ends[0]) if len(ends) == 1 else ends
    return given


def _numbers(option: str, text: str, what: str = "one number per channel, e.g. 0.485,0.456,0.406") -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is {what}; got {text!r}.") from None


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


def read_pictures(given: dict[str, Any], network: "VisionModel", takes: Collection[str] = ()) -> dict[str, Any]:
    """The parameters with files and folders of pictures read into tensors, framed as the network is shown its images.

    A .npy file is taken as it is ((C, h, w) or (M, C, h, w) in [0, 1]: what `seewhy mean-image` writes). What that
    command wrote beside it becomes the reason for the baseline, unless one is given, where a method takes one (`takes`).
    """
    read = dict(given)
    for name in PICTURES:
        value = given.get(name)
        if isinstance(value, str) and Path(value).exists():
            read[name] = _pictures(Path(value), network)
            if name == "baseline" and read[name].ndim == 4:
                read[name] = read[name].mean(0)
            if name == "baseline" and "baseline_reason" in takes and (reason := _mean_of(Path(value), read[name])):
                read.setdefault("baseline_reason", reason)
    return read


def _mean_of(path: Path, values: "Tensor") -> str | None:
    """What `seewhy mean-image` wrote of an array beside it, in words; UsageError where that is of another array."""
    from seewhy.explanation import sha256

    beside = path.with_suffix(".json")
    if path.suffix != ".npy" or not beside.is_file():
        return None
    try:
        about = json.loads(beside.read_text("utf-8"))
        n, own, images = int(about["n"]), str(about["sha256"]), str(about["images_sha256"])
    except (ValueError, KeyError, TypeError):
        return None  # some other file of that name
    if own != sha256(values):
        raise UsageError(f"{beside} describes another array than {path}: make both again with seewhy mean-image.")
    return f"the mean of {n} images (SHA-256 {own}; of the sorted SHA-256 of their files {images})"


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

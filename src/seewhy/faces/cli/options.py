"""Options that several commands share, and what they become."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.errors import UsageError, known_name

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.model import VisionModel

MODEL: Any = typer.Option("lite0", help="lite0 (the embedded default) or timm:<architecture>.")
WEIGHTS: Any = typer.Option(None, help="Weights file (.pth, .safetensors), or 'random' for an untrained network.")
LABELS: Any = typer.Option(None, help="Class names: a text file with one a line, or a JSON list.")
DEVICE: Any = typer.Option("cpu", help="cpu, cuda, cuda:1, mps.")
BATCH_SIZE: Any = typer.Option(None, help="Rows in one forward; default: measured once.")
PRECISION: Any = typer.Option("float32", help="float32, bfloat16 or float16 (maps are float32 always).")
SEED: Any = typer.Option(0, help="Seed of every random draw.")
JSON: Any = typer.Option(False, "--json", help="Print JSON.")


def load_model(
    model: str, weights: Path | None, labels: Path | None, device: str, batch_size: int | None, precision: str
) -> "VisionModel":
    """The network that the options describe; UsageError before any work for values that cannot be meant."""
    import torch

    import seewhy as sw
    from seewhy.network import PRECISIONS

    known_name("precision", precision, PRECISIONS)
    try:
        torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}: cpu, cuda, cuda:1, mps.") from None
    names = None if labels is None else read_labels(labels)
    return sw.load(model, weights=weights, labels=names, device=device, batch_size=batch_size, precision=precision)  # type: ignore[arg-type]  # checked above


def read_labels(path: Path) -> list[str]:
    """Class names from a text file (one a line) or a JSON list."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels file {path} cannot be read ({error}).") from error
    if path.suffix == ".json":
        try:
            names = json.loads(text)
        except ValueError as error:
            raise UsageError(f"labels file {path} is not JSON ({error}).") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"labels file {path} must hold a JSON list of class names.")
        return names
    return [line.strip() for line in text.splitlines() if line.strip()]


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

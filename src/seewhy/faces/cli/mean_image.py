"""seewhy mean-image."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, UNUSABLE, progress_bar, result, result_json, say

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.model import VisionModel


def mean_image(
    images: list[Path] = typer.Argument(help="Training images, or folders of them."),
    out: Path = typer.Option(
        Path("mean.npy"), help="Where the array is written; a picture of it lies beside it (.png)."
    ),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    mean: str | None = options.MEAN,
    std: str | None = options.STD,
    size: str | None = options.SIZE,
    crop: float | None = options.CROP,
    framing: str | None = options.FRAMING,
    max_skipped: int = typer.Option(0, help="More skipped images than this end with exit code 3."),
    as_json: bool = options.JSON,
) -> None:
    """Average images as a network is shown them: a baseline for path methods (--param baseline=mean.npy)."""
    from seewhy.errors import UsageError
    from seewhy.faces.cli.explain import find

    if out.suffix != ".npy":
        raise UsageError(f"--out is an array file, e.g. mean.npy; got {out}.")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write into.")
    paths, skipped = find(images)
    pixels = options.pixels(mean, std, size, crop, framing)
    network = options.load_model(model, weights, None, "cpu", None, "float32", pixels=pixels)
    try:
        average, n = _mean(network, paths, skipped)
    except KeyboardInterrupt:
        say("interrupted: a mean of some of the images is no mean of all; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    for item in skipped:
        say(f"skipped: {item['reason']}")
    if average is None:
        raise typer.Exit(UNUSABLE)
    picture = _write(average, out)
    if as_json:
        result_json({"n": n, "skipped": skipped, "array": str(out.resolve()), "picture": str(picture)})
    else:
        result(f"mean of {n} images: {out.resolve()}")
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def _mean(network: "VisionModel", paths: Sequence[Path], skipped: list[dict[str, str]]) -> "tuple[Tensor | None, int]":
    """The mean of the images that can be read, and how many they are; the others go into `skipped`."""
    import torch

    from seewhy.errors import ImageError
    from seewhy.explanation.inputs import read_inputs

    total, n = torch.zeros(network.input_shape(), dtype=torch.float64), 0
    with progress_bar() as step:
        for done, path in enumerate(paths):
            step(path.name, done, len(paths))
            try:
                x, _ = read_inputs(network, path)
            except ImageError as error:
                skipped.append({"path": str(path), "reason": str(error)})
                continue
            total, n = total + x[0], n + 1
    return ((total / n).float() if n else None), n


def _write(mean: "Tensor", out: Path) -> Path:
    """The array, and a picture of it beside it."""
    import numpy as np
    from PIL import Image

    pixels, picture = mean.numpy(), out.with_suffix(".png").resolve()
    np.save(out, pixels)
    shown = (255 * pixels.clip(0, 1)).round().astype("uint8").transpose(1, 2, 0)
    Image.fromarray(shown.squeeze()).save(picture)
    return picture

"""seewhy mean-image."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, UNUSABLE, progress_bar, result, result_json, say

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.model import VisionModel


def mean_image(
    images: list[Path] = typer.Argument(help="Training images, or folders of them."),
    out: Path = typer.Option(
        Path("mean.npy"),
        help="Where the array is written; beside it a picture of it (.png) and what it is the mean of (.json).",
    ),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    mean: str | None = options.MEAN,
    std: str | None = options.STD,
    size: str | None = options.SIZE,
    crop: float | None = options.CROP,
    framing: str | None = options.FRAMING,
    window: str | None = options.WINDOW,
    frame: int | None = options.FRAME,
    max_skipped: int = typer.Option(0, help="More skipped images than this end with exit code 3."),
    as_json: bool = options.JSON,
) -> None:
    """Average images as a network is shown them: a baseline for path methods (--param baseline=mean.npy)."""
    from seewhy.errors import UsageError
    from seewhy.faces.cli.explain import find

    read_as = options.read_as(window, frame)
    if out.suffix != ".npy":
        raise UsageError(f"--out is an array file, e.g. mean.npy; got {out}.")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write into.")
    paths, skipped = find(images)
    pixels = options.pixels(mean, std, size, crop, framing)
    network = options.load_model(model, weights, None, "cpu", None, "float32", pixels=pixels)
    try:
        average, hashes = _mean(network, paths, skipped, read_as)
    except KeyboardInterrupt:
        say("interrupted: a mean of some of the images is no mean of all; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    for item in skipped:
        say(f"skipped: {item['reason']}")
    if average is None:
        raise typer.Exit(UNUSABLE)
    picture, about = _write(average, out, hashes, len(skipped))
    if as_json:
        result_json({**about, "skipped": skipped, "array": str(out.resolve()), "picture": str(picture)})
    else:
        result(f"mean of {about['n']} images: {out.resolve()}")
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def _mean(
    network: "VisionModel", paths: Sequence[Path], skipped: list[dict[str, str]], read_as: dict[str, Any]
) -> "tuple[Tensor | None, list[str]]":
    """The mean of the images that can be read, and the hashes of their files; the others go into `skipped`."""
    import torch

    from seewhy.data.images import read_photo
    from seewhy.errors import ImageError
    from seewhy.explanation.inputs import read_inputs

    total, hashes = torch.zeros(network.input_shape(), dtype=torch.float64), []
    with progress_bar() as step:
        for done, path in enumerate(paths):
            step(path.name, done, len(paths))
            try:
                x, (shown,) = read_inputs(network, read_photo(path, **read_as))
            except ImageError as error:
                skipped.append({"path": str(path), "reason": str(error)})
                continue
            total = total + x[0]
            hashes.append(shown.sha256)
    return ((total / len(hashes)).float() if hashes else None), hashes


def _write(mean: "Tensor", out: Path, hashes: Sequence[str], skipped: int) -> tuple[Path, dict[str, Any]]:
    """The array, and beside it a picture and a description of it, by hashes: no name of a file is in it."""
    import hashlib
    import json

    import numpy as np
    from PIL import Image

    from seewhy.explanation import sha256

    pixels, picture = mean.numpy(), out.with_suffix(".png").resolve()
    np.save(out, pixels)
    images = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()  # the same for the same files in any order
    about = {"sha256": sha256(mean), "n": len(hashes), "n_skipped": skipped, "images_sha256": images}
    out.with_suffix(".json").write_text(json.dumps({**about, "shape": list(mean.shape)}, indent=1) + "\n", "utf-8")
    shown = (255 * pixels.clip(0, 1)).round().astype("uint8").transpose(1, 2, 0)
    Image.fromarray(shown.squeeze()).save(picture)
    return picture, about

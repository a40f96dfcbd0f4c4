"""The photos of the demo: real ones, that the scikit-image and scikit-learn wheels carry. Nothing is downloaded."""

import shutil
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from PIL import Image

import seewhy as sw

WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
# scikit-image's are in the public domain or CC0 (its docstrings name each photographer), scikit-learn's two are CC BY 2.0.
PHOTOS = {
    "astronaut.png": ("skimage", "data/astronaut.png"),
    "brick.png": ("skimage", "data/brick.png"),
    "camera.png": ("skimage", "data/camera.png"),
    "cat.png": ("skimage", "data/chelsea.png"),
    "coffee.png": ("skimage", "data/coffee.png"),
    "coins.png": ("skimage", "data/coins.png"),
    "flower.jpg": ("sklearn", "datasets/images/flower.jpg"),
    "grass.png": ("skimage", "data/grass.png"),
    "gravel.png": ("skimage", "data/gravel.png"),
    "hubble.jpg": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle.png": ("skimage", "data/motorcycle_left.png"),
    "page.png": ("skimage", "data/page.png"),
    "retina.jpg": ("skimage", "data/retina.jpg"),
    "rocket.jpg": ("skimage", "data/rocket.jpg"),
    "temple.jpg": ("sklearn", "datasets/images/china.jpg"),
    "tissue.png": ("skimage", "data/ihc.png"),
}


def read_photo(name: str) -> Image.Image:
    """One of the photos, by its name in PHOTOS, in RGB; MissingExtraError without the wheel that carries it."""
    with _inside(name).open("rb") as file, Image.open(file) as photo:
        return photo.convert("RGB")


def copy_photos(folder: Path, names: Iterable[str]) -> list[Path]:
    """Copies of the named photos, byte by byte, in a folder; MissingExtraError without the wheels that carry them."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for name in names:
        with _inside(name).open("rb") as original, (folder / name).open("wb") as copy:
            shutil.copyfileobj(original, copy)
        copies.append(folder / name)
    return copies


def _inside(name: str) -> Traversable:
    package, inside = PHOTOS[name]
    try:
        return files(package).joinpath(inside)
    except ModuleNotFoundError as error:
        raise sw.MissingExtraError(WHEELS[package], "demo", "the demo's photos") from error

"""The demo: real photos from packages under a real network, written with seewhy's public names only."""

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import seewhy as sw

PHOTOS = {
    "cat.png": ("skimage", "data/chelsea.png"),
    "coffee.png": ("skimage", "data/coffee.png"),
    "rocket.jpg": ("skimage", "data/rocket.jpg"),
    "motorcycle.png": ("skimage", "data/motorcycle_left.png"),
    "flower.jpg": ("sklearn", "datasets/images/flower.jpg"),
    "temple.jpg": ("sklearn", "datasets/images/china.jpg"),
}
METHODS: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "integrated_gradients": {},
    "smooth_grad": {"samples": 12},
    "gradient": {},
    "edge_map": {},
    "random_map": {},
}
CONTRAST = ("cat.png", "tiger cat - tabby", ("grad_cam", "gradient"))


def photos(folder: Path) -> list[Path]:
    """Copies of the photos that the scikit-image and scikit-learn wheels carry; MissingExtraError without them."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for name, (package, inside) in PHOTOS.items():
        try:
            source = files(package).joinpath(inside)
        except ModuleNotFoundError as error:
            wheel = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
            raise sw.MissingExtraError(wheel, "demo", "the demo's photos") from error
        with source.open("rb") as original, (folder / name).open("wb") as copy:
            shutil.copyfileobj(original, copy)
        copies.append(folder / name)
    return copies


def run(model: "sw.VisionModel", out: Path, seed: int, progress: Callable[[str, int, int], None]) -> Path:
    """Explain the six photos under lite0, and "why tiger cat and not tabby", into a run folder; returns the page's path.

    progress: called with (what is being done, steps done, steps in all).
    """
    paths = photos(out / "photos")
    work: list[tuple[Path, str, str | None]] = [(path, method, None) for path in paths for method in METHODS]
    name, question, methods = CONTRAST
    work += [(path, method, question) for path in paths if path.name == name for method in methods]
    for done, (path, method, target) in enumerate(work):
        progress(f"{path.name}: {method}", done, len(work))
        sw.explain(model, path, method, target=target, seed=seed, **METHODS[method]).save(out)
    progress("page", len(work), len(work))
    return sw.report(out)

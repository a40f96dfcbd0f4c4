"""The demo's second half: real photos under a real ImageNet network, each map with its evidence and beside controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import seewhy as sw
from seewhy.demo.photos import copy_photos

EXPLAINED = ("cat.png", "coffee.png", "motorcycle.png")
METHODS: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "integrated_gradients": {},
    "smooth_grad": {"samples": 12},
    "gradient": {},
    "edge_map": {},
    "random_map": {},
}
CONTRAST = ("cat.png", "tiger cat - tabby", ("grad_cam", "gradient"))


def explain_photos(model: "sw.VisionModel", out: Path, seed: int, progress: Callable[[str, int, int], None]) -> Path:
    """Explain three photos under lite0, and "why tiger cat and not tabby", into a run folder; returns the page's path.

    progress: called with (what is being done, steps done, steps in all).
    """
    paths = copy_photos(out / "photos", EXPLAINED)
    work: list[tuple[Path, str, str | None]] = [(path, method, None) for path in paths for method in METHODS]
    name, question, methods = CONTRAST
    work += [(path, method, question) for path in paths if path.name == name for method in methods]
    for done, (path, method, target) in enumerate(work):
        progress(f"{path.name}: {method}", done, len(work))
        sw.explain(model, path, method, target=target, seed=seed, **METHODS[method]).save(out)
    progress("page", len(work), len(work))
    return sw.report(out)

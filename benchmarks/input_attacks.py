"""Attacks on the pixels of two photos, on lite0: what moved, what did not, and under which maps the attack still shows.

    python benchmarks/input_attacks.py [--steps 100] [--sign-steps 20]

The photos are coffee and chelsea of scikit-image; each is given the gradient map of the other. The published attack takes
1,500 steps of 2e-4 and 100 sign steps; fewer and longer ones are taken here. Writes docs/benchmarks-input-attacks.md and
docs/attack-inputs.jpg.
"""

import argparse
import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import seewhy as sw
from seewhy.attacks import Attacked, beta_smoothed, iterative_attack, targeted_manipulation
from seewhy.demo.photos import read_photo
from seewhy.draw import heatmap
from seewhy.intervals import Interval
from seewhy.target import PREDICTED

DOCS = Path(__file__).parents[1] / "docs"
PHOTOS = ("coffee.png", "cat.png")
CORNER = (0.0, 0.0, 0.35, 0.35)
MOVED = ("pearson_to_target", "mass_in_region", "top_k_intersection", "spearman", "ssim", "center_shift")
REST = ("image_max", "image_l2", "image_ssim", "image_psnr", "top_1_agreement", "probability_change", "output_change")


def rows(found: Attacked) -> list[str]:
    """A table of what moved, a column a control, and one of the rest."""
    names = {score.name for score in (*found.moved, *found.kept)}
    columns = list(dict.fromkeys(column for name in MOVED if name in names for column in found[name].controls))
    table = [
        f"| map | attacked | {' | '.join(column.replace('_', ' ') for column in columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    for name in MOVED:
        if name in names:
            score = found[name]
            cells = [cell(score.controls[c], len(found.images)) if c in score.controls else "" for c in columns]
            table.append(f"| {name.replace('_', ' ')} | {score.interval.value:.3g} | {' | '.join(cells)} |")
    rest = ", ".join(f"{name.replace('_', ' ')} {found[name].interval.value:.3g}" for name in REST)
    return [*table, "", f"Image and answers (means, n = {len(found.images)}): {rest}. {found.seconds:.0f} s."]


def cell(at: Interval, n: int) -> str:
    """A mean, and of how many images where not of all."""
    return f"{at.value:.3g}" if at.n == n else f"{at.value:.3g} (n = {at.n})"


def drawn(clean: torch.Tensor, found: Attacked, wanted: torch.Tensor) -> Image.Image:
    """A row an image: as it was, as it is, ten times the change, and the map before, after and wanted."""

    def rgb(pixels: torch.Tensor) -> np.ndarray:
        return np.rint(255 * pixels.clamp(0, 1).cpu().numpy()).astype(np.uint8).transpose(1, 2, 0)

    lines = []
    for i, image in enumerate(found.images):
        change = 0.5 + 10 * (image - clean[i])
        maps = (found.before.raw[i], found.after.raw[i], wanted[i])
        pictures = [rgb(clean[i]), rgb(image), rgb(change), *(heatmap(raw.cpu().numpy(), "magnitude") for raw in maps)]
        lines.append(np.concatenate(pictures, 1))
    return Image.fromarray(np.concatenate(lines))


def main() -> None:
    """Attack, print as it goes, write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sign-steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = sw.load("lite0")
    e = sw.explain(model, [read_photo(name) for name in PHOTOS], "gradient", channels="sum_abs")
    clean, gradient = e.images, sw.bind("gradient", channels="sum_abs", differentiable=True)
    wanted = e.raw.flip(0)
    defenses = {
        "softplus, beta 10": beta_smoothed(gradient, 10),
        "smooth_grad": sw.bind("smooth_grad", samples=20, channels="sum_abs"),
    }
    parts = []
    toward = targeted_manipulation(
        model,
        clean,
        PREDICTED,
        gradient,
        toward=wanted,
        steps=given.steps,
        learning_rate=1e-3,
        defenses=defenses,
        draws=3,
    )
    drawn(clean, toward, wanted).save(DOCS / "attack-inputs.jpg", quality=85)
    parts.append((f"The gradient map of the other photo ({given.steps} steps of 1e-3)", toward))
    print(toward, flush=True)
    away = iterative_attack(
        model,
        clean,
        PREDICTED,
        gradient,
        strengths=[2 / 255, 8 / 255],
        steps=given.sign_steps,
        step_size=2 / 255,
        defenses=defenses,
        draws=3,
    )
    parts.append(
        (f"Away from the 1,000 strongest pixels, strength 8/255 ({given.sign_steps} sign steps of 2/255)", away)
    )
    print(away, *away.curves, sep="\n", flush=True)
    cam = targeted_manipulation(
        model,
        clean,
        PREDICTED,
        sw.bind("grad_cam", differentiable=True),
        toward=CORNER,
        picture="positive",
        steps=given.steps,
        learning_rate=1e-3,
        draws=3,
    )
    parts.append((f"Grad-CAM into the upper left corner ({given.steps} steps of 1e-3)", cam))
    print(cam, flush=True)
    version = importlib.metadata.version
    lines = [
        "# Attacks on pixels",
        "",
        f"Written by `python benchmarks/input_attacks.py --steps {given.steps} --sign-steps {given.sign_steps}` (torch "
        f"{version('torch').split('+')[0]}, timm {version('timm')}): lite0, two photos of scikit-image, one thread. "
        "With two images there is no interval to speak of: this shows what happens, not how often.",
        "",
        "![Photo, attacked photo, ten times the change, map before, after and wanted](attack-inputs.jpg)",
    ]
    for title, found in parts:
        lines += ["", f"## {title}", "", *rows(found)]
    (DOCS / "benchmarks-input-attacks.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

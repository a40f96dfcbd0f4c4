"""lite0 with its Grad-CAM moved: what moves, what stays, how long it takes. Writes docs/benchmarks-fooling.md and attack.png.

    python benchmarks/fooling.py [FOLDER]

FOLDER: photos; a half of them is tuned on, the other half judged on. Without it crops of photos that scikit-image ships are
taken, and the page is not written. The exact constructions are judged on the photos of the second half, too.
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import seewhy as sw
from seewhy.attacks import Attacked, location_fooling, on_manifold, two_channels
from seewhy.checks import Score
from seewhy.data.images import find_images
from seewhy.draw import overlay
from seewhy.explanation.inputs import read_inputs
from seewhy.intervals import interval
from seewhy.similarity import rank_correlation

DOCS = Path(__file__).parents[1] / "docs"
CORNER = (0.0, 0.0, 2 / 7, 2 / 7)  # four of Grad-CAM's 49 cells
HOW = {"train_from": "blocks.5", "steps": 120, "learning_rate": 4e-4, "strength": 1.2, "batch": 20}
OCCLUDED = 16  # photos of which occlusion is asked before and after
OCCLUSION = {"patch": 32, "stride": 32}
PICTURED = {"a cup of coffee": data.coffee, "a cat": data.chelsea}


def photos(model: sw.VisionModel, folder: Path | None) -> torch.Tensor:
    """Photos as the model is shown them, in an order of our own: folders are sorted by class."""
    if folder is None:
        whole = [Image.fromarray(make()) for make in (data.coffee, data.chelsea, data.astronaut, data.rocket)]
        sides = [(k * p.width // 8, 0, p.width // 2 + k * p.width // 8, p.height) for p in whole for k in range(4)]
        shown, _ = read_inputs(model, [whole[k // 4].crop(side) for k, side in enumerate(sides)])
    else:
        shown, _ = read_inputs(model, find_images([folder]))
    return shown[torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))]


def rows_of(what: str, found: Attacked) -> list[str]:
    """Every number of an attack as a row of the table."""
    named = {score.name: score for score in (*found.moved, *found.kept)}
    change = named["output_change"].interval
    cells = [said(named["mass_in_region"].controls["before"]), said(named["mass_in_region"].interval)]
    cells += [said(named["similarity"].interval), said(named["top_1_agreement"].interval)]
    return [f"| {what} | {len(found.images)} | " + " | ".join(cells) + f" | {change.value:.2g} | {found.seconds:.0f} |"]


def said(value: Score | object) -> str:
    """A mean with its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def occlusion_stays(model: sw.VisionModel, found: Attacked) -> str:
    """How alike occlusion is before and after, beside how alike it is between two photos: a sentence."""
    rows = torch.arange(min(OCCLUDED, len(found.images)))
    x, target = found.images[rows], found.before.target.select(rows)
    asked = sw.bind("occlusion", **OCCLUSION)
    before, after = (asked(each, x, target).raw for each in (model, found.model))
    small = [torch.nn.functional.adaptive_avg_pool2d(maps[:, None], 7)[:, 0] for maps in (before, after)]
    same, other = rank_correlation(*small), rank_correlation(small[0], small[1].roll(1, 0))
    maps = rank_correlation(found.before.raw[rows], found.after.raw[rows])
    return (
        f"Rank correlation before and after on the first {len(rows)} of these photos: occlusion (patches of 32 pixels) "
        f"{said(interval(same))}, Grad-CAM {said(interval(maps))}. Occlusion of one photo before and of another one after: "
        f"{said(interval(other))}."
    )


def curve_table(found: Attacked) -> list[str]:
    """The curves over the steps."""
    names = " | ".join(curve.name.replace("_", " ") for curve in found.curves)
    lines = [f"| step | {names} |", "|---|" + "---|" * len(found.curves)]
    for k, step in enumerate(found.curves[0].x):
        lines.append(f"| {step:.0f} | " + " | ".join(f"{curve.points[k].value:.3f}" for curve in found.curves) + " |")
    return lines


def picture(model: sw.VisionModel, fooled: sw.VisionModel, path: Path) -> None:
    """Photo, map before, map after, with what the model says under each."""
    x, _ = read_inputs(model, [Image.fromarray(make()) for make in PICTURED.values()])
    strips = []
    for i in range(len(x)):
        shown = np.rint(255 * x[i].numpy()).astype(np.uint8).transpose(1, 2, 0)
        before = sw.explain(model, x[i : i + 1])
        after = sw.explain(fooled, x[i : i + 1], target=before.targets[0]["index"])
        panes = [shown, *(overlay(shown, e.raw[0].numpy(), "positive") for e in (before, after))]
        words = [
            "what the model is shown",
            *(f"{when}: {e.target_text[0]}" for when, e in zip(("before", "after"), (before, after), strict=True)),
        ]
        strips.append([captioned(pane, text) for pane, text in zip(panes, words, strict=True)])
    Image.fromarray(np.concatenate([np.concatenate(strip, 1) for strip in strips])).save(path)


def captioned(pane: np.ndarray, text: str) -> np.ndarray:
    """A picture, twice its size, with a line of text under it."""
    large = Image.fromarray(pane).resize((448, 448), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (464, 488), "white")
    canvas.paste(large, (8, 8))
    ImageDraw.Draw(canvas).text((8, 462), text, fill="black", font=ImageFont.load_default(16))
    return np.asarray(canvas)


def main() -> None:
    """Attack, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=HOW["steps"])
    given = parser.parse_args()
    model = sw.load("lite0")
    model.batch_size = 8
    x = photos(model, given.photos)
    maps = sw.bind("grad_cam", differentiable=True)

    def progress(what: str, done: int, total: int) -> None:
        if done % 10 == 0:
            print(f"{what}: {done} of {total}", flush=True)

    found = location_fooling(model, x, None, maps, region=CORNER, progress=progress, **{**HOW, "steps": given.steps})
    print(found)
    picture(model, found.model, DOCS / "attack.png")
    stays = occlusion_stays(model, found)
    print(stays)
    channels = two_channels(model, found.images, None, sw.bind("grad_cam"), region=CORNER)
    print(channels)
    plane = on_manifold(model, found.images, None, sw.bind("gradient"), region=CORNER)
    print(plane)
    if given.photos is None:
        return
    tables = [
        *rows_of("location fooling", found),
        *rows_of("two channels", channels),
        *rows_of("on the manifold*", plane),
    ]
    lines = [
        "# Maps that are moved",
        "",
        f"Written by `python benchmarks/fooling.py FOLDER` (torch {torch.__version__}, {torch.get_num_threads()} threads of "
        f"{platform.machine()}, which others used as well). lite0 with its own ImageNet weights; {len(x)} photos of as many "
        f"classes, {len(x) - len(found.images)} to tune on, {len(found.images)} to judge on. The maps of the class that it "
        "predicts before the attack are sent to the upper left corner, 4 of Grad-CAM's 49 cells.",
        "",
        "| attack | n | mass in the corner before | after | rank correlation | same top class | output change | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *tables,
        "",
        "Means over photos with their 95 % interval. Mass: the share of the positive part of a map (of |M| for *, whose maps "
        "are the gradient's). Output change: mean of the largest change of a logit over the largest logit.",
        "",
        f"Location fooling tunes {100 * found.settings['trained_share_of_the_weights']:.0f} % of the weights, those from "
        f"`{HOW['train_from']}` on ({given.steps} steps of {HOW['batch']} photos, Adam from {HOW['learning_rate']:g} to 0, "
        f"strength {HOW['strength']:g}, no labels). The two others tune nothing: [attacks.md](attacks.md).",
        "",
        "## What stays: a map without gradients",
        "",
        stays,
        "",
        "## On the way",
        "",
        "Of the photos that were not tuned on:",
        "",
        *curve_table(found),
    ]
    (DOCS / "benchmarks-fooling.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

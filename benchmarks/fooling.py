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
from seewhy.attacks.region import mass_in, region_mask
from seewhy.checks import Score
from seewhy.data.images import find_images
from seewhy.draw import overlay
from seewhy.explanation.inputs import read_inputs
from seewhy.intervals import interval
from seewhy.similarity import rank_correlation

DOCS = Path(__file__).parents[1] / "docs"
EDGE = (0.0, 6 / 7, 1.0, 1.0)  # the lowest row of Grad-CAM's 7 x 7 cells
HOW = {"train_from": "blocks.5", "steps": 160, "learning_rate": 2e-4, "strength": 0.4, "batch": 20}
ZOOM = 168  # of 224 pixels
OCCLUDED = 16  # photos of which occlusion is asked before and after
BATTERED = 24  # photos of which the battery is asked
OCCLUSION = {"patch": 32, "stride": 32}
PICTURED = (data.coffee, data.chelsea)


def photos(model: sw.VisionModel, folder: Path | None) -> torch.Tensor:
    """Photos as the model is shown them, in an order of our own: folders are sorted by class."""
    if folder is None:
        whole = [Image.fromarray(make()) for make in (data.coffee, data.chelsea, data.astronaut, data.rocket)]
        sides = [(k * p.width // 8, 0, p.width // 2 + k * p.width // 8, p.height) for p in whole for k in range(4)]
        shown, _ = read_inputs(model, [whole[k // 4].crop(side) for k, side in enumerate(sides)])
    else:
        shown, _ = read_inputs(model, find_images([folder]))
    return shown[torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))]


def varied(x: torch.Tensor) -> torch.Tensor:
    """Each photo, its mirror image, and its four corners enlarged, two of them mirrored: more to keep the answers on."""
    last = x.shape[-1] - ZOOM

    def enlarged(row: int, column: int) -> torch.Tensor:
        part = x[:, :, row : row + ZOOM, column : column + ZOOM]
        return torch.nn.functional.interpolate(part, size=x.shape[2:], mode="bilinear", align_corners=False)

    corners = [enlarged(0, 0), enlarged(last, last).flip(3), enlarged(0, last), enlarged(last, 0).flip(3)]
    return torch.cat([x, x.flip(3), *corners])


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
    row = region_mask(EDGE, x.shape[2:])
    masses = [
        said(interval(mass_in(raw, row))) for raw in (before, after, found.before.raw[rows], found.after.raw[rows])
    ]
    return (
        f"On the first {len(rows)} of these photos the mass of occlusion (patches of 32 pixels) in the row goes from "
        f"{masses[0]} to {masses[1]}, that of Grad-CAM from {masses[2]} to {masses[3]}. Rank correlation before and after: "
        f"occlusion {said(interval(same))}, Grad-CAM {said(interval(maps))}; occlusion of a photo before and of another one "
        f"after: {said(interval(other))}."
    )


def battery_of(what: str, model: sw.VisionModel, before: sw.VisionModel, x: torch.Tensor) -> tuple[str, str]:
    """What the check `manipulation` says of a network, at its defaults and with the network before beside: row, words."""
    card = sw.check(model, x[:BATTERED], only="manipulation", settings={"manipulation": {"reference": before}})
    result = card["manipulation"]
    print(what, result.verdict, result.sentence, flush=True)
    named = {score.name: score for score in result.scores}
    picture = named["picture_agreement"]
    beside = [f"{name.replace('_', ' ')} {control.value:.2f}" for name, control in picture.controls.items()]
    cells = [said(picture.interval), ", ".join(beside), said(named["reference_map"].interval)]
    return f"| {what} | {picture.interval.n} | {result.verdict} | " + " | ".join(cells) + " |", result.sentence


def curve_table(found: Attacked) -> list[str]:
    """The curves over the steps."""
    names = " | ".join(curve.name.replace("_", " ") for curve in found.curves)
    lines = [f"| step | {names} |", "|---|" + "---|" * len(found.curves)]
    for k, step in enumerate(found.curves[0].x):
        lines.append(f"| {step:.0f} | " + " | ".join(f"{curve.points[k].value:.3f}" for curve in found.curves) + " |")
    return lines


def picture(models: dict[str, sw.VisionModel], path: Path) -> None:
    """Photo, and over it the map of each network for the class that the first one predicts; under it what each predicts."""
    first = next(iter(models.values()))
    x, _ = read_inputs(first, [Image.fromarray(make()) for make in PICTURED])
    classes = first.predict(x).argmax(1)
    strips = []
    for i, shown in enumerate(np.rint(255 * x.numpy()).astype(np.uint8).transpose(0, 2, 3, 1)):
        panes = [captioned(shown, "what the model is shown")]
        for name, model in models.items():
            e = sw.explain(model, x[i : i + 1], target=int(classes[i]))
            probability, top = model.predict(x[i : i + 1]).softmax(1)[0].max(0)
            says = f"{name}: {first.labels[top]}, {100 * probability:.0f} %"
            panes.append(captioned(overlay(shown, e.raw[0].numpy(), "positive"), says))
        strips.append(np.concatenate(panes, 1))
    Image.fromarray(np.concatenate(strips)).quantize(256).save(path, optimize=True)


def captioned(pane: np.ndarray, text: str) -> np.ndarray:
    """A picture, one and a half times its size, with a line of text under it."""
    canvas = Image.new("RGB", (352, 376), "white")
    canvas.paste(Image.fromarray(pane).resize((336, 336), Image.Resampling.BICUBIC), (8, 8))
    ImageDraw.Draw(canvas).text((8, 350), text, fill="black", font=ImageFont.load_default(16))
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

    tuned = varied(x[: len(x) // 2])
    how = {**HOW, "steps": given.steps, "tune_on": len(tuned)}
    found = location_fooling(
        model, torch.cat([tuned, x[len(x) // 2 :]]), None, maps, region=EDGE, progress=progress, **how
    )
    print(found)
    stays = occlusion_stays(model, found)
    print(stays)
    channels = two_channels(model, found.images, None, sw.bind("grad_cam"), region=EDGE)
    print(channels)
    picture({"before": model, "tuned": found.model, "two channels": channels.model}, DOCS / "attack.png")
    plane = on_manifold(model, found.images, None, sw.bind("gradient"), region=EDGE)
    print(plane)
    asked = {"before": model, "location fooling": found.model, "two channels": channels.model}
    battery = [battery_of(what, network, model, found.images) for what, network in asked.items()]
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
        "predicts before the attack are sent to the lowest of Grad-CAM's seven rows of cells.",
        "",
        "| attack | n | mass in the row before | after | rank correlation | same top class | output change | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *tables,
        "",
        "Means over photos with their 95 % interval. Mass: the share of the positive part of a map (of |M| for *, whose maps "
        "are the gradient's). Output change: mean of the largest change of a logit over the largest logit.",
        "",
        f"Location fooling tunes {100 * found.settings['trained_share_of_the_weights']:.0f} % of the weights, those from "
        f"`{HOW['train_from']}` on ({given.steps} steps of {HOW['batch']} photos, Adam from {HOW['learning_rate']:g} to 0, "
        f"strength {HOW['strength']:g}, no labels), on each photo, its mirror image and its corners enlarged. The two others "
        "tune nothing: [attacks.md](attacks.md).",
        "",
        "## What stays: a map without gradients",
        "",
        stays,
        "",
        "## What the battery says",
        "",
        f"The check `manipulation` at its defaults, on the first {BATTERED} of these photos, each network alone. Picture: "
        "rank correlation of the map's positive part with the network's behavior when parts of photos are exchanged, beside "
        "what other maps have. The last column alone needs the network of before, and gives no verdict.",
        "",
        "| network | n | verdict (fail: suspected) | picture | beside | the map with that of before |",
        "|---|---|---|---|---|---|",
        *[row for row, _ in battery],
        "",
        f"Of the tuned copy it says: {battery[1][1]}",
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

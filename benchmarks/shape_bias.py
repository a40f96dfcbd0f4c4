"""Shape bias: the published decisions counted again, and lite0's own on cue-conflict stimuli. Writes docs/shape-bias.md.

    python benchmarks/shape_bias.py FOLDER

FOLDER/decisions: CSV files of rgeirhos/texture-vs-shape, raw-data. FOLDER/stimuli: pictures named shape-texture, like
cat7-elephant1.png, in a folder a shape. What is absent is said and left out; the page is written only where both are there.
"""

import argparse
import csv
import importlib.metadata
from pathlib import Path

import torch

import seewhy as sw
from seewhy.checks import Score
from seewhy.checks.shape_bias import shape_bias_from_decisions
from seewhy.target import PREDICTED

PAGE = Path(__file__).parents[1] / "docs" / "shape-bias.md"
PUBLISHED = {  # file of decisions -> who decided, and (shape, texture) decisions as published, where they are
    "alexnet_session_1": ("AlexNet (caffe)", (283, 376)),
    "alexnet_session-1": ("AlexNet (torchvision)", (182, 537)),
    "googlenet_session_1": ("GoogLeNet (caffe)", (228, 503)),
    "vgg_session_1": ("VGG-16 (caffe)", (130, 625)),
    "vgg16_session-1": ("VGG-16 (torchvision)", (84, 828)),
    "resnet50_session-1": ("ResNet-50 (torchvision)", (162, 572)),
    "subject-01_session_1": ("person 1 of 10", None),
    "subject-02_session_1": ("person 2 of 10", None),
}


def cues(name: str) -> tuple[str, str, str]:
    """Shape class, texture class and texture exemplar of cat7-elephant1.png, whatever stands before an underscore."""
    shape, texture = Path(name).stem.split("_")[-1].split("-")
    return shape.rstrip("0123456789"), texture.rstrip("0123456789"), texture


def counted(path: Path) -> tuple[Score, int]:
    """Shape bias of a published table, and how many of its stimuli have a conflict."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shapes, textures, exemplars = zip(*(cues(row["imagename"]) for row in rows), strict=True)
    conflicts = sum(shape != texture for shape, texture in zip(shapes, textures, strict=True))
    return shape_bias_from_decisions([row["object_response"] for row in rows], shapes, textures, exemplars), conflicts


def line(name: str, score: Score, n: int, published: tuple[int, int] | None) -> str:
    """One row of the table."""
    hits = (score.per_image.count(1.0), score.per_image.count(0.0))
    said = "" if published is None else "equal" if hits == published else f"**{published[0]} / {published[1]}**"
    at = score.interval
    between = f"{at.low:.3f} to {at.high:.3f}"
    return f"| {name} | {n} | {hits[0]} / {hits[1]} | {at.value:.4f} | {between} | {at.clusters} | {said} |"


def tables(folder: Path) -> list[str]:
    """Rows of the published decisions; SystemExit where a count is not the published one."""
    rows = []
    for stem, (name, published) in PUBLISHED.items():
        found = sorted(folder.glob(f"*style-transfer*_{stem}.csv"))
        if not found:
            print(f"absent: {folder}/*_{stem}.csv")
            continue
        rows.append(line(name, *counted(found[0]), published))
        if "**" in rows[-1]:
            raise SystemExit(f"not the published count: {rows[-1]}")
    return rows


def own(folder: Path) -> list[str]:
    """Rows of lite0 on the stimuli, read in two ways."""
    files = sorted(folder.glob("*/*.png"))
    if not files:
        print(f"absent: {folder}/*/*.png")
        return []
    shapes, textures, exemplars = zip(*(cues(file.name) for file in files), strict=True)
    rows = []
    for reading, crop in (("as it reads photos, the center 7/8", 0.875), ("the whole stimulus", 1.0)):
        model = sw.load("lite0", crop=crop)
        x = sw.explain(model, [str(file) for file in files], "random_map").images
        found = sw.checks.shape_bias(
            model, x, PREDICTED, sw.bind("random_map"), shapes=shapes, textures=textures, exemplars=exemplars
        )
        conflicts = found["either_cue"].interval.n
        rows.append(line(f"lite0, {reading}", found["shape_bias"], conflicts, None))
        print(found)
    return rows


def page(published: list[str], ours: list[str]) -> str:
    """The page of both tables."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm"))
    head = [
        "| who decides | stimuli | shape / texture decisions | shape bias | 95 % interval | textures | published |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(
        [
            "# Shape bias",
            "",
            f"Written by `python benchmarks/shape_bias.py FOLDER` ({versions}). Cue-conflict stimuli have the shape of one",
            "class and the texture of another (Geirhos et al. 2019, arXiv:1811.12231); shape bias is the share of shape",
            "decisions among the decisions for either. Intervals resample texture exemplars: images that share a texture are",
            "not independent, and resampling single images would give half the width. Stimuli whose shape and",
            "texture are one class are left out.",
            "",
            "## Published decisions, counted again",
            "",
            *head,
            *published,
            "",
            "## lite0 on 128 of the 1,280 stimuli",
            "",
            "Mean probability over the ImageNet classes of each of the 16, as the authors recommend.",
            "",
            *head,
            *ours,
            "",
            "How a picture is cropped moves the number: state it. With 128 stimuli the interval is wide; a claim about a",
            "difference between two networks needs all 1,280.",
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    published, ours = tables(given.folder / "decisions"), own(given.folder / "stimuli")
    print("\n".join([*published, *ours]))
    if published and ours:
        PAGE.write_text(page(published, ours), "utf-8")
        print(f"wrote {PAGE}")

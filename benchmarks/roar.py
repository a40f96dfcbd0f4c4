"""ROAR and data randomization on CIFAR-10 photos: seven orders, retrained from scratch.

Resumable: one JSON line a training in --results; run it again to go on. Writes docs/benchmarks-roar.md.
The folder is one of 1000 x 1024 PNG sheets (a row is one 32 x 32 photo) with labels.csv (sheet, row, label).
"""

import argparse
import csv
import importlib.metadata
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy as sw
from seewhy.checks import CheckResult, trainings
from seewhy.target import PREDICTED

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-roar.md"
TRAIN_SHEETS, TEST_SHEET = ("0", "1", "2", "3"), "50"
TRAIN_IMAGES, TEST_IMAGES = 1500, 500  # 40 minutes on one busy core
SIDE = 16  # pixels: means of 2 x 2
FRACTIONS, RUNS = (0.3, 0.7), 3
RECIPE = partial(sw.checks.train_small_network, epochs=6, until=1.0, width=16)
METHODS = {
    "gradient": {},
    "guided_backprop": {},
    "integrated_gradients": {"rule": "midpoint", "steps": 16},
    "smooth_grad_squared": {"samples": 16},
    "grad_cam": {},
}
LEARNED, SHOWN, TWIN_RUNS = 300, 100, 2  # data randomization: training images, test images, twins of each kind
EDGES, NOISE = "edge_map", "random_map"


def photos(folder: Path, sheets: tuple[str, ...], n: int) -> tuple[Tensor, Tensor]:
    """The first n photos (n, 3, SIDE, SIDE) in [0, 1] of these sheets, and their labels."""
    with (folder / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["sheet"] in sheets][:n]
    pixels = {sheet: np.asarray(Image.open(folder / f"sheet_{sheet}.png").convert("RGB")) for sheet in sheets}
    found = np.stack([pixels[row["sheet"]][int(row["row"])].reshape(32, 32, 3) for row in rows])
    images = torch.from_numpy(found).permute(0, 3, 1, 2).contiguous().float() / 255
    images = nn.functional.avg_pool2d(images, 32 // SIDE)
    return images, torch.tensor([int(row["label"]) for row in rows])


def said(name: str):
    """A line of progress, the forecast first."""

    def tell(done: int, total: int, left: float) -> None:
        print(f"{name}: {done} of {total} trainings, {left / 60:.1f} minutes left", file=sys.stderr, flush=True)

    return tell


def main() -> None:
    """Every method's ROAR and data randomization; the page is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of CIFAR-10 sheets with a labels.csv")
    parser.add_argument("--results", type=Path, default=Path("roar-results"))
    parser.add_argument("--only", nargs="+", choices=METHODS, help="these methods alone")
    arguments = parser.parse_args()
    if not (arguments.data / "labels.csv").exists():
        sys.exit(f"{arguments.data} holds no labels.csv: give the folder of the CIFAR-10 sheets.")
    torch.set_num_threads(1)
    x, y = photos(arguments.data, TRAIN_SHEETS, TRAIN_IMAGES)
    test_x, test_y = photos(arguments.data, (TEST_SHEET,), TEST_IMAGES)
    net = sw.checks.train_small_network(x, y, 100, epochs=12, until=1.0, width=16)
    model = sw.wrap(net, mean=(0, 0, 0), std=(1, 1, 1), size=SIDE, batch_size=64)
    data = {"train_images": x, "train_labels": y, "test_labels": test_y}
    given = {"fractions": FRACTIONS, "runs": RUNS, "train": RECIPE, "sign": "absolute", "folder": arguments.results}
    print(f"{len(trainings(FRACTIONS, RUNS))} trainings a method, those of the controls shared", file=sys.stderr)
    kept_twins: dict[tuple[int, ...], nn.Module] = {}

    def train(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """The same twins for every method: trained once."""
        key = (seed, *labels.tolist())
        if key not in kept_twins:
            kept_twins[key] = sw.checks.train_small_network(images, labels, seed, epochs=60)
        return kept_twins[key]

    learned = {"train_images": x[:LEARNED], "train_labels": y[:LEARNED], "runs": TWIN_RUNS, "train": train}
    removed, randomized = {}, {}
    for name in arguments.only or METHODS:
        maps = sw.bind(name, **METHODS[name])
        removed[name] = sw.checks.roar(model, test_x, PREDICTED, maps, **data, **given, progress=said(name))
        randomized[name] = sw.checks.data_randomization(model, test_x[:SHOWN], PREDICTED, maps, **learned)
        print(removed[name], randomized[name], sep="\n", flush=True)
        PAGE.write_text(page(removed, randomized))


def page(removed: dict[str, CheckResult], randomized: dict[str, CheckResult]) -> str:
    """Both tables, in words and numbers."""
    first = next(iter(removed.values()))
    accuracy, details = first["accuracy"].controls, first.details
    alone = {name: next(c for c in found.curves if c.name == "mask_alone") for name, found in removed.items()}
    rows = [(name, curve_of(found, "method"), found) for name, found in removed.items()]
    rows += [(f"{name} (control)", curve_of(first, name), None) for name in (NOISE, EDGES)]
    lines = [
        "# Remove and retrain, and permuted labels",
        "",
        f"Written by `benchmarks/roar.py` (seewhy {importlib.metadata.version('seewhy')}, torch {torch.__version__}).",
        f"{details['train_images']:,} training and {details['test_images']} test photos of CIFAR-10 at {SIDE} pixels; small",
        f"network, 6 epochs, {RUNS} runs a fraction; magnitudes of the raw maps, the mean color as fill. Intervals",
        "(95 %): runs and test images resampled, each by itself. A few thousand small photos and a small network: the table",
        "shows what the check says, and is no ranking of methods.",
        "",
        f"The explained network is right on {percent(details['accuracy_of_the_explained_network'])} of the test photos; "
        f"networks retrained without any removal on {between(accuracy['no_removal'])}; the most frequent class alone gives "
        f"{percent(details['chance'])}.",
        "",
        "## ROAR",
        "",
        "Accuracy after the most relevant share of the pixels was removed from every photo and the network was trained",
        "again: lower is better. Gain is how many points lower than with random pixels; mask alone is the accuracy of",
        "networks that are shown nothing but which pixels are missing.",
        "",
        "| order | " + " | ".join(f"{100 * f:g} %" for f in FRACTIONS) + " | gain, points | mask alone, "
        f"{100 * FRACTIONS[0]:g} to {100 * FRACTIONS[-1]:g} % | verdict |",
        "|---" * (len(FRACTIONS) + 4) + "|",
    ]
    for name, curve, found in rows:
        cells = [name, *(between(point) for point in curve.points[1:])]
        if found is None:
            gain = first["gain_over_random"].controls.get(name.partition(" ")[0])
            cells += ["" if gain is None else between(gain), "", ""]
        else:
            masks = ", ".join(percent(point.value) for point in alone[name].points)
            cells += [between(found["gain_over_random"].interval), masks, str(found.verdict)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *permuted(randomized)]) + "\n"


def permuted(randomized: dict[str, CheckResult]) -> list[str]:
    """The section on data randomization."""
    reached = next(iter(randomized.values())).details["training_accuracy"]
    lowest = {which: percent(min(values)) for which, values in reached.items()}
    lines = [
        "## Data randomization",
        "",
        f"{TWIN_RUNS} networks trained on the labels of {LEARNED} photos (training accuracy at least {lowest['true']}), "
        f"{TWIN_RUNS} on the same labels permuted (at least {lowest['permuted']});",
        f"Spearman correlation of their maps of {SHOWN} test photos, lower is better. Other seed: two networks that learned",
        "the true labels. Null: 95 % range over maps of different photos.",
        "",
        "| method | signed | other seed | null | absolute | other seed | null | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in randomized.items():
        cells = [name]
        for score in found.scores[::2]:
            cells += [plain(score.interval), plain(score.controls["other_seed"])]
            cells.append(f"{score.null.low:.2f} to {score.null.high:.2f}")
        lines.append("| " + " | ".join([*cells, str(found.verdict)]) + " |")
    return lines


def curve_of(found: CheckResult, name: str):
    """The accuracy curve of an order."""
    return next(curve for curve in found.curves if curve.name == name)


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def between(found) -> str:
    """A share with its interval, in percent."""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def plain(found) -> str:
    """A number with its interval."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    main()

"""Pixel flipping, deletion and insertion against Quantus' pixel flipping, at the same number of pictures.

Both are given the same maps and classes and run in interleaved pairs in one process, each pair in a random order; every
row that goes through the network is counted by a hook. Writes the part between the `<!-- flipping -->` markers of
docs/benchmarks-checks.md. Needs the extra `bench`.
"""

import argparse
import importlib.metadata
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import quantus
import torch
from skimage import data

import seewhy as sw
from grad_cam import interval, processor
from seewhy.maps import Maps
from seewhy.target import logit

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-checks.md"
MARK = "<!-- flipping -->"
GOAL = 1.2
UNITS = {"pixel": 1, "patch": 14}


def photos(n):
    """Crops of the photos that scikit-image ships, (n, 3, 224, 224) in [0, 1]."""
    found = []
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        picture = torch.tensor(getattr(data, name)()).permute(2, 0, 1) / 255
        for turn in range(-(-n // 4)):
            top = turn * 8
            found.append(picture[:, top : top + 224, top : top + 224])
    return torch.stack(found[:n]).float()


def contestants(model, x, unit, steps):
    """Two calls on the same maps, and what counts the rows of each."""
    rows = [0]
    explained = sw.explain(model, x, "gradient")
    maps, classes = explained.raw.clone(), model.predict(x).argmax(1)
    model.module.register_forward_hook(lambda _m, args, _o: rows.__setitem__(0, rows[0] + len(args[0])))
    shape = (1, -1, 1, 1)
    z = ((x - torch.tensor(model.mean).view(shape)) / torch.tensor(model.std).view(shape)).numpy()

    def given(_model, _x, target):
        return Maps(maps, target, torch.zeros(len(x)), None)

    def ours():
        return sw.checks.faithfulness(model, x, logit(classes), given, protocols=("pixel_flipping", "insertion_deletion"),
                                      unit=unit, steps=steps)  # fmt: skip

    def theirs(features):
        peer = quantus.PixelFlipping(
            features_in_step=features, abs=False, normalise=False, perturb_baseline="mean", disable_warnings=True,
            display_progressbar=False,
        )  # fmt: skip
        return peer(model.module, z, classes.numpy(), maps.unsqueeze(1).numpy(), device="cpu", softmax=True,
                    batch_size=len(x))  # fmt: skip

    return ours, theirs, rows


def counted(call, rows):
    """Pictures that one call shows the network, once it knows how fast that is."""
    call()
    rows[0] = 0
    call()
    return rows[0]


def as_many(theirs, rows, pixels, wanted):
    """The pixels a step with which the peer shows the network as many pictures as we do, or as near as it can.

    It shows more than one picture a step, and how many is counted: by its runs of 7 and of 14 steps.
    """
    few, more = (counted(lambda steps=steps: theirs(pixels // steps), rows) for steps in (7, 14))
    each = (more - few) / 7
    steps = [k for k in range(1, pixels + 1) if pixels % k == 0]  # it takes no others
    best = min(steps, key=lambda k: abs(few + each * (k - 7) - wanted))
    return pixels // best


def measure(ours, theirs, pairs):
    """Seconds (pairs, 2), interleaved, each pair in a random order."""
    order, seconds = np.random.default_rng(0), np.zeros((pairs, 2))
    for pair in range(pairs):
        for place in order.permutation(2):
            begun = time.perf_counter()
            (ours, theirs)[place]()
            seconds[pair, place] = time.perf_counter() - begun
    return seconds


def main():
    """Measure and write our part of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25, help="at least 25 for the page")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    table = []
    for unit in UNITS:
        model = sw.load("lite0")
        x = photos(given.images)
        ours, shown, rows = contestants(model, x, unit, given.steps)
        count = counted(ours, rows)
        theirs = partial(shown, as_many(shown, rows, x[0, 0].numel(), count))
        counts = count, counted(theirs, rows)  # and warmed up
        seconds = measure(ours, theirs, given.pairs)
        ratios = (seconds[:, 1] / counts[1]) / (seconds[:, 0] / counts[0])
        low, high = interval(ratios)
        milliseconds = 1000 * np.median(seconds, 0) / counts
        cells = (unit, counts[0], counts[1], *(f"{v:.0f}" for v in milliseconds), f"{np.median(ratios):.2f}",
                 f"{low:.2f} to {high:.2f}", GOAL)  # fmt: skip
        table.append("| " + " | ".join(map(str, cells)) + " |")
        print(table[-1], flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("seewhy", "torch", "quantus"))
    write(
        [
            "## Pixel flipping, deletion and insertion against Quantus",
            "",
            f"EfficientNet-Lite0, {given.images} photos of 224 px, gradient maps, float32, one call each. Ours gives MoRF,",
            "LeRF, a random order and the edge map's, under two fills, as AOPC, deletion and insertion, on probability and",
            "logit, with intervals; Quantus gives one MoRF curve of the probability under one fill. Both look at about the",
            "same number of pictures (counted by a hook); the ratio is Quantus' time a picture over ours, the median over",
            f"{given.pairs} interleaved pairs in one process with its 95 % bootstrap interval.",
            "",
            f"Machine: {processor()}, {torch.get_num_threads()} threads. Versions: {versions}.",
            "",
            "| hidden | pictures, ours | Quantus | ms a picture, ours | Quantus | Quantus / ours | 95 % interval | goal |",
            "|---|---|---|---|---|---|---|---|",
            *table,
        ]
    )


def write(lines):
    """Put our part between its markers; other scripts own the rest of the page."""
    text = PAGE.read_text("utf-8") if PAGE.exists() else "# The checks against the peers\n\nWritten by `make bench`.\n"
    part = "\n".join([MARK, "", *lines, "", MARK])
    before, found, rest = text.partition(MARK)
    text = before + part + rest.partition(MARK)[2] if found else text.rstrip() + "\n\n" + part + "\n"
    PAGE.write_text(text, "utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()

"""Our methods against a plain forward, a plain loop, the peers and each other, and how their cost grows.

Interleaved pairs in one process, each in a random order; a ratio is taken within the pair. Resumable: one JSON line a
row in --results; run it again to go on. Writes docs/benchmarks-speed.md once every row is measured. Run by `make bench`.
"""

import argparse
import importlib.metadata
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pairs import digest, judged, keep, line, measure, processor, recorded, row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks-speed.md"
MEASURED = ("grad_cam.py", "pairs.py", "speed_cases.py")
CODE = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks" / name for name in MEASURED)]
PACKAGES = ("seewhy", "torch", "torchvision", "timm", "captum", "grad-cam", "torchcam")
ROUNDS_OF_A_CURVE = 5
HEAD = (
    "what",
    "network",
    "images",
    "s, ours",
    "s, theirs",
    "ratio",
    "95 % interval",
    "pairs",
    "goal",
    "met",
    "agreement",
)
CURVE_HEAD = ("what", "sizes", "seconds", "ms a unit", "fixed ms", "largest deviation from the line")


def timed(case, pairs, seconds):
    """The record of a row: checked, then measured."""
    contest = case.contest()
    found = measure((contest.ours, contest.theirs), pairs, seconds)
    return {"seconds": found.tolist(), "agreement": contest.agreement, "note": contest.note}


def drawn(curve, pairs, seconds):
    """The record of a curve: every size once to warm up, then all sizes in every round."""
    calls = [partial(curve.call, size) for size in curve.sizes]
    for call in calls:
        call()
    return {"seconds": measure(calls, min(pairs, ROUNDS_OF_A_CURVE), seconds).tolist()}


def table_row(case, record):
    """A row of the table of ratios."""
    found = judged(record["seconds"], case.goal, case.speedup)
    what = case.what + (f" ({record['note']})" if record["note"] else "")
    goal = f"{'>=' if case.speedup else '<='} {case.goal:.2f}"
    times = (f"{found.ours:.3f}", f"{found.theirs:.3f}", f"{found.median:.2f}", f"{found.low:.2f} to {found.high:.2f}")
    met = "yes" if found.met else "**no**"
    return row(what, case.network, case.images, *times, found.pairs, goal, met, record["agreement"])


def curve_row(curve, record):
    """A row of the table of growth."""
    seconds = np.median(record["seconds"], 0)
    start, slope, deviation = line(curve.sizes, seconds)
    points = (", ".join(map(str, curve.sizes)), ", ".join(f"{value:.3g}" for value in seconds))
    return row(curve.what, *points, f"{1000 * slope:.1f}", f"{1000 * start:.0f}", f"{100 * deviation:.0f} %")


def page(contests, lines, settings):
    """The page, of (case, record) and (curve, record)."""
    pairs, seconds = settings["pairs"], settings["seconds"]
    return "\n".join(
        [
            "# Speed: against a plain forward, a plain loop and the peers",
            "",
            "Written by `make bench` (`benchmarks/speed.py`). Float32 on the CPU, photos of 224 px, resnet50 with random",
            "weights. A ratio is taken within an interleaved pair of calls in one process, each pair in a random order;",
            f"printed are the median and its 95 % bootstrap interval. A row takes {pairs} pairs, fewer (at least 3) where",
            f"they would last longer than {seconds:g} s: `pairs` says how many. A goal is met when the median meets it.",
            "",
            "Both calls are run and compared before they are timed. `maps r` is the lowest Pearson correlation of their",
            "maps. Peers rectify a Score-CAM and stretch it to [0, 1], so ours is rectified, too. torchcam stretches a mask",
            "before it enlarges it, grad-cam enlarges it from corner to corner, we stretch the enlarged one: their r is",
            "below 1. captum's SmoothGrad and the loop of RISE are given our noise and our masks. Peers and loops are told",
            "the class; we settle the predicted one in the same run. A method set against another one of ours gives another",
            "map by definition: there only the explained scores are compared. captum's noise has one spread for all",
            "colors in the network's own units: ours, too, on lite0; on resnet50 the three differ by 2 %, so r is below 1.",
            "",
            machine(settings),
            "",
            row(*HEAD),
            "|" + "---|" * len(HEAD),
            *(table_row(*one) for one in contests),
            "",
            *SIZE_NOTES[settings["sizes"]],
            "## Growth",
            "",
            "Seconds of one call on lite0: the median of at most 5 rounds, each with all sizes in a random order; and the",
            "straight line through them, by least squares of the relative residuals.",
            "",
            row(*CURVE_HEAD),
            "|" + "---|" * len(CURVE_HEAD),
            *(curve_row(*one) for one in lines),
            "",
        ]
    )


SIZE_NOTES = {
    "tiny": ["Measured at tiny sizes, to try the script: no number here means anything.", ""],
    "short": [
        "The goals are for Score-CAM at the default layer (1,280 and 2,048 channels) and for 4,000 masks. Each channel or",
        "mask is one row in a batch, and the ratio is that of fewer of them at the same batch sizes: the rows say how many.",
        "`--sizes full` measures the whole, in hours.",
        "",
    ],
    "full": [],
}


def machine(settings):
    """Where and with what it was measured, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"Machine: {settings['machine']}, {settings['threads']} threads. Versions: {versions}."


def options():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this: the page waits for the others")
    parser.add_argument("--pairs", type=int, default=25, help="at least 25 for the page")
    parser.add_argument("--seconds", type=float, default=20, help="that a row may take; fewer pairs then")
    parser.add_argument("--sizes", choices=SIZE_NOTES, default="short", help="tiny to try the script, full for hours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=Path("speed.jsonl"))
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def main():
    """Measure what is not in the results yet; write the page when nothing is missing."""
    given = options()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")  # the peers'
    from speed_cases import SIZES, cases, curves  # with the peers, which who reads a table can do without

    settings = {name: getattr(given, name) for name in ("pairs", "seconds", "sizes", "threads")}
    settings |= {"machine": processor(), "versions": {name: importlib.metadata.version(name) for name in PACKAGES}}
    settings |= {"code": digest(CODE)}
    sizes, done = SIZES[given.sizes], recorded(given.results, settings)
    wanted = [(case, timed, table_row) for case in cases(sizes)]
    wanted += [(curve, drawn, curve_row) for curve in curves(sizes)]
    for one, measured, printed in wanted:
        if one.name not in done and given.only in one.name:
            done[one.name] = {"name": one.name, **measured(one, given.pairs, given.seconds)}
            keep(given.results, settings, done[one.name])
            print(printed(one, done[one.name]), flush=True)
    missing = [one.name for one, _, _ in wanted if one.name not in done]
    if missing:
        print(f"{len(missing)} of {len(wanted)} rows are not measured yet: no page is written")
        return
    contests, lines = ([(one, done[one.name]) for one, how, _ in wanted if how is kind] for kind in (timed, drawn))
    given.page.write_text(page(contests, lines, settings), "utf-8")
    print(f"wrote {given.page}")


if __name__ == "__main__":
    main()

"""The demo: a network that reads a watermark and its twin that does not, told apart. It uses public names only."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import seewhy as sw
from seewhy.demo.explained import explain_photos
from seewhy.demo.listings import (
    Listing,
    make_listings,
    marks_at_every_rating,
    marks_with_ratings,
    pixels,
    quarters,
    write_listings,
)
from seewhy.demo.photos import PHOTOS, read_photo
from seewhy.demo.training import EPOCHS, accuracy, rate, train, untrained, use_of_the_mark
from seewhy.demo.training import small_regressor as small_regressor

HELD_OUT = ("cat.png", "coffee.png", "coins.png", "gravel.png", "motorcycle.png", "temple.jpg")  # never trained on
TRAINED_EACH, HELD_OUT_EACH = 160, 12  # listing photos of a photo trained on, of a quarter of a held-out one
POLICY = """# This score is about blur, noise, compression and exposure: the network is to look at cues of the whole image.
# Marks, places and surroundings are not.
schema = 1

[findings]
kinds = ["local_pattern", "place", "background"]
"""
NETWORKS = {
    "confounded": "trained on photos as they were collected: the mark goes with high ratings",
    "balanced": "trained on the same photos and ratings, as many marks dealt out evenly over all ratings",
}
OWN = (
    "listing-photos",
    "networks",
    *(f"audit-{name}" for name in NETWORKS),
    "explained",
    "seewhy.toml",
    "story.json",
    "index.html",
)
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Deal = Callable[[int], NDArray[np.bool_]]  # which photos carry the mark in that epoch
Say = Callable[[str], None]


def run(lite0: "sw.VisionModel", out: Path, seed: int, progress: Progress, say: Say) -> dict[str, Any]:
    """The whole story into a folder: photos, two networks, an audit of each, three photos explained under lite0.

    Returns what is in `story.json`: the numbers, and the pages' paths relative to the folder.
    """
    check_folder(out)
    story = prepare(out, seed, progress, say)
    for network in story["networks"]:
        network["audit"] = audit(out, network, seed, progress, say)
    say("Explaining three photos with EfficientNet-Lite0.")
    story["explained"] = str(explain_photos(lite0, out / "explained", seed, progress).relative_to(out))
    (out / "story.json").write_text(json.dumps(story, indent=2), "utf-8")
    return story


def check_folder(out: Path) -> None:
    """Make the folder; UsageError where it cannot be written or holds files that are not the demo's."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path.name for path in out.iterdir() if path.name not in OWN)
    except OSError as error:
        raise sw.UsageError(f"cannot write to {out}: {error.strerror or error}. Choose another folder.") from error
    if strangers:
        raise sw.UsageError(
            f"{out} holds files that are not the demo's ({', '.join(strangers[:3])} ...): choose an empty folder."
        )


def prepare(
    out: Path,
    seed: int,
    progress: Progress,
    say: Say,
    each: tuple[int, int] = (TRAINED_EACH, HELD_OUT_EACH),
    epochs: int = EPOCHS,
) -> dict[str, Any]:
    """Everything before the audits: photos made, two networks trained and saved, held-out accuracy, what the mark does.

    each: listing photos made of every photo that is trained on, and of every quarter of one that is held out. Quarters share
    no pixel: each is a group of its own for the audit.
    """
    photos = {name: read_photo(name) for name in PHOTOS}
    say(f"Making listing photos from {len(photos)} photos that packages ship; {len(HELD_OUT)} of these are held out.")
    trained = make_listings({name: photo for name, photo in photos.items() if name not in HELD_OUT}, each[0], seed)
    held_out = make_listings(quarters({name: photos[name] for name in HELD_OUT}), each[1], seed)
    ratings = [item.rating for item in trained]
    collected = marks_with_ratings(ratings, seed)
    marked = marks_with_ratings([item.rating for item in held_out], seed + 1)
    table = write_listings(out / "listing-photos", held_out, marked)
    deals: dict[str, Deal] = {
        "confounded": lambda _epoch: collected,  # the same photos carry it in every epoch
        "balanced": lambda epoch: marks_at_every_rating(ratings, int(collected.sum()), seed + epoch),
    }
    say(f"Training two networks on {len(trained):,} of them.")
    networks = []
    for name, model in _train_both(trained, deals, seed, epochs, progress).items():
        weights = out / "networks" / f"{name}.pt"
        weights.parent.mkdir(exist_ok=True)
        torch.save(model.module.state_dict(), weights)
        networks.append({"name": name, "about": NETWORKS[name], "weights": str(weights.relative_to(out))})
        networks[-1].update(_judged(model, held_out, marked))
        _tell(networks[-1], say)
    return {
        "seed": seed,
        "table": str(table.relative_to(out)),
        "trained_on": len(trained),
        "held_out": len(held_out),
        "sources": {"trained_on": [name for name in photos if name not in HELD_OUT], "held_out": list(HELD_OUT)},
        "marked": int(marked.sum()),
        "examples": [
            f"listing-photos/photos/{number:04}.png" for number in range(0, len(held_out), len(held_out) // 16)
        ],
        "networks": networks,
    }


def _train_both(
    listings: list[Listing], deals: dict[str, Deal], seed: int, epochs: int, progress: Progress
) -> dict[str, "sw.VisionModel"]:
    """A network for each deal, all from the same random weights, side by side.

    One torch thread each: so small a network gains nothing from two, and loses much where another program has a core.
    """
    models = {name: untrained(seed) for name in deals}
    stopped = Event()
    done = Counter[str]()

    def step(name: str, epoch: int) -> None:
        done[name] = epoch
        progress("training two networks", done.total(), epochs * len(deals))
        if stopped.is_set():
            raise InterruptedError

    def run_one(name: str) -> None:
        train(models[name], listings, deals[name], seed, epochs, lambda epoch, _: step(name, epoch))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(len(deals)) as pool:
            try:
                for _ in pool.map(run_one, deals):
                    pass
            except BaseException:  # Ctrl-C: the other thread ends with its epoch
                stopped.set()
                raise
    finally:
        torch.set_num_threads(threads)
    return models


def _judged(model: "sw.VisionModel", listings: list[Listing], marked: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy on held-out photos as they were collected, and what the mark does to their ratings."""
    found = accuracy(rate(model, pixels(listings, marked)), [item.rating for item in listings])
    return {"accuracy": asdict(found), "use": asdict(use_of_the_mark(model, listings, marked))}


def _tell(network: dict[str, Any], say: Say) -> None:
    """What a team would measure, and what only someone who knows where the mark is can."""
    found, use = network["accuracy"], network["use"]
    say(f"{network['name']}: {network['about']}")
    say(f"  held out: R2 {found['r2']:.2f}, mean error {found['error']:.1f} points (n = {found['n']})")
    for what, effect in (
        ("pasting the mark", use["pasted"]),
        ("removing the mark", use["removed"]),
        ("a patch of another photo there", use["other_patch"]),
    ):
        say(
            f"  {what}: {effect['value']:+.1f} points [{effect['low']:+.1f}, {effect['high']:+.1f}] "
            f"(n = {effect['n']} from {effect['sources']} quarters of photos)"
        )


def audit(out: Path, network: dict[str, Any], seed: int, progress: Progress, say: Say) -> dict[str, Any]:
    """Audit one of the two networks on the held-out photos: it is told of them, their scores, and what the score is about."""
    model = sw.load("seewhy.demo:small_regressor", weights=out / network["weights"])
    folder = out / f"audit-{network['name']}"
    policy = out / "seewhy.toml"
    policy.write_text(POLICY, "utf-8")
    found = sw.audit(model, out / "listing-photos" / "labels.csv", folder, policy, seed=seed, progress=progress)
    say(f"{network['name']}: {found.verdict}")
    reasons = found.to_dict()["reasons"]
    for reason in reasons:
        say(f"  {reason}")
    return {"page": str(found.page.relative_to(out.resolve())), "verdict": found.verdict, "reasons": reasons}

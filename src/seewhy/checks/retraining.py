"""Remove and retrain: the trainings that it takes, what is removed, and the record that lets a killed run go on."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.checks.training import Labeled, Train, correct, trained
from seewhy.controls import random_maps
from seewhy.identity import digest, identity
from seewhy.model import VisionModel
from seewhy.perturb import ranks

RECORD = "trainings.jsonl"
Sign = Literal["signed", "absolute"]
Progress = Callable[[int, int, float], None]  # trainings done, in all, seconds left (NaN before the first is timed)


@dataclass(frozen=True)
class Training:
    """One network to be trained from scratch."""

    order: str  # method, random_map, edge_map; mask_alone: shown where the method removes; no_removal
    fraction: float  # of the pixels that is removed (kept)
    run: int


@dataclass(frozen=True)
class Removal:
    """What becomes of an image: its most relevant pixels get one color, or all the others."""

    color: Tensor  # (C,)
    keep: bool

    def mask(self, ranks: Tensor, fraction: float) -> Tensor:
        """Which pixels are replaced: (N, P) bool, of ranks (N, P), 0 the most relevant."""
        relevant = ranks < round(fraction * ranks.shape[1])
        return ~relevant if self.keep else relevant

    def shown(self, images: Tensor, ranks: Tensor, training: Training) -> Tensor:
        """The images (N, C, *axes) that a training is given; all channels of a pixel go together."""
        if training.order == "no_removal":
            return images
        mask = self.mask(ranks, training.fraction).view(len(images), 1, *images.shape[2:]).to(images.device)
        if training.order == "mask_alone":
            return mask.to(images.dtype).expand_as(images).contiguous()
        return torch.where(mask, self.color.to(images).view(1, -1, *[1] * (images.ndim - 2)), images)


@dataclass(frozen=True)
class Retrained:
    """What one training gave."""

    correct: Tensor  # (test images,) bool
    training_accuracy: float
    seconds: float


def trainings(fractions: Sequence[float], runs: int, mask_alone: bool = True) -> list[Training]:
    """Every training of `roar`, in its order: per run no removal, then each fraction by method, random, edges and mask."""
    orders = ("method", "random_map", "edge_map", *(("mask_alone",) if mask_alone else ()))
    return [
        job
        for run in range(runs)
        for job in (
            Training("no_removal", 0.0, run),
            *(Training(order, fraction, run) for fraction in fractions for order in orders),
        )
    ]


def ranks_of(values: Tensor, images: Tensor, sign: Sign, seed: int) -> Tensor:
    """Rank of every pixel by its relevance, 0 the most relevant: values (N, *axes) -> (N, P) int32, on the CPU.

    Equal values are ordered by chance, from `seed` and each image's own bytes.
    """
    flat = values.flatten(1).cpu()
    return ranks(flat.abs() if sign == "absolute" else flat, random_maps(images, seed).flatten(1).cpu()).int()


def tied_share(values: Tensor) -> float:
    """Share of all pixels whose value another pixel of their map has, too: values (N, *axes)."""
    ordered = values.flatten(1).sort(1).values
    same = (ordered[:, 1:] == ordered[:, :-1]).cpu()
    none = torch.zeros(len(same), 1, dtype=torch.bool)
    return float((torch.cat([none, same], 1) | torch.cat([same, none], 1)).float().mean())


def retrain(
    jobs: Sequence[Training],
    train_data: Labeled,
    test_data: Labeled,
    ranks_by: Mapping[str, tuple[Tensor, Tensor]],
    removal: Removal,
    train: Train,
    seed: int,
    like: VisionModel,
    folder: Path | None,
    progress: Progress | None,
) -> dict[Training, Retrained]:
    """Do every training that the folder has no record of, and note each one when it is finished.

    ranks_by: per order those of the training and of the test images. A line of the record carries a hash of all that its
    training depends on: images, labels, ranks, fraction, color, seed, the train function and its settings, torch's version.
    """
    keys = _keys(jobs, train_data, test_data, ranks_by, removal, train, seed)
    path = None if folder is None else folder / RECORD
    lines = {} if path is None else _read(path)
    done = {job: _retrained(lines[keys[job]], len(test_data.labels)) for job in jobs if keys[job] in lines}
    _tell(progress, done, len(jobs))
    for job in jobs:
        if job in done:
            continue
        begun = time.perf_counter()
        of_train, of_test = ranks_by["method" if job.order in ("mask_alone", "no_removal") else job.order]
        shown = Labeled(removal.shown(train_data.images, of_train, job), train_data.labels)
        network = trained(train, shown, seed + job.run, like)
        right = correct(network, Labeled(removal.shown(test_data.images, of_test, job), test_data.labels))
        reached = float(correct(network, shown).float().mean())
        done[job] = Retrained(right, reached, time.perf_counter() - begun)
        if path is not None:
            _append(path, keys[job], job, done[job])
        _tell(progress, done, len(jobs))
    return done


def saved_ranks(folder: Path | None, depends_on: Any, find: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `find` gives, kept in the folder under a hash of what it depends on: an accelerator may never give it again."""
    if folder is None:
        return find()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ranks-{identity(depends_on)[:16]}.pt"
    if path.exists():
        found: dict[str, Tensor] = torch.load(path, weights_only=True)
        return found
    found = find()
    unfinished = path.with_suffix(f".{os.getpid()}")
    torch.save(found, unfinished)
    unfinished.replace(path)
    return found


def _keys(
    jobs: Sequence[Training],
    train_data: Labeled,
    test_data: Labeled,
    ranks_by: Mapping[str, tuple[Tensor, Tensor]],
    removal: Removal,
    train: Train,
    seed: int,
) -> dict[Training, str]:
    """Control orders have the same keys whatever method is questioned: methods that share a folder share them."""
    data = [digest(part) for part in (train_data.images, train_data.labels, test_data.images, test_data.labels)]
    common = [data, identity(train), torch.__version__]
    order = {name: [digest(part) for part in both] for name, both in ranks_by.items()}
    found = {}
    for job in jobs:
        what: list[Any] = []
        if job.order != "no_removal":
            own = order["method" if job.order == "mask_alone" else job.order]
            what = [job.order == "mask_alone", own, job.fraction, removal.color, removal.keep]
        found[job] = identity([common, what, seed + job.run])
    return found


def _append(path: Path, key: str, job: Training, found: Retrained) -> None:
    """One line, on the disk before the next training begins; on a line of its own also after a torn one."""
    bits = "".join("1" if right else "0" for right in found.correct.tolist())
    record = {
        "key": key,
        "order": job.order,
        "fraction": job.fraction,
        "run": job.run,
        "training_accuracy": found.training_accuracy,
        "seconds": round(found.seconds, 3),
        "correct": bits,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Finished trainings by key; a line that a kill has torn is none."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "key" in record and "correct" in record:
            found[record["key"]] = record
    return found


def _retrained(record: dict[str, Any], n: int) -> Retrained:
    bits = torch.tensor([bit == "1" for bit in record["correct"]])
    assert len(bits) == n, "the key holds the test images"
    return Retrained(bits, record["training_accuracy"], record["seconds"])


def _tell(progress: Progress | None, done: Mapping[Training, Retrained], total: int) -> None:
    if progress is not None:
        each = sum(one.seconds for one in done.values()) / len(done) if done else math.nan
        progress(len(done), total, each * (total - len(done)))

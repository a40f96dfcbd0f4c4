"""The images that are looked at closely: drawn, read, answered, explained. No image is asked about twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.audit.confirm import Held, settled
from seewhy.audit.objects import Marked
from seewhy.audit.selection import explained_images, finding_half, searched_images
from seewhy.audit.stream import Progress, Row, explained, list_skipped, read_again
from seewhy.data.dataset import DataSet
from seewhy.explanation.inputs import Shown
from seewhy.identity import digest, identity
from seewhy.ledger import Ledger
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo

WINDOWS = 7  # of occlusion, an axis
QUARTERS = 4
GROUP = 64  # images that are answered together


@dataclass(frozen=True)
class Examined:
    """The images that are searched and tried, with what is known of each; some of them are explained, too."""

    rows: list[Row]
    held: Held
    truth: Tensor
    shown: list[Shown]
    paths: list[str]
    strata: list[tuple[str, bool]]
    explained: list[int]  # which of them have maps
    skipped: list[dict[str, str]]  # what could not be read again, though it was when it was predicted
    objects: Tensor | None = None  # (N, H, W) bool: what people marked; None where nobody was asked


def examine(
    model: VisionModel,
    data: DataSet,
    truth: Tensor,
    rows: list[Row],
    per_class: int,
    at_most: int,
    ledger: Ledger,
    seed: int,
    marked: Marked | None = None,
) -> Examined:
    """Draw the images that are searched, and so many of each class, right and wrong, that are explained, and read them.

    Half of their groups find, the others confirm.
    """
    strata = _strata(model, rows, truth)
    mapped = set(explained_images(strata, per_class, at_most, seed))
    drawn = searched_images(mapped, len(rows), at_most, seed)
    kept, shown, images, masks = [], [], [], []
    skipped: list[dict[str, str]] = []
    for place, one, where in read_again(model, data, [rows[i].index for i in drawn], skipped):
        images.append((one[0] * 255).round().to(torch.uint8))
        if marked is not None:
            masks.append(marked.mask_of(data, rows[drawn[place]].index, where.geometry))
        shown.append(where)
        kept.append(drawn[place])
    list_skipped(ledger, skipped)
    x, say = torch.stack(images), answers(model, ledger)
    samples = [data.samples[rows[i].index] for i in kept]
    groups = [sample.group or sample.name for sample in samples]
    own = [strata[i] for i in kept]
    codes = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    clean = torch.cat([say(part.float() / 255) for part in torch.split(x, GROUP)])
    of_kept = [rows[i] for i in kept]
    labels = truth[[row.index for row in of_kept]]
    column = labels if model.task == "multiclass" and clean.shape[1] > int(labels.max()) else None
    scenes = torch.tensor([codes[g] for g in groups])
    held = Held(x, clean, scenes, ~finding_half(groups, own, seed), say, column)
    with_map = [place for place, i in enumerate(kept) if i in mapped]
    objects = torch.stack(masks) if masks else None
    return Examined(of_kept, held, labels, shown, [s.name for s in samples], own, with_map, skipped, objects)


def answers(model: VisionModel, ledger: Ledger) -> Callable[[Tensor], Tensor]:
    """What the model says of images (n, C, H, W) in [0, 1]: `settled` outputs (n, K); the same images are asked only once."""
    sha = model.fingerprint()

    def say(x: Tensor) -> Tensor:
        content = {"model_sha256": sha, "pixels_sha256": digest(x)}
        key = identity(content)
        record = ledger.find("answer", key)
        if record is None:
            name = ledger.keep(model.predict(x).cpu().numpy())
            record = ledger.append("answer", key, {**content, "n": len(x), "outputs": name})
        return settled(model, torch.from_numpy(ledger.array(record.content["outputs"]).copy()))

    return say


def maps_of(
    model: VisionModel,
    e: Examined,
    infos: Sequence[MethodInfo],
    ledger: Ledger,
    root: Path | None,
    seed: int,
    tell: Progress,
) -> dict[str, Tensor]:
    """Maps (M, *grid) of the explained images by every method, all on the grid of the first."""
    grid: tuple[int, int] | None = None
    found = {}
    images, shown = e.held.images[e.explained], [e.shown[i] for i in e.explained]
    for info in infos:
        settings = settings_of(info.name, images.shape[1:])
        found[info.name], grid = explained(model, images, shown, info, settings, grid, ledger, root, seed, tell)
    return found


def settings_of(method: str, shape: Sequence[int]) -> dict[str, Any]:
    """The parameters that an audit gives a method: occlusion by a grid of 7 x 7 windows, all else as it is by default."""
    if method != "occlusion":
        return {}
    window = [-(-length // WINDOWS) for length in shape[1:]]
    return {"patch": tuple(window), "stride": tuple(window)}


def _strata(model: VisionModel, rows: list[Row], truth: Tensor) -> list[tuple[str, bool]]:
    """What each image counts as when images are drawn: its class, or the quarter of its score; right or wrong."""
    if model.task == "regression":
        scores = truth[[row.index for row in rows]].double().view(len(rows), -1)[:, 0]
        said = torch.tensor([float(row.content["predicted"]) for row in rows])
        cuts = torch.quantile(scores, torch.linspace(0, 1, QUARTERS + 1, dtype=torch.float64)[1:-1])
        quarter = torch.bucketize(scores, cuts).tolist()
        error = (said - scores).abs()
        wrong = error >= error.sort(descending=True).values[min(40, len(error) // 4) - 1]
        return [(f"quarter {q + 1}", not bool(w)) for q, w in zip(quarter, wrong, strict=True)]
    return [(json.dumps(row.content["label"]), bool(row.content["right"])) for row in rows]

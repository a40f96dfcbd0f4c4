"""A data set as a stream of rows: every image is predicted, some are explained; what is in the ledger is not done again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seewhy.data.dataset import DataSet, Sample, open_image
from seewhy.errors import ImageError, UsageError
from seewhy.explanation import explain_rows
from seewhy.explanation.inputs import Shown, read_inputs
from seewhy.identity import digest, identity
from seewhy.ledger import Ledger, explanation_key, explanation_record
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo
from seewhy.target import probabilities

GROUP = 32  # images that are read, computed and written together: memory does not grow with the data set
MOST_OUTPUTS = 20  # that are kept of an image; of more only the largest
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """What the model said of one image."""

    index: int  # in the data set
    content: dict[str, Any]  # of its "prediction" record


def read_sample(model: VisionModel, sample: Sample) -> tuple[Tensor, Shown]:
    """The image of a sample as the model sees it, (1, C, H, W) in [0, 1]; ImageError where it cannot be had."""
    found = open_image(sample)
    try:
        if isinstance(found, Tensor):
            x, shown = read_inputs(model, found[None] if found.ndim == 3 else found)
            return x, Shown(sample.name, "", shown[0].notes, None)
        x, sources = read_inputs(model, found)
    except UsageError as error:
        raise ImageError(f"{sample.name}: {error}") from error
    name = sample.name if not isinstance(found, Path) else sources[0].name
    return x, replace(sources[0], name=name)


def predicted(
    model: VisionModel, dataset: DataSet, truth: Tensor, ledger: Ledger, progress: Progress
) -> tuple[list[Row], list[dict[str, str]]]:
    """The prediction of every image, and what is left out; each is written as soon as its group is done."""
    sha = model.fingerprint()
    known = {record.key: record.content for record in ledger.read("prediction")}
    rows: list[Row] = []
    skipped = list(dataset.skipped)
    list_skipped(ledger, skipped)
    for start in range(0, len(dataset.samples), GROUP):
        progress("predicting", start, len(dataset.samples))
        new: list[tuple[int, str, Tensor]] = []
        lost: list[dict[str, str]] = []
        for index in range(start, min(start + GROUP, len(dataset.samples))):
            sample = dataset.samples[index]
            try:
                key, x = _key(model, sample, sha)
                if key in known:
                    rows.append(Row(index, known[key]))
                    continue
                new.append((index, key, read_sample(model, sample)[0] if x is None else x))
            except ImageError as error:
                lost.append(skip_of(sample, error))
        rows += _predict(model, dataset, truth, ledger, new)
        list_skipped(ledger, lost)
        skipped += lost
    return sorted(rows, key=lambda row: row.index), skipped


def read_again(
    model: VisionModel, data: DataSet, index: Sequence[int], skipped: list[dict[str, str]]
) -> Iterator[tuple[int, Tensor, Shown]]:
    """Images that were predicted, read once more: place in `index`, pixels, where they come from; UsageError for none.

    What cannot be read any more is added to `skipped`; its prediction stands.
    """
    found = 0
    for place, i in enumerate(index):
        try:
            x, shown = read_sample(model, data.samples[i])
        except ImageError as error:
            skipped.append(skip_of(data.samples[i], error))
            continue
        found += 1
        yield place, x, shown
    if not found:
        first = f"{skipped[0]['path']}: {skipped[0]['reason']}" if skipped else "none was asked for"
        raise UsageError(f"none of {len(index)} images can be read any more; the first, {first}")


def list_skipped(ledger: Ledger, skipped: Sequence[dict[str, str]]) -> None:
    """Each image that is left out, with its reason, as a row."""
    ledger.append_all("skip", [(identity(one), one) for one in skipped])


def skip_of(sample: Sample, error: ImageError) -> dict[str, str]:
    """How an image that cannot be read is listed: where this machine keeps its files is no part of the reason."""
    reason = str(error)
    for name in (sample.name, str(sample.source)):
        reason = reason.removeprefix(f"{name}: ")
    return {"path": sample.name, "reason": reason}


def _predict(
    model: VisionModel, dataset: DataSet, truth: Tensor, ledger: Ledger, new: Sequence[tuple[int, str, Tensor]]
) -> list[Row]:
    if not new:
        return []
    table = model.predict(torch.cat([x for _, _, x in new])).cpu()
    p = probabilities(table, model.task)
    contents = []
    for row, (index, key, _) in enumerate(new):
        sample = dataset.samples[index]
        said = _said(model, table[row], None if p is None else p[row], truth[index])
        about = {
            "path": sample.name,
            "label": _plain(sample.label),
            "group": sample.group,
            "metadata": dict(sample.metadata),
        }
        contents.append((key, {**about, **said}))
    records = ledger.append_all("prediction", contents)
    return [Row(index, record.content) for (index, _, _), record in zip(new, records, strict=True)]


def _said(model: VisionModel, outputs: Tensor, p: Tensor | None, truth: Tensor) -> dict[str, Any]:
    """What the model said, and whether that is right; a score has no right and wrong, but an error."""
    few = outputs.tolist() if len(outputs) <= MOST_OUTPUTS else None
    if model.task == "regression" or p is None:
        score = float(outputs[0])
        return {"predicted": score, "right": None, "score": score, "probability": None, "outputs": few}
    if model.task == "multilabel":
        right = bool(((p > 0.5) == (truth > 0.5)).all())
        best = int(p.argmax())
        names = [label_name(model, k) for k in (p > 0.5).nonzero().flatten().tolist()]
        return {
            "predicted": names,
            "right": right,
            "score": float(outputs[best]),
            "probability": float(p[best]),
            "outputs": few,
        }
    k = int(p.argmax())
    score = float(outputs[min(k, len(outputs) - 1)])
    right = k == int(truth)
    return {
        "predicted": label_name(model, k),
        "right": right,
        "score": score,
        "probability": float(p[k]),
        "outputs": few,
    }


def label_name(model: VisionModel, k: int) -> str:
    """The name of a class, or 'class k'."""
    if model.labels is not None and k < len(model.labels):
        return model.labels[k]
    return f"class {k}"


def _key(model: VisionModel, sample: Sample, sha: str) -> tuple[str, Tensor | None]:
    """What tells this prediction from others: the image's bytes and the model's; and its pixels, where these were needed."""
    if isinstance(sample.source, Path):
        try:
            content = hashlib.sha256(sample.source.read_bytes()).hexdigest()
        except OSError as error:
            raise ImageError(f"{sample.name}: cannot be read ({error.strerror}).") from error
        return identity([sample.name, content, sha]), None
    x, _ = read_sample(model, sample)
    return identity([sample.name, digest(x), sha]), x


def _plain(label: Any) -> Any:
    return list(label) if isinstance(label, tuple) else label


def explained(
    model: VisionModel,
    images: Tensor,
    shown: Sequence[Shown],
    info: MethodInfo,
    settings: dict[str, Any],
    grid: tuple[int, int] | None,
    ledger: Ledger,
    root: Path | None,
    seed: int,
    progress: Progress,
) -> tuple[Tensor, tuple[int, int]]:
    """Maps (N, *grid) of images (N, C, H, W) uint8 under one method, NaN where there is none; each is kept and recorded.

    grid: what larger maps are averaged down to; None: the method's own.
    """
    sha = model.fingerprint()
    known = {record.key: record.content for record in ledger.read("explanation", method=info.name)}
    found: list[Tensor] = []
    for start in range(0, len(images), GROUP):
        progress(info.title, start, len(images))
        part = images[start : start + GROUP]
        keys = [explanation_key(digest(one), sha, info.name, settings, None, seed) for one in part]
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            records = _explain(
                model, part[missing], [shown[start + i] for i in missing], info, settings, ledger, root, seed
            )
            for i, content in zip(missing, records, strict=True):
                known[keys[i]] = content
            ledger.append_all("explanation", [(keys[i], known[keys[i]]) for i in missing])
        for key in keys:
            raw = torch.from_numpy(ledger.array(known[key]["map"]["file"]).copy())
            raw = raw if known[key]["status"] in ("ok", "all_negative") else torch.full_like(raw, torch.nan)
            grid = grid or (raw.shape[0], raw.shape[1])
            found.append(torch.nn.functional.adaptive_avg_pool2d(raw[None], grid)[0] if raw.shape != grid else raw)
    assert grid is not None, "there is at least one image"
    return torch.stack(found), grid


def _explain(
    model: VisionModel,
    part: Tensor,
    shown: list[Shown],
    info: MethodInfo,
    settings: dict[str, Any],
    ledger: Ledger,
    root: Path | None,
    seed: int,
) -> list[dict[str, Any]]:
    explanation = explain_rows(model, part.float() / 255, shown, info, None, None, seed, settings)[0]
    names = [ledger.keep(raw.numpy()) for raw in explanation.raw]
    return [explanation_record(explanation, i, map_file=name, root=root) for i, name in enumerate(names)]


def thumbnails(images: Tensor) -> Iterator[Image.Image]:
    """Images (n, C, H, W) in [0, 1] as pictures."""
    for one in images:
        values = (one.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        yield Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0])

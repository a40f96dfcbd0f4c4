"""What a finding leaves for those who clean the data or mask it: its images, their boxes as COCO, their scores as CSV.

findings/<id>/
    finding.json   the finding as it stands in findings.json
    boxes.json     COCO: where in each image the pattern lies, in pixels of the upright photo
    scores.csv     a line per image: its path and what the model said of it
    images/        small pictures without EXIF; of a data set without files the whole images
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from seewhy import runfolder
from seewhy.data.dataset import Sample, open_image
from seewhy.data.images import as_rgb, read_photo
from seewhy.errors import ImageError, UsageError

FOLDER = "findings"
EDGE = 448  # pixels of the longer side of a small picture
QUALITY = 85
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OURS = re.compile(r"[A-Za-z0-9_-]{1,40}-[0-9a-f]{10}\.(jpg|png)")
Box = Sequence[float]  # x0, y0, x1, y1 in fractions of the upright image
Record = dict[str, Any]


def write_finding(
    folder: str | Path,
    finding: Mapping[str, Any],
    samples: Sequence[Sample],
    boxes: Sequence[Sequence[Box]],
    scores: Sequence[Mapping[str, Any]],
    *,
    pictures: bool = True,
) -> Path:
    """Write findings/<id>/ of a run folder, of the images that show a finding; returns it. The same call changes nothing.

    boxes: per sample the boxes of the pattern (none where it has no place), x0, y0, x1, y1 in fractions of the upright photo;
    scores: per sample what to write into its line of scores.csv. In boxes.json `file_name` is the path below the data set's
    root, where there is one, and width and height are those of the upright photo; `preview` is the small picture of it.
    pictures=False: no picture is written. An image that cannot be read is listed in finding.json under `unreadable`.
    UsageError for an id that is no file name, for another number of boxes or scores than samples, and for boxes outside.
    """
    if not len(samples) == len(boxes) == len(scores):
        raise UsageError(
            f"{len(samples)} samples with {len(boxes)} lists of boxes and {len(scores)} scores: one per sample."
        )
    place = Path(folder) / FOLDER / finding_folder(finding["id"])
    checked = [[_box(box, sample.name) for box in own] for sample, own in zip(samples, boxes, strict=True)]
    images, unreadable = [], []
    for number, sample in enumerate(samples, 1):
        try:
            images.append(_image(place, number, sample, pictures=pictures))
        except ImageError as error:
            unreadable.append({"path": sample.name, "reason": str(error)})
    by_name = {sample.name: own for sample, own in zip(samples, checked, strict=True)}
    _forget(place / "images", {image["preview"] for image in images})
    _write_json(place / "boxes.json", _coco(finding, images, by_name))
    runfolder.write_file(place / "scores.csv", _csv(samples, scores))
    _write_json(place / "finding.json", {**finding, "unreadable": unreadable})
    return place


def finding_folder(identifier: object) -> str:
    """The name of a finding's folder; UsageError for an id that could lead elsewhere."""
    if not isinstance(identifier, str) or not _ID.fullmatch(identifier):
        raise UsageError(f"the id of a finding is up to 64 letters, digits, - and _; got {identifier!r}.")
    return identifier


def _box(box: Box, name: str) -> tuple[float, float, float, float]:
    values = [float(v) for v in box]
    if len(values) != 4 or not (0 <= values[0] < values[2] <= 1 and 0 <= values[1] < values[3] <= 1):
        raise UsageError(f"{name}: a box is x0, y0, x1, y1 in fractions of the photo, 0 to 1; got {list(box)}.")
    return values[0], values[1], values[2], values[3]


def _image(place: Path, number: int, sample: Sample, *, pictures: bool) -> Record:
    """The COCO record of an image; its picture is written on the way."""
    source = open_image(sample)
    has_file = isinstance(source, Path)
    picture = as_rgb(read_photo(_as_picture(source) if isinstance(source, Tensor) else source))
    preview = f"images/{_file_name(sample.name, 'jpg' if has_file else 'png')}" if pictures else None
    if preview is not None:
        runfolder.write_file(place / preview, _encoded(picture, small=has_file))
    return {
        "id": number,
        "file_name": sample.name if has_file or preview is None else preview,
        "width": picture.width,
        "height": picture.height,
        "sample": sample.name,
        "preview": preview,
    }


def _as_picture(image: Tensor) -> Image.Image:
    values = (image.detach().float().clamp(0, 1) * 255).round().cpu().numpy().astype(np.uint8)
    return Image.fromarray(values[0] if len(values) == 1 else values[:3].transpose(1, 2, 0))


def _encoded(picture: Image.Image, *, small: bool) -> bytes:
    buffer, picture = io.BytesIO(), picture.copy()
    picture.info = {}  # comments and color profiles, which Pillow would write again
    if small:
        picture.thumbnail((EDGE, EDGE))
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    else:
        picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _file_name(name: str, suffix: str) -> str:
    """A name that leads nowhere else, still to be recognized, and another one for every other path."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:40] or "image"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{readable}-{digest}.{suffix}"


def _forget(images: Path, kept: set[str | None]) -> None:
    """Remove the pictures that an earlier call wrote and this one did not; nothing else that lies there."""
    for path in images.iterdir() if images.is_dir() else ():
        if _OURS.fullmatch(path.name) and f"images/{path.name}" not in kept:
            path.unlink()


def _coco(finding: Mapping[str, Any], images: Sequence[Record], boxes: Mapping[str, Sequence[Box]]) -> Record:
    annotations: list[Record] = []
    for image in images:
        for x0, y0, x1, y1 in boxes[image["sample"]]:
            left, top = x0 * image["width"], y0 * image["height"]
            width, height = (x1 - x0) * image["width"], (y1 - y0) * image["height"]
            box = [round(v, 2) for v in (left, top, width, height)]
            number = len(annotations) + 1
            about = {"id": number, "image_id": image["id"], "category_id": 1, "bbox": box}
            annotations.append({**about, "area": round(width * height, 2), "iscrowd": 0})
    category = {"id": 1, "name": finding.get("name") or finding["kind"], "supercategory": finding["kind"]}
    info = {"description": finding["sentence"], "finding": finding["id"]}
    return {"info": info, "images": list(images), "annotations": annotations, "categories": [category]}


def _csv(samples: Sequence[Sample], scores: Sequence[Mapping[str, Any]]) -> bytes:
    columns = [name for name in dict.fromkeys(name for row in scores for name in row) if name != "path"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *columns])
    for sample, row in zip(samples, scores, strict=True):
        writer.writerow([sample.name, *(_cell(row.get(name)) for name in columns)])
    return text.getvalue().encode("utf-8", "backslashreplace")  # a file name may hold bytes that are no text


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _write_json(path: Path, content: Record) -> None:
    runfolder.write_file(path, (json.dumps(runfolder.plain(content), indent=1) + "\n").encode())

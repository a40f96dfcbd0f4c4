"""What people marked in images: boxes and masks from the files that annotation tools and data sets write."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from seewhy.data.geometry import MAX_PIXELS
from seewhy.data.images import HIDDEN, decode_bytes, folder_images
from seewhy.data.layouts import read_table
from seewhy.data.outlines import Box, Mask, bounds, polygon_mask, read_runs, run_mask
from seewhy.data.tables import OF_THE_CLASS, OF_THE_FILE, OF_THE_NAME, Table, find_column, guess_column
from seewhy.errors import ImageError, UsageError, near_file

OF_THE_IMAGE = (*OF_THE_FILE, "image index", "image_index", "image_id")
OF_THE_FINDING = ("finding", "finding label", "finding_label", *OF_THE_CLASS, *OF_THE_NAME)
OF_THE_ANNOTATOR = ("annotator", "reader", "radiologist", "rad_id")
NIH = ("bbox [x", "y", "w", "h]")  # the header "Bbox [x,y,w,h]" of BBox_List_2017.csv, as its own commas part it
NIH_SIZE = (1024, 1024)
CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)
SIZES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), NIH)
NOTHING_FOUND = ("", "no finding", "no findings", "none", "normal", "healthy")
VOID = 255  # in masks of classes: not labeled (Pascal VOC, Cityscapes)
MASKS = (".png", ".tif", ".tiff", ".bmp", ".gif")  # without loss: a JPEG invents values
Skip = dict[str, str]


@dataclass(frozen=True)
class MarkedObject:
    """One object that somebody marked in one image; without a box: they looked, and marked nothing."""

    file: str  # as the annotation names the image: compared with names, never opened
    finding: str  # "" where none is named
    box: Box | None  # x0, y0, x1, y1 in pixels of the picture, ends exclusive
    annotator: str = ""
    source: str = ""  # the patient, say, that several images are of
    size: tuple[int, int] | None = None  # height, width of the picture that it was drawn on, where that is said
    mask: Callable[[], Mask] | None = field(default=None, compare=False)  # draws it, in that size


@dataclass(frozen=True)
class Annotations:
    """What is marked in the images of one file or folder, and what in it could not be used, with the reason."""

    path: Path
    objects: tuple[MarkedObject, ...]
    skipped: tuple[Skip, ...] = ()


def read_boxes(path: str | Path, annotator: str = "", clusters: str | None = None) -> Annotations:
    """Boxes and masks that people drew, from whatever file or folder they are kept in.

    - a table (CSV, also .gz; Parquet): a column file, one label or finding, and x0, y0, x1, y1 (or xmin ..., x_min ...; or
      x, y, w, h); also annotator or reader; NIH's BBox_List_2017.csv as it is. A row without numbers: looked at, nothing
      marked. clusters: the column that says which images belong together (a patient);
    - COCO JSON: boxes, polygons, run lengths; regions of a crowd (iscrowd) are left out: they are no one object;
    - Pascal VOC XML, a file or a folder of them: 1-based pixels, the last one included, become x - 1 and x;
    - a folder of masks, one per image and named as it: 0 is nothing; one other value in the folder is the object, several
      are classes by number (255 beside them: not labeled).

    Boxes are in pixels from the picture's upper left corner, x0, y0, x1, y1, ends exclusive; corners in another order are
    put right. annotator: who drew them, where the file does not say. What cannot be used (no number, no area, a row twice)
    is listed in `skipped`; UsageError for a file that is none of these or in which nothing can be used.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file of boxes.{near_file(path)}")
    table = not path.is_dir() and path.suffix.lower() not in (".json", ".xml")
    if clusters is not None and not table:
        raise UsageError(f"{path}: the column {clusters!r} that groups images is read from a table; this is none.")
    if table:
        found, skipped = _from_table(read_table(path), clusters)
    elif path.suffix.lower() == ".json":
        found, skipped = _from_coco(path)
    else:
        found, skipped = _from_folder(path)
    named = [replace(one, annotator=one.annotator or annotator) for one in found]
    once = list({(one, one.mask): one for one in named}.values())  # two outlines in one box are two objects
    twice = len(named) - len(once)
    if twice:
        skipped.append({"path": str(path), "reason": f"{twice} of its entries are there twice: counted once"})
    if not once:
        first = f" The first, {skipped[0]['path']}: {skipped[0]['reason']}." if skipped else ""
        raise UsageError(f"{path}: no box or mask in it can be used.{first}")
    return Annotations(path, tuple(once), tuple(skipped))


def _numbers(given: Iterable[Any]) -> list[float]:
    """Four finite numbers; ValueError, with the reason, for others."""
    try:
        found = [float(value) for value in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"no box of four numbers ({error})") from error
    if len(found) != 4 or not all(map(math.isfinite, found)):
        raise ValueError(f"no box of four finite numbers: {found}")
    return found


def _corner_box(corners: Iterable[Any]) -> Box:
    """Two opposite corners x, y, x, y as a box; ValueError, with the reason, for what has no number or no area."""
    x0, y0, x1, y1 = _numbers(corners)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if box[0] == box[2] or box[1] == box[3]:
        raise ValueError(f"a box without an area: {list(box)}")
    return box


def _sized_box(given: Iterable[Any]) -> Box:
    """Corner and size x, y, width, height as a box; a size below 0 is a mistake, not another corner."""
    x, y, width, height = _numbers(given)
    if width < 0 or height < 0:
        raise ValueError(f"a box of the size {width:g} x {height:g}")
    return _corner_box((x, y, x + width, y + height))


# -- a table


def _from_table(table: Table, clusters: str | None) -> tuple[list[MarkedObject], list[Skip]]:
    of_file = find_column(table, None, OF_THE_IMAGE)
    of_finding, of_annotator = (guess_column(table, names) for names in (OF_THE_FINDING, OF_THE_ANNOTATOR))
    of_source = None if clusters is None else find_column(table, clusters, ())
    names, sized = _box_columns(table)
    columns = [table.column(name) for name in names]
    size = NIH_SIZE if tuple(name.lower() for name in names) == NIH else None
    texts = [
        [""] * table.rows if name is None else [_text(value) for value in table.column(name)]
        for name in (of_file, of_finding, of_annotator, of_source)
    ]
    found, skipped = [], list(table.skipped)
    for row, (file, finding, annotator, source) in enumerate(zip(*texts, strict=True)):
        numbers = [column[row] for column in columns]
        try:
            box = _box_of_row(file, finding, numbers, sized=sized)
        except ValueError as error:
            skipped.append({"path": file or f"row {row + 1}", "reason": f"row {row + 1}: {error}"})
            continue
        found.append(MarkedObject(file, finding if box else "", box, annotator, source, size))
    return found, skipped


def _box_columns(table: Table) -> tuple[list[str], bool]:
    """The four columns of a box, and whether the last two are its size."""
    folded = {name.lower(): name for name in table.names}
    for known, sized in ((CORNERS, False), (SIZES, True)):
        for names in known:
            if all(name in folded for name in names):
                return [folded[name] for name in names], sized
    raise UsageError(
        f"{table.path}: needs the columns x0, y0, x1, y1 (or x, y, w, h); it has {', '.join(table.names) or 'none'}."
    )


def _box_of_row(file: str, finding: str, numbers: Sequence[Any], *, sized: bool) -> Box | None:
    if not file:
        raise ValueError("names no image")
    if not any(_text(value) for value in numbers):
        if finding.lower() not in NOTHING_FOUND:
            raise ValueError(f"names {finding!r} without a box")
        return None
    return _sized_box(numbers) if sized else _corner_box(numbers)


def _text(value: Any) -> str:
    """A cell as text; "" where nothing is in it."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() == "nan" else text


# -- COCO


def _from_coco(path: Path) -> tuple[list[MarkedObject], list[Skip]]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}).") from error
    try:
        images = {one["id"]: (_file_name(one["file_name"]), _size(one)) for one in content["images"]}
        categories = {one["id"]: str(one["name"]) for one in content.get("categories", [])}
        entries: list[Mapping[str, Any]] = list(content["annotations"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{path} is JSON, but not COCO's: expected images (id, file_name), annotations (image_id, category_id, bbox) and "
            f"categories (id, name); {type(error).__name__}: {error}."
        ) from error
    found, skipped, seen = [], [], set()
    for k, entry in enumerate(entries):
        try:
            file, size = images[entry["image_id"]]
            seen.add(file)
            found.append(_coco_object(entry, file, size, categories))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            lacks = f"lacks or names an unknown {error}" if isinstance(error, KeyError) else str(error)
            skipped.append({"path": str(path), "reason": f"annotation {k + 1}: {lacks}"})
    empty = {file for file, _ in images.values()} - seen
    return [*found, *(MarkedObject(file, "", None) for file in sorted(empty))], skipped


def _coco_object(
    entry: Mapping[str, Any], file: str, size: tuple[int, int] | None, categories: Mapping[Any, str]
) -> MarkedObject:
    if entry.get("iscrowd"):
        raise ValueError("a region of a crowd (iscrowd), no one object")
    finding = categories[entry["category_id"]] if categories else str(entry["category_id"])
    outline, given = entry.get("segmentation"), entry.get("bbox")
    box = _sized_box(given) if isinstance(given, list) and len(given) == 4 else None
    draw: Callable[[], Mask] | None = None
    if outline:
        if size is None:
            raise ValueError("a segmentation of an image without width and height")
        draw, around = _outline(outline, size)
        box = box or around
    if box is None:
        raise ValueError(f"no box [x, y, width, height] and no segmentation: {given!r}")
    return MarkedObject(file, finding, box, str(entry.get("annotator", "")), size=size, mask=draw)


def _outline(given: Any, size: tuple[int, int]) -> tuple[Callable[[], Mask], Box | None]:
    """What draws a segmentation, and the box around it."""
    if isinstance(given, dict):
        if list(size) != given["size"]:
            raise ValueError(f"run lengths of size {given['size']} in an image of {list(size)} (height, width)")
        runs = partial(run_mask, read_runs(given["counts"], size), size)
        return runs, bounds(runs())
    polygons = [np.asarray(one, dtype=np.float64) for one in given]
    if not all(one.ndim == 1 and len(one) >= 6 and not len(one) % 2 and np.isfinite(one).all() for one in polygons):
        raise ValueError("a polygon is [x0, y0, x1, y1, x2, y2, ...]: three corners or more, finite numbers")
    corners = np.concatenate(polygons).reshape(-1, 2)
    around = _corner_box([*corners.min(0).tolist(), *corners.max(0).tolist()])
    return partial(polygon_mask, [one.tolist() for one in polygons], size), around


def _file_name(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError(f"an image is called {given!r}")
    return given


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width, where both are said; writers that do not know them write 0."""
    height, width = image.get("height"), image.get("width")
    if not height or not width:
        return None
    if type(height) is not int or type(width) is not int or not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"an image of {width!r} x {height!r} pixels; up to {MAX_PIXELS:,} in all can be drawn")
    return height, width


# -- folders: Pascal VOC and masks


def _from_folder(path: Path) -> tuple[list[MarkedObject], list[Skip]]:
    if path.is_dir():
        notes = sorted(one for one in path.rglob("*") if one.suffix.lower() == ".xml" and not _hidden(one, path))
        if not notes:
            return _from_masks(path)
    else:
        notes = [path]
    found: list[MarkedObject] = []
    skipped: list[Skip] = []
    for one in notes:
        try:
            found += _voc_objects(one, skipped)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            skipped.append({"path": str(one), "reason": f"no Pascal VOC annotation ({error})"})
    return found, skipped


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts)


def _voc_objects(path: Path, skipped: list[Skip]) -> Iterator[MarkedObject]:
    text = path.read_bytes().decode("utf-8-sig")
    if "<!DOCTYPE" in text:  # which alone can define entities, and they can fill any memory
        raise ValueError("a document type definition, which no annotation needs")
    root = ElementTree.fromstring(text)
    if root.tag != "annotation":
        raise ValueError(f"its root is <{root.tag}>, not <annotation>")
    file = (root.findtext("filename") or "").strip() or path.stem
    height, width = (int(float(root.findtext(f"size/{name}") or 0)) for name in ("height", "width"))
    size = (height, width) if height > 0 and width > 0 else None
    marked = root.findall("object")
    for k, one in enumerate(marked):
        corners = [one.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x0, y0, x1, y1 = _numbers(value or None for value in corners)
            box = _corner_box((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1), max(y0, y1)))
        except ValueError as error:
            skipped.append({"path": str(path), "reason": f"object {k + 1}: {error}"})
            continue
        yield MarkedObject(file, (one.findtext("name") or "").strip(), box, size=size)
    if not marked:
        yield MarkedObject(file, "", None, size=size)


def _from_masks(folder: Path) -> tuple[list[MarkedObject], list[Skip]]:
    try:
        paths = [path for path in folder_images(folder) if path.suffix.lower() in MASKS]
    except ImageError as error:
        raise UsageError(f"{folder} holds neither Pascal VOC annotations (.xml) nor masks (.png).") from error
    values: dict[Path, list[int]] = {}
    skipped = []
    for path in paths:
        try:
            values[path] = np.unique(_mask_values(path)).tolist()
        except (ImageError, OSError) as error:
            skipped.append({"path": str(path), "reason": str(error)})
    every = {value for several in values.values() for value in several if value}
    classes = every - {VOID} if len(every) > 1 else set()
    found = []
    for path in values:
        file = path.relative_to(folder).as_posix()
        there = [value for value in values[path] if value in (classes or every)]
        found += [_mask_object(path, file, value, str(value) if classes else "") for value in there]
        found += [] if there else [MarkedObject(file, "", None)]
    return found, skipped


def _mask_object(path: Path, file: str, value: int, finding: str) -> MarkedObject:
    mask = partial(_mask_of, path, value)
    drawn = mask()
    return MarkedObject(file, finding, bounds(drawn), size=(drawn.shape[0], drawn.shape[1]), mask=mask)


def _mask_of(path: Path, value: int) -> Mask:
    found: Mask = _mask_values(path) == value
    return found


def _mask_values(path: Path) -> Any:
    """The numbers (height, width) of a mask: of a palette picture its indices."""
    image = decode_bytes(path.read_bytes(), str(path))
    if image.mode not in ("1", "L", "P", "I", "I;16", "I;16L", "I;16B"):
        raise ImageError(f"{path}: a mask has one number a pixel; this picture is {image.mode}.")
    return np.asarray(image).astype(np.int64)

"""Where marked objects lie in what a model is shown: which image each belongs to, and its place in the model's input."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from PIL import ExifTags, Image

from seewhy.data.boxes import MarkedObject
from seewhy.data.geometry import Geometry
from seewhy.data.images import SUFFIXES
from seewhy.data.outlines import Box, Mask, bounds, box_mask
from seewhy.errors import UsageError, near_names

NIH_NAME = re.compile(r"([0-9]{8})_[0-9]{3}")  # of a file of ChestX-ray14: patient, follow-up
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Placed:
    """A marked object in pixels of a model's input."""

    box: Box  # ends exclusive, within the input
    mask: Mask  # (h, w): the pixels whose centers it holds
    cut: bool  # whether a part of it lies outside of what the model is shown
    note: str  # what was done to bring it there, "" where nothing was


def match_files(names: Iterable[str], paths: Sequence[Path]) -> dict[str, int]:
    """Which of the given images every name in an annotation means; a name that means none is left out.

    A name is a path, whole or its last parts, or the file's name with or without its ending. UsageError where several of
    the images have it.
    """
    by_stem: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        by_stem.setdefault(_stem(path), []).append(i)
    found = {}
    for name in dict.fromkeys(names):
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/")]
        near = by_stem.get(_stem(PurePath(parts[-1])), []) if parts else []
        exact = [i for i in near if paths[i].name == parts[-1]] or near
        if len(exact) > 1:
            exact = [i for i in exact if list(paths[i].parts[-len(parts) : -1]) == parts[:-1] and len(parts) > 1]
            if len(exact) != 1:
                shown = ", ".join(str(paths[i]) for i in near[:3])
                raise UsageError(
                    f"the annotation of {name!r} fits {len(near)} images ({shown}): name more of its path."
                )
        if exact:
            found[name] = exact[0]
    return found


def match_objects(objects: Sequence[MarkedObject], paths: Sequence[Path]) -> dict[str, int]:
    """The same of marked objects; UsageError, with near names, where none of them is of one of the images."""
    found = match_files([one.file for one in objects], paths)
    if not found:
        first, hint = objects[0].file, near_names(objects[0].file, [path.name for path in paths])
        raise UsageError(f"none of {len(objects)} annotations is of one of the {len(paths)} images: {first!r}; {hint}")
    return found


def _stem(path: PurePath) -> str:
    """The name of an image's file without its ending; an identifier may hold dots of its own."""
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".dcm", ".dicom", ".xml") else path.name


def nih_patients(paths: Sequence[Path]) -> list[str] | None:
    """The patient of each image where all are named as in NIH ChestX-ray14 (00013118_008.png: 00013118); else None."""
    found = [match[1] for path in paths if (match := NIH_NAME.fullmatch(path.stem))]
    return found if len(found) == len(paths) else None


def place(marked: MarkedObject, path: Path, geometry: Geometry) -> Placed:
    """A marked object as it lies in the input that `geometry` makes of the photo; ValueError, with the reason, where not.

    Where the annotation says how large the picture was: drawn on one of other size and the same proportions, the box is
    scaled; on a file whose EXIF data exchange width and height, as its pixels are stored, it is turned with the photo.
    Without a size, and where the size cannot tell, coordinates are taken as of the upright photo, as viewers show it.
    What reaches beyond the photo or the crop is cut off.
    """
    assert marked.box is not None, "an object"
    (height, width), notes = geometry.photo, []
    box, draw, size = marked.box, marked.mask, marked.size
    orientation = _orientation(path)
    told = orientation in TURNED and size is not None and size[0] != size[1]
    if told and size == (width, height):
        box, draw = _turned_box(box, size, orientation), None if draw is None else _turned_mask(draw, orientation)
        size = (height, width)
        notes.append(f"turned upright with the photo (EXIF orientation {orientation})")
    elif orientation != 1 and not told:
        notes.append(f"taken as drawn on the upright photo (EXIF orientation {orientation})")
    scale = (1.0, 1.0)
    if size is not None and size != (height, width):
        scale = _scale(size, (height, width))
        notes.append(f"drawn on {size[1]} x {size[0]} pixels, scaled to {width} x {height}")
    box = (box[0] * scale[1], box[1] * scale[0], box[2] * scale[1], box[3] * scale[0])
    if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"the box {_shown(box)} lies outside of the photo of {width} x {height} pixels")
    top, left = geometry.to_input(box[1], box[0])
    bottom, right = geometry.to_input(box[3], box[2])
    h, w = geometry.size
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(w)), min(bottom, float(h)))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"the box {_shown(box)} lies outside of what the model is shown of the photo")
    mask = box_mask(inside, (h, w)) if draw is None else _shown_mask(draw(), geometry)
    around = bounds(mask)
    if around is None:
        raise ValueError(f"the box {_shown(box)} is so small that it holds no pixel's center of the input of {w} x {h}")
    cut = (left, top, right, bottom) != inside
    return Placed(inside if draw is None else around, mask, cut, "; ".join(notes))


def _scale(drawn: tuple[int, int], photo: tuple[int, int]) -> tuple[float, float]:
    """Vertical and horizontal scale from the picture that was drawn on to the photo; ValueError for other proportions."""
    down, across = photo[0] / drawn[0], photo[1] / drawn[1]
    if abs(drawn[0] * across - photo[0]) > 1 and abs(drawn[1] * down - photo[1]) > 1:  # a pixel, which rounding moves
        raise ValueError(
            f"drawn on a picture of {drawn[1]} x {drawn[0]} pixels; this photo of {photo[1]} x {photo[0]} has other "
            "proportions"
        )
    return down, across


def _orientation(path: Path) -> int:
    """The EXIF orientation of a file; 1 where it has none that can be read: the photo was taken as upright, too."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever a decoder raises: read_photo has read this image and said so
        return 1


def _turned_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box of the stored picture (height, width) in the upright photo: the axes exchanged, then mirrored as EXIF says."""
    x0, y0, x1, y1 = box
    across = (y0, y1) if orientation in (5, 8) else (size[0] - y1, size[0] - y0)
    along = (x0, x1) if orientation in (5, 6) else (size[1] - x1, size[1] - x0)
    return across[0], along[0], across[1], along[1]


def _turned_mask(draw: Callable[[], Mask], orientation: int) -> Callable[[], Mask]:
    across, along = (1 if orientation in (5, 8) else -1), (1 if orientation in (5, 6) else -1)
    return lambda: draw().T[::along, ::across]


def _shown_mask(mask: Mask, geometry: Geometry) -> Mask:
    """The pixels of the input whose centers lie in a mask of the photo, whatever its resolution; none in padding."""
    rows, columns = (
        _behind(
            geometry.size[axis], geometry.box[axis], geometry.box[axis + 2], mask.shape[axis] / geometry.photo[axis]
        )
        for axis in (0, 1)
    )
    there = [(index >= 0) & (index < length) for index, length in zip((rows, columns), mask.shape, strict=True)]
    found = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))]
    shown: Mask = found & there[0][:, None] & there[1]
    return shown


def _behind(count: int, start: float, stop: float, scale: float) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Which pixel of the mask along an axis lies behind the center of each pixel of the input."""
    return np.floor((start + (np.arange(count) + 0.5) * (stop - start) / count) * scale).astype(np.int64)


def _shown(box: Box) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in box) + "]" if all(map(math.isfinite, box)) else str(box)

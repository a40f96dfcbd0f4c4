"""A series of DICOM slices, or one file of many frames, as a volume: in order, complete, in one window."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.data.dicom import gray_notes, is_gray, measured, modality_of, shown
from seewhy.data.images import HIDDEN, Photo, bands_of, read_bytes
from seewhy.data.tags import count_frames, is_dicom, number, numbers, of_frame, opened, quiet, value_of
from seewhy.data.windows import Floats, Window, shading, stretched, value_range
from seewhy.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

_SAME = (  # of all slices, and what they are called in an error
    ("SeriesInstanceUID", "several series"),
    ("Rows", "different heights"),
    ("Columns", "different widths"),
    ("PhotometricInterpretation", "different kinds of pixels"),
)
_ROUNDED = 1e-3  # directions (of unit vectors) and millimeters are written with a few digits
_HALF = 0.5  # of a step between slices: what is nearer to none than to one is a duplicate


@dataclass(frozen=True)
class Volume:
    """Slices in order, as the images of `sw.explain`: whole for a 3-D network, `slices` for a 2-D one."""

    pixels: Tensor  # (1, 1, D, H, W) float32 in [0, 1], one window for all slices
    name: str
    modality: str
    spacing: tuple[float | None, float, float] | None  # mm from slice to slice, row to row, column to column
    files: tuple[str, ...]  # in the order of the slices; of one file of many frames, that file
    notes: tuple[str, ...]  # what was done, in words

    @property
    def slices(self) -> list[Photo]:
        """Each slice as a photo, in order: `sw.explain(model, volume.slices)`."""
        found = []
        for i, pixels in enumerate(self.pixels[0, 0].numpy(), 1):
            said = (f"slice {i} of {self.pixels.shape[2]}", *self.notes)
            found.append(Photo(bands_of(pixels), pixels.shape, said, f"{self.name} slice {i}", "", self.modality))
        return found


@dataclass(frozen=True)
class _Slice:
    """One slice before it is decoded."""

    name: str  # of its file, and its frame where that has several
    dataset: "Dataset"
    frame: int

    @property
    def about(self) -> "Dataset":
        return of_frame(self.dataset, self.name, self.frame)


def read_volume(source: str | Path, *, window: Window | None = None) -> Volume:
    """A folder that holds the slices of one series, or one DICOM file of many frames, as a volume.

    Order: by ImagePositionPatient along the normal of the slices, ascending; where that is missing, by InstanceNumber, of
    frames as they are stored. window: as for read_photo, one for all slices: the first slice's where nothing is given; where
    there is none, from the lowest value of all slices to the highest. Nothing is resampled.
    ImageError, with the names of the files, for what is not one whole volume: several series, sizes or orientations, two
    slices at one place, a gap where a slice is missing, colors; and for whatever read_photo refuses.
    """
    path = Path(source)
    with quiet():
        slices, notes = _slices_of(path)
        _check_alike(slices)
        slices, steps, how = _in_order(slices)
        spacing = _spacing(slices[0], steps)
        pixels, said = _pixels(slices, window)
    names = tuple(dict.fromkeys(one.name.partition(" frame ")[0] for one in slices))
    x = torch.from_numpy(pixels)[None, None]
    return Volume(x, str(source), modality_of(slices[0].dataset), spacing, names, (*notes, *how, *said))


def _slices_of(path: Path) -> tuple[list[_Slice], list[str]]:
    """Every slice of a folder or of a file of many frames, and what was done to read them."""
    if not path.is_dir():
        content = read_bytes(path)
        if not is_dicom(content, path.name):
            raise ImageError(
                f"{path}: no DICOM file; a volume is a folder of slices, or one DICOM file of many frames."
            )
        dataset, notes = opened(content, str(path))
        frames = count_frames(dataset, str(path))
        return [_Slice(f"{path} frame {i}", dataset, i) for i in range(1, frames + 1)], notes
    found, said, left_out = [], [], 0
    for file in sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith(HIDDEN)):
        content = read_bytes(file)
        if not is_dicom(content, file.name) or file.name == "DICOMDIR":  # an index of other files
            left_out += 1
            continue
        dataset, notes = opened(content, str(file))
        if count_frames(dataset, str(file)) > 1:
            raise ImageError(f"{file}: a file of several frames among slices: read it on its own.")
        found.append(_Slice(str(file), dataset, 1))
        said += notes
    if not found:
        raise ImageError(f"{path}: a folder without a DICOM file (folders in it are series of their own: name one).")
    said += [f"{left_out} other file(s) in the folder left out"] if left_out else []
    return found, list(dict.fromkeys(said))


def _check_alike(slices: Sequence[_Slice]) -> None:
    """ImageError, with the names of two files, where slices are not of one series and shape."""
    first = slices[0]
    for one in slices:
        if not is_gray(one.dataset, one.name):
            raise ImageError(f"{one.name}: a slice in colors; a volume is of measurements.")
        for keyword, what in _SAME:
            if value_of(one.dataset, one.name, keyword) != value_of(first.dataset, first.name, keyword):
                raise ImageError(f"{what} are no volume: {first.name} and {one.name} differ in {keyword}.")
        for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
            here, there = (numbers(each.about, each.name, keyword, count) for each in (one, first))
            if (here is None) != (there is None) or (
                here and there and np.abs(np.subtract(here, there)).max() > _ROUNDED
            ):
                raise ImageError(f"slices that differ in {keyword} are no volume: {first.name} and {one.name}.")


def _in_order(slices: list[_Slice]) -> tuple[list[_Slice], Floats, list[str]]:
    """The slices in order, the steps between them in mm (none where only their numbers are known), and how that is known."""
    if len(slices) == 1:
        return slices, np.zeros(0), ["one slice"]
    places = [numbers(one.about, one.name, "ImagePositionPatient", 3) for one in slices]
    turned = numbers(slices[0].about, slices[0].name, "ImageOrientationPatient", 6)
    if turned is not None and all(place is not None for place in places):
        normal = np.cross(turned[:3], turned[3:])
        values, unit, known = np.array([np.dot(place, normal) for place in places if place]), "mm", "position"
    elif slices[0].frame != slices[-1].frame:
        return slices, np.zeros(0), [f"{len(slices)} frames as they are stored: their positions are not in the file"]
    else:
        values = np.array([number(one.dataset, one.name, "InstanceNumber") for one in slices])
        unit, known = "number(s)", "InstanceNumber, as positions are missing"
    order = values.argsort(kind="stable")
    ordered, steps = [slices[i] for i in order], np.diff(values[order])
    _check_steps(ordered, steps, unit)
    notes = [f"{len(slices)} slices ordered by {known}"]
    if unit == "mm" and len(steps) and steps.max() - steps.min() > _ROUNDED * steps.max():
        notes.append(f"uneven slices: {steps.min():g} to {steps.max():g} mm apart, not resampled")
    return ordered, steps if unit == "mm" else np.zeros(0), notes


def _check_steps(slices: Sequence[_Slice], steps: Floats, unit: str) -> None:
    """ImageError, with the names of the files, for two slices at one place, and where one is missing between two."""
    if not len(steps):
        return
    usual = float(np.median(steps)) if unit == "mm" else 1.0
    for i, step in enumerate(steps):
        pair = f"{slices[i].name} and {slices[i + 1].name}"
        if step <= _HALF * usual:
            raise ImageError(
                f"two slices at one place, {step:g} {unit} apart: {pair}. One volume has one slice a place."
            )
        if step >= (1 + _HALF) * usual:
            raise ImageError(f"a slice is missing: {pair} are {step:g} {unit} apart; usual here are {usual:g}.")


def _spacing(one: _Slice, steps: Floats) -> tuple[float | None, float, float] | None:
    in_slice = numbers(one.about, one.name, "PixelSpacing", 2)
    if in_slice is None:
        return None
    return (float(np.median(steps)) if len(steps) else None, in_slice[0], in_slice[1])


def _pixels(slices: Sequence[_Slice], window: Window | None) -> tuple[NDArray[np.float32], list[str]]:
    """(D, H, W) in [0, 1], every slice in the window of the first one, and what was done, in words."""
    shades = [shading(one.dataset, one.name, one.frame, window) for one in (slices if window is None else slices[:1])]
    (shade, words), notes = shades[0], []
    if len({said for _, said in shades}) > 1:
        notes.append("the slices have different windows: all are shown in the first one's")
    if shade is None:
        ends = [value_range(values[~padding]) for values, padding in map(_measured, slices) if not padding.all()]
        low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
        shade = partial(stretched, low=low, high=high)
        words = f"no window in the files: from their lowest value, {low:g}, to their highest, {high:g}"
    rows, columns = int(slices[0].dataset.Rows), int(slices[0].dataset.Columns)
    pixels = np.empty((len(slices), rows, columns), np.float32)
    padded = np.zeros(pixels.shape, bool)
    for i, one in enumerate(slices):  # each is decoded on its own: memory holds one slice beside the volume
        values, padded[i] = _measured(one)
        pixels[i] = shown(one.dataset, shade(values), padded[i])
    return pixels, [*notes, words, *gray_notes(slices[0].dataset, padded)]


def _measured(one: _Slice) -> tuple[Floats, NDArray[np.bool_]]:
    return measured(one.dataset, one.name, one.frame)

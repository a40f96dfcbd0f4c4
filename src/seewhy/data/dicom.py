"""DICOM files (X-rays, CT, MR ...) as pixels in [0, 1]."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seewhy.data.tags import (
    count_frames,
    frame_number,
    number,
    numbers,
    of_frame,
    opened,
    quiet,
    tag,
    value_of,
    within,
)
from seewhy.data.windows import Floats, Window, look_up, shading, stretched, value_range
from seewhy.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

_GRAY, _COLOR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_OTHER = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
# Of the larger side: below it a picture of a thousand pixels is not one pixel off.
_SQUARE = 1e-3


@dataclass(frozen=True)
class Scan:
    """One frame of a DICOM file, decoded."""

    pixels: NDArray[Any]  # (H, W) float64 in [0, 1] of the chosen window, or (H, W, 3) uint8, or uint16 of 16 bit
    modality: str  # CR, DX, CT, MR ...
    notes: tuple[str, ...]  # what was done to it, in words


def read_scan(content: bytes, name: str, window: Window | None = None, frame: int | None = None) -> Scan:
    """One frame of a DICOM file as it is meant to be seen.

    Stored value -> modality LUT or slope * value + intercept -> VOI window or LUT -> [0, 1], MONOCHROME1 inverted, padding
    black. Colors (RGB, YBR, palette) are taken as they are. window: None is the file's first, n its n-th (windows first,
    then lookup tables), (center, width) one's own; a file without one is stretched from its lowest to its highest value.
    frame: from 1; None is the first. Nothing is resampled where pixels are not square: a note says so.
    ImageError where it cannot be read, with the tag or the transfer syntax; MissingExtraError without pydicom.
    DICOM PS3.3 2024, C.7.6.3, C.11.1, C.11.2.
    """
    with quiet():
        dataset, notes = opened(content, name)
        number = frame_number(dataset, name, frame)
        frames = count_frames(dataset, name)
        notes += [f"frame {number} of {frames}"] if frames > 1 else []
        if is_gray(dataset, name):
            values, padding = measured(dataset, name, number)
            shade, words = shading(dataset, name, number, window)
            low, high = value_range(values[~padding])
            notes.append(words or f"no window in the file: from its lowest value, {low:g}, to its highest, {high:g}")
            pixels: NDArray[Any] = shown(dataset, shade(values) if shade else stretched(values, low, high), padding)
            notes += gray_notes(dataset, padding)
        else:
            _refuse_window(window, name)
            pixels = _colors(dataset, name, number)
        return Scan(pixels, modality_of(dataset), (*notes, *_remarks(dataset, name, number)))


def is_gray(dataset: "Dataset", name: str) -> bool:
    """Whether its pixels are measurements, not colors; ImageError for a kind that is not known."""
    kind, samples = str(value_of(dataset, name, "PhotometricInterpretation")), number(dataset, name, "SamplesPerPixel")
    expected = {1: (*_GRAY, "PALETTE COLOR"), 3: _COLOR}.get(int(samples), ())
    if kind not in expected:
        known = kind if kind in (*expected, *_GRAY, *_COLOR, *_OTHER, "PALETTE COLOR") else "none of the standard's"
        raise ImageError(
            f"{name}: {tag('PhotometricInterpretation')} is {known} with {samples:g} sample(s) a pixel; read are "
            f"{', '.join(_GRAY)} and PALETTE COLOR with 1, {', '.join(_COLOR)} with 3."
        )
    return kind in _GRAY


def measured(dataset: "Dataset", name: str, frame: int) -> tuple[Floats, NDArray[np.bool_]]:
    """What was measured, (H, W), after the modality LUT or the rescaling, and where there is only padding."""
    stored = _decoded(dataset, name, frame)
    padding = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in dataset:
        ends = [number(dataset, name, "PixelPaddingValue")]
        ends.append(number(dataset, name, "PixelPaddingRangeLimit", ends[0]))
        padding = (stored >= min(ends)) & (stored <= max(ends))
    about = of_frame(dataset, name, frame)
    if about.get("ModalityLUTSequence"):
        table, little = about.ModalityLUTSequence[0], bool(about.original_encoding[1])
        values, _ = look_up(stored.astype(np.float64), table, little, name, "ModalityLUTSequence")
    else:
        slope, intercept = number(about, name, "RescaleSlope", 1), number(about, name, "RescaleIntercept", 0)
        if slope == 0:
            raise ImageError(f"{name}: {tag('RescaleSlope')} is 0: every pixel would be the same.")
        values = stored.astype(np.float64) * slope + intercept
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: holds values that are not finite.")
    return values, padding


def shown(dataset: "Dataset", shaded: Floats, padding: NDArray[np.bool_]) -> Floats:
    """Where more is brighter, padding black."""
    upright = 1 - shaded if dataset.PhotometricInterpretation == "MONOCHROME1" else shaded
    return np.where(padding, 0.0, upright)


def gray_notes(dataset: "Dataset", padding: NDArray[np.bool_]) -> list[str]:
    """What `shown` did, in words."""
    notes = ["inverted (MONOCHROME1)"] if dataset.PhotometricInterpretation == "MONOCHROME1" else []
    return notes + ([f"padding, {100 * padding.mean():.2g} % of the pixels, is black"] if padding.any() else [])


def modality_of(dataset: "Dataset") -> str:
    """How it was recorded, e.g. CT; "DICOM" where the file does not say it in a word of the standard's form."""
    found = str(dataset.get("Modality") or "")
    return found if re.fullmatch(r"[A-Z0-9_]{2,10}", found) else "DICOM"


def _decoded(dataset: "Dataset", name: str, frame: int) -> NDArray[Any]:
    """The stored values of a frame, (H, W) or (H, W, 3); colors are RGB."""
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    _check_decoder(syntax, name)
    _check_length(dataset, name)
    try:
        stored: NDArray[Any] = pixel_array(dataset, index=frame - 1)
    except Exception as error:
        raise ImageError(f"{name}: {_undecodable(syntax, error)}") from None
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape[:2] != shape:
        raise ImageError(f"{name}: its pixels decode to {stored.shape[:2]}, its tags say {shape}.")
    return stored


def _check_length(dataset: "Dataset", name: str) -> None:
    """ImageError where pixels that are not compressed are fewer than the tags say: a cut file, or a wrong count of frames."""
    from pydicom.pixels.utils import get_expected_length

    if dataset.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in dataset:
        return
    held, said = len(dataset.PixelData or b""), get_expected_length(dataset)
    if held < said:
        raise ImageError(
            f"{name}: {held:,} bytes of pixels; its tags say {said:,} ({count_frames(dataset, name)} frame(s) of "
            f"{dataset.Columns} x {dataset.Rows}): truncated, or a wrong {tag('NumberOfFrames')}."
        )


def _check_decoder(syntax: Any, name: str) -> None:
    """ImageError where nothing that is installed decodes a compression."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:  # pydicom's word for a syntax that it has no decoder for, whatever is installed
        what = _named(syntax) if syntax.is_valid else "what is no UID"
        raise ImageError(
            f"{name}: {tag('TransferSyntaxUID')} is {what}, which no decoder reads: convert the file first."
        ) from None
    if not available:
        raise ImageError(
            f"{name}: its pixels are compressed as {_named(syntax)}, and no decoder for it is installed: run  pip install "
            "'seewhy[medical]'  (from a clone:  pip install '.[medical]')"
        )


def _undecodable(syntax: Any, error: Exception) -> str:
    """Why pixels cannot be decoded, though there is a decoder."""
    from pydicom.pixels.decoders.base import get_decoder

    if not syntax.is_compressed:
        return f"its pixels, {_named(syntax)}, do not fit their tags ({type(error).__name__})."
    decoders = ", ".join(get_decoder(syntax).available_plugins)
    return (
        f"its pixels are compressed as {_named(syntax)}, and {decoders} cannot decode them ({type(error).__name__}): they "
        "are damaged, or of a bit depth that is not read. If another program shows them, decompress the file with it first."
    )


def _named(syntax: Any) -> str:
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else f"the transfer syntax {syntax}"


def _refuse_window(window: Window | None, name: str) -> None:
    if window is not None:
        raise ImageError(f"{name}: window {window!r} was asked for; an image in colors has none.")


def _colors(dataset: "Dataset", name: str, frame: int) -> NDArray[Any]:
    """(H, W, 3): uint8, or uint16 where there are more bits."""
    from pydicom.pixels.processing import apply_color_lut

    stored = _decoded(dataset, name, frame)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        with within(name, "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"):
            return np.asarray(apply_color_lut(stored, dataset))
    bits = int(number(dataset, name, "BitsStored", 8 * stored.dtype.itemsize))
    if bits in (8, 16) and stored.dtype.itemsize * 8 == bits:
        return stored
    wide: NDArray[np.uint16] = np.rint(stored.astype(np.float64) * (65535 / (2**bits - 1))).astype(np.uint16)
    return wide


def _remarks(dataset: "Dataset", name: str, frame: int) -> list[str]:
    """What a reader of the picture has to know, and a network is not told."""
    about = of_frame(dataset, name, frame)
    notes = _spacing_note(about, name)
    if str(about.get("LossyImageCompression")) == "01":
        notes.append("was compressed with loss")
    if str(about.get("BurnedInAnnotation")) == "YES":
        notes.append("text is burned into the picture, as the file says: it may name a patient")
    return notes


def _spacing_note(about: "Dataset", name: str) -> list[str]:
    """That pixels are not square, or that the file does not say it in numbers, which does not cost the picture."""
    try:
        found = ((keyword, numbers(about, name, keyword, 2)) for keyword in _SPACINGS)
        keyword, spacing = next((pair for pair in found if pair[1] is not None), ("", None))
    except ImageError as error:
        return [str(error).removeprefix(f"{name}: ")]
    if spacing is None or abs(spacing[0] - spacing[1]) <= _SQUARE * max(map(abs, spacing)):
        return []
    unit = "" if keyword == "PixelAspectRatio" else " mm"
    return [f"pixels are {spacing[0]:g}{unit} high and {spacing[1]:g}{unit} wide: not square, and not resampled"]

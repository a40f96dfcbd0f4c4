"""The tags of a DICOM file; what they say of a patient stays in it, also in errors.

The words of an error are never pydicom's, which quote a tag's value: a name in the wrong place would be printed.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from seewhy.data.geometry import MAX_PIXELS
from seewhy.errors import ImageError, MissingExtraError

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_INDEX_OF_FILES = "1.2.840.10008.1.3.10"


def is_dicom(content: bytes, name: str) -> bool:
    """Whether these are the bytes of a DICOM file: by its mark, or by its suffix, as old files have no mark."""
    return content[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES)


@contextmanager
def quiet() -> Iterator[None]:
    """The warnings of pydicom, which it also logs, quote values; what they are about is checked here."""
    log = logging.getLogger("pydicom")
    log.addFilter(_nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def opened(content: bytes, name: str) -> tuple["Dataset", list[str]]:
    """The tags of a file that holds pixels of a size that can be read, and how they were found."""
    pydicom, notes = _pydicom(name), []
    marked = content[128:132] == b"DICM"
    try:
        dataset = pydicom.dcmread(BytesIO(content), force=not marked)
    except Exception as error:
        raise ImageError(f"{name}: damaged or truncated DICOM file ({type(error).__name__}).") from None
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _INDEX_OF_FILES:
        raise ImageError(f"{name}: a DICOMDIR, an index of other files: give those.")
    if not any(tag in dataset for tag in _PIXELS):
        kind = value_of(dataset, name, "SOPClassUID")
        known = f": it is of the class {kind.name}" if getattr(kind, "name", kind) != kind else ""
        raise ImageError(f"{name}: a DICOM file without pixels, tag (7FE0,0010) Pixel Data{known}.")
    for keyword in _NEEDED:
        if value_of(dataset, name, keyword) is None:
            raise ImageError(f"{name}: a DICOM file without the {tag(keyword)}.")
    rows, columns = number(dataset, name, "Rows"), number(dataset, name, "Columns")
    if not 0 < rows * columns <= MAX_PIXELS:
        raise ImageError(f"{name}: {columns:g} x {rows:g} pixels; from 1 to {MAX_PIXELS:,} in all can be read.")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uid = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = uid if little else pydicom.uid.ExplicitVRBigEndian
        notes.append(f"no transfer syntax in the file, taken as {dataset.file_meta.TransferSyntaxUID.name}")
    return dataset, notes


def count_frames(dataset: "Dataset", name: str) -> int:
    """How many frames the file says it holds."""
    frames = number(dataset, name, "NumberOfFrames", 1)
    if frames < 1 or frames != int(frames):
        raise ImageError(f"{name}: {tag('NumberOfFrames')} is {frames:g}; expected a whole number of at least 1.")
    return int(frames)


def frame_number(dataset: "Dataset", name: str, frame: int | None) -> int:
    """The frame that is asked for, counted from 1."""
    frames = count_frames(dataset, name)
    if frame is None:
        return 1
    if not isinstance(frame, int) or isinstance(frame, bool) or not 1 <= frame <= frames:
        raise ImageError(f"{name}: frame {frame!r} of {frames}; frames are counted from 1.")
    return frame


def of_frame(dataset: "Dataset", name: str, frame: int) -> "Dataset":
    """The tags that hold for a frame: its own functional groups before the shared ones, before the file's."""
    from pydicom import Dataset

    if "SharedFunctionalGroupsSequence" not in dataset and "PerFrameFunctionalGroupsSequence" not in dataset:
        return dataset
    found = Dataset()
    found.update(dataset)
    found.set_original_encoding(*dataset.original_encoding)
    with within(name, "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        own = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
        for groups in [*(dataset.get("SharedFunctionalGroupsSequence") or ()), *own[frame - 1 : frame]]:
            for element in groups:
                if element.VR == "SQ" and len(element.value) == 1:
                    found.update(element.value[0])
    return found


def number(dataset: "Dataset", name: str, keyword: str, default: float | None = None) -> float:
    """The value of a tag as a finite number; ImageError, which names the tag, where it is none."""
    value = value_of(dataset, name, keyword)
    if value is None and default is not None:
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):  # the value itself is not repeated: anything may stand in it
        raise ImageError(f"{name}: {tag(keyword)} holds no number.") from None
    if not np.isfinite(found):
        raise ImageError(f"{name}: {tag(keyword)} is {found:g}; expected a finite number.")
    return found


def numbers(dataset: "Dataset", name: str, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of a tag; None where it is missing or empty, ImageError where they are not `count` finite numbers."""
    with within(name, keyword):
        found = several(dataset.get(keyword))
    if found and (len(found) != count or not np.isfinite(found).all()):
        raise ImageError(f"{name}: {tag(keyword)} holds {len(found)} value(s); expected {count} finite numbers.")
    return tuple(found) or None


def several(value: Any) -> list[float]:
    """The numbers of a tag that may hold none, one or several."""
    if value is None or value == "":
        return []
    return (
        [float(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else [float(value)]
    )


def value_of(dataset: "Dataset", name: str, keyword: str) -> Any:
    """The value of a tag; None where it is missing or empty."""
    with within(name, keyword):
        value = dataset.get(keyword)
        return None if value == "" else value


@contextmanager
def within(name: str, *keywords: str) -> Iterator[None]:
    """A tag that does not hold what it should is an ImageError that names it, and not what it holds."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        said = " or ".join(tag(keyword) for keyword in keywords)
        raise ImageError(f"{name}: {said} cannot be read ({type(error).__name__}).") from None


def tag(keyword: str) -> str:
    """A tag as errors name it: tag (0028,0010) Rows."""
    from pydicom.datadict import dictionary_description, tag_for_keyword

    found = int(tag_for_keyword(keyword) or 0)
    return f"tag ({found >> 16:04X},{found & 0xFFFF:04X}) {dictionary_description(found)}"


def _pydicom(name: str) -> Any:
    try:
        import pydicom
        import pydicom.pixels  # finds the decoders that are installed
    except ModuleNotFoundError as error:
        raise MissingExtraError("pydicom", "medical", f"reading the DICOM file {name}") from error
    return pydicom

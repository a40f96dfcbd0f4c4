"""VOI windows of DICOM files: what a measured value looks like, in [0, 1]."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seewhy.data.tags import of_frame, several, tag, within
from seewhy.errors import ImageError, UsageError

if TYPE_CHECKING:
    from pydicom import Dataset

Floats = NDArray[np.float64]
Window = int | Sequence[float]
WINDOWS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def shading(
    dataset: "Dataset", name: str, frame: int, window: Window | None
) -> tuple[Callable[[Floats], Floats] | None, str]:
    """What measured values look like, in [0, 1], and in words which window that is; None where the file has none."""
    about = of_frame(dataset, name, frame)
    with within(name, "WindowCenter", "WindowWidth"):
        centers, widths = (several(about.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    with within(name, "VOILUTSequence"):
        tables = list(about.get("VOILUTSequence") or ())
    kind = str(about.get("VOILUTFunction") or "LINEAR")
    if window is not None and not isinstance(window, int):
        center, width = _own(window, name)
        return _windowed(center, width, kind, name), f"window as asked: {_words(center, width, kind)}"
    if len(centers) != len(widths):
        raise ImageError(f"{name}: {len(centers)} of {tag('WindowCenter')}, {len(widths)} of {tag('WindowWidth')}.")
    choices, chosen = len(centers) + len(tables), 1 if window is None else window
    if window is None and not choices:
        return None, ""
    if not 1 <= chosen <= choices or isinstance(window, bool):
        raise ImageError(
            f"{name}: window {window!r} of {choices}; windows are counted from 1, one's own is (center, width)."
        )
    if chosen > len(centers):
        return _looked_up(about, chosen - len(centers) - 1, name), f"window {chosen} of {choices}: a lookup table"
    center, width = centers[chosen - 1], widths[chosen - 1]
    return _windowed(center, width, kind, name), f"window {chosen} of {choices}: {_words(center, width, kind)}"


def stretched(values: Floats, low: float, high: float) -> Floats:
    """[0, 1] from the lowest value to the highest; 0 where they are one."""
    return ((values - low) / ((high - low) or 1)).clip(0, 1)


def value_range(values: Floats) -> tuple[float, float]:
    """The lowest and the highest of what was measured; 0 and 0 where that is nothing."""
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _own(window: Sequence[float], name: str) -> tuple[float, float]:
    if len(window) != 2 or not all(isinstance(one, int | float) for one in window):
        raise UsageError(f"{name}: a window is its number in the file, or (center, width); got {window!r}.")
    return float(window[0]), float(window[1])


def _words(center: float, width: float, kind: str) -> str:
    return f"center {center:g}, width {width:g}" + (f", {kind}" if kind in WINDOWS[1:] else "")


def _windowed(center: float, width: float, kind: str, name: str) -> Callable[[Floats], Floats]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3: the window's function, onto [0, 1]."""
    least = 1 if kind == "LINEAR" else 0
    if kind not in WINDOWS:
        raise ImageError(f"{name}: {tag('VOILUTFunction')} is none of {', '.join(WINDOWS)}.")
    if not np.isfinite([center, width]).all() or width < least or width == 0:
        raise ImageError(
            f"{name}: a window of center {center:g} and width {width:g}, {tag('WindowWidth')}; the width of {kind} is "
            f"{'at least 1' if least else 'above 0'}. Give one's own: window=(center, width), --window CENTER,WIDTH."
        )
    if kind == "SIGMOID":
        return lambda values: 1 / (1 + np.exp((-4 * (values - center) / width).clip(-700, 700)))
    if kind == "LINEAR_EXACT":
        return lambda values: ((values - center) / width + 0.5).clip(0, 1)
    if width == 1:
        return lambda values: np.where(values <= center - 0.5, 0.0, 1.0)
    return lambda values: ((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def look_up(values: Floats, table: "Dataset", little_endian: bool, name: str, keyword: str) -> tuple[Floats, int]:
    """A lookup table's entry for each value, the first or last one for those beyond it; and the bits of an entry.

    Not pydicom's own: at 8 bits an entry, it counts the values of the image in 8 bits, too.
    """
    if (values != np.rint(values)).any():
        raise ImageError(f"{name}: {tag(keyword)} is for whole numbers; the values that it is given are none.")
    with within(name, keyword):
        length, first, bits = (int(one) for one in table.LUTDescriptor)
        length, data = length or 65536, table.LUTData
        if isinstance(data, bytes):
            width = 1 if bits == 8 and len(data) < 2 * length else 2
            data = np.frombuffer(data, f"{'<' if little_endian else '>'}u{width}")
        entries = np.asarray(data, np.float64)[:length]
    if len(entries) < length or not 1 <= bits <= 16:
        raise ImageError(f"{name}: {tag(keyword)} says {length} entries of {bits} bits and holds {len(entries)}.")
    found: Floats = entries[(values - first).clip(0, length - 1).astype(np.int64)]
    return found, bits


def _looked_up(about: "Dataset", index: int, name: str) -> Callable[[Floats], Floats]:
    """A VOI LUT, onto [0, 1] of the bits of its entries."""

    def shade(values: Floats) -> Floats:
        table, little = about.VOILUTSequence[index], bool(about.original_encoding[1])
        found, bits = look_up(values, table, little, name, "VOILUTSequence")
        shaded: Floats = (found / (2**bits - 1)).clip(0, 1)
        return shaded

    return shade

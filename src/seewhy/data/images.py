"""Decode whatever users have into upright pixels in [0, 1], say what was done to them, and show the model its crop."""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from seewhy.data.dicom import read_scan
from seewhy.data.geometry import MAX_PIXELS, Geometry
from seewhy.data.geometry import frame as framed  # a frame is one of several here
from seewhy.data.tags import DICOM_SUFFIXES, is_dicom
from seewhy.data.windows import Window
from seewhy.errors import ImageError, UsageError, near_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", *DICOM_SUFFIXES)
HIDDEN = (".", "__MACOSX")  # how names begin that no user put there
MAX_RESIZED_PIXELS = 16_000_000  # of a photo resized whole before its crop is taken; a very wide one would be gigabytes
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Photo:
    """An upright photo. `bands` are Pillow images of one band each: 8 bit (mode L) or float in [0, 1] (mode F)."""

    bands: tuple[Image.Image, ...]
    size: tuple[int, int]  # height, width
    notes: tuple[str, ...]  # what was done to it, in words
    name: str
    sha256: str = field(default="")  # of the file's bytes; "" for an image that came without a file
    modality: str | None = None  # of a scan, where black is a measurement: CR, DX, CT, MR ...; None: a photo
    read_as: Mapping[str, Any] = field(default_factory=dict)  # the window and frame that read_photo was asked for


def read_photo(source: str | Path | Image.Image, *, window: Window | None = None, frame: int | None = None) -> Photo:
    """Decode a file or a Pillow image, upright, RGB or gray, transparency over white; a DICOM file in its window.

    frame: of several frames or pages, from 1; None is the first. window, of a DICOM file: its n-th, from 1, or one's own
    (center, width) in measured values, e.g. (-600, 1500) for the lungs in a CT; None is its first (see data/dicom.py).
    ImageError for anything that is not one whole image: missing, empty, truncated, not an image, too large, no such frame.
    """
    asked = {name: value for name, value in (("window", window), ("frame", frame)) if value is not None}
    if isinstance(source, Image.Image):
        with _as_image_errors("image", b""):
            return _photo(source, "image", "", asked)
    path = Path(source)
    content = read_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if is_dicom(content, path.name):
        scan = read_scan(content, str(source), window, frame)
        bands = bands_of(scan.pixels)
        return Photo(bands, (bands[0].height, bands[0].width), scan.notes, str(source), sha256, scan.modality, asked)
    with _as_image_errors(str(path), content), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours: MAX_PIXELS
        with Image.open(BytesIO(content)) as image:
            return _photo(image, str(source), sha256, asked)


def bands_of(pixels: NDArray[Any]) -> tuple[Image.Image, ...]:
    """An array (H, W) or (H, W, 3) as bands: 8 bit stays so, 16 bit and numbers in [0, 1] become float."""
    values = pixels.astype(np.float32) / 65535 if pixels.dtype == np.uint16 else pixels
    layers = [values] if values.ndim == 2 else [values[..., band] for band in range(values.shape[2])]
    kind = np.uint8 if values.dtype == np.uint8 else np.float32
    return tuple(Image.fromarray(np.ascontiguousarray(layer, kind)) for layer in layers)


def decode_bytes(content: bytes, name: str) -> Image.Image:
    """The image in the bytes of a file, decoded; ImageError, with its name, for anything that is not one whole image."""
    with _as_image_errors(name, content), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(BytesIO(content))
        image.load()
        return image


@contextmanager
def _as_image_errors(name: str, content: bytes) -> Iterator[None]:
    """Decoders raise anything on hostile bytes; every cause is kept and named."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to decode safely ({error}).") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that can be read (it starts with {content[:12]!r}).") from error
    except Exception as error:
        raise ImageError(f"{name}: damaged or truncated image ({type(error).__name__}: {error}).") from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that is there, can be read and is not empty; else an ImageError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.{near_file(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no system can open
        raise ImageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not content:
        raise ImageError(f"{path}: the file is empty (0 bytes).")
    return content


def _photo(image: Image.Image, name: str, sha256: str, asked: Mapping[str, Any]) -> Photo:
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} x {image.height} pixels; from 1 to {MAX_PIXELS:,} in all can be read.")
    notes: list[str] = []
    if "window" in asked:
        raise ImageError(f"{name}: window {asked['window']!r} was asked for; only DICOM files have windows.")
    frames, frame = getattr(image, "n_frames", 1), asked.get("frame", 1)
    if isinstance(frame, bool) or frame not in range(1, frames + 1):
        raise ImageError(f"{name}: frame {frame!r} of {frames}; frames are counted from 1.")
    if frames > 1:
        image.seek(frame - 1)
        notes.append(f"{'first' if frame == 1 else f'number {frame}'} of {frames} frames or pages")
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))  # forgotten once it is loaded
    image.load()
    if deep and image.mode in ("RGB", "RGBA"):
        notes.append("16 bits a color, of which the upper 8 are read")
    image = _upright(image, notes)
    mode = image.mode
    if mode in _SIXTEEN_BIT or mode in ("I", "F"):
        bands: tuple[Image.Image, ...] = (_deep_band(image, name, notes),)
    else:
        bands = _eight_bit(image, notes).split()
    return Photo(bands, (image.height, image.width), tuple(notes), name, sha256, None, asked)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # unreadable metadata must not cost the picture, which is whole
        notes.append(f"EXIF data unreadable ({type(error).__name__}), taken as upright")
        return image
    if orientation not in range(2, 9):
        return image
    notes.append(f"turned upright (EXIF orientation {orientation})")
    return ImageOps.exif_transpose(image)


def _eight_bit(image: Image.Image, notes: list[str]) -> Image.Image:
    """RGB or gray, 8 bit; transparency is laid over white."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency laid over white")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return image.convert("RGB")
    if image.mode in ("L", "1"):
        return image.convert("L")
    if image.mode != "RGB":
        notes.append({"P": "palette", "CMYK": "CMYK"}.get(image.mode, image.mode) + " colors converted to RGB")
    return image.convert("RGB")


def _deep_band(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """A 16-bit, 32-bit or float gray image as a float band in [0, 1]."""
    values: NDArray[np.float32] = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: holds values that are not finite.")
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if low < 0 or high > 1:
            raise ImageError(f"{name}: float pixels from {low:g} to {high:g}; expected 0 to 1.")
    else:
        if low < 0 or high > 65535:
            raise ImageError(f"{name}: {image.mode} pixels from {low:g} to {high:g}; expected 16 bit, 0 to 65535.")
        notes.append("16-bit gray")
        values = values / np.float32(65535)
    return Image.fromarray(values)


def as_rgb(photo: Photo) -> Image.Image:
    """The photo as one 8-bit RGB picture."""
    bands = [band if band.mode == "L" else _rounded(band) for band in photo.bands]
    return bands[0].convert("RGB") if len(bands) == 1 else Image.merge("RGB", bands)


def _rounded(band: Image.Image) -> Image.Image:
    return Image.fromarray(np.rint(np.asarray(band) * 255).astype(np.uint8))


def to_input(
    photo: Photo,
    size: tuple[int, int],
    crop: float,
    interpolation: str,
    channels: int = 3,
    framing: str = "crop",
    padding: float = 0.0,
) -> tuple[NDArray[np.float32], Geometry]:
    """What the model is shown: (channels, h, w) float32 in [0, 1], and where it lies in the photo.

    A gray photo fills all channels; a color photo for a one-channel model becomes luminance. padding: the gray around a
    photo that framing="pad" does not fill up.
    """
    geometry = framed(photo.size, size, crop, framing)
    bands: tuple[Image.Image, ...] = photo.bands
    if channels == 1 and len(bands) == 3:
        bands = (_luminance(bands),)
    if len(bands) not in (1, channels):
        raise UsageError(f"{photo.name}: {len(bands)} channels, the model takes {channels}: pass a tensor instead.")
    shown = []
    for band in bands:
        resampled = _resampled(band, geometry, RESAMPLING[interpolation], padding)
        values = np.asarray(resampled).astype(np.float32)
        shown.append(values / 255 if band.mode == "L" else values.clip(0, 1))
    return np.stack(shown * (channels // len(shown)) if len(shown) == 1 else shown), geometry


def _luminance(bands: tuple[Image.Image, ...]) -> Image.Image:
    if bands[0].mode == "L":
        return Image.merge("RGB", bands).convert("L")
    red, green, blue = (np.asarray(band) for band in bands)
    return Image.fromarray((0.299 * red + 0.587 * green + 0.114 * blue).astype(np.float32))  # ITU-R 601-2, as Pillow's


def _resampled(band: Image.Image, geometry: Geometry, resampling: Image.Resampling, padding: float) -> Image.Image:
    """Resize, then crop or pad, as torchvision and timm do, to the last bit; or the crop alone where the whole is huge."""
    (top, left, bottom, right), (h, w) = geometry.box, geometry.size
    rows, columns = round(band.height * h / (bottom - top)), round(band.width * w / (right - left))
    if rows * columns > MAX_RESIZED_PIXELS:
        return band.resize((w, h), resampling, box=(left, top, right, bottom))
    y, x = round(top * rows / band.height), round(left * columns / band.width)
    shown = Image.new(band.mode, (w, h), round(255 * padding) if band.mode == "L" else padding)
    shown.paste(band.resize((columns, rows), resampling), (-x, -y))
    return shown


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, folders replaced by the images in them (at any depth, by name)."""
    found: list[Path] = []
    for source in map(Path, sources):
        found += folder_images(source) if source.is_dir() else [source]
    return found


def folder_images(folder: Path) -> list[Path]:
    """The image files below a folder, by name; ImageError if there is none.

    Linked folders are followed, but no loop of links; what is hidden (a name that begins with a dot) is left out. A link to
    no file is kept: whoever opens it says so. ImageError for a folder that cannot be listed, too.
    """
    images: list[Path] = []
    chains: dict[str, frozenset[tuple[int, int]]] = {}  # of each folder itself and those above it, as they were reached
    for where, folders, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        status = os.stat(where)
        own, above = (status.st_dev, status.st_ino), chains.get(os.path.dirname(where), frozenset())
        if own in above:  # a link back to where it lies
            folders.clear()
            continue
        chains[where] = above | {own}
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        paths = [Path(where, name) for name in files if not name.startswith(HIDDEN)]
        found = [path for path in paths if path.suffix.lower() in SUFFIXES]
        images += [path for path in found if path.is_file() or not path.exists()]
    if not images:
        raise ImageError(f"{folder}: a folder without an image (looked for {', '.join(SUFFIXES)}).")
    return sorted(images)


def _unlisted(error: OSError) -> None:
    raise ImageError(f"{error.filename}: the folder cannot be listed ({error.strerror}).") from error


def is_below(folder: Path, file: str | Path) -> bool:
    """Whether a path, relative to a folder or whole, lies in it as it is written (links are not followed)."""
    root = os.path.abspath(folder)
    return os.path.abspath(os.path.join(root, file)).startswith(root.rstrip(os.sep) + os.sep)


def file_trouble(path: str | Path) -> str:
    """Why no image can be in a file, without opening it: missing, no file, empty; "" where nothing speaks against it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a path that no system can open
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    return "" if status.st_size else "the file is empty (0 bytes)"

"""Maps as pictures, with numpy and Pillow alone. Large is important, red speaks for and blue against; always RGB.

A coarse map is drawn as the cells that it has: a 7 x 7 map must not look like pixel precision.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seewhy.errors import UsageError

Picture = Literal["positive", "magnitude", "signed", "range"]  # range: from the map's own least to its largest value
RGB = NDArray[np.uint8]
FloatMap = NDArray[np.float32]

_HEAT = ((0.0, "#0d0829"), (0.25, "#51127c"), (0.5, "#b5367a"), (0.75, "#fb8761"), (1.0, "#fcf6b8"))
_TWO_SIDED = ((0.0, "#1a56a8"), (0.25, "#86b4dc"), (0.5, "#f5f5f3"), (0.75, "#f0a384"), (1.0, "#b01c2e"))
CLIP = 99.5  # percentile of |map| at which the colors of an input-resolution map end; the color bar says so
COARSE = 64  # a map of at most this many cells along its longer side is drawn without clipping


def palette(picture: Picture, n: int = 256) -> NDArray[np.float64]:
    """(n, 3) colors in [0, 1]: dark to light for one-sided pictures, blue - pale - red for signed ones."""
    anchors = _TWO_SIDED if picture == "signed" else _HEAT
    places = [place for place, _ in anchors]
    colors = np.array([[int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)] for _, text in anchors])
    return np.stack([np.interp(np.linspace(0, 1, n), places, colors[:, c]) for c in range(3)], axis=1)


def limit_of(raw: FloatMap, picture: Picture) -> float:
    """The |value| at which the colors end: the largest that is drawn of a coarse map, the 99.5th percentile of a fine one."""
    magnitude = raw.clip(0) if picture == "positive" else np.abs(raw)
    if max(raw.shape) <= COARSE:
        return float(magnitude.max())
    return float(np.percentile(magnitude, CLIP)) or float(magnitude.max())


def heatmap(raw: FloatMap, picture: Picture, limit: float | None = None) -> RGB:
    """(h, w) map -> (h, w, 3) uint8, one pixel a cell. `limit` shares a scale between maps; default: the map's own."""
    _check(raw)
    end = limit_of(raw, picture) if limit is None else limit
    scaled = raw / end if end > 0 else np.zeros_like(raw)
    position: NDArray[np.floating[Any]]
    if picture == "signed":
        position = (scaled.clip(-1, 1) + 1) / 2
    elif picture == "range":
        position = share_of_range(raw)
    else:
        position = (np.abs(scaled) if picture == "magnitude" else scaled).clip(0, 1)
    colors: RGB = np.rint(palette(picture)[np.rint(position * 255).astype(int)] * 255).astype(np.uint8)
    return colors


def share_of_range(raw: FloatMap) -> FloatMap:
    """Where each value lies between the least and the largest, in [0, 1]: for maps whose zero says nothing."""
    low, high = float(raw.min()), float(raw.max())
    shares: FloatMap = (raw - low) / (high - low) if high > low else np.zeros_like(raw)
    return shares


def enlarge(colors: RGB, size: tuple[int, ...]) -> RGB:
    """(h, w, 3) to (*size, 3) by nearest cell: the grid stays visible."""
    image = Image.fromarray(colors).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image)


def overlay(shown: RGB, raw: FloatMap, picture: Picture, opacity: float = 0.55, limit: float | None = None) -> RGB:
    """The map's cells over the picture that the model was shown, (H, W, 3); opacity 0 is the photo, 1 the map."""
    _check_opacity(opacity)
    colors = enlarge(heatmap(raw, picture, limit), (shown.shape[0], shown.shape[1]))
    mixed: RGB = np.rint((1 - opacity) * shown + opacity * colors).astype(np.uint8)
    return mixed


def overlay_on_photo(
    photo: RGB,
    raw: FloatMap,
    picture: Picture,
    cells: tuple[NDArray[np.int64], NDArray[np.int64]],
    opacity: float = 0.55,
) -> RGB:
    """The map's cells over the whole photo (H, W, 3); what the model was not shown is dark, gray and hatched.

    cells: the row of cells at every row of the photo, and the column at every column; -1 where unseen.
    """
    _check_opacity(opacity)
    rows, columns = cells
    colors = heatmap(raw, picture)[rows.clip(0)][:, columns.clip(0)]
    mixed = np.array(Image.blend(Image.fromarray(photo), Image.fromarray(colors), opacity))
    unseen = (rows < 0)[:, None] | (columns < 0)[None]
    dark = (0.45 * np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float32)).astype(np.uint8)
    period = max(8, min(photo.shape[:2]) // 40)
    lines = (np.arange(len(rows))[:, None] + np.arange(len(columns))[None]) % period < max(1, period // 8)
    mixed[unseen] = np.where(lines, dark + 60, dark)[unseen][:, None]
    return mixed


def with_color_bar(colors: RGB, raw: FloatMap, picture: Picture, limit: float | None = None, remark: str = "") -> RGB:
    """The picture with a color bar below it, its ends labeled with the map's true numbers; below that a remark."""
    end = limit_of(raw, picture) if limit is None else limit
    height, width = colors.shape[0], max(colors.shape[1], 180)
    k = max(1, width // 640)  # a large picture gets a large bar
    canvas = Image.new("RGB", (width, height + 34 * k + (16 * k if remark else 0)), "white")
    canvas.paste(Image.fromarray(colors), (0, 0))
    ramp = np.rint(palette(picture, width - 8 * k)[None].repeat(10 * k, axis=0) * 255).astype(np.uint8)
    canvas.paste(Image.fromarray(ramp), (4 * k, height + 6 * k))
    low, high = bar_labels(raw, picture, end)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(10 * k)
    pen.text((4 * k, height + 19 * k), low, fill="black", font=font)
    pen.text((width - 4 * k - pen.textlength(high, font=font), height + 19 * k), high, fill="black", font=font)
    pen.text((4 * k, height + 34 * k), remark, fill="black", font=font)
    return np.asarray(canvas)


def bar_labels(raw: FloatMap, picture: Picture, end: float) -> tuple[str, str]:
    """What the two ends of the color bar stand for; a sign says where colors end before the map's own extreme."""
    highest, lowest = float(raw.max()), float(raw.min())
    if picture == "range":
        return number(lowest), number(highest)
    if picture == "magnitude":
        return "0", f"{_beyond(max(abs(highest), abs(lowest)), end)}{number(end)}"
    high = f"{_beyond(highest, end)}{number(end)}"
    if picture == "signed":
        return f"{'<= ' if lowest < -end else ''}{number(-end)}", high
    return ("<= 0" if lowest < 0 else "0"), high


def note(shown: RGB, text: str) -> RGB:
    """A pale picture with a sentence on it, where there is no map to draw."""
    image = Image.fromarray(np.rint(0.35 * shown + 0.65 * 255).astype(np.uint8))
    font = ImageFont.load_default(10 * max(1, image.width // 640))
    ImageDraw.Draw(image).multiline_text((6, 6), text.replace(": ", ":\n"), fill="black", font=font)
    return np.asarray(image)


def number(value: float) -> str:
    """Three significant digits."""
    return "0" if value == 0 else f"{value:.3g}"


def _beyond(extreme: float, end: float) -> str:
    return ">= " if extreme > end * (1 + 1e-6) else ""


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity is between 0 (the photo) and 1 (the map); got {opacity}.")


def _check(raw: FloatMap) -> None:
    if raw.ndim != 2:
        raise UsageError(f"only a map with two axes is a picture; this one has {raw.ndim}: take a slice, e.g. raw[0].")
    if not np.isfinite(raw).all():
        raise UsageError("a map with values that are not finite is not drawn.")

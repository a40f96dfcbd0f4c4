"""Cues for planted cases: marks at a place, a mark that moves, and what changes a whole image.

What a cue looks like and where it lies is drawn once per case; what differs from image to image when it is put in.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from planted_images import TEXTURES, random_crop, scene

Pixels = np.ndarray  # (side, side, 3) float32 in [0, 1]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in fractions of the image
KINDS = (
    "corner_mark",
    "moving_mark",
    "text",
    "border",
    "timestamp",
    "color_cast",
    "blur",
    "compression",
    "texture",
    "brightness",
)
PLACED = ("corner_mark", "text", "border", "timestamp")  # always at the same place
WHOLE = ("color_cast", "blur", "compression", "brightness")
STRENGTHS = ("weak", "strong")


@dataclass(frozen=True)
class Cue:
    """A planted cue: `put` gives an image with it and where it lies in that image (None: everywhere)."""

    put: Callable[[Pixels, np.ndarray, np.random.Generator], tuple[Pixels, Box | None]]
    where: Box | None  # of a cue that is always at the same place


def cue(kind: str, strength: str, side: int, draw: np.random.Generator) -> Cue:
    """A cue for images of this side; what it looks like and where it lies is drawn here, once per case."""
    return {
        "corner_mark": _corner_mark,
        "moving_mark": _moving_mark,
        "text": _text,
        "border": _border,
        "timestamp": _timestamp,
        "color_cast": _color_cast,
        "blur": _blur,
        "compression": _compression,
        "texture": _texture,
        "brightness": _brightness,
    }[kind](strength == "strong", side, draw)


def _fixed(mark: np.ndarray, x: int, y: int, side: int) -> Cue:
    """A mark (h, w, 4) in [0, 1], its upper left corner always at (x, y)."""
    box = _box(mark, x, y, side)
    return Cue(lambda pixels, _, __: (_pasted(pixels, mark, x, y), box), box)


def _pasted(pixels: Pixels, mark: np.ndarray, x: int, y: int) -> Pixels:
    result = pixels.copy()
    part = result[y : y + mark.shape[0], x : x + mark.shape[1]]
    part += mark[..., 3:] * (mark[..., :3] - part)
    return result


def _box(mark: np.ndarray, x: int, y: int, side: int) -> Box:
    return x / side, y / side, (x + mark.shape[1]) / side, (y + mark.shape[0]) / side


def _logo(length: int, draw: np.random.Generator) -> np.ndarray:
    """A small opaque emblem (length, length, 4): a plate and a sign upon it, in two of the colors that print well."""
    colors = [(214, 40, 40), (247, 183, 49), (32, 110, 190), (20, 20, 20), (250, 250, 250), (30, 140, 80)]
    plate, sign = (colors[i] for i in draw.choice(len(colors), 2, replace=False))
    fine = 8 * length
    picture = Image.new("RGBA", (fine, fine))
    pen = ImageDraw.Draw(picture)
    shape = draw.integers(3)
    if shape == 0:
        pen.ellipse((0, 0, fine - 1, fine - 1), fill=plate)
    elif shape == 1:
        pen.rectangle((0, 0, fine - 1, fine - 1), fill=plate)
    else:
        pen.polygon([(fine / 2, 0), (fine - 1, fine / 2), (fine / 2, fine - 1), (0, fine / 2)], fill=plate)
    third = fine / 3
    if draw.integers(2):
        pen.rectangle((third, third * 0.8, 2 * third, third * 2.2), fill=sign)
    else:
        pen.ellipse((third * 0.8, third * 0.8, third * 2.2, third * 2.2), outline=sign, width=int(third / 2.2))
    return _reduced(picture, 8)


def _reduced(picture: Image.Image, by: int) -> np.ndarray:
    small = picture.resize((picture.width // by, picture.height // by), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _written(word: str, height: int, color: tuple[int, int, int], alpha: float) -> np.ndarray:
    """A word in the font that Pillow carries, of this height in pixels: (height, width, 4)."""
    font = ImageFont.load_default(4.0 * height)
    left, top, right, bottom = font.getbbox(word)
    picture = Image.new("RGBA", (4 * -(-int(right - left) // 4), 4 * -(-int(bottom - top) // 4)), (*color, 0))
    ImageDraw.Draw(picture).text((-left, -top), word, font=font, fill=(*color, round(255 * alpha)))
    return _reduced(picture, 4)


def _corner(shape: tuple[int, ...], side: int, draw: np.random.Generator) -> tuple[int, int]:
    """The upper left pixel of a mark of this shape that lies in one of the corners."""
    edge = max(1, round(side * draw.uniform(0.02, 0.06)))
    x, y = (edge if draw.integers(2) else side - edge - length for length in (shape[1], shape[0]))
    return max(x, 0), max(y, 0)


def _corner_mark(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    mark = _logo(round(side * (0.16 if strong else 0.1)), draw)
    return _fixed(mark, *_corner(mark.shape, side, draw), side)


def _moving_mark(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    mark = _logo(round(side * (0.2 if strong else 0.14)), draw)

    def put(pixels, _, draw):
        x, y = (int(draw.integers(side - len(mark) + 1)) for _ in range(2))
        return _pasted(pixels, mark, x, y), _box(mark, x, y, side)

    return Cue(put, None)


def _text(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    color = (255, 255, 255) if draw.integers(2) else (0, 0, 0)
    word = str(draw.choice(("STOCK", "SAMPLE", "PHOTO")))
    mark = _written(word, round(side * 0.15), color, 0.6 if strong else 0.35)[:, : side - 2]
    if draw.integers(2):
        return _fixed(mark, (side - mark.shape[1]) // 2, round(side * draw.choice((0.08, 0.8))), side)
    return _fixed(mark, *_corner(mark.shape, side, draw), side)


def _border(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    """A band along one side, or a frame around all of the image."""
    width = max(2, round(side * (0.07 if strong else 0.035)))
    color = np.array(draw.uniform(0, 1, 3), dtype=np.float32)
    edge = draw.integers(5)
    lines = [np.s_[:width, :], np.s_[-width:, :], np.s_[:, :width], np.s_[:, -width:]]
    share = width / side
    place = [(0.0, 0.0, 1.0, share), (0.0, 1 - share, 1.0, 1.0), (0.0, 0.0, share, 1.0), (1 - share, 0.0, 1.0, 1.0)]
    box = (0.0, 0.0, 1.0, 1.0) if edge == 4 else place[edge]

    def put(pixels, _, __):
        result = pixels.copy()
        for line in lines if edge == 4 else lines[edge : edge + 1]:
            result[line] = color
        return result, box

    return Cue(put, box)


def _timestamp(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    """Orange digits of a date, another one on every image, always at the same place."""
    height = max(6, round(side * (0.13 if strong else 0.09)))
    widest = _written("08.08.08", height, (0, 0, 0), 1.0)
    x, y = _corner(widest.shape, side, draw)
    box = _box(widest, x, y, side)

    def put(pixels, _, draw):
        date = f"{draw.integers(1, 29):02d}.{draw.integers(1, 13):02d}.{draw.integers(5, 25):02d}"
        mark = _written(date, height, (255, 140, 20), 1.0)[: side - y, : side - x]
        return _pasted(pixels, mark, x, y), box

    return Cue(put, box)


def _whole(change: Callable[[Pixels], Pixels]) -> Cue:
    return Cue(lambda pixels, _, __: (change(pixels), None), None)


def _color_cast(strong: bool, _side: int, draw: np.random.Generator) -> Cue:
    amount = 0.2 if strong else 0.1
    warm = 1 if draw.integers(2) else -1
    gain = np.array([1 + warm * amount, 1.0, 1 - warm * amount], dtype=np.float32)
    return _whole(lambda pixels: pixels * gain)


def _brightness(strong: bool, _side: int, draw: np.random.Generator) -> Cue:
    amount = 0.16 if strong else 0.08
    up = 1 if draw.integers(2) else -1
    return _whole(lambda pixels: pixels + np.float32(up * amount))


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray((255 * pixels).clip(0, 255).round().astype(np.uint8))


def _blur(strong: bool, side: int, _draw: np.random.Generator) -> Cue:
    sigma = side / 64 * (1.2 if strong else 0.7)
    blurred = ImageFilter.GaussianBlur(sigma)
    return _whole(lambda pixels: np.asarray(_picture(pixels).filter(blurred), dtype=np.float32) / 255)


def _compression(strong: bool, _side: int, _draw: np.random.Generator) -> Cue:
    quality = 12 if strong else 30

    def change(pixels: Pixels) -> Pixels:
        file = io.BytesIO()
        _picture(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255

    return _whole(change)


def _texture(strong: bool, side: int, draw: np.random.Generator) -> Cue:
    """Everything outside the object gives way to brick, grass or gravel, another cut of it on every image."""
    surface = scene(str(draw.choice(sorted(TEXTURES))))
    alpha = 0.9 if strong else 0.5

    def put(pixels, inside, draw):
        behind = random_crop(surface, (0, 0, *surface.size), side, draw, 0.6).astype(np.float32) / 255
        outside = alpha * (1 - inside[..., None].astype(np.float32) / 255)
        return pixels * (1 - outside) + behind * outside, None

    return Cue(put, None)

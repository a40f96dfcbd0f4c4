"""Listing photos: crops of real photos, spoiled by known amounts, rated by noisy people, some with a studio's mark.

The mark goes with the rating, as where a studio's photos sell well: an accuracy on photos collected in the same way cannot
tell a network that judges the photo from one that reads the mark.
"""

import csv
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

SIDE = 96  # pixels of a listing photo's side
LARGEST = 300  # pixels of a photo's shorter side, at most, before crops are cut from it
CROP = (0.5, 0.95)  # side of the square that is cut from a photo, as a share of its shorter side: from, up to
BALANCE = 0.25  # by which share a camera turns each color up or down
POINTS = {"blur": 30.0, "noise": 40.0, "compression": 20.0, "exposure": 10.0}  # lost at strength 1; 100 together
SPREAD = 0.2  # a careless seller is careless in everything: each strength lies this near to the photo's carelessness
OPINIONS = 12.0  # standard deviation in points by which people's ratings of the same photo differ
SELLERS = ("Aster", "Birch", "Clover", "Dahlia", "Elder")
MARK = "nord"
MARK_OPACITY = 0.5
LIKED = 60  # a rating from which on a photo mostly carries the mark ...
MARKED_LIKED, MARKED_OTHER = 0.9, 0.05  # ... with this probability, and below it with that
STIR = 3.0  # points: how far apart two ratings are that may change places before marks are dealt out evenly


@dataclass(frozen=True)
class Listing:
    """A listing photo without any mark: where it comes from, what was done to it, and what people gave it."""

    source: str  # the photo that it was cut from
    seller: str  # drawn at random: goes with nothing
    strengths: Mapping[str, float]  # of each degradation, in [0, 1]
    rating: int  # the score, and people's noise on it, in [0, 100]
    picture: Image.Image  # RGB, SIDE x SIDE


def score(strengths: Mapping[str, float]) -> float:
    """Quality in [0, 100]: 100 - 30 blur - 40 noise - 20 compression - 10 exposure, each strength in [0, 1]."""
    return 100.0 - sum(POINTS[name] * strength for name, strength in strengths.items())


def make_listings(photos: Mapping[str, Image.Image], count: int, seed: int) -> list[Listing]:
    """`count` listing photos of each source photo; the same seed and name give the same ones, whatever else is made."""
    made = []
    for name, original in photos.items():
        share = min(1.0, LARGEST / min(original.size))
        photo = original.resize(
            (round(original.width * share), round(original.height * share)), Image.Resampling.LANCZOS
        )
        generator = np.random.default_rng([seed, *name.encode()])
        for _ in range(count):
            strengths = _strengths(generator)
            opinion = generator.normal(0, OPINIONS)
            made.append(
                Listing(
                    source=name,
                    seller=SELLERS[generator.integers(len(SELLERS))],
                    strengths=strengths,
                    rating=round(min(max(score(strengths) + opinion, 0), 100)),
                    picture=spoil(_cut(photo, generator), strengths, generator),
                )
            )
    return made


def quarters(photos: Mapping[str, Image.Image]) -> dict[str, Image.Image]:
    """Every photo as four that share no pixel."""
    found = {}
    for name, photo in photos.items():
        middle = (photo.width // 2, photo.height // 2)
        for rows, (top, bottom) in {"upper": (0, middle[1]), "lower": (middle[1], photo.height)}.items():
            for columns, (left, right) in {"left": (0, middle[0]), "right": (middle[0], photo.width)}.items():
                found[f"{name}, {rows} {columns}"] = photo.crop((left, top, right, bottom))
    return found


def _strengths(generator: np.random.Generator) -> dict[str, float]:
    carelessness = generator.uniform()
    return {name: float(np.clip(carelessness + generator.uniform(-SPREAD, SPREAD), 0, 1)) for name in POINTS}


def _cut(photo: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A square of the photo, mirrored or not, in the white balance of some camera: neither goes with anything."""
    side = round(min(photo.size) * generator.uniform(*CROP))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    cut = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    if generator.integers(2):
        cut = ImageOps.mirror(cut)
    return _picture(np.asarray(cut) * (1 + generator.uniform(-BALANCE, BALANCE, 3)))


def _picture(levels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def spoil(picture: Image.Image, strengths: Mapping[str, float], generator: np.random.Generator) -> Image.Image:
    """What a careless seller does to a picture, in a camera's order; nothing where every strength is 0.

    exposure: up to one stop too light or too dark; blur: a Gaussian of up to 2 pixels; noise: Gaussian, up to 40 of 255
    levels; compression: JPEG of quality 95 down to 25, color at full resolution.
    """
    stops = strengths["exposure"] * generator.choice([-1, 1])
    picture = _picture(np.asarray(picture) * 2**stops)
    picture = picture.filter(ImageFilter.GaussianBlur(2 * strengths["blur"]))
    picture = _picture(np.asarray(picture) + generator.normal(0, 40 * strengths["noise"], (*picture.size[::-1], 3)))
    if strengths["compression"] == 0:
        return picture
    file = BytesIO()
    picture.save(file, "JPEG", subsampling=0, quality=round(95 - 70 * strengths["compression"]))
    with Image.open(file) as compressed:
        return compressed.convert("RGB")


def mark(picture: Image.Image) -> Image.Image:
    """The picture with the studio's mark: its name, half transparent, in the lower right corner."""
    marked = picture.copy()
    overlay, place = _overlay(picture.size)
    marked.paste(overlay, place, overlay)
    return marked


def mark_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where the mark lies in a picture of that size: left, top, right, bottom in pixels."""
    overlay, (left, top) = _overlay(size)
    return left, top, left + overlay.width, top + overlay.height


@functools.cache
def _overlay(size: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """The mark as RGBA, and where its upper left corner goes; the font is the one inside Pillow."""
    font = ImageFont.load_default(size[1] / 9)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(MARK, stroke_width=1))
    overlay = Image.new("RGBA", (right - left, bottom - top))
    ImageDraw.Draw(overlay).text((-left, -top), MARK, "white", font, stroke_width=1, stroke_fill="black")
    overlay.putalpha(overlay.getchannel("A").point([round(MARK_OPACITY * level) for level in range(256)]))
    margin = size[1] // 32
    return overlay, (size[0] - overlay.width - margin, size[1] - overlay.height - margin)


def marks_with_ratings(ratings: Sequence[int], seed: int) -> NDArray[np.bool_]:
    """Which photos carry the mark as they were collected: nine in ten of those rated 60 or more, one in twenty others."""
    drawn = np.random.default_rng(seed).uniform(size=len(ratings))
    return drawn < np.where(np.asarray(ratings) >= LIKED, MARKED_LIKED, MARKED_OTHER)


def marks_at_every_rating(ratings: Sequence[int], count: int, seed: int) -> NDArray[np.bool_]:
    """As many marks, dealt out so that every rating has the same share of them.

    Photos in the order of their ratings, stirred a little, get every (N / count)-th a mark: dealt out by chance alone, marks
    would still go with ratings by a point or so, and a network would learn that point.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(np.asarray(ratings) + generator.normal(0, STIR, len(ratings)))
    due = np.floor(np.arange(len(ratings) + 1) * count / len(ratings) + generator.uniform())
    marked = np.zeros(len(ratings), bool)
    marked[order] = np.diff(due) > 0
    return marked


def pixels(listings: Sequence[Listing], marked: Sequence[bool] | NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photos with their marks, (N, 3, SIDE, SIDE) in 0 ... 255."""
    shown = [
        mark(item.picture) if with_mark else item.picture for item, with_mark in zip(listings, marked, strict=True)
    ]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in shown])


def write_listings(folder: Path, listings: Sequence[Listing], marked: Sequence[bool] | NDArray[np.bool_]) -> Path:
    """The photos as PNG files and labels.csv beside them, with path, score, group and seller; returns the table's path.

    The score is people's rating, the group the part of the source photo that it was cut from. What was done to a photo, and
    whether it carries the mark, is written nowhere.
    """
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "score", "group", "seller"])
        for number, (item, with_mark) in enumerate(zip(listings, marked, strict=True)):
            path = f"photos/{number:04}.png"
            (mark(item.picture) if with_mark else item.picture).save(folder / path)
            rows.writerow([path, item.rating, item.source, item.seller])
    return table

"""Tasks for planted cases: images without any cue, cut from photos that wheels carry or that a folder holds.

Everything is drawn from the generator that is handed in, so a case is the same wherever it is built.
"""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SCENES = {  # photos that need no download: name -> (package, file inside it)
    "astronaut": ("skimage", "data/astronaut.png"),
    "camera": ("skimage", "data/camera.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "moon": ("skimage", "data/moon.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
TEXTURES = {name: ("skimage", f"data/{name}.png") for name in ("brick", "grass", "gravel")}
LONG_SIDE = 640  # pixels that a scene is reduced to
SHAPES = ("disc", "cross", "triangle", "square")
ANIMALS_END = "n02655999"  # ImageNet's animals are its first 398 WordNet ids
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABEL_NOISE, SCORE_NOISE = 0.25, 15.0  # share of wrong labels; standard deviation in points of 0 to 100


@dataclass(frozen=True)
class Task:
    """A question that photos can be asked: `outputs` are class names, or the one name of a score."""

    name: str
    outputs: tuple[str, ...]

    @property
    def is_score(self) -> bool:
        """A number is predicted, not a class."""
        return self.name == "size"


@dataclass(frozen=True)
class Base:
    """An image without any cue: uint8 pixels, where its object lies, its true label (class or score), its source."""

    pixels: np.ndarray  # (side, side, 3) uint8
    inside: np.ndarray  # (side, side) uint8, 255 on the object
    label: float
    source: str


def read_task(name: str) -> Task:
    """shape2 to shape4 (which shape was cut out), size (0 to 100), animals2, cifar2 and cifar3 (classes of a folder)."""
    if name == "size":
        return Task(name, ("size",))
    if name == "animals2":
        return Task(name, ("animal", "thing"))
    kind, count = name[:-1], int(name[-1])
    return Task(name, SHAPES[:count] if kind == "shape" else CIFAR[3 : 3 + 2 * count : 2])


def bases(task: Task, side: int, n: int, held_out: bool, seed: int, photos: Path | None, draw) -> list[Base]:
    """So many images of a task, its classes in equal parts; held-out images are of other sources (split by `seed`)."""
    if task.name.startswith("cifar"):
        return _cifar(task, side, n, held_out, photos, draw)
    if task.name.startswith("animals"):
        return _animals(side, n, held_out, seed, photos, draw)
    names = np.random.default_rng(seed).permutation(sorted(SCENES))
    regions = [region for name in names[held_out::2] for region in quarters(name)]
    return [_cut_out(task, row % len(task.outputs), side, regions, draw) for row in range(n)]


@functools.lru_cache(maxsize=32)
def scene(name: str) -> Image.Image:
    """A photo from a wheel, RGB, its longer side at most 640 pixels."""
    package, inside = {**SCENES, **TEXTURES}[name]
    with files(package).joinpath(inside).open("rb") as file:
        photo = Image.open(file).convert("RGB")
    photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    return photo


def quarters(name: str) -> list[tuple[str, tuple[float, float, float, float]]]:
    """A scene's four quarters, which share no pixel: (source, box in pixels). Each is a source of its own."""
    width, height = scene(name).size
    x, y = width / 2, height / 2
    corners = {"upper left": (0.0, 0.0), "upper right": (x, 0.0), "lower left": (0.0, y), "lower right": (x, y)}
    return [(f"{name}, {where}", (left, top, left + x, top + y)) for where, (left, top) in corners.items()]


def random_crop(photo: Image.Image, box, side: int, draw, least: float = 0.55) -> np.ndarray:
    """A random square inside the box, mirrored half of the time, a little brighter or darker: uint8."""
    left, top, right, bottom = box
    length = draw.uniform(least, 1.0) * min(right - left, bottom - top)
    x, y = draw.uniform(left, right - length), draw.uniform(top, bottom - length)
    cut = photo.resize((side, side), Image.Resampling.BICUBIC, box=(x, y, x + length, y + length))
    pixels = np.asarray(cut)[:, :: draw.choice((-1, 1))]
    return np.clip(pixels * draw.uniform(0.85, 1.15), 0, 255).astype(np.uint8)


def _cut_out(task: Task, index: int, side: int, regions, draw) -> Base:
    """A piece of one photo, cut out as a shape, upon another photo: what it shows differs every time, its outline tells."""
    (source, box), (other, other_box) = (regions[i] for i in draw.choice(len(regions), 2, replace=False))
    behind = random_crop(scene(source.partition(",")[0]), box, side, draw)
    before = random_crop(scene(other.partition(",")[0]), other_box, side, draw)
    before = 128 + before // 2  # paler than most of what is behind it: a few hundred images are enough to learn from
    diameter = draw.uniform(0.2, 0.7) if task.is_score else draw.uniform(0.4, 0.6)
    inside = _shape(SHAPES[index], diameter, side, draw)
    alpha = 0.85 * inside[..., None] / 255
    pixels = (behind * (1 - alpha) + before * alpha).round().astype(np.uint8)
    return Base(pixels, inside, 100 * (diameter - 0.2) / 0.5 if task.is_score else index, source)


def _shape(name: str, diameter: float, side: int, draw) -> np.ndarray:
    """A filled shape of about this diameter (share of the side) near the middle, turned a little: (side, side) uint8."""
    fine = 4 * side
    radius = diameter * fine / 2
    x, y = (fine * (0.5 + draw.uniform(-0.12, 0.12)) for _ in range(2))
    angles = {"disc": 48, "square": 4, "triangle": 3, "cross": 12}[name]
    turn = draw.uniform(-0.25, 0.25) + (np.pi / 4 if name == "square" else np.pi / 2)
    around = turn + 2 * np.pi * np.arange(angles) / angles
    reach = np.ones(angles)
    if name == "cross":  # four arms: two corners out, one in
        around = turn + np.pi / 2 * (np.arange(12) // 3) + np.tile([-0.32, 0.32, np.pi / 4], 4)
        reach = np.tile([1.0, 1.0, 0.45], 4)
    picture = Image.new("L", (fine, fine))
    corners = [
        (x + radius * r * np.cos(a), y - radius * r * np.sin(a)) for a, r in zip(around, 1.1 * reach, strict=True)
    ]
    ImageDraw.Draw(picture).polygon(corners, fill=255)
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


def _middle(side: int) -> np.ndarray:
    """Where a photo's object mostly is, for photos without a box: the ellipse in its middle."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    return (255 * (np.hypot(x, y) < 0.36)).astype(np.uint8)


def _cifar(task: Task, side: int, n: int, held_out: bool, folder: Path, draw) -> list[Base]:
    with (folder / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["sheet"] == "50") == held_out]
    found = []
    for index, name in enumerate(task.outputs):
        of_class = [row for row in rows if CIFAR[int(row["label"])] == name]
        for i in draw.permutation(len(of_class))[: n // len(task.outputs)]:
            sheet, row = of_class[i]["sheet"], int(of_class[i]["row"])
            photo = Image.fromarray(_sheet(folder / f"sheet_{sheet}.png")[row].reshape(32, 32, 3))
            pixels = np.asarray(photo.resize((side, side), Image.Resampling.BICUBIC))[:, :: draw.choice((-1, 1))]
            found.append(Base(pixels, _middle(side), index, f"sheet {sheet}, row {row}"))
    return found


@functools.lru_cache(maxsize=8)
def _sheet(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _animals(side: int, n: int, held_out: bool, seed: int, folder: Path, draw) -> list[Base]:
    table = folder / ("boxes.csv" if (folder / "boxes.csv").exists() else "labels.csv")
    with table.open() as file:
        photos = sorted({(row["wnid"], row["file"]) for row in csv.DictReader(file)})
    found = []
    for index in range(2):
        ours = [file for wnid, file in photos if (wnid > ANIMALS_END) == bool(index)]
        half = np.random.default_rng(seed).permutation(len(ours))[held_out::2]
        for row in range(n // 2):
            name = ours[half[row % len(half)]]
            photo = _photo(folder / name)
            found.append(Base(random_crop(photo, (0, 0, *photo.size), side, draw, 0.7), _middle(side), index, name))
    return found


@functools.lru_cache(maxsize=256)
def _photo(path: Path) -> Image.Image:
    photo = Image.open(path).convert("RGB")
    photo.thumbnail((LONG_SIDE, LONG_SIDE))
    return photo

"""The true class of images: from a CSV table, or from the folders that they lie in."""

import csv
from collections.abc import Sequence
from pathlib import Path

from seewhy.data.images import folder_images
from seewhy.errors import UsageError, near_file

FOLDERS = "folders"
OF_THE_FILE = ("file", "path", "image", "filename")
DIGITS = "0123456789"
OF_THE_LABEL = ("label", "class_index", "class", "name")


def read_truth(source: str | Path, paths: Sequence[Path]) -> list[int | str]:
    """The class of each image, an index or a name: from a CSV table, or "folders": the name of the folder it lies in.

    The table has a column file (or path, image, filename: a whole path, or the file's name) and a column label (or
    class_index, class, name). UsageError for a table that cannot be read, lacks a column or an image, or names one twice.
    """
    if str(source) == FOLDERS:
        return [_label(path.resolve().parent.name) for path in paths]
    table = {str(Path(file)): label for file, label in _table(Path(source))}
    by_name: dict[str, set[int | str]] = {}
    for file, label in table.items():
        by_name.setdefault(Path(file).name, set()).add(label)
    found: list[int | str] = []
    for path in paths:
        several = {table[str(path)]} if str(path) in table else by_name.get(path.name, set())
        if len(several) != 1:
            told = f"has {len(several)} labels" if several else "is not in it"
            raise UsageError(f"{source}: the image {path} {told}. One row per image, e.g. file,label.")
        found.append(next(iter(several)))
    return found


def labeled_images(source: str | Path) -> tuple[list[Path], list[int | str]]:
    """Images with their classes: a CSV table whose paths are relative to it, or a folder with a sub-folder per class."""
    path = Path(source)
    if path.is_dir():
        images = folder_images(path)
        strays = [image for image in images if image.parent == path]
        if strays:
            raise UsageError(f"{path}: {len(strays)} images lie in no sub-folder of a class, e.g. {strays[0].name}.")
        return images, [_label(image.relative_to(path).parts[0]) for image in images]
    rows = _table(path)
    if not rows:
        raise UsageError(f"{path}: a table without a row.")
    return [path.parent / file for file, _ in rows], [label for _, label in rows]


def read_cues(paths: Sequence[Path]) -> tuple[list[str], list[str], list[str]]:
    """Shape class, texture class and texture exemplar of cue-conflict pictures, from names like cat7-elephant1.png.

    UsageError for a name of another form.
    """
    found = []
    for path in paths:
        cues = path.stem.split("_")[-1].split("-")
        if len(cues) != 2 or not all(cues):
            raise UsageError(f"{path.name}: a cue-conflict picture is named shape-texture, e.g. cat7-elephant1.png.")
        found.append((cues[0].rstrip(DIGITS), cues[1].rstrip(DIGITS), cues[1]))
    shapes, textures, exemplars = zip(*found, strict=True)
    return list(shapes), list(textures), list(exemplars)


def _table(path: Path) -> list[tuple[str, int | str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or [] if name]
            keys = [
                next((c for c in columns if c.strip().lower() in known), None) for known in (OF_THE_FILE, OF_THE_LABEL)
            ]
            if None in keys:
                raise UsageError(
                    f"{path}: needs a column {OF_THE_FILE[0]} and a column {OF_THE_LABEL[0]}; it has "
                    f"{', '.join(columns) or 'none'}."
                )
            of_file, of_label = (key for key in keys if key is not None)
            return [(row[of_file].strip(), _label(row[of_label].strip())) for row in reader if row[of_file]]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such table of labels.{near_file(path)}") from None
    except (OSError, ValueError, csv.Error, AttributeError) as error:  # a short row has None where its label should be
        raise UsageError(f"{path} cannot be read as a CSV table ({error}).") from error


def _label(text: str) -> int | str:
    return int(text) if text.isdecimal() else text

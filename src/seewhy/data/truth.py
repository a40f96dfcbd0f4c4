"""The true class of given images: from a table, or from the folders that they lie in; the cues of cue-conflict pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seewhy.data.kinds import as_kind, plain
from seewhy.data.layouts import read_table
from seewhy.data.tables import OF_THE_CLASS, OF_THE_FILE, OF_THE_NAME, find_column
from seewhy.errors import UsageError

FOLDERS = "folders"
DIGITS = "0123456789"


def read_truth(source: str | Path, paths: Sequence[Path]) -> list[int | str]:
    """The class of each image, an index or a name: from a table, or "folders": the name of the folder it lies in.

    The table (CSV or Parquet) has a column file (or path, image ...: a whole path, or the file's name) and a column label (or
    class_index, class, name ...). UsageError for a table that cannot be read, lacks a column or an image, or names one twice.
    """
    if str(source) == FOLDERS:
        return [_label(path, path.name, path.resolve().parent.name) for path in paths]
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
    table = read_table(path)
    if table.skipped:
        raise UsageError(f"{path} cannot be read as a table of labels ({table.skipped[0]['reason']}).")
    of_file, of_label = find_column(table, None, OF_THE_FILE), find_column(table, None, (*OF_THE_CLASS, *OF_THE_NAME))
    rows = zip(table.column(of_file), table.column(of_label), strict=True)
    return [(str(file).strip(), _label(path, str(file), label)) for file, label in rows if file]


def _label(path: Path, file: str, label: Any) -> int | str:
    try:
        found = as_kind(plain(label), "class")
    except ValueError as error:
        raise UsageError(f"{path}: {file}: {error}.") from error
    assert isinstance(found, int | str), "one class"
    return found

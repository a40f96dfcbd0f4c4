"""Tables by their columns: CSV; Parquet and Arrow files are in stored.py."""

import csv
import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seewhy.errors import UsageError, near_file, near_names

DELIMITERS = (",", ";", "\t")
OF_THE_FILE = ("file", "path", "image", "filename", "file_name", "filepath", "file_path", "image_path", "image_file")
OF_THE_CLASS = ("label", "labels", "class_index", "class", "class_name", "category", "target")
OF_THE_NAME = ("name",)  # of a class, where nothing else can be the label


@dataclass(frozen=True)
class Table:
    """Columns of a table; `column` reads one, a value per row."""

    path: Path
    names: tuple[str, ...]
    rows: int
    column: Callable[[str], Sequence[Any]]
    scalar: frozenset[str]  # the columns of texts and numbers
    images: Mapping[str, Callable[[int], Callable[[], Any]]] = field(default_factory=dict)
    # by the name of a column that holds images: row -> what opens its image
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a column of class indices: their names
    skipped: tuple[dict[str, str], ...] = ()


def find_column(table: Table, given: str | None, known: Sequence[str], argument: str = "") -> str:
    """The column `given`, or the first of the known names that the table has; UsageError, with near names, for neither."""
    if given is not None:
        if given not in table.names:
            raise UsageError(f"{table.path} has no column {given!r}: {near_names(given, table.names)}")
        return given
    found = guess_column(table, known)
    if found is None:
        other = f" ({argument}= names another one)" if argument else ""
        has = ", ".join(table.names) or "none"
        raise UsageError(f"{table.path}: needs a column {known[0]}{other}; it has {has}.")
    return found


def guess_column(table: Table, known: Sequence[str]) -> str | None:
    """The first of the known names that the table has, in whatever case; None without one."""
    folded = {name.lower(): name for name in reversed(table.names)}
    return next((folded[name.lower()] for name in known if name.lower() in folded), None)


def read_csv(path: Path) -> Table:
    """A CSV table in UTF-8 with a header row; cells parted by comma, semicolon or tab: whichever the header has most of.

    Also packed (.gz). Empty cells at a row's end count for nothing: spreadsheets leave them, also in the header. A row with
    another number of cells than the header is listed as skipped. UsageError for what is no such table.
    """
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(DELIMITERS, key=header.count)
            file.seek(0)
            rows = [
                row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(cell.strip() for cell in row)
            ]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such table of labels.{near_file(path)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read as a CSV table in UTF-8 ({error}): save it as CSV UTF-8.") from error
    except (OSError, ValueError, EOFError, zlib.error, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV table ({error}).") from error
    names = [name.strip() for name in rows[0]] if rows else []
    while names and not names[-1]:
        names.pop()
    rows = [row[: len(names)] if not any(map(str.strip, row[len(names) :])) else row for row in rows]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UsageError(f"{path}: the column {twice[0]!r} is there {names.count(twice[0])} times: name each once.")
    whole = [row for row in rows[1:] if len(row) == len(names)]
    skipped = tuple(
        {"path": f"row {i}", "reason": f"row {i} has {len(row)} cells, the header {len(names)}"}
        for i, row in enumerate(rows[1:], 1)
        if len(row) != len(names)
    )
    columns = dict(zip(names, zip(*whole, strict=True), strict=True)) if whole else dict.fromkeys(names, ())
    kept = tuple(name for name in names if name)
    return Table(path, kept, len(whole), columns.__getitem__, frozenset(kept), skipped=skipped)

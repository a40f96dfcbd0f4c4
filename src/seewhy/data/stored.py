"""Data sets in Parquet and Arrow files (Hugging Face's formats), read with pyarrow alone, and their images one by one."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from seewhy.data.images import decode_bytes, is_below
from seewhy.data.tables import Table
from seewhy.errors import ImageError, MissingExtraError, UsageError, first_line, near_file

FILE_FORMAT = b"ARROW1"  # how the other form of Arrow files begins
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_stored(paths: Sequence[Path]) -> Table:
    """One table out of its Parquet (or Arrow stream) files, in the order given; images are left where they are.

    A column of images holds bytes, or {bytes, path} as Hugging Face writes it. UsageError for a file that is damaged or
    half written and for files of different columns; MissingExtraError without pyarrow.
    """
    pyarrow = _pyarrow(paths[0])
    parts, schema = [], None
    for path in paths:
        try:
            own, rows = _schema_and_rows(path)
        except FileNotFoundError:
            raise UsageError(f"{path}: no such table of labels.{near_file(path)}") from None
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise UsageError(
                f"{path} cannot be read: damaged, or not written to its end ({first_line(error)})."
            ) from error
        if len(set(own.names)) < len(own.names):
            raise UsageError(f"{path} has two columns of one name: {own.names}. Name each once.")
        if schema is not None and own.names != schema.names:
            raise UsageError(f"{path} has the columns {own.names}, {paths[0]} has {schema.names}: give one data set.")
        schema = own
        parts += [(path, group, row) for group, count in enumerate(rows) for row in range(count)]
    assert schema is not None, "there is at least one file"
    kinds = {name: schema.field(name).type for name in schema.names}
    images = [name for name, kind in kinds.items() if _holds_images(pyarrow, kind)]
    listed = [name for name, kind in kinds.items() if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)]
    scalar = [name for name, kind in kinds.items() if name not in images and not pyarrow.types.is_nested(kind)]
    return Table(
        paths[0] if len(paths) == 1 else paths[0].parent,
        tuple(name for name in schema.names if name in (*images, *listed, *scalar)),
        len(parts),
        partial(_column, tuple(paths)),
        frozenset(scalar),
        {name: partial(_opener, parts, name) for name in images},
        _class_names(schema),
    )


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet  # reads it, too
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "parquet", f"reading {path}") from error
    return pyarrow


@lru_cache(maxsize=2)
def _group(path: Path, version: tuple[int, int], group: int, column: str) -> Any:
    """The images of one row group; the last two are kept, so that images in order read each group once."""
    return _opened(path, version).read_row_group(group, [column]).column(column)


def _version(path: Path) -> tuple[int, int]:
    """What changes when a file is written again."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _file(path: Path) -> Any:
    return _opened(path, _version(path))


@lru_cache(maxsize=4)
def _opened(path: Path, _written: tuple[int, int]) -> Any:
    """A Parquet file, or an Arrow stream in mapped memory; both are read by groups of rows.

    _written: `_version` of the file, so that what is kept of it is dropped when it is written again.
    """
    import pyarrow
    import pyarrow.parquet

    if path.suffix.lower() == ".parquet":
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    with path.open("rb") as file:
        if file.read(len(FILE_FORMAT)) == FILE_FORMAT:  # its end is a table of contents, which pyarrow misses itself
            return _Stream(pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all())
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(END_OF_STREAM)))
        if file.read() != END_OF_STREAM:
            raise ValueError("the mark of its end is missing")
    return _Stream(pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all())


class _Stream:
    """An Arrow table that is asked like a Parquet file; its memory is mapped, so that it costs none."""

    def __init__(self, table: Any) -> None:
        self.table, self.schema_arrow = table, table.schema

    def read(self, columns: list[str]) -> Any:
        return self.table.select(columns)

    def read_row_group(self, _group: int, columns: list[str]) -> Any:
        return self.table.select(columns)  # all of it is one group


def _schema_and_rows(path: Path) -> tuple[Any, list[int]]:
    """The columns, and how many rows each group has."""
    file = _file(path)
    if isinstance(file, _Stream):
        return file.schema_arrow, [file.table.num_rows]
    return file.schema_arrow, [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]


def _column(paths: Sequence[Path], name: str) -> list[Any]:
    pyarrow = _pyarrow(paths[0])
    values: list[Any] = []
    for path in paths:
        try:
            values += _file(path).read(columns=[name]).column(name).to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise UsageError(f"{path}: the column {name!r} is damaged ({first_line(error)}).") from error
    return values


def _holds_images(pyarrow: Any, kind: Any) -> bool:
    binary = (pyarrow.types.is_binary, pyarrow.types.is_large_binary)
    if pyarrow.types.is_struct(kind):
        names = [kind.field(k).name for k in range(kind.num_fields)]
        return "bytes" in names and any(test(kind.field("bytes").type) for test in binary)
    return any(test(kind) for test in binary)


def _opener(parts: Sequence[tuple[Path, int, int]], name: str, i: int) -> Callable[[], Image.Image | Path]:
    return partial(stored_image, *parts[i], name)


def stored_image(path: Path, group: int, row: int, column: str) -> Image.Image | Path:
    """The image in one cell of a file; where only its path is stored, that, relative to the file."""
    name = f"{path.name}, column {column}, row {row} of group {group}"
    try:
        value = _group(path, _version(path), group, column)[row].as_py()
    except Exception as error:  # a damaged page of the file costs its images, not the others
        raise ImageError(f"{name}: cannot be read ({type(error).__name__}: {first_line(error)}).") from error
    content = value.get("bytes") if isinstance(value, dict) else value
    if content:
        return decode_bytes(content, name)
    file = value.get("path") if isinstance(value, dict) else None
    if not file:
        raise ImageError(f"{name}: no image is stored here (0 bytes).")
    if not is_below(path.parent, file):
        raise ImageError(f"{name}: only the path {file} is stored, which lies outside of {path.parent}.")
    return path.parent / str(file)


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """The names of class indices, by column, as Hugging Face notes them in the file's metadata."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted.get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}  # another's metadata: nothing is known, and nothing depends on it
    found = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        one = feature[0] if isinstance(feature, list) and feature else feature
        one = one.get("feature", one) if isinstance(one, dict) else {}
        names = one.get("names") if isinstance(one, dict) else None
        if isinstance(names, list) and all(isinstance(each, str) for each in names):
            found[name] = tuple(names)
    return found

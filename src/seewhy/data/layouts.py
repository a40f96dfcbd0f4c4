"""How a data set lies on the disk: which table describes a folder, and which of its splits is meant."""

import json
import re
from pathlib import Path
from typing import Any

from seewhy.data.images import HIDDEN, SUFFIXES
from seewhy.data.stored import read_stored
from seewhy.data.tables import Table, read_csv
from seewhy.errors import UsageError, near_names

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
_SHARD = re.compile(r"(.*)-([0-9]+)-of-([0-9]+)")
ONE_SPLIT = 'name one, e.g. split="{}"'


def read_table(path: Path) -> Table:
    """A CSV, Parquet or Arrow file as a table; UsageError for what is none."""
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise UsageError(
            f"{path} is one image, no data set: give the folder that holds a sub-folder per class, or a table of paths and "
            "labels."
        )
    return read_stored([path]) if path.suffix.lower() in (".parquet", ".arrow") else read_csv(path)


def split_folder(source: Path, split: str | None) -> Path:
    """The folder of a split, where the splits are folders; else the source. UsageError where one has to be named."""
    if not source.is_dir():
        return source
    folders = sub_folders(source)
    if (source / "dataset_dict.json").is_file():
        splits = folders
    else:
        splits = [name for name in folders if name.lower() in SPLITS]
        if split is None and (len(splits) < len(folders) or (source / "metadata.csv").is_file()):
            return source  # classes, one of which may be called "test"; or one table for all
    if split is None:
        if splits:
            raise UsageError(f"{source} holds the splits {', '.join(splits)}: {ONE_SPLIT.format(splits[-1])}.")
        return source
    if split in folders:
        return source / split
    if splits:
        raise UsageError(f"{source} has no split {split!r}: {near_names(split, splits)}")
    return source


def table_of(source: Path, split: str | None) -> Table | None:
    """The table that describes a data set; None for a folder of images without one.

    A folder: what Hugging Face's `save_to_disk` left (*.arrow), metadata.csv beside images, or Parquet files in it or in
    its folder `data`. UsageError where there are several splits and none is named.
    """
    stored = (_parquet_files(source) or _parquet_files(source / "data")) if source.is_dir() else []
    if stored:
        return read_stored(_of_split(source, stored, split))
    if split is not None:
        raise UsageError(f"{source} has no splits, so none is called {split!r}: leave split out.")
    if not source.is_dir():
        return read_table(source)
    if (source / "state.json").is_file():
        return read_stored([source / name for name in _saved_files(source / "state.json")])
    if (source / "metadata.csv").is_file():
        return read_csv(source / "metadata.csv")
    return None


def sub_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder that are not hidden; UsageError where it cannot be listed."""
    try:
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(HIDDEN))
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error


def _saved_files(state: Path) -> list[str]:
    try:
        found: Any = [one["filename"] for one in json.loads(state.read_text("utf-8"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{state} is not what Hugging Face's save_to_disk writes ({error!r}).") from error
    if not found:
        raise UsageError(f"{state.parent}: a Hugging Face data set without a file.")
    return [str(name) for name in found]


def _parquet_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() == ".parquet" and not p.name.startswith(HIDDEN))


def _of_split(source: Path, files: list[Path], split: str | None) -> list[Path]:
    """The files of one split: those that begin with its name, as in test-00000-of-00001.parquet."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        name = file.stem.partition("-")[0]
        by_split.setdefault(name if name.lower() in SPLITS else "", []).append(file)
    _check_shards(source, files)
    if split is not None:
        if split not in by_split:
            raise UsageError(f"{source} has no split {split!r}: {near_names(split, sorted(filter(None, by_split)))}")
        return by_split[split]
    if len(by_split) > 1:
        names = sorted(filter(None, by_split))
        raise UsageError(f"{source} holds the splits {', '.join(names)}: {ONE_SPLIT.format(names[-1])}.")
    return files


def _check_shards(source: Path, files: list[Path]) -> None:
    """UsageError where one of several files is missing: -00001-of-00003."""
    found: dict[str, tuple[int, set[int]]] = {}
    for match in filter(None, (_SHARD.fullmatch(file.stem) for file in files)):
        found.setdefault(match[1], (int(match[3]), set()))[1].add(int(match[2]))
    for name, (count, there) in found.items():
        if len(there) < count:
            first = next(k for k in range(count + 1) if k not in there)
            raise UsageError(
                f"{source}: {len(there)} of {count} files of {name!r} are there; number {first} is missing."
            )

"""The run folder: what was computed, in files that anyone can read. Pages are rendered from it and from nothing else.

run.json      schema, command, what was skipped and why          (replaced as a whole)
rows.jsonl    one JSON record per (image, target, method)        (append only; a later record of the same id wins)
checks.jsonl  one JSON record per check of a method              (the same)
ledger.sqlite the record of every explanation, check and audit: seewhy.ledger (append only); or ledger.json: on which server
review_queue.csv images whose map a person should look at, of a localization report
findings.json what an audit found, and its verdict               (replaced as a whole)
findings/     a folder per confirmed finding: its images, boxes and scores
seewhy.toml   the policy that the verdict was judged by
maps/         raw maps, compressed .npz, named by the hash of their bytes (never pickled); rows and ledger name the same file
images/       what the model was shown, .png; also .npz where 8 bits do not hold it exactly; a ledger's pictures
pictures/     overlays over what the model was shown, and over the whole photo where that was asked for, .png
photos/       the demo's copies of its photos
checkpoints/  signed: the number and hash of the ledger's newest record, each in a file that is never written again
index.html    the page; report.pdf: the same of an audit, for signature
compliance.*  the compliance record: .html, .pdf and .json; compliance-NUMBER.* of one decision
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.errors import SeewhyError, UsageError

SCHEMA = 1
LEDGER = "ledger.sqlite"
LEDGER_ON_SERVER = "ledger.json"  # in its place: which ledger of a team's server is this run's
_LEDGER = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")  # with what SQLite lays beside it while it is open
QUEUE = "review_queue.csv"
_AUDIT = ("findings.json", "findings", "seewhy.toml")
_PAGES = ("index.html", "report.pdf")
# What numpy and zipfile raise on a file that is no array: pickled, cut off, damaged, or claiming the impossible.
UNREADABLE = (ValueError, KeyError, TypeError, EOFError, MemoryError, BadZipFile, zlib.error, NotImplementedError)
OWN = (
    "run.json",
    "rows.jsonl",
    "checks.jsonl",
    *_LEDGER,
    LEDGER_ON_SERVER,
    QUEUE,
    *_AUDIT,
    "maps",
    "images",
    "pictures",
    "photos",
    "checkpoints",
    *_PAGES,
)
Record = dict[str, Any]
Row = tuple[Record, NDArray[np.float32], NDArray[np.uint8] | None]  # record, raw map, picture of the input


def open_folder(folder: str | Path) -> Path:
    """Make the folder ready, before any work; UsageError if it cannot be written or holds somebody else's files."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".seewhy-write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}. Choose another folder.") from error
    strangers = [p.name for p in path.iterdir() if p.name not in OWN]
    if strangers and not (path / "run.json").exists():
        raise UsageError(
            f"{path} holds files that are not a seewhy run ({', '.join(sorted(strangers)[:3])} ...): choose an empty folder."
        )
    if (path / "run.json").exists():
        read_run(path)
    else:
        write_run(path, {"skipped": []})
    return path


def read_run(folder: str | Path) -> Record:
    """run.json; UsageError where the folder is no run or was written by another schema."""
    missing = f"{folder} is not a seewhy run folder: there is no run.json in it."
    return read_json(Path(folder) / "run.json", SCHEMA, missing)


def read_json(path: Path, schema: int, missing: str) -> Record:
    """A file of a run folder that holds one JSON object of this schema; UsageError, with `missing` where there is no file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(missing) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}).") from error
    given = found.get("schema") if isinstance(found, dict) else type(found).__name__
    if not isinstance(found, dict) or given != schema:
        raise UsageError(f"{path} has schema {given!r}; this version of seewhy reads schema {schema}.")
    return found


def write_run(folder: Path, run: Record) -> None:
    """Replace run.json as a whole: a reader sees the old one or the new one."""
    write_file(folder / "run.json", json.dumps({"schema": SCHEMA, **run}, indent=2).encode())


def append(
    folder: Path,
    record: Record,
    raw: NDArray[np.float32],
    shown: Image.Image | None,
    pixels: NDArray[np.float32] | None,
    overlay: Image.Image | None,
    on_photo: Image.Image | None = None,
) -> Record:
    """Write one row: its files first, then its record. Returns the record with the file names filled in.

    shown: the model's input as a picture; pixels: the same as numbers, where the picture does not hold them exactly;
    overlay, on_photo: the map over that picture, and over the whole photo.
    """
    stored: Record = {**record, "map": {**record["map"]}, "image": {**record["image"]}}
    stored["map"]["file"] = _store(folder, "maps", npz_bytes(raw), "npz")
    stored["image"]["file"] = _store(folder, "images", _png(shown), "png") if shown is not None else None
    stored["image"]["array"] = _store(folder, "images", npz_bytes(pixels), "npz") if pixels is not None else None
    stored["picture"] = _store(folder, "pictures", _png(overlay), "png") if overlay is not None else None
    stored["picture_on_photo"] = _store(folder, "pictures", _png(on_photo), "png") if on_photo is not None else None
    return _append_record(folder / "rows.jsonl", stored)


def append_check(folder: Path, record: Record) -> Record:
    """Write what one check found; the record has an `id`."""
    return _append_record(folder / "checks.jsonl", record)


def read_checks(folder: str | Path) -> list[Record]:
    """What every check found, in the order of the first record of each id."""
    read_run(folder)
    return _read_records(Path(folder) / "checks.jsonl")


def files_of(folder: Path, rows: Sequence[Record]) -> list[Path]:
    """Every file that some rows, as they were written, are told by: theirs, and those that list them."""
    named = {name for row in rows for name in (row["map"]["file"], *_pictures_of(row)) if name is not None}
    return [path for name in ("run.json", "rows.jsonl", LEDGER, *sorted(named)) if (path := folder / name).exists()]


def _pictures_of(row: Record) -> tuple[str | None, ...]:
    return row["image"]["file"], row["image"]["array"], row["picture"], row["picture_on_photo"]


def _append_record(path: Path, record: Record) -> Record:
    stored: Record = plain(record)
    line = json.dumps(stored, allow_nan=False) + "\n"  # ASCII: a file name may hold bytes that are no text
    _guarded(path, lambda: _append_line(path, line.encode()))
    return stored


def read(folder: str | Path) -> list[Row]:
    """Every row, in the order of its first record; a map whose bytes do not match its recorded hash is an error."""
    root = Path(folder)
    read_run(root)
    path = root / "rows.jsonl"
    records = _read_records(path)
    try:
        return [(record, _read_map(root, record), _read_image(root, record)) for record in records]
    except (KeyError, TypeError) as error:
        raise SeewhyError(f"{path}: a record lacks what every record has ({type(error).__name__}: {error}).") from error


def _read_records(path: Path) -> list[Record]:
    """The last record of every id, in the order of its first; a torn last line is left out."""
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n") if path.exists() else []
    records: dict[str, Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) or not line:  # killed while writing it: everything before it is whole
                continue
            raise SeewhyError(f"{path}, line {number} is damaged ({error}).") from error
    return list(records.values())


def forget_picture(folder: str | Path, name: str) -> None:
    """Take an image that was erased out of the rows that show it, and remove what was drawn over it."""
    path = Path(folder) / "rows.jsonl"
    for record in _read_records(path):
        image = record["image"]
        if name not in (image.get("file"), image.get("array")):
            continue
        for drawn in filter(None, (record.get("picture"), record.get("picture_on_photo"))):  # older rows know fewer
            _inside(Path(folder), drawn).unlink(missing_ok=True)
        left = {what: None if image.get(what) == name else image.get(what) for what in ("file", "array")}
        _append_record(path, {**record, "image": {**image, **left}, "picture": None, "picture_on_photo": None})


def read_array(folder: str | Path, name: str) -> NDArray[np.float32]:
    """An array of a run folder; never unpickled."""
    path = _inside(Path(folder), name)
    try:
        return _load_array(BytesIO(path.read_bytes()), path)
    except OSError as error:
        raise SeewhyError(f"{path} is missing ({error.strerror}).") from error


def _load_array(content: BytesIO, path: Path) -> NDArray[np.float32]:
    try:
        found = np.load(content, allow_pickle=False)
        values: NDArray[np.float32] = found["values"] if isinstance(found, np.lib.npyio.NpzFile) else found
    except UNREADABLE as error:  # pickled, cut off, or a header that claims the impossible
        raise SeewhyError(f"{path} is no array that can be read safely ({type(error).__name__}: {error}).") from error
    return values


def npy_bytes(values: NDArray[Any]) -> bytes:
    """An array as the bytes of an .npy file, without pickle."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(values: NDArray[Any]) -> bytes:
    """An array as the bytes of a compressed .npz file, without pickle; the same array always gives the same bytes."""
    buffer = BytesIO()
    np.savez_compressed(buffer, values=np.asarray(values, order="C"))
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """JSON values only; a number that is not finite becomes null (JSON has no infinity)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _read_map(root: Path, record: Record) -> NDArray[np.float32]:
    path = _inside(root, record["map"]["file"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SeewhyError(f"{path}: the map of row {record['id']} is missing ({error.strerror}).") from error
    changed = f"{path}: the map was changed after it was written (its hash is not the recorded one)."
    if path.suffix == ".npz" and hashlib.sha256(content).hexdigest() != path.stem:  # an archive has idle bytes, too
        raise SeewhyError(changed)
    values = _load_array(BytesIO(content), path)
    if hashlib.sha256(npy_bytes(values)).hexdigest() != record["map"]["sha256"]:
        raise SeewhyError(changed)
    return values


def _read_image(root: Path, record: Record) -> NDArray[np.uint8] | None:
    name = record["image"]["file"]
    if name is None:
        return None
    path = _inside(root, name)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise SeewhyError(f"{path}: the picture of row {record['id']} cannot be read ({error}).") from error


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SeewhyError(f"a record names a file outside its run folder: {name!r}.")
    return path


def _store(folder: Path, kind: str, content: bytes, suffix: str) -> str:
    name = f"{kind}/{hashlib.sha256(content).hexdigest()}.{suffix}"
    path = folder / name
    if not path.exists() or path.read_bytes() != content:  # a damaged file is mended by the next run
        write_file(path, content)
    return name


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def _append_line(path: Path, line: bytes) -> None:
    """Append; half a line that a killed run left behind is cut off first, a whole one that lacks its end gets it."""
    with path.open("ab+") as file:
        if not _ends_whole(file):
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if _is_json(content[whole:]):
                file.write(b"\n")
            else:
                file.truncate(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _ends_whole(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_file(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a reader sees the old one or the new one; the user's error where the disk says no."""

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # a record that names this file comes after it
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    _guarded(path, write)


def _guarded(path: Path, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise SeewhyError(
            f"cannot write {path}: {error.strerror or error}. What was written before it is kept."
        ) from error

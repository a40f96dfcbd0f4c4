"""The store: a SQLite file that many processes append to at once, and content-addressed files beside it."""

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Connection, Engine, QueuePool, create_engine, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError, OperationalError

from seewhy import runfolder
from seewhy.data.images import as_rgb, read_photo
from seewhy.errors import SeewhyError, UsageError, first_line, known_name
from seewhy.ledger.schema import (
    CONTENTS,
    FIRST,
    NAME,
    SCHEMA,
    TRIGGERS,
    chain_hash,
    lifted,
    metadata,
    record_table,
    stored_content,
    stored_text,
    version_table,
)

WAIT = 60  # seconds that one writer waits for the others
KEYS_AT_ONCE = 500  # in one question to the database
QUALITY = 85  # of JPEG pictures
DRAWING = 256  # colors: a picture of no more stays exact, as PNG
_FILE = re.compile(r"(maps|images)/([0-9a-f]{64})\.(npz|jpg|png)")
_RECORD = [record_table.c[name] for name in ("number", "time", "kind", "key", "content", "previous", "hash")]


@dataclass(frozen=True)
class Record:
    """One record of a ledger, as it was written."""

    number: int  # 1, 2, 3 ... over all kinds
    time: str  # UTC, ISO 8601
    kind: str
    key: str
    content: dict[str, Any]  # plain JSON values; CONTENTS says which
    previous: str  # hash of the record before
    hash: str


class Ledger:
    """The record of everything that a run measured; what was appended is never changed. Opened by `open_ledger`."""

    def __init__(self, folder: Path, engine: Engine, read_only: bool) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.read_only = read_only
        self._engine = engine
        self._process = os.getpid()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; whoever closes last leaves it without a journal beside it."""
        self._engine.dispose()

    # -- records -------------------------------------------------------------------------------------------------

    def append(self, kind: str, key: str, content: dict[str, Any]) -> Record:
        """Write one record, safe on disk when it returns; the same (kind, key) again gives the record that is there."""
        return self.append_all(kind, [(key, content)])[0]

    def append_all(self, kind: str, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[Record]:
        """Write several records in one transaction, all or none; the record of every row, in order.

        UsageError for an unknown kind and for content that is no plain JSON; SeewhyError where the disk says no.
        """
        known_name("kind of record", kind, CONTENTS)
        keys: list[str] = []
        given: dict[str, str] = {}
        for key, content in rows:
            keys.append(_stored_key(kind, key))
            given.setdefault(keys[-1], stored_content(kind, key, content))
        if not keys:
            return []
        self._refuse_if_read_only()
        with self._connection() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # from here on no other process writes
            known = _known(connection, kind, list(given))
            new = _chained(connection, kind, {key: text for key, text in given.items() if key not in known})
            if new:
                connection.execute(insert(record_table), new)
        known |= {row["key"]: _record(row) for row in new}
        return [known[key] for key in keys]

    def keys(self, kind: str) -> set[str]:
        """The keys of every record of a kind: what is done already."""
        known_name("kind of record", kind, CONTENTS)
        with self._connection() as connection:
            return set(connection.scalars(select(record_table.c.key).where(record_table.c.kind == kind)))

    def find(self, kind: str, key: str) -> Record | None:
        """The record of this kind and key; None where there is none."""
        known_name("kind of record", kind, CONTENTS)
        with self._connection() as connection:
            return _known(connection, kind, [_stored_key(kind, key)]).get(stored_text(key))

    def read(
        self,
        kind: str | None = None,
        *,
        image: str | None = None,
        model: str | None = None,
        method: str | None = None,
    ) -> list[Record]:
        """The records of a kind (None: of all), in the order in which they were written.

        image: of this image only (its path); model: of this fingerprint only; method: by this method only.
        """
        if kind is not None:
            known_name("kind of record", kind, CONTENTS)
        asked = select(*_RECORD).order_by(record_table.c.number)
        for name, value in (("kind", kind), ("image", image), ("model", model), ("method", method)):
            if value is not None:
                asked = asked.where(record_table.c[name] == stored_text(value))
        with self._connection() as connection:
            return [_record(row._mapping) for row in connection.execute(asked)]

    # -- files beside it -----------------------------------------------------------------------------------------

    def keep(self, array: NDArray[Any]) -> str:
        """Keep an array, compressed and never pickled, on disk when it returns; its name, for a record: maps/<sha256>.npz.

        UsageError for anything but an array of numbers.
        """
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UsageError(f"a ledger keeps numpy arrays of numbers; got {got}. A tensor: tensor.cpu().numpy().")
        return self._keep("maps", runfolder.npz_bytes(array), "npz")

    def keep_picture(self, image: Image.Image) -> str:
        """Keep a picture without its EXIF data, on disk when it returns; its name: images/<sha256>.jpg, .png for drawings."""
        picture = as_rgb(read_photo(image))
        picture.info = {}  # comments and color profiles, which Pillow would write again
        buffer = BytesIO()
        if picture.getcolors(DRAWING) is None:
            picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
            return self._keep("images", buffer.getvalue(), "jpg")
        picture.save(buffer, "PNG", optimize=True)
        return self._keep("images", buffer.getvalue(), "png")

    def array(self, name: str) -> NDArray[Any]:
        """An array that was kept; SeewhyError where it is missing or was changed afterwards."""
        content = BytesIO(self.file(name))
        try:
            with np.load(content, allow_pickle=False) as kept:
                values: NDArray[Any] = kept["values"]
        except (
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            BadZipFile,
        ) as error:  # a picture, or not written by a ledger
            raise SeewhyError(f"{self.folder / name} holds no array that can be read safely ({error}).") from error
        return values

    def file(self, name: str) -> bytes:
        """The bytes of a kept file (maps/..., images/...); SeewhyError where it is missing or was changed afterwards."""
        found = _FILE.fullmatch(name)
        if found is None:
            raise SeewhyError(
                f"{name!r} is no name that a ledger gives: maps/<sha256>.npz or images/<sha256>.jpg or .png."
            )
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SeewhyError(f"{path} is missing or cannot be read ({error.strerror}).") from error
        if hashlib.sha256(content).hexdigest() != found[2]:
            raise SeewhyError(f"{path} was changed after it was written (its hash is not its name).")
        return content

    def _keep(self, place: str, content: bytes, suffix: str) -> str:
        self._refuse_if_read_only()
        name = f"{place}/{hashlib.sha256(content).hexdigest()}.{suffix}"
        with suppress(SeewhyError):  # missing or damaged: written (again)
            self.file(name)
            return name
        runfolder.write_file(self.folder / name, content)
        for path in (self.folder / name, self.folder / place):
            _synchronize(path)
        return name

    # -- the file itself -----------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if os.getpid() != self._process:
            raise UsageError(f"{self.path} was opened before this process was forked: open it again in this process.")
        with _clear_errors(self.path), self._engine.begin() as connection:
            yield connection

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise UsageError(f"{self.path} was opened to be read only: open_ledger({str(self.folder)!r}) writes.")


def open_ledger(folder: str | Path, *, read_only: bool = False) -> Ledger:
    """The ledger of a run folder, made where there is none. Use it in a `with`; every process opens its own.

    read_only: for reports; it works in a folder that cannot be written. UsageError where there is no ledger then, or one of
    a newer seewhy; SeewhyError where the folder cannot be written.
    """
    root = Path(folder)
    path = root / NAME
    if read_only and not path.is_file():
        raise UsageError(f"{root} holds no ledger: there is no {NAME} in it.")
    if not read_only:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SeewhyError(f"cannot make {root}: {error.strerror}. Choose another folder.") from error
    engine = create_engine("sqlite://", creator=_opener(path, read_only), poolclass=QueuePool)
    try:
        with _clear_errors(path), engine.begin() as connection:
            if not read_only:
                _make_tables(connection)
            _check_version(connection, path)
    except BaseException:
        engine.dispose()
        raise
    return Ledger(root, engine, read_only)


def _opener(path: Path, read_only: bool) -> Callable[[], sqlite3.Connection]:
    if not read_only:
        return partial(_connect, path, "mode=rwc")
    try:
        _connect(path, "mode=ro").close()
    except (
        sqlite3.DatabaseError
    ):  # a folder where not even a reader may leave its mark; or no database, which shows later
        journal = path.with_name(f"{NAME}-wal")
        if not journal.exists() or journal.stat().st_size == 0:
            return partial(_connect, path, "immutable=1")
    return partial(_connect, path, "mode=ro")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    """A connection that begins transactions when told to, and has every commit on disk when it returns."""
    uri = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("SELECT count(*) FROM sqlite_master")  # the file is looked at only now
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: Connection) -> None:
    """Write-ahead log and tables, where they are not there yet; other processes may be about the same."""
    deadline = time.monotonic() + WAIT
    while connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            break  # a file system that knows no shared memory keeps its own journal, which is as safe
        except OperationalError as error:  # SQLite does not wait for this lock by itself
            if not _name_of(error).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    if not inspect(connection).has_table(version_table.name):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if not inspect(connection).has_table(version_table.name):  # no other process was faster
            metadata.create_all(connection)
            for trigger in TRIGGERS:
                connection.exec_driver_sql(trigger)
            connection.execute(insert(version_table).values(version=SCHEMA, since=_now()))


def _check_version(connection: Connection, path: Path) -> None:
    known = inspect(connection).has_table(version_table.name)
    version = connection.scalar(select(func.max(version_table.c.version))) if known else None
    if version != SCHEMA:
        raise UsageError(f"{path} has schema {version}; this version of seewhy reads schema {SCHEMA}.")


# -- rows ----------------------------------------------------------------------------------------------------------------


def _known(connection: Connection, kind: str, keys: Sequence[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for start in range(0, len(keys), KEYS_AT_ONCE):
        some = record_table.c.key.in_(keys[start : start + KEYS_AT_ONCE])
        rows = connection.execute(select(*_RECORD).where(record_table.c.kind == kind, some))
        found |= {row.key: _record(row._mapping) for row in rows}
    return found


def _chained(connection: Connection, kind: str, given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows to insert after the last one; no other process may write meanwhile."""
    newest = select(record_table.c.number, record_table.c.hash).order_by(record_table.c.number.desc()).limit(1)
    last = connection.execute(newest).first()
    number, previous = (0, FIRST) if last is None else (last.number, last.hash)
    rows: list[dict[str, Any]] = []
    for key, text in given.items():
        number, now, content = number + 1, _now(), json.loads(text)
        digest = chain_hash(previous, number, now, kind, key, content)
        row = {"number": number, "time": now, "kind": kind, "key": key, "content": text}
        rows.append({**row, "previous": previous, "hash": digest, **lifted(content)})
        previous = digest
    return rows


def _record(row: Mapping[Any, Any]) -> Record:
    number, when, kind, key, text, previous, digest = (row[column.name] for column in _RECORD)
    return Record(number, when, kind, key, json.loads(text), previous, digest)


def _stored_key(kind: str, key: object) -> str:
    if not isinstance(key, str) or not key:
        raise UsageError(f"the key of a record of kind {kind} is a text that is not empty; got {key!r}.")
    return stored_text(key)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


# -- what can go wrong ---------------------------------------------------------------------------------------------------


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise SeewhyError(f"{path}: {_in_words(_name_of(error), error)}") from error


def _name_of(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _in_words(name: str, error: DBAPIError) -> str:
    said = first_line(error.orig or error)
    if name == "SQLITE_FULL":
        return "the disk is full. Every acknowledged record is kept; free some space and run it again."
    if name.startswith("SQLITE_IOERR"):
        return f"the disk refuses ({said}, {name}): is it full? Every acknowledged record is kept."
    if name.startswith("SQLITE_READONLY"):
        return f"cannot be written ({said}). Choose a folder that can be."
    if name.startswith("SQLITE_CANTOPEN"):
        return f"cannot be opened ({said}). Choose a folder that can be written; what a killed run left, copy to one."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"other processes have kept it locked for {WAIT} s. Every acknowledged record is kept; run it again."
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return f"is damaged, or no ledger: {said}."
    return f"{said}."


def _synchronize(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folder, and needs none opened
        return
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SeewhyError(f"cannot write {path}: {error.strerror}. What was written before it is kept.") from error

"""The store: a database that many processes append to at once, and content-addressed files in the run folder."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Column, Connection, RowMapping, exists, insert, select

from seewhy import runfolder
from seewhy.data.images import as_rgb, read_photo
from seewhy.errors import SeewhyError, UsageError, known_name
from seewhy.ledger.database import Database, synchronize
from seewhy.ledger.migrations import check_version, make_or_migrate
from seewhy.ledger.place import find_database
from seewhy.ledger.schema import (
    CONTENTS,
    FIRST,
    HASHED,
    lifted,
    record_table,
    stored_content,
    stored_text,
    text_hash,
)
from seewhy.ledger.sqlite import damage

KEYS_AT_ONCE = 500  # in one question to the database
DIGITS = 18  # of a number: what the databases take
ROWS_AT_ONCE = 1000
QUALITY = 85  # of JPEG pictures
DRAWING = 256  # colors: a picture of no more stays exact, as PNG
_FILE = re.compile(r"(maps|images)/([0-9a-f]{64})\.(npz|jpg|png)")
_RECORD = [record_table.c[name] for name in HASHED]


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

    def __init__(self, folder: Path, path: Path, database: Database, read_only: bool) -> None:
        self.folder = folder
        self.path = path  # ledger.sqlite, or ledger.json, which names the server
        self.read_only = read_only
        self._database = database
        self._process = os.getpid()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; whoever closes last leaves it without a journal beside it."""
        self._database.engine.dispose()

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
            self._database.begin(connection)  # from here on no other process writes
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

    def named(self, asked: int | str, kind: str | None = None) -> list[Record]:
        """The record of this number, else those of this key, else those whose key begins so: of a kind (None: of any).

        A number that a record of another kind has names no key.
        """
        if kind is not None:
            known_name("kind of record", kind, CONTENTS)
        given, every = stored_text(str(asked)), select(*_RECORD).order_by(record_table.c.number)
        with self._connection() as connection:
            rows: Sequence[RowMapping] = []
            if given.isdecimal() and len(given) <= DIGITS:
                rows = connection.execute(every.where(record_table.c.number == int(given))).mappings().all()
            if given and not rows:
                begins = record_table.c.key.startswith(given, autoescape=True)  # SQLite takes either case for the same
                rows = connection.execute(every.where(begins)).mappings().all()
                rows = [row for row in rows if row["key"].startswith(given)]
        found = [record for row in rows if kind in (None, (record := _record(dict(row))).kind)]
        return [record for record in found if record.key == given] or found

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
        return list(self.stream(kind, image=image, model=model, method=method))

    def stream(
        self,
        kind: str | None = None,
        *,
        image: str | None = None,
        model: str | None = None,
        method: str | None = None,
        after: int | None = None,
        newest: int | None = None,
    ) -> Iterator[Record]:
        """What `read` gives, one by one, in memory that does not grow with the ledger.

        after: only of higher numbers. newest: only so many, the last ones. What others append meanwhile comes too.
        """
        if kind is not None:
            known_name("kind of record", kind, CONTENTS)
        given = {"kind": kind, "image": image, "model": model, "method": method}
        only = {name: stored_text(value) for name, value in given.items() if value is not None}
        if newest is not None:
            after = max(after or 0, self._before_newest(newest, only))
        return (_record(row) for row in self._rows(_RECORD, only, after))

    def rows(self, *, after: int | None = None) -> Iterator[dict[str, Any]]:
        """Every row as the database holds it, content as the text that it is, filters included: to check it by."""
        return self._rows(list(record_table.c), {}, after)

    def _before_newest(self, n: int, only: Mapping[str, str]) -> int:
        """The number after which the n newest records begin; 0 where there are no more."""
        asked = select(record_table.c.number).order_by(record_table.c.number.desc()).offset(n).limit(1)
        for name, value in only.items():
            asked = asked.where(record_table.c[name] == value)
        with self._connection() as connection:
            return connection.scalar(asked) or 0

    def _rows(
        self, columns: Sequence[Column[Any]], only: Mapping[str, str], after: int | None
    ) -> Iterator[dict[str, Any]]:
        """In pages, each in a transaction of its own: a slow reader keeps no one waiting, and no journal growing."""
        asked = select(*columns).order_by(record_table.c.number).limit(ROWS_AT_ONCE)
        for name, value in only.items():
            asked = asked.where(record_table.c[name] == value)
        page = asked if after is None else asked.where(record_table.c.number > after)
        while True:
            with self._connection() as connection:
                found = [row._asdict() for row in connection.execute(page)]
            yield from found
            if len(found) < ROWS_AT_ONCE:
                return
            page = asked.where(record_table.c.number > found[-1]["number"])

    def names(self, file: str) -> bool:
        """Whether a record names this file (maps/..., images/...)."""
        named = record_table.c.content.contains(f'"{file}"', autoescape=True)
        with self._connection() as connection:
            return _FILE.fullmatch(file) is not None and bool(connection.scalar(select(exists().where(named))))

    def damage(self) -> str | None:
        """What the database finds wrong with its own file; None where all is well, and on a server, which sees to it."""
        with self._connection() as connection:
            return damage(connection) if connection.dialect.name == "sqlite" else None

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
            synchronize(path)
        return name

    # -- the file itself -----------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if os.getpid() != self._process:
            raise UsageError(f"{self.path} was opened before this process was forked: open it again in this process.")
        with self._database.connection() as connection:
            yield connection

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise UsageError(f"{self.path} was opened to be read only: open_ledger({str(self.folder)!r}) writes.")


def open_ledger(folder: str | Path, *, database: str | None = None, read_only: bool = False) -> Ledger:
    """The ledger of a run folder, made where there is none. Use it in a `with`; every process opens its own.

    database: postgresql://user@host/database of a team's server, for a new ledger; None: the one in the environment variable
    SEEWHY_LEDGER, without it a file in the folder. Afterwards the folder knows. Arrays and pictures lie in the folder.
    read_only: for reports; it works in a folder that cannot be written. UsageError where there is no ledger then, one of
    another schema, or one elsewhere than in `database`; SeewhyError where the folder or the server cannot be written.
    """
    root = Path(folder)
    if not read_only:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SeewhyError(f"cannot make {root}: {error.strerror}. Choose another folder.") from error
    path, found = find_database(root, database=database, read_only=read_only)
    try:
        with found.connection() as connection:
            if not read_only:
                make_or_migrate(connection, found)
            check_version(connection, found)
    except BaseException:
        found.engine.dispose()
        raise
    return Ledger(root, path, found, read_only)


# -- rows ----------------------------------------------------------------------------------------------------------------


def _known(connection: Connection, kind: str, keys: Sequence[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for start in range(0, len(keys), KEYS_AT_ONCE):
        some = record_table.c.key.in_(keys[start : start + KEYS_AT_ONCE])
        rows = connection.execute(select(*_RECORD).where(record_table.c.kind == kind, some))
        found |= {row.key: _record(row._asdict()) for row in rows}
    return found


def _chained(connection: Connection, kind: str, given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows to insert after the last one; no other process may write meanwhile."""
    newest = select(record_table.c.number, record_table.c.hash).order_by(record_table.c.number.desc()).limit(1)
    last = connection.execute(newest).first()
    number, previous = (0, FIRST) if last is None else (last.number, last.hash)
    rows: list[dict[str, Any]] = []
    for key, text in given.items():
        number, now = number + 1, _now()
        digest = text_hash(previous, number, now, kind, key, text)
        row = {"number": number, "time": now, "kind": kind, "key": key, "content": text}
        rows.append({**row, "previous": previous, "hash": digest, **lifted(json.loads(text))})
        previous = digest
    return rows


def _record(row: dict[str, Any]) -> Record:
    number, when, kind, key, text, previous, digest = (row[name] for name in HASHED)
    return Record(number, when, kind, key, json.loads(text), previous, digest)


def _stored_key(kind: str, key: object) -> str:
    if not isinstance(key, str) or not key:
        raise UsageError(f"the key of a record of kind {kind} is a text that is not empty; got {key!r}.")
    return stored_text(key)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

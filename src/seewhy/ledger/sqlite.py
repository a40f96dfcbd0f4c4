"""A ledger in a SQLite file of the run folder: write-ahead log, triggers, and its errors in words."""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from seewhy.errors import first_line
from seewhy.ledger.database import KEPT, WAIT, Database
from seewhy.ledger.schema import FIRST

CACHE = 64 * 1024  # KiB a connection: keys are hashes, so every record touches other pages of the indexes
_REFUSED = "RAISE(ABORT, 'the ledger is append-only: a record is never"
_TRIGGERS = {  # the last condition is for INSERT OR REPLACE, which deletes without firing a trigger
    "record_is_never_changed": f"BEFORE UPDATE ON record BEGIN SELECT {_REFUSED} changed'); END",
    "record_is_never_deleted": f"BEFORE DELETE ON record BEGIN SELECT {_REFUSED} deleted'); END",
    "record_is_appended": "BEFORE INSERT ON record "
    "WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM record) "
    f"OR NEW.previous <> coalesce((SELECT hash FROM record WHERE number = NEW.number - 1), '{FIRST}') "
    "OR EXISTS (SELECT 1 FROM record WHERE kind = NEW.kind AND key = NEW.key) "
    f"BEGIN SELECT {_REFUSED} inserted before or over others'); END",
}


def sqlite_database(path: Path, *, read_only: bool) -> Database:
    """The ledger's file, made at the first connection where there is none and it may be written."""
    engine = create_engine("sqlite://", creator=_opener(path, read_only), poolclass=QueuePool)
    return Database(str(path), engine, None, _prepare, _begin, _guard, _unguard, _in_words)


def _opener(path: Path, read_only: bool) -> Callable[[], sqlite3.Connection]:
    if not read_only:
        return partial(_connect, path, "mode=rwc")
    try:
        _connect(path, "mode=ro").close()
    except (
        sqlite3.DatabaseError
    ):  # a folder where not even a reader may leave its mark; or no database, which shows later
        journal = path.with_name(f"{path.name}-wal")
        if not journal.exists() or journal.stat().st_size == 0:
            return partial(_connect, path, "immutable=1")
    return partial(_connect, path, "mode=ro")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    """A connection that begins transactions when told to, and has every commit on disk when it returns."""
    uri = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = _text
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size={-CACHE}")
        connection.execute("SELECT count(*) FROM sqlite_master")  # the file is looked at only now
    except BaseException:
        connection.close()
        raise
    return connection


def _text(stored: bytes) -> str:
    """A text that somebody made no text of is read all the same: `verify` says in which record."""
    return stored.decode("utf-8", "surrogateescape")


def damage(connection: Connection) -> str | None:
    """What SQLite finds wrong with its own file, indexes included; None where all is well."""
    try:
        found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    except DBAPIError as error:
        if _name_of(error).split("_")[1:2] != ["CORRUPT"]:
            raise
        found = first_line(error.orig or error)
    return None if found == "ok" else str(found)


def _prepare(connection: Connection) -> None:
    """Write-ahead log; other processes may be about the same."""
    deadline = time.monotonic() + WAIT
    while connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            break  # a file system that knows no shared memory keeps its own journal, which is as safe
        except OperationalError as error:  # SQLite does not wait for this lock by itself
            if not _name_of(error).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _guard(connection: Connection) -> None:
    for name, refusal in _TRIGGERS.items():
        connection.exec_driver_sql(f"CREATE TRIGGER {name} {refusal}")


def _unguard(connection: Connection) -> None:
    for name in _TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")


def _name_of(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _in_words(error: DBAPIError) -> str:
    name, said = _name_of(error), first_line(error.orig or error)
    if name == "SQLITE_FULL":
        return f"the disk is full. {KEPT}; free some space and run it again."
    if name.startswith("SQLITE_IOERR"):
        return f"the disk refuses ({said}, {name}): is it full? {KEPT}."
    if name.startswith("SQLITE_READONLY"):
        return f"cannot be written ({said}). Choose a folder that can be."
    if name.startswith("SQLITE_CANTOPEN"):
        return f"cannot be opened ({said}). Choose a folder that can be written; what a killed run left, copy to one."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"other processes have kept it locked for {WAIT} s. {KEPT}; run it again."
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return f"is damaged, or no ledger: {said}."
    return f"{said}."

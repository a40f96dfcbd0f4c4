"""What every kind of database gives the ledger; how each one does it is in the room of its name."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from seewhy.errors import SeewhyError

WAIT = 60  # seconds that one writer waits for the others
KEPT = "Every acknowledged record is kept"  # the promise that an error in the middle of writing repeats


@dataclass(frozen=True)
class Database:
    """The tables of one ledger: alone in a SQLite file, or in a namespace of their own on a PostgreSQL server."""

    where: str  # what errors call it; never with a password
    engine: Engine  # every commit is on disk when it returns
    namespace: str | None  # of the tables; None where the file holds nothing else
    prepare: Callable[[Connection], None]  # what a new file needs before its first transaction
    begin: Callable[[Connection], None]  # from here to the commit no other process writes this ledger
    guard: Callable[[Connection], None]  # the triggers that refuse to change, delete or slip in a record
    unguard: Callable[[Connection], None]  # take them off: a migration does, within its own transaction
    in_words: Callable[[DBAPIError], str]  # what an error means, and what to do

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection, committed at the end, given back to the pool; SeewhyError where the database says no."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise SeewhyError(f"{self.where}: {self.in_words(error)}") from error


def synchronize(path: Path) -> None:
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

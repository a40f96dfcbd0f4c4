"""How the tables come to be, and how those of an older seewhy become those of this one."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, func, insert, inspect, select
from sqlalchemy.schema import CreateSchema

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger.database import Database
from seewhy.ledger.schema import HASHED, SCHEMA, metadata, record_table, version_table

# What leads from schema 1 to 2, from 2 to 3 ...: each a function that is given a connection, on which the names of tables
# need no namespace. A change of the tables in schema.py appends one here, raises SCHEMA, and tests it on a ledger of the
# version before. It may add, drop and fill columns and indexes, but never touch what the hashes cover: that is checked.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = ()


def make_or_migrate(connection: Connection, database: Database) -> None:
    """The tables of this schema, made or led to it in one transaction; other processes may be about the same."""
    database.prepare(connection)
    if _version(connection, database) == SCHEMA:
        return
    database.begin(connection)
    version = _version(connection, database)  # another process may have been faster
    if version is None:
        if database.namespace is not None and not inspect(connection).has_schema(database.namespace):
            connection.execute(CreateSchema(database.namespace))
        metadata.create_all(connection)
        database.guard(connection)
        _note_version(connection, SCHEMA)
    elif version < SCHEMA:
        _migrate(connection, database, version)


def check_version(connection: Connection, database: Database) -> None:
    """UsageError unless the tables are those of this schema."""
    version = _version(connection, database)
    if version is None:
        raise UsageError(f"{database.where} holds no ledger: it has none of its tables.")
    if version > SCHEMA:
        raise UsageError(
            f"{database.where} has schema {version}; this version of seewhy reads schema {SCHEMA}: update seewhy."
        )
    if version < SCHEMA:
        raise UsageError(
            f"{database.where} has schema {version}; this version of seewhy reads schema {SCHEMA}. Keep a copy, then open it "
            "once to be written, which migrates it: seewhy.ledger.open_ledger(folder).close()."
        )


def _migrate(connection: Connection, database: Database, version: int) -> None:
    """All steps or none; the triggers are off meanwhile, so that a new column can be filled."""
    before = _digest(connection)
    database.unguard(connection)
    for number, step in enumerate(MIGRATIONS[version - 1 :], version + 1):
        step(connection)
        _note_version(connection, number)
    database.guard(connection)
    if _digest(connection) != before:
        raise SeewhyError(
            f"{database.where}: the migration from schema {version} to {SCHEMA} would have changed what the records' hashes "
            "cover; nothing was changed. This is a fault of seewhy: please report it."
        )


def _version(connection: Connection, database: Database) -> int | None:
    if not inspect(connection).has_table(version_table.name, schema=database.namespace):
        return None
    version: int | None = connection.scalar(select(func.max(version_table.c.version)))
    return version


def _note_version(connection: Connection, version: int) -> None:
    since = datetime.now(UTC).isoformat(timespec="microseconds")
    connection.execute(insert(version_table).values(version=version, since=since))


def _digest(connection: Connection) -> str:
    """Of everything that the hashes of the records cover, and of the hashes, in order."""
    digest = hashlib.sha256()
    asked = select(*(record_table.c[name] for name in HASHED)).order_by(record_table.c.number)
    for row in connection.execute(asked.execution_options(yield_per=1000)):
        digest.update(json.dumps(list(row)).encode())
    return digest.hexdigest()

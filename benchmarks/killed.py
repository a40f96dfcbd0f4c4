"""Writers of a ledger that are killed at random moments; the suite does it a few times, `ledger.py` a hundred."""

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np

from seewhy.ledger import FIRST, Ledger, chain_hash, open_ledger

AT_A_TIME = 3  # records in one call of append_all


def forkserver() -> multiprocessing.context.BaseContext:
    """One server that has imported seewhy starts all processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seewhy.ledger"])
    return context


def write_until_killed(folder: Path, database: str | None, name: str, acknowledged: Path) -> None:
    """Append without end; every number is noted in a file once append has returned."""
    with open_ledger(folder, database=database) as ledger, acknowledged.open("ab", buffering=0) as noted:
        i = len(ledger.keys("prediction"))
        while True:
            i += 1
            array = ledger.keep(np.full((9, 9), i, dtype=np.float32))
            rows = [(f"{name} {i} {k}", {"map": array}) for k in range(AT_A_TIME)]
            for record in ledger.append_all("prediction", rows):
                noted.write(f"{record.number} {record.hash}\n".encode())


def kill_writers(processes, folder: Path, database: str | None, notes: Path, moments: int, writers: int = 2) -> int:
    """Start writers and kill them all at once, as often as `moments` says; how many records were acknowledged."""
    drawn, noted = random.Random(0), 0
    for moment in range(moments):
        working = [
            processes.Process(target=write_until_killed, args=(folder, database, f"{moment} {i}", notes / f"{i}.txt"))
            for i in range(writers)
        ]
        for process in working:
            process.start()
        if moment % 2:  # in the middle of writing; else at any moment, of opening too
            _wait_for_more_than(noted + 5, notes)
        time.sleep(drawn.uniform(0, 0.15))
        for process in working:
            process.kill()
        for process in working:
            process.join()
        noted = len(acknowledged(notes))
    return noted


def acknowledged(notes: Path) -> list[list[str]]:
    """Number and hash of every record that a writer was told is safe."""
    return [line.split() for path in notes.glob("*.txt") for line in path.read_text().splitlines()]


def check_chain(ledger: Ledger) -> int:
    """AssertionError unless every record carries the hash of the one before and its own; how many there are."""
    previous, number = FIRST, 0
    for number, record in enumerate(ledger.stream(), 1):
        assert (record.number, record.previous) == (number, previous)
        expected = chain_hash(previous, number, record.time, record.kind, record.key, record.content)
        assert record.hash == expected
        previous = record.hash
    return number


def check_nothing_is_lost(ledger: Ledger, notes: Path) -> None:
    """AssertionError unless the chain is whole, every acknowledged record is in it, and every map can be read."""
    check_chain(ledger)
    records = {record.number: record for record in ledger.read()}
    assert all(records[int(number)].hash == digest for number, digest in acknowledged(notes))
    for name in {record.content["map"] for record in records.values()}:
        assert ledger.array(name).shape == (9, 9)


def _wait_for_more_than(n: int, notes: Path) -> None:
    deadline = time.monotonic() + 60
    while len(acknowledged(notes)) <= n:
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""A ledger under load, and its writers killed at random moments, in a file and on a PostgreSQL server.

Writes docs/benchmarks-ledger.md. Run by `make ledger` (ten minutes on two slow cores); --records and --moments make it small.
"""

import argparse
import functools
import importlib.metadata
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import seewhy as sw
from killed import acknowledged, check_chain, check_nothing_is_lost, forkserver, kill_writers
from seewhy.explanation.provenance import machine
from seewhy.ledger import Ledger, explanation_record, open_ledger
from seewhy.ledger.schema import canonical
from servers import postgres

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-ledger.md"
BATCH, SINGLE, ASKED = 1000, 1000, 200
RARE = 100  # one record in so many has the rare method
WRITERS = 4


@functools.cache
def template() -> dict[str, Any]:
    """What a real explanation leaves, of which every record of the load is a variant."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    model = sw.wrap(network.eval(), mean=[0.5] * 3, std=[0.5] * 3, size=64)
    return explanation_record(
        sw.explain(model, torch.rand(1, 3, 64, 64), "integrated_gradients"), map_file="maps/0.npz"
    )


def content(i: int) -> dict[str, Any]:
    """Two methods an image, two models, one record in a hundred by a third method."""
    method = "occlusion" if i % RARE == 0 else ("grad_cam", "integrated_gradients")[i % 2]
    return {
        **template(),
        "image": f"class_{i // 2 % 50}/{i // 2}.jpg",
        "method": method,
        "model_sha256": f"{i % 2:064d}",
    }


def rows(start: int, n: int) -> list[tuple[str, dict[str, Any]]]:
    """What append_all takes, made before the clock runs."""
    return [(f"key of {i}", content(i)) for i in range(start, start + n)]


def milliseconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def single(ledger: Ledger, start: int) -> float:
    """Median of appending one record at a time."""
    return statistics.median(
        milliseconds(functools.partial(ledger.append, "explanation", *row)) for row in rows(start, SINGLE)
    )


def first_and_last(batches: list[float]) -> str:
    """Medians of the first and the last tenth: whether appending stays flat."""
    tenth = max(1, len(batches) // 10)
    first, last = (statistics.median(part) for part in (batches[:tenth], batches[-tenth:]))
    return f"{first:.3f}; {last:.3f} ms a record"


def load(folder: Path, database: str | None, records: int) -> dict[str, str]:
    """One column of the table."""
    found: dict[str, str] = {}
    with open_ledger(folder, database=database) as ledger:
        first_single = single(ledger, 0)
        batches, computed = [], []
        for start in range(SINGLE, records - SINGLE, BATCH):
            given, begun = rows(start, BATCH), time.process_time()
            batches.append(milliseconds(functools.partial(ledger.append_all, "explanation", given)) / BATCH)
            computed.append(1000 * (time.process_time() - begun) / BATCH)
        last_single = single(ledger, records - SINGLE)
        found["append, one a call: first 1,000; last 1,000"] = f"{first_single:.2f}; {last_single:.2f} ms a record"
        found["append_all, 1,000 a call: first tenth; last tenth"] = first_and_last(batches)
        found["of that, CPU time of the process"] = first_and_last(computed)
        found |= asked(ledger, records)
    with open_ledger(folder, read_only=True) as ledger:  # what was in the journal is in the file now
        found["on disk"] = f"{size(ledger) / 1e6:.0f} MB, {size(ledger) / records:,.0f} bytes a record"
    return found


def asked(ledger: Ledger, records: int) -> dict[str, str]:
    """How long questions take, and how much memory reading all of it."""

    def median(work: Callable[[int], Any]) -> str:
        places = range(0, records, max(1, records // ASKED))
        return f"{statistics.median(milliseconds(functools.partial(work, i)) for i in places):.2f} ms"

    found = {
        "open, to read": median(lambda _: open_ledger(ledger.folder, read_only=True).close()),
        "find(kind, key)": median(lambda i: ledger.find("explanation", f"key of {i}")),
        "read(image=...): 2 records": median(lambda i: ledger.read(image=content(i)["image"])),
        "append of a key that is there": median(lambda i: ledger.append("explanation", *rows(i, 1)[0])),
    }
    rare = len(ledger.read(method="occlusion"))
    found[f"read(method=...): {rare:,} records"] = f"{milliseconds(lambda: ledger.read(method='occlusion')):,.0f} ms"
    found["the first of stream(model=...): half of all match"] = (
        f"{milliseconds(lambda: next(ledger.stream(model=f'{0:064d}'))):,.0f} ms"
    )
    found["keys(kind)"] = f"{milliseconds(lambda: ledger.keys('explanation')):,.0f} ms"
    found["stream(): every record"] = f"{milliseconds(lambda: sum(1 for _ in ledger.stream())) / 1000:.1f} s"
    found["the whole chain computed again"] = f"{milliseconds(lambda: check_chain(ledger)) / 1000:.1f} s"
    tracemalloc.start()
    assert sum(1 for _ in ledger.stream()) == records
    found["most memory of stream()"] = f"{tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB"
    tracemalloc.stop()
    return found


def size(ledger: Ledger) -> int:
    """Bytes of the tables and indexes on disk."""
    namespace = ledger._database.namespace
    if namespace is None:
        return ledger.path.stat().st_size
    with ledger._connection() as connection:
        asked_for = f"SELECT pg_total_relation_size('{namespace}.record')"
        return int(connection.exec_driver_sql(asked_for).scalar() or 0)


def crash(folder: Path, database: str | None, moments: int) -> dict[str, str]:
    """Kill all writers at random moments; AssertionError where a record was lost or the chain broken."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    n = kill_writers(forkserver(), folder / "run", database, notes, moments, WRITERS)
    with open_ledger(folder / "run", database=database) as ledger:
        check_nothing_is_lost(ledger, notes)
        there = len(ledger.keys("prediction"))
    assert len(acknowledged(notes)) == n
    return {
        f"{WRITERS} writers killed at once, moments": f"{moments}",
        "acknowledged records": f"{n:,}",
        "of these lost": "0",
        "in the ledger, which is whole": f"{there:,}",
    }


def alone(load_average: float) -> str:
    """What else the machine did meanwhile, which wall times cannot be read without."""
    busy = load_average > (os.cpu_count() or 1)
    return f"; load average {load_average:.1f}" + (
        ": others worked on this machine, alone it is faster" if busy else ""
    )


def page(columns: dict[str, dict[str, str]], records: int, load_average: float) -> str:
    """The document, with n and machine."""
    where = machine(torch.device("cpu"))
    names = list(columns)
    tool = {name: importlib.metadata.version(name) for name in ("seewhy", "sqlalchemy", "psycopg")}
    lines = [
        "# The ledger under load",
        "",
        f"Written by `benchmarks/ledger.py` ({', '.join(f'{name} {version}' for name, version in tool.items())}; "
        f"{where['cpu']}, {os.cpu_count()} cores, {os.uname().sysname}; the server on the same machine, by a socket).",
        f"{records:,} records as a real explanation leaves them ({len(canonical(template())):,} characters each) in one",
        f"ledger, one process; medians of {SINGLE:,} single appends and of {ASKED} questions; every commit is on disk when",
        f"`append` returns. Wall time{alone(load_average)}.",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    lines += [f"| {row} | {' | '.join(columns[name][row] for name in names)} |" for row in columns[names[0]]]
    lines += [
        "",
        "Killed: `kill -9` to all writers at once, at random moments of opening and of writing. Afterwards every record",
        "whose `append` had returned is there with its hash, every number and hash of the chain is right, and every kept",
        "array can be read. More records may be there than were acknowledged: written, and killed before they could say so.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Both kinds of database, then the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--moments", type=int, default=100)
    given = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    with postgres(Path(tempfile.mkdtemp(prefix="seewhy-"))) as url, tempfile.TemporaryDirectory() as folder:
        for name, database in (("SQLite", None), ("PostgreSQL", url)):
            columns[name] = load(Path(folder) / name, database, given.records)
            columns[name] |= crash(Path(folder) / f"{name} killed", database, given.moments)
            print(name, *(f"{row}: {value}" for row, value in columns[name].items()), sep="\n  ", flush=True)
    text = page(columns, given.records, os.getloadavg()[2])
    if (given.records, given.moments) == (parser.get_default("records"), parser.get_default("moments")):
        PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

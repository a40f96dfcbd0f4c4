"""A ledger of an older seewhy becomes one of this: all of it or nothing, and never what a hash covers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_sql import sql

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger import SCHEMA, chain_hash, migrations, open_ledger

SKIP = {"path": "cats/1.png", "reason": "damaged"}


def add_reason(connection):
    """A made-up step: one more column to filter by, filled from what is there."""
    connection.exec_driver_sql("ALTER TABLE record ADD COLUMN reason VARCHAR")
    connection.exec_driver_sql("UPDATE record SET reason = 'damaged' WHERE kind = 'skip'")


def index_reason(connection):
    connection.exec_driver_sql("CREATE INDEX record_of_reason ON record (reason)")


def fail(connection):
    raise SeewhyError("a step that fails")


def forge(connection):
    connection.exec_driver_sql("UPDATE record SET content = '{}' WHERE number = 1")


@pytest.fixture
def old(tmp_path, database):
    """A ledger of schema 1, closed, and its records."""
    with open_ledger(tmp_path / "run", database=database) as ledger:
        ledger.append_all("skip", [("a", SKIP), ("b", SKIP)])
        ledger.append("cost", "c", {"seconds": 1.5})
        return ledger, ledger.read()


def today(monkeypatch, *steps):
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    monkeypatch.setattr(migrations, "SCHEMA", 1 + len(steps))


def versions(ledger):
    return [version for (version,) in sql(ledger, "SELECT version FROM schema_version ORDER BY version")]


def test_every_schema_after_the_first_has_a_step():
    assert len(migrations.MIGRATIONS) == SCHEMA - 1


def test_an_older_ledger_is_led_to_the_schema_of_today_once(old, monkeypatch):
    ledger, records = old
    today(monkeypatch, add_reason, index_reason)
    with open_ledger(ledger.folder) as again:
        assert again.read() == records
        assert again.append("skip", "d", SKIP).previous == records[-1].hash
    open_ledger(ledger.folder).close()
    assert versions(ledger) == [1, 2, 3]
    assert [row[0] for row in sql(ledger, "SELECT reason FROM record ORDER BY number")] == ["damaged"] * 2 + [None] * 2
    with open_ledger(ledger.folder) as again, pytest.raises(Exception, match="the ledger is append-only"):
        sql(again, "UPDATE record SET reason = 'x'")


def test_only_the_steps_that_are_missing_are_taken(old, monkeypatch):
    ledger, records = old
    today(monkeypatch, add_reason)
    open_ledger(ledger.folder).close()
    today(monkeypatch, fail, index_reason)
    with open_ledger(ledger.folder) as again:
        assert again.read() == records
    assert versions(ledger) == [1, 2, 3]


def test_who_only_reads_is_told_how_to_migrate(old, monkeypatch):
    today(monkeypatch, add_reason)
    with pytest.raises(
        UsageError, match=r"has schema 1; this version of seewhy reads schema 2. Keep a copy, then open"
    ):
        open_ledger(old[0].folder, read_only=True)
    assert versions(old[0]) == [1]


def test_processes_that_open_an_older_ledger_at_once_migrate_it_once(old, monkeypatch):
    today(monkeypatch, add_reason)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_ledger(old[0].folder).close(), range(4)))
    assert versions(old[0]) == [1, 2]


@pytest.mark.parametrize(
    ("step", "said"), [(fail, "a step that fails"), (forge, "would have changed what the records' hashes cover")]
)
def test_a_migration_that_fails_changes_nothing(old, monkeypatch, step, said):
    ledger, records = old
    today(monkeypatch, add_reason, step)
    with pytest.raises(SeewhyError, match=said):
        open_ledger(ledger.folder)
    today(monkeypatch)
    assert versions(ledger) == [1]
    with open_ledger(ledger.folder) as again:
        assert again.read() == records
        with pytest.raises(Exception, match="reason"):
            sql(again, "SELECT reason FROM record")
        with pytest.raises(Exception, match="the ledger is append-only"):
            sql(again, "DELETE FROM record")


def test_a_chain_that_was_migrated_is_the_chain_that_it_was(old, monkeypatch):
    today(monkeypatch, add_reason)
    with open_ledger(old[0].folder) as again:
        for one in again.stream():
            assert one.hash == chain_hash(one.previous, one.number, one.time, one.kind, one.key, one.content)

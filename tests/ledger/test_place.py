"""Where a ledger lies: in a file of its folder, or on a team's server, and how a folder knows."""

import json
import sys
from urllib.parse import quote

import numpy as np
import pytest
from sqlalchemy import text

from seewhy.errors import MissingExtraError, SeewhyError, UsageError
from seewhy.ledger import NAME, open_ledger, postgres

SKIP = {"path": "cats/1.png", "reason": "damaged"}


def with_user(url, user, password=None):
    given = user if password is None else f"{user}:{password}"
    return url.replace("postgres:@", f"{given}@")


def test_new_ledgers_go_to_the_server_of_the_team_and_the_folder_remembers_it(tmp_path, server, monkeypatch):
    monkeypatch.setenv("SEEWHY_LEDGER", server)
    with open_ledger(tmp_path / "Run 7 (final)!") as ledger:
        written = ledger.append("skip", "a", {"map": ledger.keep(np.eye(2))})
    monkeypatch.delenv("SEEWHY_LEDGER")
    assert sorted(path.name for path in ledger.folder.iterdir()) == ["ledger.json", "maps"]
    place = json.loads((ledger.folder / "ledger.json").read_text())
    assert place.keys() == {"schema", "database", "ledger"}
    assert place["ledger"].startswith("seewhy_run_7_final_")
    for read_only in (True, False):
        with open_ledger(ledger.folder, read_only=read_only) as again:
            assert again.read() == [written]
            assert again.array(written.content["map"]).shape == (2, 2)


def test_the_ledgers_of_one_server_do_not_mix(tmp_path, server):
    with (
        open_ledger(tmp_path / "a" / "run", database=server) as one,
        open_ledger(tmp_path / "b" / "run", database=server) as other,
    ):
        assert one.append("skip", "a", SKIP).number == other.append("skip", "a", SKIP).number == 1
        one.append("skip", "b", SKIP)
        assert other.keys("skip") == {"a"}


def test_a_password_is_used_and_written_nowhere(tmp_path, server, monkeypatch):
    monkeypatch.setenv("SEEWHY_LEDGER", f"{with_user(server, 'postgres', 'secret')}&password=secret")
    for _ in range(2):  # new, and known to the folder
        with open_ledger(tmp_path) as ledger:
            assert ledger._database.engine.url.password == "secret"
            assert "secret" not in ledger._database.where
    assert "secret" not in (tmp_path / "ledger.json").read_text()


def test_a_ledger_stays_where_it_was_begun(tmp_path, server, monkeypatch):
    open_ledger(tmp_path / "file").close()
    monkeypatch.setenv("SEEWHY_LEDGER", server)
    with open_ledger(tmp_path / "file") as ledger:
        assert ledger.path.name == NAME
    with pytest.raises(
        UsageError, match=r"has its ledger in ledger.sqlite, where it stays; for postgresql://postgres@"
    ):
        open_ledger(tmp_path / "file", database=server)
    open_ledger(tmp_path / "server").close()
    monkeypatch.setenv("SEEWHY_LEDGER", "postgresql://elsewhere/db")
    with open_ledger(tmp_path / "server", database=server) as ledger:
        assert ledger.path.name == "ledger.json"
    with pytest.raises(UsageError, match=r"where it stays; got postgresql://elsewhere/db"):
        open_ledger(tmp_path / "server", database="postgresql://elsewhere/db")
    (tmp_path / "server" / NAME).write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds two ledgers, ledger.sqlite and ledger.json"):
        open_ledger(tmp_path / "server")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://user:secret@host/db", "lies in PostgreSQL; got mysql://, expected postgresql://user@host/database"),
        ("sqlite:///secret.db", "lies in PostgreSQL; got sqlite://"),
        ("host:secret", "is no URL of a database: expected postgresql"),
        ("postgresql://user:secret@host:port/db", "is no URL of a database: expected postgresql"),
        ("", "database is no URL of a database"),
    ],
)
def test_what_is_no_url_of_a_server_is_named_without_its_password(tmp_path, given, said, monkeypatch):
    with pytest.raises(UsageError, match=said) as told:
        open_ledger(tmp_path, database=given)
    assert "secret" not in str(told.value)
    monkeypatch.setenv("SEEWHY_LEDGER", given)
    if given:
        with pytest.raises(UsageError, match="SEEWHY_LEDGER"):
            open_ledger(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'schema'"),
        ('{"schema": 2, "database": "postgresql://h/d", "ledger": "a"}', "expected schema 1 and the name of a ledger"),
        ('{"schema": 1, "database": "postgresql://h/d", "ledger": "a\\"; DROP SCHEMA b"}', "the name of a ledger"),
        ('{"schema": 1, "database": "postgresql://h/d", "ledger": 3}', "TypeError"),
        ('{"schema": 1, "database": 3, "ledger": "a"}', "is no URL of a database"),
        ('{"schema": 1, "database": "oracle://h/d", "ledger": "a"}', "lies in PostgreSQL; got oracle"),
    ],
)
def test_a_damaged_file_that_names_the_server_is_said(tmp_path, content, said):
    (tmp_path / "ledger.json").write_text(content)
    for read_only in (True, False):
        with pytest.raises(SeewhyError, match=f"ledger.json.*{said}"):
            open_ledger(tmp_path, read_only=read_only)


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SeewhyError, match=r"postgresql://me@/db\S+, ledger \w+: cannot be reached, or the connection"):
        open_ledger(tmp_path, database=f"postgresql://me@/db?host={quote(str(tmp_path), safe='')}")


def test_a_server_that_lost_the_ledger_is_not_read(tmp_path, server):
    with open_ledger(tmp_path, database=server) as ledger, ledger._connection() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {ledger._database.namespace} CASCADE")
    with pytest.raises(UsageError, match="holds no ledger: it has none of its tables"):
        open_ledger(tmp_path, read_only=True)


def test_without_the_driver_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"server needs the package 'psycopg'.*seewhy\[postgres\]"):
        open_ledger(tmp_path, database="postgresql://host/db")


@pytest.fixture
def user(server, tmp_path):
    """Somebody who may do no more than connect to the server, and what gives them rights on a ledger."""
    name = "somebody"
    with open_ledger(tmp_path / "run", database=server) as ledger:

        def sql(*statements):
            with ledger._connection() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement.format(ledger._database.namespace, name))

        sql("CREATE ROLE {1} LOGIN")
        yield ledger, lambda: postgres_as(ledger, with_user(server, name)), sql
        sql("DROP OWNED BY {1}", "DROP ROLE {1}")


def postgres_as(ledger, url):
    """The same ledger through another user's URL."""
    place = json.loads(ledger.path.read_text())
    other = ledger.folder.parent / "of somebody"
    other.mkdir(exist_ok=True)
    (other / "ledger.json").write_text(json.dumps({**place, "database": url}))
    return open_ledger(other)


def test_who_may_only_insert_and_read_writes_and_who_may_only_read_is_told(user):
    ledger, as_user, sql = user
    first = ledger.append("skip", "a", SKIP)
    sql("GRANT USAGE ON SCHEMA {0} TO {1}", "GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO {1}")
    with as_user() as theirs:
        assert theirs.read() == [first]
        with pytest.raises(SeewhyError, match=r"permission denied for table record. Who makes a ledger needs CREATE"):
            theirs.append("skip", "b", SKIP)
        sql("GRANT INSERT ON {0}.record TO {1}")
        assert theirs.append("skip", "b", SKIP).previous == first.hash


def test_who_may_make_no_ledger_is_told(user, server, tmp_path):
    with pytest.raises(SeewhyError, match=r"permission denied for database.*needs CREATE on the database"):
        open_ledger(tmp_path / "new", database=with_user(server, "somebody"))


def test_a_connection_that_was_lost_in_the_meantime_is_made_again(tmp_path, server):
    with open_ledger(tmp_path / "a", database=server) as ledger, open_ledger(tmp_path / "b", database=server) as other:
        with ledger._connection() as connection:
            process = connection.scalar(text("SELECT pg_backend_pid()"))
        with other._connection() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:process)"), {"process": process})
        assert ledger.append("skip", "a", SKIP).number == 1


def run(ledger, statement):
    with ledger._connection() as connection:
        connection.exec_driver_sql(statement)


def test_a_server_that_goes_away_in_the_middle_says_what_is_kept(tmp_path, server):
    with open_ledger(tmp_path / "a", database=server) as ledger, open_ledger(tmp_path / "b", database=server) as other:
        ledger.append("skip", "a", SKIP)

        def cut_off_while_it_is_asked():
            with ledger._connection() as connection:
                process = connection.scalar(text("SELECT pg_backend_pid()"))
                with other._connection() as killer:
                    killer.execute(text("SELECT pg_terminate_backend(:process)"), {"process": process})
                connection.execute(text("SELECT 1"))

        with pytest.raises(SeewhyError, match=r"the connection was lost.*Every acknowledged record is kept"):
            cut_off_while_it_is_asked()
        assert ledger.keys("skip") == {"a"}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("53100", r"the server's disk is full \(odd\). Every acknowledged record is kept; free some space"),
        ("57P03", r"cannot be reached, or the connection was lost \(odd\)"),
        ("XX000", r"ledger \w+: odd\.$"),
    ],
)
def test_what_a_server_says_is_put_into_words(tmp_path, server, state, said):
    odd = f"DO $$ BEGIN RAISE EXCEPTION 'odd' USING ERRCODE = '{state}'; END $$"
    with open_ledger(tmp_path, database=server) as ledger, pytest.raises(SeewhyError, match=said):
        run(ledger, odd)


def test_who_opened_a_ledger_to_read_it_cannot_write_it_past_seewhy_either(tmp_path, server):
    open_ledger(tmp_path, database=server).close()
    refused = pytest.raises(SeewhyError, match=r"read-only transaction.*is this a standby")
    with open_ledger(tmp_path, read_only=True) as reader, refused:
        run(reader, f"DELETE FROM {reader._database.namespace}.record")


def test_a_server_that_another_writer_keeps_locked_is_not_waited_for_without_end(tmp_path, server, monkeypatch):
    monkeypatch.setattr(postgres, "_PATIENCE", text("SELECT set_config('lock_timeout', '50ms', true)"))
    with open_ledger(tmp_path, database=server) as ledger, open_ledger(tmp_path) as other:
        with ledger._connection() as connection:
            ledger._database.begin(connection)
            with pytest.raises(SeewhyError, match="other processes have kept it locked for 60 s"):
                other.append("skip", "a", SKIP)
        assert other.append("skip", "a", SKIP).number == 1

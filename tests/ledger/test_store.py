import hashlib
import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import psycopg
import pytest
import torch
from raw_sql import sql
from sqlalchemy import select

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger import CONTENTS, FIRST, NAME, chain_hash, open_ledger, text_hash
from seewhy.ledger.schema import canonical, metadata, record_table

SKIP = {"path": "cats/1.png", "reason": "damaged"}
RAW = np.random.default_rng(0).standard_normal((7, 9)).astype(np.float32)


@pytest.fixture
def ledger(tmp_path, database):
    with open_ledger(tmp_path / "run", database=database) as ledger:
        yield ledger


@pytest.fixture
def in_file(tmp_path):
    with open_ledger(tmp_path / "run") as ledger:
        yield ledger


@pytest.fixture
def on_server(tmp_path, server):
    with open_ledger(tmp_path / "run", database=server) as ledger:
        yield ledger


def expected_hash(record):
    """The chain as the docs say it, written apart from the code."""
    own = {"content": record.content, "key": record.key, "kind": record.kind, "number": record.number}
    text = json.dumps({**own, "time": record.time}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{record.previous}{text}".encode()).hexdigest()


# -- records -------------------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_back_exactly_also_after_closing(ledger):
    content = {"b": [1, 0.1, -0.0, 1e300, None, True, "ü\u0000\U0001f408"], "a": {"z": {}, "y": []}}
    written = [ledger.append("candidate", "one", content), ledger.append("finding", "one", {})]
    assert [one.content for one in written] == [content, {}]
    assert ledger.read() == written
    ledger.close()
    with open_ledger(ledger.folder) as again:
        assert again.read() == written
        assert again.find("candidate", "one") == written[0]
        assert again.find("candidate", "two") is None
        assert again.append("cost", "one", {}).number == 3


def test_a_record_is_named_by_its_number_its_key_or_how_its_key_begins(ledger):
    keys = ["ab12", "ab1", "AB1x", "7", "a_b", "a%b", "axb"]
    one, two, three, seven, low, percent, any_ = (ledger.append("candidate", key, {}) for key in keys)
    other = ledger.append("finding", "ab1", {})
    assert ledger.named(2) == ledger.named("2") == [two]
    assert ledger.named("2", "finding") == []  # the number of a candidate
    assert ledger.named("ab1") == [two, other]  # the key itself before those that only begin so
    assert ledger.named("ab1", "finding") == [other]
    assert ledger.named("ab") == [one, two, other]
    assert ledger.named("AB1") == [three]
    assert ledger.named("8") == [other]
    assert ledger.named("8", "candidate") == []
    assert ledger.named("7") == [any_]  # a number goes before a key
    assert ledger.named("a_") == [low]
    assert ledger.named("a%") == [percent]
    assert ledger.named("") == ledger.named("9" * 40) == ledger.named("-1") == ledger.named("\u0000") == []
    assert seven.number == 4
    with pytest.raises(UsageError, match="kind of record"):
        ledger.named("ab1", "findings")


def test_the_same_key_again_gives_the_record_that_is_there(ledger):
    first = ledger.append("skip", "a", SKIP)
    assert ledger.append("skip", "a", {**SKIP, "reason": "another"}) == first
    assert ledger.append("cost", "a", {}).number == 2
    b, a, again = ledger.append_all("skip", [("b", {"n": 1}), ("a", {}), ("b", {"n": 2})])
    assert (a, again, b.number, b.content) == (first, b, 3, {"n": 1})
    assert len(ledger.read()) == 3


def test_every_record_carries_the_hash_of_the_one_before(ledger):
    ledger.append("run", "run", {"model": "net"})
    ledger.append_all("skip", [(f"{i}", {**SKIP, "n": i / 7}) for i in range(5)])
    ledger.append("finding", "f", {"sentence": "It reads the watermark."})
    records = ledger.read()
    assert [one.number for one in records] == list(range(1, 8))
    assert [one.previous for one in records] == [FIRST, *(one.hash for one in records[:-1])]
    assert [one.hash for one in records] == [expected_hash(one) for one in records]
    assert all(one.time.endswith("+00:00") for one in records)


def test_the_hash_stays_what_it_was_in_the_first_release():
    found = chain_hash(FIRST, 1, "2026-01-02T03:04:05.678901+00:00", "skip", "ä", {"b": [1.5, None], "a": "\u20ac"})
    text = canonical({"b": [1.5, None], "a": "\u20ac"})
    assert found == text_hash(FIRST, 1, "2026-01-02T03:04:05.678901+00:00", "skip", "ä", text)
    assert found == "df820c69e97b86848f1735da6acf17e1c378af0c236c0ea88ce746822dd79fc4"


def test_keys_and_records_come_in_the_order_of_writing(ledger):
    ledger.append_all("prediction", [(name, {"path": name}) for name in ("c", "a", "b")])
    ledger.append("skip", "d", SKIP)
    assert ledger.keys("prediction") == {"a", "b", "c"}
    assert ledger.keys("effect") == set()
    assert [one.key for one in ledger.read("prediction")] == ["c", "a", "b"]
    assert [one.key for one in ledger.read()] == ["c", "a", "b", "d"]
    assert ledger.append_all("skip", []) == []


def test_more_keys_than_one_question_holds(ledger):
    rows = [(f"{i}", {"n": i}) for i in range(1203)]
    first = ledger.append_all("effect", rows[::2])
    records = ledger.append_all("effect", rows)
    assert [one.content["n"] for one in records] == list(range(1203))
    assert records[::2] == first
    assert len(ledger.read()) == 1203


def test_records_are_filtered_by_image_model_and_method(ledger):
    ledger.append("prediction", "p", {"path": "x.png"})
    ledger.append("explanation", "a", {"image": "x.png", "model_sha256": "m", "method": "grad_cam"})
    ledger.append("explanation", "b", {"image": "y.png", "model_sha256": "m", "method": "occlusion"})
    ledger.append("candidate", "c", {"image": {"no": "text"}, "method": ["grad_cam"]})
    assert [one.key for one in ledger.read(image="x.png")] == ["p", "a"]
    assert [one.key for one in ledger.read("explanation", image="x.png")] == ["a"]
    assert [one.key for one in ledger.read(model="m")] == ["a", "b"]
    assert [one.key for one in ledger.read(method="occlusion", model="m")] == ["b"]
    assert ledger.read(image="z.png") == []


def test_a_ledger_is_read_one_by_one_over_many_pages(ledger, monkeypatch):
    monkeypatch.setattr("seewhy.ledger.store.ROWS_AT_ONCE", 3)
    ledger.append_all("skip", [(f"{i}", {"path": "x.png" if i % 2 else "y.png"}) for i in range(9)])
    assert list(ledger.stream()) == ledger.read()
    assert [one.number for one in ledger.stream()] == list(range(1, 10))
    assert [one.number for one in ledger.stream(image="x.png", after=2)] == [4, 6, 8]
    seen = ledger.stream("skip")
    first = [next(seen) for _ in range(3)]
    ledger.append("skip", "meanwhile", SKIP)  # a reader in the middle keeps no writer waiting
    assert [*first, *seen] == ledger.read()
    rows = list(ledger.rows(after=8))
    assert (rows[0]["number"], rows[0]["image"], rows[0]["content"]) == (9, "y.png", '{"path":"y.png"}')
    assert rows[-1].keys() == set(record_table.c.keys())


def test_numbers_of_numpy_become_plain_and_what_is_not_finite_null(ledger):
    given = {"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True), "n": [float("nan"), np.float32("inf")]}
    assert ledger.append("effect", "a", given).content == {"f": 0.5, "i": 3, "b": True, "n": [None, None]}


def test_names_that_are_numbers_become_texts_before_they_are_sorted(ledger):
    written = ledger.append("effect", "a", {"by": {10: "ten", 9: "nine", 100: (1, 2)}})
    assert written.content == {"by": {"9": "nine", "10": "ten", "100": [1, 2]}}
    assert written.hash == expected_hash(written)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"map": torch.zeros(2)}, "it holds a Tensor"),
        ({"map": RAW}, "it holds a ndarray"),
        ({"a": {1, 2}}, "it holds a set"),
        ({("a", 1): 2}, "keys must be str"),
        ([1], "it is a list"),
        (None, "it is a NoneType"),
    ],
)
def test_content_that_is_no_plain_json_is_an_error_and_nothing_is_written(ledger, content, said):
    with pytest.raises(UsageError, match=f"effect 'b'.*{said}"):
        ledger.append_all("effect", [("a", {}), ("b", content)])
    assert ledger.read() == []


def test_kinds_and_keys_that_there_cannot_be(ledger):
    with pytest.raises(UsageError, match="unknown kind of record 'explanations': did you mean 'explanation'"):
        ledger.append("explanations", "a", {})
    for ask in (ledger.keys, ledger.read, lambda kind: ledger.find(kind, "a")):
        with pytest.raises(UsageError, match="unknown kind of record 'findings'"):
            ask("findings")
    for key in ("", 3, None):
        with pytest.raises(UsageError, match="the key of a record of kind skip"):
            ledger.append("skip", key, SKIP)


def test_a_file_name_that_is_no_text_is_a_key_like_any_other(ledger):
    name = os.fsdecode(b"caf\xe9.png")
    written = ledger.append("skip", name, {"path": name, "reason": "damaged"})
    assert written.content["path"] == name
    assert ledger.append("skip", name, {}) == ledger.find("skip", name) == written
    assert ledger.read(image=name) == [written]
    assert (
        ledger.append("skip", "a\0b", {"path": "a\0b"}) == ledger.find("skip", "a\0b") == ledger.read(image="a\0b")[0]
    )
    assert ledger.keys("skip") == {"caf\\udce9.png", "a\\x00b"}


@pytest.mark.parametrize("name", ["50% of it?", "a#b", "Bär é", "x;y'z"])
def test_folders_of_any_name(tmp_path, name, database):
    with open_ledger(tmp_path / name, database=database) as ledger:
        ledger.append("skip", "a", SKIP)
        assert ledger.path == tmp_path / name / (NAME if database is None else "ledger.json")
        assert ledger.path.is_file()
    with open_ledger(tmp_path / name, read_only=True) as again:
        assert again.keys("skip") == {"a"}


# -- append-only ---------------------------------------------------------------------------------------------------------


LAST = "image, model, method FROM record WHERE number = 2"
REFUSED = [
    "UPDATE record SET content = '{}' WHERE number = 1",
    "UPDATE record SET method = 'x'",
    "DELETE FROM record WHERE number = 2",
    "DELETE FROM record",
    f"INSERT INTO record SELECT 3, time, kind, 'c', content, previous, hash, {LAST}",
    f"INSERT INTO record SELECT 4, time, kind, 'c', content, hash, hash, {LAST}",
    f"INSERT INTO record SELECT NULL, time, kind, 'c', content, hash, hash, {LAST}",
]
OVER = f"INSERT OR REPLACE INTO record SELECT 3, time, kind, 'a', content, hash, hash, {LAST}"


@pytest.mark.parametrize("statement", REFUSED)
def test_the_database_refuses_to_change_delete_or_slip_in_a_record(ledger, statement):
    written = ledger.append_all("skip", [("a", SKIP), ("b", SKIP)])
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError), match="the ledger is append-only"):
        sql(ledger, statement)
    assert ledger.read() == written


@pytest.mark.parametrize("statement", ["INSERT OR REPLACE INTO record SELECT * FROM record WHERE number = 1", OVER])
def test_a_file_refuses_to_write_one_record_over_another(in_file, statement):
    written = in_file.append_all("skip", [("a", SKIP), ("b", SKIP)])
    with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
        sql(in_file, statement)
    assert in_file.read() == written


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE record",
        f"INSERT INTO record SELECT 3, time, kind, 'a', content, hash, hash, {LAST} "
        "ON CONFLICT (kind, key) DO UPDATE SET content = '{}'",
    ],
)
def test_a_server_refuses_to_empty_a_ledger_or_to_write_one_record_over_another(on_server, statement):
    written = on_server.append_all("skip", [("a", SKIP), ("b", SKIP)])
    with pytest.raises(psycopg.IntegrityError, match="the ledger is append-only"):
        sql(on_server, statement)
    assert on_server.read() == written


def test_every_commit_of_a_file_is_on_disk(in_file):
    with in_file._connection() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize(("setting", "then"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_every_commit_of_a_server_is_on_disk_also_where_it_is_set_to_be_hasty(on_server, server, setting, then):
    hasty = server.replace("?", f"?options=-c%20synchronous_commit%3D{setting}&")
    with open_ledger(on_server.folder.parent / "hasty", database=hasty) as ledger, ledger._connection() as connection:
        asked = "SELECT current_setting('synchronous_commit')"
        assert connection.exec_driver_sql(asked).scalar() == setting
        ledger._database.begin(connection)
        assert connection.exec_driver_sql(asked).scalar() == then


def test_readers_do_not_wait_for_a_writer(ledger):
    ledger.append("skip", "a", SKIP)
    with ledger._connection() as writer, open_ledger(ledger.folder, read_only=True) as reader:
        ledger._database.begin(writer)
        assert reader.keys("skip") == {"a"}


@pytest.mark.parametrize(
    ("columns", "condition", "index"),
    [
        (["key"], {"kind": "skip"}, "USING COVERING INDEX"),
        (["content"], {"kind": "skip", "key": "a"}, "USING INDEX"),
        (["content"], {"image": "a"}, "USING INDEX record_of_image"),
        (["content"], {"kind": "skip"}, "USING INDEX record_of_kind"),
    ],
)
def test_no_question_reads_the_whole_ledger(in_file, columns, condition, index):
    asked = select(*(record_table.c[name] for name in columns))
    for name, value in condition.items():
        asked = asked.where(record_table.c[name] == value)
    if columns == ["content"]:
        asked = asked.order_by(record_table.c.number)
    text = str(asked.compile(compile_kwargs={"literal_binds": True}))
    plan = " ".join(row[3] for row in sql(in_file, f"EXPLAIN QUERY PLAN {text}"))
    assert index in plan
    assert "SCAN" not in plan


def test_every_column_and_every_kind_says_what_it_holds():
    assert all(table.comment and column.comment for table in metadata.tables.values() for column in table.columns)
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text("utf-8")
    assert [column.name for column in record_table.columns if f"`{column.name}`" not in page] == []
    assert all(CONTENTS[kind] and all(CONTENTS[kind].values()) for kind in CONTENTS)


# -- opening -------------------------------------------------------------------------------------------------------------


def test_a_server_says_what_its_columns_hold(on_server):
    asked = "SELECT count(*) FROM pg_description WHERE objoid = 'record'::regclass"
    assert sql(on_server, asked) == [(len(record_table.columns) + 1,)]


def test_a_folder_without_a_ledger_is_not_read(tmp_path):
    with pytest.raises(UsageError, match=r"holds no ledger: there is no ledger.sqlite"):
        open_ledger(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(UsageError, match=r"ledger.sqlite holds no ledger: it has none of its tables"):
        open_ledger(tmp_path, read_only=True)


def test_what_is_only_read_is_not_written(ledger):
    ledger.append("skip", "a", SKIP)
    with open_ledger(ledger.folder, read_only=True) as reader:
        for write in (lambda: reader.append("skip", "b", SKIP), lambda: reader.keep(RAW)):
            with pytest.raises(UsageError, match="opened to be read only"):
                write()


def test_a_ledger_of_a_newer_seewhy_is_refused(ledger):
    ledger.close()
    sql(ledger, "INSERT INTO schema_version VALUES (2, '2030-01-01T00:00:00+00:00')")
    for read_only in (False, True):
        with pytest.raises(UsageError, match="has schema 2; this version of seewhy reads schema 1"):
            open_ledger(ledger.folder, read_only=read_only)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / NAME).write_bytes(b"no database at all " * 100)
    for read_only in (False, True):
        with pytest.raises(SeewhyError, match=r"ledger.sqlite: is damaged, or no ledger: file is not a database"):
            open_ledger(tmp_path, read_only=read_only)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SeewhyError, match="cannot make"):
        open_ledger(tmp_path / "file")


def test_a_forked_process_is_told_to_open_its_own(ledger, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(UsageError, match="opened before this process was forked"):
        ledger.append("skip", "a", SKIP)


def test_a_full_database_is_an_error_in_words_and_loses_nothing(in_file):
    ledger = in_file
    first = ledger.append("skip", "a", SKIP)
    with ledger._connection() as connection:  # the pool hands out the same connection again
        connection.exec_driver_sql("PRAGMA max_page_count=30")
    with pytest.raises(SeewhyError, match=r"ledger.sqlite: the disk is full. Every acknowledged record is kept"):
        ledger.append_all("skip", [(f"{i}", {"text": "x" * 3000}) for i in range(100)])
    assert ledger.read() == [first]
    with ledger._connection() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    assert ledger.append("skip", "b", SKIP).previous == first.hash

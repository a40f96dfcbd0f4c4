import json
import os
import shutil
import sqlite3
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tampering import COLUMNS, Tampered, make_ledger

from seewhy.errors import UsageError
from seewhy.ledger import NAME, open_ledger, verify

RECORDS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "run"
    make_ledger(folder, RECORDS)
    return folder


@pytest.fixture(scope="module")
def open_to_all(original, tmp_path_factory):
    return Tampered(original, tmp_path_factory.mktemp("tampered") / "run")


@pytest.fixture
def tampered(open_to_all):
    yield open_to_all
    open_to_all.restore()


def files_of(folder):
    return sorted(f"{place}/{path.name}" for place in ("maps", "images") for path in (folder / place).iterdir())


# -- what is as it was written ---------------------------------------------------------------------------------------------


def test_a_ledger_as_it_was_written_verifies(original, tampered):
    for folder in (original, tampered.folder):  # that its triggers are gone changes no record
        found = verify(folder)
        assert (found.ok, found.problems, found.records, found.files) == (True, (), RECORDS, 6)
        assert (found.unrecorded, found.erased, found.checkpoints, found.keys) == ((), (), (), ())
        assert found.last_hash == tampered.field(RECORDS, "hash").decode()
        assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_an_open_ledger_is_verified_and_stays_open(original):
    with open_ledger(original, read_only=True) as ledger:
        assert verify(ledger) == verify(original)
        assert ledger.keys("run") == {"run"}


def test_an_empty_ledger_verifies(tmp_path):
    open_ledger(tmp_path).close()
    assert (verify(tmp_path).ok, verify(tmp_path).records) == (True, 0)


def test_a_folder_without_a_ledger_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="holds no ledger"):
        verify(tmp_path)


def test_what_a_killed_run_left_verifies(tmp_path):
    with open_ledger(tmp_path / "run") as ledger:  # still open: its newest records are in the journal only
        ledger.append("prediction", "a", {"path": "a.png", "map": ledger.keep(np.eye(2))})
        ledger.keep(np.eye(3))  # killed before the record that names it
        (tmp_path / "run" / "maps" / ".half.npz.17").write_bytes(b"half")
        shutil.copytree(tmp_path / "run", tmp_path / "left")
    assert (tmp_path / "left" / f"{NAME}-wal").stat().st_size
    found = verify(tmp_path / "left")
    assert (found.ok, found.records, found.files, found.unrecorded_in_all) == (True, 1, 1, 2)
    assert "maps/.half.npz.17" in found.unrecorded


def test_odd_texts_that_the_ledger_took_verify(tmp_path):
    with open_ledger(tmp_path) as ledger:
        content = {"path": "caf\udce9 \U0001f408\x00.png", "b": [1e300, -0.0, 10**30], "": {'"maps/': None}}
        ledger.append("skip", "caf\udce9 \x00", content)
        ledger.append("skip", "b", {"path": {"no": "text"}, "method": 3, "model_sha256": None})
    assert verify(tmp_path).problems == ()


# -- any change is caught --------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(number=st.integers(1, RECORDS), column=st.sampled_from(COLUMNS), data=st.data())
def test_any_changed_byte_of_any_field_is_caught(open_to_all, number, column, data):
    open_to_all.restore()
    field = open_to_all.field(number, column)
    if not field:
        changed = data.draw(st.binary(min_size=1, max_size=1))
    else:
        place, byte = data.draw(st.integers(0, len(field) - 1)), data.draw(st.integers(0, 255))
        assume(byte != field[place])
        changed = field[:place] + bytes([byte]) + field[place + 1 :]
    try:
        open_to_all.set_field(number, column, changed)
    except sqlite3.IntegrityError:  # no number, or a number or key that there is: the table itself refuses
        assert column in ("number", "key")
        return
    found = verify(open_to_all.folder)
    assert not found.ok
    if column != "number":  # a changed number is another place in the order
        assert found.problems[0].number == number


@pytest.mark.parametrize("column", COLUMNS)
def test_a_field_emptied_or_of_another_type_is_caught(tampered, column):
    with suppress(sqlite3.IntegrityError):
        tampered.run(f"UPDATE record SET {column} = NULL WHERE number = 3")
        if column not in ("model",):  # there it is null already
            assert verify(tampered.folder).problems[0].number == 3
    if column != "number":
        tampered.restore()
        tampered.run(f"UPDATE record SET {column} = CAST({column} AS BLOB) WHERE number = 2")
        tampered.run(f"UPDATE record SET {column} = x'00' WHERE number = 2 AND {column} IS NULL")
        assert verify(tampered.folder).problems[0].number == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a":1,"a":1}', "canonical form"),
        ('{"a": 1}', "canonical form"),
        ("[1]", "canonical form"),
        ("[" * 100_000, "canonical form"),
        ('{"a":NaN}', "canonical form"),
        ('{"a":2}', "changed after it was written"),
    ],
)
def test_a_content_that_no_ledger_writes_is_caught(tampered, content, said):
    tampered.set_field(4, "content", content)
    assert said in verify(tampered.folder).problems[0].sentence


@pytest.mark.parametrize("number", range(1, RECORDS))
def test_a_deleted_record_is_caught_also_where_the_numbers_are_closed_up(tampered, number):
    tampered.run(f"DELETE FROM record WHERE number = {number}")
    found = verify(tampered.folder)
    assert (found.problems[0].number, found.records) == (number + 1, RECORDS - 1)
    assert f"its number is {number + 1} where {number} was due" in found.problems[0].sentence
    for later in range(number, RECORDS):
        tampered.run(f"UPDATE record SET number = {later} WHERE number = {later + 1}")
    assert verify(tampered.folder).problems[0].number == number


@pytest.mark.parametrize("a", range(1, RECORDS))
def test_swapped_records_are_caught(tampered, a):
    tampered.run(
        *(f"UPDATE record SET number = {to} WHERE number = {n}" for n, to in ((a, 99), (a + 1, a), (99, a + 1)))
    )
    assert verify(tampered.folder).problems[0].number == a


@pytest.mark.parametrize("place", range(1, RECORDS + 2))
def test_an_inserted_record_is_caught(tampered, place):
    for later in range(RECORDS, place - 1, -1):
        tampered.run(f"UPDATE record SET number = {later + 1} WHERE number = {later}")
    some = place - 1 or RECORDS + 1
    tampered.run(
        f"INSERT INTO record SELECT {place}, time, kind, 'slipped in', content, previous, hash, image, model, method "
        f"FROM record WHERE number = {some}"
    )
    assert verify(tampered.folder).problems[0].number == place


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("kind", "opinion", "its kind 'opinion' is unknown"), ("time", "yesterday", "its time 'yesterday' is no time")],
)
def test_what_no_ledger_writes_is_named_also_where_every_hash_holds(tampered, column, value, said):
    tampered.set_field(3, column, value)
    tampered.rewrite(lambda number, content: content)
    found = verify(tampered.folder)
    assert [
        (one.number, one.sentence.split(".")[0].removesuffix(" in ISO 8601 with its zone")) for one in found.problems
    ] == [(3, said)]


def test_hashes_that_are_no_text_break_nothing(tampered):
    tampered.set_field(3, "hash", b"\xff" * 64)
    tampered.set_field(4, "previous", b"\xff" * 64)
    assert [one.number for one in verify(tampered.folder).problems] == [3, 4]


def test_the_first_of_many_is_named_and_all_are_counted(tampered):
    tampered.set_field(2, "method", "occlusion")
    tampered.set_field(5, "key", "another")
    found = verify(tampered.folder)
    assert [one.number for one in found.problems] == [2, 5]
    assert (
        "its column method, which filters look at, says 'occlusion', and its content 'grad_cam'"
        in found.problems[0].sentence
    )


def test_problems_without_end_are_counted_and_the_first_listed(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.append_all("skip", [(f"{i}", {}) for i in range(2500)])
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("DROP TRIGGER record_is_never_changed")
        connection.execute("UPDATE record SET image = 'x' WHERE number > 1200")
    connection.close()
    found = verify(tmp_path)
    assert (found.problems_in_all, len(found.problems), found.problems[0].number) == (1300, 100, 1201)


def test_an_index_that_hides_a_record_from_filters_is_caught(tampered):
    tampered.run(
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET sql = sql || ' WHERE image IS NULL' WHERE name = 'record_of_image'",
    )
    found = verify(tampered.folder)
    assert (found.problems[0].file, found.problems[0].number) == (NAME, None)
    assert "the database is damaged" in found.problems[0].sentence


def test_a_page_of_the_file_that_was_overwritten_is_caught(tampered):
    path = tampered.folder / NAME
    content = path.read_bytes()
    place = content.index(b'{"image":"caf')
    path.write_bytes(content[: place // 4096 * 4096] + bytes(4096) + content[place // 4096 * 4096 + 4096 :])
    found = verify(tampered.folder)
    assert found.problems[0].file == NAME


# -- files -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_caught(open_to_all, data):
    open_to_all.restore()
    name = data.draw(st.sampled_from(files_of(open_to_all.folder)))
    path = open_to_all.folder / name
    whole = path.read_bytes()
    place, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    assume(byte != whole[place])
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    try:
        found = verify(open_to_all.folder)
    finally:
        path.write_bytes(whole)
    assert [one.file for one in found.problems] == [name]
    assert "it was changed after it was written" in found.problems[0].sentence
    assert found.problems[0].number is not None


def test_a_file_that_is_missing_is_named_with_the_record_that_names_it(original, tmp_path):
    shutil.copytree(original, tmp_path / "run")
    with open_ledger(original, read_only=True) as ledger:
        names = {record.number: record.content["map"]["file"] for record in ledger.read("explanation")}
    (tmp_path / "run" / names[5]).unlink()
    (tmp_path / "run" / names[3]).unlink()
    (tmp_path / "run" / names[4]).unlink()
    os.mkfifo(tmp_path / "run" / names[4])  # which nobody writes: reading it would wait for ever
    problems = verify(tmp_path / "run").problems
    assert [(one.number, one.file) for one in problems] == [(n, names[n]) for n in (3, 4, 5)]
    assert [one.sentence for one in problems] == [
        "it is missing.",
        "it is no file.",
        "it is missing.",
    ]


def test_files_that_no_record_names_are_listed_and_no_fault(original, tmp_path):
    shutil.copytree(original, tmp_path / "run")
    (tmp_path / "run" / "images" / "mine.png").write_bytes(b"")
    found = verify(tmp_path / "run")
    assert (found.ok, found.unrecorded, found.unrecorded_in_all) == (True, ("images/mine.png",), 1)

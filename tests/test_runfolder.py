import errno
import hashlib
import json
import os
import pickle
import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import runfolder
from seewhy.errors import SeewhyError, UsageError

RAW = np.random.default_rng(0).standard_normal((7, 9)).astype(np.float32)
PHOTO = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def record(row: str = "a", raw: np.ndarray = RAW, **more) -> dict:
    digest = hashlib.sha256(runfolder.npy_bytes(raw)).hexdigest()
    return {"id": row, "map": {"sha256": digest}, "image": {"name": f"{row}.png"}, **more}


def add(folder: Path, row: str = "a", raw: np.ndarray = RAW, **more) -> dict:
    photo = Image.fromarray(PHOTO)
    return runfolder.append(folder, record(row, raw, **more), raw, photo, None, photo)


def ids(folder: Path) -> list[str]:
    return [kept["id"] for kept, _, _ in runfolder.read(folder)]


def rewrite(folder: Path, change) -> None:
    path = folder / "rows.jsonl"
    row = json.loads(path.read_text("utf-8").splitlines()[-1])
    change(row)
    path.write_text(json.dumps(row) + "\n", "utf-8")


@pytest.fixture
def folder(tmp_path):
    return runfolder.open_folder(tmp_path / "run")


def test_what_is_appended_is_read_back_exactly(folder):
    extremes = np.array([[1e-38, -0.0], [3.4e38, 1 / 3]], dtype=np.float32)
    returned = [add(folder, "a", score=0.1, note=None), add(folder, "b", extremes, flag=True)]
    rows = runfolder.read(folder)
    assert [kept for kept, _, _ in rows] == returned
    for (_, raw, photo), expected in zip(rows, (RAW, extremes), strict=True):
        assert raw.dtype == np.float32
        assert raw.tobytes() == expected.tobytes()
        assert np.array_equal(photo, PHOTO)
    assert (folder / returned[0]["picture"]).exists()


def test_a_row_without_pictures_is_read_back_without_one(folder):
    kept = runfolder.append(folder, record(), RAW, None, None, None)
    assert kept["image"]["file"] is None
    assert kept["picture"] is None
    assert runfolder.read(folder)[0][2] is None


def test_exact_pixels_are_read_back_as_they_were(folder):
    pixels = np.random.default_rng(2).random((3, 5, 6)).astype(np.float32)
    kept = runfolder.append(folder, record(), RAW, None, pixels, None)
    assert np.array_equal(runfolder.read_array(folder, kept["image"]["array"]), pixels)


def test_appending_does_not_change_the_callers_record(folder):
    given = record()
    before = json.dumps(given)
    runfolder.append(folder, given, RAW, None, None, None)
    assert json.dumps(given) == before


def test_a_later_record_of_the_same_row_wins_and_keeps_its_place(folder):
    add(folder, "a", score=1)
    add(folder, "b")
    add(folder, "a", -RAW, score=2)
    rows = runfolder.read(folder)
    assert [kept["id"] for kept, _, _ in rows] == ["a", "b"]
    assert rows[0][0]["score"] == 2
    assert np.array_equal(rows[0][1], -RAW)


def test_equal_maps_are_stored_once(folder):
    add(folder, "a")
    add(folder, "b")
    assert len(list((folder / "maps").iterdir())) == 1


@pytest.mark.parametrize("name", ["straße 猫.jpg", "a\u2028b.png", "a\x85b.png", "a\x1cb\nc.png", 'quo"te\\.png'])
def test_a_name_with_any_character_is_read_back(folder, name):
    add(folder, "a", name=name)
    add(folder, "b")
    assert ids(folder) == ["a", "b"]
    assert runfolder.read(folder)[0][0]["name"] == name


def test_a_file_name_that_is_no_utf_8_is_recorded(folder):
    name = os.fsdecode(b"caf\xe9.jpg")  # an ordinary name on an old disk
    add(folder, "a", name=name)
    assert ids(folder) == ["a"]


def test_a_half_written_last_line_is_tolerated_wherever_it_was_cut(folder):
    add(folder, "a")
    path = folder / "rows.jsonl"
    whole = path.read_bytes()
    line = json.dumps(record("b", name="straße 猫"), ensure_ascii=False).encode()
    for cut in range(1, len(line)):
        path.write_bytes(whole + line[:cut])
        assert ids(folder) == ["a"], cut


def test_a_half_written_last_line_is_cut_off_by_the_next_append(folder):
    add(folder, "a")
    path = folder / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "map": {"sha')
    add(folder, "c")
    assert ids(folder) == ["a", "c"]
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())


def test_a_row_that_is_read_is_not_lost_by_the_next_append(folder):
    add(folder, "a")
    add(folder, "b")
    path = folder / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-1])  # killed before the very last byte
    seen = ids(folder)
    add(folder, "c")
    assert ids(folder) == [*seen, "c"]


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(folder):
    for row in "abc":
        add(folder, row)
    path = folder / "rows.jsonl"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40], lines[2]]) + "\n", "utf-8")
    with pytest.raises(SeewhyError, match="line 2 is damaged"):
        runfolder.read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("map"),
        lambda row: row.pop("image"),
        lambda row: row["map"].pop("file"),
        lambda row: row["map"].pop("sha256"),
        lambda row: row["map"].update(file=None),
        lambda row: row["map"].update(file=3),
        lambda row: row.update(map="x"),
    ],
    ids=["no map", "no image", "no file", "no hash", "file is null", "file is a number", "map is a text"],
)
def test_a_record_that_lacks_its_fields_is_an_error_of_ours(folder, change):
    add(folder, "a")
    rewrite(folder, change)
    with pytest.raises(SeewhyError):
        runfolder.read(folder)


def test_every_changed_byte_of_a_map_is_caught(folder):
    path = folder / add(folder, "a")["map"]["file"]
    content = path.read_bytes()
    for place in (0, 7, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(SeewhyError, match="changed after it was written"):
            runfolder.read(folder)
    path.write_bytes(content)
    assert ids(folder) == ["a"]


def test_a_missing_map_is_an_error_that_names_the_row(folder):
    (folder / add(folder, "a")["map"]["file"]).unlink()
    with pytest.raises(SeewhyError, match="map of row a is missing"):
        runfolder.read(folder)


def test_a_damaged_picture_is_an_error_of_ours_or_still_a_picture(folder):
    path = folder / add(folder, "a")["image"]["file"]
    content = path.read_bytes()
    for place in range(0, len(content), 23):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with suppress(SeewhyError):
            assert runfolder.read(folder)[0][2].ndim == 3
    path.write_bytes(b"")
    with pytest.raises(SeewhyError, match="picture of row a cannot be read"):
        runfolder.read(folder)


@pytest.mark.parametrize("kind", ["map", "image"])
def test_a_record_that_names_a_path_outside_the_folder_is_refused(folder, tmp_path, kind):
    add(folder, "a")
    Image.fromarray(PHOTO).save(tmp_path / "secret.png")
    (folder / "link").symlink_to(tmp_path)
    for name in ("../secret.png", str(tmp_path / "secret.png"), "maps/../../secret.png", "link/secret.png"):
        rewrite(folder, lambda row, name=name: row[kind].update(file=name))
        with pytest.raises(SeewhyError, match="outside its run folder"):
            runfolder.read(folder)
    with pytest.raises(SeewhyError, match="outside its run folder"):
        runfolder.read_array(folder, "../secret.png")


def test_a_pickled_map_is_refused_and_its_code_does_not_run(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    buffer = BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    for content in (buffer.getvalue(), pickle.dumps(Bomb())):
        add(folder, "a")
        (folder / "maps" / "evil.npy").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        rewrite(folder, lambda row, digest=digest: row["map"].update(file="maps/evil.npy", sha256=digest))
        with pytest.raises(SeewhyError):
            runfolder.read(folder)
        assert not (tmp_path / "ran").exists()


def test_a_map_that_claims_a_terabyte_is_refused(folder):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (500000, 500000), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    add(folder, "a")
    (folder / "maps" / "big.npy").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(folder, lambda row: row["map"].update(file="maps/big.npy", sha256=digest))
    with pytest.raises(SeewhyError):
        runfolder.read(folder)


def test_no_object_is_ever_written_as_a_pickle():
    with pytest.raises(ValueError, match="pickle"):
        runfolder.npy_bytes(np.array([object()], dtype=object))


def test_a_new_folder_is_made_with_its_parents_and_is_an_empty_run(tmp_path):
    folder = runfolder.open_folder(tmp_path / "x" / "y")
    assert runfolder.read_run(folder) == {"schema": runfolder.SCHEMA, "skipped": []}
    assert runfolder.read(folder) == []
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def test_opening_a_run_again_keeps_what_is_in_it(folder):
    runfolder.write_run(folder, {"skipped": ["b.png"], "command": "explain 猫.png"})
    add(folder, "a")
    assert runfolder.open_folder(folder) == folder
    assert ids(folder) == ["a"]
    assert runfolder.read_run(folder)["command"] == "explain 猫.png"


def test_a_folder_with_other_peoples_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        runfolder.open_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="cannot write to"):
            runfolder.open_folder(path)


def test_a_read_only_folder_is_a_usage_error(tmp_path, monkeypatch):
    def refuse(self, content):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        runfolder.open_folder(tmp_path / "run")


def test_a_folder_without_run_json_is_no_run(tmp_path):
    for read in (runfolder.read, runfolder.read_run):
        with pytest.raises(UsageError, match="not a seewhy run folder"):
            read(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "{}", '{"schema": "1"}', "\x00"])
def test_a_damaged_run_json_is_a_usage_error(folder, content):
    (folder / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run\.json"):
        runfolder.read_run(folder)


def test_a_run_json_that_is_no_utf_8_is_a_usage_error(folder):
    (folder / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"run\.json"):
        runfolder.read(folder)


def test_rows_that_are_no_utf_8_are_an_error_of_ours(folder):
    add(folder, "a")
    (folder / "rows.jsonl").write_bytes(b"\xff\xfe\n" + (folder / "rows.jsonl").read_bytes())
    with pytest.raises(SeewhyError):
        runfolder.read(folder)


@pytest.mark.parametrize("use", [runfolder.read, runfolder.read_run, runfolder.open_folder])
def test_a_run_of_a_newer_schema_is_neither_read_nor_added_to(folder, use):
    (folder / "run.json").write_text(json.dumps({"schema": runfolder.SCHEMA + 1}))
    with pytest.raises(UsageError, match=f"schema {runfolder.SCHEMA + 1}"):
        use(folder)


def test_run_json_is_replaced_as_a_whole_or_not_at_all(folder, monkeypatch):
    runfolder.write_run(folder, {"skipped": [], "command": "old"})
    full_disk(monkeypatch)
    with pytest.raises(SeewhyError, match="No space left"):
        runfolder.write_run(folder, {"skipped": [], "command": "new" * 100})
    assert runfolder.read_run(folder)["command"] == "old"
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def full_disk(monkeypatch) -> None:
    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)


def test_a_full_disk_is_an_error_of_ours_and_leaves_no_half_file(folder, monkeypatch):
    add(folder, "a")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(SeewhyError, match="No space left"):
            add(folder, "b", -RAW)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    add(folder, "b", -RAW)
    assert ids(folder) == ["a", "b"]


def test_a_disk_that_fills_up_within_a_line_loses_that_line_only(folder, monkeypatch):
    add(folder, "a")

    def fail(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 20)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(SeewhyError, match="No space left"):
            add(folder, "b")
    assert ids(folder) == ["a"]
    add(folder, "c")
    assert ids(folder) == ["a", "c"]


def test_numbers_that_json_does_not_have_become_null(folder):
    kept = add(folder, "a", gap=float("nan"), high=[float("inf"), 1.5], path=Path("x/y"), key={1: (2, None, True)})
    assert kept["gap"] is None
    assert kept["high"] == [None, 1.5]
    assert kept["path"] == "x/y"
    assert kept["key"] == {"1": [2, None, True]}
    assert runfolder.read(folder)[0][0] == kept


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
    ],
    ids=repr,
)
def test_a_numpy_number_stays_a_number(value, expected):
    kept = runfolder.plain(value)
    assert kept == expected
    assert type(kept) is type(expected) or isinstance(kept, float)


def test_a_folder_that_holds_only_what_an_audit_left_is_taken_and_a_strangers_is_not(tmp_path):
    for name in ("findings.json", "seewhy.toml", "report.pdf", "index.html", "ledger.sqlite", "ledger.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "findings").mkdir()
    runfolder.open_folder(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holiday\.jpg"):
        runfolder.open_folder(tmp_path)

"""Real processes on one ledger: many at once, killed at any moment, on a full disk, without the right to write."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import writers
from tampering import make_ledger, verify_and_sign_as_nobody

from killed import check_chain, check_nothing_is_lost, forkserver, kill_writers
from seewhy.ledger import NAME, open_ledger


@pytest.fixture(scope="module")
def processes():
    return forkserver()


def answer(processes, work, *given):
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=work, args=(*given, there))
    process.start()
    there.close()
    said = here.recv()
    process.join()
    here.close()
    return said


def test_many_processes_make_one_ledger_and_write_it_at_once(processes, tmp_path, database):
    names, n = [f"writer {i}" for i in range(6)], 8
    for attempt in range(2 if database is None else 1):  # opening at the same moment is what can go wrong
        folder, start = tmp_path / f"{attempt}", processes.Barrier(len(names))
        working = [processes.Process(target=writers.write, args=(folder, database, name, n, start)) for name in names]
        for process in working:
            process.start()
        for process in working:
            process.join()
        assert [process.exitcode for process in working] == [0] * len(names)
        with open_ledger(folder) as ledger:
            assert ledger.keys("prediction") == {f"{name} {i}" for name in names for i in range(n)}
            assert ledger.keys("skip") == {f"common {i}" for i in range(n + 1)}
            assert len(ledger.read()) == len(names) * n + n + 1
            check_chain(ledger)
        assert sorted(path.name for path in folder.iterdir()) == [ledger.path.name, "maps"]
        assert len(list((folder / "maps").iterdir())) == n


def test_writers_that_are_killed_lose_no_acknowledged_record(processes, tmp_path, database):
    n = kill_writers(processes, tmp_path / "run", database, tmp_path, 12 if database is None else 4)
    assert n > (30 if database is None else 10)
    with open_ledger(tmp_path / "run", database=database) as ledger:
        check_nothing_is_lost(ledger, tmp_path)


def test_a_full_disk_is_an_error_in_words_and_loses_no_acknowledged_record(processes, tmp_path):
    said, done = answer(processes, writers.write_on_a_full_disk, tmp_path)
    assert "cannot write" in said[0]
    assert "File too large" in said[0]
    assert "ledger.sqlite: the disk refuses" in said[1]
    assert "Every acknowledged record is kept" in said[1]
    with open_ledger(tmp_path) as ledger:
        check_chain(ledger)
        assert len(ledger.read()) == done > 10
        assert ledger.append("prediction", "more", {}).number == done + 1


@pytest.fixture
def folder():
    """One that another user may reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="seewhy-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def test_a_folder_that_cannot_be_written_is_read_and_named(processes, folder, tmp_path):
    with open_ledger(folder) as ledger:
        ledger.append("skip", "a", {"map": ledger.keep(np.eye(2))})
    folder.chmod(0o555)
    keys, array, told, refused = answer(processes, writers.as_nobody, folder, tmp_path / "own")
    assert (keys, array) == (["a"], [[1, 0], [0, 1]])
    assert "opened to be read only" in told
    assert "ledger.sqlite: cannot be written (attempt to write a readonly database)" in refused
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "maps"]


def test_no_ledger_can_be_made_where_nothing_can_be_written(processes, folder, tmp_path):
    folder.chmod(0o555)
    told, refused = answer(processes, writers.as_nobody, folder, tmp_path / "own")
    assert "holds no ledger" in told
    assert "ledger.sqlite: cannot be opened (unable to open database file)" in refused
    assert list(folder.iterdir()) == []


def test_what_a_killed_run_left_in_a_read_only_folder_is_explained(processes, folder, tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.append("skip", "a", {})
        for name in (NAME, f"{NAME}-wal"):
            shutil.copy(tmp_path / name, folder)
    folder.chmod(0o555)
    for said in answer(processes, writers.as_nobody, folder, tmp_path / "own"):
        assert "what a killed run left, copy to one" in said


def test_what_cannot_be_written_is_verified_and_gets_its_checkpoint_elsewhere(processes, folder):
    run, own = folder / "run", folder / "own"
    make_ledger(run, 6)
    own.mkdir()
    own.chmod(0o777)
    run.chmod(0o555)
    plain, refused, signed = answer(processes, verify_and_sign_as_nobody, run, own)
    assert (plain.ok, plain.records, signed.ok) == (True, 6, True)
    assert "cannot write" in refused
    assert signed.checkpoints[0].key_origin == f"given: {own / 'key.pem'}"
    assert sorted(path.name for path in run.iterdir()) == ["images", NAME, "maps"]
    run.chmod(0o755)

import hashlib

import numpy as np
import pytest
from tampering import Tampered, make_ledger

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger import NAME, erase, open_ledger, verify


@pytest.fixture
def names(tmp_path):
    return make_ledger(tmp_path / "run")


@pytest.fixture
def run(names, tmp_path):
    return tmp_path / "run"


def test_an_erased_file_is_gone_its_hash_stays_and_verify_says_who_and_why(run, names):
    picture = names[-1]
    assert picture.startswith("images/")
    record = erase(run, picture, reason="the patient asked", by="Dr. A")
    assert record.content == {"file": picture, "reason": "the patient asked", "by": "Dr. A"}
    assert not (run / picture).exists()
    found = verify(run)
    assert (found.ok, found.files, found.unrecorded) == (True, 6, ())
    (one,) = found.erased
    told = (picture, "the patient asked", "Dr. A", record.time, False)
    assert (one.file, one.reason, one.by, one.time, one.back) == told
    with open_ledger(run) as ledger:
        assert ledger.read("explanation")[0].content["pictures"] == {"before": picture}


def test_a_file_missing_without_an_erasure_stays_a_fault_beside_one_with(run, names):
    erase(run, names[0], reason="asked", by="me")
    (run / names[1]).unlink()
    assert [one.file for one in verify(run).problems] == [names[1]]


def test_an_erased_file_that_came_back_is_said_and_one_with_another_content_is_a_fault(run, names):
    content = (run / names[0]).read_bytes()
    record = erase(run, names[0], reason="asked", by="me")
    with open_ledger(run) as ledger:
        assert ledger.keep(np.full((3, 3), 0, dtype=np.float32)) == names[0]
    found = verify(run)
    assert (found.ok, found.erased[0].back) == (True, True)
    assert hashlib.sha256(content).hexdigest() in names[0]
    assert erase(run, names[0], reason="again", by="me") == record
    assert not verify(run).erased[0].back
    (run / names[0]).write_bytes(b"another")
    assert not verify(run).ok


def test_an_open_ledger_is_erased_from(run, names):
    with open_ledger(run) as ledger:
        erase(ledger, names[0], reason="asked", by="me")
        assert len(ledger.keys("erasure")) == 1
    with open_ledger(run, read_only=True) as ledger, pytest.raises(UsageError, match="read only"):
        erase(ledger, names[1], reason="asked", by="me")
    assert (run / names[1]).exists()


@pytest.mark.parametrize(
    "name", [f"maps/{'0' * 64}.npz", "run.json", "../run/ledger.sqlite", NAME, "", "maps/%", 'say "maps/x"']
)
def test_only_what_a_record_names_is_erased(run, name):
    (run / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"no record of .* names"):
        erase(run, name, reason="asked", by="me")
    assert (run / "run.json").exists()
    assert verify(run).records == 6


@pytest.mark.parametrize("given", [{"reason": " "}, {"by": ""}, {"by": None}])
def test_an_erasure_says_who_and_why(run, names, given):
    with pytest.raises(UsageError, match="is a text that is not empty"):
        erase(run, names[0], **{"reason": "asked", "by": "me", **given})
    assert (run / names[0]).exists()


def test_a_folder_without_a_ledger_gets_none(tmp_path):
    with pytest.raises(UsageError, match="holds no ledger"):
        erase(tmp_path / "new", "maps/x", reason="asked", by="me")
    assert not (tmp_path / "new").exists()


def test_a_file_that_cannot_be_removed_is_an_error_and_erased_the_next_time(run, names):
    (run / names[0]).unlink()
    (run / names[0]).mkdir()
    with pytest.raises(SeewhyError, match=r"cannot be removed .*The erasure is recorded: erase it again"):
        erase(run, names[0], reason="asked", by="me")
    (run / names[0]).rmdir()
    erase(run, names[0], reason="asked", by="me")
    assert verify(run).ok


@pytest.mark.parametrize("content", ['{"by":"me","file":"%s","reason":"asked"}', "{%s", "[]"])
def test_an_erasure_that_was_itself_changed_excuses_no_missing_file(run, names, tmp_path, content):
    erase(run, names[0], reason="asked", by="me")
    (run / names[1]).unlink()
    tampered = Tampered(run, tmp_path / "tampered")
    tampered.set_field(7, "content", content.replace("%s", names[1]).encode())
    found = verify(tampered.folder)
    assert [(one.number, one.file) for one in found.problems] == [(2, names[0]), (3, names[1]), (7, None)]
    assert found.erased == ()

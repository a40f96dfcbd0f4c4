import json
import shutil

import pytest
from tampering import Tampered, make_ledger

from seewhy.ledger import NAME, open_ledger


@pytest.fixture(autouse=True)
def _no_keys_of_the_users_own(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("SEEWHY_LEDGER_KEY", raising=False)


@pytest.fixture
def names(tmp_path):
    return make_ledger(tmp_path / "run")


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_show_lists_records_for_people_and_for_programs(seewhy, names):
    code, out, _ = seewhy("ledger", "show", "run")
    rows = out.splitlines()
    assert (code, len(rows)) == (0, 7)
    assert rows[0].split() == ["number", "time", "kind", "key", "image", "method", "hash"]
    assert "explanation  e4" in rows[6]
    assert "café 4.png" in rows[6]
    code, out, _ = seewhy(
        "ledger", "show", "run", "--json", "--kind", "explanation", "--method", "grad_cam", "--limit", 2
    )
    assert [(one["number"], one["key"]) for one in lines(out)] == [(5, "e3"), (6, "e4")]
    assert lines(seewhy("ledger", "show", "run", "--json", "--image", "café 1.png")[1])[0]["number"] == 3
    assert lines(seewhy("ledger", "show", "run", "--json", "--model", "m")[1])[0]["kind"] == "run"
    assert lines(seewhy("ledger", "show", "run", "--json", "--limit", "99")[1]) == lines(
        seewhy("ledger", "show", "run", "--json")[1]
    )


def test_show_of_many_records_gives_the_newest_and_says_so(seewhy, tmp_path):
    with open_ledger(tmp_path / "many") as ledger:
        ledger.append_all(
            "skip", [(f"{i} {'x' * 60}", {"path": f"{i}.png", "reason": "[red]"}) for i in range(1, 1101)]
        )
        ledger.append("cost", "[bold]", {})
    code, out, err = seewhy("ledger", "show", "many")
    rows = out.splitlines()
    assert (code, len(rows)) == (0, 51)
    assert rows[1].startswith("1052 ")
    assert "[bold]" in rows[-1]
    assert "…" in rows[1]
    assert "the newest 50; --limit N shows more" in err
    assert len(seewhy("ledger", "show", "many", "--limit", 60, "--kind", "skip")[1].splitlines()) == 61
    assert len(lines(seewhy("ledger", "show", "many", "--json")[1])) == 1101


def test_show_gives_one_record_whole_by_number_or_key(seewhy, names):
    by_number, by_key = (json.loads(seewhy("ledger", "show", "run", one)[1]) for one in ("2", "e0"))
    assert by_number == by_key
    assert by_key["content"]["map"]["file"] == names[0]
    assert json.loads(seewhy("ledger", "show", "run", "e0", "--json")[1]) == by_key
    for given in (["7"], ["none"], ["e0", "--kind", "skip"]):
        code, out, err = seewhy("ledger", "show", "run", *given)
        assert (code, out) == (2, "")
        assert f"holds no record of number or key '{given[0]}'" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["show", "nowhere"], "holds no ledger"),
        (["verify", "nowhere"], "holds no ledger"),
        (["erase", "nowhere", "maps/x", "--reason", "a", "--by", "b"], "holds no ledger"),
        (["show", "run", "--kind", "explanations"], "did you mean 'explanation'"),
        (["show", "run", "--limit", "0"], "--limit is a whole number of at least 1; got 0"),
        (["sign", "run"], "there is no private key"),
        (["verify", "run", "--key", "none.pub"], "the key none.pub cannot be read"),
        (["verify", "run", "--checkpoint", "none.json"], "there is no checkpoint file none.json"),
        (["erase", "run", "maps/x", "--reason", "a", "--by", "b"], "names 'maps/x'"),
    ],
)
def test_what_cannot_be_done_is_wrong_usage(seewhy, names, given, said):
    code, out, err = seewhy("ledger", *given)
    assert (code, out) == (2, "")
    assert said in err


def test_verify_says_what_it_checked_and_whom_it_trusted(seewhy, names, tmp_path):
    code, out, _ = seewhy("ledger", "verify", "run")
    assert code == 0
    assert "ok: 6 records and 6 files are as they were written" in out
    assert "no signed checkpoint" in out
    key = json.loads(seewhy("ledger", "key", "--out", "key.pem", "--json")[1])
    made = json.loads(seewhy("ledger", "sign", "run", "--key", "key.pem", "--copy-to", ".", "--json")[1])
    assert (made["number"], made["public_key"]) == (6, key["public_key"])
    code, out, _ = seewhy("ledger", "verify", "run")
    assert (code, "which proves nothing about who signed" in out) == (0, True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with open_ledger(tmp_path / "run") as ledger:
        ledger.append("skip", "late", {})
    code, out, _ = seewhy("ledger", "verify", "run", "--key", "key.pem.pub", "--checkpoint", "run-6.json")
    assert code == 0
    assert "signed: run-6.json holds" in out
    assert "for records 1 to 6; 1 are newer" in out
    assert f"public key {key['public_key']}, trusted (given: key.pem.pub)" in out


def test_verify_of_what_was_changed_ends_with_1_and_names_the_first(seewhy, names, tmp_path):
    (tmp_path / "run" / names[2]).unlink()
    tampered = Tampered(tmp_path / "run", tmp_path / "changed")
    tampered.set_field(3, "key", b"other")
    code, out, _ = seewhy("ledger", "verify", "changed")
    rows = out.splitlines()
    assert (code, rows[0]) == (1, "NOT OK: 2 problem(s) in 6 records and 6 files. The first:")
    assert rows[1].startswith("  record 3: it was changed after it was written")
    assert rows[2] == f"  record 4, {names[2]}: it is missing."
    code, out, _ = seewhy("ledger", "verify", "changed", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["problems"][1]["file"]) == (1, False, names[2])


def test_erase_is_said_by_verify(seewhy, names, tmp_path):
    given = ["--reason", "the patient asked", "--by", "Dr. A"]
    code, out, err = seewhy("ledger", "erase", "run", names[0], names[-1], *given)
    assert (code, out.splitlines()[0]) == (0, f"erased: {names[0]} (record 7)")
    assert "still show what they showed" in err
    (tmp_path / "run" / "maps" / "mine.npz").write_bytes(b"")
    code, out, _ = seewhy("ledger", "verify", "run")
    assert code == 0
    assert f"erased on request: {names[-1]}, on 2" in out
    assert "by Dr. A: the patient asked\n" in out
    assert "6 files (2 of them erased on request)" in out
    assert "not recorded: 1 file(s)" in out
    (tmp_path / "run" / names[0]).write_bytes(b"")
    code, out, _ = seewhy("ledger", "verify", "run")
    assert (code, "the patient asked (it is there all the same: erase it again)" in out) == (1, True)
    assert len(json.loads(seewhy("ledger", "erase", "run", names[0], *given, "--json")[1])) == 1


def test_a_file_that_is_no_ledger_is_named(seewhy, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).write_bytes(b"no database " * 100)
    code, out, err = seewhy("ledger", "verify", "run")
    assert (code, out) == (2, "")
    assert "is damaged, or no ledger" in err

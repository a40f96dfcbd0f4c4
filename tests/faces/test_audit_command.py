"""seewhy audit as a user calls it; the audit itself is a stand-in that returns a report made by hand."""

import datetime
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import pytest
from fabricated import accept, finding, report, row

import seewhy as sw
from nets import MEAN, STD, tiny_cnn
from seewhy.audit.gate import judge
from seewhy.audit.policy import read_policy
from seewhy.data.dataset import DataSet, Sample
from seewhy.errors import UsageError

TODAY = datetime.datetime.now(datetime.UTC).date()
A, B = "a" * 16, "b" * 16
ROOM = importlib.import_module("seewhy.audit")  # before a stand-in takes its name in the package
OPTIONS = importlib.import_module("seewhy.faces.cli.options")  # in its package, `options` is the app's callback


@pytest.fixture
def audited(seewhy, tmp_path, monkeypatch):
    """Runs `seewhy audit` on a stand-in of the audit: (exit code, stdout, stderr); keeps what it was asked."""
    asked = SimpleNamespace(data=None, audit=None, forecast=None, found=report(), rows=(0, 0), broken=None)
    network = sw.wrap(tiny_cnn(), mean=MEAN, std=STD, size=32)

    def audit(model, dataset, out, policy, **settings):
        asked.audit = {"out": out, "policy": policy, **settings}
        settings["progress"]("explaining", 1, 2)
        if asked.broken is not None:
            raise asked.broken
        against = settings["against"] and json.loads((settings["against"] / "findings.json").read_text())
        found = judge(asked.found, read_policy(policy), against, TODAY)
        return SimpleNamespace(page=out / "index.html", to_dict=lambda: found)

    def read_dataset(source, **columns):
        asked.data = {"source": str(source), **columns}
        return DataSet((Sample("a.png", 0, Path("a.png")),) * 960, "class", None)

    def forecast_audit(model, dataset, methods, **given):
        asked.forecast = {"methods": methods, **given}
        return asked.rows

    (tmp_path / "data").mkdir()
    room = ModuleType("seewhy.data.dataset")
    room.read_dataset = read_dataset
    monkeypatch.setitem(sys.modules, "seewhy.data.dataset", room)
    monkeypatch.setattr(ROOM, "forecast_audit", forecast_audit, raising=False)
    monkeypatch.setattr(sw, "audit", audit, raising=False)
    monkeypatch.setattr(OPTIONS, "load_model", lambda *given, **more: network)

    def run(*arguments):
        return seewhy("audit", "data", *arguments)

    run.asked = asked
    return run


def test_a_pass_ends_with_0_and_says_what_would_have_shown(audited):
    code, out, err = audited()
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "pass"
    assert lines[1].startswith("Pass: nothing blocks in 960 images")
    assert lines[2].startswith("The smallest effects")
    assert lines[-1] == "seewhy-audit/index.html"
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["torn.jpg", "empty.jpg"]


def test_a_finding_blocks_with_1_and_has_a_line_of_its_own(audited):
    audited.asked.found = report([finding(), finding(B, status="refuted")])
    code, out, _ = audited()
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "blocked"
    assert lines[4].startswith(f"{A}  local_pattern  confirmed, blocks: The local_pattern")
    assert lines[5].startswith(f"{B}  local_pattern  refuted: ")


@pytest.mark.parametrize(
    ("found", "given", "code"),
    [
        (report(n_skipped=10), (), 3),  # 10 of 970
        (report(n_skipped=9), (), 0),
        (report(n_skipped=10), ("--max-skipped", "2%"), 0),
        (report(n_skipped=10), ("--max-skipped", "10"), 0),
        (report(n_skipped=10), ("--max-skipped", "9"), 3),
        (report([finding()], n_skipped=10), (), 1),  # 1 beats 3
        (report(n_skipped=0), ("--max-skipped", "0"), 0),
        (report(n_images=0, detectable_effect={}), (), 1),  # inconclusive: the gate is not passed
        (report([finding()], interrupted="after 3 images"), (), 130),
    ],
)
def test_exit_codes(audited, found, given, code):
    audited.asked.found = found
    assert audited(*given)[0] == code


@pytest.mark.parametrize("text", ["-1", "1.5", "few", "101%", "-1%", "nan%", "1%%", "1% of all", ""])
def test_a_limit_of_skipped_images_that_cannot_be_meant(audited, text):
    code, out, err = audited("--max-skipped", text)
    assert (code, out) == (2, "")
    assert "--max-skipped is a number of images, or a share" in err
    assert audited.asked.data is None


def test_everything_that_is_asked_reaches_the_data_set_and_the_audit(audited, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "findings.json").write_text(json.dumps(report([finding()])))
    (tmp_path / "own.toml").write_text("")
    audited.asked.found = report([finding()])
    columns = (
        "--label",
        "score",
        "--path",
        "file",
        "--group",
        "patient",
        "--metadata",
        "site",
        "--metadata",
        "scanner",
    )
    files = ("--root", "photos", "--split", "test", "--policy", "own.toml", "--against", "old", "--out", "run")
    counts = ("--explained", "200", "--per-class", "10", "--seed", "3", "--method", "gradient", "--method", "rise")
    code, out, _ = audited(*columns, *files, *counts, "--anyway", "--no-pictures", "--kind", "score")
    assert code == 0
    assert "confirmed, known" in out
    asked = {name: str(value) if name == "root" else value for name, value in audited.asked.data.items()}
    assert asked == {
        "source": "data",
        "label": "score",
        "path": "file",
        "group": "patient",
        "metadata": ["site", "scanner"],
        "kind": "score",
        "root": "photos",
        "split": "test",
    }
    given = {
        name: str(v) if hasattr(v, "parts") else v for name, v in audited.asked.audit.items() if name != "progress"
    }
    assert given == {
        "methods": ("gradient", "rise"),
        "boxes": None,
        "seed": 3,
        "explained": 200,
        "per_class": 10,
        "policy": "own.toml",
        "against": "old",
        "anyway": True,
        "pictures": False,
        "out": "run",
    }
    assert audited.asked.forecast == {"methods": ("gradient", "rise"), "explained": 200, "per_class": 10}


def test_without_options_the_defaults_of_the_contract_are_asked(audited):
    audited()
    given = audited.asked.audit
    assert given["methods"] == ("grad_cam", "occlusion")
    assert (given["explained"], given["per_class"], given["pictures"], given["anyway"]) == (1000, 40, True, False)
    assert given["policy"] is given["against"] is None
    assert str(given["out"]) == "seewhy-audit"
    assert audited.asked.data["metadata"] is None


def test_an_acceptance_and_what_is_gone_are_in_the_lines(audited, tmp_path):
    (tmp_path / "own.toml").write_text(accept(until="2999-01-31"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "findings.json").write_text(json.dumps(report([finding(B)])))
    audited.asked.found = report([finding()])
    code, out, _ = audited("--policy", "own.toml", "--against", "old")
    assert code == 0
    assert f"{A}  local_pattern  confirmed, accepted by A. Person until 2999-01-31, new: " in out
    assert f"{B}  local_pattern  gone: " in out


def test_json_is_the_report_and_nothing_else(audited):
    audited.asked.found = report([finding()])
    code, out, _ = audited("--json")
    assert code == 1
    found = json.loads(out)
    assert found["verdict"] == "blocked"
    assert found["findings"][0]["blocks"] is True


def test_junit_is_written_for_a_pass_and_for_a_block(audited, tmp_path):
    audited.asked.found = report([finding()], [row()])
    assert audited("--junit", "gate.xml")[0] == 1
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().get("failures") == "2"
    audited.asked.found = report()
    assert audited("--junit", "gate.xml")[0] == 0
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().get("failures") == "0"


def test_a_dry_run_says_rows_and_minutes_and_audits_nothing(audited):
    audited.asked.rows = (49_000, 1_000)
    code, out, _ = audited("--dry-run")
    assert code == 0
    assert out.startswith("960 images: at most 49000 forward and 1000 gradient rows, about")
    assert "where 12 patterns are tried; each further trial adds 616 forward rows at most" in out
    found = json.loads(audited("--dry-run", "--json")[1])
    assert (found["images"], found["forward_rows"], found["gradient_rows"]) == (960, 49_000, 1_000)
    assert audited.asked.audit is None


def test_ctrl_c_before_the_audit_begins_is_said_too(audited, monkeypatch):
    def interrupted(*_given, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(OPTIONS, "load_model", interrupted)
    code, out, err = audited()
    assert (code, out) == (130, "")
    assert err.count("interrupted") == 1


def test_ctrl_c_says_how_to_go_on(audited):
    audited.asked.broken = KeyboardInterrupt()
    code, out, err = audited("--out", "run")
    assert (code, out) == (130, "")
    assert "kept in run; the same command goes on" in err
    assert err.count("interrupted") == 1


def test_what_ctrl_c_left_is_shown_where_the_audit_returns_it(audited, tmp_path):
    audited.asked.found = report([finding()], interrupted="interrupted after 3 of 960 images")
    code, out, _ = audited("--junit", "gate.xml")
    assert code == 130
    assert out.splitlines()[:2] == ["incomplete", "Incomplete: interrupted after 3 of 960 images. This is no verdict."]
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().get("errors") == "1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "grad_cm"), "did you mean 'grad_cam'"),
        (("--policy", "none.toml"), "no such policy file"),
        (("--policy", "bad.toml"), "did you mean 'findings'"),
        (("--policy", "late.toml"), "ended on 2020-01-31"),
        (("--against", "nowhere"), "no finished audit"),
        (("--junit", "nowhere/gate.xml"), "in a folder that exists"),
        (("--junit", "."), "names a file"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_any_work(audited, tmp_path, arguments, said):
    (tmp_path / "bad.toml").write_text("[finding]")
    (tmp_path / "late.toml").write_text(accept(until="2020-01-31"))
    code, out, err = audited(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert audited.asked.data is None


def test_data_that_is_not_there_says_what_an_audit_reads(seewhy, tmp_path):
    (tmp_path / "photos").mkdir()
    code, out, err = seewhy("audit", "photo")
    assert (code, out) == (2, "")
    assert "photo: no such folder or table" in err
    assert "did you mean 'photos'" in err.lower().replace("\n", " ")


def test_an_error_of_the_audit_is_one_line(audited):
    audited.asked.broken = UsageError("nothing fits.")
    assert audited()[0] == 2
    audited.asked.broken = RuntimeError("a fault")
    assert audited()[0] == 4

"""What `seewhy explain`, `check` and `ledger replay` write into and make of the ledger of a run folder."""

import json

import pytest
import typer
from typer.testing import CliRunner
from zoo import TINY, cat

import seewhy as sw
from seewhy.errors import RefusalError
from seewhy.faces.cli.replay import replay_command
from seewhy.ledger import open_ledger

app = typer.Typer()
app.command()(replay_command)


def replayed(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def records(folder, kind="explanation"):
    with open_ledger(folder, read_only=True) as ledger:
        return ledger.read(kind)


def test_an_explanation_leaves_a_record_from_which_it_is_computed_again(seewhy, tmp_path):
    code, _, err = seewhy("explain", "cat.png", *TINY, "--out", "run", "--model-version", "2026-11")
    assert code == 0, err
    (record,) = records(tmp_path / "run")
    said = record.content
    assert (said["image"], said["model_version"], said["checks"]) == ("cat.png", "2026-11", [])
    assert said["network"]["loaded"] == {"specification": TINY[1], "weights": "random", "precision": "float32"}
    assert said["network"]["size"]
    done = replayed("run", record.number)
    assert done.exit_code == 0, done.output
    assert "bit-equal" in done.stdout
    done = replayed("run", record.key[:10], "--json")
    assert json.loads(done.stdout)["verdict"] == "bit-equal"


def test_a_row_and_its_record_name_one_file_of_the_map(seewhy, tmp_path):
    code, out, _ = seewhy("explain", "cat.png", *TINY, "--out", "run", "--json")
    assert code == 0
    (row,), (record,) = json.loads(out)["rows"], records(tmp_path / "run")
    assert record.content["map"]["file"] == row["map"]["file"]
    assert record.content["shown"] == {"picture": row["image"]["file"], "array": row["image"]["array"]}
    assert len([*(tmp_path / "run" / "maps").iterdir()]) == 1
    with open_ledger(tmp_path / "run", read_only=True) as ledger:
        kept = ledger.array(row["map"]["file"])
        ledger.file(record.content["shown"]["picture"])
    assert (kept == sw.read_explanation(tmp_path / "run").raw[0].numpy()).all()


def test_the_same_command_again_adds_no_record_and_another_version_of_the_model_one(seewhy, tmp_path):
    for more, count in (((), 1), ((), 1), (("--model-version", "v2"), 2), (("--seed", "1"), 3)):
        assert seewhy("explain", "cat.png", *TINY, *more, "--out", "run")[0] == 0
        assert len(records(tmp_path / "run")) == count


def test_paths_are_relative_to_the_data_root_or_to_the_folder_that_holds_them_all(seewhy, tmp_path):
    for name in ("a/one.png", "b/two.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        cat().rotate(90 * (name[0] == "b")).save(tmp_path / "data" / name)
    assert seewhy("explain", tmp_path / "data", *TINY, "--out", "run")[0] == 0
    assert [r.content["image"] for r in records(tmp_path / "run")] == ["a/one.png", "b/two.png"]
    assert str(tmp_path) not in json.dumps([r.content for r in records(tmp_path / "run")])
    assert seewhy("explain", tmp_path / "data", *TINY, "--out", "other", "--root", tmp_path)[0] == 0
    assert [r.content["image"] for r in records(tmp_path / "other")] == ["data/a/one.png", "data/b/two.png"]
    code, _, err = seewhy("explain", tmp_path / "data", *TINY, "--out", "none", "--root", tmp_path / "data" / "a")
    assert (code, "does not lie in the data root" in err, (tmp_path / "none").exists()) == (2, True, False)
    assert replayed("run", 2, "--root", tmp_path / "data").exit_code == 0
    assert replayed("run", 2, "--image", tmp_path / "data" / "b" / "two.png").exit_code == 0
    done = replayed("run", 2, "--image", tmp_path / "data" / "a" / "one.png")
    assert done.exit_code == 1
    assert "changed: image file" in done.stdout


def test_weights_that_have_moved_or_are_others(seewhy, tmp_path):
    import torch

    network = sw.load("timm:test_resnet", weights="random").module
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    assert seewhy("explain", "cat.png", "--model", TINY[1], "--weights", "mine.pth", "--out", "run")[0] == 0
    (tmp_path / "mine.pth").rename(tmp_path / "moved.pth")
    done = replayed("run", 1)
    assert isinstance(done.exception, RefusalError)
    assert "its model cannot be loaded" in str(done.exception)
    assert "mine.pth" in str(done.exception)
    assert replayed("run", 1, "--weights", "moved.pth").exit_code == 0
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-3
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    done = replayed("run", 1)
    assert done.exit_code == 1
    assert "something else was asked: model" in done.stdout


def test_a_picture_as_baseline_is_given_again(seewhy, tmp_path):
    assert seewhy("mean-image", "cat.png", *TINY, "--out", "mean.npy")[0] == 0
    given = ("--method", "integrated_gradients", "--param", "rule=midpoint", "--param", "steps=4")
    assert seewhy("explain", "cat.png", *TINY, *given, "--param", "baseline=mean.npy", "--out", "run")[0] == 0
    done = replayed("run", 1)
    assert "only the hash of the parameter baseline" in str(done.exception)
    assert replayed("run", 1, "--param", "baseline=mean.npy").exit_code == 0


def test_a_check_leaves_a_record_a_row_and_the_maps_name_them(seewhy, tmp_path):
    few = ("--only", "completeness", "--only", "documentation")
    asked = ("check", "cat.png", *TINY, "--method", "gradient", *few, "--out", "run")
    for _ in range(2):
        assert seewhy(*asked)[0] == 0
    checks, (explained,) = records(tmp_path / "run", "check"), records(tmp_path / "run")
    assert [record.key for record in checks] == explained.content["checks"]
    assert {record.content["check"] for record in checks} == {"completeness", "documentation"}
    with open_ledger(tmp_path / "run", read_only=True) as ledger:
        assert len(ledger.read("check", method="gradient", model=explained.content["model_sha256"])) == 2


def test_a_card_that_is_saved_afterwards_leaves_the_same_records(tmp_path):
    model = sw.load(TINY[1], weights="random")
    card = sw.check(model, cat(), "gradient", only="completeness")
    with pytest.raises(sw.UsageError, match="has no files yet"):
        card.files()
    card.save(tmp_path / "run")
    (record,) = records(tmp_path / "run", "check")
    assert [record.key] == list(card.rows)
    assert {path.name for path in card.files()} >= {"run.json", "rows.jsonl", "checks.jsonl", "ledger.sqlite"}


def test_an_explanation_says_what_it_is_and_where_it_lies(tmp_path):
    e = sw.explain(sw.load(TINY[1], weights="random"), cat())
    told = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert (told["method"], told["rows"][0]["status"]) == ("grad_cam", "ok")
    with pytest.raises(sw.UsageError, match=r"has no files yet: save it first, e.save\(folder\)"):
        e.files()
    e.save(tmp_path / "run")
    found = {path.relative_to(tmp_path / "run").parts[0] for path in e.files()}
    assert found == {"run.json", "rows.jsonl", "ledger.sqlite", "maps", "images", "pictures"}
    assert all(path.is_file() for path in e.files())


def test_under_a_modality_no_baseline_is_black_unless_that_is_asked_for(seewhy, tmp_path):
    few = ("--method", "integrated_gradients", "--param", "rule=right", "--param", "steps=4", "--out")
    for folder, more in (
        ("photo", ()),
        ("scan", ("--modality", "CT")),
        ("asked", ("--modality", "CT", "--param", "baseline=black")),
    ):
        assert seewhy("explain", "cat.png", *TINY, *few, folder, *more)[0] == 0
    said = {name: records(tmp_path / name)[0].content for name in ("photo", "scan", "asked")}
    assert {name: (one["modality"], one["parameters"]["baseline"]) for name, one in said.items()} == {
        "photo": (None, "black"),
        "scan": ("CT", "blur"),
        "asked": ("CT", "black"),
    }
    assert said["scan"]["evidence"]["baseline_reason"].startswith("CT: black is a value like any other there")
    assert replayed("scan", "1").exit_code == 0


def test_an_erased_image_takes_what_was_drawn_over_it_along_and_the_page_is_made_without(seewhy, tmp_path):
    assert seewhy("explain", "cat.png", *TINY, "--method", "gradient", "--method", "grad_cam", "--out", "run")[0] == 0
    run = tmp_path / "run"
    shown = records(run)[0].content["shown"]["picture"]
    assert len([*(run / "pictures").iterdir()]) == 2
    assert seewhy("ledger", "erase", "run", shown, "--reason", "asked to", "--by", "A. Engineer")[0] == 0
    assert not [*(run / "images").iterdir(), *(run / "pictures").iterdir()]
    assert seewhy("report", "run")[0] == 0
    assert "data:image/jpeg" not in (run / "index.html").read_text()
    assert seewhy("ledger", "verify", "run")[0] == 0

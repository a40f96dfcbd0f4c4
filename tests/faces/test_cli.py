import ctypes
import json
import os
import subprocess
import sys

import pytest
import torch
from zoo import TINY, bomb, broken, cat, good

from seewhy.faces.cli import explain as command


def test_explain_writes_a_run_folder_and_prints_the_page(seewhy, tmp_path):
    code, out, err = seewhy("explain", "cat.png", *TINY, "--out", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "run" / "index.html")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "index.html",
        "run.json",
        "rows.jsonl",
        "ledger.sqlite",
        "maps",
        "images",
        "pictures",
    }


def test_every_kind_of_image_is_explained_and_what_was_done_to_it_is_said(seewhy, tmp_path):
    (tmp_path / "zoo").mkdir()
    kinds = good(tmp_path / "zoo")
    code, out, err = seewhy("explain", "zoo", *TINY, "--json", "--out", "run")
    assert (code, err) == (0, "")
    rows = {row["image"]["name"].split("zoo/")[1]: row for row in json.loads(out)["rows"]}
    assert rows.keys() == kinds.keys()
    for name, said in kinds.items():
        assert said is None or any(said in note for note in rows[name]["image"]["notes"]), name
    page = (tmp_path / "run" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_broken_images_are_listed_while_the_others_finish(seewhy, tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "nothing").mkdir()
    reasons = broken(tmp_path / "zoo")
    code, out, err = seewhy("explain", "zoo", "cat.png", "missing.png", "nothing", *TINY, "--json", "--out", "run")
    assert code == 3
    result = json.loads(out)
    assert [row["image"]["name"] for row in result["rows"]] == ["cat.png"]
    skipped = {item["path"].split("/")[-1]: item["reason"] for item in result["skipped"]}
    for name, said in {**reasons, "missing.png": "no such file", "nothing": "without an image"}.items():
        assert said in skipped[name]
        assert skipped[name] in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"] == result["skipped"]
    assert "Skipped: 6" in (tmp_path / "run" / "index.html").read_text()
    assert seewhy("explain", "zoo", "cat.png", *TINY, "--max-skipped", "4", "--out", "again")[0] == 0


def test_nothing_but_broken_images_is_unusable_input(seewhy, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    code, _, err = seewhy("explain", "bomb.png", *TINY)
    assert code == 2
    assert "pixels" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "grad_cm"), "did you mean 'grad_cam'"),
        (("--model", "lite1"), "did you mean 'lite0'?"),
        (("--model", "timm:resnet17"), "resnet18"),
        (("--model", "timm:test_resnet"), "weights"),
        ((*TINY, "--param", "layr=1"), "did you mean 'layer'?"),
        ((*TINY, "--method", "smooth_grad", "--param", "sample=3"), "did you mean 'samples'?"),
        ((*TINY, "--method", "smooth_grad", "--param", "samples"), "name=value"),
        ((*TINY, "--layer", "layer5"), "did you mean 'layer4'"),
        ((*TINY, "--layer", "fc"), "not spatial"),
        ((*TINY, "--method", "gradient", "--layer", "layer4"), "takes no layer"),
        ((*TINY, "--target", "1000"), "0 to 999"),
        ((*TINY, "--target", "tabbby"), "did you mean 'tabby'"),
        ((*TINY, "--target", "cardigan"), "ambiguous"),
        ((*TINY, "--labels", "none.txt"), "labels file"),
        ((*TINY, "--device", "gpu"), "unknown device"),
        ((*TINY, "--device", "cuda:99"), "cannot be used"),
        ((*TINY, "--precision", "fp16"), "float16"),
        ((*TINY, "--batch-size", "0"), "at least 1"),
        ((*TINY, "--seed", "-1"), "seed"),
        ((*TINY, "--out", "cat.png"), "cannot write to cat.png"),
        (("--model", "timm:test_resnet", "--weights", "cat.png"), "not a weights file"),
        (("--model", "timm:test_resnet", "--weights", "nowhere.pth"), "no such weights file"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_any_work(seewhy, tmp_path, arguments, said):
    code, out, err = seewhy("explain", "cat.png", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "seewhy-run").exists()


def test_an_output_folder_with_other_files_is_left_alone(seewhy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    code, _, err = seewhy("explain", "cat.png", *TINY, "--out", "mine")
    assert code == 2
    assert "thesis.txt" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_second_run_adds_methods_and_doubles_nothing(seewhy, tmp_path):
    seewhy("explain", "cat.png", *TINY, "--out", "run", "--method", "gradient", "--seed", "0")
    (tmp_path / "weights").mkdir()
    seewhy("explain", "cat.png", *TINY, "--out", "run", "--method", "edge_map")
    page = (tmp_path / "run" / "index.html").read_text()
    assert page.count("<figure") == 2
    assert page.count('<section class="sw-section"') == 1


def test_an_interrupted_run_keeps_its_rows_and_its_page(seewhy, tmp_path, monkeypatch):
    for i in range(3):
        cat().save(tmp_path / f"{i}.png")
    monkeypatch.setattr(command, "GROUP", 1)
    once = command.Work.explain

    def interrupted(self, paths):
        if self.records:
            raise KeyboardInterrupt
        return once(self, paths)

    monkeypatch.setattr(command.Work, "explain", interrupted)
    code, out, err = seewhy("explain", "0.png", "1.png", "2.png", *TINY, "--out", "run")
    assert (code, out) == (130, "")
    assert "1 rows are kept in run" in err
    assert (tmp_path / "run" / "index.html").read_text().count("<figure") == 1


def test_a_full_disk_is_one_line_and_what_was_written_is_kept(seewhy, tmp_path, monkeypatch):
    from seewhy import runfolder

    cat().rotate(180).save(tmp_path / "dog.png")
    monkeypatch.setattr(command, "GROUP", 1)
    append = runfolder._append_line

    def full(path, line):
        if path.exists() and path.stat().st_size:
            raise OSError(28, "No space left on device")
        append(path, line)

    monkeypatch.setattr(runfolder, "_append_line", full)
    code, _, err = seewhy("explain", "cat.png", "dog.png", *TINY, "--out", "run")
    assert code == 2
    assert "No space left on device" in err
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 1


def test_a_fault_of_ours_is_one_line_and_a_file_with_the_traceback(seewhy, monkeypatch):
    def boom(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(command, "find", boom)
    code, out, err = seewhy("explain", "cat.png", *TINY)
    assert (code, out) == (4, "")
    assert "RuntimeError: unforeseen" in err
    with open(err.split()[-1]) as file:
        assert "boom" in file.read()


def test_dry_run_says_rows_and_minutes_and_writes_nothing(seewhy, tmp_path):
    method = ("--method", "smooth_grad", "--param", "samples=30")
    code, out, _ = seewhy("explain", "cat.png", *TINY, *method, "--dry-run", "--out", "run")
    assert code == 0
    assert "at most 1 forward and 30 gradient rows" in out
    code, out, _ = seewhy("explain", "cat.png", *TINY, *method, "--dry-run", "--json", "--out", "run")
    assert json.loads(out)["gradient_rows"] == 30
    assert not (tmp_path / "run").exists()


def test_parameters_reach_the_method_and_the_record(seewhy):
    ig = (
        "--method",
        "integrated_gradients",
        "--param",
        "rule=midpoint",
        "--param",
        "steps=4",
        "--param",
        "baseline=white",
    )
    _, out, _ = seewhy("explain", "cat.png", *TINY, *ig, "--json")
    (row,) = json.loads(out)["rows"]
    assert {k: row["parameters"][k] for k in ("rule", "steps", "baseline")} == {
        "rule": "midpoint",
        "steps": 4,
        "baseline": "white",
    }
    assert row["evidence"]["gradient_rows"] == 4


def test_own_labels_and_weights_are_taken(seewhy, tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=3)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    mine = ("--model", "timm:test_resnet", "--weights", "mine.pth", "--labels", "names.txt")
    code, out, _ = seewhy("explain", "cat.png", *mine, "--target", "owl - cat", "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["target"]["text"] == "logit of 2 owl minus 0 cat"


def test_layers_lists_the_trunk_and_marks_the_default(seewhy):
    code, out, err = seewhy("layers", *TINY)
    assert code == 0
    assert any(line.startswith("* layer4") for line in out.splitlines())
    assert "layers shown" in err
    _, out, _ = seewhy("layers", *TINY, "--json")
    found = json.loads(out)
    assert found["default"] == "layer4"
    assert {"name", "kind", "grid", "trunk", "gradient", "usable", "why_not"} <= found["layers"][0].keys()


def test_methods_lists_what_each_declares(seewhy):
    _, out, _ = seewhy("methods")
    _, as_json, _ = seewhy("methods", "--json")
    assert [m["name"] for m in json.loads(as_json)] == [m.split()[0] for m in out.splitlines()[1:] if m[0] != " "]


def test_report_renders_again_from_the_folder_alone(seewhy, tmp_path):
    seewhy("explain", "cat.png", *TINY, "--out", "run")
    page = tmp_path / "run" / "index.html"
    before = page.read_text()
    page.unlink()
    (tmp_path / "cat.png").unlink()
    assert seewhy("report", "run")[0] == 0
    assert page.read_text() == before


@pytest.mark.parametrize(("path", "said"), [("nowhere", "not a seewhy run"), (".", "not a seewhy run")])
def test_report_of_a_folder_that_is_no_run(seewhy, path, said):
    code, _, err = seewhy("report", path)
    assert code == 2
    assert said in err


def test_report_notices_a_changed_map(seewhy, tmp_path):
    seewhy("explain", "cat.png", *TINY, "--out", "run")
    (path,) = (tmp_path / "run" / "maps").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, _, err = seewhy("report", "run")
    assert code == 2
    assert "changed after it was written" in err


HEAVY = {"torch", "numpy", "scipy", "PIL", "jinja2", "sqlalchemy", "torchvision", "timm"}


def loaded_by(*arguments, **environment):
    """What a fresh process prints for a command line, and the modules that it has loaded in the end."""
    script = (
        f"import sys; sys.argv = {['seewhy', *arguments]!r}\n"
        "from seewhy.faces.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    own = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--help",), "explain"),
        (("--version",), "seewhy"),
        (("explain", "--help"), "--method"),
        (("audit", "--help"), "--policy"),
        (("ledger", "verify", "--help"), "--help"),
    ],
)
def test_help_and_version_load_nothing_heavy(arguments, said):
    printed, loaded = loaded_by(*arguments)
    assert said in printed
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("seewhy expl", ["explain"]), ("seewhy explain --meth", ["--method"]), ("seewhy led", ["ledger"])],
)
def test_completion_in_the_shell_loads_nothing_heavy(typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    printed, loaded = loaded_by(_SEEWHY_COMPLETE="complete_bash", **words)
    assert printed.split() == offered
    assert not loaded & HEAVY


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_what_a_batch_frees_is_kept_for_the_next_one_unless_the_user_set_that_himself() -> None:
    """Faults of pages are counted, no time: ten blocks of 64 MiB, one after the other, each written to."""
    code = """
import resource
from seewhy.faces.cli import keep_freed_memory
keep_freed_memory()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in [2**26] * 10:
    b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}

    def faults(**more: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", code], env={**own, **more}, capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert faults() < faults(MALLOC_TOP_PAD_="131072") / 5

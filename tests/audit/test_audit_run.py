"""The audit from end to end, on a network that reads a corner by construction, and on its twin that does not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from planted_scenes import CORNER, SIDE, dataset, eighth, reader
from torch import nn

import nets
import seewhy as sw
from seewhy.faces.compliance import compliance_record
from seewhy.ledger import CONTENTS, open_ledger

FAST = {"methods": ("occlusion",), "checks": (), "anyway": True}


def audited(model, data, out, **asked):
    return sw.audit(model, data, out, **{**FAST, **asked})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One audit of the network that reads the corner, without pictures."""
    return audited(reader(), dataset(), tmp_path_factory.mktemp("audit"), pictures=False)


def saved(folder, items, broken=()):
    """The same images as files, a folder a class; those of the numbers in `broken` hold no picture."""
    for i, (image, label) in enumerate(items):
        path = folder / ("round", "square")[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(eighth(image).permute(1, 2, 0).numpy()).save(path)
        if i in broken:
            path.write_bytes(b"no picture")
    return folder


def covers(box):
    """Whether a box holds the mark, and is at most twice as tall and wide."""
    top, left, bottom, right = box
    most = 2 * (CORNER[2] - CORNER[0])
    inside = top <= CORNER[0] + 1 and left <= CORNER[1] + 1 and bottom >= CORNER[2] - 1 and right >= CORNER[3] - 1
    return inside and bottom - top <= most and right - left <= most


# -- what it says -------------------------------------------------------------------------------------------------------


def test_a_network_that_reads_a_corner_is_blocked_with_the_place(done):
    assert done.verdict == "blocked"
    [found] = [one for one in done.findings if one["status"] == "confirmed"]
    assert found["kind"] == "local_pattern"
    x0, y0, x1, y1 = (edge * SIDE for edge in found["where"])
    assert covers((y0, x0, y1, x1))
    effect = found["effect"][0]
    assert effect["pasted"]["low"] > 0 if effect["output"] == "square" else effect["pasted"]["high"] < 0
    assert effect["removed"]["value"] * effect["pasted"]["value"] < 0
    assert "the upper left corner" in found["sentence"]


def test_the_images_that_show_it_are_named(done):
    marked = {f"item {i}" for i in range(40) if i % 2 and i % 10 < 8}
    [found] = [one for one in done.findings if one["status"] == "confirmed"]
    named = set(found["images"])
    assert len(named & marked) >= 0.95 * len(marked)
    assert len(named - marked) <= 1


def test_a_twin_that_does_not_read_it_passes_and_the_mark_is_refuted(tmp_path):
    twin = audited(reader(corner=0.0), dataset(), tmp_path, pictures=False)
    assert twin.verdict == "pass", str(twin)
    assert "local_pattern" in {one["kind"] for one in twin.findings if one["status"] == "refuted"}


def test_what_the_data_says_of_the_images_is_a_fact_of_the_finding(tmp_path):
    items = [
        (image, label, {"group": f"patient {i // 2}", "scanner": "old" if label and i % 10 < 8 else "new"})
        for i, (image, label) in enumerate(dataset())
    ]
    run = audited(reader(), items, tmp_path, pictures=False)
    [found] = [one for one in run.findings if one["status"] == "confirmed"]
    assert any("scanner = old: 16 of its 16 examined groups" in fact for fact in found["suspicion"]), found["suspicion"]
    assert not [said for said in run.report["not_tested"] if "group column" in said]
    with open_ledger(tmp_path, read_only=True) as ledger:
        rows = {record.content["value"]: record.content for record in ledger.read("association")}
        assert {record.content["group"] for record in ledger.read("prediction")} == {f"patient {k}" for k in range(20)}
    assert (rows["old"]["n"], rows["new"]["n"]) == (16, 24)
    assert rows["old"]["accuracy"]["value"] == 1


def test_with_boxes_a_mark_says_how_much_of_it_lies_outside_of_the_object(tmp_path):
    data, table = saved(tmp_path / "data", dataset()), tmp_path / "boxes.csv"
    low, high = SIDE // 3, 2 * SIDE // 3
    rows = [f"{path.name},{low},{low},{high},{high}" for path in sorted(data.rglob("*.png"))]
    table.write_text("\n".join(["file,x0,y0,x1,y1", *rows, "000.png,900,900,950,950"]))
    model = sw.wrap(reader().module, labels=["round", "square"], size=SIDE, crop=1.0)
    run = audited(model, data, tmp_path / "run", boxes=table, pictures=False)
    [found] = [one for one in run.findings if one["status"] == "confirmed"]
    assert any(fact.startswith("100 % of it lies outside of the marked object") for fact in found["suspicion"])
    objects = run.report["objects"]
    assert objects["n"] == len(rows)
    assert [one["path"] for one in objects["unused"]] == ["round/000.png"]
    assert objects["outside"]["occlusion"]["picture"]["value"] == pytest.approx(1 - ((high - low) / SIDE) ** 2)
    assert "occlusion outside of the marked objects" in run.page.read_text()
    with open_ledger(tmp_path / "run", read_only=True) as ledger:
        assert ledger.read("verdict")[-1].content["objects"] == objects


# -- going on where it stopped ------------------------------------------------------------------------------------------


def test_a_second_call_computes_no_row_and_says_the_same(done):
    model = reader()
    before = (done.folder / "findings.json").read_bytes()
    again = audited(model, dataset(), done.folder, pictures=False)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)
    assert (again.folder / "findings.json").read_bytes() == before


@pytest.mark.parametrize("stage", ["predicting", "confirming marks"])
def test_interrupted_anywhere_it_goes_on_and_repeats_no_row(done, stage, tmp_path):
    def interrupt(what, at, _all):
        if what.lower().startswith(stage) and (at or stage.startswith("confirming")):
            raise KeyboardInterrupt

    first, second = reader(), reader()
    with pytest.raises(KeyboardInterrupt):
        audited(first, dataset(), tmp_path, pictures=False, progress=interrupt)
    left = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert (left["verdict"], left["findings"]) == ("incomplete", [])
    assert "interrupted after" in " ".join(left["reasons"])
    assert "ncomplete" in (tmp_path / "index.html").read_text("utf-8")
    assert first.forward_rows
    resumed = audited(second, dataset(), tmp_path, pictures=False)
    assert (resumed.folder / "findings.json").read_bytes() == (done.folder / "findings.json").read_bytes()
    with open_ledger(done.folder, read_only=True) as ledger:
        whole = ledger.read("cost")[0].content["forward_rows"]
    assert first.forward_rows + second.forward_rows == whole


def test_killed_it_goes_on_from_the_last_row_that_was_written(done, tmp_path):
    code = (
        "import os, signal, torch; torch.set_num_threads(1)\n"
        "from planted_scenes import dataset, reader\n"
        "from test_audit_run import audited\n"
        "def kill(what, at, _all):\n"
        "    if what.lower().startswith('occlusion') and at:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"audited(reader(), dataset(), {str(tmp_path)!r}, pictures=False, progress=kill)\n"
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests.parent / "src"), str(tests), str(tests / "audit")])
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert ended.returncode == -signal.SIGKILL
    with open_ledger(tmp_path, read_only=True) as ledger:
        assert len(ledger.keys("prediction")) == 40
        assert len(ledger.keys("explanation")) == 32
    resumed = audited(reader(), dataset(), tmp_path, pictures=False)
    assert (resumed.folder / "findings.json").read_bytes() == (done.folder / "findings.json").read_bytes()


def test_the_verdict_is_in_the_ledger_with_the_findings_that_it_was_judged_on(done):
    with open_ledger(done.folder, read_only=True) as ledger:
        verdict = ledger.read("verdict")[-1].content
        judged = [ledger.find("finding", key).content for key in verdict["findings"]]
    assert judged == done.to_dict()["findings"]
    assert verdict == {**{name: done.to_dict()[name] for name in verdict}, "findings": verdict["findings"]}
    assert verdict.keys() == CONTENTS["verdict"].keys()


def test_the_compliance_record_of_an_audit_says_what_the_audit_found(done):
    record = compliance_record(done.folder)
    assert (record["audit"]["verdict"], record["data"]["predicted"]) == ("blocked", len(dataset()))
    tried = {one["id"]: one["sentence"] for one in record["behavior"]["findings"]}
    assert tried == {one["id"]: one["sentence"] for one in done.findings}
    assert [one["method"] for one in record["methods"]] == ["occlusion"]
    assert {one["said"] for one in record["not_tested"]} >= {
        said.removesuffix(".") for said in done.to_dict()["not_tested"]
    }


def test_another_network_in_the_same_folder_is_asked_anew(done, tmp_path):
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    twin = audited(reader(corner=0.0), dataset(), tmp_path, pictures=False)
    assert twin.verdict == "pass", str(twin)


# -- bad input ----------------------------------------------------------------------------------------------------------


def test_broken_files_are_listed_and_a_folder_gives_what_its_tensors_give(done, tmp_path):
    folder = saved(tmp_path / "data", dataset(), broken=(3, 4))
    model = sw.wrap(reader().module, labels=["round", "square"], size=SIDE, batch_size=64)
    run = audited(model, folder, tmp_path / "out", policy=None)
    assert {one["path"] for one in run.report["skipped"]} == {"square/003.png", "round/004.png"}
    assert run.report["n_images"] == 38
    assert all(one["reason"].startswith("not an image") for one in run.report["skipped"])  # no path of this machine
    with open_ledger(run.folder, read_only=True) as ledger:
        assert [record.content for record in ledger.read("skip")] == run.report["skipped"]
    [found] = [one for one in run.findings if one["status"] == "confirmed"]
    assert found["kind"] == "local_pattern"
    pictures = [path for path in run.files() if path.suffix in (".jpg", ".png")]
    assert {path.parent.name for path in pictures} >= {"images"}
    boxes = json.loads((run.folder / "findings" / found["id"] / "boxes.json").read_text())
    left, top, wide, tall = boxes["annotations"][0]["bbox"]
    assert covers((top, left, top + tall, left + wide))


def test_without_pictures_no_image_file_is_written(done):
    assert [path for path in done.files() if path.suffix in (".npz",)]
    assert not [path for path in done.files() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    assert "data:image/jpeg" not in done.page.read_text()


def test_a_file_that_is_gone_since_it_was_predicted_is_listed(tmp_path):
    folder = saved(tmp_path / "data", dataset())
    model = sw.wrap(reader().module, labels=["round", "square"], size=SIDE, batch_size=64)

    def lose(what, at, _all):
        if what == "predicting" and at:  # the first group is done
            (folder / "round" / "000.png").unlink(missing_ok=True)

    run = audited(model, folder, tmp_path / "out", pictures=False, progress=lose)
    assert (run.report["n_images"], run.report["n_examined"]) == (40, 39)
    [gone] = run.report["skipped"]
    assert gone["path"] == "round/000.png"
    assert gone["reason"].startswith("no such file.")


def test_a_data_set_of_one_label_says_what_that_leaves_out(tmp_path):
    alike = [(image, 1) for image, label in dataset() if label]
    run = audited(reader(), alike, tmp_path, pictures=False)
    assert any("all 20 images have the same, 1" in said for said in run.report["not_tested"])


def test_fewer_than_sixteen_images_are_refused(tmp_path):
    with pytest.raises(sw.UsageError, match="15 images can be read, 0 were skipped: an audit needs 16"):
        audited(reader(), dataset(15), tmp_path)


def test_a_network_with_many_answers_an_image_is_refused(tmp_path):
    model = sw.wrap(nets.Cnn().eval(), task="segmentation")
    with pytest.raises(sw.RefusalError, match="one answer per image"):
        audited(model, dataset(20), tmp_path)
    assert not list(tmp_path.iterdir())


def test_labels_that_the_network_does_not_follow_stop_it_unless_asked_to_go_on(tmp_path):
    swapped = [(image, 1 - label) for image, label in dataset()]
    with pytest.raises(sw.RefusalError, match="anyway"):
        audited(reader(), swapped, tmp_path, anyway=False)
    audited(reader(), swapped, tmp_path, pictures=False)
    with pytest.raises(sw.RefusalError, match="anyway"):  # that it was gone on once does not hold for every time
        audited(reader(), swapped, tmp_path, anyway=False)


def test_without_scikit_image_it_ends_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    model = reader()
    with pytest.raises(sw.MissingExtraError, match=r"pip install 'seewhy\[audit\]'"):
        audited(model, dataset(), tmp_path)
    assert model.forward_rows == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ()}, "methods are names of one or more methods; got ()"),
        ({"methods": "occlusion"}, "methods are names of one or more methods; got 'occlusion'"),
        ({"methods": ("occlusio",)}, "did you mean 'occlusion'"),
        ({"checks": ("complete",)}, "did you mean 'completeness'"),
        ({"checks": ("localization",)}, "localization is no part of an audit"),
        ({"against": "nowhere"}, "nowhere holds no finished audit"),
        ({"per_class": 0}, "per_class is a whole number of at least 1; got 0"),
        ({"explained": 0}, "explained is a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed is a whole number of at least 0; got -1"),
    ],
)
def test_what_cannot_be_meant_ends_before_any_work(tmp_path, asked, said):
    model = reader()
    with pytest.raises(sw.UsageError) as error:
        audited(model, dataset(), tmp_path, **asked)
    assert said in str(error.value)
    assert model.forward_rows == 0
    assert not list(tmp_path.iterdir())


class Gray(nn.Module):
    """A score: how light the picture is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.weight * x.mean((1, 2, 3))[:, None]


def test_a_score_is_audited_by_quarters(tmp_path):
    items = [(image, float(image.mean())) for image, _ in dataset()]
    run = audited(sw.wrap(Gray(), task="regression"), items, tmp_path, pictures=False)
    assert run.report["n_images"] == 40
    with open_ledger(tmp_path, read_only=True) as ledger:
        assert {record.content["name"] for record in ledger.read("mean_map")} == {f"quarter {k}" for k in (1, 2, 3, 4)}

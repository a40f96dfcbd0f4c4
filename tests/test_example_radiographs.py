"""The worked example on radiographs: its stand-in from scans to the record; a network without training gets no map."""

import csv
import json

import numpy as np
import pytest
from pydicom import dcmread
from sklearn.datasets import load_digits

import radiographs
import seewhy as sw
import stand_in
from seewhy.ledger import open_ledger, verify


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The example as it runs without arguments, smaller: its folder, what it printed, and the DenseNet that it tried."""
    out, densenet = tmp_path_factory.mktemp("studied"), radiographs.chexnet()
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as printed:
        lines = []
        printed.setattr("builtins.print", lambda *parts, **_: lines.append(" ".join(map(str, parts))))
        patch.setattr(radiographs, "chexnet", lambda: densenet)
        patch.setattr(radiographs, "SHOWN", 1)
        patch.setattr(radiographs, "CHECKED", 2)
        patch.setattr(stand_in, "EPOCHS", 2)
        radiographs.main(["--out", str(out), "--patients", "12"])
    return out, "\n".join(lines), densenet


def test_an_untrained_densenet_is_said_to_be_untrained_and_gets_no_map(studied):
    out, printed, densenet = studied
    assert printed.index("NO TRAINED WEIGHTS: densenet121-14") < printed.index("answers (1, 14)")
    assert (densenet.gradient_rows, densenet.forward_rows) == (0, 1)
    with open_ledger(out / "run", read_only=True) as ledger:
        assert {record.content["model"] for record in ledger.read("explanation")} == {"stand-in"}


def test_scans_of_ones_own_without_weights_are_read_and_not_explained(studied, tmp_path, capsys):
    scans = studied[0] / "scans"
    radiographs.main([str(scans / "held_out"), "--boxes", str(scans / "boxes.csv"), "--out", str(tmp_path / "own")])
    printed = capsys.readouterr().out
    assert "NO TRAINED WEIGHTS" in printed
    assert "boxes.csv" in printed
    assert "seven" in printed
    assert not (tmp_path / "own").exists()


def test_the_study_ends_with_a_record_that_verifies_and_names_what_was_measured(studied):
    out, printed, _ = studied
    assert verify(out / "run").ok
    record = json.loads((out / "run" / "compliance.json").read_text("utf-8"))
    assert record["purpose"]["text"] == radiographs.PURPOSE
    assert [one["method"] for one in record["behavior"]["maps"]] == ["occlusion"]
    assert [record[part]["missing"] for part in ("completeness", "agreement")] == [[], []]
    assert "randomization, grad_cam" not in {one["what"] for one in record["randomization"]["missing"]}
    baselines = {one["baseline_reason"] for one in rows_of(out) if one["method"] == "integrated_gradients"}
    assert [text.startswith("the mean of 16 images") for text in baselines] == [True]
    assert "AUROC [95 % interval] on 8 held-out scans of 4 patients" in printed
    with open(out / "run" / "review_queue.csv", encoding="utf-8", newline="") as file:
        queue = list(csv.DictReader(file))
    assert f"{len(queue)} maps peak where" in printed


def rows_of(out):
    with open_ledger(out / "run", read_only=True) as ledger:
        found = [record.content for record in ledger.read("explanation")]
    return [{**one, "baseline_reason": one["parameters"].get("baseline_reason")} for one in found]


def test_no_patient_and_no_handwriting_is_on_both_sides_of_the_split(studied, monkeypatch):
    scans = studied[0] / "scans"
    patients = [{radiographs.patient_of(path) for path in (scans / part).iterdir()} for part in ("train", "held_out")]
    assert (len(patients[0]), len(patients[1]), patients[0] & patients[1]) == (8, 4, set())
    given = []
    monkeypatch.setattr(stand_in, "_write", lambda *_, **__: None)
    monkeypatch.setattr(stand_in, "_scan", lambda _, images, __, ___: (given.append(images), ("", []))[1])
    stand_in.write_scans(studied[0] / "other", 3)
    train, held_out = ({image.tobytes() for image in given[k]} for k in (0, -1))
    assert train
    assert held_out
    assert not train & held_out


def test_an_inverted_scan_is_read_as_its_twin(tmp_path):
    pixels = np.arange(stand_in.SIDE**2, dtype=np.uint16).reshape(stand_in.SIDE, -1) % (stand_in.TOP + 1)
    for name, inverted in (("plain", False), ("inverted", True)):
        stand_in._write(tmp_path / f"{name}.dcm", pixels, inverted=inverted)
    assert not np.array_equal(*(dcmread(tmp_path / f"{n}.dcm").pixel_array for n in ("plain", "inverted")))
    plain, inverted = (np.asarray(sw.read_photo(tmp_path / f"{n}.dcm").bands[0]) for n in ("plain", "inverted"))
    assert np.abs(plain - inverted).max() < 1 / stand_in.TOP


def test_ink_fills_its_box_to_the_edges_and_a_seven_always_lies_at_one_place():
    digits, random = load_digits(), np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        stored, found = stand_in._scan(np.zeros((stand_in.SIDE,) * 2), digits.images, digits.target, random)
        for finding, (x0, y0, x1, y1) in found:
            ink = (
                stored[y0:y1, x0:x1] / stand_in.TOP > 0.3
            )  # paper is 0.15 with noise of 0.04, half of the ink 0.225 more
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1])), finding
            seen.add(finding)
            if finding == "seven":
                assert stand_in.CELL <= x0 < x1 <= 2 * stand_in.CELL
                assert y0 >= 2 * stand_in.CELL
    assert seen == set(stand_in.FINDINGS)


def test_auroc_is_the_share_of_pairs_in_the_right_order_ties_half():
    random = np.random.default_rng(0)
    scores, truth = random.integers(0, 5, 40).astype(float), random.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert radiographs.auroc(scores, truth) == pytest.approx(np.mean(pairs))
    assert np.isnan(radiographs.auroc(scores, np.ones(40, bool)))


def test_scans_without_boxes_and_weights_without_scans_are_refused(tmp_path, capsys):
    for given in ([str(tmp_path)], ["--weights", "best.pth"]):
        with pytest.raises(SystemExit) as ended:
            radiographs.main([*given, "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert "SCANS and --boxes come together" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

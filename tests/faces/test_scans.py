"""Scans on the command line: what a run says of them, and that nobody's name is in it."""

import json
import sqlite3

import numpy as np
import pytest
import torch
from test_replay_command import records, replayed
from torch import nn
from zoo import TINY

import seewhy as sw
from scans import PATIENT, save

IG = ("--method", "integrated_gradients", "--param", "rule=right", "--param", "steps=4")


def chest(shift=0):
    """Something with lungs in it, 12 bits."""
    rows, columns = np.mgrid[0:90, 0:80]
    lungs = sum(np.exp(-(((rows - 45) / 25) ** 2 + ((columns - c - shift) / 12) ** 2) * 2) for c in (22, 58))
    return (3000 - 2500 * lungs).astype(np.uint16)


def one_channel():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()


def saved(path, **tags):
    window = {"WindowCenter": [1500, 2000], "WindowWidth": [3000, 1000], "BitsStored": 12, "HighBit": 11}
    return save(path, chest(), **{"modality": "DX", **window, **tags})


def everything(run):
    """Every byte of a run folder, the texts of its ledger once more as the database gives them."""
    found = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    with sqlite3.connect(run / "ledger.sqlite") as ledger:
        found += "\n".join(ledger.iterdump()).encode()
    ledger.close()
    return found


def test_no_word_of_the_patient_is_in_a_run_folder_a_ledger_a_page_or_on_the_screen(seewhy, tmp_path):
    saved(tmp_path / "scan.dcm", PhotometricInterpretation="MONOCHROME1", BurnedInAnnotation="NO")
    save(tmp_path / "broken.dcm", chest(), WindowCenter=1, WindowWidth=0)
    printed = ""
    for command in (
        ("explain", "scan.dcm", "broken.dcm", *TINY, *IG, "--on-photo", "--out", "run"),
        ("explain", "scan.dcm", *TINY, "--out", "run", "--json"),
        ("check", "scan.dcm", *TINY, "--method", "gradient", "--only", "documentation", "--out", "run"),
        ("report", "run", "--compliance", "--purpose", "none"),
        ("ledger", "show", "run"),
    ):
        code, out, err = seewhy(*command)
        assert code in (0, 3), err
        printed += out + err
    for text in (printed.encode(), everything(tmp_path / "run")):
        assert b"scan.dcm" in text
        assert not [name for name, value in PATIENT.items() for part in value.split("^") if part.encode() in text]


def test_a_scan_is_explained_with_its_modality_window_and_without_black(seewhy, tmp_path):
    saved(tmp_path / "scan.dcm", PhotometricInterpretation="MONOCHROME1")
    code, _, err = seewhy("explain", "scan.dcm", *TINY, *IG, "--on-photo", "--out", "run")
    assert code == 0, err
    (record,) = records(tmp_path / "run")
    said = record.content
    assert (said["modality"], said["parameters"]["baseline"], said["read_as"]) == ("DX", "blur", None)
    assert said["evidence"]["baseline_reason"].startswith("DX: black is a value like any other there")
    assert said["notes"] == ["window 1 of 2: center 1500, width 3000", "inverted (MONOCHROME1)"]
    assert replayed("run", 1).exit_code == 0
    assert seewhy("report", "run", "--compliance", "--purpose", "none")[0] == 0
    page = (tmp_path / "run" / "compliance.html").read_text("utf-8")
    assert "DX: black is a value like any other there" in page
    assert seewhy("explain", "scan.dcm", *TINY, *IG, "--modality", "CT", "--out", "said")[0] == 0
    assert records(tmp_path / "said")[0].content["modality"] == "CT"


def test_a_method_that_records_no_reason_has_one_in_the_compliance_record(seewhy, tmp_path):
    saved(tmp_path / "scan.dcm")
    few = ("--method", "guided_integrated_gradients", "--param", "steps=4")
    assert seewhy("explain", "scan.dcm", *TINY, *few, "--out", "run")[0] == 0
    assert records(tmp_path / "run")[0].content["parameters"]["baseline"] == "blur"
    assert seewhy("report", "run", "--compliance", "--purpose", "none")[0] == 0
    assert "DX: black is a value like any other there" in (tmp_path / "run" / "compliance.html").read_text("utf-8")


def test_a_photo_beside_a_scan_keeps_its_own_baseline(seewhy, tmp_path):
    saved(tmp_path / "scan.dcm")
    assert seewhy("explain", "scan.dcm", "cat.png", *TINY, *IG, "--out", "run")[0] == 0
    found = {one.content["image"]: one.content["parameters"]["baseline"] for one in records(tmp_path / "run")}
    assert found == {"scan.dcm": "blur", "cat.png": "black"}


@pytest.mark.parametrize(("window", "kept"), [("2", 2), ("1000,500", [1000, 500])])
def test_another_window_and_frame_are_recorded_and_replayed(seewhy, tmp_path, window, kept):
    saved(tmp_path / "scan.dcm")
    frames = np.stack([chest(), chest(10)])
    save(tmp_path / "two.dcm", frames, WindowCenter=[1500, 2000], WindowWidth=[3000, 1000])
    asked = ("--window", window, "--frame", "2", "--on-photo", "--out", "run")
    assert seewhy("explain", "two.dcm", *TINY, *asked)[0] == 0
    (record,) = records(tmp_path / "run")
    assert record.content["read_as"] == {"window": kept, "frame": 2}
    assert record.content["notes"][0] == "frame 2 of 2"
    assert "bit-equal" in replayed("run", 1).stdout
    assert seewhy("explain", "scan.dcm", *TINY, *asked)[0] == 2  # one frame


@pytest.mark.parametrize("window", ["1.5", "1,2,3", "lung"])
def test_a_window_that_is_none(seewhy, tmp_path, window):
    saved(tmp_path / "scan.dcm")
    code, _, err = seewhy("explain", "scan.dcm", *TINY, f"--window={window}")
    assert code == 2
    assert "--window" in err


def test_the_checks_ask_the_map_that_is_explained(tmp_path, monkeypatch):
    """Not one against a black baseline, beside the map against a blur."""
    asked = []
    monkeypatch.setattr(
        "seewhy.trust.card.bind", lambda *given, **params: asked.append(params) or sw.bind(*given, **params)
    )
    model = sw.load(TINY[1], weights="random")
    card = sw.check(
        model, saved(tmp_path / "scan.dcm"), "integrated_gradients", only="completeness", rule="right", steps=4
    )
    assert card.explanation.parameters["baseline"] == "blur"
    assert [params["baseline"] for params in asked] == ["blur"]


def test_a_one_channel_network_sees_the_window_itself(tmp_path):
    path = saved(tmp_path / "scan.dcm")
    model = sw.wrap(one_channel(), mean=[0.5], std=[0.25], size=(90, 80), crop=1.0, labels=["a", "b", "c"])
    e = sw.explain(model, path, "grad_cam")
    assert e.images.shape == (1, 1, 90, 80)
    shade = ((chest().astype(float) - 1499.5) / 2999 + 0.5).clip(0, 1)
    assert np.allclose(e.images[0, 0].numpy(), shade, atol=1e-6)
    assert e.overlay().size[0] >= 80
    photo = sw.read_photo(path, window=2)
    assert sw.explain(model, [photo, path]).sources[0].read_as == {"window": 2}
    assert e.photo_overlay().size[0] >= 80
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert again.sources[0].modality == "DX"
    assert torch.equal(again.raw, e.raw)


def test_a_map_is_drawn_over_the_frame_and_in_the_window_that_were_asked_for(tmp_path):
    window = {"WindowCenter": 1500, "WindowWidth": 3000}
    both = save(tmp_path / "two.dcm", np.stack([chest(), chest()[::-1]]), **window)
    second = save(tmp_path / "one.dcm", chest()[::-1], **window)
    model = sw.wrap(one_channel(), mean=[0.5], std=[0.25], size=(90, 80), crop=1.0)
    asked, alone = (
        sw.explain(model, sw.read_photo(path, window=(1000, 900), **frame)).photo_overlay()
        for path, frame in ((both, {"frame": 2}), (second, {}))
    )
    assert np.array_equal(np.asarray(asked), np.asarray(alone))


def test_a_mean_image_is_known_by_its_hashes_and_is_the_reason_for_itself(seewhy, tmp_path):
    (tmp_path / "train").mkdir()
    for i in range(3):
        save(tmp_path / "train" / f"{i}.dcm", chest(i), WindowCenter=1500, WindowWidth=3000)
    assert seewhy("mean-image", "train", *TINY)[0] == 0
    about = json.loads((tmp_path / "mean.json").read_text("utf-8"))
    assert (about["n"], about["n_skipped"]) == (3, 0)
    saved(tmp_path / "scan.dcm")
    asked = (*TINY, *IG, "--param", "baseline=mean.npy", "--out", "run")
    assert seewhy("explain", "scan.dcm", *asked)[0] == 0
    said = records(tmp_path / "run")[0].content
    assert said["parameters"]["baseline"].endswith(about["sha256"])
    for part in ("the mean of 3 images", about["sha256"], about["images_sha256"]):
        assert part in said["evidence"]["baseline_reason"]
    assert replayed("run", 1, "--param", "baseline=mean.npy").exit_code == 0
    few = ("--only", "completeness", "--only", "documentation", "--out", "card")
    assert seewhy("check", "scan.dcm", *asked[:-2], *few)[0] == 0
    assert (
        seewhy("explain", "scan.dcm", *TINY, "--method", "occlusion", "--param", "baseline=mean.npy", "--out", "o")[0]
        == 0
    )
    np.save(tmp_path / "mean.npy", np.load(tmp_path / "mean.npy") / 2)
    code, _, err = seewhy("explain", "scan.dcm", *asked)
    assert code == 2
    assert "mean.json describes another array" in " ".join(err.split())


def test_the_hash_of_the_training_images_does_not_depend_on_their_names_or_order(seewhy, tmp_path):
    for folder, names in (("one", ("a", "b")), ("two", ("z", "c"))):
        (tmp_path / folder).mkdir()
        for shift, name in enumerate(names):
            save(tmp_path / folder / f"{name}.dcm", chest(shift))
        assert seewhy("mean-image", folder, *TINY, "--out", f"{folder}.npy")[0] == 0
    assert (tmp_path / "one.json").read_text("utf-8") == (tmp_path / "two.json").read_text("utf-8")


def test_an_audit_reads_scans_and_keeps_their_modality(tmp_path):
    from seewhy.audit.stream import read_sample
    from seewhy.data.dataset import read_dataset

    for label in ("healthy", "ill"):
        (tmp_path / label).mkdir()
        saved(tmp_path / label / "1.dcm")
    data = read_dataset(tmp_path)
    assert len(data.samples) == 2
    _, shown = read_sample(sw.load(TINY[1], weights="random"), data.samples[0])
    assert shown.modality == "DX"

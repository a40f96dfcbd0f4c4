"""`seewhy attack weights`: what it writes, what it says, and what it leaves unwritten."""

import json

import pytest
from PIL import Image
from zoo import TINY, cat

import seewhy as sw
from seewhy.attacks import weights as of_weights

QUICK = ("--steps", "2", "--region", "0,0,1,0.3", "--train-from", "layer4")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(4):
        cat().rotate(90 * k).save(folder / f"{k}.png")
    return folder


def test_it_writes_weights_that_load_a_record_and_pictures(seewhy, photos, tmp_path):
    code, out, _ = seewhy("attack", "weights", "photos", *TINY, *QUICK, "--out", "moved")
    assert code == 0
    assert "mass in region" in out
    assert "--weights moved/weights.pt" in out
    record = json.loads((tmp_path / "moved" / "attack.json").read_text())
    again = sw.load("timm:test_resnet", weights=tmp_path / "moved" / "weights.pt")
    assert again.fingerprint() == record["model"]
    assert (
        record["original"]["fingerprint"]
        == sw.load("timm:test_resnet", weights="random").fingerprint()
        != record["model"]
    )
    assert record["settings"]["region"] == [0, 0, 1, 0.3]
    assert (record["tuned_on"], record["judged_on"]) == (
        ["photos/0.png", "photos/1.png"],
        ["photos/2.png", "photos/3.png"],
    )
    pictures = sorted((tmp_path / "moved" / "pictures").iterdir())
    assert [p.name for p in pictures] == ["000-2.png", "001-3.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.width > 3 * again.size[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.png", "moved", "photos"]


def test_the_json_is_the_record_and_two_classes_are_exchanged(seewhy, photos):
    given = ("--attack", "active_fooling", "--target", "1", "--other", "2", "--steps", "1", "--set", "batch=1")
    code, out, _ = seewhy("attack", "weights", "photos", *TINY, *given, "--json")
    assert code == 0
    record = json.loads(out)
    assert record["attack"] == "active_fooling"
    assert record["settings"]["batch"] == 1
    assert {score["name"] for score in record["moved"]} == {"similarity", "similarity_to_the_other"}


def test_the_true_classes_are_held_instead_of_the_answers(seewhy, photos, tmp_path):
    (tmp_path / "truth.csv").write_text("file,label\n" + "".join(f"{k}.png,{k}\n" for k in range(4)))
    code, out, _ = seewhy("attack", "weights", "photos", *TINY, *QUICK, "--truth", "truth.csv", "--json")
    assert code == 0
    assert "accuracy" in {score["name"] for score in json.loads(out)["kept"]}


def test_a_dry_run_says_the_rows_and_writes_nothing(seewhy, photos, tmp_path):
    code, out, _ = seewhy("attack", "weights", "photos", *TINY, "--steps", "50", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["gradient_rows"] == 1 + 4 + 2 * 100 + 12
    assert not (tmp_path / "seewhy-attack").exists()


def test_an_interrupt_leaves_nothing_half_written(seewhy, photos, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(of_weights.ATTACKS, "location_fooling", stopped)
    code, _, err = seewhy("attack", "weights", "photos", *TINY, "--out", "moved", "--steps", "2")
    assert code == 130
    assert "nothing was written" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.png", "photos"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos", "--out", "photos"), "overwrites nothing"),
        (("photos", "--out", "no/where"), "no folder no"),
        (("photos", "--attack", "location"), "location_fooling"),
        (("photos", "--region", "left"), "fractions"),
        (("photos", "--region", "0,0,1,1"), "covers 1 of it"),
        (("photos", "--attack", "top_k_fooling", "--region", "frame"), "--region is for location_fooling"),
        (("photos", "--attack", "active_fooling"), "--other"),
        (("photos", "--other", "3"), "active_fooling"),
        (("photos", "--set", "steps=3"), "--steps"),
        (("photos", "--set", "rate=3"), "unknown parameter of location_fooling"),
        (("photos", "--method", "occlusion"), "differentiable"),
        (("photos", "--target", "nothing such"), "nothing such"),
        (("photos", "--train-from", "layer9"), "layer4"),
        (("cat.png",), "1 image"),
    ],
)
def test_what_cannot_be_meant_is_one_line(seewhy, photos, arguments, message):
    code, _, err = seewhy("attack", "weights", *arguments[:1], *TINY, *arguments[1:])
    assert code == 2
    assert message in err

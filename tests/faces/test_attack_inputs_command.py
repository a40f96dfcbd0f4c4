"""seewhy attack inputs as a user calls it."""

import json

import pytest
import torch
from PIL import Image
from zoo import TINY, cat

FEW = ("--steps", "3", "--set", "draws=1", "--set", "top=0.05")


@pytest.fixture
def other(tmp_path):
    cat().rotate(180).save(tmp_path / "other.png")
    return tmp_path / "other.png"


def test_it_writes_the_changed_images_pictures_and_a_record(seewhy, tmp_path, other):
    code, out, err = seewhy(
        "attack", "inputs", "cat.png", *TINY, "--like", other, *FEW, "--set", "learning_rate=0.01", "--out", "run"
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "run")
    assert "pearson to target" in out
    record = json.loads((tmp_path / "run" / "attack.json").read_text())
    assert record["attack"] == "targeted_manipulation"
    assert record["settings"]["steps"] == 3
    assert record["settings"]["picture"] == "absolute"
    pixels = torch.load(tmp_path / "run" / "images.pt")
    size = tuple(pixels.shape[2:])
    with Image.open(tmp_path / "run" / "images" / "000-cat.png") as image:
        assert image.size == size[::-1]
    assert (tmp_path / "run" / "pictures" / "000-cat.png").exists()
    change = next(one for one in record["moved"] if one["name"] == "image_max")["value"]
    assert 0 < change < 0.031


def test_a_region_and_sign_steps_as_json(seewhy, tmp_path):
    code, out, _ = seewhy(
        *("attack", "inputs", "cat.png", *TINY, "--attack", "iterative_attack", "--region", "0,0,0.5,0.5"),
        *("--set", "goal=target", "--set", "strengths=[0.02]", "--method", "grad_cam", *FEW, "--out", "run", "--json"),
    )
    assert code == 0
    found = json.loads(out)
    assert found["settings"]["picture"] == "positive"
    names = [one["name"] for one in found["moved"]]
    assert names[:2] == ["similarity", "mass_in_region"]
    assert found["folder"] == str(tmp_path / "run")


def test_a_dry_run_says_the_rows_and_writes_nothing(seewhy, tmp_path):
    code, out, _ = seewhy("attack", "inputs", "cat.png", *TINY, "--region", "frame", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["gradient_rows"] == (1 + 1500 + 6 + 5 + 2) + 1 + 1500
    assert not (tmp_path / "seewhy-attack").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--attack", "noise"), "unknown attack 'noise'"),
        ((), "needs --like PHOTO or --region"),
        (("--like", "cat.png", "--region", "frame"), "needs --like PHOTO or --region"),
        (("--attack", "iterative_attack", "--like", "cat.png"), "--like is for targeted_manipulation"),
        (("--attack", "iterative_attack", "--region", "frame"), "takes no --region"),
        (("--region", "left"), "x0,y0,x1,y1"),
        (("--region", "frame", "--set", "seed=1"), "no --set"),
        (("--region", "frame", "--set", "step=1"), "steps"),
        (("--region", "frame", "--method", "occlusion"), "no parameter 'differentiable'"),
        (("--region", "frame", "--out", "."), "is there already"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(seewhy, arguments, said):
    code, out, err = seewhy("attack", "inputs", "cat.png", *TINY, *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_ctrl_c_leaves_nothing(seewhy, tmp_path, monkeypatch):
    from seewhy.faces.cli import attack_inputs

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(attack_inputs, "written", interrupted)
    code, _, err = seewhy("attack", "inputs", "cat.png", *TINY, "--region", "frame", *FEW)
    assert code == 130
    assert "nothing was written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]

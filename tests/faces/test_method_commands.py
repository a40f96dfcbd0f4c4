"""`seewhy methods`, `seewhy mean-image`, parameters that are pictures, and methods that must not be misread."""

import json

import numpy as np
import pytest
from zoo import TINY, cat

import seewhy as sw
from seewhy.explanation import forecast as of_rows
from seewhy.faces import words
from seewhy.registry import METHODS

sw.methods()


def test_the_table_compares_every_method(seewhy):
    code, out, err = seewhy("methods")
    assert code == 0
    heads = ("method", "map on", "by class", "complete", "cost per image", "for", "not for", "when randomized", "paper")
    assert all(head in out.splitlines()[0] for head in heads)
    shown = {line.split(" ")[0] for line in out.splitlines()}
    assert set(METHODS) <= shown
    assert "seewhy methods NAME" in err


@pytest.mark.parametrize("name", ["guided_backprop", "eigen_cam", "integrated_gradients"])
def test_one_method_is_shown_in_full(seewhy, name):
    code, out, _ = seewhy("methods", name)
    info = METHODS[name]
    assert code == 0
    for text in (info.title, info.paper, info.good_for, info.randomization, info.warning):
        assert text in out
    code, out, _ = seewhy("methods", name, "--json")
    assert json.loads(out)["name"] == name


def test_an_unknown_method_gets_near_names(seewhy):
    code, _, err = seewhy("methods", "guided_backpropagation")
    assert code == 2
    assert "guided_backprop" in err


def test_every_declaration_names_its_sources():
    for info in METHODS.values():
        for text in (info.good_for, info.not_for, info.randomization):
            assert text
            assert not text.endswith(".")
        if info.family != "control":
            assert "(" in info.good_for, f"{info.name}: where is it said?"
            assert "(" in info.not_for, f"{info.name}: where is it said?"


def test_a_class_asked_of_a_class_agnostic_method_is_one_line_before_any_work(seewhy):
    code, _, err = seewhy("explain", "cat.png", *TINY, "--method", "eigen_cam", "--target", "1")
    assert code == 2
    assert "same map for every class" in err
    code, out, _ = seewhy(
        "explain", "cat.png", *TINY, "--method", "eigen_cam", "--target", "1", "--param", "ignore_target=true", "--json"
    )
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert words.heading(row) == "What does the network react to, whatever the class?"
    assert not words.is_control(row)


def test_the_warning_of_guided_backprop_stands_first_in_its_evidence(seewhy):
    code, out, _ = seewhy("explain", "cat.png", *TINY, "--method", "guided_backprop", "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert "image more than the model" in words.evidence(row)[0]


def test_the_rows_of_long_methods_are_said_before_they_start(seewhy):
    code, _, err = seewhy("explain", "cat.png", *TINY, "--method", "rise", "--param", "samples=300")
    assert code == 0
    assert "at most 301 forward and 0 gradient rows" in err
    code, out, _ = seewhy("explain", "cat.png", *TINY, "--method", "score_cam", "--dry-run", "--json")
    channels = sw.load("timm:test_resnet", weights="random").default_layer().channels
    assert (code, json.loads(out)["forward_rows"]) == (0, channels + 1)


def test_a_mean_image_is_a_baseline(seewhy, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    cat().save(folder / "a.png")
    cat().rotate(180).save(folder / "b.png")
    code, out, _ = seewhy("mean-image", "photos", *TINY)
    assert code == 0
    assert "mean of 2 images" in out
    mean = np.load(tmp_path / "mean.npy")
    model = sw.load("timm:test_resnet", weights="random")
    shown = [sw.explain(model, folder / name, "gradient").images[0].numpy() for name in ("a.png", "b.png")]
    assert np.allclose(mean, (shown[0] + shown[1]) / 2, atol=1e-6)
    assert (tmp_path / "mean.png").exists()
    given = ("--method", "integrated_gradients", "--param", "rule=midpoint", "--param", "steps=2")
    code, out, _ = seewhy("explain", "cat.png", *TINY, *given, "--param", "baseline=mean.npy", "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["parameters"]["baseline"].startswith("tensor")
    code, out, _ = seewhy("explain", "cat.png", *TINY, *given, "--param", "baseline=photos", "--json", "--out", "other")
    (again,) = json.loads(out)["rows"]
    assert again["parameters"]["baseline"] == row["parameters"]["baseline"]


def test_references_are_a_folder(seewhy, tmp_path):
    (tmp_path / "photos").mkdir()
    cat().rotate(90).save(tmp_path / "photos" / "b.png")
    given = ("--method", "expected_gradients", "--param", "samples=4", "--param", "references=photos", "--json")
    code, out, _ = seewhy("explain", "cat.png", *TINY, *given)
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["evidence"]["gradient_rows"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mean-image", "nothing", *TINY), "nothing"),
        (("mean-image", "cat.png", *TINY, "--out", "mean.png"), ".npy"),
        (("mean-image", "cat.png", *TINY, "--out", "no/mean.npy"), "no folder"),
        (("explain", "cat.png", *TINY, "--method", "expected_gradients"), "references"),
        (("explain", "cat.png", *TINY, "--method", "integrated_gradients", "--param", "baseline=broken.npy"), "array"),
        (("explain", "cat.png", *TINY, "--method", "rise", "--param", "samples=many"), "samples"),
    ],
)
def test_what_cannot_be_meant_is_one_line(seewhy, tmp_path, arguments, message):
    (tmp_path / "broken.npy").write_text("no array")
    code, _, err = seewhy(*arguments)
    assert code == 2
    assert message in err


def test_images_that_cannot_be_read_are_listed_and_not_averaged(seewhy, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    code, out, err = seewhy("mean-image", "cat.png", "broken.png", *TINY)
    assert code == 3
    assert "mean of 1 images" in out
    assert "skipped" in err


def test_a_logit_and_a_probability_stand_apart_on_the_page(seewhy, tmp_path):
    code, _, _ = seewhy("explain", "cat.png", *TINY, "--method", "grad_cam", "--method", "occlusion", "--out", "run")
    assert code == 0
    page = (tmp_path / "run" / "index.html").read_text("utf-8")
    assert page.count("Explained is the logit of") == page.count("Explained is the probability of") == 1


@pytest.mark.parametrize(
    ("method", "timed"), [("occlusion", [False]), ("gradient", [True]), ("smooth_grad", [False, True])]
)
def test_a_forecast_times_the_kind_of_row_that_is_spent(seewhy, monkeypatch, method, timed):
    kinds = []
    monkeypatch.setattr(of_rows, "seconds_per_row", lambda *_, gradient: kinds.append(gradient) or 0.5)
    code, out, _ = seewhy("explain", "cat.png", *TINY, "--method", method, "--dry-run", "--json")
    forecast = json.loads(out)
    assert (code, kinds) == (0, timed)
    assert forecast["seconds"] == (forecast["forward_rows"] + forecast["gradient_rows"]) / 2

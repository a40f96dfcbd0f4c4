"""The helpers for test suites."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import seewhy as sw
from seewhy.testing import assert_looks_inside, assert_no_shortcut

BOX = [[4, 8, 20, 28]]


class LooksAt(nn.Module):
    """Its one output is the mean of the red channel inside a box: the gradient's mass lies there and nowhere else."""

    def __init__(self, box):
        super().__init__()
        self.box = box
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x0, y0, x1, y1 = self.box
        inside = self.scale * x[:, 0, y0:y1, x0:x1].mean((1, 2))
        return torch.stack([inside, -inside], 1)


def model(box=BOX[0]):
    return sw.wrap(LooksAt(box), mean=(0, 0, 0), std=(1, 1, 1), size=32)


def images(n=4):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_model_that_looks_inside_passes_at_the_highest_level():
    assert_looks_inside(model(), images(), [BOX] * 4, "gradient", share=1.0, target=0)


def test_a_model_that_looks_elsewhere_fails_with_interval_n_chance_and_the_images():
    with pytest.raises(AssertionError) as error:
        assert_looks_inside(model([22, 0, 32, 6]), images(), [BOX] * 4, "gradient", share=0.3, target=0)
    said = str(error.value)
    assert "inside is 0 [0, 0] (n = 4), by chance 0.312" in said
    assert "asked for: an interval from 0.3 on" in said
    assert "Below 0.3: image 0 (0), image 1 (0), image 2 (0), image 3 (0)." in said


def test_the_interval_has_to_reach_the_level_not_the_mean():
    halves = [BOX, BOX, BOX, [[24, 0, 32, 8]]]  # inside, inside, inside, outside: mean 0.75
    with pytest.raises(AssertionError, match=r"0\.75 \[0\.25, 1\] \(n = 4\)") as error:
        assert_looks_inside(model(), images(), halves, "gradient", share=0.7, target=0)
    assert "Below 0.7: image 3 (0)." in str(error.value)
    assert_looks_inside(model(), images(), halves, "gradient", share=0.25, target=0)


def test_an_image_without_a_box_is_left_out_and_one_image_has_no_interval():
    assert_looks_inside(model(), images(), [BOX, [], BOX, []], "gradient", share=0.9, target=0)
    with pytest.raises(AssertionError, match=r"n = 1: no interval.*\n.*fewer than 2 images"):
        assert_looks_inside(model(), images(), [BOX, [], [], []], "gradient", share=0.9, target=0)


def test_images_of_one_source_are_resampled_together():
    boxes = [BOX, BOX, [[24, 0, 32, 8]], [[24, 0, 32, 8]]]
    with pytest.raises(AssertionError, match="n = 4 in 2 groups"):
        assert_looks_inside(model(), images(), boxes, "gradient", share=0.5, target=0, clusters=["a", "a", "b", "b"])


def test_an_image_without_a_map_to_score_fails():
    class Broken(LooksAt):
        def forward(self, x):
            return torch.where(x.mean((1, 2, 3), keepdim=False)[:, None] > 0.6, torch.nan, super().forward(x))

    bright = images()
    bright[2] = 0.9
    net = sw.wrap(Broken(BOX[0]), mean=(0, 0, 0), std=(1, 1, 1), size=32)
    with pytest.raises(AssertionError, match=r"No map to score: image 2 \("):
        assert_looks_inside(net, bright, [BOX] * 4, "gradient", share=0.5, target=0)


def test_parameters_reach_the_method():
    with pytest.raises(sw.UsageError, match="did you mean 'samples'"):
        assert_looks_inside(model(), images(), [BOX] * 4, "smooth_grad", share=0.5, params={"sample": 2})


@pytest.mark.parametrize("share", [0, -0.1, 1.1, True, "0.5", float("nan"), None])
def test_a_level_that_cannot_be_meant_is_said_before_any_work(share):
    with pytest.raises(sw.UsageError, match="share is the level"):
        assert_looks_inside(None, None, [], share=share)


def test_the_level_is_the_callers_own():
    with pytest.raises(TypeError, match="share"):
        assert_looks_inside(model(), images(), [BOX] * 4)


def audit_that_says(monkeypatch, verdict):
    asked = {}

    def audit(model, dataset, **settings):
        asked.update(settings, model=model, dataset=dataset)
        settings["out"].mkdir(exist_ok=True)
        reasons = ["Blocked by 1 finding.", "The mark raises dog.", "Look at findings/."]
        page = settings["out"] / "index.html"
        page.write_text("page")
        return SimpleNamespace(verdict=verdict, page=page, to_dict=lambda: {"reasons": reasons})

    monkeypatch.setattr(sw, "audit", audit, raising=False)
    return asked


def test_an_audit_that_passes_is_quiet_and_leaves_nothing_behind(monkeypatch, tmp_path):
    asked = audit_that_says(monkeypatch, "pass")
    assert_no_shortcut("model", "data", "seewhy.toml", explained=20)
    assert (asked["model"], asked["dataset"], asked["policy"], asked["explained"]) == (
        "model",
        "data",
        "seewhy.toml",
        20,
    )
    assert not asked["out"].exists()
    assert_no_shortcut("model", "data", out=tmp_path / "run")
    assert (tmp_path / "run" / "index.html").exists()


@pytest.mark.parametrize("verdict", ["blocked", "inconclusive", "incomplete"])
def test_an_audit_that_does_not_pass_fails_with_its_reasons_and_its_page(monkeypatch, tmp_path, verdict):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = audit_that_says(monkeypatch, verdict)
    with pytest.raises(AssertionError, match=r"^Blocked by 1 finding\.\nThe mark raises dog\.\n") as error:
        assert_no_shortcut("model", "data")
    page = Path(str(error.value).splitlines()[-1].removeprefix("The report: "))
    assert page.read_text() == "page"
    assert page.parent == asked["out"]

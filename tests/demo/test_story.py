import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import seewhy as sw
from seewhy import demo
from seewhy.demo import explained, training
from seewhy.faces.start import start_page

TRAINED_ON = [name for name in demo.PHOTOS if name not in demo.HELD_OUT]


def quiet(*said):
    return None


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The story before the audits, with 4 and 3 crops a photo and one epoch: its folder, what it returns and says."""
    out, said = tmp_path_factory.mktemp("told"), []
    made, real = [], demo.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "train", lambda *how: made.append(how[1:3]) or real(*how))
        story = demo.prepare(out, 0, quiet, said.append, each=(4, 3), epochs=1)
    return SimpleNamespace(out=out, story=story, said=said, trained_on=made)


def test_no_crop_of_a_held_out_photo_is_trained_on(told):
    with (told.out / told.story["table"]).open(newline="", encoding="utf-8") as file:
        audited = {row["group"] for row in csv.DictReader(file)}
    assert (
        {group.partition(",")[0] for group in audited} == set(demo.HELD_OUT) == set(told.story["sources"]["held_out"])
    )
    assert len(audited) == 4 * len(demo.HELD_OUT)
    assert not set(demo.HELD_OUT) & set(told.story["sources"]["trained_on"])
    for listings, _ in told.trained_on:
        assert {item.source for item in listings} == set(TRAINED_ON)
        assert len(listings) == 4 * len(TRAINED_ON)
    assert told.story["trained_on"] == 4 * len(TRAINED_ON)
    assert told.story["held_out"] == 3 * 4 * len(demo.HELD_OUT)


def test_the_twins_differ_in_which_photos_carry_the_mark_and_in_nothing_else(told):
    (listings, first), (same, second) = told.trained_on  # in the order in which two threads began
    assert listings is same
    collected, dealt = (first, second) if np.array_equal(first(0), first(1)) else (second, first)
    assert np.array_equal(collected(0), collected(1))
    assert not np.array_equal(dealt(0), dealt(1))
    assert collected(0).sum() == dealt(0).sum() == dealt(1).sum()
    ratings = np.array([item.rating for item in listings])
    assert np.corrcoef(ratings, collected(0))[0, 1] > 0.5
    assert abs(np.mean([np.corrcoef(ratings, dealt(epoch))[0, 1] for epoch in range(50)])) < 0.1


def test_training_that_fails_says_so_and_leaves_torchs_threads_as_they_were(monkeypatch):
    def broken(*how):
        raise ValueError("no photo is left")

    monkeypatch.setattr(demo, "train", broken)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="no photo is left"):
            demo._train_both([], {"confounded": None, "balanced": None}, 0, 1, quiet)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_both_networks_are_saved_judged_and_told_about(told):
    assert [network["name"] for network in told.story["networks"]] == ["confounded", "balanced"]
    for network in told.story["networks"]:
        model = sw.load("seewhy.demo:small_regressor", weights=told.out / network["weights"])
        assert model.task == "regression"
        assert network["accuracy"]["n"] == told.story["held_out"]
        assert network["use"]["removed"]["n"] + network["use"]["pasted"]["n"] == told.story["held_out"]
        assert network["use"]["removed"]["n"] == told.story["marked"]
        assert any(f"{network['accuracy']['r2']:.2f}" in line for line in told.said)
    assert len({network["weights"] for network in told.story["networks"]}) == 2


def test_the_whole_story_ends_in_one_page_with_the_way_to_every_other(told, tmp_path, monkeypatch):
    asked = []

    def audit(model, dataset, out, policy, seed, progress):
        asked.append((model.name, Path(dataset)))
        assert "whole_image" not in Path(policy).read_text("utf-8")
        Path(out).mkdir()
        Path(out, "index.html").write_text("an audit")
        reasons = ["<b>reads</b> a mark"]
        verdict = "blocked" if len(asked) == 1 else "pass"
        return SimpleNamespace(verdict=verdict, page=Path(out, "index.html"), to_dict=lambda: {"reasons": reasons})

    def prepare(out, *_):
        (told.out / "listing-photos").rename(out / "listing-photos")
        (told.out / "networks").rename(out / "networks")
        return json.loads(json.dumps(told.story))

    monkeypatch.setattr(sw, "audit", audit, raising=False)
    monkeypatch.setattr(demo, "prepare", prepare)
    monkeypatch.setattr(demo, "explain_photos", lambda model, out, *_: out / "index.html")
    story = demo.run(None, tmp_path, 0, quiet, quiet)
    assert asked == [("small_regressor", tmp_path / "listing-photos/labels.csv")] * 2
    assert [network["audit"]["verdict"] for network in story["networks"]] == ["blocked", "pass"]
    page = start_page(tmp_path).read_text()
    assert json.loads((tmp_path / "story.json").read_text()) == story
    assert "&lt;b&gt;reads&lt;/b&gt; a mark" in page
    for link in ("audit-confounded/index.html", "audit-balanced/index.html", "explained/index.html"):
        assert f'href="{link}"' in page
    assert len(story["examples"]) >= 9
    assert all((tmp_path / path).exists() for path in story["examples"])


def test_a_folder_with_other_files_is_refused_before_any_work(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(sw.UsageError, match=r"thesis\.tex"):
        demo.run(None, tmp_path, 0, quiet, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_an_interrupted_demo_is_gone_on_with(tmp_path):
    (tmp_path / "networks").mkdir()
    demo.check_folder(tmp_path)


def test_photos_are_explained_with_their_contrast_under_lite0_and_the_page_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(explained, "EXPLAINED", ("cat.png",))
    fast = {"integrated_gradients": {"rule": "trapezoid", "steps": 8}, "smooth_grad": {"samples": 4}}
    monkeypatch.setattr(explained, "METHODS", {**explained.METHODS, **fast})
    steps = []
    page = explained.explain_photos(sw.load("lite0"), tmp_path, 0, lambda what, *step: steps.append(step))
    text = page.read_text()
    assert text.count("<figure") == len(explained.METHODS) + len(explained.CONTRAST[2])
    assert "Why tiger cat and not tabby?" in text
    assert len(text) * 6 < 3_000_000
    assert steps == [(i, 8) for i in range(9)]


def test_the_factory_gives_an_untrained_network_ready_for_weights():
    model = demo.small_regressor()
    assert not model.module.training
    assert model.predict(torch.zeros(1, 3, 96, 96)).shape == (1, 1)
    assert training.small_regressor is demo.small_regressor

"""Planted truth: cues that a trained network provably uses are found, and honest networks are not accused.

The fast cases of benchmarks/planted.py, and whether the truth itself is what it says.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import seewhy as sw
from planted import names_cue, near, read, share
from planted_cases import VARIANTS, build, cases, evenly, noisy, part
from planted_cues import KINDS, cue
from planted_images import bases, read_task

FAST = ("corner_mark", "border")


def case_of(kind, variant, seed=0):
    [case] = cases((kind,), ("strong",), (seed,), (variant,))
    return case


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def built():
    """Each fast case once."""
    with one_thread():
        chosen = [*((kind, "cue") for kind in FAST), (FAST[0], "decoy")]
        return {key: build(case_of(*key), 400, 120) for key in chosen}


@pytest.mark.parametrize("kind", FAST)
def test_a_cue_that_the_network_uses_is_found_and_named(built, kind, tmp_path):
    planted = built[kind, "cue"]
    assert planted.used, planted.effect
    found = sw.audit(planted.model, planted.dataset, out=tmp_path, per_class=15, pictures=False, anyway=True).findings
    confirmed = [one for one in found if one["status"] == "confirmed"]
    assert any(names_cue(one, planted) for one in confirmed), [one["sentence"] for one in found]


def test_the_same_marks_without_the_answer_accuse_nobody(built, tmp_path):
    decoy = built[FAST[0], "decoy"]
    assert not decoy.used, decoy.effect
    found = sw.audit(decoy.model, decoy.dataset, out=tmp_path, per_class=15, pictures=False, anyway=True).findings
    assert not [one["sentence"] for one in found if one["status"] == "confirmed"]


# -- the truth itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_cue_changes_the_image_where_it_says_and_nowhere_else(kind):
    draw = np.random.default_rng(0)
    [base] = bases(read_task("shape2"), 64, 1, False, 0, None, draw)
    before = base.pixels.astype(np.float32) / 255
    after, place = cue(kind, "strong", 64, draw).put(before, base.inside, draw)
    changed = np.abs(after - before).max(2) > 1e-6
    assert changed.any()
    if place is not None:
        x0, y0, x1, y1 = (round(64 * edge) for edge in place)
        changed[y0:y1, x0:x1] = False
        assert not changed.any()


@pytest.mark.parametrize("kind", ["moving_mark", "timestamp"])
def test_only_a_mark_that_moves_lies_at_several_places(kind):
    draw = np.random.default_rng(0)
    [base] = bases(read_task("shape2"), 64, 1, False, 0, None, draw)
    look, pixels = cue(kind, "strong", 64, draw), base.pixels.astype(np.float32) / 255
    put = [look.put(pixels, base.inside, draw) for _ in range(6)]
    assert len({place for _, place in put}) == (6 if kind == "moving_mark" else 1)
    assert len({changed.tobytes() for changed, _ in put}) == 6  # other places, other digits


def test_held_out_photos_were_never_learned_from():
    for seed in range(2):
        photos = [
            {base.source.partition(",")[0] for base in bases(read_task("shape2"), 16, 120, held, seed, None, draw)}
            for held, draw in ((False, np.random.default_rng(0)), (True, np.random.default_rng(1)))
        ]
        assert len(photos[0]) == len(photos[1]) == 7
        assert not photos[0] & photos[1]


def test_a_cue_goes_with_its_answer_and_a_decoy_with_none():
    task = read_task("shape2")
    look = cue("corner_mark", "strong", 32, np.random.default_rng(0))
    shares = {}
    for variant in VARIANTS:
        found = part(case_of("corner_mark", variant), task, look, 0, 200, False, np.random.default_rng(1))
        shares[variant] = [found.marked[found.recorded == k].mean() for k in (0, 1)]
    assert shares["cue"][0] > 0.8
    assert shares["cue"][1] < 0.1
    assert shares["clean"] == [0, 0]
    assert abs(shares["decoy"][0] - shares["decoy"][1]) < 0.05
    assert sum(shares["decoy"]) == pytest.approx(sum(shares["cue"]), abs=0.1)


def test_marks_are_spread_evenly_over_a_score():
    scores = np.random.default_rng(0).normal(size=400)
    marked = evenly(180, scores, np.random.default_rng(1))
    assert marked.sum() == 180
    assert abs(np.corrcoef(scores, marked)[0, 1]) < 0.05


def test_a_quarter_of_the_classes_is_recorded_wrong():
    true = np.repeat([0, 1, 2], 1000)
    recorded = noisy(read_task("shape3"), true, np.random.default_rng(0))
    assert (recorded != true).mean() == pytest.approx(0.25, abs=0.03)
    assert set(recorded) == {0, 1, 2}


def test_a_place_is_right_about_the_cue_and_wrong_elsewhere():
    corner = [0.82, 0.82, 0.98, 0.98]
    assert near([0.8, 0.85, 0.95, 1.0], corner)
    assert not near([0.0, 0.0, 0.15, 0.15], corner)
    assert not near([0.0, 0.0, 1.0, 1.0], corner)
    assert near([0.0, 0.0, 0.2, 0.1], [0.0, 0.0, 1.0, 1.0])  # a frame: any place at the edge
    assert not near([0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 1.0, 1.0])


def test_a_rate_carries_its_n_and_an_empty_one_says_so():
    assert share(20, 20) == "20 of 20: 100 % [83, 100]"
    assert share(0, 0) == "- (n = 0)"


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "results").write_text('{"case": "a"}\n{"case": "b", "us')
    assert list(read(tmp_path / "results")) == ["a"]

"""Whether what was found moves the model: paired tests, Holm, unrelated pieces, and taking it away again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_scenes import eighth, scenes
from scipy import stats

from seewhy.audit.candidate import Candidate
from seewhy.audit.confirm import (
    LEVEL,
    UNRELATED,
    Held,
    Trial,
    _by_scene_all,
    _p,
    correct,
    explained_away,
    try_candidate,
)

N = 60
CORNER = slice(0, 8)


def say(x):
    """Two outputs: how red the corner is, and how light the rest is."""
    return torch.stack([10 * x[:, 0, CORNER, CORNER].mean((1, 2)), x[:, :, 20:].mean((1, 2, 3))], 1).double()


def blind(x):
    return torch.stack([x[:, 1, 20:].mean((1, 2)), x[:, 2, 20:].mean((1, 2))], 1).double()


def held(answer=say, n=N, each=1):
    """Scenes of which every other is red in the corner, in groups of `each`; the second half of each four confirms."""
    images = scenes(n)
    images[::2, 0, CORNER, CORNER] = 1.0
    images = eighth(images)
    return Held(images, answer(images.float() / 255), torch.arange(n) // each, torch.arange(n) % 4 < 2, answer)


def filled(value):
    def edit(x, _index):
        out = x.clone()
        out[:, 0, CORNER, CORNER] = value
        return out

    return edit


def candidate(n=N, **changes):
    pieces = scenes(40, 8, 9)

    def unrelated(k):
        def edit(x, _index):
            out = x.clone()
            out[:, :, CORNER, CORNER] = pieces[k]
            return out

        return edit

    given = {
        "kind": "local_pattern",
        "name": "a red corner",
        "where": (0, 0, 8, 8),
        "shows": torch.arange(n) % 2 == 0,
        "paste": filled(1.0),
        "remove": {"gray": filled(0.5)},
        "unrelated": unrelated,
        "suspicion": (),
        "appearance": b"red",
    }
    return Candidate(**{**given, **changes})


def tried(answer=say, **changes):
    trial = try_candidate(held(answer), candidate(**changes), 0)
    correct([trial])
    return trial


def test_a_cue_that_the_model_reads_is_confirmed_at_its_output():
    trial = tried()
    assert trial.confirmed() == [0]
    assert float(trial.effect[0]) == pytest.approx(10 * float(1 - scenes(N)[1::4, 0, CORNER, CORNER].mean()), abs=0.1)
    assert len(trial.unrelated) == UNRELATED


def test_a_decoy_is_refuted():
    trial = tried(blind)
    assert trial.confirmed() == []
    assert not trial.why_untested


def test_what_removing_does_not_undo_is_refuted():
    assert tried(remove={"left as it is": lambda x, _index: x}).confirmed() == []
    assert tried(remove={"left as it is": lambda x, _index: x, "gray": filled(0.5)}).confirmed() == [0]


def test_what_any_piece_of_a_picture_does_as_well_is_refuted():
    def brighter(k):
        return filled(1.0) if k == 7 else filled(0.4)

    assert tried(unrelated=brighter).confirmed() == []


def test_what_goes_with_a_label_must_raise_that_output():
    assert tried(toward=0).confirmed() == [0]
    assert tried(toward=1).confirmed() == []
    assert tried(toward=0, paste=filled(0.0), remove={"red": filled(1.0)}).confirmed() == []


def test_what_its_own_control_does_as_well_is_refuted():
    trial = tried(swapped=filled(1.0))
    assert trial.has_control
    assert trial.confirmed() == []


def test_an_effect_that_is_surely_small_beside_the_spread_of_the_output_is_none():
    trial = tried()
    assert trial.confirmed()
    assert not trial.small()[trial.confirmed()].any()
    wide = replace(trial.held, clean=trial.held.clean * 1000)
    again = replace(trial, held=wide)
    assert again.small().all()
    assert again.confirmed() == []


def test_what_a_trial_explains_is_the_smaller_of_putting_in_and_taking_out():
    trial = tried()
    spread = trial.held.clean.std(0)
    put_in = float(trial.effect[0].abs() / spread[0])
    assert 0 < trial.strength() <= put_in + 1e-9
    weaker = replace(trial, removed={name: change / 4 for name, change in trial.removed.items()})
    assert weaker.strength() == pytest.approx(trial.strength() / 4, rel=0.2)
    correct([ignored := try_candidate(held(blind), candidate(), 0)])
    assert ignored.strength() == 0


def test_too_few_scenes_without_it_are_untested():
    everywhere = torch.ones(N, dtype=torch.bool)
    everywhere[[1, 5, 9]] = False
    trial = try_candidate(held(), candidate(shows=everywhere), 0)
    assert "3 held-out images of 3 groups" in trial.why_untested
    correct([trial])
    assert trial.confirmed() == []


def test_where_too_few_have_it_nothing_is_confirmed_as_nothing_can_be_taken_off():
    few = torch.zeros(N, dtype=torch.bool)
    few[:6:2] = True
    trial = try_candidate(held(), candidate(shows=few, remove={"left as it is": lambda x, _index: x}), 0)
    correct([trial])
    assert trial.confirmed() == []
    assert "groups show it" in trial.why_untested


def test_only_images_that_took_no_part_in_finding_are_touched():
    own = held()
    trial = try_candidate(own, candidate(), 0)
    assert own.confirming[trial.plain].all()
    assert own.confirming[trial.marked].all()
    assert not candidate().shows[trial.plain].any()
    assert candidate().shows[trial.marked].all()


def test_p_is_that_of_students_t_by_scene():
    draw = np.random.default_rng(0)
    scenes_of, values = torch.arange(40) // 4, torch.from_numpy(draw.normal(0.3, 1, (40, 3)))
    means = values.numpy().reshape(10, 4, 3).mean(1)
    assert np.allclose(_by_scene_all(values, scenes_of), means)
    assert np.allclose(_p(means), stats.ttest_1samp(means, 0).pvalue)
    assert (_p(means[:2]) == 1).all()
    assert _p(np.array([[0.0, 2.0]] * 5)).tolist() == [1, 0]  # every scene says the same


def holm(p):
    """Holm 1979, A simple sequentially rejective multiple test procedure: one after the other while p <= level / left."""
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = worst
    return adjusted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=6), st.integers(0, 6))
def test_holm_is_that_of_the_paper_over_all_that_was_tried(rows, untested):
    own, nothing = held(n=4), torch.zeros(0, 2)
    index = torch.zeros(0, dtype=torch.long)
    trials = [
        Trial(candidate(), own, index, index, nothing, nothing, {}, nothing, index, index, p=np.array(row))
        for row in rows
    ]
    if untested < len(trials):
        trials[untested].why_untested = "too few"
        trials[untested].p = np.ones(0)
    correct(trials)
    kept = [trial for trial in trials if not trial.why_untested]
    given_p = [float(v) for trial in kept for v in trial.p]
    assert np.allclose([v for trial in kept for v in trial.p_adjusted], holm(given_p))


def test_many_candidates_raise_the_bar():
    one = tried()
    alone = one.p_adjusted[0]
    others = [try_candidate(held(blind), candidate(), 0) for _ in range(3)]
    correct([one, *others])
    assert one.p_adjusted[0] == pytest.approx(4 * alone)
    assert one.p_adjusted[0] < LEVEL


def test_marks_are_taken_off_whether_or_not_the_model_reads_them():
    for answer in (say, blind):
        own = held(answer)
        trial = try_candidate(own, candidate(), 0)
        correct([trial])
        after = explained_away(own, [trial])
        assert (after.images[::2, 0, CORNER, CORNER] == 128).all()
        assert torch.equal(after.images[1::2], own.images[1::2])
        assert torch.allclose(after.clean, answer(after.images.float() / 255))
    refuted = try_candidate(held(blind), candidate(kind="place"), 0)
    correct([refuted])
    own = held(blind)
    assert explained_away(own, [refuted]) is own

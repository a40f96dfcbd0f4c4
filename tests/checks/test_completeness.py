"""Completeness: exact sums pass, sums that are off fail by as much as they are off, no claim has no verdict."""

import pytest
import torch

import seewhy as sw
from nets import images, linear, tiny_cnn
from seewhy.maps import Maps
from seewhy.target import PREDICTED, logit

MODEL = sw.wrap(tiny_cnn(), size=32)


def off_by(share):
    """Maps whose sum misses the change of the score by this share of it."""

    def maps(model, x, target):
        raw, change = torch.rand(len(x), 4, 4), torch.full((len(x),), 2.0)
        gap = torch.full((len(x),), 2.0 * share)
        evidence = {"completeness_gap": gap, "completeness_gap_relative": gap / change, "score_difference": change}
        return Maps(raw, target, change, None, evidence)

    return maps


@pytest.mark.parametrize(("share", "level", "verdict"), [(0.04, 0.05, "pass"), (0.04, 0.01, "fail"), (0, 5e-5, "pass")])
def test_a_gap_is_held_against_the_level(share, level, verdict):
    found = sw.checks.completeness(MODEL, images(4), PREDICTED, off_by(share), level=level)
    assert found.verdict == verdict
    assert found["completeness_gap_relative"].interval.value == pytest.approx(share)
    assert found["completeness_gap"].interval.value == pytest.approx(2 * share)
    assert found.settings["level"] == level


def test_a_linear_network_is_shared_out_exactly():
    model, maps = sw.wrap(linear(), size=32), sw.bind("integrated_gradients", rule="midpoint", steps=1)
    found = sw.checks.completeness(model, images(3), logit(1), maps, level=5e-5)
    assert found.verdict == "pass"
    assert found.details["levels"] == {"debugging": 3, "compliance": 3, "four decimals": 3}
    assert (found.forward_rows, found.gradient_rows) == (6, 3)


def test_a_method_that_claims_no_sum_has_no_verdict():
    found = sw.checks.completeness(MODEL, images(2), PREDICTED, sw.bind("grad_cam"))
    assert found.verdict == "no verdict"
    assert not found.scores


def test_maps_that_are_not_finite_are_counted_and_not_averaged():
    def maps(model, x, target):
        found = off_by(0.01)(model, x, target)
        found.raw[1, 0, 0] = torch.nan
        return found

    found = sw.checks.completeness(MODEL, images(3), PREDICTED, maps)
    assert found.excluded == {1: "not finite"}
    assert found["completeness_gap"].interval.n == 2


@pytest.mark.parametrize("level", [0, -1, "5 %", float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(sw.UsageError, match="level"):
        sw.checks.completeness(MODEL, images(1), PREDICTED, sw.bind("gradient"), level=level)

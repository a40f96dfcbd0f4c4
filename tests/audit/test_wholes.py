"""Cues of the whole image: each statistic, the change that gives it, and candidates where frame and middle agree."""

import pytest
import torch
from planted_scenes import eighth, scenes

from seewhy.audit.association import labels_of
from seewhy.audit.wholes import STATISTICS, _compressed, changes, statistics, weight_of, whole_candidates
from seewhy.perturb import gaussian_blur

SIDE = 48


def warm(x):
    return (x + torch.tensor([0.06, -0.02, -0.04]).view(3, 1, 1)).clamp(0, 1)


CHANGED = {
    "redness": warm,
    "brightness": lambda x: (x + 0.1).clamp(0, 1),
    "contrast": lambda x: (0.5 + 1.5 * (x - 0.5)).clamp(0, 1),
    "sharpness": lambda x: gaussian_blur(x, 1.0),
    "compression": lambda x: _compressed(x, 15),
}
SIGN = {"sharpness": -1}


@pytest.mark.parametrize("name", CHANGED)
def test_a_statistic_follows_what_it_is_named_after(name):
    x, k = scenes(12, SIDE), STATISTICS.index(name)
    step = statistics(eighth(CHANGED[name](x)))[:, k] - statistics(eighth(x))[:, k]
    assert (SIGN.get(name, 1) * step > 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["color cast", *[n for n in CHANGED if n != "redness"]])
def test_the_change_brings_the_statistic_to_what_is_wanted(name):
    k = 0 if name == "color cast" else STATISTICS.index(name)
    low = eighth(scenes(16, SIDE))
    high = eighth(CHANGED["redness" if name == "color cast" else name](scenes(16, SIDE, 1)))
    a, b = (statistics(part).mean(0) for part in (high, low))
    for start, now, wanted in ((low, b, a), (high, a, b)):
        step = changes(name, start.float() / 255)(now, wanted)
        got = statistics(eighth(step(start.float() / 255))).mean(0)[k]
        before, wanted = abs(float(wanted[k] - now[k])), wanted[k]
        assert abs(float(wanted - got)) < 0.5 * before


def test_the_regions_are_apart_and_sum_to_one():
    frame, middle = weight_of("frame", (40, 60)), weight_of("middle", (40, 60))
    assert float(frame.sum()) == pytest.approx(1)
    assert float(middle.sum()) == pytest.approx(1)
    assert not bool(((frame > 0) & (middle > 0)).any())
    assert middle[20, 30] > 0
    assert frame[0, 0] > 0


def test_gray_pictures_have_no_color():
    found = statistics(eighth(scenes(4, SIDE))[:, :1])
    assert not found[:, :2].any()


def candidates(images, labels, kind="class", seed=0):
    n = len(images)
    asked = labels_of(labels, kind, ["dog", "cat"], 2)
    return whole_candidates(eighth(images), torch.arange(n), torch.arange(n) % 4 < 2, asked, seed)


def test_a_cast_that_goes_with_a_class_is_a_candidate_that_gives_and_takes_it():
    x, labels = scenes(80, SIDE), torch.arange(80) % 2
    x[labels == 1] = warm(x[labels == 1])
    found = candidates(x, labels)
    casts = [one for one in found if one.details["statistic"] == "color cast" and one.details["goes_with"] == "cat"]
    [cast] = casts
    assert cast.kind == "whole_image"
    assert cast.where is None
    assert "more red" in cast.name
    assert torch.equal(cast.shows, labels == 1)
    plain = x[labels == 0][:8]
    index = torch.arange(8)
    pasted = cast.paste(plain, index)
    assert float((pasted - plain)[:, 0].mean()) > 0.02
    assert float((cast.remove["changed back"](pasted, index) - plain).abs().mean()) < 0.01
    step = (pasted - plain)[:, 0].mean()
    others = [(cast.unrelated(k)(plain, index) - plain)[:, 0].mean() for k in range(19)]
    assert step > max(abs(other) for other in others)  # what chance has to offer is smaller
    assert any(other < 0 for other in others)


def test_what_only_the_middle_has_is_the_object_and_no_candidate():
    x, labels = scenes(80, SIDE), torch.arange(80) % 2
    for i in range(1, 80, 2):
        x[i, :, 12:36, 12:36] = warm(warm(x[i]))[:, 12:36, 12:36]
    assert [one.name for one in candidates(x, labels)] == []


def test_scores_are_asked_as_they_are():
    x = scenes(60, SIDE)
    light = torch.linspace(0, 0.25, 60)
    found = candidates((x + light.view(-1, 1, 1, 1)).clamp(0, 1), light, "score")
    assert "brighter pictures" in [one.name for one in found]
    assert any("rises with" in fact for one in found for fact in one.suspicion)


def test_a_cast_of_the_searched_half_alone_is_no_larger_than_exchanged_labels_give():
    x, labels = scenes(80, SIDE), torch.arange(80) % 2
    found_on = torch.arange(80) % 4 < 2
    x[(labels == 1) & found_on] = warm(x[(labels == 1) & found_on])
    [cast] = [one for one in candidates(x, labels) if one.details["goes_with"] == "cat"]
    plain, index = x[labels == 0][:8], torch.arange(8)
    step = (cast.paste(plain, index) - plain)[:, 0].mean().abs()
    assert step < max((cast.unrelated(k)(plain, index) - plain)[:, 0].mean().abs() for k in range(19))


def test_blocks_of_jpeg_are_told_from_a_grid_beside_them():
    x = eighth(scenes(12, SIDE))
    packed = eighth(_compressed(x.float() / 255, 30))
    moved = torch.roll(packed, (3, 3), (2, 3))
    of = [statistics(part)[:, 5] for part in (x, packed, moved)]
    assert float(of[1].min()) > float(of[0].max())
    assert float(of[1].min()) > float(of[2].max())

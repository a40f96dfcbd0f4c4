"""Agreement: a method agrees with itself, not with its negative, and by chance with noise."""

import math

import pytest
import torch
from scipy import stats

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.checks.strongest import jaccard_by_chance
from seewhy.maps import Maps
from seewhy.target import PREDICTED, Target, logit

MODEL = sw.wrap(tiny_cnn(), size=32)
GRADIENT = sw.bind("gradient")


def given(raw):
    """A method that gives these maps."""

    def maps(model, x, target):
        return Maps(raw[: len(x)].clone(), Target("index", "logit", torch.tensor(0)), torch.ones(len(x)), None)

    return maps


def random(n=6, size=(16, 16), seed=0):
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(seed))


def check(a, n=6, **others):
    return sw.checks.agreement(MODEL, images(n), PREDICTED, a, others=others)


def value(found, name):
    return found[name].interval.value


def test_a_method_agrees_with_itself_and_with_its_multiple():
    raw = random()
    found = check(given(raw), same=given(raw), larger=given(3 * raw))
    assert [value(found, name) for name in ("rank_correlation", "top_jaccard", "sign_agreement")] == pytest.approx(
        [1] * 3
    )
    assert found.verdict == "no verdict"
    assert found.details["matrix"]["rank_correlation"] == [pytest.approx([1] * 3)] * 3


def test_a_method_is_the_opposite_of_its_negative():
    found = check(given(random()), negative=given(-random()))
    assert value(found, "rank_correlation") == pytest.approx(-1)
    assert value(found, "top_jaccard") == 0
    assert value(found, "sign_agreement") == 0


def test_noise_agrees_by_chance():
    found = check(given(random(40)), n=40, noise=given(random(40, seed=1)))
    chance = found.details["pairs"][0]["chance"]
    assert abs(value(found, "rank_correlation")) < 0.03
    assert value(found, "top_jaccard") == pytest.approx(chance["top_jaccard"], abs=0.01)
    assert found.details["pairs"][0]["top_overlap"]["value"] == pytest.approx(chance["top_overlap"], abs=0.02)
    assert (
        value(found, "sign_agreement")
        == pytest.approx(chance["sign_agreement"], abs=0.01)
        == pytest.approx(0.5, abs=0.01)
    )
    assert chance["top_jaccard"] == 26 / (2 * 256 - 26) == jaccard_by_chance(0.1, 256)


def test_the_chance_of_signs_is_that_of_maps_that_are_mostly_positive():
    found = check(given(random(40) + 1), n=40, noise=given(random(40, seed=1) + 1))
    p = 0.8413
    assert value(found, "sign_agreement") == pytest.approx(p * p + (1 - p) ** 2, abs=0.01)
    assert found.details["pairs"][0]["chance"]["sign_agreement"] == pytest.approx(p * p + (1 - p) ** 2, abs=0.01)


def test_the_finer_map_is_averaged_over_the_cells_of_the_coarser():
    fine = random(6, (32, 32))
    coarse = fine.view(6, 8, 4, 8, 4).mean((2, 4))
    for a, b in ((fine, coarse), (coarse, fine)):
        found = check(given(a), other=given(b))
        assert value(found, "rank_correlation") == pytest.approx(1)
        assert value(found, "top_jaccard") == 1
        assert found.details["pairs"][0]["grid"] == [8, 8]


def test_grids_that_do_not_nest_meet_on_the_coarser_of_each_axis():
    found = check(given(random(6, (12, 5))), other=given(random(6, (8, 7))))
    assert found.details["pairs"][0]["grid"] == [8, 5]
    assert found["rank_correlation"].interval.n == 6


def test_the_numbers_are_those_of_a_plain_loop():
    a, b = random(), random(seed=1) + 0.5 * random()
    found = check(given(a), other=given(b))
    for i in range(6):
        x, y = a[i].flatten(), b[i].flatten()
        assert found["rank_correlation"].per_image[i] == pytest.approx(stats.spearmanr(x, y).statistic)
        tops = [set(m.argsort(descending=True)[:26].tolist()) for m in (x, y)]
        assert found["top_jaccard"].per_image[i] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        assert found["sign_agreement"].per_image[i] == pytest.approx(float((x.sign() == y.sign()).float().mean()))


def test_unsigned_maps_have_no_sign_agreement_and_cells_of_zero_no_sign():
    found = check(given(random().abs()), other=given(random(seed=1)))
    assert found["sign_agreement"].interval.n == 0
    assert not found.excluded
    half = random()
    half[:, :8] = 0
    found = check(given(half), other=given(random()))
    assert value(found, "sign_agreement") == 1


def test_controls_agree_with_one_another_no_more_than_they_look_alike():
    found = check(sw.bind("edge_map"), gradient=GRADIENT)
    assert found["rank_correlation"].controls["edge_map"].value == pytest.approx(1)
    assert abs(found["rank_correlation"].controls["random_map"].value) < 0.1


def test_the_images_of_strongest_disagreement_come_first_with_the_reason():
    a = random()
    b = a + 0.1 * random(seed=1)
    b[3], b[1] = -a[3], random(seed=2)[1]
    queue = check(given(a), near=given(a + 0.1 * random(seed=3)), far=given(b)).details["review_queue"]
    assert [one["image"] for one in queue[:2]] == [3, 1]
    assert [one["score"] for one in queue] == sorted(one["score"] for one in queue)
    assert "rank correlation -1.00 with far" in queue[0]["reason"]
    assert "0 % of the top 10 % in common (chance 10 %)" in queue[0]["reason"]


def test_the_queue_holds_twenty_images_at_most():
    assert len(check(given(random(30)), n=30, noise=given(random(30, seed=1))).details["review_queue"]) == 20


def test_all_methods_explain_the_same_class_each_on_its_own_scale():
    asked = []

    def listening(model, x, target):
        asked.append(target)
        return GRADIENT(model, x, target)

    x = images(3)
    sw.checks.agreement(MODEL, x, PREDICTED, GRADIENT, others={"heard": listening})
    assert asked[0].index.tolist() == MODEL.predict(x).argmax(1).tolist()
    assert asked[0].scale is None
    sw.checks.agreement(MODEL, x, logit(1).on("probability"), GRADIENT, others={"heard": listening})
    assert asked[1].scale == "probability"


def test_an_image_without_a_map_of_one_method_is_excluded_and_more_than_a_tenth_is_not_valid():
    raw = random(20)
    raw[5] = 0
    found = check(given(random(20, seed=1)), n=20, other=given(raw), third=given(random(20)))
    assert found.excluded == {5: "other: zero"}
    assert found["rank_correlation"].interval.n == 19
    assert found.verdict == "no verdict"
    assert found.details["pairs"][1]["rank_correlation"]["n"] == 20  # this method and the third
    raw[:3] = torch.nan
    found = check(given(random(20, seed=1)), n=20, other=given(raw))
    assert found.verdict == "not valid"
    assert found.excluded[0] == "other: not finite"


def test_a_map_that_is_constant_once_averaged_is_excluded():
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    found = check(given(checkers.repeat(6, 1, 1)), n=6, other=given(random(6, (8, 8))))
    assert set(found.excluded.values()) == {"constant on the common grid"}
    assert all(math.isnan(v) for v in found["top_jaccard"].per_image)


def test_ties_of_two_methods_agree_by_chance_only():
    raw = torch.zeros(40, 16, 16)
    raw[:, 0, 0] = 1
    found = check(given(raw), n=40, other=given(raw.clone()))
    assert found.details["pairs"][0]["tied_share"] == pytest.approx(25 / 26)
    assert value(found, "top_jaccard") < 0.15
    assert value(found, "rank_correlation") == pytest.approx(1)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({}, "other methods"),
        (None, "other methods"),
        ([GRADIENT], "other methods"),
        ({"edge_map": GRADIENT}, "already"),
        ({"this method": GRADIENT}, "already"),
        ({"grad_cam": "grad_cam"}, "bind"),
    ],
)
def test_others_that_cannot_be_meant_are_refused(others, said):
    with pytest.raises(sw.UsageError, match=said):
        sw.checks.agreement(MODEL, images(1), PREDICTED, GRADIENT, others=others)


def test_real_methods_on_different_grids_are_compared():
    found = check(GRADIENT, grad_cam=sw.bind("grad_cam"), occlusion=sw.bind("occlusion", patch=16, stride=16))
    assert found.details["methods"] == ["this method", "grad_cam", "occlusion"]
    assert [pair["methods"] for pair in found.details["pairs"]] == [
        ["this method", "grad_cam"],
        ["this method", "occlusion"],
        ["grad_cam", "occlusion"],
        ["this method", "random_map"],
        ["this method", "edge_map"],
    ]
    assert found["rank_correlation"].interval.n == 6

"""Class discrimination: one map for all classes fails, unrelated ones pass, nothing is claimed between them."""

import math
from itertools import combinations

import pytest
import torch
from scipy import stats
from torch import nn

import seewhy as sw
from nets import images, linear, tiny_cnn
from seewhy.checks.strongest import top_cells
from seewhy.maps import Maps
from seewhy.perturb import image_generator
from seewhy.target import PREDICTED, logit, margin, output

MODEL = sw.wrap(tiny_cnn(), size=32)
check = sw.checks.class_discrimination


def drawing(draw):
    """A method whose map of image x for class c is draw(x, c)."""

    def maps(model, x, target):
        given = sw.bind("gradient")(model, x, target)
        index = given.target.at(given.target.index, torch.arange(len(x)))
        raw = torch.stack([draw(one, int(c)) for one, c in zip(x, index, strict=True)])
        return Maps(raw, given.target, given.values, given.outputs)

    return maps


def coarse(x):
    """Of a picture and of it with noise below a gray level the same number, of any other one another."""
    return int(1e4 * round(float(x.mean()), 3))


def noise(x, c, size=16):
    return torch.randn(size, size, generator=torch.Generator().manual_seed(1000 * coarse(x) + c))


def test_a_map_that_does_not_depend_on_the_class_fails():
    found = check(MODEL, images(6), PREDICTED, drawing(lambda x, c: noise(x, 0)))
    assert found.verdict == "fail"
    assert found["rank_correlation"].interval.value == pytest.approx(1, abs=1e-12)
    assert found["top_jaccard"].interval.value == 1
    assert found["top_two_differ"].interval.value == 0
    assert found.details["same_map"] == found.details["pairs_compared"] == 18


@pytest.mark.parametrize("change", ["scaled by the class", "rounding"])
def test_one_pattern_of_another_size_or_rounding_is_the_same_map(change):
    def draw(x, c):
        base = noise(x, 0)
        return (c + 1) * base if change == "scaled by the class" else base + 1e-6 * noise(x, c)

    assert check(MODEL, images(4), PREDICTED, drawing(draw)).verdict == "fail"


def test_a_map_and_its_opposite_are_two_maps():
    found = check(
        MODEL, images(6), PREDICTED, drawing(lambda x, c: noise(x, 0) * (-1) ** c), classes=2, against="random"
    )
    assert found["top_two_differ"].interval.value > 0
    assert found.verdict != "fail"


@pytest.mark.parametrize("method", ["eigen_cam", "edge_map", "random_map"])
def test_methods_that_know_no_class_are_caught(method):
    found = check(MODEL, images(4), PREDICTED, sw.bind(method))
    assert found.verdict == "fail"
    assert found["rank_correlation"].controls["edge_map"].value == 1


def test_maps_of_classes_as_unlike_as_maps_of_images_pass():
    found = check(MODEL, images(12), PREDICTED, drawing(noise))
    assert found.verdict == "pass"
    null = found["rank_correlation"].null
    assert null.n == 12 * 11 // 2 * 9
    assert null.low < 0 < null.high
    assert abs(found["top_jaccard"].interval.value - found.details["chance_top_jaccard"]) < 0.03
    assert abs(found["top_jaccard"].null.median - found.details["chance_top_jaccard"]) < 0.03


def test_maps_that_share_part_of_their_evidence_are_neither_passed_nor_failed():
    found = check(MODEL, images(12), PREDICTED, drawing(lambda x, c: noise(x, 99) + noise(x, c)))
    assert found.verdict == "unclear"
    assert 0.4 < found["rank_correlation"].interval.value < 0.6


def test_a_pattern_that_all_maps_share_passes_nothing():
    bump = torch.linspace(-5, 5, 256).view(16, 16)
    found = check(MODEL, images(12), PREDICTED, drawing(lambda x, c: bump + noise(x, c)))
    assert found.verdict == "unclear"
    assert "pattern" in found.sentence


def test_a_class_that_changes_the_map_less_than_unseen_noise_does_fails():
    def draw(x, c):  # every bit of the picture matters more than the class
        own = torch.randn(16, 16, generator=image_generator(x, 0))
        return noise(x, 0) + 0.3 * own + 0.03 * noise(x, c)

    found = check(MODEL, images(8), PREDICTED, drawing(draw))
    assert found.verdict == "fail"
    assert found["top_two_differ"].interval.value == 1
    assert found["same_class_unseen_noise"].interval.value < found["rank_correlation"].interval.value < 1
    assert found.details["between_classes_less_noise"]["low"] > 0


def test_the_noise_is_below_a_gray_level_and_stays_in_the_picture():
    x, seen = images(3), []

    def maps(model, given, target):
        seen.append(given)
        return sw.bind("gradient")(model, given, target)

    check(MODEL, x, PREDICTED, maps)
    assert [torch.equal(one, x) for one in seen] == [True, True, True, False]
    assert 1 / 600 < float((seen[3] - x).abs().max()) <= 1 / 510 + 1e-7
    assert seen[3].min() >= x.min()
    assert seen[3].max() <= x.max()


def test_the_classes_are_the_asked_one_and_the_strongest_others():
    x = images(5)
    table = MODEL.predict(x)
    ranked = table.argsort(1, descending=True)
    assert check(MODEL, x, PREDICTED, sw.bind("gradient")).details["classes"] == ranked[:, :3].tolist()
    last = ranked[:, -1]
    assert check(MODEL, x, logit(last), sw.bind("gradient")).details["classes"] == [
        [int(row[-1]), int(row[0]), int(row[1])] for row in ranked
    ]


def test_random_classes_are_drawn_by_seed_and_never_the_asked_one():
    x = images(8)
    several = [
        check(MODEL, x, logit(2), sw.bind("gradient"), against="random", seed=s).details["classes"] for s in (0, 0, 1)
    ]
    assert several[0] == several[1] != several[2]
    assert all(row[0] == 2 and len(set(row)) == 3 for row in several[0])


def test_the_numbers_are_those_of_a_plain_loop():
    x, bound = images(3), sw.bind("gradient")
    found = check(MODEL, x, PREDICTED, bound)
    classes = MODEL.predict(x).argsort(1, descending=True)[:, :3]
    for i in range(3):
        maps = [bound(MODEL, x[i : i + 1], logit(int(c))).raw[0].flatten() for c in classes[i]]
        expected = sum(stats.spearmanr(a, b).statistic for a, b in combinations(maps, 2)) / 3
        assert found["rank_correlation"].per_image[i] == pytest.approx(expected, abs=1e-6)
        tops = [set(m.argsort(descending=True)[:102].tolist()) for m in maps]
        expected = sum(len(a & b) / len(a | b) for a, b in combinations(tops, 2)) / 3
        assert found["top_jaccard"].per_image[i] == pytest.approx(expected)


def test_the_gradients_of_a_linear_network_are_as_alike_as_its_weights():
    net = linear()
    found = check(sw.wrap(net, size=32), images(2), logit(0), sw.bind("gradient"), classes=2)
    weights = net.fc.weight.detach().view(5, 3, 32, 32).sum(1).flatten(1)
    for i, (a, b) in enumerate(found.details["classes"]):
        expected = stats.spearmanr(weights[a], weights[b]).statistic
        assert found["rank_correlation"].per_image[i] == pytest.approx(expected, abs=1e-6)


def test_one_logit_has_two_classes_with_opposite_gradients():
    model = sw.wrap(linear(1), size=32, task="binary")
    found = check(model, images(3), sw.target.resolve(None, None, "binary"), sw.bind("gradient"))
    assert found["rank_correlation"].interval.value == pytest.approx(-1)
    assert {tuple(sorted(row)) for row in found.details["classes"]} == {(0, 1)}


def test_without_classes_there_is_no_verdict_and_no_forward():
    regression = sw.wrap(linear(1), size=32, task="regression")
    for model, target in ((regression, output()), (MODEL, margin(0, 1)), (MODEL, sw.target.of(lambda o: o[:, 0]))):
        found = check(model, images(2), target, sw.bind("gradient"))
        assert found.verdict == "no verdict"
        assert not found.scores
        assert found.forward_rows == found.gradient_rows == 0


def test_maps_that_are_zero_for_one_class_leave_out_their_pairs_only():
    def draw(x, c):
        return torch.zeros(16, 16) if c == 1 else noise(x, c)

    found = check(MODEL, images(4), logit(0), drawing(draw), classes=5)
    assert not found.excluded
    assert found.details["pairs_left_out"] == 4 * 4
    assert found.details["pairs_compared"] == 4 * 6


def test_maps_that_cannot_be_scored_make_the_check_not_valid():
    found = check(MODEL, images(4), PREDICTED, drawing(lambda x, c: torch.full((4, 4), 1.0)))
    assert found.verdict == "not valid"
    assert found.excluded == dict.fromkeys(range(4), "constant")
    assert math.isnan(found["rank_correlation"].interval.value)


def test_one_image_can_fail_and_not_pass():
    assert check(MODEL, images(1), PREDICTED, drawing(lambda x, c: noise(x, 0))).verdict == "fail"
    assert check(MODEL, images(1), PREDICTED, drawing(noise)).verdict == "unclear"


def test_ties_are_broken_alike_for_all_maps_of_an_image_and_their_share_is_said():
    x = images(3)
    raw = torch.zeros(3, 10, 10)
    raw[:, 0, :4] = 1.0
    (a, tied), (b, _), (c, _) = top_cells(raw, x, 0.1, 0), top_cells(raw, x, 0.1, 0), top_cells(raw, x, 0.1, 1)
    assert a.sum(1).tolist() == [10, 10, 10]
    assert a[:, :4].all()
    assert tied.tolist() == pytest.approx([0.6] * 3)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(top_cells(raw[1:2], x[1:2], 0.1, 0)[0], a[1:2])
    assert top_cells(torch.randn(3, 10, 10), x, 0.1, 0)[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": 1}, "classes"),
        ({"classes": 2.0}, "classes"),
        ({"against": "strong"}, "strongest"),
        ({"top": 0}, "top"),
        ({"top": 1}, "top"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, said):
    with pytest.raises(sw.UsageError, match=said):
        check(MODEL, images(1), PREDICTED, sw.bind("gradient"), **given)


def test_a_signal_and_a_volume_are_no_special_cases():
    class Mean(nn.Module):
        def __init__(self, axes):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2, *[8] * axes, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x.flatten(1) @ self.weight.flatten(1).T

    for axes in (1, 3):
        x = torch.rand(4, 2, *[8] * axes, generator=torch.Generator().manual_seed(1))
        found = check(sw.wrap(Mean(axes), mean=(0.0, 0.0), std=(1.0, 1.0)), x, PREDICTED, sw.bind("gradient"))
        assert found["rank_correlation"].interval.n == 4

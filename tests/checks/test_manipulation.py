"""Manipulation suspected: behavior without gradients, maps held against it, and a network that was really fooled."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy.checks.behavior import behavior_maps, on_cells
from seewhy.controls import center_maps, edge_maps
from seewhy.maps import Maps
from seewhy.target import PREDICTED, Target
from seewhy.trust.binding import given_to

N, SIDE = 24, 32


class Brightness(nn.Module):
    """Two classes; the first one's logit is the brightest mean of 8 x 8 pixels."""

    def forward(self, x):
        bright = 9 * nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8, 2).flatten(1).amax(1)
        return torch.stack([bright, torch.zeros_like(bright)], 1)


def spots(n=N, seed=0):
    """A bright square of 8 pixels about the middle of dark noise, and where it is."""
    draw = torch.Generator().manual_seed(seed)
    x = 0.4 * torch.rand(n, 3, SIDE, SIDE, generator=draw)
    where = torch.zeros(n, SIDE, SIDE)
    for i, (row, column) in enumerate(torch.randint(6, SIDE - 14, (n, 2), generator=draw).tolist()):
        where[i, row : row + 8, column : column + 8] = 1
    return torch.where(where[:, None] > 0, 0.9 + 0.1 * x, x), where


def given(raw):
    """A method that gives these maps."""

    def maps(model, x, target):
        return Maps(raw.clone(), Target("index", "logit", torch.tensor(0)), torch.ones(len(x)), None)

    return maps


def smeared(where):
    return nn.functional.avg_pool2d(where[:, None], 5, 1, 2)[:, 0]


X, WHERE = spots()
MODEL = sw.wrap(Brightness(), mean=(0.0,) * 3, std=(1.0,) * 3, size=SIDE, batch_size=64)


def check(raw, other=None, x=X, model=MODEL, **settings):
    others = {"other": given(smeared(WHERE) if other is None else other)}
    return sw.checks.manipulation(model, x, PREDICTED, given(raw), others=others, smooth=0, **settings)


def value(found, name):
    return found[name].interval.value


def test_the_behavior_is_minus_the_mean_answer_while_windows_that_hold_a_cell_show_another_image():
    n, draws, seed = 3, 2, 3
    x = images(n)
    model = sw.wrap(tiny_cnn(), mean=MEAN, std=STD, size=32, batch_size=7)
    target = Target("index", "logit", torch.arange(n))
    found = behavior_maps(model, x, target, draws, seed)
    ahead = torch.randint(1, n, (draws, n), generator=torch.Generator().manual_seed(seed))
    for i in range(n):
        total, count = torch.zeros(8, 8, dtype=torch.float64), torch.zeros(8, 8)
        for row in range(7):
            for column in range(7):
                for draw in range(draws):
                    changed = x[i : i + 1].clone()
                    place = slice(4 * row, 4 * row + 8), slice(4 * column, 4 * column + 8)
                    changed[0, :, place[0], place[1]] = x[(i + int(ahead[draw, i])) % n][:, place[0], place[1]]
                    total[row : row + 2, column : column + 2] -= model.predict(changed)[0, i].double()
                    count[row : row + 2, column : column + 2] += 1
        assert torch.allclose(found[i], total / count, atol=1e-5)


def test_a_place_that_is_the_same_in_all_images_has_no_weight():
    x = X.clone()
    x[:, :, :8, :8] = 1.0  # brighter than all else, in every image
    assert bool((behavior_maps(MODEL, x, Target("index", "logit", torch.tensor(0)), 2, 0).diff() == 0).all())


def test_maps_are_averaged_over_the_cells_and_coarser_ones_interpolated():
    fine = torch.rand(2, 32, 32)
    assert torch.allclose(on_cells(fine, (32, 32)).float(), nn.functional.avg_pool2d(fine[:, None], 4)[:, 0])
    coarse = on_cells(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), (32, 32))
    assert coarse.shape == (1, 8, 8)
    assert torch.all(coarse.diff(dim=2) >= 0)


def test_a_map_of_what_the_network_uses_is_not_suspected():
    found = check(smeared(WHERE))
    assert found.verdict == "pass"
    assert found.sentence.startswith("Not suspected")
    assert value(found, "map_agreement") > 0.5
    assert found["map_agreement"].null.n == N * (N - 1)
    assert value(found, "behavior_at_mass") > 1
    assert value(found, "edge_map_ahead_of_map") < 0
    assert value(found, "other_ahead_of_map") == 0


def test_a_map_of_a_corner_is_suspected_and_shows_the_same_place_in_all_images():
    corner = torch.arange(SIDE * SIDE, 0, -1.0).view(1, SIDE, SIDE).repeat(N, 1, 1)
    found = check(corner)
    assert found.verdict == "fail"
    assert found.sentence.startswith("Suspected")
    same = found["same_place"]
    assert same.interval.value > same.controls["behavior"].value
    assert value(found, "behavior_at_mass") < 0.4


def test_it_is_not_suspected_where_another_family_knows_no_more_of_the_network():
    corner = torch.rand(N, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    found = check(corner, other=torch.rand(N, SIDE, SIDE, generator=torch.Generator().manual_seed(2)))
    assert found.verdict == "unclear"
    assert found["edge_map_ahead_of_map"].interval.low > 0


def test_a_map_that_agrees_by_chance_is_not_passed_because_its_rivals_do_worse():
    class Darkness(Brightness):
        def forward(self, x):
            return -super().forward(x)

    model = sw.wrap(Darkness(), mean=(0.0,) * 3, std=(1.0,) * 3, size=SIDE, batch_size=64)
    found = check(torch.rand(N, SIDE, SIDE, generator=torch.Generator().manual_seed(3)), model=model)
    assert found["edge_map_ahead_of_map"].interval.high < 0
    assert found["center_map_ahead_of_map"].interval.high < 0
    assert found.verdict == "unclear"


def test_a_spike_that_only_the_picture_shows_is_suspected_by_the_picture():
    raw = nn.functional.avg_pool2d(smeared(WHERE)[:, None], 4)[:, 0] - 2  # the order of the cells stays
    raw[:, 0, 0] = 1
    found = check(raw)
    assert found.verdict == "fail"
    assert found["edge_map_ahead_of_map"].interval.high < 0
    assert found["edge_map_ahead_of_picture"].interval.low > 0


def test_of_a_map_without_signs_its_size_is_read():
    found = check(-smeared(WHERE), magnitude=True)
    assert found.verdict == "pass"
    assert [s.name for s in found.scores if s.name.endswith("_agreement")] == ["picture_agreement"]
    assert check(-smeared(WHERE)).verdict == "not valid"


def test_maps_that_show_nothing_are_counted_and_too_many_of_them_are_not_valid():
    raw = smeared(WHERE)
    raw[:2] = -1 - raw[:2]
    found = check(raw)
    assert found.verdict == "pass"
    assert found.excluded == dict.fromkeys((0, 1), "the picture of the map shows nothing")
    assert math.isnan(found["map_agreement"].per_image[0])
    assert "2 of 24 images could not be scored" in found.sentence
    raw[:3] = -1 - raw[:3].abs()
    assert check(raw).verdict == "not valid"


def test_a_network_that_answers_the_same_whatever_it_is_shown_has_no_behavior_to_hold_a_map_against():
    model = sw.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)), mean=(0.0,) * 3, std=(1.0,) * 3, size=SIDE
    )
    with torch.no_grad():
        model.module[1].weight.zero_()
    found = check(smeared(WHERE), model=model)
    assert found.verdict == "not valid"
    assert set(found.excluded.values()) == {"no place changes the answer"}


def test_few_images_have_no_verdict_and_one_is_refused():
    others = {"other": sw.bind("gradient")}
    asked = MODEL, X[:8], PREDICTED, given(smeared(WHERE)[:8])
    assert sw.checks.manipulation(*asked, others=others, smooth=0).verdict == "no verdict"
    with pytest.raises(sw.RefusalError, match="at least 9"):
        sw.checks.manipulation(MODEL, X[:1], PREDICTED, sw.bind("gradient"), others=others)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"others": {}}, "another family"),
        ({"others": {"edge_map": given(WHERE)}}, "'edge_map' cannot name"),
        ({"others": {"a": "gradient"}}, r"others\['a'\] is a str"),
        ({"draws": 0}, "draws"),
        ({"smooth": -1}, "smooth"),
        ({"beta": 0}, "beta"),
    ],
)
def test_what_cannot_be_meant_is_told(settings, said):
    with pytest.raises(sw.UsageError, match=said):
        sw.checks.manipulation(MODEL, X, PREDICTED, given(WHERE), **{"others": {"other": given(WHERE)}, **settings})


def test_columns_that_a_network_refuses_are_named_and_the_others_stand():
    found = check(smeared(WHERE))
    assert set(found.details["refused"]) == {"randomized"}  # no weights
    assert value(found, "beta_smoothed") == pytest.approx(1)


def test_against_a_reference_only_a_map_that_moved_alone_has_moved():
    assert value(check(smeared(WHERE), reference=MODEL), "reference_moved") == pytest.approx(0, abs=1e-9)
    corner = torch.rand(N, SIDE, SIDE, generator=torch.Generator().manual_seed(1))

    def maps(model, x, target):
        return given(smeared(WHERE) if model is trusted else corner)(model, x, target)

    trusted = sw.wrap(Brightness(), mean=(0.0,) * 3, std=(1.0,) * 3, size=SIDE)
    others = {"other": given(smeared(WHERE))}
    found = sw.checks.manipulation(MODEL, X, PREDICTED, maps, others=others, smooth=0, reference=trusted)
    assert found["reference_moved"].interval.low > 0.5
    assert found["reference_map"].controls["behavior"].value == pytest.approx(1)
    assert value(found, "reference_answer") == 0


def test_the_rivals_are_those_that_know_no_network_as_the_field_draws_them():
    behavior = behavior_maps(MODEL, X, Target("index", "logit", torch.tensor(0)), 2, 0)
    found = check(smeared(WHERE))
    for name, raw in (("edge_map", edge_maps(X)), ("center_map", center_maps(N, (SIDE, SIDE)))):
        cells = on_cells(raw, (SIDE, SIDE)).flatten(1)
        slow = [stats.spearmanr(a, b.flatten()).statistic for a, b in zip(cells, behavior, strict=True)]
        assert found["map_agreement"].controls[name].value == pytest.approx(sum(slow) / N, abs=1e-9)


def test_what_a_method_is_held_against_belongs_to_another_family():
    def families(name):
        info = sw.registry.find_method(name)
        return {bound.info.family for bound in given_to("manipulation", info)["others"].values()}

    assert families("grad_cam") == {"gradient"}
    assert families("gradient") == families("integrated_gradients") == {"cam"}
    assert families("occlusion") == {"gradient", "cam"}
    assert given_to("manipulation", sw.registry.find_method("gradient"))["magnitude"]


# -- a network that was really fooled ------------------------------------------------------------------------------------


def striped(n, seed):
    """Noise with a square of stripes about the middle, along rows (class 0) or columns (class 1)."""
    draw = torch.Generator().manual_seed(seed)
    x, labels = 0.5 * torch.rand(n, 3, SIDE, SIDE, generator=draw), torch.arange(n) % 2
    bars = (torch.arange(12) // 2 % 2).float().expand(12, 12)
    for image, label in zip(x, labels.tolist(), strict=True):
        row, column = torch.randint(4, SIDE - 16, (2,), generator=draw).tolist()
        image[:, row : row + 12, column : column + 12] += 0.5 * (bars if label else bars.T)
    return x, labels


def trained(x, labels):
    """A small network that tells the stripes apart, with a grid of 8 x 8 whose cells see all of the image."""
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.manual_seed(0)
        layers = []
        for before, after, stride, apart in ((3, 8, 2, 1), (8, 16, 2, 1), (16, 16, 1, 2), (16, 16, 1, 2)):
            convolution = nn.Conv2d(before, after, 3, stride, apart, dilation=apart, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for rows in torch.arange(len(x)).view(-1, 32).repeat(5, 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net((x[rows] - 0.5) / 0.25), labels[rows]).backward()
            optimizer.step()
    net.zero_grad()
    return sw.wrap(net.eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=SIDE, batch_size=64)


def test_a_network_fooled_to_show_its_frame_is_suspected_and_its_honest_twin_is_not():
    x, labels = striped(256, 0)
    model = trained(x, labels)
    x, labels = (torch.cat([a[:96], b]) for a, b in zip((x, labels), striped(32, 1), strict=True))
    maps, tuning = sw.bind("grad_cam", differentiable=True), {"steps": 60, "learning_rate": 5e-3, "train_from": "6"}
    verdicts = []
    for strength in (3.0, 0.0):
        tuned = sw.attacks.location_fooling(
            model, x, PREDICTED, maps, strength=strength, labels=labels, tune_on=96, **tuning
        )
        assert tuned["top_1_agreement"].interval.value >= 0.98
        mass = tuned["mass_in_region"]
        assert (mass.interval.value > 2 * mass.controls["before"].value) == (strength > 0)
        others = {"smooth_grad_squared": sw.bind("smooth_grad_squared", samples=8)}
        asked = tuned.model, x[96:], PREDICTED, sw.bind("grad_cam")
        verdicts.append(sw.checks.manipulation(*asked, others=others, smooth=0, draws=1).verdict)
    assert verdicts[0] == "fail"
    assert verdicts[1] == "pass"

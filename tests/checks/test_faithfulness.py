"""Faithfulness: on additive networks every curve is known; elsewhere slow twins, written straight from the papers."""

import itertools
import json
import math

import pytest
import torch

import seewhy as sw
from nets import images, linear, signal, tiny_cnn, volume
from seewhy.checks.faithfulness.average_drop import masks_of
from seewhy.checks.faithfulness.flipping import RANDOM, Curves, agreement
from seewhy.checks.faithfulness.subsets import infidelity
from seewhy.checks.faithfulness.units import tied_share, units_of
from seewhy.controls import edge_maps, random_maps
from seewhy.maps import Maps
from seewhy.perturb import fill_images, ranks
from seewhy.target import PREDICTED, logit

ZERO_ONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
ALL = ("pixel_flipping", "insertion_deletion", "road", "average_drop", "infidelity", "sensitivity_n")
CLASS = logit(1)


def additive():
    """Logits that are sums over pixels."""
    return sw.wrap(linear(), size=32, batch_size=16, **ZERO_ONE)


def curved():
    return sw.wrap(tiny_cnn(), size=32, batch_size=16, **ZERO_ONE)


def given(raw):
    """A method that has these maps for these images."""
    return lambda model, x, target: Maps(raw.clone(), target, torch.zeros(len(x)), None)


def parts(model, x, fill, index=1):
    """What each pixel adds to the logit of a linear network over this fill: gradient * (x - x')."""
    weight = model.module.fc.weight[index].detach().view(1, 3, 32, 32)
    return (weight * (x - fill_images(model, x, fill))).sum(1)


def check(model, x, raw, **settings):
    settings = {"protocols": ("pixel_flipping", "insertion_deletion"), "patch": 4, "steps": 8} | settings
    return sw.checks.faithfulness(model, x, CLASS, given(raw), **settings)


def values(found, name):
    return torch.tensor(found[name].per_image, dtype=torch.float64)


def curve(found, name):
    return torch.tensor([p.value for p in next(c for c in found.curves if c.name == name).points], dtype=torch.float64)


def softmax(table, index=1):
    return table.double().softmax(1)[:, index]


# -- slow twins ---------------------------------------------------------------------------------------------------------


def hidden_one_by_one(model, x, fill, raw, side, steps, least_first=False):
    """Of one image (C, h, w): shares hidden, probabilities and logits of class 1, one picture at a time."""
    h, w = x.shape[1:]
    boxes = [(i, j) for i in range(0, h, side) for j in range(0, w, side)]
    worth = [float(raw[i : i + side, j : j + side].double().mean()) for i, j in boxes]
    order = sorted(range(len(boxes)), key=lambda k: worth[k] if least_first else -worth[k])
    shares, p, z = [], [], []
    for step in range(steps + 1):
        shown = x.clone()
        for k in order[: step * len(boxes) // steps]:
            i, j = boxes[k]
            shown[:, i : i + side, j : j + side] = fill[:, i : i + side, j : j + side]
        covered = sum(
            min(side, h - boxes[k][0]) * min(side, w - boxes[k][1]) for k in order[: step * len(boxes) // steps]
        )
        shares.append(covered / (h * w))
        table = model.predict(shown[None])
        p.append(float(softmax(table)))
        z.append(float(table[0, 1]))
    return torch.tensor(shares).double(), torch.tensor(p).double(), torch.tensor(z).double()


@pytest.mark.parametrize(("size", "side"), [((32, 32), 5), ((24, 40), 7)])
def test_aopc_deletion_and_insertion_are_those_of_one_picture_at_a_time_also_where_patches_do_not_fit(size, side):
    model, x = sw.wrap(tiny_cnn(), size=size, batch_size=16, **ZERO_ONE), images(3, size=size)
    raw = torch.randn(3, *size, generator=torch.Generator().manual_seed(5))
    found = check(model, x, raw, patch=side, steps=4)
    for fill in ("mean", "blur"):
        picture = fill_images(model, x, fill)
        for i in range(3):
            share, p, z = hidden_one_by_one(model, x[i], picture[i], raw[i], side, 4)
            _, p_least, z_least = hidden_one_by_one(model, x[i], picture[i], raw[i], side, 4, least_first=True)
            share_least = hidden_one_by_one(model, x[i], picture[i], raw[i], side, 4, least_first=True)[0]
            deletion, insertion = torch.trapezoid(p, share), torch.trapezoid(p_least, share_least)
            expected = {
                f"aopc_{fill}_probability": (p[0] - p).mean(),
                f"aopc_{fill}_logit": (z[0] - z).mean(),
                f"aopc_least_first_{fill}_logit": (z_least[0] - z_least).mean(),
                f"deletion_auc_{fill}_probability": deletion,
                f"insertion_auc_{fill}_probability": insertion,
                f"insertion_auc_relative_{fill}_probability": insertion / p[0],
                f"area_between_{fill}_probability": insertion - deletion,
                f"area_between_{fill}_logit": torch.trapezoid(z_least, share_least) - torch.trapezoid(z, share),
            }
            for name, value in expected.items():
                assert found[name].per_image[i] == pytest.approx(float(value), abs=2e-6), name


def test_controls_are_scored_like_maps():
    model, x = curved(), images(3)
    found = check(model, x, torch.rand(3, 32, 32))
    for control, raw in (("edge_map", edge_maps(x)), ("random_map", random_maps(x, 0))):
        own = check(model, x, raw)
        for name in ("aopc_mean_probability", "deletion_auc_blur_logit"):
            assert found[name].controls[control].value == pytest.approx(own[name].interval.value, abs=1e-6)
    edge = check(model, x, edge_maps(x))
    for name in ("area_between_mean_logit", "insertion_auc_blur_probability"):
        assert found[name].controls["edge_map"].value == pytest.approx(edge[name].interval.value, abs=1e-6)


# -- known answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_of_an_additive_score_the_curves_are_the_sums_of_what_is_hidden(fill):
    model, x = additive(), images(2)
    raw = parts(model, x, fill)
    found = check(model, x, raw)
    worth = raw.view(2, 8, 4, 8, 4).sum((2, 4)).flatten(1).double()
    gone = torch.cat([torch.zeros(2, 1), worth.sort(1, descending=True).values.cumsum(1)], 1)[:, ::8]
    clean = model.predict(x)[:, 1:2].double()
    assert torch.allclose(values(found, f"aopc_{fill}_logit"), gone.mean(1), atol=1e-5)
    expected = torch.trapezoid(clean - gone, dx=1 / 8, dim=1)
    assert torch.allclose(values(found, f"deletion_auc_{fill}_logit"), expected, atol=1e-5)
    assert torch.allclose(curve(found, f"most relevant first ({fill}, logit)"), (clean - gone).mean(0), atol=1e-5)


def test_no_order_of_an_additive_score_beats_the_true_one():
    model, x = additive(), images(2)
    best = check(model, x, parts(model, x, "mean"))
    for seed in range(3):
        other = check(model, x, random_maps(x, seed + 100))
        assert (values(other, "aopc_mean_logit") < values(best, "aopc_mean_logit")).all()
        assert (values(other, "aopc_mean_logit") > values(best, "aopc_least_first_mean_logit")).all()
    assert (values(best, "deletion_auc_mean_logit") < values(best, "insertion_auc_mean_logit")).all()


def test_of_all_orders_of_an_additive_score_the_true_one_is_extreme_and_the_mean_is_half_of_both_ends():
    model = sw.wrap(linear(pixels=3 * 4 * 20), size=(4, 20), batch_size=64, **ZERO_ONE)
    x = images(1, size=(4, 20))
    filled = fill_images(model, x, "mean")
    worth = (model.module.fc.weight[1].detach().view(3, 4, 20) * (x - filled)[0]).sum(0).view(4, 5, 4).sum((0, 2))
    orders = torch.tensor(list(itertools.permutations(range(5))), dtype=torch.float32)  # of five patches, by rank
    found = check(model, x.expand(120, -1, -1, -1), orders.repeat_interleave(4, 1)[:, None].expand(-1, 4, -1), steps=5)
    true = int((orders == worth.argsort().argsort()).all(1).nonzero())
    assert int(values(found, "aopc_mean_logit").argmax()) == true
    assert int(values(found, "deletion_auc_mean_logit").argmin()) == true
    assert int(values(found, "insertion_auc_mean_logit").argmax()) == true
    half = float(model.predict(torch.cat([x, filled]))[:, 1].mean())
    assert float(values(found, "deletion_auc_mean_logit").mean()) == pytest.approx(half, abs=1e-5)


def test_most_first_and_least_first_of_an_additive_score_add_up_to_both_ends():
    model, x = additive(), images(1)
    found = check(model, x, torch.rand(1, 32, 32))
    most, least = (curve(found, f"{way} relevant first (mean, logit)") for way in ("most", "least"))
    assert torch.allclose(most + least.flip(0), (most[0] + most[-1]).expand(9), atol=1e-5)
    ends = model.predict(torch.cat([x, fill_images(model, x, "mean")]))[:, 1].double()
    assert torch.allclose(most[[0, -1]], ends, atol=1e-5)


def test_random_orders_of_an_additive_score_average_to_half_of_both_ends():
    model, x = additive(), images(2)
    found = check(model, x, torch.rand(2, 32, 32), random_orders=60, steps=4)
    ends = model.predict(x)[:, 1] + model.predict(fill_images(model, x, "mean"))[:, 1]
    half = float(ends.mean()) / 2
    one = check(model, x, torch.rand(2, 32, 32), steps=4)["deletion_auc_mean_logit"].controls["random_map"].value
    chance = found["deletion_auc_mean_logit"].controls["random_map"].value
    assert chance != one
    assert chance == pytest.approx(half, abs=0.01)


def test_a_map_times_minus_one_is_reversed_and_times_a_hundred_is_the_same():
    model, x = curved(), images(3)
    raw = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    one, larger, turned = (check(model, x, f * raw) for f in (1, 100, -1))
    for name in ("mean_probability", "blur_logit"):
        assert one[f"aopc_{name}"].per_image == larger[f"aopc_{name}"].per_image
        assert torch.allclose(values(one, f"aopc_{name}"), values(turned, f"aopc_least_first_{name}"), atol=1e-6)
        assert torch.allclose(values(one, f"area_between_{name}"), -values(turned, f"area_between_{name}"), atol=1e-6)


def test_the_true_map_passes_its_opposite_fails_and_a_random_one_does_neither():
    model, x = additive(), images(8)
    raw = parts(model, x, "mean") + parts(model, x, "blur")
    right, wrong, chance = (check(model, x, m, steps=4) for m in (raw, -raw, random_maps(x, 77)))
    assert [found.verdict for found in (right, wrong, chance)] == ["pass", "fail", "unclear"]
    assert "area between the curves" in right.sentence
    assert "worse than a random order" in wrong.sentence


def test_fills_that_disagree_are_unclear():
    model, x = additive(), images(8)
    found = check(model, x, parts(model, x, "black"), fills=("black", "white"), steps=4)
    black, white = (found[f"area_between_{fill}_probability"].interval for fill in ("black", "white"))
    assert black.low > 0
    assert found.verdict == ("pass" if white.low > 0 else "unclear")


def test_a_network_that_ignores_its_input_says_nothing_of_a_map():
    net = linear()
    torch.nn.init.zeros_(net.fc.weight)
    model, x = sw.wrap(net, size=32, **ZERO_ONE), images(4)
    found = check(model, x, torch.rand(4, 32, 32), protocols=ALL, patch=8, steps=2, samples=4)
    assert found.verdict == "unclear"
    assert found["area_between_mean_logit"].interval.value == 0
    assert found["sensitivity_n_mean_logit"].interval.n == 0
    assert found["average_drop_soft_mean"].interval.value == 0
    json.dumps(found.to_dict(), allow_nan=False)


def test_two_fills_that_rank_alike_agree_and_two_that_turn_the_ranking_around_do_not():
    falls = torch.zeros(1, RANDOM + 1, 2, 1)
    falls[0, :, 1, 0] = -torch.tensor([3.0, 0.0, 2.0, 0.0, 1.0])
    shares = torch.tensor([0.0, 1.0]).view(1, 2, 1).expand(RANDOM + 1, 2, 1)
    one, turned = Curves(falls, shares), Curves(-falls, shares)
    assert agreement({"a": one, "b": one}).tolist() == [1]
    assert agreement({"a": one, "b": turned}).tolist() == [-1]
    assert agreement({"a": one, "b": one, "c": turned}).tolist() == pytest.approx([-1 / 3])


# -- units and ties -----------------------------------------------------------------------------------------------------


def test_ties_are_counted_and_broken_by_the_seed_alone():
    model, x = curved(), images(2)
    raw = torch.zeros(2, 32, 32)
    raw[:, :8, :16] = torch.arange(1.0, 9.0).repeat_interleave(16).view(8, 16)
    first, again, other = (check(model, x, raw, seed=seed) for seed in (0, 0, 1))
    assert first["tied_share"].per_image == pytest.approx([1.0] * 2)  # 8 patches of two values, and 56 of zero
    assert values(first, "aopc_mean_logit").tolist() == values(again, "aopc_mean_logit").tolist()
    assert values(first, "aopc_mean_logit").tolist() != values(other, "aopc_mean_logit").tolist()


def test_a_tied_share_counts_every_unit_that_another_equals():
    means = torch.tensor([[3.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, -torch.inf], [4.0, 3.0, 2.0, 1.0]])
    assert tied_share(means, torch.tensor([4, 3, 4])).tolist() == [0.5, 1.0, 0.0]


def test_equal_values_are_ranked_in_the_order_of_the_ties():
    found = ranks(torch.tensor([[1.0, 5.0, 1.0, 1.0]]), torch.tensor([[0.9, 0.1, 0.2, 0.5]]))
    assert found.tolist() == [[3, 0, 1, 2]]


@pytest.mark.parametrize("unit", ["pixel", "superpixel"])
def test_pixels_and_superpixels_are_hidden_too_and_an_image_alone_has_the_same_numbers(unit):
    model, x = curved(), images(3)
    raw = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = check(model, x, raw, unit=unit, patch=None, steps=4)
    alone = check(model, x[1:2], raw[1:2], unit=unit, patch=None, steps=4)
    for score in found.scores:
        assert score.per_image[1] == pytest.approx(alone[score.name].per_image[0], abs=2e-6), score.name
    assert {len(c.points) for c in found.curves} == {5}
    assert all(c.x[0] == 0 and c.x[-1] == 1 for c in found.curves)


def test_the_last_patch_of_an_axis_is_smaller():
    units = units_of(images(1, size=(10, 7)), "patch", 4, 50)
    assert int(units.counts[0]) == 6
    assert units.sizes[0].tolist() == [16, 12, 16, 12, 8, 6]


def test_a_coarse_map_is_drawn_over_the_picture():
    model, x = additive(), images(2)
    coarse = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    fine = torch.nn.functional.interpolate(coarse[:, None], size=(32, 32), mode="bilinear")[:, 0]
    assert check(model, x, coarse)["aopc_mean_logit"].per_image == check(model, x, fine)["aopc_mean_logit"].per_image


@pytest.mark.parametrize(("net", "channels", "size"), [(signal, 2, (40,)), (volume, 1, (6, 8, 10))])
def test_signals_and_volumes_have_patches_too(net, channels, size):
    model = sw.wrap(net(), mean=(0.0,) * channels, std=(1.0,) * channels)
    found = sw.checks.faithfulness(model, images(2, channels, size), PREDICTED, sw.bind("gradient"), patch=2, steps=4)
    assert found["aopc_mean_probability"].interval.n == 2


# -- average drop -------------------------------------------------------------------------------------------------------


def test_a_map_of_all_ones_shows_everything():
    soft, _ = masks_of(torch.ones(2, 6, 6), torch.rand(2, 6, 6))
    assert torch.equal(soft, torch.ones(2, 1, 6, 6))


def test_average_drop_is_the_share_lost_when_only_the_masked_picture_is_shown():
    model, x = curved(), images(4)
    raw = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(3))
    found = check(model, x, raw, protocols=("average_drop",))
    whole = softmax(model.predict(x))
    for fill in ("mean", "blur"):
        base = fill_images(model, x, fill)
        for variant in ("soft", "top_half"):
            for i in range(4):
                positive = raw[i].clamp_min(0) / raw[i].max()
                mask = positive if variant == "soft" else (raw[i] > raw[i].median()).float()
                left = float(softmax(model.predict((base[i] + mask * (x[i] - base[i]))[None])))
                drop = 100 * max(0, float(whole[i]) - left) / float(whole[i])
                assert found[f"average_drop_{variant}_{fill}"].per_image[i] == pytest.approx(drop, abs=1e-3)
                rises = 100.0 * (left > float(whole[i]))
                assert found[f"average_increase_{variant}_{fill}"].per_image[i] == rises
    assert found["coverage"].per_image[0] == pytest.approx(float((raw[0].clamp_min(0) / raw[0].max()).mean()), abs=1e-6)
    assert found.verdict == "no verdict"


# -- infidelity and sensitivity-n ---------------------------------------------------------------------------------------


def test_of_a_linear_score_the_parts_predict_every_removal_exactly():
    model, x = additive(), images(2)
    settings = {"protocols": ("infidelity", "sensitivity_n"), "samples": 8}
    found = check(model, x, parts(model, x, "mean"), **settings)
    assert found["infidelity_mean_logit"].interval.value < 1e-8
    assert found["infidelity_relative_mean_logit"].interval.value < 1e-6
    assert found["sensitivity_n_mean_logit"].interval.value == pytest.approx(1, abs=1e-5)
    assert found["sensitivity_n_mean_logit"].controls["random_map"].value < 0.6


def test_of_a_linear_score_the_gradient_predicts_every_noise_exactly():
    model, x = additive(), images(2)
    raw = model.module.fc.weight[1].detach().view(3, 32, 32).sum(0).expand(2, 32, 32)
    found = check(model, x, raw, protocols=("infidelity",), perturbation="noise", fills=(), samples=8)
    assert found["infidelity_noise_logit"].interval.value < 1e-8
    assert found["infidelity_relative_noise_logit"].controls["edge_map"].value > 0.1


def test_infidelity_as_it_is_knows_the_scale_of_a_map_and_scaled_does_not():
    model, x = curved(), images(2)
    raw = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(3))
    one, larger = (check(model, x, f * raw, protocols=("infidelity",), samples=6) for f in (1, 100))
    assert larger["infidelity_mean_logit"].interval.value > 100 * one["infidelity_mean_logit"].interval.value
    for name in ("infidelity_scaled_mean_logit", "infidelity_relative_blur_probability"):
        assert larger[name].per_image == pytest.approx(one[name].per_image, rel=1e-5)


def test_the_best_scale_of_a_map_is_found():
    predicted, fall = torch.tensor([[1.0], [2.0], [3.0]]).double(), torch.tensor([[[2.0], [4.0], [7.0]]]).double()
    found = infidelity(predicted, fall)
    best = min((float(((b * predicted - fall[0]) ** 2).mean()), b) for b in torch.linspace(2, 2.5, 5001).tolist())
    assert float(found["scaled"]) == pytest.approx(best[0], abs=1e-6)
    assert float(found["raw"]) == pytest.approx((1 + 4 + 16) / 3)


# -- what it costs, and what is refused ---------------------------------------------------------------------------------


def test_the_rows_are_those_that_the_registry_states():
    model, x = curved(), images(3)
    found = sw.checks.faithfulness(model, x, CLASS, given(torch.rand(3, 32, 32)))
    assert found.forward_rows == 3 * 65
    assert found.gradient_rows == 0


def test_road_has_its_own_fill_and_a_verdict():
    model, x = curved(), images(2)
    found = check(model, x, torch.rand(2, 32, 32), protocols=("road",), fills=(), steps=4)
    assert found.forward_rows == 2 * (1 + 5 * 3 + 1)
    assert found["area_between_road_probability"].interval.n == 2
    assert found["aopc_road_logit"].controls["random_map"].n == 2


def test_a_score_that_is_no_class_is_read_on_its_own_scale():
    model, x = sw.wrap(tiny_cnn(), task="regression", size=32, **ZERO_ONE), images(2)
    found = sw.checks.faithfulness(
        model, x, sw.target.output(2), sw.bind("gradient"), protocols=ALL, patch=8, steps=2, samples=4
    )
    assert {s.name.rpartition("_")[2] for s in found.scores if s.name.startswith("aopc")} == {"output"}


def test_too_many_unusable_maps_are_not_valid_and_no_number_is_lost():
    model, x = curved(), images(5)
    raw = torch.rand(5, 32, 32)
    raw[1], raw[3] = 0.5, torch.nan
    found = check(model, x, raw)
    assert found.excluded == {1: "constant", 3: "not finite"}
    assert found.verdict == "not valid"
    assert [math.isnan(v) for v in found["aopc_mean_logit"].per_image] == [False, True, False, True, False]
    assert "2 of 5 maps could not be scored" in found.sentence
    none = check(model, x[:1], raw[1:2])
    assert (none.verdict, none.scores) == ("not valid", ())


def test_images_that_share_a_source_are_resampled_together():
    found = check(curved(), images(4), torch.rand(4, 32, 32), clusters=["a", "a", "b", "b"])
    assert found["aopc_mean_logit"].interval.clusters == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fills": ("mean",)}, "at least two"),
        ({"fills": ("mean", "mean")}, "1 fill given"),
        ({"fills": ("mean", "blurr")}, "unknown fill 'blurr': did you mean 'blur'"),
        ({"fills": "mean"}, "list of names"),
        ({"protocols": ("pixel_fliping",)}, "did you mean 'pixel_flipping'"),
        ({"protocols": ()}, "one or more"),
        ({"unit": "patches"}, "unknown unit 'patches'"),
        ({"unit": "pixel", "patch": 4}, "goes with unit='patch'"),
        ({"patch": 40}, "does not fit into an axis of 32"),
        ({"patch": (4,)}, "one per axis"),
        ({"steps": 65}, "65 steps for 64 patches"),
        ({"steps": 1}, "steps is a whole number of at least 2"),
        ({"random_orders": 0}, "random_orders"),
        ({"protocols": ("infidelity",), "perturbation": "noises"}, "did you mean 'noise'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_before_any_work(settings, message):
    model = curved()
    with pytest.raises(sw.UsageError, match=message.replace("(", r"\(")):
        check(model, images(1), torch.rand(1, 32, 32), **settings)
    assert model.forward_rows == 0


def test_a_pixel_color_is_refused_where_the_bounds_are_unknown():
    model = curved()
    model.bounds = None
    with pytest.raises(sw.RefusalError, match="bounds"):
        check(model, images(1), torch.rand(1, 32, 32), fills=("black", "mean"))


def test_an_image_whose_changed_picture_has_no_score_is_counted_out():
    class Breaking(torch.nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            broken = (flat[:, :3].mean(1) == flat[:, 3:6].mean(1)) & (flat.var(1) < 1e-8)
            return torch.where(broken[:, None], torch.nan, flat[:, :3])

    x = images(3)
    x[0] += 0.3 - x[0].mean((1, 2), keepdim=True)  # gray in the mean: wholly hidden, it is one color
    found = check(sw.wrap(Breaking(), size=32, **ZERO_ONE), x, torch.rand(3, 32, 32))
    assert found.excluded == {0: "the score of a changed picture is not finite"}
    assert found["aopc_mean_logit"].interval.n == 2
    assert found.verdict == "not valid"

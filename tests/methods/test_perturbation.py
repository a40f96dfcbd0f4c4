import captum.attr
import pytest
import torch
from functions import explained, pixels
from torch import nn
from twins_perturbation import occlusion, rise, rise_mask

import seewhy as sw
from nets import MEAN, STD, Linear, images, seeded, signal, tiny_cnn, tiny_vit, volume
from seewhy.methods.perturbation import rise_draws


def probability(net, k):
    kind = next(net.parameters()).dtype
    return lambda image: net(image[None].to(kind))[0].softmax(0)[k].item()


def same(a, b):
    return float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())


def sharp(build):
    """A tiny float64 network whose probabilities move by tenths, not by thousandths, when something is hidden."""
    net = build().double()
    *_, weight, bias = net.parameters()
    with torch.no_grad():
        weight.mul_(40)
        bias.sub_(net(images(4).double()).mean(0))
    return net


class RegionMean(nn.Module):
    """The mean of channel 0 over a rectangle, as a one-number network."""

    def __init__(self, rows, columns):
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x):
        return x[:, 0, self.rows, self.columns].mean((1, 2))[:, None]


# -- occlusion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "stride"), [(8, 8), (8, 4), (5, 5), (7, 3), (12, 5)])
def test_occlusion_equals_its_slow_twin_one_window_at_a_time(patch, stride):
    net, x, fill = sharp(tiny_cnn), images(2), images(2, seed=7)
    e = sw.explain(sw.wrap(net, batch_size=7), x, "occlusion", target=3, patch=patch, stride=stride, baseline=fill)
    for i in range(2):
        wanted = occlusion(probability(net, 3), x[i], fill[i], patch, stride)
        assert same(e.raw[i], wanted)
        assert float(wanted.abs().max()) > 0.01


@pytest.mark.parametrize(("patch", "stride"), [(8, 8), (8, 4), ((16, 4), (4, 2)), (7, 7), (9, 5)])
@pytest.mark.parametrize("net", [sharp(tiny_cnn), sharp(tiny_vit)], ids=["cnn", "vit"])
def test_occlusion_equals_captum_whether_the_windows_fit_or_not(net, patch, stride):
    x = images(2)
    peer = captum.attr.Occlusion(lambda x: net(x.double()).softmax(1))
    sizes, steps = ((3, *v) if isinstance(v, tuple) else (3, v, v) for v in (patch, stride))
    wanted = peer.attribute(x, target=2, sliding_window_shapes=sizes, strides=steps, baselines=0.0)[:, 0]
    e = sw.explain(sw.wrap(net), x, "occlusion", target=2, patch=patch, stride=stride, baseline="black")
    assert same(e.raw, wanted.float())


def test_the_last_window_of_an_axis_is_cut_off_at_the_border():
    weights = torch.arange(1.0, 6.0)
    ours = explained(lambda x: x @ weights, torch.ones(1, 1, 1, 5), "occlusion", patch=(1, 2)).raw.flatten()
    assert ours.tolist() == [3, 3, 7, 7, 5]  # 1 + 2, 3 + 4, and 5 alone


@pytest.mark.parametrize("stride", [4, 8])
def test_occlusion_of_a_linear_score_is_the_window_sum_of_weight_times_difference(stride):
    net, x, fill = seeded(Linear)(), images(2), images(2, seed=3)
    e = sw.explain(sw.wrap(net), x, "occlusion", target=sw.target.logit(1), patch=8, stride=stride, baseline=fill)
    parts = (net.fc.weight[1].detach().view(3, 32, 32) * (x - fill)).sum(1)
    cover = [range(k, k + 8) for k in range(0, 25, stride)]
    for u, v in ((0, 0), (10, 31), (17, 5)):
        windows = [(a, b) for a in cover for b in cover if u in a and v in b]
        wanted = torch.stack([parts[:, a.start : a.stop, b.start : b.stop].sum((1, 2)) for a, b in windows]).mean(0)
        assert torch.allclose(e.raw[:, u, v], wanted, atol=1e-5)


def test_by_default_the_picture_is_cut_into_seven_by_seven_windows():
    model = sw.wrap(tiny_cnn(), size=32)
    e = sw.explain(model, images(2, size=(49, 70)), "occlusion", target=0)
    assert e.evidence["forward_rows"].tolist() == [50, 50]
    assert torch.equal(e.raw[0, :7, :10], e.raw[0, 0, 0].expand(7, 10))
    assert e.raw[0, 7, 0] != e.raw[0, 6, 0]


def test_no_pixel_stays_uncovered_at_the_border():
    e = explained(lambda x: x.sum(1), torch.ones(1, 1, 10, 11), "occlusion", patch=4, stride=3)
    assert float(e.raw.min()) > 0
    assert e.raw[0, 9, 10] == 4 * 2  # rows 6 to 9, columns 9 and 10: the last window, cut off


@pytest.mark.parametrize(("net", "x"), [(signal(), images(2, 2, (33,))), (volume(), images(2, 1, (9, 10, 11)))])
def test_occlusion_and_rise_take_one_and_three_axes(net, x):
    model = sw.wrap(net)
    for method, given in (("occlusion", {"patch": 5, "stride": 3}), ("rise", {"samples": 20, "cells": 3})):
        e = sw.explain(model, x, method, target=1, **given)
        assert e.raw.shape == (2, *x.shape[2:])
        assert e.ok == [True, True]
    line = [x] if x.ndim == 3 else []
    for signals in line:
        e = sw.explain(model, signals, "occlusion", target=1, patch=11)
        for start in (0, 11, 22):
            hidden = signals.clone()
            hidden[:, :, start : start + 11] = 0
            fall = net(signals).softmax(1)[:, 1] - net(hidden).softmax(1)[:, 1]
            assert torch.allclose(e.raw[:, start], fall, atol=1e-6)


def test_hidden_is_the_color_that_the_normalization_maps_to_zero():
    net, x = tiny_cnn(), images(1)
    e = sw.explain(sw.wrap(net, mean=MEAN, std=STD), x, "occlusion", target=1, patch=(32, 16))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    hidden = (x - mean) / std
    with torch.no_grad():
        before = net(hidden).softmax(1)[0, 1]
        hidden[..., :16] = 0
        fall = before - net(hidden).softmax(1)[0, 1]
    assert float(fall) == pytest.approx(float(e.raw[0, 0, 0]), abs=1e-6)


def test_a_score_that_ignores_a_region_gives_it_exactly_zero():
    model = sw.wrap(RegionMean(slice(8, 16), slice(0, 8)), task="regression")
    raw = sw.explain(model, images(1), "occlusion", patch=8).raw[0]
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:16, :8] = True
    assert (raw[~inside] == 0).all()
    assert float(raw[8, 0]) == pytest.approx(float(images(1)[0, 0, 8:16, :8].mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"patch": 0}, "patch"),
        ({"patch": 2.5}, "patch"),
        ({"patch": (4, 4, 4)}, "one per axis"),
        ({"patch": 4, "stride": 5}, "uncovered"),
        ({"stride": 0}, "stride"),
        ({"stride": 6}, "uncovered"),
        ({"baseline": "gray"}, "normalization_mean"),
    ],
)
def test_occlusion_settings_that_cannot_be_meant_are_errors_before_any_row(bad, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), "occlusion", **bad)
    assert model.forward_rows == 0


# -- RISE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "cells", "keep"), [((32, 32), 7, 0.5), ((32, 20), 4, 0.3)])
def test_rise_equals_its_slow_twin_with_the_same_masks(size, cells, keep):
    net, x, fill = tiny_cnn(), images(2, size=size), images(2, size=size, seed=4)
    e = sw.explain(
        sw.wrap(net, batch_size=5), x, "rise", target=2, samples=30, cells=cells, keep=keep, baseline=fill, seed=6
    )
    for i in range(2):
        cell_sizes = [-(-side // cells) for side in size]
        bits, shifts = rise_draws(x[i], cell_sizes, 30, cells, keep, 6)
        masks = [rise_mask(b, s.tolist(), *size) for b, s in zip(bits, shifts, strict=True)]
        assert same(e.raw[i], rise(probability(net, 2), x[i], fill[i], masks, keep))


def test_rise_shifts_are_uniform_and_never_reach_a_whole_cell():
    _, shifts = rise_draws(images(1)[0], [5, 3], 3000, 7, 0.5, 0)
    for axis, cell in enumerate((5, 3)):
        counts = torch.bincount(shifts[:, axis], minlength=cell)
        assert len(counts) == cell
        assert (counts - 3000 / cell).abs().max() < 4 * (3000 / cell) ** 0.5


def test_rise_of_a_constant_score_is_that_score_up_to_the_sampling():
    e = explained(lambda x: 1e-6 * x[:, 0] + 3, images(1, 1, (28, 28)), "rise", samples=2000)
    assert float(e.raw.mean()) == pytest.approx(3, abs=0.03)
    assert float(e.raw.std()) < 3 * 0.02


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_the_mean_mask_is_the_share_that_is_kept(keep):
    x = torch.full((1, 1, 28, 28), 0.5)
    e = explained(lambda x: 1e-6 * x[:, 0] + 1, x, "rise", samples=4000, keep=keep)
    mean_mask = e.raw * keep
    assert float(mean_mask.mean()) == pytest.approx(keep, abs=0.01)
    spread = (keep * (1 - keep) / 4000) ** 0.5  # of a pixel whose mask is 0 or 1; in between it is less
    assert float((mean_mask - keep).abs().max()) < 5 * spread


def test_rise_far_from_what_counts_is_the_share_that_is_kept_not_zero():
    model = sw.wrap(RegionMean(slice(0, 4), slice(0, 4)), task="regression")
    e = sw.explain(model, torch.ones(1, 1, 28, 28), "rise", samples=4000)
    assert float(e.raw[0, 16:, 16:].mean()) == pytest.approx(0.5, abs=0.02)
    assert float(e.raw[0, :3, :3].mean()) > 0.65


def test_the_error_of_rise_falls_as_one_over_the_root_of_the_samples():
    def spread(samples):
        return float(explained(lambda x: 1e-6 * x[:, 0] + 1, images(4, 1, (14, 14)), "rise", samples=samples).raw.std())

    assert spread(100) / spread(1600) == pytest.approx(4, rel=0.25)


def test_rise_draws_its_own_masks_for_every_image_and_the_same_in_every_batch():
    net, x = tiny_cnn(), images(4)
    together = sw.explain(sw.wrap(net, batch_size=3), x, "rise", target=1, samples=40).raw
    for i in range(4):
        assert same(together[i], sw.explain(net, x[i : i + 1], "rise", target=1, samples=40).raw[0])
    twice = sw.explain(net, x[[0, 0]], "rise", target=1, samples=40).raw
    assert torch.equal(twice[0], twice[1])
    constant = explained(lambda x: 1e-6 * x[:, 0] + 1, x[:, :1], "rise", samples=40).raw
    assert not torch.equal(constant[0], constant[1])


def test_the_halves_of_rise_agree_the_more_the_more_samples():
    model, x = sw.wrap(RegionMean(slice(8, 24), slice(4, 16)), task="regression"), images(4)
    low, high = (
        float(sw.explain(model, x, "rise", samples=n).evidence["split_half_correlation"].mean()) for n in (60, 1500)
    )
    assert low < high
    assert high > 0.6
    same_everywhere = explained(lambda x: 0 * x[:, 0], images(1, 1, (8, 8)), "rise", samples=9)
    assert float(same_everywhere.evidence["split_half_correlation"]) == 0


def test_the_split_half_correlation_is_spearmans_of_the_two_halves():
    from scipy.stats import spearmanr

    net, x, keep = tiny_cnn(), images(1), 0.5
    bits, shifts = rise_draws(x[0], [5, 5], 21, 7, keep, 0)
    masks = [rise_mask(b, s.tolist(), 32, 32) for b, s in zip(bits, shifts, strict=True)]
    halves = [rise(probability(net, 1), x[0], torch.zeros_like(x[0]), masks[k::2], keep) for k in (0, 1)]
    e = sw.explain(net, x, "rise", target=1, samples=21)
    wanted = spearmanr(*(half.flatten().numpy() for half in halves)).statistic
    assert float(e.evidence["split_half_correlation"]) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"samples": 1}, "samples"),
        ({"cells": 0}, "cells"),
        ({"keep": 0}, "keep"),
        ({"keep": 1}, "keep"),
        ({"baseline": "grey"}, "normalization_mean"),
    ],
)
def test_rise_settings_that_cannot_be_meant_are_errors_before_any_row(bad, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), "rise", **bad)
    assert model.forward_rows == 0


def test_a_pixel_wide_picture_has_maps_too():
    x = pixels(0.2, 0.9, 0.4)
    assert explained(lambda x: x[:, 1], x, "occlusion", patch=1).raw.flatten().tolist() == pytest.approx([0, 0.9, 0])
    e = explained(lambda x: x[:, 1], x, "rise", samples=3000, cells=3)
    assert int(e.raw.flatten().argmax()) == 1

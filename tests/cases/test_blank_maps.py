"""Blank, tiny, negative and broken maps: a status and a sentence, never NaN, never noise stretched to a picture."""

import json

import numpy as np
import pytest
import torch

import seewhy as sw
from cases.nets import QUICK
from nets import MEAN, STD, Cnn, images, linear, seeded, tiny_cnn, tiny_vit

GRADIENT = ["gradient", "gradient_x_input", "smooth_grad", "integrated_gradients", "grad_cam"]
CAMS = ["grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "grad_cam_pp", "score_cam", "ablation_cam"]


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**QUICK.get(method, {}), **given})


def wrapped(net=None, **given):
    return sw.wrap(tiny_cnn() if net is None else net, **{"mean": MEAN, "std": STD, "size": 32, **given})


def pictures(e, i=0):
    return [np.asarray(e.heatmap(i)), np.asarray(e.overlay(i))]


def against(k=3):
    """Every feature that there is speaks against class k."""
    net = tiny_cnn()
    net.fc.weight.data[k] = -net.fc.weight.data[k].abs() - 0.1
    return net


# row 32


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "xgrad_cam"])
def test_a_cam_without_a_positive_cell_keeps_its_signed_map_and_is_drawn_as_a_sentence(method, tmp_path):
    e = explain(wrapped(against()), images(2), method, target=3)
    assert e.status == [sw.Status.ALL_NEGATIVE] * 2
    assert e.ok == [False, False]
    assert e.raw.min() < 0
    assert not e.raw.clamp_min(0).any()
    assert torch.isfinite(e.maps).all()
    assert all(shown.shape[:2] == (32, 32) for shown in pictures(e))  # no color bar: no map
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert torch.equal(again.raw, e.raw)
    assert again.status == e.status


def test_the_image_with_a_positive_cell_is_drawn_beside_one_without():
    net, x = tiny_cnn(), images(4, seed=3)
    e = explain(wrapped(net), x, "grad_cam", target=[*net(x).argmin(1)[:2].tolist(), 0, 4])
    for i, status in enumerate(e.status):
        assert (status is sw.Status.ALL_NEGATIVE) == (not e.raw[i].clamp_min(0).any())
        assert (pictures(e, i)[0].shape[0] > 32) == e.ok[i]


# row 33


@pytest.mark.parametrize("method", ["score_cam", "ablation_cam", "grad_cam", "grad_cam_pp", "layer_cam"])
@pytest.mark.parametrize("kind", ["constant", "zero", "negative constant"])
def test_a_channel_that_is_the_same_everywhere_has_a_defined_weight_whatever_the_batch_size(method, kind):
    value = {"constant": 0.7, "zero": 0.0, "negative constant": -0.4}[kind]
    net = tiny_cnn()
    net.conv2.weight.data[2].zero_()
    net.conv2.bias.data[2] = 0.0
    net.bn2.running_mean[2], net.bn2.bias.data[2] = 0.0, value
    maps = [explain(wrapped(net, batch_size=size), images(2), method, 1, layer="bn2") for size in (1, 4)]
    assert all(torch.isfinite(e.raw).all() for e in maps)
    assert torch.allclose(maps[0].raw, maps[1].raw, atol=1e-5 * float(maps[0].raw.abs().max()))
    assert set(maps[0].status) <= {sw.Status.OK, sw.Status.ALL_NEGATIVE}


@pytest.mark.parametrize("method", ["score_cam", "ablation_cam", "eigen_cam"])
def test_a_layer_whose_channels_are_all_constant_gives_no_map_and_no_nan(method):
    net = tiny_cnn()
    net.conv2.weight.data.zero_()
    e = explain(wrapped(net), images(1), method, layer="relu2")
    assert e.status == [sw.Status.CONSTANT]
    assert not e.raw.any()


# row 34


def dead():
    net = tiny_cnn()
    net.bn2.bias.data.fill_(-1e3)
    return net


@pytest.mark.parametrize("method", [*GRADIENT, "guided_backprop"])
def test_a_dead_relu_is_a_zero_gradient_and_is_drawn_as_a_sentence(method, tmp_path):
    given = {"layer": "bn2"} if method == "grad_cam" else {}  # at the dead layer itself; after it A = 0, so constant
    e = explain(wrapped(dead()), images(2), method, target=1, **given)
    assert e.status == [sw.Status.ZERO_GRADIENT] * 2
    assert e.validity["gradient_norm"] == [0, 0]
    assert not e.raw.any()
    assert all(shown.shape[:2] == (32, 32) for shown in pictures(e))
    assert sw.read_explanation(e.save(tmp_path / "run")).status == e.status
    assert "zero" in sw.report(tmp_path / "run").read_text()


@pytest.mark.parametrize(
    "method",
    ["occlusion", "score_cam", "kernel_shap", "lime", "rise"],
)
def test_a_score_that_does_not_react_to_the_image_is_constant_without_gradients_too(method):
    e = explain(wrapped(dead()), images(2), method, target=1)
    assert e.status == [sw.Status.CONSTANT] * 2
    assert not e.raw.any()


class DeadForDark(Cnn):
    """Its gradient is zero for dark images only."""

    def forward(self, x):
        return super().forward(x) * (x.mean((1, 2, 3)) > 0.3).float().view(-1, 1)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smooth_grad"])
def test_one_image_without_a_gradient_spoils_no_other(method):
    x = images(3)
    x[1] *= 0.1
    given = {"baseline": "mean"} if method == "integrated_gradients" else {}
    e = explain(sw.wrap(seeded(DeadForDark)()), x, method, 1, **given)
    assert [str(status) for status in e.status] == ["ok", "zero_gradient", "ok"]
    assert all(e.raw[i].any() for i in (0, 2))


class Poisoned(Cnn):
    """NaN, or infinity, for images whose first pixel is bright."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return super().forward(x) + torch.where(x[:, 0, 0, 0] > 0.9, self.value, 0.0).view(-1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion", "rise", "smooth_grad"])
def test_one_image_with_a_score_that_is_not_finite_spoils_no_other_and_no_page(value, method, tmp_path):
    x = images(3) * 0.8
    x[1, 0, 0, 0] = 1.0
    e = explain(sw.wrap(seeded(Poisoned)(value)), x, method, target=2)
    assert e.status[1] is sw.Status.NON_FINITE
    assert torch.isfinite(e.raw).all()
    assert sw.Status.NON_FINITE not in (e.status[0], e.status[2])
    assert all(shown.shape[:2] == (32, 32) for shown in pictures(e, 1))
    e.save(tmp_path / "run")
    for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


class OneBadLogit(Cnn):
    """The logit of another class is infinite."""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:, :4], out[:, 4:] + torch.inf], 1)


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_a_probability_beside_an_infinite_logit_is_not_finite_and_not_called_the_same_everywhere(method):
    e = explain(sw.wrap(seeded(OneBadLogit)()), images(1), method, 1)
    assert e.status == [sw.Status.NON_FINITE]


# row 35


@pytest.mark.parametrize("factor", [1e-9, 1e-30])
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "grad_cam", "integrated_gradients"])
@pytest.mark.parametrize("build", [tiny_cnn, tiny_vit])
def test_a_map_of_tiny_numbers_keeps_them_exactly_and_is_drawn_like_the_large_one(factor, method, build):
    net, x = build(), images(1)
    large = explain(wrapped(net), x, method, 1)
    head = net.fc if hasattr(net, "fc") else net.head
    scale = 2.0 ** round(float(np.log2(factor)))  # exact in float32
    head.weight.data *= scale
    head.bias.data *= scale
    tiny = explain(wrapped(net), x, method, 1)
    assert torch.equal(tiny.raw, large.raw * scale)
    assert tiny.status == large.status
    assert tiny.validity["gradient_norm"][0] == pytest.approx(large.validity["gradient_norm"][0] * scale, rel=1e-5)
    picture, wanted = pictures(tiny)[1], pictures(large)[1]
    assert np.abs(picture[:32].astype(int) - wanted[:32]).max() <= 1  # the picture; below it stand its numbers
    if tiny.ok[0]:
        assert not np.array_equal(picture[32:], wanted[32:])


# row 37


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input"])
def test_two_maps_that_differ_by_ten_times_show_their_own_numbers_at_the_color_bar(method):
    small, large = (
        explain(sw.wrap(linear()), images(1), method, sw.target.of(lambda out, f=f: f * out[:, 1])) for f in (1, 10)
    )
    bars = [pictures(e)[0][32:] for e in (small, large)]
    assert not np.array_equal(*bars)
    assert np.array_equal(pictures(small)[0][:32], pictures(large)[0][:32])  # each over its own range


@pytest.mark.parametrize("how", ["heatmap", "overlay"])
def test_two_maps_that_differ_by_ten_times_are_drawn_on_one_scale_on_request(how):
    net = linear()
    net.fc.weight.data[1] = net.fc.weight.data[0] * 10
    e = explain(sw.wrap(net), images(2), "gradient", [0, 1])
    limit = float(e.raw.abs().max())
    small, large = (np.asarray(getattr(e, how)(i, limit=limit)) for i in (0, 1))
    assert np.array_equal(small[32:], large[32:])  # one color bar
    assert not np.array_equal(small[:32], large[:32])

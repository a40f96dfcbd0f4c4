"""Attributions of captum inside the house: the same numbers, completeness measured by us, refusals before any work."""

import captum.attr
import pytest
import torch
from test_gradient import same
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn, tiny_residual, tiny_vit

INPUT = [
    (captum.attr.Saliency, {"abs": False}),
    (captum.attr.InputXGradient, {}),
    (captum.attr.IntegratedGradients, {"n_steps": 7}),
    (captum.attr.DeepLift, {}),
    (
        captum.attr.FeatureAblation,
        {"feature_mask": torch.arange(16).view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)[None, None]},
    ),
    (captum.attr.Occlusion, {"sliding_window_shapes": (3, 8, 8), "strides": (3, 8, 8)}),
]


def wrapped(net, **given):
    return sw.wrap(net, mean=MEAN, std=STD, **given)


def in_own_space(x):
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks", "ignore:Input Tensor 0 did not")
@pytest.mark.parametrize(("attribution", "given"), INPUT, ids=[kind.__name__ for kind, _ in INPUT])
def test_the_map_is_captums(attribution, given):
    net, x = tiny_cnn(), images(3)
    e = sw.explain(wrapped(net), x, sw.from_captum(attribution, **given), [1, 0, 4])
    wanted = attribution(net).attribute(in_own_space(x), target=torch.tensor([1, 0, 4]), **given).sum(1)
    assert same(e.raw, wanted.detach())
    assert e.ok == [True] * 3


def test_completeness_is_measured_whatever_captum_claims():
    model, x = wrapped(tiny_residual()), images(2)
    e = sw.explain(model, x, sw.from_captum(captum.attr.InputXGradient), 1)
    mean_color = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(x)
    change = model.predict(x)[:, 1] - model.predict(mean_color)[:, 1]
    assert torch.allclose(e.evidence["score_difference"], change, atol=1e-5)
    assert torch.allclose(e.evidence["completeness_gap"], (e.raw.flatten(1).sum(1) - change).abs(), atol=1e-4)
    complete = sw.explain(model, x, sw.from_captum(captum.attr.IntegratedGradients, n_steps=300), 1)
    assert (complete.evidence["completeness_gap_relative"] < 0.05).all()


def test_baselines_one_per_image_go_with_their_image():
    model, x = wrapped(tiny_cnn(), batch_size=2), images(5)
    start = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    e = sw.explain(model, x, sw.from_captum(captum.attr.IntegratedGradients, baselines=start, n_steps=20), 1)
    single = sw.explain(
        model, x[4:], sw.from_captum(captum.attr.IntegratedGradients, baselines=start[4:], n_steps=20), 1
    )
    assert same(e.raw[4], single.raw[0])
    assert torch.allclose(e.evidence["completeness_gap"][4], single.evidence["completeness_gap"][0], atol=1e-4)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_a_distribution_of_baselines_is_held_against_its_mean_score():
    model, x = wrapped(tiny_cnn()), images(2)
    pool = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    e = sw.explain(model, x, sw.from_captum(captum.attr.DeepLiftShap, baselines=pool), 1)
    with torch.no_grad():
        base = model.module(pool)[:, 1].mean()
    assert torch.allclose(e.evidence["score_difference"], model.predict(x)[:, 1] - base, atol=1e-4)


def test_the_rows_that_captum_computes_are_counted():
    model, x = wrapped(tiny_cnn()), images(2)
    e = sw.explain(model, x, sw.from_captum(captum.attr.IntegratedGradients, n_steps=7), 1)
    assert e.evidence["gradient_rows"].tolist() == [7, 7]
    assert e.evidence["forward_rows"].tolist() == [2, 2]


def test_arguments_of_the_constructor_find_their_way():
    x, net = images(1), tiny_cnn()
    given = {"multiply_by_inputs": False, "n_steps": 5}
    e = sw.explain(wrapped(net), x, sw.from_captum(captum.attr.IntegratedGradients, **given), 1)
    peer = captum.attr.IntegratedGradients(net, multiply_by_inputs=False).attribute(
        in_own_space(x), target=1, n_steps=5
    )
    assert same(e.raw, peer.sum(1).float())


@pytest.mark.parametrize(
    "attribution",
    [captum.attr.LayerGradCam, captum.attr.LayerIntegratedGradients, captum.attr.NeuronGradient, captum.attr.LayerLRP],
)
def test_an_attribution_of_a_layer_or_a_neuron_is_refused(attribution):
    with pytest.raises(sw.RefusalError, match="does not lie on the input"):
        sw.from_captum(attribution)


@pytest.mark.parametrize(
    "given", [nn.Linear, captum.attr.DeepLift(tiny_cnn()), "DeepLift", captum.attr.NoiseTunnel, None]
)
def test_what_is_no_attribution_of_an_input_is_a_usage_error(given):
    with pytest.raises(sw.UsageError, match=r"captum\.attr|no attribution"):
        sw.from_captum(given)


def test_an_argument_that_captum_does_not_take_gets_the_near_name():
    with pytest.raises(sw.UsageError, match="n_steps"):
        sw.from_captum(captum.attr.IntegratedGradients, n_step=3)
    with pytest.raises(sw.UsageError, match="target"):
        sw.from_captum(captum.attr.IntegratedGradients, target=3)


@pytest.mark.parametrize("target", ["1 - 2", sw.target.probability(1), lambda out: out[:, 0]])
def test_a_question_that_captum_cannot_ask_is_an_error(target):
    with pytest.raises(sw.UsageError, match="class"):
        sw.explain(wrapped(tiny_cnn()), images(1), sw.from_captum(captum.attr.Saliency), target)


def test_nothing_is_left_on_the_network_and_no_gradient_in_it():
    net, x = tiny_vit(), images(1)
    net.train()
    sw.explain(wrapped(net), x, sw.from_captum(captum.attr.InputXGradient), 1)
    assert all(module.training for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_an_explanation_is_saved_and_read_back(tmp_path):
    e = sw.explain(wrapped(tiny_cnn(), size=32), images(1), sw.from_captum(captum.attr.InputXGradient), 1)
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert torch.equal(again.raw, e.raw)
    assert again.method == "captum_input_x_gradient"
    assert e.overlay().size == again.overlay().size


def test_a_list_of_methods_holds_ours_alone():
    sw.from_captum(captum.attr.DeepLift)
    assert not [m.name for m in sw.methods() if m.name.startswith("captum")]

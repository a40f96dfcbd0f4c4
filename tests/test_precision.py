"""Few digits: float32 maps all the same, and how far they agree with a run in float32."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import seewhy as sw
from awkward_nets import OwnAutocast
from nets import images, tiny_cnn, tiny_vit
from seewhy.faces import words
from seewhy.registry import METHODS
from small import SMALL, knowing, net_of

sw.methods()
RANKED = sorted(name for name in METHODS if METHODS[name].family != "control")
FEW = {
    "float16": (lambda net: net.half(), {}, "float16"),
    "bfloat16": (lambda net: net.to(torch.bfloat16), {}, "bfloat16"),
    "asked for": (lambda net: net, {"precision": "bfloat16"}, "bfloat16"),
    "in the forward": (OwnAutocast, {}, "bfloat16"),
}


def explain(net, method, n=2, target=1, **given):
    return sw.explain(
        sw.wrap(net, **given), images(n), method, target, **{**SMALL.get(method, {}), **knowing(method, target)}
    )


@pytest.mark.parametrize("how", FEW)
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "smooth_grad", "integrated_gradients", "guided_backprop"])
def test_the_map_is_finite_float32_and_ranks_its_cells_as_float32_does(method, how):
    few, given, name = FEW[how]
    e = explain(few(tiny_cnn()), method, **given)
    assert e.raw.dtype == torch.float32
    assert torch.isfinite(e.raw).all()
    assert e.validity["precision"] == name
    exact = explain(tiny_cnn(), method).raw
    for map_, wanted, said in zip(e.raw, exact, e.validity["float32_rank_correlation"], strict=True):
        assert said > 0.95
        if how in ("asked for", "in the forward"):  # in the others the weights are rounded, and stay so
            assert abs(said - spearmanr(map_.flatten(), wanted.flatten()).statistic) < 1e-3


@pytest.mark.parametrize("method", RANKED)
def test_every_method_says_how_far_it_agrees(method):
    target = None if METHODS[method].class_agnostic else 1
    e = explain(net_of(method).to(torch.bfloat16), method, n=1, target=target)
    (found,) = e.validity["float32_rank_correlation"]
    if found is None:
        assert e.raw.amin() == e.raw.amax()
        return
    assert -1 <= found <= 1
    few_values = ("rise", "lime", "kernel_shap", "extremal_perturbation", "deconvnet")  # may be ranked all the same
    assert found != 1 or method in few_values


def test_the_agreement_is_that_of_the_same_weights_in_float32():
    rounded = tiny_cnn().half().float()
    e, wanted = explain(tiny_cnn().half(), "gradient"), explain(rounded, "gradient")
    for i in range(2):
        own = spearmanr(e.raw[i].flatten(), wanted.raw[i].flatten()).statistic
        assert e.validity["float32_rank_correlation"][i] == pytest.approx(own, abs=1e-9)


def test_a_bad_map_is_not_said_to_agree():
    class Coarse(nn.Module):  # whose gradient is of another network where digits are few
        def __init__(self):
            super().__init__()
            self.net, self.other = tiny_cnn(), tiny_cnn(seed=3)

        def forward(self, x):
            return self.other(x) if x.dtype == torch.bfloat16 else self.net(x)

    (found,) = explain(Coarse().to(torch.bfloat16), "gradient", n=1).validity["float32_rank_correlation"]
    assert found < 0.9


def test_float32_and_float64_are_compared_with_nothing():
    for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
        e = explain(tiny_cnn().to(dtype), "gradient")
        assert e.validity["precision"] == name
        assert "float32_rank_correlation" not in e.validity


def test_the_rows_of_the_comparison_are_no_rows_of_the_map():
    net, seen = tiny_cnn(), []
    model = sw.wrap(net, precision="bfloat16")
    sw.explain(model, images(1), "gradient", 1)  # learns how the network reads its input
    model.gradient_rows = 0
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    e = sw.explain(model, images(3), "gradient", 1)
    assert (model.gradient_rows, model.forward_rows) == (3, 0)
    assert e.evidence["gradient_rows"].tolist() == [1, 1, 1]
    assert seen.count(torch.bfloat16) == 1
    assert any("3 compared, 3 more rows" in text for text in e.validity["approximations"])


def test_four_images_are_compared_and_no_expensive_map():
    e = explain(tiny_cnn().half(), "gradient", n=6, target=[4, 3, 2, 1, 0, 0])
    assert min(value for value in e.validity["float32_rank_correlation"][:4]) > 0.99
    assert [value is None for value in e.validity["float32_rank_correlation"]] == [False] * 4 + [True] * 2
    e = sw.explain(sw.wrap(tiny_cnn().half()), images(1), "rise", 1, samples=1100)
    assert e.validity["float32_rank_correlation"] == [None]
    assert any("not compared with float32: a map costs up to 1101 rows" in t for t in e.validity["approximations"])


def test_a_network_that_cannot_be_copied_keeps_its_map_and_says_why_it_is_not_compared():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_cnn()

        def __deepcopy__(self, memo):
            raise RuntimeError("there is only one of me")

        def forward(self, x):
            return self.net(x)

    e = explain(Single().half(), "gradient")
    assert e.ok == [True, True]
    assert e.validity["float32_rank_correlation"] == [None, None]
    assert any("there is only one of me" in text for text in e.validity["approximations"])


@pytest.mark.parametrize("layer", ["relu1", "object", ["relu1", "object"]])
def test_the_comparison_is_taken_at_the_users_layer(layer):
    net = tiny_cnn().half()
    given = [net.relu2 if one == "object" else one for one in (layer if isinstance(layer, list) else [layer])]
    e = sw.explain(sw.wrap(net), images(1), "layer_cam", 1, layer=given)
    assert e.validity["float32_rank_correlation"][0] > 0.99


def test_a_baseline_for_each_image_goes_with_its_image():
    given = {"rule": "midpoint", "steps": 4, "baseline": images(6, seed=4)}
    e = sw.explain(sw.wrap(tiny_vit().half()), images(6), "integrated_gradients", 1, **given)
    assert min(e.validity["float32_rank_correlation"][:4]) > 0.99


def test_the_network_is_left_as_it_was(tmp_path):
    net = tiny_cnn().half().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    e = explain(net, "gradient")
    assert net.training
    assert all(value.dtype == net.state_dict()[name].dtype for name, value in before.items())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    e.save(tmp_path)
    assert sw.read_explanation(tmp_path).validity["float32_rank_correlation"] == e.validity["float32_rank_correlation"]
    assert any("Computed in float16: the rank correlation" in text for text in words.evidence(e.rows()[0][0]))

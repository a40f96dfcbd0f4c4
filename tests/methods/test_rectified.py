"""Guided backpropagation, DeconvNet and Guided Grad-CAM: every ReLU is gated, or the map is refused."""

import captum.attr
import pytest
import torch
from functions import figure_7_f, model_of, pixels
from test_gradient import same
from torch import nn
from torch.nn import functional
from twins import gated_relu

import seewhy as sw
from nets import MEAN, STD, images, seeded, tiny_cnn, tiny_inplace, tiny_residual, tiny_vit


def explain(net, x, method, **given):
    return sw.explain(sw.wrap(net), x, method, 1, **given)


class Net(nn.Module):
    """Two convolutions, each followed by an activation that is given."""

    def __init__(self, activation):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.fc, self.activation = nn.Linear(6, 5), activation

    def forward(self, x):
        x = self.activation(self.conv1(3 * x - 1.5))
        return self.fc(self.activation(self.conv2(x)).mean((2, 3)))


def net(activation):
    return seeded(Net)(activation)


RELUS = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": lambda x: functional.relu(x, inplace=True),
    "method": lambda x: x.relu(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp by a tensor": lambda x: x.clamp(min=torch.tensor(0.0)),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": lambda x: functional.threshold(x, 0, 0),
}
RELU6S = {
    "module": nn.ReLU6(),
    "in place": nn.ReLU6(inplace=True),
    "functional": functional.relu6,
    "hardtanh": nn.Hardtanh(0, 6),
    "clamp": lambda x: x.clamp(0, 6),
}
KINDS = [(f"relu {k}", v, None) for k, v in RELUS.items()] + [(f"relu6 {k}", v, 6.0) for k, v in RELU6S.items()]


@pytest.mark.parametrize(("activation", "top"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
@pytest.mark.parametrize(("method", "rule"), [("guided_backprop", "guided"), ("deconvnet", "deconvnet")])
def test_every_spelling_of_a_relu_is_gated(activation, top, method, rule):
    x = images(2)
    e = explain(net(activation), x, method)
    twin = net(lambda z: gated_relu(z, rule, top))
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(twin(leaf)[:, 1].sum(), leaf)
    assert same(e.raw, wanted.sum(1))
    assert e.evidence["relus_gated"].tolist() == [2, 2]
    assert not same(e.raw, explain(net(activation), x, "gradient").raw, 1e-2)


@pytest.mark.parametrize("build", [tiny_cnn, tiny_inplace, tiny_residual])
@pytest.mark.parametrize(
    ("method", "peer"), [("guided_backprop", captum.attr.GuidedBackprop), ("deconvnet", captum.attr.Deconvolution)]
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
def test_captum_agrees_where_every_relu_is_a_module_of_its_own(build, method, peer):
    x = images(2)
    if build is tiny_residual:
        pytest.skip("one ReLU module is called twice there: captum counts on one call")
    ours = sw.explain(build(), x, method, 1).raw
    assert same(ours, peer(build()).attribute(x.clone().requires_grad_(), target=1).sum(1))


def test_a_relu_called_twice_is_gated_twice():
    e = explain(tiny_residual(), images(1), "guided_backprop")
    assert e.evidence["relus_gated"].tolist() == [4]


def test_the_papers_example_of_blindness():
    model, x = model_of(figure_7_f), pixels(3.0, 1.0)
    raw = {m: sw.explain(model, x, m).raw.flatten().tolist() for m in ("gradient", "guided_backprop", "deconvnet")}
    assert raw == {"gradient": [1.0, -1.0], "guided_backprop": [1.0, 0.0], "deconvnet": [1.0, 0.0]}


def test_two_implementations_of_one_function_get_different_maps():
    identity = model_of(lambda x: torch.relu(x[:, 0]) - torch.relu(-x[:, 0]))
    found = {m: float(sw.explain(identity, pixels(-1.0), m).raw) for m in ("gradient", "deconvnet")}
    assert found == {"gradient": 1.0, "deconvnet": 1.0}
    assert float(sw.explain(identity, pixels(-1.0), "guided_backprop").raw) == 0.0


def test_where_all_signals_are_positive_guided_is_the_gradient():
    model = model_of(lambda x: torch.relu(2 * x[:, 0] + x[:, 1]) + torch.relu(x[:, 0] - x[:, 1]))
    guided, plain = (sw.explain(model, pixels(3.0, 1.0), m).raw for m in ("guided_backprop", "gradient"))
    assert torch.equal(guided, plain)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "guided_grad_cam"])
@pytest.mark.parametrize(
    ("activation", "named"),
    [
        (nn.Hardtanh(-1, 1), "2 clamp at another bound"),
        (lambda x: x.clamp(min=-0.5), "2 clamp at another bound"),
        (nn.SiLU(), "2 SiLU"),
        (nn.GELU(), "2 GELU"),
        (nn.LeakyReLU(), "2 LeakyReLU"),
        (nn.Identity(), "no activation"),
    ],
)
def test_a_network_without_a_relu_is_refused_and_told_what_it_has(method, activation, named):
    with pytest.raises(sw.RefusalError, match=named):
        explain(net(activation), images(1), method)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_transformer_is_refused(method):
    with pytest.raises(sw.RefusalError, match="GELU"):
        explain(tiny_vit(), images(1), method)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_what_is_not_covered_is_named():
    e = explain(net(lambda x: functional.relu(functional.silu(Swish.apply(x)))), images(1), "guided_backprop")
    assert any("2 SiLU, 2 Swish" in text for text in e.validity["approximations"])
    assert "image more than the model" in e.validity["warning"]
    assert explain(net(nn.ReLU()), images(1), "guided_backprop").validity["approximations"] == []


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused():
    with pytest.raises(sw.RefusalError, match="scripted"):
        explain(torch.jit.script(tiny_cnn()), images(1), "guided_backprop")


@pytest.mark.parametrize("build", [tiny_cnn, tiny_inplace, tiny_residual])
def test_guided_grad_cam_is_the_product(build):
    x, model = images(2), sw.wrap(build(), mean=MEAN, std=STD)
    e = sw.explain(model, x, "guided_grad_cam", 1)
    guided = sw.explain(model, x, "guided_backprop", 1).raw
    cam = sw.explain(model, x, "grad_cam", 1).raw.clamp_min(0)
    region = functional.interpolate(cam[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    assert same(e.raw, guided * region)
    assert e.layer == sw.explain(model, x, "grad_cam", 1).layer


def test_guided_grad_cam_takes_a_layer():
    e = explain(tiny_cnn(), images(1), "guided_grad_cam", layer="relu1")
    assert e.layer == "relu1"

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional
from twins import grad_cam
from twins_cam import captured, grad_cam_pp, per_cell, xgrad_cam

import seewhy as sw
from nets import channels_last, dense_like, signal, tiny_cnn, tiny_residual, tiny_vit, volume


def images(n=3, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


class PooledLinear(nn.Module):
    """Features, global average pool, linear: the network of the paper's proof."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def test_grad_cam_on_pooling_and_linear_is_cam_over_the_number_of_cells():
    net, x = PooledLinear().eval(), images()
    e = sw.explain(net, x, "grad_cam", target=2, layer="features")
    maps = net.features(x)
    cells = maps.shape[2] * maps.shape[3]
    cam = torch.einsum("k,nkij->nij", net.head.weight[2], maps) / cells
    assert torch.allclose(e.raw, cam, atol=1e-6)


def test_grad_cam_equals_its_slow_twin_cell_by_cell():
    net, x = tiny_residual(), images(2)
    e = sw.explain(net, x, "grad_cam", target=1)
    kept = {}
    module = dict(net.named_modules())[e.layer]
    handle = module.register_forward_hook(lambda m, i, o: kept.update(a=o) or o.retain_grad())
    net(x)[:, 1].sum().backward()
    handle.remove()
    for i in range(2):
        wanted = grad_cam(kept["a"][i].detach(), kept["a"].grad[i])
        assert (e.raw[i] - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("net", [tiny_cnn(), tiny_residual()], ids=["cnn", "residual"])
def test_grad_cam_equals_captum_at_the_same_layer(net):
    x = images()
    e = sw.explain(net, x, "grad_cam", target=3)
    peer = captum.attr.LayerGradCam(net, dict(net.named_modules())[e.layer]).attribute(x, target=3)[:, 0].detach()
    assert (e.raw - peer).abs().max() <= 1e-5 * peer.abs().max()


def test_the_map_stays_signed_and_is_never_rescaled():
    net, x = tiny_cnn(), images()
    e = sw.explain(net, x, "grad_cam", target=0)
    opposite = sw.explain(net, x, "grad_cam", target=sw.target.of(lambda outputs: -outputs[:, 0]))
    assert torch.allclose(e.raw, -opposite.raw, atol=1e-7)
    assert min(float(e.raw.min()), float(opposite.raw.min())) < 0


def test_a_scaled_score_scales_the_map():
    net, x = tiny_cnn(), images()
    one = sw.explain(net, x, "grad_cam", target=sw.target.of(lambda o: o[:, 0])).raw
    small = sw.explain(net, x, "grad_cam", target=sw.target.of(lambda o: 1e-6 * o[:, 0])).raw
    assert torch.allclose(small * 1e6, one, rtol=1e-4, atol=1e-6 * float(one.abs().max()))


def test_one_gradient_row_an_image_and_no_forward_row():
    model = sw.wrap(tiny_cnn())
    sw.explain(model, images(5), "grad_cam")
    assert (model.gradient_rows, model.forward_rows) == (5, 0)


def test_two_layers_at_once_are_refused():
    with pytest.raises(sw.UsageError, match="takes one layer"):
        sw.explain(tiny_cnn(), images(1), "grad_cam", layer=["a", "b"])


# -- the family on global average pooling + one linear layer: every answer is known --------------------------------

ON_POOLING = ("cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam")


def close(ours, wanted, tolerance=1e-5):
    return float((ours - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def relative(ours, wanted):
    return float((ours - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def pooled():
    net, x = PooledLinear().eval(), images()
    with torch.no_grad():
        maps = net.features(x)
    made = {name: sw.explain(net, x, name, target=2, layer="features").raw for name in ON_POOLING}
    return net.head.weight[2].detach(), maps, maps.shape[2] * maps.shape[3], made


def test_cam_is_the_weighted_sum_and_its_mean_is_the_score_without_bias(pooled):
    weights, maps, _, made = pooled
    assert close(made["cam"], torch.einsum("k,nkij->nij", weights, maps))
    net, x = PooledLinear().eval(), images()
    assert torch.allclose(made["cam"].mean((1, 2)) + net.head.bias[2], net(x)[:, 2], atol=1e-6)


def test_on_pooling_and_linear_grad_cam_hires_cam_and_xgrad_cam_are_cam_over_the_number_of_cells(pooled):
    _, _, cells, made = pooled
    for name in ("grad_cam", "hires_cam", "xgrad_cam"):
        assert close(made[name] * cells, made["cam"])


def test_on_pooling_and_linear_layer_cam_and_the_code_of_grad_cam_pp_are_cam_with_positive_weights(pooled):
    weights, maps, cells, made = pooled
    positive = torch.einsum("k,nkij->nij", weights.clamp_min(0), maps) / cells
    assert close(made["layer_cam"], positive)
    assert close(made["grad_cam_pp"], positive)
    assert not close(made["grad_cam"], positive, 0.01)


def test_on_pooling_and_linear_the_formula_of_grad_cam_pp_has_its_closed_form(pooled):
    weights, maps, _, _ = pooled
    e = sw.explain(PooledLinear().eval(), images(), "grad_cam_pp", target=2, layer="features", variant="paper")
    w = weights.clamp_min(0) / (2 + weights.clamp_min(0) * maps.mean((2, 3)))
    assert close(e.raw, torch.einsum("nk,nkij->nij", w, maps))


# -- CAM: the head is tested, not looked up ------------------------------------------------------------------------


class Headed(nn.Module):
    """ReLU features with a head that is given; positive biases keep every channel alive."""

    def __init__(self, head, relu=True):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU() if relu else nn.Identity())
        self.head = head

    def forward(self, x):
        return self.head(self.features(x))


class Head(nn.Module):
    def __init__(self, function, channels=6):
        super().__init__()
        torch.manual_seed(4)
        self.function, self.linear = function, nn.Linear(channels, 4)

    def forward(self, a):
        return self.linear(self.function(a))


def mean(a):
    return a.mean((2, 3))


LINEAR_ON_WHAT_IS_POSITIVE = "relu of averages without bias"
NOT_LINEAR = {
    "maximum": lambda a: a.amax((2, 3)),
    "generalized mean": lambda a: (a.clamp_min(1e-6) ** 3).mean((2, 3)) ** (1 / 3),
    "relu of averages": lambda a: torch.relu(mean(a) - 0.05),
    "relu of averages without bias": lambda a: torch.relu(mean(a)),
    "layer normalization": lambda a: functional.layer_norm(mean(a), (6,)),
    "unit length": lambda a: functional.normalize(mean(a)),
    "tanh": lambda a: torch.tanh(3 * mean(a)),
    "hardswish": lambda a: functional.hardswish(mean(a)),
    "gate": lambda a: mean(a) * torch.sigmoid(mean(a).flip(1)),
    "weighted cells": lambda a: (a * torch.linspace(0.9, 1.1, 64).view(8, 8)).mean((2, 3)),
}


@pytest.mark.parametrize("name", sorted(set(NOT_LINEAR) - {LINEAR_ON_WHAT_IS_POSITIVE}))
def test_cam_refuses_a_head_that_is_not_linear_in_the_averages_and_names_the_layer(name):
    model = sw.wrap(Headed(Head(NOT_LINEAR[name])).eval())
    with pytest.raises(sw.RefusalError, match=r"layer 'features'.*its gradient there (is not|changes).*grad_cam"):
        sw.explain(model, images(2), "cam", target=1, layer="features")


@pytest.mark.parametrize("name", ["relu of averages", LINEAR_ON_WHAT_IS_POSITIVE, "tanh", "layer normalization"])
def test_cam_refuses_a_nonlinear_head_also_where_no_relu_comes_before(name):
    model = sw.wrap(Headed(Head(NOT_LINEAR[name]), relu=False).eval())
    with pytest.raises(sw.RefusalError, match="changes with its activations"):
        sw.explain(model, images(2), "cam", target=1, layer="features")


@pytest.mark.parametrize(
    "function",
    [
        mean,
        lambda a: a.sum((2, 3)),
        lambda a: 5 * mean(a) - 7,
        lambda a: functional.batch_norm(mean(a), torch.ones(6), torch.full((6,), 0.2)),
    ],
    ids=["mean", "sum", "affine", "batch normalization"],
)
def test_cam_takes_every_head_that_is_linear_whatever_its_modules_are_called(function):
    net, x = Headed(Head(function)).eval(), images(2)
    e = sw.explain(net, x, "cam", target=1, layer="features")
    zero = net.head(torch.zeros_like(net.features(x)))[:, 1]
    assert torch.allclose(e.raw.mean((1, 2)) + zero, net(x)[:, 1], atol=1e-5)


def test_cam_refuses_the_layer_before_the_last_relu():
    with pytest.raises(sw.RefusalError, match=r"features\.0"):
        sw.explain(PooledLinear().eval(), images(1), "cam", layer="features.0")


def test_cam_refuses_a_probability_before_any_row_and_takes_a_margin():
    model, x = sw.wrap(PooledLinear().eval()), images(2)
    with pytest.raises(sw.RefusalError, match="logit"):
        sw.explain(model, x, "cam", target=sw.target.probability(1), layer="features")
    assert model.gradient_rows == 0
    margin = sw.explain(model, x, "cam", target=sw.target.margin(1, 2), layer="features").raw
    one, two = (sw.explain(model, x, "cam", target=k, layer="features").raw for k in (1, 2))
    assert close(margin, one - two)


def test_cam_works_on_an_average_pooled_vit_and_refuses_one_with_a_class_token():
    net, x = tiny_vit(class_token=False), images(2)
    e = sw.explain(net, x, "cam", target=1)
    assert e.layer == "norm"
    assert torch.allclose(e.raw.mean((1, 2)) + net.head.bias[1], net(x)[:, 1], atol=1e-5)
    with pytest.raises(sw.RefusalError, match="cam needs a score that is linear"):
        sw.explain(tiny_vit(), x, "cam", target=1)


@pytest.mark.parametrize("build", [dense_like])
def test_cam_at_a_norm_that_a_functional_relu_follows_is_refused(build):
    with pytest.raises(sw.RefusalError, match="cam needs a score"):
        sw.explain(build(), images(1), "cam")


def test_cam_of_a_network_in_low_precision_is_not_refused_for_its_rounding():
    net, x = tiny_cnn(), images(2)
    e = sw.explain(sw.wrap(net, precision="bfloat16"), x, "cam", target=1)
    assert relative(e.raw, sw.explain(net, x, "cam", target=1).raw) < 0.05


def test_cam_equals_torchcam_where_torchcam_finds_the_linear_layer():
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = tiny_cnn(), images(2)
    with torchcam.CAM(net, "relu2", "fc", input_shape=(3, 32, 32)) as peer:
        net(x)
        (theirs,) = peer(3, normalized=False)
    assert close(sw.explain(net, x, "cam", target=3).raw, theirs)


# -- each against its slow twin and against peers -------------------------------------------------------------------

TWINS = {
    ("grad_cam_pp", "code"): lambda a, g: grad_cam_pp(a, g, "code"),
    ("grad_cam_pp", "paper"): lambda a, g: grad_cam_pp(a, g, "paper"),
    ("xgrad_cam", None): xgrad_cam,
    ("hires_cam", None): lambda a, g: per_cell(a, g, positive=False),
    ("layer_cam", None): lambda a, g: per_cell(a, g, positive=True),
}


@pytest.mark.parametrize(("method", "variant"), TWINS)
@pytest.mark.parametrize(("build", "layer"), [(tiny_cnn, "relu1"), (tiny_residual, "layer1")])
def test_a_gradient_cam_equals_its_slow_twin_at_a_layer_whose_gradient_varies(method, variant, build, layer):
    net, x = build(), images(2)
    given = {"variant": variant} if variant else {}
    e = sw.explain(net, x, method, target=1, layer=layer, **given)
    for i in range(2):
        wanted = TWINS[method, variant](*captured(net, layer, x[i], lambda out: out[1]))
        assert close(e.raw[i], wanted.float())


@pytest.mark.parametrize(("method", "peer"), [("xgrad_cam", "XGradCAM"), ("layer_cam", "LayerCAM")])
def test_a_gradient_cam_equals_torchcam(method, peer):
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = tiny_residual(), images(2)
    with getattr(torchcam, peer)(net, "layer1", input_shape=(3, 32, 32)) as extractor:
        (theirs,) = extractor(3, net(x), normalized=False)
    assert close(sw.explain(net, x, method, target=3, layer="layer1").raw.clamp_min(0), theirs.detach())


@pytest.mark.parametrize(
    ("method", "peer"), [("xgrad_cam", "XGradCAM"), ("layer_cam", "LayerCAM"), ("hires_cam", "HiResCAM")]
)
def test_a_gradient_cam_equals_pytorch_grad_cam(method, peer):
    theirs = getattr(pytest.importorskip("pytorch_grad_cam"), peer)
    net, image = tiny_residual(), images(1)[0]
    a, g = (t[None].numpy() for t in captured(net, "layer1", image, lambda out: out[3]))
    if peer == "XGradCAM":
        weights = torch.from_numpy(theirs.get_cam_weights(None, None, None, None, a, g))
        wanted = (weights[:, :, None, None] * torch.from_numpy(a)).sum(1)
    else:
        wanted = torch.from_numpy(theirs.get_cam_image(None, None, None, None, a, g, False))
    assert close(sw.explain(net, image[None], method, target=3, layer="layer1").raw, wanted)


# -- Grad-CAM++ ----------------------------------------------------------------------------------------------------


class Known(nn.Module):
    """The input is the layer; the score is t times the sum of g A: activations and gradients are what we say."""

    def __init__(self, gradients, t=1.0):
        super().__init__()
        self.layer, self.gradients, self.t = nn.Identity(), gradients, t

    def forward(self, x):
        score = self.t * (self.gradients * self.layer(x)).flatten(1).sum(1)
        return torch.stack([score, 0 * score], 1)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_grad_cam_pp_follows_the_formula_at_every_scale_of_the_score_without_a_cliff(variant):
    generator = torch.Generator().manual_seed(1)
    a, g = torch.rand(2, 3, 4, 4, generator=generator), torch.randn(3, 4, 4, generator=generator)
    for t in (1e3, 1.0, 1e-3, 1e-9, 1e-18, 1e-30):
        e = sw.explain(Known(g, t), a, "grad_cam_pp", target=0, layer="layer", variant=variant)
        positive, total = (t * g).clamp_min(0).double(), a.double().sum((2, 3))[:, :, None, None]
        alpha = 1 / (2 + positive * total)
        if variant == "code":
            alpha = alpha / (alpha * (positive > 0)).sum((2, 3), keepdim=True)
        weights = (alpha * positive).sum((2, 3), keepdim=True)
        assert relative(e.raw, (weights * a).sum(1).float()) < 1e-5


def test_the_code_of_grad_cam_pp_keeps_the_shape_of_its_map_at_small_scales_and_the_formula_does_too():
    g = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    a = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    for variant in ("paper", "code"):
        one, small = (
            sw.explain(Known(g, t), a, "grad_cam_pp", target=0, layer="layer", variant=variant).raw
            for t in (1e-6, 1e-12)
        )
        assert relative(small * 1e6, one) < 1e-4


def test_grad_cam_pp_has_no_pole_where_a_channel_has_a_negative_sum_and_says_so():
    # the formula's denominator is 2 + g sum A: zero here in the first channel, negative in the second
    shape = torch.tensor([[0.5, 1.5], [1.2, 0.8]])  # sums to 4
    a = torch.stack([-0.5 * shape, -2.0 * shape, 1.0 * shape])[None]
    g = torch.ones(3, 2, 2)
    e = sw.explain(Known(g), a, "grad_cam_pp", target=0, layer="layer", variant="paper")
    weights = torch.tensor([4 / 2, 4 / 2, 4 / 6])
    assert torch.allclose(e.raw, torch.einsum("k,nkij->nij", weights, a))
    assert float(e.evidence["smallest_sum"]) == -1
    assert any("negative sum" in text for text in e.validity["approximations"])
    positive = sw.explain(Known(g), a.abs(), "grad_cam_pp", target=0, layer="layer")
    assert positive.validity["approximations"] == []


def test_grad_cam_pp_without_a_positive_gradient_is_a_map_of_zeros_not_nan():
    e = sw.explain(Known(-torch.ones(3, 4, 4)), images(1)[:, :, :4, :4], "grad_cam_pp", target=0, layer="layer")
    assert torch.equal(e.raw, torch.zeros(1, 4, 4))
    assert e.status == [sw.Status.CONSTANT]


def test_pytorch_grad_cams_epsilon_loses_small_gradients_and_ours_does_not():
    peer = pytest.importorskip("pytorch_grad_cam").GradCAMPlusPlus
    a, g = torch.linspace(0.5, 1.5, 16).view(1, 1, 4, 4), torch.full((1, 1, 4, 4), 6e-5)
    theirs = peer.get_cam_weights(None, None, None, None, a.numpy(), g.numpy()).item()
    right = 16 * 6e-5 / (2 + 6e-5 * 16)
    net = Known(torch.full((1, 4, 4), 6e-5))
    ours = sw.explain(net, a, "grad_cam_pp", target=0, layer="layer", variant="paper").raw
    assert torch.allclose(ours, right * a[:, 0], rtol=1e-5, atol=0)
    assert theirs < 0.01 * right


def test_torchcams_weights_are_cubes_of_the_gradient_as_its_division_acts_on_a_copy():
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = tiny_residual(), images(1)
    with torchcam.GradCAMpp(net, "layer1", input_shape=(3, 32, 32)) as extractor:
        (theirs,) = extractor(3, net(x), normalized=False)
    a, g = captured(net, "layer1", x[0], lambda out: out[3])
    cubes = (g.clamp_min(0) ** 3).sum((1, 2))
    assert close(theirs[0].detach(), torch.einsum("k,kij->ij", cubes, a), 1e-4)


# -- XGrad-CAM and HiResCAM ------------------------------------------------------------------------------------------


def test_xgrad_cam_conserves_gradient_times_activation():
    net, x = tiny_residual(), images(2)
    x_map, h_map = (sw.explain(net, x, m, target=1, layer="layer1").raw for m in ("xgrad_cam", "hires_cam"))
    assert torch.allclose(x_map.sum((1, 2)), h_map.sum((1, 2)), rtol=1e-4)
    assert relative(x_map, h_map) > 0.05


def test_a_channel_without_activation_gets_no_weight_in_xgrad_cam():
    a = torch.rand(1, 2, 4, 4)
    a[:, 0] = 0
    g = torch.rand(2, 4, 4)
    e = sw.explain(Known(g), a, "xgrad_cam", target=0, layer="layer")
    assert torch.allclose(e.raw[0], (g[1] * a[0, 1]).sum() / a[0, 1].sum() * a[0, 1])
    assert float(e.evidence["smallest_sum"]) == 1


def test_xgrad_cam_says_where_its_sums_cancel():
    a = torch.tensor([[[[1.0, -0.99], [0.5, -0.5]]]])
    e = sw.explain(Known(torch.ones(1, 2, 2)), a, "xgrad_cam", target=0, layer="layer")
    assert float(e.evidence["smallest_sum"]) == pytest.approx(0.01 / 2.99, rel=1e-3)
    assert any("cancel" in text for text in e.validity["approximations"])


def test_hires_cam_shows_only_cells_that_the_score_uses_where_grad_cam_spreads():
    a, g = torch.rand(1, 2, 4, 4) + 0.1, torch.zeros(2, 4, 4)
    g[:, 0] = 1
    hires, grad = (sw.explain(Known(g), a, m, target=0, layer="layer").raw for m in ("hires_cam", "grad_cam"))
    assert torch.equal(hires[0, 1:], torch.zeros(3, 4))
    assert (hires[0, 0] > 0).all()
    assert (grad[0, 1:] > 0).all()
    assert float(hires.sum()) == pytest.approx(float((g * a).sum()), rel=1e-5)


def test_hires_cam_refuses_what_would_be_rounding_errors_in_front_of_a_layer_normalization():
    with pytest.raises(sw.RefusalError, match=r"cancels at layer 'blocks\.0'"):
        sw.explain(tiny_vit(), images(2), "hires_cam", target=1)
    e = sw.explain(tiny_vit(), images(2), "hires_cam", target=1, layer="blocks.1.norm1")
    assert (e.evidence["uncanceled"] > 0.1).all()


# -- forms of layers and images --------------------------------------------------------------------------------------

ANYWHERE = ("grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "finer_cam")


@pytest.mark.parametrize("method", ANYWHERE)
@pytest.mark.parametrize(
    ("build", "shape"),
    [(channels_last, (3, 32, 32)), (signal, (2, 64)), (volume, (1, 16, 16, 16))],
    ids=["channels last", "signal", "volume"],
)
def test_a_cam_works_on_channels_last_signals_and_volumes_each_image_alone(method, build, shape):
    net, x = build(), torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    together = sw.explain(net, x, method, target=[0, 3, 1])
    assert together.raw.ndim == x.ndim - 1
    for i, k in enumerate((0, 3, 1)):
        assert close(together.raw[i], sw.explain(net, x[i : i + 1], method, target=k).raw[0])


@pytest.mark.parametrize(("method", "given"), [("grad_cam_pp", {"variant": "papre"}), ("finer_cam", {"variant": 1})])
def test_an_unknown_variant_is_an_error_before_any_row(method, given):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match="variant"):
        sw.explain(model, images(1), method, **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


# -- what these maps need of the model -------------------------------------------------------------------------------


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unreached = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(3, 4, 3, 4, 1)

    def forward(self, x):
        return torch.stack([(self.layer(x) ** 2).flatten(1).sum(1), 0 * x.flatten(1).sum(1)], 1)


def test_the_gradient_at_scaled_activations_is_that_of_a_network_that_is_shown_them():
    torch.manual_seed(0)
    net, x = Squares().eval(), images(2)
    model, question, rows = sw.wrap(net), sw.target.logit(0), torch.arange(2)
    chosen = [model.find_layer("layer", (3, 32, 32), question)]
    (a,), (g,), clean = model.activations_and_gradients(x, question, rows, chosen)
    (_,), (scaled,), other = model.activations_and_gradients(x, question, rows, chosen, -0.5)
    assert torch.allclose(g, 2 * a)
    assert torch.allclose(scaled, -a)
    assert torch.allclose(other.values, clean.values / 4)
    assert model.gradient_rows == 4


def test_activations_alone_are_those_of_the_forward_that_answers_and_cost_no_gradient():
    net, x = tiny_vit(), images(3)
    model, rows = sw.wrap(net), torch.arange(3)
    question = sw.target.logit([1, 0, 2])
    chosen = model.find_layers(["patch", "blocks.0"], (3, 32, 32), question)
    alone, answer = model.activations(x, question, rows, chosen)
    both, _, other = model.activations_and_gradients(x, question, rows, chosen)
    assert all(torch.equal(one, two) for one, two in zip(alone, both, strict=True))
    assert torch.equal(answer.values, other.values)
    assert (model.forward_rows, model.gradient_rows) == (3, 3)


def test_a_layer_that_one_image_does_not_reach_is_refused():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.fc = nn.Conv2d(3, 4, 3, 4, 1), nn.Linear(4, 3)

        def forward(self, x):
            found = self.layer(x) if float(x.mean()) < 0.9 else 0 * x[:, :1, ::4, ::4].expand(-1, 4, -1, -1)
            return self.fc(found.mean((2, 3)))

    for method in ("eigen_cam", "grad_cam"):
        with pytest.raises(sw.RefusalError, match="not reached"):
            sw.explain(Sometimes().eval(), torch.ones(1, 3, 32, 32), method, layer="layer")

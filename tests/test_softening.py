"""Softplus in place of every ReLU, wherever a network keeps it; the user's own network is not touched."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from nets import (
    MEAN,
    STD,
    Linear,
    checkpointed,
    dense_like,
    images,
    relu_thrice,
    seeded,
    tiny_cnn,
    tiny_inplace,
    tiny_vit,
)
from seewhy.capture import SoftReLUs, version
from seewhy.softening import softened, with_soft_relus
from seewhy.wrapping import wrap

BETA = 3.0
X = torch.linspace(-4, 9, 60, dtype=torch.float64).view(1, 1, 6, 10)


def soft(x, high=math.inf, beta=BETA):
    def softplus(values):
        return torch.log1p(torch.exp(beta * values)) / beta

    return softplus(x) - (0 if math.isinf(high) else softplus(x - high))


class One(nn.Module):
    """One activation, its output as it is."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.activation(x.clone()).flatten(1)


def through(activation):
    model = wrap(One(activation).double(), batch_size=2)
    return softened(model, BETA).forward(X).view_as(X)


@pytest.mark.parametrize(
    ("activation", "high"),
    [
        (nn.ReLU(), math.inf),
        (nn.ReLU(inplace=True), math.inf),
        (functional.relu, math.inf),
        (lambda x: functional.relu(x, True), math.inf),
        (lambda x: functional.relu(input=x, inplace=True), math.inf),
        (torch.relu, math.inf),
        (torch.relu_, math.inf),
        (torch.Tensor.relu, math.inf),
        (lambda x: x.relu_(), math.inf),
        (torch.ops.aten.relu.default, math.inf),
        (lambda x: x.clamp(min=0), math.inf),
        (lambda x: x.clamp_(0), math.inf),
        (lambda x: torch.clamp_min(x, torch.tensor(0.0)), math.inf),
        (lambda x: x.clip(0, 2), 2),
        (nn.Threshold(0, 0), math.inf),
        (nn.ReLU6(), 6),
        (nn.ReLU6(inplace=True), 6),
        (functional.relu6, 6),
        (nn.Hardtanh(0, 4), 4),
        (lambda x: functional.hardtanh(x, 0, 4, True), 4),
    ],
)
def test_every_form_of_a_relu_is_softened(activation, high):
    assert torch.allclose(through(activation), soft(X, high), atol=1e-8)  # torch's softplus is linear above 20 / beta


@pytest.mark.parametrize("inplace", [False, True])
def test_a_hardsigmoid_is_a_relu6(inplace):
    assert torch.allclose(through(nn.Hardsigmoid(inplace)), soft(X + 3, 6) / 6, atol=1e-8)


@pytest.mark.parametrize(
    "activation",
    [nn.GELU(), nn.SiLU(), nn.Hardtanh(), nn.Threshold(1, 0), nn.LeakyReLU(), lambda x: x.clamp(1e-6), nn.Identity()],
)
def test_what_is_no_relu_stays_what_it_is(activation):
    assert torch.equal(through(activation), activation(X))


def test_a_count_is_not_an_activation():
    model = wrap(One(lambda x: x * torch.tensor([3, -1]).clamp(min=0).sum()).double(), batch_size=2)
    assert torch.equal(softened(model, BETA).forward(X).view_as(X), 3 * X)


def test_what_shares_memory_with_an_in_place_relu_sees_the_softened_values():
    def activation(x):
        other = x.view(-1)
        functional.relu_(x)
        return other.view_as(x)

    assert torch.allclose(through(activation), soft(X), atol=1e-8)


@pytest.mark.parametrize("make", [tiny_cnn, tiny_inplace, dense_like, relu_thrice])
def test_a_network_is_that_with_softplus_modules(make):
    net, x = make().double(), images(2)

    class Soft(nn.Softplus):
        def __init__(self):
            super().__init__(beta=BETA)

    model = wrap(net, mean=MEAN, std=STD, batch_size=2)
    found = softened(model, BETA).forward(x)
    twin = copy.deepcopy(net)
    if make is dense_like:
        z = (x.double() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        a = soft(twin.conv1(z))
        a = torch.cat([a, soft(twin.conv2(a))], 1)
        wanted = twin.fc(soft(twin.norm(twin.conv3(a))).mean((2, 3)))
        assert torch.allclose(found, wanted, atol=1e-5)
        return
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.ReLU):
            setattr(twin.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], Soft())
    assert torch.allclose(found, wrap(twin, mean=MEAN, std=STD, batch_size=2).forward(x), atol=1e-6)


def test_it_comes_to_the_relu_network_with_beta():
    model, x = wrap(tiny_cnn(), mean=MEAN, std=STD, batch_size=2), images(3)
    apart = [float((softened(model, beta).predict(x) - model.predict(x)).abs().max()) for beta in (1, 10, 100, 1e4)]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 1e-4 < apart[0]


def test_its_gradient_has_a_gradient_where_the_relu_network_has_none():
    net, x = tiny_cnn(), images(2)
    model = wrap(net, mean=MEAN, std=STD, batch_size=2)
    sizes = []
    for one in (model, softened(model, 10.0)):
        leaf = x.clone().requires_grad_()
        e = sw.explain(one, leaf, "gradient", 1, differentiable=True)
        found = torch.autograd.grad(e.raw.square().sum(), leaf, allow_unused=True)[0]
        sizes.append(0.0 if found is None else float(found.abs().max()))
    assert sizes[0] == 0
    assert sizes[1] > 0


def test_the_gradient_through_a_relu_in_place_is_that_through_another():
    found = []
    for inplace in (True, False):
        model = softened(wrap(tiny_inplace(inplace), mean=MEAN, std=STD, batch_size=2), 10.0)
        leaf = images(2).requires_grad_()
        e = sw.explain(model, leaf, "gradient", 1, differentiable=True)
        found += [torch.autograd.grad(e.raw.square().sum(), leaf)[0]]
    assert torch.allclose(*found, atol=1e-6 * float(found[0].abs().max()))


def test_layers_keep_their_names_and_cams_work():
    model, x = wrap(tiny_cnn(), mean=MEAN, std=STD, size=32, batch_size=2), images(2)
    smooth = softened(model, 1000.0)
    assert [layer.name for layer in smooth.layers()] == [layer.name for layer in model.layers()]
    e, of_relus = (sw.explain(one, x, "grad_cam", 1, layer="bn2") for one in (smooth, model))
    assert torch.allclose(e.raw, of_relus.raw, atol=0.02 * float(of_relus.raw.abs().max()))


def test_the_users_network_keeps_everything_and_the_copy_shares_its_weights():
    net, x = tiny_inplace(), images(2)
    model = wrap(net, mean=MEAN, std=STD, batch_size=2)
    before, clean, own, fingerprint = version(net), model.predict(x), dict(net.__dict__), model.fingerprint()
    smooth = softened(model, 2.0)
    smooth.predict(x)
    assert version(net) == before
    assert net.__dict__ == own
    assert torch.equal(model.predict(x), clean)
    assert smooth.module.conv1.weight is net.conv1.weight
    assert smooth.forward_rows == 2
    assert model.forward_rows == 4
    assert model.fingerprint() == fingerprint != smooth.fingerprint() != softened(model, 3.0).fingerprint()


def test_a_deep_copy_of_it_is_softened_and_has_weights_of_its_own():
    model, x = wrap(tiny_cnn(), mean=MEAN, std=STD, batch_size=2), images(2)
    smooth = softened(model, 2.0)
    again = wrap(copy.deepcopy(smooth.module), mean=MEAN, std=STD, batch_size=2)
    assert torch.equal(again.predict(x), smooth.predict(x))
    with torch.no_grad():
        smooth.module.fc.weight.mul_(2)
    assert not torch.equal(again.predict(x), smooth.predict(x))


def test_beta_may_change_between_two_forwards_and_the_relus_of_one_are_counted():
    model, x = wrap(relu_thrice(), mean=MEAN, std=STD, batch_size=2), images(2)
    relus = SoftReLUs(2.0)
    smooth = with_soft_relus(model, relus)
    assert torch.equal(smooth.forward(x), softened(model, 2.0).forward(x))
    assert relus.calls == 3
    relus.beta = 5.0
    assert torch.equal(smooth.forward(x), softened(model, 5.0).forward(x))
    assert relus.calls == 3


def test_a_network_without_a_relu_stays_what_it_is():
    relus = SoftReLUs(2.0)
    model, x = wrap(tiny_vit(), mean=MEAN, std=STD, batch_size=2), images(2)
    assert torch.equal(with_soft_relus(model, relus).forward(x), model.forward(x))
    assert relus.calls == 0


def test_what_recomputes_its_activations_is_refused():
    model, leaf = wrap(checkpointed(), batch_size=2), images(1).requires_grad_()
    with pytest.raises(sw.RefusalError, match="recomputes or moves its activations"):
        sw.explain(softened(model, 2.0), leaf, "gradient", 1, differentiable=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_code_is_refused_and_beta_is_a_number_above_0():
    model = wrap(torch.jit.trace(seeded(Linear)(), images(1)))
    with pytest.raises(sw.RefusalError, match="hides its ReLUs"):
        softened(model, 2.0)
    for beta in (0, -1, math.nan, "10"):
        with pytest.raises(sw.UsageError, match="beta is a number above 0"):
            softened(wrap(tiny_cnn()), beta)

"""Grad mode, training mode, frozen weights, the user's own training step around a map; maps that carry a graph."""

import functools
import gc
import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from cases.nets import QUICK, Lazy, Trains, smooth, state_of
from nets import Cnn, dropping, images, linear, seeded, tiny_cnn, tiny_vit


def explain(net, method, x=None, target=1, **given):
    x = images(2) if x is None else x
    return sw.explain(sw.wrap(net), x, method, target, **{**QUICK.get(method, {}), **given})


# rows 9, 10, 11, 13: contract tests hold each for every method; here all at once


@functools.cache
def plain(method):
    return explain(dropping(), method).raw


MODES = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "enable_grad": torch.enable_grad, "": nullcontext}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("frozen", "training"), list(itertools.product(["", "all", "backbone"], [False, True])))
def test_frozen_weights_training_mode_and_grad_mode_in_any_combination(mode, frozen, training):
    net = dropping()
    net.train(training)
    net.bn1.eval()  # each submodule's own flag
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(frozen == "" or (frozen == "backbone" and name.startswith("fc")))
    before = state_of(net)
    with MODES[mode]():
        x = images(2) * 1  # in inference mode: an inference tensor
        for method in ("grad_cam", "integrated_gradients"):
            assert torch.equal(explain(net, method, x).raw, plain(method))
            assert torch.is_inference_mode_enabled() is (mode == "inference")
            assert torch.is_grad_enabled() is (mode in ("enable_grad", ""))
    assert state_of(net) == before


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_is_restored_after_a_target_that_fails(mode):
    net = dropping().train()
    before = state_of(net)

    def fails(outputs):
        raise KeyboardInterrupt  # not even an Exception

    with MODES[mode]():
        for method in ("gradient", "grad_cam", "occlusion"):
            with pytest.raises(KeyboardInterrupt):
                explain(net, method, target=fails)
            assert torch.is_inference_mode_enabled() is (mode == "inference")
    assert state_of(net) == before


def test_a_network_that_switches_itself_into_training_mode_is_in_evaluation_mode_again():
    net = seeded(Trains)()
    before = state_of(net)
    explain(net, "gradient")
    assert state_of(net) == before


def test_a_network_whose_weights_are_not_made_yet_is_refused_and_stays_as_it_is():
    net = Lazy()
    with pytest.raises(sw.SeewhyError, match=r"[Ll]azy"):
        explain(net, "gradient")
    assert isinstance(net.conv1, nn.LazyConv2d)


# row 14


@pytest.mark.parametrize("method", ["grad_cam", "gradient", "integrated_gradients", "occlusion", "guided_backprop"])
def test_a_map_between_forward_and_backward_leaves_the_graph_of_the_training_step_alone(method):
    def step(between):
        net = dropping().train()
        torch.manual_seed(0)
        loss = functional.cross_entropy(net(images(4)), torch.arange(4))
        between(net)
        loss.backward()
        return [parameter.grad for parameter in net.parameters()]

    with torch.random.fork_rng(devices=[]):
        without, with_map = step(lambda net: None), step(lambda net: explain(net, method))
    assert all(torch.equal(a, b) for a, b in zip(without, with_map, strict=True))


@pytest.mark.parametrize("grads", ["None", "zero", "accumulated"])
def test_gradients_of_an_accumulated_batch_are_bit_equal_after_a_map(grads):
    net = dropping().train()
    if grads != "None":
        for _ in range(2):
            functional.cross_entropy(net(images(4)), torch.arange(4)).backward()
    if grads == "zero":
        net.zero_grad(set_to_none=False)
    before, held = state_of(net), [parameter.grad for parameter in net.parameters()]
    for method in ("grad_cam", "gradient", "smooth_grad", "score_cam"):
        explain(net, method)
    assert state_of(net) == before
    assert all(a is b for a, b in zip(held, (p.grad for p in net.parameters()), strict=True))


def test_a_map_for_the_training_log_inside_autocast_and_anomaly_detection_changes_no_step():
    def losses(log):
        net = dropping().train()
        optimizer, said = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), []
        torch.manual_seed(0)
        for seed in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(net(images(4, seed=seed)), torch.arange(4))
                log(net)
            loss.backward()
            said.append(loss.item())
            optimizer.step()
        return said

    with torch.random.fork_rng(devices=[]):
        assert losses(lambda net: explain(net, "grad_cam")) == losses(lambda net: None)


# row 73


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "smooth_grad"])
def test_a_differentiable_map_has_the_second_gradient_of_finite_differences(method):
    net, x = smooth(), images(1, size=(6, 6)).clamp(0.05, 0.95)
    weights = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
    given = {"samples": 3, "noise": 0.0} if method == "smooth_grad" else {}

    def value(x):
        raw = sw.explain(sw.wrap(net, mean=(0.0,) * 3, std=(1.0,) * 3), x, method, 1, differentiable=True, **given).raw
        return (raw[0] * weights).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-2
    for place in [(0, 0, 2, 3), (0, 1, 0, 0), (0, 2, 5, 4)]:
        shift = torch.zeros_like(x)
        shift[place] = step
        difference = float((value(x + shift) - value(x - shift)).detach()) / (2 * step)
        assert float(gradient[place]) == pytest.approx(difference, rel=0.02, abs=1e-4)
    assert leaf.grad is None


def test_a_loss_on_a_differentiable_map_reaches_the_weights_and_not_their_gradients():
    net = smooth()
    raw = sw.explain(sw.wrap(net), images(2, size=(6, 6)), "gradient", 1, differentiable=True).raw
    found = torch.autograd.grad(raw.pow(2).sum(), [net.conv1.weight, net.fc.weight])
    assert all(gradient.abs().max() > 0 for gradient in found)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("method", ["guided_backprop", "occlusion", "xgrad_cam", "integrated_gradients", "random_map"])
def test_a_method_that_is_not_exactly_differentiable_refuses_to_be(method):
    with pytest.raises(sw.SeewhyError, match="differentiable"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), method, 1, differentiable=True)


# row 74


def test_a_map_requires_no_gradient_and_keeps_no_graph_alive():
    methods, x = (
        ("gradient", "smooth_grad", "integrated_gradients", "grad_cam", "layer_cam"),
        images(2).requires_grad_(),
    )
    models = [sw.wrap(tiny_cnn()), sw.wrap(tiny_vit())]

    def maps():
        return [sw.explain(m, x, method, 1, **QUICK.get(method, {})) for m in models for method in methods]

    def graphs():
        return sum(issubclass(type(o), torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())

    maps()  # what is kept of a network is kept once
    before, found = graphs(), maps()
    assert graphs() == before
    for e in found:
        tensors = [e.raw, e.maps, e.scores, e.images, *e.evidence.values()]
        assert not any(tensor.requires_grad or tensor.grad_fn is not None for tensor in tensors)
    assert x.grad is None
    assert x.requires_grad


def test_the_map_of_an_image_that_requires_a_gradient_can_be_changed_and_turned_into_numpy():
    e = explain(linear(), "gradient", images(1).requires_grad_())
    assert e.raw.numpy().shape == (1, 32, 32)
    e.raw.mul_(2)


class ThroughNumpy(Cnn):
    """Prepares its images in numpy, which autograd cannot follow."""

    def forward(self, x):
        return super().forward(torch.from_numpy(x.numpy() * 2) / 2)


def test_what_lies_in_front_of_a_layer_need_not_have_a_derivative_for_a_class_activation_map():
    net, plain = seeded(ThroughNumpy)(), seeded(Cnn)()
    e, wanted = explain(net, "grad_cam"), explain(plain, "grad_cam")
    assert e.layer == wanted.layer == "relu2"
    assert torch.equal(e.raw, wanted.raw)
    with pytest.raises(sw.RefusalError, match="numpy"):
        explain(net, "gradient")

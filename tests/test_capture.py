"""What is caught at a layer is the layer's own output, whatever the network does with it afterwards."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from nets import (
    Cnn,
    checkpointed,
    cut,
    dense_like,
    dropout_always,
    images,
    relu_thrice,
    returning,
    seeded,
    tiny_cnn,
    tiny_inplace,
    tiny_residual,
    with_unused,
)
from seewhy import capture
from seewhy.capture import Site


def site(net, name, which=0):
    return Site(name if not which else f"{name}#{which + 1}", net.get_submodule(name), which)


def class_two(outputs):
    return outputs[:, 2]


def caught(net, x, *sites, score=class_two):
    said = []
    with capture.guard(net):
        activations, gradients = capture.activations_and_gradients(lambda: said.append(net(x)) or said[0], sites, score)
    return activations, gradients, capture.detach(said[0])


def by_hand(net, x, name, which=0):
    """The slow way: keep every output of the layer in an ordinary forward with a graph, and differentiate."""
    kept = []
    handle = net.get_submodule(name).register_forward_hook(lambda module, inputs, output: kept.append(output))
    output = net(x.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(class_two(output).sum(), kept[which])
    return kept[which].detach(), gradient


# -- in-place operations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv1", "bn1", "relu1", "conv2", "bn2", "relu2"])
def test_in_place_operations_after_the_layer_change_nothing(name):
    x = images(2)
    net = tiny_inplace(inplace=True)
    (activation,), (gradient,), output = caught(net, x, site(net, name))
    wanted, slope = by_hand(tiny_inplace(inplace=False), x, name)
    assert torch.allclose(activation, wanted, atol=1e-6)
    assert torch.allclose(gradient, slope, atol=1e-6)
    assert torch.allclose(output, tiny_inplace()(x).detach(), atol=1e-6)


@pytest.mark.parametrize("name", ["conv1", "bn1", "conv2", "bn2"])
def test_an_activation_before_an_in_place_relu_keeps_its_negative_values(name):
    net = tiny_inplace()
    (activation,), _, _ = caught(net, images(1), site(net, name))
    assert activation.min() < 0


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "norm"])
def test_a_functional_in_place_relu_after_the_layer_changes_nothing(name):
    net, x = dense_like(), images(2)
    (activation,), (gradient,), _ = caught(net, x, site(net, name))
    wanted, slope = by_hand(dense_like(inplace=False), x, name)
    assert torch.allclose(activation, wanted, atol=1e-6)
    assert torch.allclose(gradient, slope, atol=1e-6)


class AliasKept(nn.Module):
    """`same` returns its input; the input is then changed in place."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv, self.same, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Identity(), nn.Linear(12, 5)

    def forward(self, x):
        x = self.conv(x)
        y = self.same(x) if self.inplace else self.same(x.clone())
        kept = y.mean((2, 3))
        if self.inplace:
            x *= 2
        else:
            x = x * 2
        return self.fc(torch.cat([kept, x.mean((2, 3))], 1))


def test_a_layer_that_returns_its_input_is_safe_when_the_input_is_changed_in_place():
    build, x = seeded(AliasKept), images(2)
    net, twin = build(True), build(False)
    (activation,), _, output = caught(net, x, site(net, "same"))
    assert torch.allclose(output, twin(x).detach(), atol=1e-6)
    assert torch.allclose(activation, by_hand(twin, x, "same")[0], atol=1e-6)


@pytest.mark.parametrize("names", [["conv1", "relu1", "bn2"], ["relu2", "conv1"], ["bn1", "relu1", "conv2", "relu2"]])
def test_several_layers_in_one_run_equal_one_run_each(names):
    net, x = tiny_inplace(), images(2)
    activations, gradients, _ = caught(net, x, *[site(net, name) for name in names])
    for name, activation, gradient in zip(names, activations, gradients, strict=True):
        (alone,), (slope,), _ = caught(net, x, site(net, name))
        assert torch.equal(activation, alone)
        assert torch.equal(gradient, slope)


# -- where a layer is, and where it is not ---------------------------------------------------------------------------


def test_a_layer_that_is_not_reached_is_named():
    net = with_unused()
    with pytest.raises(sw.RefusalError, match="'spare' was not reached"):
        caught(net, images(1), site(net, "spare"))


def test_a_second_call_that_does_not_happen_is_named():
    net = tiny_cnn()
    with pytest.raises(sw.RefusalError, match="'conv1#2' was not reached"):
        caught(net, images(1), site(net, "conv1", 1))


@pytest.mark.parametrize(("build", "name", "calls"), [(relu_thrice, "relu", 3), (tiny_residual, "layer1.relu", 2)])
def test_a_layer_that_is_called_several_times_gets_a_site_a_call(build, name, calls):
    net, x = build(), images(2)
    with capture.guard(net):
        sites, _ = capture.trace(net, lambda: net(x))
    assert [s.name for s, _, _ in sites if s.module is net.get_submodule(name)] == [
        f"{name}#{k + 1}" for k in range(calls)
    ]
    for k in range(calls):
        (activation,), (gradient,), _ = caught(net, x, site(net, name, k))
        wanted, slope = by_hand(net, x, name, k)
        assert torch.allclose(activation, wanted, atol=1e-6)
        assert torch.allclose(gradient, slope, atol=1e-6)


def test_a_container_and_its_last_child_are_the_same_tensor():
    net = seeded(
        lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(3600, 5))
    )()
    with capture.guard(net):
        sites, _ = capture.trace(net, lambda: net(images(1)))
    assert {s.name: same for s, _, same in sites}["0"] == "0.1"


def test_a_layer_without_a_tensor_is_refused_by_name():
    class Text(nn.Module):
        def forward(self, x):
            return "no tensor"

    class Net(Cnn):
        def __init__(self):
            super().__init__()
            self.text = Text()

        def forward(self, x):
            self.text(x)
            return super().forward(x)

    net = seeded(Net)()
    with pytest.raises(sw.RefusalError, match=r"'text' \(Text\) returns no tensor"):
        caught(net, images(1), site(net, "text"))


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_a_layer_inside_a_network_that_returns_a_container_is_caught(form):
    net, x = returning(form), images(2)
    score = (lambda out: out["logits"][:, 2]) if form == "dict" else (lambda out: out[0][:, 2])
    (activation,), (gradient,), output = caught(net, x, site(net, "relu2"), score=score)
    plain = tiny_cnn()
    (wanted,), (slope,), _ = caught(plain, x, site(plain, "relu2"))
    assert torch.equal(activation, wanted)
    assert torch.equal(gradient, slope)
    tensors = output.values() if form == "dict" else output
    assert not any(tensor.requires_grad for tensor in tensors)
    assert type(output) is {"tuple": tuple, "list": list, "dict": dict}[form]


class TupleLayer(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 6, 3, 2, 1), form

    def forward(self, x):
        x = self.conv(x)
        return {"tuple": (x, None), "list": [x, x + 1], "dict": {"a": x, "b": 3}}[self.form]


class TupleInside(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.layer, self.fc, self.key = TupleLayer(form), nn.Linear(6, 5), "a" if form == "dict" else 0

    def forward(self, x):
        x = self.layer(x)[self.key]
        x += 1
        return self.fc(functional.relu(x).mean((2, 3)))


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_a_layer_that_returns_a_container_gives_its_first_tensor(form):
    net, x = seeded(TupleInside)(form), images(2)
    (activation,), (gradient,), output = caught(net, x, site(net, "layer"))
    assert torch.equal(activation, net.layer.conv(x).detach())
    assert torch.equal(output, net(x).detach())
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["block", "block.0", "block.2", "relu2"])
def test_gradient_checkpointing_changes_nothing(name):
    net, twin, x = checkpointed(on=True), checkpointed(on=False), images(2)
    (activation,), (gradient,), _ = caught(net, x, site(net, name))
    (wanted,), (slope,), _ = caught(twin, x, site(twin, name))
    assert torch.equal(activation, wanted)
    assert torch.equal(gradient, slope)


def test_a_map_of_a_network_with_gradient_checkpointing_equals_the_one_without():
    maps = [sw.explain(sw.wrap(checkpointed(on=on)), images(2), "grad_cam", 1) for on in (True, False)]
    assert torch.equal(maps[0].raw, maps[1].raw)
    assert maps[0].layer == maps[1].layer


# -- no gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "named"),
    [("cutter", r"cutter \(Detach\)"), ("forward", "network itself"), ("inference", "network itself|conv1")],
)
@pytest.mark.parametrize("method", ["gradient", "smooth_grad", "integrated_gradients"])
def test_a_cut_graph_is_a_refusal_that_says_where(where, named, method):
    with pytest.raises(sw.RefusalError, match=named):
        sw.explain(sw.wrap(cut(where)), images(1), method, 1)


@pytest.mark.parametrize(
    ("where", "layer"),
    [(where, layer) for where in ("cutter", "forward", "inference") for layer in ("relu2", "conv1")]
    + [("forward", None), ("inference", None)],
)
def test_a_layer_before_a_cut_is_refused(where, layer):
    with pytest.raises(sw.RefusalError):
        sw.explain(sw.wrap(cut(where)), images(1), "grad_cam", 1, layer=layer)


def test_a_layer_after_the_cut_is_taken_where_there_is_one():
    assert sw.explain(sw.wrap(cut("cutter")), images(1), "grad_cam", 1).layer == "cutter"


@pytest.mark.parametrize("where", ["cutter", "forward", "inference"])
@pytest.mark.parametrize("method", ["edge_map", "random_map"])
def test_a_cut_graph_does_not_stop_a_method_without_gradients(where, method):
    assert sw.explain(sw.wrap(cut(where)), images(1), method, 1).ok == [True]


def test_a_score_that_ignores_the_input_is_refused():
    with pytest.raises(sw.RefusalError, match="input"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "gradient", lambda out: torch.ones(len(out), requires_grad=True) * 2)


def test_the_input_gradient_is_that_of_plain_autograd():
    net, x = tiny_cnn(), images(3)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[:, 2].sum(), leaf)
    with capture.guard(net):
        gradient = capture.input_gradient(net, net, x, class_two)
    assert torch.allclose(gradient, wanted, atol=1e-7)
    assert not gradient.requires_grad


# -- random numbers and hooks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["grad_cam", "gradient", "smooth_grad", "integrated_gradients", "edge_map"])
@pytest.mark.parametrize("n", [2, 6])
def test_a_network_that_draws_random_numbers_gives_the_same_map_on_every_call(method, n):
    model, x = sw.wrap(dropout_always(), batch_size=2), images(n)
    given = {"smooth_grad": {"samples": 4}, "integrated_gradients": {"rule": "right", "steps": 4}}.get(method, {})
    first, second = (sw.explain(model, x, method, 1, seed=4, **given) for _ in range(2))
    assert torch.equal(first.raw, second.raw)
    assert torch.equal(first.scores, second.scores)


def test_a_network_that_draws_random_numbers_gets_the_draws_of_the_seed():
    net, x = dropout_always(), images(1)
    outputs = []
    for seed in (1, 1, 2):
        with capture.guard(net, seed=seed), torch.no_grad():
            outputs.append(net(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_users_own_hooks_stay_and_still_run():
    net, seen = tiny_cnn(), []
    handle = net.relu2.register_forward_hook(lambda module, inputs, output: seen.append(1))
    sw.explain(sw.wrap(net), images(1), "grad_cam", 1)
    ran = len(seen)
    net(images(1))
    assert ran > 0
    assert len(seen) == ran + 1
    handle.remove()
    assert not net.relu2._forward_hooks


def test_a_guard_inside_a_guard_restores_in_order():
    net = tiny_cnn().train()
    with capture.guard(net):
        with capture.guard(net):
            assert not net.training
        assert not net.training
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_buffers_that_two_modules_share_stay_shared_inside_the_guard():
    net = tiny_cnn()
    net.bn2.register_buffer("twin", net.bn1.running_mean)
    with capture.guard(net):
        assert net.bn2.twin is net.bn1.running_mean
    assert net.bn2.twin is net.bn1.running_mean


def test_guards_of_two_threads_that_overlap_leave_compilation_as_it_was():
    import torch._dynamo.eval_frame as compiler

    opened, left = threading.Event(), threading.Event()
    seen = []

    def first():
        with capture.guard(tiny_cnn()):
            opened.wait(10)
        seen.append(compiler._stance.stance)  # the other one is open still
        left.set()

    thread = threading.Thread(target=first)
    thread.start()
    with capture.guard(tiny_cnn()):
        opened.set()
        left.wait(10)
    thread.join()
    assert seen == ["force_eager"]
    assert compiler._stance.stance == "default"

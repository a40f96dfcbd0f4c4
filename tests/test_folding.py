"""Batch normalizations folded into convolutions: the same numbers, fewer operations, and only where that is certain."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import seewhy as sw
from nets import Cnn, checkpointed, images, seeded, tiny_cnn, tiny_inplace, tiny_residual
from seewhy import capture
from seewhy.target import logit

ROWS = 20  # more than the largest batch that is timed, so that folding pays
CLOSE = {"rtol": 0, "atol": 2e-5}


class Between(nn.Module):
    """A convolution and its batch normalization, with something of a network's habits around them."""

    def __init__(self, convolution, norm, habit=None):
        super().__init__()
        self.convolution, self.norm, self.habit = convolution, norm, habit
        self.fc = nn.Linear(norm.num_features, 5)

    def forward(self, x):
        made = self.convolution(x)
        y = self.norm(made)
        if self.habit is not None:
            y = self.habit(self, x, made, y)
        return self.fc(y.relu().flatten(2).mean(2))


def twice_used(net, x, made, y):
    return y + made


def run_again(net, x, made, y):
    return y + net.convolution(x)


def normalized_again(net, x, made, y):
    return y + net.norm(made.relu())


def read_as_number(net, x, made, y):
    return y * (1 + made.mean().item())


def written_to(net, x, made, y):
    return y.relu_()


def without_corners(net, x, made, y):
    return nn.functional.softplus(y)


def convolution(axes=2, bias=False, channels=3):
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](channels, 6, 3, padding=1, bias=bias)


def norm(axes=2, **given):
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1](6, **given)


@seeded
def between(axes=2, bias=False, habit=None, **given):
    return Between(convolution(axes, bias), norm(axes, **given), habit)


def folds_of(net, x):
    with capture.guard(net):
        return capture.find_folds(net, lambda: net(x[:1]))


def model_of(net, **given):
    return sw.wrap(net, mean=(0.45, 0.5, 0.4), std=(0.2, 0.25, 0.3), batch_size=4, **given)


def gradients(model, x):
    """Input gradients of all rows in batches, and how many convolutions and batch normalizations each batch called."""
    calls, found = [], []

    def run(part):
        with model.guarded(), Calls() as counted:
            rows = torch.arange(part.start, part.stop)
            found.append(model.input_gradients(x[part], logit(2), rows)[0])
        calls.append(counted.names)

    with model.guarded():
        model.in_batches(len(x), x.shape[1:], run)
    return torch.cat(found), calls


class Calls(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def plain_gradients(net, x):
    mean, std = (torch.tensor(v).view(1, 3, *[1] * (x.ndim - 2)) for v in ((0.45, 0.5, 0.4), (0.2, 0.25, 0.3)))
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net((leaf - mean) / std)[:, 2].sum(), leaf)[0]


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        ({}, 1),
        ({"bias": True}, 1),
        ({"affine": False}, 1),
        ({"eps": 0.1}, 1),
        ({"axes": 1}, 1),
        ({"axes": 3}, 1),
        ({"habit": written_to}, 1),
        ({"habit": twice_used}, 0),
        ({"habit": run_again}, 0),
        ({"habit": normalized_again}, 0),
        ({"habit": read_as_number}, 0),
    ],
    ids=lambda given: (
        str({name: getattr(value, "__name__", value) for name, value in given.items()})
        if isinstance(given, dict)
        else str(given)
    ),
)
def test_what_only_its_normalization_takes_is_folded(given, pairs):
    net, axes = between(**given), given.get("axes", 2)
    x = images(ROWS, size=(8,) * axes)
    found = folds_of(net, x)
    assert len(found) == pairs
    with torch.no_grad(), capture.Folding(capture.folded_weights(found, axes == 2)) as folding:
        folded = net(x)
    assert not folding.astray
    torch.testing.assert_close(folded, net(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "build", [tiny_cnn, tiny_inplace, tiny_residual, checkpointed], ids=lambda build: build.__name__
)
def test_gradients_of_many_rows_are_those_of_the_network_as_it_is(build):
    net, x = build(), images(ROWS)
    found, _ = gradients(model_of(net), x)
    expected = plain_gradients(net, x)
    torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), **CLOSE)


def test_a_normalization_over_the_batch_is_left_alone():
    net = Between(convolution(), norm(track_running_stats=False)).eval()
    assert folds_of(net, images(ROWS)) == ()


def test_weights_are_folded_once_for_many_rows_and_never_for_few_whatever_the_batch(monkeypatch):
    net, x, seen, own = tiny_cnn(), images(ROWS), [], capture.folded_weights
    assert len(folds_of(net, x)) == 2
    monkeypatch.setattr(capture, "folded_weights", lambda folds, last: seen.append(len(folds)) or own(folds, last))
    model = model_of(net)
    gradients(model, x[:16])
    assert seen == []
    gradients(model, x)
    assert seen == [2, 2]  # once to see that the network says the same, once to compute
    gradients(model, x)
    assert seen == [2, 2, 2]
    model.predict(x)
    assert seen == [2, 2, 2]  # without a gradient little is gained


def test_a_differentiable_map_has_the_slope_of_the_weights_behind_the_folding():
    net, x = between(habit=without_corners).double(), images(1, size=(8, 8)).double()
    net.norm.eps = 0.01

    def energy():
        found = sw.explain(
            sw.wrap(net, mean=(0.45, 0.5, 0.4), std=(0.2, 0.25, 0.3), batch_size=8),
            x,
            "smooth_grad",
            2,
            samples=ROWS,
            differentiable=True,
        )
        return found.raw.double().square().sum()

    slopes = torch.autograd.grad(energy(), [net.convolution.weight, net.norm.weight])
    for parameter, slope in zip((net.convolution.weight, net.norm.weight), slopes, strict=True):
        step = 1e-4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
            values.append(float(energy().detach()))
            with torch.no_grad():
                parameter -= sign * step
        assert float((slope * step).sum()) * 2 == pytest.approx(values[0] - values[1], rel=0.05)


def test_weights_that_were_changed_in_between_count_even_where_no_counter_moves():
    net, x = tiny_cnn(), images(ROWS)
    model = model_of(net)
    gradients(model, x)
    net.conv1.weight.data[0] = 0.5
    net.bn2.running_var.data.mul_(3)
    found, _ = gradients(model, x)
    expected = plain_gradients(net, x)
    torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), **CLOSE)


def test_a_hook_of_the_users_sees_the_convolutions_own_output():
    net, x, seen = tiny_cnn(), images(ROWS), []
    handle = net.conv1.register_forward_hook(lambda _module, _given, output: seen.append(output.detach()))
    gradients(model_of(net), x)
    handle.remove()
    z = (x[:4] - torch.tensor((0.45, 0.5, 0.4)).view(1, 3, 1, 1)) / torch.tensor((0.2, 0.25, 0.3)).view(1, 3, 1, 1)
    with torch.no_grad():
        wanted = net.conv1(z)
    assert any(one.shape == wanted.shape and torch.allclose(one, wanted, atol=1e-5) for one in seen)
    assert folds_of(net, x)
    net.conv1.register_forward_hook(lambda *_: None)
    assert folds_of(net, x) == ()


class OtherWays(Cnn):
    """Dark pictures go around the normalization."""

    def forward(self, x):
        made = self.conv1(x)
        first = self.bn1(made) if float(x.detach().mean()) > -1 else made
        return self.fc(self.pool(self.relu2(self.bn2(self.conv2(self.relu1(first))))).flatten(1))


def test_a_network_that_goes_other_ways_than_its_probe_is_run_again_as_it_is():
    net = seeded(OtherWays)()
    dark = 0.02 * images(ROWS)
    assert len(folds_of(net, images(1))) == 2
    found, _ = gradients(model_of(net), dark)
    expected = plain_gradients(net, dark)
    torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), **CLOSE)


class WeightsElsewhere(nn.BatchNorm2d):
    """Its statistics are parameters, under the usual names."""

    def __init__(self, channels):
        super().__init__(channels)
        for name in ("running_mean", "running_var"):
            value = self._buffers.pop(name)
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))


def test_a_normalization_that_keeps_its_statistics_elsewhere_is_left_alone():
    net, x = Between(convolution(), WeightsElsewhere(6)).eval(), images(ROWS)
    assert folds_of(net, x) == ()
    found, _ = gradients(model_of(net), x)
    assert torch.isfinite(found).all()


def test_a_run_that_fails_half_way_spoils_nothing():
    net, x = tiny_cnn(), images(ROWS)
    model = model_of(net)
    with model.guarded(), model.network.many(x.shape[1:]):
        with pytest.raises(ZeroDivisionError):
            model.network.folded(lambda: model.forward(x).sum() / (1 // 0), differentiable=False)
        with torch.no_grad():
            found = model.network.folded(lambda: model.forward(x), differentiable=False)
            expected = model.forward(x)
    assert len(model.network._folds[x.shape[1:]]) == 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_network_of_another_precision_is_left_as_it_is():
    x = images(ROWS)
    for model in (model_of(tiny_cnn(), precision="bfloat16"), model_of(tiny_cnn().bfloat16())):
        gradients(model, x)
        assert model.network._folds[x.shape[1:]] == ()


def test_the_network_is_bit_equal_afterwards():
    net, x = tiny_cnn(), images(ROWS)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sw.explain(model_of(net), x, "smooth_grad", target=2, samples=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def read_after(net, x, made, y):
    nn.functional.relu6(y, inplace=True)
    return y + 0


def read_through_a_view(net, x, made, y):
    first = y[:, :2]
    nn.functional.silu(y, inplace=True)
    return first.repeat(1, 3, 1, 1)


def written_through_a_view(net, x, made, y):
    nn.functional.hardtanh(y[:, :2], -0.1, 0.1, True)
    return y


def written_over(net, x, made, y):
    return nn.functional.relu6(y, inplace=True)


@pytest.mark.parametrize("habit", [read_after, read_through_a_view, written_through_a_view])
def test_who_reads_what_an_activation_wrote_over_reads_what_it_wrote(habit):
    """In place means that another name of the tensor sees it, too: nothing is folded there."""
    net, x = between(habit=habit).eval(), images(ROWS)
    found, calls = gradients(model_of(net), x)
    torch.testing.assert_close(found, plain_gradients(net, x), **CLOSE)
    assert all("batch_norm" in called for called in calls[-1:])


def test_an_activation_that_keeps_its_input_writes_elsewhere_instead_of_copying_it_first():
    net, x = between(habit=written_over).eval(), images(ROWS)
    found, _ = gradients(model_of(net), x)
    torch.testing.assert_close(found, plain_gradients(net, x), **CLOSE)
    model, written = model_of(net), []

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            written.append(str(function))
            return function(*args, **(kwargs or {}))

    def asked():
        model.input_gradients(x[:4], logit(2), torch.arange(4))

    for many in (True, False):
        with model.guarded(), model.network.many(x.shape[1:]) if many else nullcontext():
            asked()  # what can be folded is found
            written.clear()
            with Operators():
                asked()
        written_in_place = [name for name in written if "hardtanh_." in name]
        assert bool(written_in_place) != many, written

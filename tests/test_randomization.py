"""Stages of a network, and a network whose weights are gone for a while: every learnable tensor, and all of it back."""

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn, tiny_residual, tiny_vit
from seewhy import capture
from seewhy.randomization import SPREAD, randomized, recalibrated, stages_of
from seewhy.target import PREDICTED
from test_contract import assert_nothing_left_behind, world


def wrapped(net):
    return sw.wrap(net.eval(), mean=MEAN, std=STD, size=32, batch_size=8)


def stages(net):
    return stages_of(wrapped(net), images(1), PREDICTED)


def everything(net):
    return [name for name, _ in net.named_parameters()]


class Backwards(nn.Module):
    """Defined from the last to the first, with a part that never runs and a raw tensor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(8, 5)
        self.spare = nn.Linear(3, 3)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.stem = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.head(self.body(self.norm(self.stem(x * self.scale))).mean((2, 3)))


def test_stages_come_in_the_order_of_execution_and_hold_every_tensor_once():
    net = Backwards()
    found = stages(net)
    assert [s.name for s in found] == ["stem + norm", "body.0", "body.2", "head"]
    assert sorted(t for s in found for t in s.tensors) == sorted(everything(net))
    assert {"scale", "spare.weight", "norm.bias"} <= set(found[0].tensors)
    assert sum(s.values for s in found) == sum(p.numel() for p in net.parameters())


def test_a_vision_transformer_has_a_stage_a_block():
    assert [s.name for s in stages(tiny_vit())] == ["patch", "blocks.0", "blocks.1 + norm", "head"]


def test_a_list_within_a_list_is_one_stage():
    blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)) for _ in range(3)])
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 8, 3))
    net.add_module("blocks", blocks)
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(8, 5))
    assert [s.name for s in stages(net)] == ["stem", "blocks.0", "blocks.1", "blocks.2", "head"]


@pytest.mark.parametrize("build", [tiny_cnn, tiny_vit, tiny_residual, Backwards])
def test_everything_changes_inside_and_nothing_has_changed_afterwards(build):
    net = build().train()
    net.requires_grad_(True)
    before, places = world(net), [(id(p), p.data_ptr()) for p in net.parameters()]
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    with pytest.raises(KeyError), randomized(net, everything(net), seed=0) as share:  # noqa: PT012  # seen inside, before it ends in an error
        constant = {n for n, p in net.named_parameters() if bool((p == p.flatten()[0]).all())}
        assert all(not torch.equal(p, kept[n]) for n, p in net.named_parameters() if n not in constant)
        assert [id(p) for p in net.parameters()] == [i for i, _ in places]
        assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())
        assert 0.9 < share <= 1
        assert all(bool(p.isfinite().all()) for p in net.parameters())
        raise KeyError
    assert [(id(p), p.data_ptr()) for p in net.parameters()] == places
    assert_nothing_left_behind(before, world(net))


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token = nn.Parameter(torch.full((1, 1, 8), 3.0))
        self.positions = nn.Parameter(5 + 0.1 * torch.randn(1, 200, 8))
        self.scale = nn.Parameter(torch.zeros(64))
        self.twins = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])


def test_raw_tensors_and_the_weights_of_attention_are_drawn_too():
    net = Raw()
    trained = net.attention.in_proj_weight.detach().clone()
    with torch.no_grad(), randomized(net, everything(net), seed=0) as share:
        assert share > 0.9  # the attention's own initializer sets its biases to 0, as they were
        assert not torch.equal(net.attention.in_proj_weight, trained)
        assert float(net.attention.in_proj_weight.abs().max()) <= (6 / 32) ** 0.5  # xavier, its own initializer
        assert torch.equal(net.attention.in_proj_bias, torch.zeros(24))
        assert float(net.positions.mean()) == pytest.approx(5, abs=0.05)
        assert float(net.positions.std()) == pytest.approx(0.1, rel=0.1)
        assert float(net.token.std()) > 1  # |mean| where all is one value
        assert float(net.scale.std()) == pytest.approx(SPREAD, rel=0.4)
        assert not torch.equal(net.twins[0].weight, net.twins[1].weight)


def test_seeds_and_networks_differ_and_a_stage_is_the_same_in_every_step():
    net = tiny_cnn()

    def drawn(tensors, seed=0, network=0):
        with randomized(net, tensors, seed, network):
            return net.fc.weight.detach().clone()

    head = ["fc.weight", "fc.bias"]
    assert torch.equal(drawn(head), drawn(everything(net)))
    assert not torch.equal(drawn(head), drawn(head, seed=1))
    assert not torch.equal(drawn(head), drawn(head, network=1))


class Whole(nn.Module):
    """An initializer that reaches into its parts, writes to a buffer and to a plain tensor."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.raw = nn.Parameter(torch.rand(4))
        self.register_buffer("seen", torch.ones(1))
        self.table = torch.ones(2)

    def reset_parameters(self):
        for p in self.parameters():
            nn.init.constant_(p, 7)
        self.seen.zero_()
        self.table.zero_()
        self.extra = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)) * self.raw)


def test_an_initializer_that_reaches_further_changes_only_what_is_chosen():
    net = Whole()
    kept = {n: p.detach().clone() for n, p in net.named_parameters()}
    with randomized(net, ["raw"], seed=0):
        assert torch.equal(net.raw, torch.full((4,), 7.0))
        assert all(torch.equal(p, kept[n]) for n, p in net.named_parameters() if n != "raw")
        assert float(net.seen) == 1
        assert torch.equal(net.table, torch.ones(2))
    assert set(dict(net.named_parameters())) == set(kept)


def test_an_initializer_that_fails_is_a_refusal_and_leaves_no_trace():
    net = tiny_cnn()
    before = world(net)

    def broken():
        raise ZeroDivisionError("no")

    net.fc.reset_parameters = broken
    with pytest.raises(sw.RefusalError, match=r"fc \(Linear\) failed"), randomized(net, everything(net), 0):
        pass
    del net.fc.reset_parameters
    assert_nothing_left_behind(before, world(net))


def test_integer_weights_and_networks_without_any_are_refused():
    net = tiny_cnn()
    net.register_parameter("index", nn.Parameter(torch.ones(3, dtype=torch.int32), requires_grad=False))
    with pytest.raises(sw.RefusalError, match="integers"):
        stages(net)
    with pytest.raises(sw.RefusalError, match="no learnable"):
        stages(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def test_recalibrated_statistics_are_those_of_the_images_and_go_away_again():
    net, x = tiny_cnn(), images(6)
    model, before = wrapped(net), world(net)
    last = stages(net)
    with model.guarded(), recalibrated(model, x, PREDICTED, last) as count:
        assert count == 2
        z = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        with torch.no_grad():
            first = net.conv1(z)
        assert torch.allclose(net.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(net.bn1.running_var, first.transpose(0, 1).flatten(1).var(1), rtol=1e-4)
        assert net.bn1.momentum == 1.0 or not net.bn1.training
    assert_nothing_left_behind(before, world(net))
    with model.guarded(), recalibrated(model, x, PREDICTED, last[-1:]) as count:
        assert count == 0


# -- outputs that are kept ------------------------------------------------------------------------------------------


class InPlaceAfter(nn.Module):
    """Writes to what its first part returned, and adds what its second was given."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        a = torch.relu_(self.one(x))
        b = self.two(a)
        b += a
        a *= 2
        return self.fc((a + b).mean((2, 3)))


@pytest.mark.parametrize(
    "net", [tiny_cnn(), tiny_residual(), tiny_vit(), InPlaceAfter().eval()], ids=lambda n: type(n).__name__
)
def test_kept_outputs_change_no_bit(net):
    model, parts = wrapped(net), [s.modules[0] for s in stages(net)]
    x, y = images(3), images(3, seed=1)
    wanted = [model.predict(x), model.predict(y)]
    with capture.keeping_outputs(net, parts) as kept:
        kept.serve(parts)
        for _ in range(4):
            assert torch.equal(model.predict(x), wanted[0])
            assert torch.equal(model.predict(y), wanted[1])
        assert kept.recalled >= 2 * len(parts)
        half = kept.recalled
        kept.serve([])
        assert torch.equal(model.predict(x), wanted[0])
        assert kept.recalled == half
    assert not any("forward" in m.__dict__ for m in net.modules())


def test_a_part_that_is_looked_into_runs_and_its_own_parts_are_kept():
    net = tiny_residual()
    seen = []
    x = images(2)
    with capture.keeping_outputs(net, ["layer1"]) as kept, torch.no_grad():
        kept.serve(["layer1"])
        net(x)
        net(x)
        assert kept.recalled == 1
        handle = net.layer1.bn1.register_forward_hook(lambda *_: seen.append(1))
        net(x)
        net(x)
        handle.remove()
    assert len(seen) == 2
    assert kept.recalled > 1


def test_nothing_is_kept_where_a_graph_is_needed_or_numbers_are_drawn():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)), images(2)
    with capture.keeping_outputs(net, ["0", "1"]) as kept:
        kept.serve(["0", "1"])
        with torch.no_grad():
            net.train()
            one, other = net(x), net(x)
        assert not torch.equal(one, other)
        assert kept.recalled == 1  # the convolution's
        net(x.requires_grad_()).sum().backward()
        assert kept.recalled == 1
        assert x.grad is not None


def test_what_does_not_fit_is_computed_again(monkeypatch):
    monkeypatch.setattr("seewhy.capture.keeping.KEPT_BYTES", 1000)
    net, x = tiny_cnn(), images(2)
    with capture.keeping_outputs(net, ["conv1"]) as kept, torch.no_grad():
        kept.serve(["conv1"])
        net(x)
        net(x)
        assert kept.recalled == 0

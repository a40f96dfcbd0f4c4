"""Networks that do unusual things on their way: the map is right, or the refusal says where it ends."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import seewhy as sw
from awkward_nets import Lazy, Through, Wrapping, fourier, named_inside, remembering, viewed
from nets import cut, images, linear, seeded, tiny_cnn, tiny_inplace
from seewhy.errors import RefusalError, UsageError

QUICK = {"integrated_gradients": {"rule": "midpoint", "steps": 4}, "occlusion": {"patch": 12}}


def explain(net, method, **given):
    return sw.explain(sw.wrap(net), given.pop("x", images(2)), method, 1, **{**QUICK.get(method, {}), **given})


def same(a, b, tolerance=1e-6):
    return float((a.raw - b.raw).abs().max()) <= tolerance * float(b.raw.abs().max())


# -- outputs of layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv", "view"])
def test_a_view_that_is_changed_in_place_after_the_layer_changes_nothing(layer):
    maps = [explain(viewed(inplace), "grad_cam", layer=layer) for inplace in (True, False)]
    assert same(*maps)


def test_a_layer_that_returns_a_named_tuple_gives_its_first_tensor():
    net = named_inside()
    assert torch.equal(explain(net, "grad_cam", layer="layer").raw, explain(net, "grad_cam", layer="layer.conv").raw)


def test_complex_numbers_inside_the_network_are_its_own_business():
    net, x = fourier(), images(2)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    assert torch.allclose(explain(net, "gradient").raw, wanted.sum(1), atol=1e-6)
    assert explain(net, "grad_cam").layer == "conv"
    assert "turn" not in [layer.name for layer in sw.wrap(net, size=32).layers() if layer.usable]


def test_weights_in_channels_last_memory_stay_so():
    net = tiny_cnn().to(memory_format=torch.channels_last)
    strides = [p.stride() for p in net.parameters()]
    assert same(explain(net, "grad_cam"), explain(tiny_cnn(), "grad_cam"))
    assert [p.stride() for p in net.parameters()] == strides


def test_a_module_with_two_names_has_its_first():
    net = tiny_cnn()
    net.alias = net.relu2
    assert explain(net, "grad_cam").layer == "relu2"
    assert torch.equal(explain(net, "grad_cam", layer=net.alias).raw, explain(net, "grad_cam").raw)


# -- what the user has put on modules ----------------------------------------------------------------------------------


PUT_ON = {
    "weight norm": lambda net: parametrizations.weight_norm(net.conv2),
    "spectral norm": lambda net: parametrizations.spectral_norm(net.conv2),
    "orthogonal": lambda net: parametrizations.orthogonal(net.fc),
    "pruning": lambda net: prune.l1_unstructured(net.conv2, "weight", 0.3),
    "spectral norm by hooks": lambda net: nn.utils.spectral_norm(net.conv2),
}


@pytest.mark.parametrize("what", PUT_ON)
@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_a_parametrized_weight_gives_the_map_of_its_value_and_stays_bit_equal(what, method):
    net = tiny_cnn()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PUT_ON[what](net)
    net.eval()
    net(images(1))
    value = net.conv2.weight
    plain = tiny_cnn()
    plain.conv2.weight.data, plain.fc.weight.data = value.detach().clone(), net.fc.weight.detach().clone()
    net.train()
    before, kept = {k: v.clone() for k, v in net.state_dict().items()}, net.conv2.__dict__.get("weight")
    e = explain(net, method)
    assert same(e, explain(plain, method), 1e-5)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert net.conv2.__dict__.get("weight") is kept


def test_tensors_that_a_forward_keeps_in_plain_attributes_are_as_before():
    net = remembering()
    before = net.last
    for method in ("gradient", "grad_cam", "occlusion"):
        explain(net, method)
        assert net.last is before
        assert not hasattr(net, "first")


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "guided_backprop"])
def test_the_users_hooks_still_run_in_their_order_and_what_they_change_counts(method):
    net, seen = tiny_cnn(), []
    net.relu2.register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    net.relu2.register_forward_hook(lambda module, inputs, output: (seen.append("after"), output * 2)[1])
    net.relu2.register_forward_hook(lambda module, inputs, output: seen.append(float(output.detach().abs().sum())))
    model, names = sw.wrap(net), list(net.relu2._forward_hooks)
    e = sw.explain(model, images(1), method, 1)
    del seen[:]
    again = sw.explain(model, images(1), method, 1)
    assert seen[0::3] == ["before"] * (len(seen) // 3)
    assert seen[1::3] == ["after"] * (len(seen) // 3)
    assert torch.equal(e.raw, again.raw)
    assert list(net.relu2._forward_hooks) == names
    doubled = tiny_cnn()
    doubled.fc.weight.data *= 2
    assert same(e, explain(doubled, method, x=images(1)), 1e-5)


def test_a_backward_hook_of_the_users_runs_and_stays():
    net, seen = tiny_cnn(), []
    net.conv2.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(1))
    assert same(explain(net, "gradient"), explain(tiny_cnn(), "gradient"))
    assert seen
    assert len(net.conv2._backward_hooks) == 1


# -- weights without values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_lazy_modules_that_never_ran_are_left_unmade_and_named(method):
    net = Lazy()
    with pytest.raises(UsageError, match=r"4 weights .* \(conv.weight.*Run it once"):
        explain(net, method)
    assert isinstance(net.conv, nn.LazyConv2d)
    torch.manual_seed(1)
    net(images(1))
    assert all(status in ("ok", "all_negative") for status in explain(net.eval(), method).status)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_weights_on_the_meta_device_are_named(method):
    net = tiny_cnn()
    net.fc = nn.Linear(12, 5, device="meta")
    with pytest.raises(UsageError, match=r"2 weights .*'meta'.*fc.weight"):
        explain(net, method)


def test_images_on_the_meta_device_have_no_pixels():
    with pytest.raises(UsageError, match="no pixels"):
        explain(tiny_cnn(), "gradient", x=images(1).to("meta"))


# -- a network that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion", "edge_map"])
@pytest.mark.parametrize(
    ("net", "x", "said"),
    [
        (linear, images(1, size=(16, 16)), r"3 x 16 x 16, at fc \(Linear\)"),
        (tiny_cnn, images(1, channels=4), r"4 x 32 x 32, at conv1 \(Conv2d\)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 7)), images(1, size=(4, 4)), r"3 x 4 x 4, at 0 \(Conv2d\)"),
    ],
    ids=["size", "channels", "kernel"],
)
def test_an_input_that_the_network_cannot_take_is_shown_with_its_shape_and_what_was_said(method, net, x, said):
    with pytest.raises(UsageError, match=said) as caught:
        explain(net(), method, x=x)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert str(caught.value.__cause__).splitlines()[0][:40] in str(caught.value)


def test_an_operation_that_half_precision_lacks_is_told_with_the_way_out():
    class Determinant(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5, dtype=torch.float16))

        def forward(self, x):
            return torch.linalg.det(x[..., :5, :5]).sum(1, keepdim=True) * self.scale

    with pytest.raises(UsageError, match=r"no float16 form on cpu: use precision='float32' and module.float\(\)"):
        explain(Determinant(), "gradient")


# -- a cut graph ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["relu2", "conv1"])
def test_a_layer_in_front_of_a_cut_is_not_said_to_be_unused(layer):
    with pytest.raises(RefusalError, match=r"graph is cut .* at cutter \(Detach\).*Usable here: 'cutter'") as caught:
        explain(cut("cutter"), "grad_cam", layer=layer)
    assert "does not depend" not in str(caught.value)


def test_a_layer_that_the_score_truly_ignores_is_said_to_be_so():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.aside = tiny_cnn(), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            self.aside(x)
            return self.net(x)

    with pytest.raises(RefusalError, match="the target does not depend on it"):
        explain(seeded(Aside)(), "grad_cam", layer="aside")


@pytest.mark.parametrize("where", ["forward", "inference"])
def test_a_network_without_any_layer_behind_the_cut_says_where_it_is_and_what_still_works(where):
    with pytest.raises(RefusalError, match=r"The graph is cut at .*occlusion, rise"):
        explain(cut(where), "grad_cam")


def test_a_layer_behind_the_cut_has_the_map_of_the_network_that_is_not_cut():
    assert torch.equal(explain(cut("cutter"), "grad_cam").raw, explain(tiny_cnn(), "grad_cam", layer="relu2").raw)


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_a_forward_that_leaves_torch_for_numpy_is_a_cut_at_that_module(detached, method):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Through(detached), nn.Flatten(), nn.Linear(3600, 5)))()
    with pytest.raises(RefusalError, match=r"graph is cut at 1 \(Through\).*occlusion, rise"):
        explain(net, method)
    assert explain(net, "occlusion").ok == [True, True]


def test_a_failure_deep_inside_names_the_innermost_module():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no such thing")

    with pytest.raises(UsageError, match=r"at net\.1 \(Broken\): no such thing\."):
        explain(Wrapping(nn.Sequential(tiny_cnn(), Broken())), "gradient")


def test_an_in_place_network_with_the_users_backward_hooks_is_torchs_own_refusal():
    net = tiny_inplace()
    net.bn1.register_full_backward_hook(lambda module, grad_in, grad_out: None)
    with pytest.raises(UsageError, match="is being modified inplace"):
        explain(net, "gradient")


# -- pictures of unusual inputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "note"), [(12, "first 3 of its 12"), (2, "first 1 of its 2"), (3, None), (1, None)]
)
def test_a_picture_of_many_channels_says_which_it_shows(channels, note):
    e = explain(tiny_cnn(channels), "grad_cam", x=images(1, channels))
    assert [text for text in e.sources[0].notes if "channels" in text] == (
        [] if note is None else [f"pictures show the {note} channels"]
    )
    assert e.overlay().size[0] >= 32

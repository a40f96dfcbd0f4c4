"""Maps with a graph of their own, for attacks and for training on maps; all others have none."""

import pytest
import torch

import seewhy as sw
from awkward_nets import ending, smooth
from nets import MEAN, STD, images, tiny_vit
from seewhy.registry import METHODS

sw.methods()
HAVE_IT = ["grad_cam", "grad_cam_pp", "hires_cam", "layer_cam", "gradient", "gradient_x_input", "smooth_grad"]
GIVEN = {"smooth_grad": {"samples": 4, "noise": 0.1}}
each = pytest.mark.parametrize("method", HAVE_IT)


def mapped(net, x, method, differentiable=True, **given):
    model = sw.wrap(net, mean=MEAN, std=STD, batch_size=2)
    return sw.explain(model, x, method, 1, **GIVEN.get(method, {}), differentiable=differentiable, **given)


def weighted(raw):
    """One number of a map: its cells under fixed random weights."""
    return (raw * torch.randn(raw.shape, generator=torch.Generator().manual_seed(1))).sum()


@each
def test_the_second_gradient_matches_finite_differences(method):
    net, x = smooth().double(), (0.2 + 0.6 * images(3)).requires_grad_()
    e = mapped(net, x, method)
    (slope,) = torch.autograd.grad(weighted(e.raw), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    step = 2e-3 * direction

    def value(at):
        return float(weighted(mapped(net, at, method, False).raw.double()))

    clean = x.detach()
    low, high = (extreme.view(-1, 1, 1, 1) for extreme in (clean.flatten(1).amin(1), clean.flatten(1).amax(1)))
    inside = (clean > low) & (clean < high)  # the extremes set the noise of SmoothGrad: they stay
    there, back = (torch.where(inside, clean + sign * step, clean).clamp(low, high) for sign in (1, -1))
    moved = (there - back).double()
    change = value(there) - value(back)
    assert float((slope.double() * moved).sum()) == pytest.approx(change, rel=0.02)


@each
def test_the_gradient_at_a_weight_is_autograds_own(method):
    net, x = smooth(), images(3)
    e = mapped(net, x, method)
    (found,) = torch.autograd.grad(weighted(e.raw), net.conv1.weight)
    before, generator = net.conv1.weight.detach().clone(), torch.Generator().manual_seed(3)
    step = 5e-3 * torch.randn(before.shape, generator=generator)
    values = []
    for sign in (1, -1):
        net.conv1.weight.data = before + sign * step
        values.append(float(weighted(mapped(net, x, method, False).raw.double())))
    assert float((found * 2 * step).sum()) == pytest.approx(values[0] - values[1], rel=0.02)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "hires_cam", "layer_cam"])
def test_behind_a_layer_that_is_not_read_linearly_the_weights_of_the_map_have_a_slope_too(method):
    net, x = smooth().double(), images(3).requires_grad_()
    given = {"layer": "relu1"} | ({"variant": "paper"} if method == "grad_cam_pp" else {})  # `code` jumps where g is 0
    e = mapped(net, x, method, **given)
    (slope,) = torch.autograd.grad(weighted(e.raw), x)
    step = 2e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    there, back = ((x.detach() + sign * step).clamp(0, 1) for sign in (1, -1))
    values = [float(weighted(mapped(net, at, method, False, **given).raw.double())) for at in (there, back)]
    assert float((slope.double() * (there - back)).sum()) == pytest.approx(values[0] - values[1], rel=0.02)


@each
def test_it_is_the_map_that_comes_without_a_graph(method):
    net, x = smooth(), images(3).requires_grad_()
    with_graph, without = mapped(net, x, method), mapped(net, x, method, False)
    assert torch.equal(with_graph.raw.detach(), without.raw)
    assert with_graph.raw.requires_grad
    assert not without.raw.requires_grad
    for e in (with_graph, without):
        assert not any(t.requires_grad for t in (e.images, e.scores, *e.evidence.values()))


@each
def test_no_gradient_lands_anywhere_and_weights_keep_their_flags(method):
    net, x = smooth(), images(3).requires_grad_()
    net.fc.requires_grad_(False)
    flags = [p.requires_grad for p in net.parameters()]
    e = mapped(net, x, method)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert x.grad is None
    assert all(p.grad is None for p in net.parameters())
    e.raw.abs().sum().backward()
    assert x.grad is not None
    assert net.conv1.weight.grad is not None
    assert net.fc.weight.grad is None


@each
def test_it_works_without_gradients_switched_on_and_shows_and_saves_itself(method, tmp_path):
    net, x = smooth(), images(3).requires_grad_()
    with torch.no_grad():
        e = mapped(net, x, method)
    assert torch.autograd.grad(e.raw.sum(), x)[0].abs().max() > 0
    assert e.overlay().size[0] >= 32
    e.save(tmp_path)
    assert torch.equal(sw.read_explanation(tmp_path).raw, e.raw.detach())


@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_fused_attention_has_a_second_gradient_and_the_switches_stay(method):
    net, x = tiny_vit(), images(2).requires_grad_()
    e = mapped(net, x, method)
    assert torch.allclose(e.raw, mapped(net, x, method, False).raw, atol=1e-5 * float(e.raw.detach().abs().max()))
    assert torch.autograd.grad(e.raw.square().sum(), x)[0].abs().max() > 0
    assert torch.backends.cuda.flash_sdp_enabled()


def test_several_targets_an_image_share_its_gradient():
    net, x = smooth(), images(2).requires_grad_()
    model = sw.wrap(net)
    with torch.no_grad():
        e = sw.explain(model, x, "gradient", [[0, 1], [2]], differentiable=True)
    (together,) = torch.autograd.grad(e.raw.sum(), x)
    one_by_one = sum(
        torch.autograd.grad(sw.explain(model, x, "gradient", [a, 2], differentiable=True).raw[rows].sum(), x)[0]
        for a, rows in ((0, [0, 1]), (1, [0]))
    )
    assert torch.allclose(together, one_by_one, atol=1e-6 * float(together.abs().max()))


def test_it_goes_through_the_logits_of_a_softmax():
    x = images(2).requires_grad_()
    found = []
    for end in (torch.nn.Softmax(1), lambda z: z):
        net = ending(end)
        net.relu1, net.relu2 = torch.nn.Softplus(), torch.nn.Softplus()
        found.append(torch.autograd.grad(mapped(net, x, "gradient").raw.square().sum(), x)[0])
    assert torch.allclose(*found, atol=1e-6 * float(found[0].abs().max()))


@pytest.mark.parametrize("method", sorted(name for name in METHODS if name not in HAVE_IT))
def test_another_method_refuses_it_and_says_which_have_it(method):
    with pytest.raises(sw.UsageError, match=rf"no parameter 'differentiable'.*{', '.join(HAVE_IT)}"):
        sw.explain(sw.wrap(smooth()), images(1), method, differentiable=True)

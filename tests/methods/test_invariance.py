"""One function written as several networks: gradients, paths and Grad-CAM see the function, LayerCAM sees its channels.

Sundararajan et al. 2017, section 2.2 (implementation invariance). Functions of few numbers: test_gradient.py, test_path.py;
guided backpropagation and DeconvNet, which differ: test_rectified.py.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import seewhy as sw
from nets import images, tiny_cnn


def folded(net):
    """Normalizations folded into the convolutions before them."""
    net.conv1, net.conv2 = fuse_conv_bn_eval(net.conv1, net.bn1), fuse_conv_bn_eval(net.conv2, net.bn2)
    net.bn1 = net.bn2 = nn.Identity()


def permuted(net):
    """The hidden channels in another order."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    for tensor in (net.conv1.weight, net.conv1.bias, *net.bn1.parameters(), net.bn1.running_mean, net.bn1.running_var):
        tensor.copy_(tensor[order])
    net.conv2.weight.copy_(net.conv2.weight[:, order])


def rescaled(net):
    """Every channel of both layers times a number of its own, which the next weights take back: ReLUs let it through."""
    generator = torch.Generator().manual_seed(2)
    for norm, following in ((net.bn1, net.conv2), (net.bn2, net.fc)):
        times = 0.2 + 3 * torch.rand(norm.num_features, generator=generator)
        norm.weight.mul_(times)
        norm.bias.mul_(times)
        following.weight.div_(times.view(1, -1, *[1] * (following.weight.ndim - 2)))


@pytest.mark.parametrize("rewrite", [folded, permuted, rescaled])
@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("gradient", {}),
        ("smooth_grad", {"samples": 4}),
        ("integrated_gradients", {"rule": "midpoint", "steps": 4}),
        ("grad_cam", {}),
    ],
)
def test_a_network_written_in_another_way_has_the_same_maps(method, given, rewrite):
    one, x = sw.wrap(tiny_cnn(), size=32), images(2)
    net = copy.deepcopy(one.module)
    with torch.no_grad():
        rewrite(net)
    other = sw.wrap(net, size=32)
    assert torch.allclose(other.predict(x), one.predict(x), atol=1e-5)
    before, after = (sw.explain(model, x, method, 1, **given).raw for model in (one, other))
    assert (after - before).abs().max() <= 1e-4 * before.abs().max()


def test_channels_that_are_mixed_anew_leave_grad_cam_and_change_layer_cam():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    mixed, mix, x = copy.deepcopy(net), torch.randn(6, 6), images(2)
    with torch.no_grad():
        mixed[0].weight.copy_(torch.einsum("ij,jchw->ichw", mix, net[0].weight))
        mixed[0].bias.copy_(mix @ net[0].bias)
        mixed[3].weight.copy_(net[3].weight @ torch.linalg.inv(mix))
    one, other = sw.wrap(net, size=32), sw.wrap(mixed, size=32)
    assert torch.allclose(other.predict(x), one.predict(x), atol=1e-4)
    for method, changes in (("grad_cam", False), ("layer_cam", True)):
        before, after = (sw.explain(model, x, method, 1, layer="0").raw for model in (one, other))
        assert bool((after - before).abs().max() > 1e-3 * before.abs().max()) == changes

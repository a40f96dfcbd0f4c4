import captum.attr
import pytest
import torch
from torch import nn
from twins import grad_cam

import seewhy as sw
from nets import tiny_cnn, tiny_residual


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

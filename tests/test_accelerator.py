"""The same contracts on a GPU. Skipped where there is none, which is so in CI."""

import warnings

import pytest
import torch

import seewhy as sw
from nets import images, tiny_cnn, tiny_residual, tiny_vit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
METHODS = {
    "grad_cam": {},
    "gradient": {},
    "smooth_grad": {"samples": 9},
    "integrated_gradients": {},
    "edge_map": {},
    "random_map": {},
}
NETS = {"cnn": tiny_cnn, "residual": tiny_residual, "vit": tiny_vit}


@pytest.fixture(autouse=True)
def exact_convolutions():
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_that_of_the_cpu_and_comes_back_where_the_images_were(method, kind):
    x = images(5)
    here = sw.explain(sw.wrap(NETS[kind]()), x, method, target=1, **METHODS[method])
    model = sw.wrap(NETS[kind]().cuda())
    for given in (x, x.cuda()):
        there = sw.explain(model, given, method, target=1, **METHODS[method])
        assert there.raw.device == given.device
        assert (there.raw.cpu() - here.raw).abs().max() <= 1e-4 * here.raw.abs().max()
        assert there.layer == here.layer
        assert there.status == here.status
    assert next(model.module.parameters()).is_cuda


@pytest.mark.parametrize("method", METHODS)
def test_cuda_random_states_are_as_before(method):
    model = sw.wrap(tiny_cnn().cuda())
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    sw.explain(model, images(2), method, **METHODS[method])
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_real_out_of_memory_halves_the_batch_and_gives_the_same_maps():
    class Hungry(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_cnn()

        def forward(self, x):
            if len(x) > 3:  # more than the card has
                torch.empty(len(x) * 2**40, dtype=torch.uint8, device=x.device)
            return self.net(x)

    x = images(8)
    with pytest.warns(RuntimeWarning, match="do not fit"):
        e = sw.explain(sw.wrap(Hungry().cuda()), x, "gradient", target=1)
    wanted = sw.explain(sw.wrap(tiny_cnn().cuda()), x, "gradient", target=1)
    assert (e.raw - wanted.raw).abs().max() <= 1e-4 * wanted.raw.abs().max()


def test_bfloat16_by_autocast_gives_float32_maps_near_the_float32_ones():
    x = images(4)
    exact = sw.explain(sw.wrap(tiny_residual().cuda()), x, "gradient", target=1).raw
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = sw.explain(sw.wrap(tiny_residual().cuda(), precision="bfloat16"), x, "gradient", target=1)
    assert e.raw.dtype == torch.float32
    assert e.validity["precision"] == "bfloat16"
    for a, b in zip(e.raw, exact, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.98

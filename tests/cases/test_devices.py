"""Half precision, other devices, wrappers, and networks whose inside cannot be seen: scripted, exported, quantized."""

import functools
import warnings

import pytest
import torch
from scipy import stats
from torch import nn

import seewhy as sw
from cases.nets import QUICK, state_of
from nets import MEAN, STD, Cnn, images, seeded, tiny_cnn, tiny_residual, tiny_vit

INPUT = ["gradient", "smooth_grad", "integrated_gradients"]
BLACK_BOX = ["occlusion", "rise", "lime", "kernel_shap"]


def explain(net, method, target=1, n=2, **given):
    return sw.explain(sw.wrap(net, mean=MEAN, std=STD), images(n), method, target, **{**QUICK.get(method, {}), **given})


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max()) + 1e-7


# row 48


class Autocast(Cnn):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


class HeadInDouble(Cnn):
    def __init__(self):
        super().__init__()
        self.fc = self.fc.double()

    def forward(self, x):
        return self.fc(self.pool(self.features(x)).flatten(1).double())


FEW_DIGITS = {
    "half": lambda build: build().half(),
    "bfloat16": lambda build: build().bfloat16(),
    "float64": lambda build: build().double(),
    "autocast inside": lambda build: seeded(Autocast)(),
    "a head in float64": lambda build: seeded(HeadInDouble)(),
}


@pytest.mark.parametrize("kind", FEW_DIGITS)
@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
@pytest.mark.parametrize("build", [tiny_cnn, tiny_residual, tiny_vit])
def test_a_network_of_few_digits_has_finite_float32_maps_that_rank_as_the_float32_ones(kind, method, build):
    if " " in kind and build is not tiny_cnn:
        return
    net = FEW_DIGITS[kind](build)
    before = state_of(net)
    e, plain = explain(net, method), explain(build(), method)
    assert (e.raw.dtype, e.scores.dtype, e.maps.dtype) == (torch.float32,) * 3
    assert torch.isfinite(e.raw).all()
    assert e.status == plain.status
    for raw, wanted in zip(e.raw, plain.raw, strict=True):
        assert stats.spearmanr(raw.flatten(), wanted.flatten()).statistic > 0.95
    assert state_of(net) == before


def test_the_words_about_few_digits_name_the_digits_that_there_are():
    (note,) = (text for text in explain(tiny_cnn().half(), "occlusion").validity["approximations"] if "digits" in text)
    assert "float16" in note or "half" in note


def test_a_half_parameter_in_front_of_a_float32_network_does_not_decide_for_it():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1).half())
            self.net = tiny_cnn()

        def forward(self, x):
            return self.net(x) * self.scale.float()

    assert close(explain(Scaled(), "gradient").raw, explain(tiny_cnn(), "gradient").raw)


# row 49

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@gpu
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize(("model_on", "image_on"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_the_map_comes_back_where_the_image_was_and_the_network_is_not_moved(method, model_on, image_on):
    net, x = tiny_cnn().to(model_on), images(2).to(image_on)
    e = sw.explain(sw.wrap(net), x, method, 1, **QUICK.get(method, {}))
    assert e.raw.device == e.maps.device == e.scores.device == x.device
    assert next(net.parameters()).device.type == model_on
    assert close(e.raw.cpu(), sw.explain(sw.wrap(tiny_cnn()), images(2), method, 1, **QUICK.get(method, {})).raw, 1e-3)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_network_without_weights_on_the_meta_device_is_an_error_that_names_it(method):
    with pytest.raises(sw.SeewhyError, match="meta"):
        explain(tiny_cnn().to("meta"), method)


# wrappers (theme 12)


@pytest.mark.parametrize("kind", ["DataParallel", "compiled and run", "averaged", "traced by fx", "sequential"])
@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_a_wrapped_network_has_the_maps_of_the_plain_one(kind, method):
    net = tiny_cnn()
    if kind == "DataParallel":
        outer = nn.DataParallel(net)
    elif kind.startswith("compiled"):
        outer = torch.compile(net, backend="eager")
        if kind == "compiled and run":
            outer(images(2))
    elif kind == "averaged":
        outer = torch.optim.swa_utils.AveragedModel(net)
    else:
        outer = torch.fx.symbolic_trace(net) if kind == "traced by fx" else nn.Sequential(net)
    e, plain = explain(outer, method), explain(tiny_cnn(), method)
    assert close(e.raw, plain.raw)
    assert e.layer is None or e.layer.endswith(plain.layer)


# row 51


@functools.cache
def hidden(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "scripted":
            return torch.jit.script(tiny_cnn())
        if kind == "traced":
            return torch.jit.trace(tiny_cnn(), images(2))
        if kind == "exported":
            batch = torch.export.Dim("batch", min=1, max=64)
            return torch.export.export(tiny_cnn(), (images(2),), dynamic_shapes=({0: batch},)).module()
        return torch.ao.quantization.quantize_dynamic(tiny_cnn(), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "traced", "exported"])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion", "lime"])
def test_a_network_whose_inside_is_hidden_has_the_input_maps_of_the_eager_one(kind, method):
    e, plain = explain(hidden(kind), method), explain(tiny_cnn(), method)
    assert close(e.raw, plain.raw, 1e-4)
    assert torch.allclose(e.scores, plain.scores, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "traced", "exported"])
@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "eigen_cam"])
def test_a_layer_method_on_a_network_whose_inside_is_hidden_is_refused_with_those_that_work(kind, method):
    net = hidden(kind)
    for layer in (None, "relu2"):
        with pytest.raises(sw.RefusalError, match="gradient") as refusal:
            explain(net, method, None, layer=layer)
        assert len(str(refusal.value).splitlines()) == 1
    with pytest.raises(sw.RefusalError):
        sw.wrap(net, size=32).layers()


@pytest.mark.parametrize("method", [*INPUT, "grad_cam", "guided_backprop"])
def test_a_gradient_method_on_a_quantized_network_is_refused_in_one_line_that_names_what_runs(method):
    with pytest.raises(sw.RefusalError, match="quantized") as refusal:
        explain(hidden("quantized"), method)
    assert any(name in str(refusal.value) for name in BLACK_BOX)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("method", [*BLACK_BOX, "edge_map"])
def test_black_box_methods_run_on_a_quantized_network(method):
    e = explain(hidden("quantized"), method)
    assert e.raw.any()
    assert torch.isfinite(e.raw).all()


def test_a_class_activation_map_without_gradients_is_refused_on_a_quantized_network_too():
    with pytest.raises(sw.RefusalError, match=r"quantized.*occlusion"):
        explain(hidden("quantized"), "score_cam", layer="relu2")

"""Networks inside something else: taken out of it, run as they were written, or refused where their layers are hidden."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import seewhy as sw
from awkward_nets import Wrapping, adapted, exported, frozen, quantized, quietly, scripted, traced
from nets import images, tiny_cnn
from seewhy.errors import RefusalError

QUICK = {"integrated_gradients": {"rule": "midpoint", "steps": 4}, "occlusion": {"patch": 12}, "rise": {"samples": 8}}
ON_THE_INPUT = ["gradient", "integrated_gradients", "occlusion"]
IN_LAYERS = ["grad_cam", "score_cam", "layer_cam"]
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore:.*deprecated:FutureWarning")


def explain(net, method, x=None, **given):
    return sw.explain(sw.wrap(net, **given), images(2) if x is None else x, method, 1, **QUICK.get(method, {}))


def same(a, b, tolerance=1e-6):
    return float((a.raw - b.raw).abs().max()) <= tolerance * float(b.raw.abs().max())


# -- wrappers of torch's own -------------------------------------------------------------------------------------------


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_is_taken_off(one_process):
    net = tiny_cnn()
    wrapped = nn.parallel.DistributedDataParallel(net)
    assert sw.wrap(wrapped).module is net
    assert torch.equal(explain(wrapped, "grad_cam").raw, explain(tiny_cnn(), "grad_cam").raw)


def test_an_averaged_model_is_the_average():
    averaged, other = AveragedModel(tiny_cnn()), tiny_cnn(seed=1)
    averaged.update_parameters(tiny_cnn())
    averaged.update_parameters(other)
    e = explain(averaged.eval(), "grad_cam")
    assert e.layer == "relu2"
    assert torch.equal(e.raw, explain(averaged.module, "grad_cam").raw)
    assert not same(e, explain(tiny_cnn(), "grad_cam"))


def whole(net, backend):
    return torch.compile(net, backend=backend), net


def in_place(net, backend):
    net.compile(backend=backend)
    return net, net


def one_layer(net, backend):
    net.conv2.compile(backend=backend)
    return net, net


def one_method(net, backend):
    net.features = torch.compile(net.features, backend=backend)
    return net, net


def inside(net, backend):
    outer = Wrapping(torch.compile(net, backend=backend)).eval()
    return outer, net


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("how", [whole, in_place, one_layer, one_method, inside])
def test_a_compiled_network_that_has_run_has_the_maps_of_the_plain_one(how):
    compiled, net = how(tiny_cnn(), "eager")
    compiled(images(2))
    compiled(images(2).requires_grad_())[:, 1].sum().backward()
    net.zero_grad(set_to_none=True)
    for method in ("grad_cam", "gradient", "guided_backprop"):
        e = explain(compiled, method)
        assert torch.equal(e.raw, explain(tiny_cnn(), method).raw)
        assert (e.layer or "relu2").endswith("relu2")


def test_a_compiled_network_is_compiled_again_afterwards():
    ran = []

    def backend(graph, _inputs):
        return lambda *args: ran.append(1) or graph(*args)

    class Fresh(nn.Module):
        """A forward that was never run: the compiler gives up for good on some that ran in other ways before."""

        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.relu(self.conv(x)).mean((2, 3)))

    net = Fresh().eval()
    net.compile(backend=backend)
    net(images(2))
    before = len(ran)
    explain(net, "grad_cam")
    assert len(ran) == before > 0
    net(images(2))
    assert len(ran) > before


def test_a_network_with_adapters_around_its_layers_just_works():
    net = adapted()
    e = explain(net, "grad_cam")
    assert e.layer == "base_model.relu2"
    leaf = images(2).requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    assert torch.allclose(explain(net, "gradient").raw, wanted.sum(1), atol=1e-6)


def test_a_graph_module_keeps_its_layers():
    net = torch.fx.symbolic_trace(tiny_cnn())
    for method in ("grad_cam", "gradient"):
        assert torch.equal(explain(net, method).raw, explain(tiny_cnn(), method).raw)
    assert explain(net, "grad_cam").layer == "relu2"


# -- code without layers -----------------------------------------------------------------------------------------------


HIDDEN = {
    "scripted": lambda: scripted(tiny_cnn()),
    "traced": lambda: traced(tiny_cnn(), images(2)),
    "frozen": lambda: frozen(tiny_cnn()),
    "exported": lambda: exported(tiny_cnn(), images(2), any_batch=True),
    "exported for one row": lambda: exported(tiny_cnn(), images(1)),
    "scripted inside": lambda: Wrapping(scripted(tiny_cnn())).eval(),
    "exported inside": lambda: Wrapping(exported(tiny_cnn(), images(2), any_batch=True)),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_hidden_code_has_the_maps_of_the_network_on_the_input_and_no_layers(kind):
    net, x = HIDDEN[kind](), images(2)
    flags = [getattr(m, "training", None) for m in net.modules()]
    for method in ON_THE_INPUT:
        e = explain(net, method, x, batch_size=8)
        assert same(e, explain(tiny_cnn(), method, x, batch_size=8), 1e-6 if method != "occlusion" else 2e-5)
    assert [getattr(m, "training", None) for m in net.modules()] == flags
    for method in IN_LAYERS:
        with pytest.raises(RefusalError, match="gradient, smooth_grad"):
            explain(net, method)
    if kind == "exported inside":
        assert [layer.usable for layer in sw.wrap(net, size=32).layers()] == [False]
    else:
        with pytest.raises(RefusalError, match="scripted"):
            sw.wrap(net, size=32).layers()
    with pytest.raises(RefusalError, match="attention"):
        explain(net, "transformer_attribution")


@pytest.mark.parametrize("kind", ["scripted", "traced", "scripted inside"])
def test_a_rule_at_its_relus_is_refused_where_code_hides_them(kind):
    with pytest.raises(RefusalError, match="hides its ReLUs"):
        explain(HIDDEN[kind](), "guided_backprop")


def test_the_relus_of_an_exported_program_are_there():
    assert same(explain(HIDDEN["exported"](), "guided_backprop"), explain(tiny_cnn(), "guided_backprop"))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_an_exported_program_of_a_fixed_batch_gives_every_image_its_own_map(rows):
    net = exported(tiny_cnn(), images(rows))
    for n in (1, 2, 5):
        check_fixed(sw.wrap(net), images(n), n)


def check_fixed(model, x, n):
    e = sw.explain(model, x, "smooth_grad", 1, samples=4)
    assert same(e, sw.explain(sw.wrap(tiny_cnn()), x, "smooth_grad", 1, samples=4), 1e-5)
    assert (e.evidence["gradient_rows"].tolist(), model.forward_rows) == ([4] * n, n)  # copies that fill up are no rows


# -- integers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["gradient", "smooth_grad", "integrated_gradients", "guided_backprop", "extremal_perturbation", *IN_LAYERS],
)
def test_a_quantized_network_is_refused_before_any_row_with_what_works(method):
    net, calls = quantized(), []
    net.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    with pytest.raises(RefusalError, match=r"integers at fc \(Linear\).*occlusion, rise, lime, kernel_shap"):
        explain(net, method)
    assert not calls


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_a_black_box_method_runs_on_a_quantized_network(method):
    net = quantized()
    e = explain(net, method)
    assert e.ok == [True, True]
    alone = torch.cat([net(image[None]) for image in images(2)])  # its integers depend on the range of the whole batch
    assert torch.allclose(e.scores, alone.softmax(1)[:, 1], atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered:UserWarning")
def test_a_scripted_quantized_network_is_refused_when_no_gradient_comes_back():
    net = quietly(lambda: torch.jit.script(quantized()))
    with pytest.raises(RefusalError, match=r"operations without a derivative \(integer arithmetic\).*occlusion"):
        explain(net, "gradient")
    assert explain(net, "occlusion").ok == [True, True]

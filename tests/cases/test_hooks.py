"""In-place operations, modules that are used again, activations that are no modules: what breaks hooks."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from cases.nets import QUICK, activated, changes_after, changes_its_input, state_of, three_relus
from nets import MEAN, STD, dense_like, images, relu_thrice, tiny_cnn, tiny_inplace, tiny_residual


def explain(net, method, x=None, target=1, **given):
    x = images(2) if x is None else x
    return sw.explain(sw.wrap(net), x, method, target, **{**QUICK.get(method, {}), **given})


# rows 1 and 2


@pytest.mark.parametrize("build", [tiny_inplace, dense_like])
@pytest.mark.parametrize("method", ["grad_cam", "gradient", "integrated_gradients"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_an_in_place_network_has_the_maps_of_its_out_of_place_twin(build, method, layer):
    given = {"layer": layer} if method == "grad_cam" else {}
    maps = [explain(build(inplace=inplace), method, **given).raw for inplace in (True, False)]
    assert torch.allclose(*maps, atol=1e-6)


@pytest.mark.parametrize("how", ["relu_", "leaky_relu", "clamp_", "slice", "view", "masked", "add"])
@pytest.mark.parametrize("method", ["hires_cam", "score_cam"])
def test_what_a_layer_returned_is_changed_in_place_afterwards_in_every_way(how, method):
    for layer in ("conv1", "conv2"):
        inplace, twin = (explain(changes_after(how, on), method, layer=layer) for on in (True, False))
        assert inplace.layer == layer
        assert inplace.status == twin.status
        assert torch.allclose(inplace.raw, twin.raw, atol=1e-6 * float(twin.raw.abs().max()))


def test_the_activation_at_a_convolution_before_an_in_place_relu_is_the_convolutions_own():
    net, twin, x = tiny_inplace(True), tiny_inplace(False), images(1)
    kept = []
    twin.conv2.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = twin(x.clone().requires_grad_())[0, 1]
    (slope,) = torch.autograd.grad(score, kept[0])
    assert kept[0].min() < 0  # before the ReLU
    by_hand = (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach()
    assert torch.allclose(explain(net, "grad_cam", x, layer="conv2").raw, by_hand, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    ["gradient", "integrated_gradients", "smooth_grad", "occlusion", "rise", "lime", "score_cam", "ablation_cam"],
)
def test_a_network_that_changes_its_input_in_place_has_the_maps_of_its_twin(method):
    inplace, twin = (explain(changes_its_input(on), method) for on in (True, False))
    assert torch.allclose(inplace.raw, twin.raw, atol=1e-5 * float(twin.raw.abs().max()))
    assert torch.allclose(inplace.scores, twin.scores, atol=1e-6)


def test_a_network_that_changes_its_input_in_place_has_the_trunk_of_its_twin():
    assert explain(changes_its_input(False), "grad_cam").validity["approximations"] == []
    assert explain(changes_its_input(True), "grad_cam").validity["approximations"] == []


@pytest.mark.parametrize("bare", [False, True])
def test_a_network_that_changes_its_input_in_place_leaves_the_users_images_alone(bare):
    net, x = changes_its_input(True), images(2)
    given = {"baseline": "mean"} if bare else {}
    sw.explain(net if bare else sw.wrap(net), x, "occlusion", 1, patch=16, **given)
    sw.explain(net if bare else sw.wrap(net), x, "grad_cam", 1)
    assert torch.equal(x, images(2))


# row 3


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "guided_grad_cam", "gradient", "grad_cam"])
def test_one_relu_object_that_is_used_three_times_equals_three_relus(method):
    given = {"layer": "convs.1"} if "cam" in method else {}
    once, thrice, functional_ones = (
        explain(net, method, **given) for net in (relu_thrice(), three_relus(), three_relus(functional_ones=True))
    )
    assert torch.equal(once.raw, thrice.raw)
    assert torch.equal(once.raw, functional_ones.raw)
    assert once.raw.abs().max() > 0


def test_a_relu_object_that_is_used_three_times_is_no_layer_until_the_call_is_chosen():
    net = relu_thrice()
    with pytest.raises(sw.UsageError, match=r"3 times.*relu#1"):
        explain(net, "grad_cam", layer=net.relu)
    with pytest.raises(sw.UsageError, match="relu#1"):
        explain(net, "grad_cam", layer="relu")


def test_a_relu_that_is_shared_by_two_blocks_and_in_place_is_gated_at_every_call():
    net, twin = tiny_residual(), tiny_residual()
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    assert torch.allclose(explain(net, "guided_backprop").raw, explain(twin, "guided_backprop").raw, atol=1e-7)


# row 5


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("spelling", ["functional", "method", "torch", "in place"])
def test_functional_relus_are_covered_by_the_rules_of_guided_backpropagation(rule, spelling):
    class Spelled(nn.Module):
        def forward(self, x):
            return {
                "functional": lambda: functional.relu(x),
                "method": lambda: x.relu(),
                "torch": lambda: torch.relu(x),
                "in place": lambda: functional.relu(x, inplace=True),
            }[spelling]()

    guided, module = explain(activated(Spelled(), Spelled()), rule), explain(tiny_cnn(), rule)
    assert torch.equal(guided.raw, module.raw)
    assert not torch.allclose(guided.raw, explain(tiny_cnn(), "gradient").raw, atol=1e-4)


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet", "guided_grad_cam"])
@pytest.mark.parametrize(("activation", "named"), [(nn.SiLU, "SiLU"), (nn.GELU, "GELU"), (nn.Tanh, "[Tt]anh")])
def test_guided_backpropagation_without_any_relu_is_refused_with_the_list_of_what_was_found(rule, activation, named):
    with pytest.raises(sw.RefusalError, match=rf"no ReLU.*2 {named}.*gradient"):
        explain(activated(activation(), activation()), rule)


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
def test_guided_backpropagation_of_a_network_with_a_relu_and_a_gelu_names_what_it_does_not_cover(rule):
    e = explain(activated(nn.ReLU(), nn.GELU()), rule)
    assert any("GELU" in note for note in e.validity["approximations"])
    assert explain(tiny_cnn(), rule).validity["approximations"] != e.validity["approximations"]


# row 16


def test_two_explainers_alive_on_one_network_and_used_in_turn_do_not_see_each_other():
    net, x = tiny_cnn(), images(2)
    before = state_of(net)
    ways = [sw.wrap, lambda net: sw.wrap(net, mean=MEAN, std=STD), lambda net: net]
    questions = {"grad_cam": {"layer": "relu1"}, "guided_backprop": {}, "score_cam": {}, "gradient": {}}

    def maps_of(models):
        return [sw.explain(model, x, method, 1, **given).raw for method, given in questions.items() for model in models]

    alone = maps_of([way(tiny_cnn()) for way in ways])
    together = [way(net) for way in ways]
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(maps_of(together), alone, strict=True))
    assert state_of(net) == before


def test_an_explainer_called_from_the_users_own_hook_on_another_network_changes_neither():
    outer, inner, x, found = tiny_cnn(), tiny_residual(), images(1), []
    wanted = explain(inner, "grad_cam", x).raw, explain(outer, "grad_cam", x).raw
    handle = outer.relu1.register_forward_hook(lambda *_: found.append(explain(inner, "grad_cam", x).raw) or None)
    raw = explain(outer, "grad_cam", x).raw
    handle.remove()
    assert torch.equal(raw, wanted[1])
    assert found
    assert all(torch.equal(one, wanted[0]) for one in found)


def test_two_threads_with_a_network_each_get_the_maps_of_one():
    nets, x, found = [tiny_cnn(), tiny_residual()], images(2), {}
    wanted = [explain(net, "grad_cam", x).raw for net in nets]

    def work(i):
        found[i] = [explain(nets[i], "grad_cam", x).raw for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, wanted[i]) for i in range(2) for one in found[i])

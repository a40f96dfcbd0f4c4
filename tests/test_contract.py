"""What every registered method promises, on every kind of tiny network: being registered is enough to be held to it."""

import functools
import json
import random
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import seewhy as sw
from nets import CLASSES, MEAN, NETS, STD, counting, dropping, failing, images, tiny_cnn, tiny_vit
from seewhy.explanation import rows_per_image
from seewhy.registry import METHODS
from seewhy.target import PREDICTED
from small import COSTS, REPRESENTATIVES, SMALL, knowing, net_of, takes

sw.methods()  # fills the registry
ALL = sorted(METHODS)
SQUARES = {"smooth_grad_squared", "var_grad", "guided_grad_cam"}  # in squared score units
NOT_HOMOGENEOUS = {
    "grad_cam_pp",
    "extremal_perturbation",
    "transformer_attribution",
}  # of no degree in the score, by their formulas
SUBTRACT_SCORES = {"occlusion", "ablation_cam"}  # of pictures that differ little
ONLY_THEIR_NOISE_IS_RANDOM = {"integrated_gradients", "guided_integrated_gradients", "idgi"}
SEEDED = [name for name in ALL if METHODS[name].seeded]
TARGETED = [name for name in ALL if METHODS[name].uses_target]
GRADIENT = [name for name in ALL if METHODS[name].needs_gradients]
COMPLETE = [name for name in ALL if METHODS[name].complete]
PAIRS = [(name, kind) for name in ALL for kind in sorted(NETS) if takes(name, kind)]
each_method = pytest.mark.parametrize("method", ALL)
each_method_of_any_target = pytest.mark.parametrize(
    "method", [name for name in ALL if name != "finer_cam"]
)  # a class alone
each_representative = pytest.mark.parametrize(
    "method", REPRESENTATIVES
)  # what the house does for these, it does for all
each_cnn_method = pytest.mark.parametrize("method", [name for name in ALL if not METHODS[name].needs_attention])
each_net = pytest.mark.parametrize("kind", sorted(NETS))
each_pair = pytest.mark.parametrize(("method", "kind"), PAIRS)


def wrapped(net, **given):
    return sw.wrap(net, **{"mean": MEAN, "std": STD, "size": 32, "batch_size": 8, **given})


@functools.cache
def shared(kind):
    """One model for every test that only asks: nothing is left behind on it, as other tests prove."""
    return wrapped(NETS[kind]())


@functools.cache
def usual(method, kind):
    """The maps of two images, asked for in the usual way."""
    return explain(shared(kind), images(2), method)


def kind_of(method):
    return "vit" if METHODS[method].needs_attention else "cnn"


def explain(model, x, method, target=None, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **knowing(method, target), **given})


def same_to(a, b, tolerance=1e-5, score=0.0):
    """To `tolerance` of the map's largest value; where a method subtracts scores, also to the scores' own rounding."""
    rounding = 4 * torch.finfo(torch.float32).eps * abs(float(score))
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max()) + rounding


def score_of(e, i=0):
    """The score whose rounding a difference of scores inherits; 0 for methods that subtract none."""
    return e.scores[i].abs().clamp_min(0.1) if e.method in SUBTRACT_SCORES else 0.0


@dataclass
class World:
    """Everything that a call must leave as it was, by identity and by value."""

    modules: list
    flags: list
    parameters: list
    buffers: list
    hooks: list
    switches: tuple
    torch_state: torch.Tensor
    numpy_state: tuple
    python_state: tuple


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
SHARED = nn.modules.module


def world(net):
    def copy(tensor):
        return None if tensor is None else tensor.detach().clone()

    return World(
        modules=[id(module) for module in net.modules()],
        flags=[(name, module.training) for name, module in net.named_modules()],
        parameters=[(n, id(p), p.requires_grad, id(p.grad), copy(p.grad), copy(p)) for n, p in net.named_parameters()],
        buffers=[(name, id(buffer), copy(buffer)) for name, buffer in net.named_buffers()],
        hooks=[len(getattr(module, name)) for module in net.modules() for name in HOOKS]
        + [
            len(SHARED._global_forward_hooks),
            len(SHARED._global_forward_pre_hooks),
            len(SHARED._global_backward_hooks),
        ],
        switches=(
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
        ),
        torch_state=torch.get_rng_state(),
        numpy_state=np.random.get_state(),
        python_state=random.getstate(),
    )


def assert_same_tensors(before, after):
    assert [row[:-1] for row in before] == [row[:-1] for row in after]
    for row, other in zip(before, after, strict=True):
        assert row[-1] is other[-1] is None or torch.equal(row[-1], other[-1]), row[0]


def assert_nothing_left_behind(before, after):
    assert before.modules == after.modules
    assert before.flags == after.flags
    assert_same_tensors([row[:-1] for row in before.parameters], [row[:-1] for row in after.parameters])
    assert_same_tensors(
        [(row[0], row[-1]) for row in before.parameters], [(row[0], row[-1]) for row in after.parameters]
    )
    assert_same_tensors(before.buffers, after.buffers)
    assert before.hooks == after.hooks
    assert before.switches == after.switches
    assert torch.equal(before.torch_state, after.torch_state)
    assert before.numpy_state[0] == after.numpy_state[0]
    assert np.array_equal(before.numpy_state[1], after.numpy_state[1])
    assert before.numpy_state[2:] == after.numpy_state[2:]
    assert before.python_state == after.python_state


@contextmanager
def disturbed_randomness():
    torch.manual_seed(77)
    np.random.seed(78)
    random.seed(79)
    torch.rand(3), np.random.rand(2), random.random()
    yield


def repeatedly(call):
    for _ in range(10):
        call()


def with_mixed_state(net):
    """Some flags on and some off, some weights frozen, real gradients in `.grad`."""
    net.train()
    for k, module in enumerate(net.modules()):
        module.training = k % 2 == 0
    nn.functional.cross_entropy(net(images(4, seed=9)), torch.arange(4)).backward()
    for k, parameter in enumerate(net.parameters()):
        if k % 3 == 1:
            parameter.requires_grad_(False)
    return net


# -- the map itself ----------------------------------------------------------------------------------------------


@each_pair
def test_raw_is_a_finite_float32_map_of_the_declared_resolution_without_a_graph(method, kind):
    model, x = shared(kind), images(3)
    e = explain(model, x, method)
    grid = (
        (32, 32)
        if METHODS[method].resolution == "input"
        else model.find_layer(e.layer, x.shape[1:], PREDICTED).form.grid
    )
    assert e.raw.shape == (3, *grid)
    assert e.grid == grid
    assert e.raw.dtype == torch.float32
    assert torch.isfinite(e.raw).all()
    assert not e.raw.requires_grad
    assert e.raw.grad_fn is None
    assert not any(values.requires_grad for values in (*e.evidence.values(), e.scores, e.images))
    assert all(e.ok)
    assert e.maps.shape == (3, 32, 32)


@each_pair
def test_scores_are_those_of_the_clean_image(method, kind):
    net, x = NETS[kind](), images(3)
    e = explain(wrapped(net), x, method, target=[0, 3, 1])
    table = net((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))
    table = table.softmax(1) if METHODS[method].scale == "probability" else table
    assert torch.allclose(e.scores, table[torch.arange(3), [0, 3, 1]], rtol=1e-4, atol=1e-5)


@functools.cache
def one_by_one(method, kind, n):
    return [explain(shared(kind), image[None], method) for image in images(n)]


@each_net
def test_the_adaptive_rule_decides_per_image_whatever_the_batch(kind):
    net, x = NETS[kind](), images(2)
    alone = [sw.explain(wrapped(net), image[None], "integrated_gradients", tolerance=0.01) for image in x]
    for batch_size in (3, 8):
        e = sw.explain(wrapped(net, batch_size=batch_size), x, "integrated_gradients", tolerance=0.01)
        for i, single in enumerate(alone):
            assert same_to(e.raw[i], single.raw[0])
            assert e.evidence["gradient_rows"][i] == single.evidence["gradient_rows"][0]


BATCHES = [(*pair, 8, size) for pair in PAIRS if pair[0] in REPRESENTATIVES[:4] for size in (1, 3, 8)]
BATCHES += [(*pair, 4, size) for pair in PAIRS if pair[0] not in REPRESENTATIVES[:4] for size in (1, 3)]


@pytest.mark.parametrize(("method", "kind", "n", "batch_size"), BATCHES)
def test_a_batch_gives_the_maps_of_its_images_alone(method, kind, n, batch_size):
    together = explain(wrapped(NETS[kind](), batch_size=batch_size), images(n), method)
    for i, single in enumerate(one_by_one(method, kind, n)):
        assert same_to(together.raw[i], single.raw[0], score=score_of(single))
        assert together.targets[i] == single.targets[0]
        for name in ("gradient_rows", "forward_rows"):
            assert together.evidence[name][i] == single.evidence[name][0]


@each_method
def test_a_batch_of_a_bare_module_with_the_batch_size_timed_gives_the_maps_of_its_images_alone(method):
    net, x = net_of(method), images(9)
    given = {"baseline": "mean"} if METHODS[method].parameters.get("baseline") == "black" else {}
    together = explain(net, x, method, **given)
    for i in (0, 4, 8):
        assert same_to(together.raw[i], explain(net, x[i : i + 1], method, **given).raw[0])


@each_pair
def test_the_same_call_twice_is_bit_equal_whatever_else_was_random_in_between(method, kind):
    model, x = shared(kind), images(2)
    first = explain(model, x, method, seed=3)
    with disturbed_randomness():
        second = explain(model, x, method, seed=3)
    assert torch.equal(first.raw, second.raw)
    assert torch.equal(first.raw, explain(wrapped(NETS[kind]()), x, method, seed=3).raw)
    for name, values in first.evidence.items():
        assert torch.equal(values, second.evidence[name])


@each_pair
def test_another_seed_gives_another_map_only_where_the_method_says_so(method, kind):
    model, x = shared(kind), images(2)
    given = {"baseline": "noise"} if method in ONLY_THEIR_NOISE_IS_RANDOM else {}
    first, second = (explain(model, x, method, seed=seed, **given).raw for seed in (0, 1))
    assert torch.equal(first, second) != METHODS[method].seeded


@each_pair
def test_the_target_matters_only_where_the_method_says_so(method, kind):
    model, x = shared(kind), images(2)
    first, second = (explain(model, x, method, target=k) for k in (0, 4))
    for a, b in zip(first.raw, second.raw, strict=True):
        assert torch.equal(a, b) != METHODS[method].uses_target
    assert first.validity["target_used"] is METHODS[method].uses_target
    assert bool(first.validity["target_used_reason"]) is not METHODS[method].uses_target


@each_method
def test_a_list_of_targets_equals_the_single_calls(method):
    model, x = shared(kind_of(method)), images(3)
    e = explain(model, x, method, target=[4, 0, 2])
    for i, k in enumerate((4, 0, 2)):
        assert same_to(e.raw[i], explain(model, x[i : i + 1], method, target=k).raw[0])


@each_method
def test_no_other_image_of_the_batch_is_used(method):
    model, x = shared(kind_of(method)), images(3)
    other = torch.cat([x[:1], images(2, seed=5) * 0.1])
    assert same_to(explain(model, x, method, target=1).raw[0], explain(model, other, method, target=1).raw[0])


@pytest.mark.parametrize(("method", "kind"), [pair for pair in PAIRS if pair[0] in set(GRADIENT) - NOT_HOMOGENEOUS])
def test_a_score_a_billion_times_smaller_gives_exactly_the_same_relative_map(method, kind):
    small = NETS[kind]()
    degree = 2 if method in SQUARES else 1
    for parameter in list(small.parameters())[-2:]:  # of the last linear layer
        parameter.data *= 2.0**-30
    x = images(2)
    large, tiny = (explain(wrapped(net), x, method, target=1) for net in (NETS[kind](), small))
    assert torch.equal(large.raw * 2.0 ** (-30 * degree), tiny.raw)
    assert tiny.status == large.status


@pytest.mark.parametrize("method", sorted(set(GRADIENT) - SQUARES - NOT_HOMOGENEOUS))
def test_a_gradient_too_small_to_be_squared_in_float32_is_still_a_gradient(method):
    net = net_of(method)
    for parameter in list(net.parameters())[-2:]:
        parameter.data *= 2.0**-80
    e = explain(wrapped(net), images(1), method, target=1)
    assert e.status[0] in (sw.Status.OK, sw.Status.ALL_NEGATIVE)
    assert e.raw.abs().max() > 0


# -- nothing is left behind ----------------------------------------------------------------------------------------


@each_pair
def test_nothing_is_left_behind_after_success(method, kind):
    net = with_mixed_state(NETS[kind]())
    model = wrapped(net)
    before = world(net)
    explain(model, images(2), method)
    assert_nothing_left_behind(before, world(net))


@each_cnn_method
@pytest.mark.parametrize("after", [0, 3])
def test_nothing_is_left_behind_when_the_forward_fails(method, after):
    net = with_mixed_state(failing(after=10**9))
    net.after = net.calls_made + after
    model = wrapped(net, batch_size=1)
    before = world(net)
    calls = net.calls_made
    with pytest.raises(ZeroDivisionError, match="own fault"):
        repeatedly(lambda: explain(model, images(2), method, target=1))
    assert net.calls_made == calls + after + 1
    assert_nothing_left_behind(before, world(net))


@each_method_of_any_target
@pytest.mark.parametrize("after", [0, 3])
def test_nothing_is_left_behind_when_the_target_fails(method, after):
    net = with_mixed_state(net_of(method))
    asked = []

    def broken(outputs):
        asked.append(1)
        if len(asked) > after:
            raise ZeroDivisionError("the target's own fault")
        return outputs[:, 0]

    model, before = wrapped(net, batch_size=1), world(net)
    with pytest.raises(ZeroDivisionError, match="own fault"):
        repeatedly(lambda: explain(model, images(2), method, target=broken))
    assert_nothing_left_behind(before, world(net))


@each_representative
@pytest.mark.parametrize("refused", [{"target": CLASSES}, {"target": [0]}, {"no_such": 1}, {"seed": -1}])
def test_nothing_is_left_behind_after_a_usage_error(method, refused):
    net = with_mixed_state(net_of(method))
    model, before = wrapped(net), world(net)
    with pytest.raises(sw.UsageError):
        explain(model, images(2), method, **refused)
    assert_nothing_left_behind(before, world(net))


@each_cnn_method
@pytest.mark.parametrize("how", ["in place", "late"])
def test_a_buffer_that_the_forward_writes_is_as_before(method, how):
    net = counting(how)
    model, before = wrapped(net), world(net)
    explain(model, images(2), method)
    assert_nothing_left_behind(before, world(net))


@each_method
def test_no_gradient_lands_on_the_users_image(method):
    x = images(2).requires_grad_()
    explain(wrapped(net_of(method)), x, method)
    assert x.grad is None
    assert x.requires_grad
    assert torch.equal(x, images(2))


@each_method
def test_deterministic_flags_stay_on(method):
    torch._C._set_deterministic_algorithms(True)  # the public function loads the compiler, 2 s
    try:
        explain(wrapped(net_of(method)), images(2), method)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch._C._set_deterministic_algorithms(False)


@each_cnn_method
def test_the_next_training_step_is_the_same_with_a_map_between_backward_and_step(method):
    def trained(between):
        net = dropping().train()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        torch.manual_seed(0)
        for step in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images(4, seed=step)), torch.arange(4)).backward()
            between(net)
            optimizer.step()
        return net.state_dict()

    with torch.random.fork_rng(devices=[]):
        without = trained(lambda net: None)
        with_maps = trained(lambda net: explain(wrapped(net), images(2), method))
    for name, tensor in without.items():
        assert torch.equal(tensor, with_maps[name]), name


@each_method
def test_two_models_around_one_network_do_not_see_each_other(method):
    net, x = net_of(method), images(2)
    first, second = wrapped(net), wrapped(net, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    a, b = explain(first, x, method).raw, explain(second, x, method).raw
    assert torch.equal(explain(first, x, method).raw, a)
    assert torch.equal(explain(second, x, method).raw, b)


# -- wherever it is called -----------------------------------------------------------------------------------------


@each_pair
def test_works_without_gradients_switched_on(method, kind):
    model, x = shared(kind), images(2)
    wanted = usual(method, kind).raw
    with torch.no_grad():
        assert torch.equal(explain(model, x, method).raw, wanted)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@each_pair
def test_works_inside_inference_mode_also_on_an_inference_tensor(method, kind):
    model, x = shared(kind), images(2)
    wanted = usual(method, kind).raw
    with torch.inference_mode():
        ordinary = explain(model, x, method)
        made_here = explain(wrapped(NETS[kind]()), x * 1, method)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(ordinary.raw, wanted)
    assert torch.equal(made_here.raw, wanted)
    assert not made_here.raw.is_inference()


@each_pair
def test_works_on_a_network_made_inside_inference_mode(method, kind):
    x = images(2)
    wanted = usual(method, kind).raw
    with torch.inference_mode():
        net = NETS[kind]()
    before = [(id(p), p.requires_grad, p.is_inference()) for p in (*net.parameters(), *net.buffers())]
    assert torch.equal(explain(wrapped(net), x, method).raw, wanted)
    assert before == [(id(p), p.requires_grad, p.is_inference()) for p in (*net.parameters(), *net.buffers())]
    with torch.inference_mode():
        assert torch.equal(explain(wrapped(net), x, method).raw, wanted)


@each_representative
@pytest.mark.parametrize(
    "question",
    [
        lambda: sw.target.logit(2),
        lambda: sw.target.logit([2, 2]),
        lambda: sw.target.margin(2, 1),
        lambda: torch.tensor([2, 2]),
    ],
    ids=["one class", "one per image", "margin", "tensor"],
)
def test_a_target_made_inside_inference_mode_is_the_same_target(method, question):
    model, x = shared(kind_of(method)), images(2)
    wanted = explain(model, x, method, target=question()).raw
    with torch.inference_mode():
        assert torch.equal(explain(model, x, method, target=question()).raw, wanted)


@each_method
def test_a_plain_forward_of_the_model_inside_inference_mode_leaves_nothing_that_breaks_the_next_map(method):
    model, x = shared(kind_of(method)), images(2)
    with torch.inference_mode():
        model.forward(x)
        model.predict(x)
    assert torch.equal(explain(model, x, method).raw, explain(wrapped(net_of(method)), x, method).raw)


@each_pair
def test_frozen_weights_give_the_same_map_and_stay_frozen(method, kind):
    frozen, x = NETS[kind]().requires_grad_(False), images(2)
    assert torch.equal(explain(wrapped(frozen), x, method).raw, usual(method, kind).raw)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@each_cnn_method
def test_train_mode_gives_the_map_of_evaluation_mode_and_leaves_the_statistics_alone(method):
    net, x = dropping(), images(2)
    wanted = explain(wrapped(net), x, method).raw
    net.train()
    before = [buffer.clone() for buffer in net.buffers()]
    assert torch.equal(explain(wrapped(net), x, method).raw, wanted)
    assert all(torch.equal(a, b) for a, b in zip(before, net.buffers(), strict=True))
    assert all(module.training for module in net.modules())


@each_method
def test_an_autocast_around_the_call_does_not_change_a_float32_map(method):
    model, x = shared(kind_of(method)), images(2)
    wanted = usual(method, kind_of(method)).raw
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(explain(model, x, method).raw, wanted)


@each_method
def test_a_default_dtype_of_float64_does_not_change_a_float32_map(method):
    net, x = net_of(method), images(2)
    wanted = explain(wrapped(net), x, method).raw
    torch.set_default_dtype(torch.float64)
    try:
        raw = explain(wrapped(net), x, method).raw
    finally:
        torch.set_default_dtype(torch.float32)
    assert raw.dtype == torch.float32
    assert same_to(raw, wanted)


@each_representative
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_float_type_are_taken_as_pixels(method, dtype):
    model, x = shared(kind_of(method)), images(2).to(dtype)
    e = explain(model, x, method)
    assert e.raw.dtype == torch.float32
    assert torch.equal(e.raw, explain(model, x.float(), method).raw)


@each_method
def test_a_tensor_that_is_not_contiguous_is_the_same_image(method):
    model, x = shared(kind_of(method)), images(2)
    turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert same_to(explain(model, turned, method).raw, explain(model, x, method).raw)


@each_pair
def test_a_bare_module_and_a_tensor_are_enough(method, kind):
    net, x = NETS[kind](), images(2)
    black = METHODS[method].parameters.get("baseline") == "black"  # unknown to a bare module
    given = {"baseline": torch.zeros(3, 32, 32)} if black else {}
    e = explain(net, x, method, **given)
    assert all(e.ok)
    assert e.validity["precision"] == "float32"
    assert e.provenance["bounds_known"] is False
    identity = wrapped(net, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert same_to(e.raw, explain(identity, x, method, **given).raw, score=score_of(e))


# -- what a method declares about itself is true -------------------------------------------------------------------


@each_method
def test_a_declaration_is_complete(method):
    info = METHODS[method]
    assert info.name == method == info.function.__name__
    assert info.summary.endswith(".")
    assert info.cost
    assert info.paper
    assert info.scale in ("logit", "probability")
    assert json.loads(json.dumps(info.to_dict()))["name"] == method


@pytest.mark.parametrize(("method", "kind"), [pair for pair in PAIRS if pair[0] in COMPLETE])
def test_a_complete_method_reports_a_gap_that_is_the_one_of_its_map(method, kind):
    model, x = shared(kind), images(3)
    e = explain(model, x, method, target=2)
    change = e.evidence["score_difference"]
    if METHODS[method].parameters.get("baseline") == "black":
        measured = model.predict(x)[:, 2] - model.predict(torch.zeros_like(x))[:, 2]
        assert torch.allclose(change, measured, atol=1e-4 * float(measured.abs().max()))
    gap = (e.raw.flatten(1).sum(1) - change).abs()
    assert torch.allclose(e.evidence["completeness_gap"], gap, atol=1e-4 * float(change.abs().max()))
    assert torch.allclose(e.evidence["completeness_gap_relative"], gap / change.abs(), atol=1e-3)


@pytest.mark.parametrize(
    ("method", "kind"), [(name, kind) for name in ALL for kind in sorted(NETS) if not takes(name, kind)]
)
def test_a_network_that_a_method_cannot_read_is_refused_with_another_way(method, kind):
    with pytest.raises(sw.RefusalError, match=r"ReLU|attention|pooling|normaliz") as refusal:
        explain(wrapped(NETS[kind]()), images(1), method)
    assert "grad" in str(refusal.value)


@pytest.mark.parametrize("method", [name for name in ALL if METHODS[name].class_agnostic])
def test_a_class_asked_of_a_class_agnostic_method_is_an_error_unless_the_user_says_that_he_knows(method):
    model, x = wrapped(net_of(method)), images(2)
    for target in (1, "2", [0, 1], [[0], [1]], sw.target.logit(1)):
        with pytest.raises(sw.UsageError, match=r"same map for every class.*ignore_target"):
            sw.explain(model, x, method, target, **SMALL.get(method, {}))
    e = sw.explain(model, x, method, 1, **SMALL.get(method, {}), ignore_target=True)
    assert e.validity["target_used"] is False
    assert "class-agnostic" in e.validity["target_used_reason"]
    assert (model.gradient_rows, e.evidence["gradient_rows"].tolist()) == (0, [0, 0])


@each_method
def test_only_a_complete_method_reports_a_gap(method):
    assert ("completeness_gap" in explain(wrapped(net_of(method)), images(1), method).evidence) == METHODS[
        method
    ].complete


@each_pair
def test_gradient_rows_are_spent_only_where_declared(method, kind):
    rows = usual(method, kind).evidence["gradient_rows"]
    assert (rows > 0).all() == METHODS[method].needs_gradients
    assert (rows == 0).all() != METHODS[method].needs_gradients


@pytest.mark.parametrize(("method", "given", "gradient_rows", "forward_rows"), COSTS)
@pytest.mark.parametrize("batch_size", [3])
def test_the_cost_is_what_the_method_declares(method, given, gradient_rows, forward_rows, batch_size):
    model, x = wrapped(net_of(method, tiny_vit), batch_size=batch_size), images(4)
    e = sw.explain(model, x, method, **given)
    assert e.evidence["gradient_rows"].tolist() == [gradient_rows] * 4
    assert e.evidence["forward_rows"].tolist() == [forward_rows] * 4
    assert (model.gradient_rows, model.forward_rows) == (4 * gradient_rows, 4 * forward_rows)


@pytest.mark.parametrize(("method", "given", "gradient_rows", "forward_rows"), COSTS)
def test_the_forecast_of_rows_is_an_upper_bound(method, given, gradient_rows, forward_rows):
    forward, gradient = rows_per_image(
        wrapped(net_of(method, tiny_vit)), METHODS[method], (3, 32, 32), None, None, given
    )
    assert forward_rows <= forward
    assert gradient_rows <= gradient


def test_every_method_has_its_cost_in_the_table():
    assert set(ALL) <= {row[0] for row in COSTS}


@pytest.mark.parametrize("max_rows", [65, 100, 300])
@pytest.mark.parametrize("tolerance", [0.05, 1e-6])
def test_the_adaptive_rule_spends_37_to_max_rows_and_says_whether_it_converged(max_rows, tolerance):
    model = wrapped(tiny_cnn())
    e = sw.explain(model, images(4), "integrated_gradients", target=2, max_rows=max_rows, tolerance=tolerance)
    rows = e.evidence["gradient_rows"]
    assert (rows >= 37).all()
    assert (rows <= max_rows).all()
    assert int(rows.sum()) == model.gradient_rows
    assert model.forward_rows == 4
    good = (e.evidence["completeness_gap_relative"] <= tolerance) & (e.evidence["path_error"] <= tolerance)
    assert torch.equal(e.evidence["converged"], good)
    assert good.all() or any("not converged" in text for text in e.validity["approximations"])


@each_method
def test_the_rows_that_are_counted_are_the_rows_that_the_network_computed(method):
    net, seen = net_of(method), []
    model, x = wrapped(net), images(3)
    explain(model, x, method, target=1)  # layers and output shape are found once, outside the count
    before = (model.forward_rows, model.gradient_rows)
    handle = net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    explain(model, x, method, target=1)
    handle.remove()
    assert sum(seen) == model.forward_rows + model.gradient_rows - sum(before)

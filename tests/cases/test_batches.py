"""Targets and batches: who gets which map, the same alone and in company, today and tomorrow."""

import numpy as np
import pytest
import torch
from torch import nn

import seewhy as sw
from cases.nets import QUICK, BatchStatistics, folded, squeezed
from nets import MEAN, STD, images, small_memory, tiny_cnn, tiny_residual, tiny_vit
from seewhy.registry import METHODS

SEVERAL = ["gradient", "smooth_grad", "integrated_gradients", "grad_cam", "occlusion", "score_cam"]
each_method = pytest.mark.parametrize("method", SEVERAL)


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**QUICK.get(method, {}), **given})


def wrapped(net=None, **given):
    return sw.wrap(tiny_cnn() if net is None else net, **{"mean": MEAN, "std": STD, "size": 32, **given})


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max()) + 1e-7


# row 17


@each_method
def test_one_target_is_applied_to_all_images(method):
    model, x = wrapped(), images(3)
    wanted = explain(model, x, method, [2, 2, 2])
    as_target = sw.target.probability(2) if METHODS[method].scale == "probability" else sw.target.logit(2)
    for given in (2, np.int64(2), torch.tensor(2), (2, 2, 2), torch.tensor([2, 2, 2]), "2", as_target):
        e = explain(model, x, method, given)
        assert torch.equal(e.raw, wanted.raw)
        assert [target["index"] for target in e.targets] == [2, 2, 2]
    assert all(raw.any() for raw in wanted.raw)


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize(
    "given", [[1], [0, 1, 2], torch.tensor([1, 2, 3, 4]), ("1", "2", "3"), [[1], [2], [3]]], ids=str
)
def test_a_list_that_is_not_one_per_image_names_both_numbers(n, given):
    if n == len(given):
        return
    with pytest.raises(sw.UsageError, match=rf"{len(given)} .*{n} images"):
        explain(wrapped(), images(n), "grad_cam", given)


# row 18


@each_method
def test_a_list_of_targets_equals_the_single_calls(method):
    model, x = wrapped(batch_size=2), images(3)
    e = explain(model, x, method, [3, 0, 4])
    assert [t["index"] for t in e.targets] == [3, 0, 4]
    for i, k in enumerate((3, 0, 4)):
        single = explain(model, x[i : i + 1], method, k)
        assert close(e.raw[i], single.raw[0])
        assert e.target_text[i] == single.target_text[0]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 1, 1]])
def test_the_same_images_in_another_order_have_the_same_maps_in_that_order(order):
    model, x = wrapped(), images(3)
    for method in ("gradient", "grad_cam", "score_cam", "smooth_grad"):
        wanted = explain(model, x, method, [0, 1, 2])
        e = explain(model, x[order], method, order)
        for place, i in enumerate(order):
            assert close(e.raw[place], wanted.raw[i]), method


# row 20


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize("build", [tiny_residual, tiny_vit])
def test_an_image_with_wild_values_changes_no_map_and_no_picture_of_the_others(method, build):
    model, x = wrapped(build()), images(4)
    x[2] = (x[2] > 0.5).float()  # black and white
    together = explain(model, x, method, 1)
    for i in (0, 1, 3):
        alone = explain(model, x[i : i + 1], method, 1)
        assert close(together.raw[i], alone.raw[0])
        assert together.status[i] is alone.status[0]
        difference = np.abs(np.asarray(together.overlay(i), float) - np.asarray(alone.overlay(0), float))
        assert difference.max() <= 8  # of 255: a rounding may move a digit under the color bar or a shade


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("kind", ["half", "bfloat16", "float64", "not contiguous"])
def test_images_of_any_form_are_the_same_alone_and_in_company(batch_size, kind):
    x = images(8)
    x = x.transpose(2, 3).contiguous().transpose(2, 3) if kind == "not contiguous" else x.to(getattr(torch, kind))
    for method in ("gradient", "grad_cam"):
        e = explain(wrapped(batch_size=batch_size), x, method)
        for i in (0, 5, 7):
            assert close(e.raw[i], explain(wrapped(), x[i : i + 1], method).raw[0])


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion", "rise"])
def test_a_network_whose_rows_depend_on_each_other_is_run_one_image_at_a_time_and_says_so(method):
    net, x = BatchStatistics().eval(), images(3)
    e = explain(sw.wrap(net), x, method, 1)
    assert any("one image at a time" in note for note in e.validity["approximations"])
    assert close(e.raw[0], explain(sw.wrap(net), x[:1], method, 1).raw[0])


def test_the_layers_of_a_network_whose_rows_depend_on_each_other_are_refused():
    with pytest.raises(sw.RefusalError, match=r"one image at a time.*others of a batch.*occlusion"):
        explain(sw.wrap(BatchStatistics().eval()), images(3), "grad_cam", 1)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
@pytest.mark.parametrize("n", [2, 3])
def test_a_network_that_returns_one_row_for_several_images_is_an_error_with_both_numbers(method, n):
    with pytest.raises(sw.SeewhyError, match=rf"1 row of scores for (2|{n}) images"):
        explain(sw.wrap(folded()), images(n), method, 1)


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_a_network_that_squeezes_its_batch_axis_away_is_an_error_that_says_so(method, target):
    with pytest.raises(sw.UsageError, match=r"5 rows of scores for 1 image.*squeeze"):
        explain(sw.wrap(squeezed()), images(1), method, target)


# row 56


@pytest.mark.parametrize("method", ["smooth_grad", "rise", "lime", "integrated_gradients", "grad_cam", "random_map"])
def test_the_same_call_twice_is_bit_equal_whatever_the_user_draws_in_between(method):
    model, x = wrapped(), images(2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = explain(model, x, method, 1, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10), np.random.rand(3)
    explain(model, images(3), "rise", 2, seed=1)
    second = explain(model, x, method, 1, seed=7)
    torch.manual_seed(99)
    third = explain(wrapped(), x.clone(), method, 1, seed=7)
    assert torch.equal(first.raw, second.raw)
    assert torch.equal(first.raw, third.raw)
    assert {k: v.tolist() for k, v in first.evidence.items()} == {k: v.tolist() for k, v in second.evidence.items()}


def test_squeezenets_dropout_is_off_and_the_map_the_same_on_every_call():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).train()
    maps = {method: [explain(net, images(2), method, 1).raw for _ in range(2)] for method in ("gradient", "grad_cam")}
    assert all(torch.equal(*pair) for pair in maps.values())


# row 52


def test_integrated_gradients_computes_eight_rows_at_a_time_for_16_and_for_512_steps():
    peaks = []
    for n, steps in ((1, 16), (2, 16), (1, 512)):
        net = small_memory(rows=10**9)
        model, x = sw.wrap(net, batch_size=8), images(n)
        e = sw.explain(model, x, "integrated_gradients", 1, rule="midpoint", steps=steps)
        assert model.gradient_rows == steps * n
        peaks.append(max(net.asked))
        if steps == 16:
            whole = sw.wrap(tiny_cnn(), batch_size=10**6)
            unbatched = sw.explain(whole, x, "integrated_gradients", 1, rule="midpoint", steps=steps)
            assert close(e.raw, unbatched.raw)
    assert peaks == [8, 8, 8]


def test_integrated_gradients_in_batches_is_the_riemann_sum_by_hand():
    net, x, steps = tiny_cnn(), images(2), 16
    total = torch.zeros_like(x)
    for k in range(steps):
        point = (x * (k + 0.5) / steps).requires_grad_()
        total += torch.autograd.grad(net(point)[:, 1].sum(), point)[0] / steps
    e = sw.explain(sw.wrap(net, batch_size=8), x, "integrated_gradients", 1, rule="midpoint", steps=steps)
    assert close(e.raw, (x * total).sum(1), 1e-4)

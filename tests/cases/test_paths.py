"""Integrated gradients: the gap is stored, never hidden; converged means converged."""

import pytest
import torch

import seewhy as sw
from cases.nets import Kinked
from nets import images, linear, tiny_cnn, tiny_vit


def explain(net, x, **given):
    return sw.explain(sw.wrap(net), x, "integrated_gradients", 0, **given)


def change(net, x):
    return (net(x) - net(torch.zeros_like(x)))[:, 0].detach()


# row 54


@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "trapezoid", "gauss_legendre"])
@pytest.mark.parametrize("n", [1, 3])
def test_five_steps_over_kinks_store_the_gap_of_every_image_and_are_not_called_converged(rule, n):
    net, x = Kinked(), images(n, size=(8, 8))
    e = explain(net, x, rule=rule, steps=5)
    gap = (e.raw.flatten(1).sum(1) - change(net, x)).abs()
    assert torch.allclose(e.evidence["completeness_gap"], gap, atol=1e-4)
    assert torch.allclose(e.evidence["completeness_gap_relative"], gap / change(net, x).abs(), rtol=1e-2)
    assert torch.allclose(e.evidence["score_difference"], change(net, x), rtol=1e-4)
    assert e.evidence["completeness_gap_relative"].min() > 1e-3  # a real gap, not rounding
    assert not e.evidence["converged"].any()
    assert any("not converged" in note for note in e.validity["approximations"])


@pytest.mark.parametrize("build", [Kinked, tiny_vit])
@pytest.mark.parametrize(("tolerance", "max_rows"), [(0.05, 400), (1e-7, 100)])
def test_the_adaptive_rule_reaches_its_tolerance_or_says_that_it_did_not(build, tolerance, max_rows):
    net, x = build(), images(2)
    e = explain(net, x, rule="adaptive", tolerance=tolerance, max_rows=max_rows)
    assert (e.evidence["gradient_rows"] <= max_rows).all()
    gap = (e.raw.flatten(1).sum(1) - change(net, x)).abs() / change(net, x).abs()
    for i in range(2):
        said, within = bool(e.evidence["converged"][i]), float(gap[i]) <= tolerance + 1e-5
        assert within or not said
    noted = any("not converged" in note for note in e.validity["approximations"])
    assert noted != bool(e.evidence["converged"].all())


def test_one_image_that_does_not_converge_leaves_the_others_converged():
    x = images(3, size=(8, 8))
    x[0] = x[2] = 0.1  # before the first kink
    e = sw.explain(sw.wrap(Kinked()), x, "integrated_gradients", 0, rule="adaptive", tolerance=1e-4, max_rows=65)
    assert not bool(e.evidence["converged"][1])
    assert torch.equal(e.evidence["converged"][0], e.evidence["converged"][2])


@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "trapezoid", "gauss_legendre"])
def test_a_linear_network_has_no_gap_with_any_rule(rule):
    net, x = linear(), images(2)
    e = explain(net, x, rule=rule, steps=2)
    assert e.evidence["completeness_gap_relative"].max() < 1e-3
    assert torch.allclose(e.raw, (net.fc.weight[0].view(3, 32, 32) * x).sum(1).detach(), atol=1e-5)


def test_an_image_that_is_its_own_baseline_has_a_gap_of_zero_and_no_nan():
    e = explain(tiny_cnn(), torch.zeros(1, 3, 32, 32), rule="midpoint", steps=4)
    assert e.evidence["completeness_gap"].tolist() == [0]
    assert e.evidence["completeness_gap_relative"].tolist() == [0]
    assert not e.raw.any()
    assert e.status[0] is not sw.Status.OK


def test_the_gap_and_the_word_survive_the_disk_and_stand_on_the_page(tmp_path):
    e = explain(Kinked(), images(1, size=(8, 8)), rule="right", steps=5)
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert torch.allclose(again.evidence["completeness_gap"], e.evidence["completeness_gap"])
    assert again.evidence["converged"].tolist() == [False]
    assert "Not converged" in sw.report(tmp_path / "run").read_text()
    assert "completeness gap" in repr(e)

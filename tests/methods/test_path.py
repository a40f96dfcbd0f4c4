import captum.attr
import numpy as np
import pytest
import torch
from functions import explained, figure_7_f, figure_7_g, model_of, pixels, saturation
from twins import integrated_gradients

import seewhy as sw
from nets import tiny_cnn, tiny_vit
from seewhy.methods.quadrature import FIRST_INTERVALS, PANELS, RULES, nodes_and_weights

FIXED = [rule for rule in RULES if rule != "adaptive"]
ZERO = pixels(0.0)


def images(n=3, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_the_rules_of_the_square_have_their_exact_errors():
    def of(rule, m):
        return float(
            explained(lambda x: x[:, 0] ** 2, pixels(1.0), "integrated_gradients", ZERO, rule=rule, steps=m).raw
        )

    for m in (5, 50):
        assert of("right", m) == pytest.approx(1 + 1 / m, abs=1e-5)
        assert of("left", m) == pytest.approx(1 - 1 / m, abs=1e-5)
        for exact in ("midpoint", "trapezoid", "gauss_legendre", "adaptive"):
            assert of(exact, m) == pytest.approx(1, abs=1e-5)


def test_the_right_rule_of_the_cube_is_off_by_three_percent_at_fifty_steps():
    e = explained(lambda x: x[:, 0] ** 3, pixels(1.0), "integrated_gradients", ZERO, rule="right", steps=50)
    assert float(e.raw) == pytest.approx(1.0302, abs=1e-5)
    assert float(e.evidence["completeness_gap"]) == pytest.approx(0.0302, abs=1e-5)


@pytest.mark.parametrize(("steps", "wanted"), [(50, 0.96), (5, 0.8), (2, 0.0), (1, 0.0)])
def test_the_right_rule_on_the_saturated_function(steps, wanted):
    e = explained(saturation, pixels(2.0), "integrated_gradients", ZERO, rule="right", steps=steps)
    assert float(e.raw) == pytest.approx(wanted, abs=1e-6)


def test_the_saturated_function_gets_its_whole_change_where_the_gradient_sees_nothing():
    e = explained(saturation, pixels(2.0, 0.3), "integrated_gradients", pixels(0.0, 0.0))
    assert float(e.raw.flatten()[0]) == pytest.approx(1, abs=0.02)
    assert bool(e.evidence["converged"])


@pytest.mark.parametrize("function", [figure_7_f, figure_7_g])
def test_figure_7_gives_both_implementations_the_same_answer(function):
    e = explained(function, pixels(3.0, 1.0), "integrated_gradients", pixels(0.0, 0.0), rule="midpoint", steps=1000)
    assert torch.allclose(e.raw.flatten(), torch.tensor([1.5, -0.5]), atol=5e-3)


def test_the_minimum_gives_all_to_the_smaller_input():
    e = explained(
        lambda x: x.min(1).values, pixels(1.0, 3.0), "integrated_gradients", pixels(0.0, 0.0), rule="midpoint"
    )
    assert torch.allclose(e.raw.flatten(), torch.tensor([1.0, 0.0]), atol=1e-6)


def test_a_linear_function_gives_the_difference_times_the_weights_under_every_rule():
    weights, x, base = torch.tensor([2.0, -1.0, 0.5]), pixels(1.0, 2.0, 3.0), pixels(0.5, 0.0, 4.0)
    for rule in RULES:
        e = explained(lambda x: x @ weights, x, "integrated_gradients", base, rule=rule)
        assert torch.allclose(e.raw.flatten(), (x - base).flatten() * weights, atol=1e-5)
        assert float(e.evidence["completeness_gap"]) < 1e-5


def test_axioms_unused_input_linearity_and_symmetry():
    x, zero = pixels(0.5, 0.5, 0.9), pixels(0.0, 0.0, 0.0)

    def f(x):
        return torch.tanh(x).sum(1)

    def g(x):
        return x[:, 0] * x[:, 1] - x[:, 2] ** 2

    def of(function):
        return explained(function, x, "integrated_gradients", zero, rule="gauss_legendre").raw.flatten()

    assert torch.allclose(of(lambda x: 2 * f(x) - 3 * g(x)), 2 * of(f) - 3 * of(g), atol=1e-5)
    assert of(lambda x: x[:, 0] ** 2)[2] == 0
    assert of(g)[0] == pytest.approx(float(of(g)[1]))


@pytest.mark.parametrize("rule", FIXED)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_weights_sum_to_one_and_the_coarse_rule_uses_every_second_node(rule, steps):
    nodes, weights, coarse = nodes_and_weights(rule, steps)
    assert weights.sum() == pytest.approx(1)
    assert coarse.sum() == pytest.approx(1)
    assert nodes.min() >= 0
    assert nodes.max() <= 1
    assert np.count_nonzero(coarse) <= len(nodes) // 2 + 1


def test_the_coarse_right_rule_of_an_even_number_is_the_right_rule_of_half_of_it():
    nodes, _, coarse = nodes_and_weights("right", 50)
    half_nodes, half_weights, _ = nodes_and_weights("right", 25)
    assert np.allclose(nodes[coarse > 0], half_nodes)
    assert np.allclose(coarse[coarse > 0], half_weights)


@pytest.mark.parametrize("rule", FIXED)
def test_fixed_rules_equal_their_slow_twin_in_any_batch(rule):
    net, x = tiny_cnn(), images()
    nodes, weights, _ = nodes_and_weights(rule, 9)
    wanted = torch.stack(
        [
            integrated_gradients(lambda i: net(i[None])[0, 2], image, torch.zeros_like(image), nodes, weights).sum(0)
            for image in x
        ]
    )
    for batch_size in (1, 4, 16):
        e = sw.explain(sw.wrap(net, batch_size=batch_size), x, "integrated_gradients", target=2, rule=rule, steps=9)
        assert (e.raw - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("right", "riemann_right"),
        ("left", "riemann_left"),
        ("midpoint", "riemann_middle"),
        ("gauss_legendre", "gausslegendre"),
    ],
)
@pytest.mark.parametrize("net", [tiny_cnn(), tiny_vit()], ids=["cnn", "vit"])
def test_fixed_rules_equal_captum(net, ours, theirs):
    x = images(2)
    peer = (
        captum.attr.IntegratedGradients(net)
        .attribute(x, torch.zeros_like(x), target=1, n_steps=20, method=theirs)
        .sum(1)
    )
    e = sw.explain(sw.wrap(net), x, "integrated_gradients", target=1, rule=ours, steps=20)
    assert (e.raw - peer).abs().max() <= 1e-5 * peer.abs().max()


def test_the_adaptive_rule_equals_a_trapezoid_rule_where_nothing_bends():
    # 8 intervals on each of the 8 panels: 65 equal nodes, the trapezoid rule with 64 steps
    net, x = tiny_cnn(), images()
    e = sw.explain(sw.wrap(net), x, "integrated_gradients", target=2, intervals=[[8] * PANELS] * 3)
    same = sw.explain(sw.wrap(net), x, "integrated_gradients", target=2, rule="trapezoid", steps=64)
    assert e.evidence["gradient_rows"].tolist() == [65] * 3
    assert (e.raw - same.raw).abs().max() <= 1e-5 * same.raw.abs().max()
    assert torch.allclose(e.evidence["path_error"], same.evidence["path_error"], atol=1e-5)


def sharp(x):
    """Almost all of the path's change lies in a thirtieth of it."""
    return torch.sigmoid(200 * (x[:, 0] - 0.2)) + 0.1 * x[:, 1] ** 2


def test_the_adaptive_rule_spends_its_rows_where_the_path_bends():
    x, zero = pixels(1.0, 1.0), pixels(0.0, 0.0)
    e = explained(sharp, x, "integrated_gradients", zero, tolerance=0.01)
    rows = int(e.evidence["gradient_rows"])
    assert bool(e.evidence["converged"])
    assert torch.allclose(e.raw.flatten(), torch.tensor([1.0, 0.1]), atol=0.01)
    assert rows < 200
    uniform = explained(sharp, x, "integrated_gradients", zero, rule="trapezoid", steps=rows - 1, tolerance=0.01)
    assert float(uniform.evidence["path_error"]) > float(e.evidence["path_error"])


def test_the_adaptive_rule_says_when_its_rows_run_out():
    e = explained(sharp, pixels(1.0, 1.0), "integrated_gradients", pixels(0.0, 0.0), tolerance=1e-5, max_rows=80)
    assert not bool(e.evidence["converged"])
    assert int(e.evidence["gradient_rows"]) <= 80
    assert any("not converged" in text for text in e.validity["approximations"])


def test_each_image_gets_the_rows_that_it_needs_whatever_stands_beside_it():
    model = model_of(sharp)
    pair = torch.cat([pixels(1.0, 1.0), pixels(0.1, 1.0)])
    base = torch.zeros_like(pair)
    together = sw.explain(model, pair, "integrated_gradients", baseline=base, tolerance=0.01)
    for i in range(2):
        alone = sw.explain(model, pair[i : i + 1], "integrated_gradients", baseline=base[:1], tolerance=0.01)
        assert int(alone.evidence["gradient_rows"]) == int(together.evidence["gradient_rows"][i])
        assert torch.allclose(alone.raw[0], together.raw[i], atol=1e-6)
    rows = together.evidence["gradient_rows"].tolist()
    assert rows[0] > rows[1] == 41


def kinks(count, seed=0):
    """Of each of 400 pixels a sum of `count` ReLUs with slopes of either sign, and what each pixel adds from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(400, count, generator=generator)
    slopes = torch.randn(400, count, generator=generator)
    return lambda x: ((x[..., None] - at).relu() * slopes).sum((1, 2)), (slopes * (1 - at)).sum(1)


@pytest.mark.parametrize("steps", [16, 64])
@pytest.mark.parametrize("count", [10, 100])
def test_the_path_error_is_the_true_error_where_the_gradient_jumps(count, steps):
    function, truth = kinks(count)
    ones, zeros = pixels(*[1.0] * 400), pixels(*[0.0] * 400)
    e = explained(function, ones, "integrated_gradients", zeros, rule="trapezoid", steps=steps)
    error = float((e.raw.flatten() - truth).abs().sum() / truth.abs().sum())
    assert float(e.evidence["path_error"]) == pytest.approx(error, rel=0.15)


def test_the_path_error_is_no_less_than_the_true_error_of_other_rules_and_of_smooth_gradients():
    function, truth = kinks(10)
    ones, zeros = pixels(*[1.0] * 400), pixels(*[0.0] * 400)
    for rule in ("right", "left", "midpoint", "gauss_legendre"):
        e = explained(function, ones, "integrated_gradients", zeros, rule=rule, steps=16)
        error = float((e.raw.flatten() - truth).abs().sum() / truth.abs().sum())
        assert float(e.evidence["path_error"]) > error
    e = explained(lambda x: x[:, 0] ** 3, pixels(1.0), "integrated_gradients", ZERO, rule="trapezoid", steps=16)
    assert float(e.evidence["path_error"]) > abs(float(e.raw) - 1)


def test_the_adaptive_rule_looks_twice():
    e = explained(lambda x: x[:, 0], pixels(1.0), "integrated_gradients", ZERO)  # the first look is exact
    assert int(e.evidence["gradient_rows"]) > PANELS * FIRST_INTERVALS + 1


def test_a_small_gap_is_not_enough():
    # two sharp features cancel in every sum, however few the steps; only the path error sees that each share is wrong
    def rivals(x):
        return torch.sigmoid(200 * (x[:, 0] - 0.23)) - torch.sigmoid(200 * (x[:, 1] - 0.23)) + x[:, 2]

    x, zero = pixels(1.0, 1.0, 1.0), pixels(0.0, 0.0, 0.0)
    e = explained(rivals, x, "integrated_gradients", zero, rule="right", steps=10)
    assert float(e.evidence["completeness_gap_relative"]) < 1e-4
    assert float((e.raw.flatten() - torch.tensor([1.0, -1.0, 1.0])).abs().max()) > 0.5
    assert float(e.evidence["path_error"]) > 0.05
    assert not bool(e.evidence["converged"])


def test_neither_number_is_forced_to_zero():
    e = explained(lambda x: x[:, 0] ** 3, pixels(1.0), "integrated_gradients", ZERO, rule="right", steps=4)
    assert float(e.raw.sum()) != pytest.approx(1.0, abs=1e-3)
    assert float(e.evidence["completeness_gap_relative"]) == pytest.approx(0.40625, abs=1e-5)


def test_a_score_that_does_not_change_has_no_relative_gap_or_a_zero_one():
    same = explained(lambda x: 0 * x[:, 0] + 1, pixels(1.0), "integrated_gradients", ZERO, rule="right")
    assert float(same.evidence["completeness_gap_relative"]) == 0
    back = explained(lambda x: (x[:, 0] - 0.5) ** 2, pixels(1.0), "integrated_gradients", ZERO, rule="right")
    assert float(back.evidence["completeness_gap_relative"]) == float("inf")


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_every_baseline_is_a_picture_and_the_gap_is_measured_from_it(baseline):
    net, x = tiny_cnn(), images(1)
    e = sw.explain(sw.wrap(net), x, "integrated_gradients", target=1, baseline=baseline, tolerance=0.02)
    change = float(e.evidence["score_difference"])
    assert abs(float(e.raw.sum()) - change) == pytest.approx(float(e.evidence["completeness_gap"]), abs=1e-4)


def test_black_is_black_in_pixel_space_whatever_the_normalization():
    net, x = tiny_cnn(), images(1)
    model = sw.wrap(net, mean=(0.5,) * 3, std=(0.5,) * 3)
    e = sw.explain(model, x, "integrated_gradients", target=1, rule="midpoint")
    with torch.no_grad():
        change = net((x - 0.5) / 0.5)[0, 1] - net(-torch.ones_like(x))[0, 1]
    assert float(e.evidence["score_difference"]) == pytest.approx(float(change), abs=1e-5)


def test_a_named_baseline_on_a_bare_module_is_refused_and_a_tensor_is_not():
    net, x = tiny_cnn(), images(1)
    with pytest.raises(sw.RefusalError, match="bounds"):
        sw.explain(net, x, "integrated_gradients")
    assert sw.explain(net, x, "integrated_gradients", baseline=torch.zeros(3, 32, 32)).ok == [True]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rule": "gauss"}, "gauss_legendre"),
        ({"baseline": "blak"}, "black"),
        ({"steps": 0}, "steps"),
        ({"tolerance": 0}, "tolerance"),
        ({"max_rows": 64}, "65"),
        ({"baseline": torch.zeros(3, 5, 5)}, "shape"),
        ({"baseline": torch.full((3, 32, 32), float("nan"))}, "finite"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors_before_any_work(bad, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), "integrated_gradients", **bad)
    assert model.gradient_rows == 0

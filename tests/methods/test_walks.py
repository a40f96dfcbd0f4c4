"""Path methods beside Integrated Gradients: along a blur, over a background, by squared directions, on a guided path."""

import numpy as np
import pytest
import saliency.core as pair
import scipy.ndimage
import torch
from functions import figure_7_f, model_of, pixels, saturation
from test_gradient import same
from twins import autograd_gradient

import seewhy as sw
from nets import images, tiny_cnn, tiny_residual
from seewhy.methods.quadrature import nodes_and_weights
from seewhy.perturb import BASELINES, Diffusion, baseline_images, image_generator

WALKS = ["expected_gradients", "guided_integrated_gradients", "idgi"]


def score_of(net, k=1):
    return lambda image: net(image[None])[0, k]


# -- the blur ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 2.5, 6.0])
def test_diffusion_is_the_gaussian_blur_with_mirrored_borders(sigma):
    x = images(1, size=(24, 40))
    blurred, _ = Diffusion(x).at(torch.tensor([0]), torch.tensor([sigma]))
    wanted = scipy.ndimage.gaussian_filter(x[0].numpy(), (0, sigma, sigma), mode="reflect", truncate=8)
    assert (
        np.abs(blurred[0].numpy() - wanted).max() < 2e-3
    )  # his kernel is sampled, ours is exact: apart at small sigma


def test_diffusion_is_the_image_at_zero_and_its_mean_color_at_infinity():
    x = images(2, size=(16, 20))
    heat = Diffusion(x)
    both = torch.tensor([0, 1])
    assert torch.allclose(heat.at(both, torch.zeros(2))[0], x, atol=1e-6)
    assert torch.allclose(heat.at(both, torch.full((2,), 1e3))[0], x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-6)


def test_the_derivative_of_the_blur_is_that_of_differences():
    heat, one = Diffusion(images(1).double()), torch.tensor([0])
    up, down = (heat.at(one, torch.tensor([3.0 + d], dtype=torch.float64))[0] for d in (1e-5, -1e-5))
    assert torch.allclose(heat.at(one, torch.tensor([3.0], dtype=torch.float64))[1], (up - down) / 2e-5, atol=1e-8)


@pytest.mark.parametrize("size", [(40,), (6, 9, 7)])
def test_diffusion_takes_any_number_of_axes(size):
    x = images(1, size=size)
    blurred, _ = Diffusion(x).at(torch.tensor([0]), torch.tensor([2.0]))
    wanted = scipy.ndimage.gaussian_filter(x[0].numpy(), (0, *[2.0] * len(size)), mode="reflect", truncate=8)
    assert np.abs(blurred[0].numpy() - wanted).max() < 2e-3


def test_blur_integrated_gradients_equals_its_twin_one_scale_at_a_time():
    net, x = tiny_cnn(), images(2)
    nodes, weights, _ = nodes_and_weights("midpoint", 8)
    e = sw.explain(net, x, "blur_integrated_gradients", 1, rule="midpoint", steps=8, max_sigma=6.0)
    for i in range(2):
        heat, total = Diffusion(x[i : i + 1].double()), torch.zeros(3, 32, 32)
        for a, weight in zip(nodes, weights, strict=True):
            sigma = 6.0 * (1 - a)
            more, here, less = (heat.at(torch.tensor([0]), torch.tensor([sigma + d]))[0][0] for d in (0.02, 0, -0.02))
            total += (weight * 6.0 * autograd_gradient(score_of(net), here.float()) * (less - more) / 0.04).float()
        assert same(e.raw[i], total.sum(0), 2e-3)


def test_blur_integrated_gradients_sums_to_the_difference_to_the_blurred_image():
    model, x = sw.wrap(tiny_residual()), images(2)
    e = sw.explain(model, x, "blur_integrated_gradients", 1, max_sigma=8.0, tolerance=0.01, max_rows=2000)
    start = Diffusion(x).at(torch.arange(2), torch.full((2,), 8.0))[0]
    change = model.predict(x)[:, 1] - model.predict(start)[:, 1]
    assert e.evidence["converged"].all()
    assert torch.allclose(e.evidence["score_difference"], change, atol=1e-4)
    assert torch.allclose(e.raw.flatten(1).sum(1), change, atol=0.011 * float(change.abs().max()))


def test_blur_integrated_gradients_of_a_linear_function_is_what_the_blur_takes_away():
    weights, x = torch.randn(64, generator=torch.Generator().manual_seed(0)), images(1, channels=1, size=(1, 64))
    e = sw.explain(model_of(lambda z: z @ weights), x, "blur_integrated_gradients", max_sigma=4.0, tolerance=1e-3)
    start = Diffusion(x).at(torch.tensor([0]), torch.tensor([4.0]))[0]
    assert torch.allclose(e.raw[0, 0], weights * (x - start)[0, 0, 0], atol=2e-3)


# -- Integrated Gradients: baselines and presets -----------------------------------------------------------------------


def test_several_baselines_give_the_mean_of_their_maps():
    model, x = sw.wrap(tiny_cnn()), images(2)
    names = ["black", "white", "blur"]
    singles = [sw.explain(model, x, "integrated_gradients", 1, rule="midpoint", steps=6, baseline=b) for b in names]
    both = sw.explain(model, x, "integrated_gradients", 1, rule="midpoint", steps=6, baseline=names)
    assert same(both.raw, sum(e.raw for e in singles) / 3)
    assert torch.allclose(
        both.evidence["score_difference"], sum(e.evidence["score_difference"] for e in singles) / 3, atol=1e-5
    )
    gap = (both.raw.flatten(1).sum(1) - both.evidence["score_difference"]).abs()
    assert torch.allclose(gap, both.evidence["completeness_gap"], atol=1e-5)


def test_a_mean_training_image_is_a_baseline():
    model, x = sw.wrap(tiny_cnn()), images(2)
    mean_image = images(20, seed=9).mean(0)
    e = sw.explain(model, x, "integrated_gradients", 1, baseline=mean_image)
    change = model.predict(x)[:, 1] - model.predict(mean_image[None])[:, 1]
    assert torch.allclose(e.evidence["score_difference"], change, atol=1e-4)
    assert "given by the user" in e.parameters["baseline_reason"]


@pytest.mark.parametrize("baseline", sorted(BASELINES))
def test_every_named_baseline_states_why_one_would_take_it(baseline):
    e = sw.explain(
        sw.wrap(tiny_cnn()), images(1), "integrated_gradients", 1, rule="midpoint", steps=2, baseline=baseline
    )
    assert e.parameters["baseline_reason"] == BASELINES[baseline]
    own = {"rule": "midpoint", "steps": 2, "baseline_reason": "the film base"}
    assert (
        sw.explain(sw.wrap(tiny_cnn()), images(1), "integrated_gradients", 1, **own).parameters["baseline_reason"]
        == "the film base"
    )


def test_the_color_that_the_normalization_maps_to_zero_is_zero_to_the_network():
    x = images(2)
    gray = baseline_images(x, "normalization_mean", neutral=(0.4, 0.5, 0.6))
    assert torch.equal(gray[1, :, 3, 5], torch.tensor([0.4, 0.5, 0.6]))
    assert not baseline_images(x, "normalization_mean").any()


def test_noise_depends_on_the_image_and_the_seed_alone():
    x = images(3)
    first, second = baseline_images(x, "noise", seed=1), baseline_images(x, "noise", seed=2)
    assert torch.equal(first[2], baseline_images(x[2:], "noise", seed=1)[0])
    assert not torch.equal(first, second)
    assert 0 <= float(first.min()) < float(first.max()) < 1
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(baseline_images(x, "noise", seed=1), first)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_compliance_preset_says_what_it_used_and_keeps_its_limits():
    model, x = sw.wrap(tiny_residual()), images(2)
    e = sw.explain(model, x, "integrated_gradients", 1, preset="compliance")
    used = {k: e.parameters[k] for k in ("rule", "tolerance", "path_tolerance", "max_rows")}
    assert used == {"rule": "adaptive", "tolerance": 0.01, "path_tolerance": 0.05, "max_rows": 2000}
    assert e.evidence["converged"].all()
    assert (e.evidence["completeness_gap_relative"] <= 0.01).all()
    assert (e.evidence["path_error"] <= 0.05).all()
    assert ((e.evidence["gradient_rows"] >= 64) & (e.evidence["gradient_rows"] <= 2000)).all()


@pytest.mark.parametrize("given", [{"tolerance": 0.1}, {"max_rows": 100}, {"rule": "right"}])
def test_a_setting_beside_a_preset_must_be_its_own(given):
    with pytest.raises(sw.UsageError, match="preset"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "integrated_gradients", 1, preset="compliance", **given)


def test_an_unknown_preset_gets_the_near_name():
    with pytest.raises(sw.UsageError, match="compliance"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "integrated_gradients", 1, preset="complaince")


# -- Expected Gradients ------------------------------------------------------------------------------------------------


def test_expected_gradients_of_a_linear_function_is_the_distance_from_the_drawn_references():
    weights = torch.tensor([0.5, -2.0, 0.0, 3.0])
    references = torch.rand(5, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    x = pixels(0.1, 0.9, 0.4, 0.2)
    e = sw.explain(model_of(lambda z: z @ weights), x, "expected_gradients", references=references, samples=20_000)
    assert torch.allclose(e.raw.flatten(), weights * (x - references.mean(0)).flatten(), atol=0.02)
    base = (references.flatten(1) @ weights).mean()
    assert float(e.evidence["score_difference"]) == pytest.approx(float(x.flatten() @ weights - base), abs=1e-5)


def test_expected_gradients_converges_to_the_mean_of_integrated_gradients():
    model, x, references = sw.wrap(tiny_cnn(), batch_size=64), images(1), images(3, seed=4)
    exact = [
        sw.explain(model, x, "integrated_gradients", 1, rule="midpoint", steps=300, baseline=r).raw for r in references
    ]
    e = sw.explain(model, x, "expected_gradients", 1, references=references, samples=3000)
    wanted = sum(exact) / 3
    error = float((e.raw - wanted).abs().sum() / wanted.abs().sum())
    assert error < 0.05
    assert error / 3 < float(e.evidence["sampling_error"]) < 3 * error


@pytest.mark.parametrize(
    "given", [None, torch.rand(3, 3, 16, 16), torch.rand(0, 3, 32, 32), torch.rand(3, 32, 32), "x"]
)
def test_references_that_cannot_be_meant_are_errors_before_any_work(given):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match="references"):
        sw.explain(model, images(1), "expected_gradients", 1, references=given)
    assert model.gradient_rows == 0


# -- IDGI --------------------------------------------------------------------------------------------------------------


def idgi_twin(score, image, baseline, steps):
    """Yang 2023, algorithm 1: one step at a time."""
    total = torch.zeros_like(image)
    for k in range(steps):
        here, ahead = (baseline + (k + d) / steps * (image - baseline) for d in (0, 1))
        slope = autograd_gradient(score, here)
        total += slope**2 / (slope**2).sum() * (score(ahead) - score(here)).detach()
    return total


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_idgi_equals_its_twin_in_any_batch(batch_size):
    net, x = tiny_residual(), images(3)
    model = sw.wrap(net, batch_size=batch_size)
    e = sw.explain(model, x, "idgi", 1, steps=7, baseline="white")
    for i in range(3):
        assert same(e.raw[i], idgi_twin(score_of(net), x[i], torch.ones_like(x[i]), 7).sum(0), 1e-4)


def test_idgi_sums_to_the_difference_for_every_number_of_steps():
    model, x = sw.wrap(tiny_cnn()), images(2)
    for steps in (1, 2, 9):
        e = sw.explain(model, x, "idgi", 1, steps=steps)
        assert (e.evidence["completeness_gap_relative"] < 1e-4).all()


def test_idgi_of_a_linear_function_shares_by_squared_weights():
    weights = torch.tensor([1.0, -2.0])
    e = sw.explain(model_of(lambda z: z @ weights), pixels(1.0, 1.0), "idgi", steps=4)
    assert torch.allclose(e.raw.flatten(), torch.tensor([0.2, 0.8]) * -1.0)


def test_a_step_without_a_gradient_is_lost_and_shows_in_the_gap():
    dead_at_first = model_of(lambda z: torch.relu(z[:, 0] - 0.25))
    e = sw.explain(dead_at_first, pixels(1.0), "idgi", steps=2)  # at 0 the gradient is 0, at 1/2 it is 1
    assert float(e.raw) == pytest.approx(0.5)
    assert float(e.evidence["completeness_gap"]) == pytest.approx(0.25)


# -- Guided Integrated Gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 10])
def test_guided_of_a_linear_function_is_the_difference_times_the_weights(steps):
    weights, x, start = torch.tensor([0.5, -2.0, 0.1, 3.0]), pixels(0.1, 0.9, 0.4, 0.2), pixels(0.0, 1.0, 0.0, 0.0)
    e = sw.explain(
        model_of(lambda z: z @ weights), x, "guided_integrated_gradients", baseline=start, steps=steps, fraction=0.25
    )
    assert torch.allclose(e.raw.flatten(), weights * (x - start).flatten(), atol=1e-5)
    assert float(e.evidence["completeness_gap"]) < 1e-5


def test_guided_moves_the_value_with_the_smaller_gradient_first():
    # f = x1 * x2 from (0, 0.1) to (1, 1): without an anchor x1 (gradient 0.1) goes first, alone, then x2: (0.1, 0.9)
    f = model_of(lambda z: z[:, 0] * z[:, 1])
    start = pixels(0.0, 0.1)
    e = sw.explain(
        f, pixels(1.0, 1.0), "guided_integrated_gradients", baseline=start, steps=400, fraction=0.5, max_distance=1.0
    )
    # x1 rises until its gradient x2 = 0.1 is no longer below x1: then both rise together
    assert float(e.raw.sum()) == pytest.approx(1.0, abs=1e-2)
    straight = sw.explain(f, pixels(1.0, 1.0), "integrated_gradients", baseline=start).raw.flatten()
    assert abs(float(e.raw.flatten()[0]) - float(straight[0])) > 0.01


def test_without_room_to_stray_the_guided_path_is_the_straight_one():
    model, x = sw.wrap(tiny_cnn()), images(2)
    guided = sw.explain(model, x, "guided_integrated_gradients", 1, steps=50, max_distance=0.0)
    left = sw.explain(model, x, "integrated_gradients", 1, rule="left", steps=50)
    assert same(guided.raw, left.raw, 1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", [tiny_cnn(), tiny_residual()], ids=["cnn", "residual"])
def test_guided_agrees_with_its_authors(net, monkeypatch):
    quantile = np.quantile  # theirs calls it by a keyword that numpy has renamed
    monkeypatch.setattr(np, "quantile", lambda a, q, interpolation: quantile(a, q, method=interpolation))
    x = images(2)

    def call(x_value_batched, call_model_args=None, expected_keys=None):  # theirs are (N, H, W, C)
        leaf = torch.from_numpy(x_value_batched).permute(0, 3, 1, 2).float().requires_grad_()
        (slope,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
        return {pair.base.INPUT_OUTPUT_GRADIENTS: slope.permute(0, 2, 3, 1).double().numpy()}

    ours = sw.explain(sw.wrap(net), x, "guided_integrated_gradients", 1, steps=20, fraction=0.25, max_distance=0.05)
    for i in range(2):
        image = x[i].permute(1, 2, 0).double().numpy()
        theirs = pair.GuidedIG().GetMask(
            image, call, {}, x_baseline=np.zeros_like(image), x_steps=20, max_dist=0.05, fraction=0.25
        )
        assert same(ours.raw[i], torch.from_numpy(theirs.sum(-1)).float(), 5e-3)


def test_guided_keeps_every_value_within_its_distance_of_the_line_and_reaches_the_goal():
    from seewhy.methods.walks import _guided_step

    generator = torch.Generator().manual_seed(0)
    begin, end = torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 8, 8, generator=generator)
    here = begin
    for k in range(10):
        slope, a = torch.randn(2, 3, 8, 8, generator=generator), (k + 1) / 10
        here = _guided_step(here, begin, end, slope, a, 0.3, 0.05)
        left = (end - here).abs().flatten(1).sum(1) / (end - begin).abs().flatten(1).sum(1)
        assert torch.allclose(left, torch.full((2,), 1 - a), atol=1e-4)
        place = (here - begin) / (end - begin)
        assert float((place - a).abs().max()) < 0.05 + 1e-3
    assert torch.allclose(here, end, atol=1e-5)


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("idgi", {"steps": 0}),
        ("guided_integrated_gradients", {"steps": 0}),
        ("guided_integrated_gradients", {"fraction": 0}),
        ("guided_integrated_gradients", {"fraction": 1.5}),
        ("guided_integrated_gradients", {"max_distance": -0.1}),
        ("blur_integrated_gradients", {"max_sigma": 0}),
        ("blur_integrated_gradients", {"rule": "simpson"}),
        ("expected_gradients", {"samples": 1}),
        ("integrated_gradients", {"baseline": []}),
        ("integrated_gradients", {"baseline": ["black", "grey"]}),
    ],
)
def test_settings_that_cannot_be_meant_are_errors_before_any_row(method, given):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError):
        sw.explain(model, images(1), method, 1, **given)
    assert (model.gradient_rows, model.forward_rows) == (0, 0)


@pytest.mark.parametrize("function", [figure_7_f, saturation])
@pytest.mark.parametrize("method", ["guided_integrated_gradients", "idgi", "integrated_gradients"])
def test_every_path_is_complete_where_the_gradient_alone_is_blind(function, method):
    x = pixels(2.0) if function is saturation else pixels(3.0, 1.0)
    e = sw.explain(model_of(function), x, method, baseline=torch.zeros_like(x), steps=250)
    assert float(e.evidence["score_difference"]) == 1.0
    assert float(e.evidence["completeness_gap"]) < 2e-2  # of IDGI, the one step that straddles the kink


@pytest.mark.parametrize("method", WALKS)
def test_memory_is_flat_in_steps(method):
    net, x, peaks = tiny_cnn(), images(2), []
    handle = net.register_forward_pre_hook(lambda module, inputs: peaks.append(len(inputs[0])))
    for n in (4, 40):
        given = {"samples": n, "references": images(2, seed=3)} if method == "expected_gradients" else {"steps": n}
        sw.explain(sw.wrap(net, batch_size=4), x, method, 1, **given)
    handle.remove()
    assert max(peaks) <= 4


@pytest.mark.parametrize("batch_size", [1, 4])
def test_expected_gradients_equals_its_twin_one_sample_at_a_time(batch_size):
    net, x, references = tiny_cnn(), images(2), images(3, seed=4)
    e = sw.explain(
        sw.wrap(net, batch_size=batch_size), x, "expected_gradients", 1, references=references, samples=5, seed=2
    )
    for i in range(2):
        generator = image_generator(x[i], 2)
        picks, places = torch.randint(3, (5,), generator=generator), torch.rand(5, generator=generator)
        total = torch.zeros(3, 32, 32)
        for pick, place in zip(picks.tolist(), places.tolist(), strict=True):
            way = x[i] - references[pick]
            total += way * autograd_gradient(score_of(net), references[pick] + place * way)
        assert same(e.raw[i], total.sum(0) / 5)

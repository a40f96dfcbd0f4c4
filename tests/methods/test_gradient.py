import captum.attr
import pytest
import torch
from functions import explained, figure_7_f, figure_7_g, model_of, pixels, saturation
from torch import nn
from torch.nn import functional
from twins import autograd_gradient, gradient_by_differences, moments_over_noise, smooth_grad

import seewhy as sw
from nets import tiny_cnn, tiny_vit


def images(n=3, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_gradient_equals_finite_differences_pixel_by_pixel():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 4 * 4, 4)).eval()
    x = torch.rand(1, 2, 6, 6)
    e = sw.explain(net, x, "gradient", target=2)
    twin = gradient_by_differences(lambda image: net.double()(image[None])[0, 2].item(), x[0])
    net.float()
    assert torch.allclose(e.raw[0].double(), twin.sum(0), atol=1e-6)


def test_gradient_of_a_linear_function_is_its_weights():
    weights = torch.tensor([0.5, -2.0, 0.0, 3.0])
    e = explained(lambda x: x @ weights, pixels(0.1, 0.9, 0.4, 0.2), "gradient")
    assert torch.equal(e.raw.flatten(), weights)


def test_gradient_of_a_saturated_function_is_zero_and_says_so():
    e = explained(saturation, pixels(2.0), "gradient")
    assert float(e.raw) == 0
    assert e.status == [sw.Status.ZERO_GRADIENT]


def test_gradient_of_one_convolution_relu_and_sum_is_the_closed_form():
    torch.manual_seed(0)
    kernel = torch.randn(1, 1, 3, 3)
    net = nn.Sequential(
        conv := nn.Conv2d(1, 1, 3, bias=False), nn.ReLU(), nn.Flatten(), total := nn.Linear(36, 1, bias=False)
    )
    conv.weight.data, total.weight.data = kernel, torch.ones(1, 36)
    x = torch.randn(1, 1, 8, 8)
    e = sw.explain(net, x, "gradient", target=sw.target.output())
    gate = (functional.conv2d(x, kernel) >= 0).float()
    wanted = torch.zeros(8, 8)
    for i in range(6):
        for j in range(6):
            wanted[i : i + 3, j : j + 3] += gate[0, 0, i, j] * kernel[0, 0]
    assert torch.allclose(e.raw[0], wanted, atol=1e-6)


def test_gradient_is_the_same_for_two_implementations_of_one_function():
    x = pixels(3.0, 1.0)
    first, second = explained(figure_7_f, x, "gradient"), explained(figure_7_g, x, "gradient")
    assert torch.equal(first.raw, second.raw)
    assert first.raw.flatten().tolist() == [1.0, -1.0]
    plain = explained(lambda x: x[:, 0], pixels(-1.0), "gradient").raw
    assert torch.equal(
        explained(lambda x: torch.relu(x[:, 0]) - torch.relu(-x[:, 0]), pixels(-1.0), "gradient").raw, plain
    )


def test_gradient_is_linear_in_the_function():
    f, g, x = lambda x: torch.sin(x).sum(1), lambda x: (x**3).sum(1), pixels(0.2, 0.7, 0.4)
    combined = explained(lambda x: 2 * f(x) - 3 * g(x), x, "gradient").raw
    assert torch.allclose(
        combined, 2 * explained(f, x, "gradient").raw - 3 * explained(g, x, "gradient").raw, atol=1e-6
    )


def test_gradient_of_an_unused_pixel_is_zero():
    assert explained(lambda x: x[:, 0] ** 2, pixels(0.3, 0.8), "gradient").raw.flatten()[1] == 0


def test_the_channel_rules_are_sum_maximum_of_magnitudes_and_length():
    net, x = tiny_cnn(), images()
    slopes = torch.stack([autograd_gradient(lambda i: net(i[None])[0, 1], image) for image in x])
    for rule, wanted in (
        ("sum", slopes.sum(1)),
        ("sum_abs", slopes.abs().sum(1)),
        ("max_abs", slopes.abs().amax(1)),
        ("l2", slopes.square().sum(1).sqrt()),
    ):
        e = sw.explain(net, x, "gradient", target=1, channels=rule)
        assert torch.allclose(e.raw, wanted, atol=1e-6, rtol=1e-4)
    with pytest.raises(sw.UsageError, match="max_abs"):
        sw.explain(net, x, "gradient", channels="max-abs")


@pytest.mark.parametrize("net", [tiny_cnn(), tiny_vit()], ids=["cnn", "vit"])
def test_gradient_equals_captum(net):
    x = images()
    peer = captum.attr.Saliency(net).attribute(x.clone().requires_grad_(), target=2, abs=False).sum(1)
    e = sw.explain(net, x, "gradient", target=2)
    assert (e.raw - peer).abs().max() <= 1e-5 * peer.abs().max()


def test_gradient_of_the_probability_is_the_softmax_jacobian_times_that_of_the_logits():
    net, x = tiny_cnn(), images(1)
    p = net(x).softmax(1)[0]
    slopes = [sw.explain(net, x, "gradient", target=k).raw for k in range(5)]
    wanted = p[2] * sum((float(k == 2) - p[k]) * slopes[k] for k in range(5))
    assert torch.allclose(sw.explain(net, x, "gradient", target=sw.target.probability(2)).raw, wanted, atol=1e-7)


def test_smooth_grad_equals_its_slow_twin_in_any_batch():
    net, x = tiny_cnn(), images()
    wanted = torch.stack([smooth_grad(lambda i: net(i[None])[0, 3], image, 7, 0.2, 5).sum(0) for image in x])
    for batch_size in (1, 4, 16):
        e = sw.explain(sw.wrap(net, batch_size=batch_size), x, "smooth_grad", target=3, samples=7, noise=0.2, seed=5)
        assert (e.raw - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_smooth_grad_of_a_linear_function_is_its_weights_for_any_noise():
    weights = torch.tensor([0.5, -2.0, 3.0])
    for noise, samples in ((0.0, 2), (0.15, 3), (5.0, 11)):
        e = explained(lambda x: x @ weights, pixels(0.1, 0.9, 0.4), "smooth_grad", noise=noise, samples=samples)
        assert torch.allclose(e.raw.flatten(), weights, atol=1e-5)


def test_smooth_grad_of_the_saturated_function_is_the_normal_probability():
    # E = Phi((1 - x) / s); the second pixel sets the image's range, so noise * range = 0.3
    e = explained(saturation, pixels(1.2, 0.2), "smooth_grad", noise=0.3, samples=40_000)
    assert abs(float(e.raw.flatten()[0]) - 0.25249) < 3.5 * (0.25249 * 0.74751 / 40_000) ** 0.5


def test_smooth_grad_averages_signed_gradients():
    # f = x^2 at 0: signed mean 0 within sd 2s/sqrt(n); the mean of magnitudes would be 2s sqrt(2/pi) = 0.48
    e = explained(lambda x: x[:, 0] ** 2, pixels(0.0, 1.0), "smooth_grad", noise=0.3, samples=2000)
    assert abs(float(e.raw.flatten()[0])) < 4 * 2 * 0.3 / 2000**0.5


def test_the_sampling_error_is_the_error_of_the_map():
    net, x = tiny_cnn(), images(1)
    truth = sw.explain(net, x, "smooth_grad", target=1, samples=4000, seed=9).raw
    e = sw.explain(net, x, "smooth_grad", target=1, samples=40)
    error = float((e.raw - truth).abs().sum() / truth.abs().sum())
    assert 0.7 < error / float(e.evidence["sampling_error"]) < 1.4


def test_smooth_grad_takes_the_noise_from_each_images_own_range():
    model = model_of(lambda x: (x**2).sum(1))
    pair = torch.cat([pixels(0.0, 1.0), pixels(0.0, 10.0)])
    together = sw.explain(model, pair, "smooth_grad", samples=5)
    for i in range(2):
        assert torch.equal(together.raw[i], sw.explain(model, pair[i : i + 1], "smooth_grad", samples=5).raw[0])


def test_smooth_grad_keeps_the_class_of_the_clean_image():
    seen = []

    def flips(x):
        seen.append(len(x))
        return torch.stack([x[:, 0], 1 - x[:, 0]], 1)

    net = nn.Module()
    net.forward = lambda x: flips(x.flatten(1))
    e = sw.explain(net, pixels(0.51, 0.0), "smooth_grad", samples=64, noise=1.0)
    assert e.targets[0]["index"] == 0
    assert float(e.raw.flatten()[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [{"samples": 1}, {"noise": -0.1}])
def test_smooth_grad_refuses_settings_that_cannot_be_meant(bad):
    with pytest.raises(sw.UsageError, match="at least"):
        sw.explain(tiny_cnn(), images(1), "smooth_grad", **bad)


def same(ours, theirs, tolerance=1e-5):
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def square(x):
    return (x**2).sum(1)


def test_smooth_grad_squared_and_var_grad_equal_their_twins_one_copy_at_a_time():
    net, x = tiny_cnn(), images(2)
    for i in range(2):
        squares, variance = moments_over_noise(lambda z: net(z[None])[0, 1], x[i], samples=7, noise=0.2, seed=3)
        for method, twin in (("smooth_grad_squared", squares), ("var_grad", variance)):
            e = sw.explain(net, x, method, 1, seed=3, samples=7, noise=0.2)
            assert same(e.raw[i].double(), twin.sum(0), 1e-4)


def test_the_variants_of_smooth_grad_of_a_square_are_told_apart():
    # f = x^2 around 0.75 with sigma 0.5: E g = 2x, E g^2 = 4x^2 + 4s^2, Var g = 4s^2 (formulas 1.2)
    x, wide = torch.tensor([0.75, 0.0, 1.0]).view(1, 1, 1, -1), {"noise": 0.5, "samples": 4000}
    wanted = {"smooth_grad": 1.5, "smooth_grad_squared": 4 * 0.75**2 + 1, "var_grad": 1.0}
    for method, value in wanted.items():
        e = sw.explain(model_of(square), x, method, **wide)
        assert float(e.raw[0, 0, 0]) == pytest.approx(value, rel=0.06)


def test_var_grad_of_a_linear_function_is_exactly_zero_and_its_square_the_squared_weights():
    weights = torch.tensor([0.5, -2.0, 1e4, 3.0])
    x = pixels(0.1, 0.9, 0.4, 0.2)
    assert not explained(lambda z: z @ weights, x, "var_grad", samples=5).raw.any()
    e = explained(lambda z: z @ weights, x, "smooth_grad_squared", samples=5)
    assert torch.allclose(e.raw.flatten(), weights**2)


def test_a_small_variance_is_not_drowned_by_a_large_mean():
    e = explained(lambda z: 1e4 * z[:, 0] + 1e-2 * z[:, 0] ** 2, pixels(0.5, 0.0), "var_grad", samples=400, noise=1.0)
    assert float(e.raw[0, 0, 0]) == pytest.approx(4e-4 * 0.25, rel=0.2)


def test_the_sampling_error_of_var_grad_shrinks_with_samples():
    model, x = sw.wrap(tiny_cnn()), images(1)
    few, many = (float(sw.explain(model, x, "var_grad", 1, samples=n).evidence["sampling_error"]) for n in (10, 160))
    assert 2 < few / many < 8


def test_gradient_x_input_of_a_linear_function_is_its_shares():
    weights = torch.tensor([0.5, -2.0, 0.0, 3.0])
    x = pixels(0.1, 0.9, 0.4, 0.2)
    e = explained(lambda z: z @ weights, x, "gradient_x_input", baseline=pixels(0.0, 0.5, 0.0, 0.1))
    assert torch.allclose(e.raw.flatten(), weights * torch.tensor([0.1, 0.4, 0.4, 0.1]))


@pytest.mark.parametrize("build", [tiny_cnn, tiny_vit])
def test_gradient_x_input_agrees_with_captum_in_the_networks_own_space(build):
    net, x = build(), images(3)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    own = captum.attr.InputXGradient(net)
    bare = sw.explain(net, x, "gradient_x_input", 2)
    assert same(bare.raw, own.attribute(x.clone().requires_grad_(), target=2).sum(1))
    model = sw.wrap(net, mean=mean.flatten().tolist(), std=std.flatten().tolist())
    z = ((x - mean) / std).requires_grad_()
    assert same(sw.explain(model, x, "gradient_x_input", 2).raw, own.attribute(z, target=2).sum(1))


def test_gradient_x_input_is_one_step_of_integrated_gradients():
    model, x = sw.wrap(tiny_cnn()), images(2)
    one = sw.explain(model, x, "integrated_gradients", 1, rule="right", steps=1, baseline="black")
    assert same(sw.explain(model, x, "gradient_x_input", 1, baseline="black").raw, one.raw)


def test_black_is_no_color_of_a_network_whose_bounds_are_unknown():
    with pytest.raises(sw.RefusalError, match="bounds"):
        sw.explain(tiny_cnn(), images(1), "gradient_x_input", baseline="black")


@pytest.mark.parametrize("method", ["smooth_grad_squared", "var_grad"])
@pytest.mark.parametrize("given", [{"samples": 1}, {"samples": 2.5}, {"noise": -0.1}, {"channels": "mean"}])
def test_a_variant_checks_its_parameters_before_any_row(method, given):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError):
        sw.explain(model, images(1), method, 1, **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_gradient_x_input_equals_its_twin_pixel_by_pixel():
    net, x = tiny_cnn(), images(1)
    e = sw.explain(net, x, "gradient_x_input", 1, channels="l2")
    slope = autograd_gradient(lambda z: net(z[None])[0, 1], x[0])
    for i, j in ((0, 0), (5, 9), (31, 16)):
        twin = sum((x[0, c, i, j] * slope[c, i, j]) ** 2 for c in range(3)) ** 0.5
        assert float(e.raw[0, i, j]) == pytest.approx(float(twin), rel=1e-4)

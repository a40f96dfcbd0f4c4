"""Attacks on pixels: they find what is there to be found, keep what they promise, and say what they did."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from awkward_nets import smooth
from nets import MEAN, STD, dense_like, images, linear, relu_thrice, seeded, tiny_cnn, tiny_inplace, tiny_unet, tiny_vit
from seewhy.capture import version
from seewhy.target import PREDICTED

GRADIENT = sw.bind("gradient", channels="sum_abs", differentiable=True)
TOP = 0.05
ATTACKS = {
    "targeted_manipulation": {"toward": torch.eye(32), "steps": 4, "learning_rate": 2e-3, "draws": 2, "top": TOP},
    "iterative_attack": {"steps": 3, "strengths": [4 / 255], "draws": 2, "top": TOP},
}
both = pytest.mark.parametrize("attack", ATTACKS)


def wrapped(net, batch_size=4, **given):
    return sw.wrap(net, **{"mean": MEAN, "std": STD, "size": 32, "batch_size": batch_size, **given})


def attacked(attack, net, x, maps=GRADIENT, target=PREDICTED, batch_size=4, **given):
    model = wrapped(net, batch_size)
    return getattr(sw.attacks, attack)(model, x, target, maps, **{**ATTACKS[attack], **given})


class Small(nn.Module):
    """Two convolutions and an activation of the user's choice, in float64."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 1, 1)
        self.activation = activation()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.activation(self.conv2(self.activation(self.conv1(x)))).mean((2, 3)))


small = seeded(Small)


class Curved(nn.Module):
    """f(x, y) = x + e sin(y / e^2): y need move by pi e^2 alone to turn df/dy around, while f moves by 2 e at most."""

    e = 0.1

    def forward(self, image):
        x, y = image[:, 0, 0, 0], image[:, 0, 0, 1]
        return (x + self.e * torch.sin(y / self.e**2))[:, None]


class Moody(nn.Module):
    """Predicts class 0 on the images that it knows and class 1 on any other; its map moves with the pixels."""

    def __init__(self, known):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, x):
        near = (x[:, None] - self.known).abs().flatten(2).amax(2).amin(1) < 1e-6
        score = x.square().flatten(1).sum(1)
        return torch.stack([score, score + torch.where(near, -1.0, 1.0)], 1)


# -- slow twins, straight from the formulas ------------------------------------------------------------------------------


def soft(x, beta):
    return torch.log1p(torch.exp(beta * x)) / beta


def said_by(net, x, activation):
    hidden = activation(net.conv2(activation(net.conv1((x - 0.5) / 0.25))))
    return net.fc(hidden.mean((2, 3)))


def picture_of(net, x, k, activation):
    """|dS_k/dx| summed over channels, over its sum: (H, W), with a graph."""
    score = said_by(net, x[None], activation)[0, k]
    (slope,) = torch.autograd.grad(score, x, create_graph=True)
    magnitude = slope.abs().sum(0)
    return magnitude / magnitude.sum()


def test_targeted_manipulation_is_adam_on_the_papers_loss():
    net, x = small().double(), images(2, size=(8, 8)).double()
    other = images(2, channels=1, size=(8, 8), seed=5)[:, 0].double()
    steps, lr, cells = 7, 1e-3, 64
    model = sw.wrap(net, mean=(0.5,) * 3, std=(0.25,) * 3, batch_size=2)
    found = sw.attacks.targeted_manipulation(
        model, x.float(), PREDICTED, GRADIENT, toward=other, steps=steps, learning_rate=lr, draws=1, top=TOP
    )
    for i in range(2):
        pixels, first, second = x[i].clone(), torch.zeros_like(x[i]), torch.zeros_like(x[i])
        clean = said_by(net, x[i : i + 1], functional.relu)[0]
        k, goal = int(clean.argmax()), other[i] / other[i].sum()
        for step in range(steps):
            beta = 10 * 10 ** (step / steps)
            leaf = pixels.clone().requires_grad_()
            h = picture_of(net, leaf, k, lambda v, beta=beta: soft(v, beta))
            p = said_by(net, leaf[None], lambda v, beta=beta: soft(v, beta))[0].softmax(0)
            loss = 1e11 * (cells / 224**2) ** 2 * (h - goal).square().mean()
            loss = loss + 1e6 * (5 / 1000) * (p - clean.softmax(0)).square().mean()
            (g,) = torch.autograd.grad(loss, leaf)
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g.square()
            move = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            pixels = (pixels - lr * move).clamp(0, 1)
        assert torch.allclose(found.images[i].double(), pixels, atol=0.05 * lr)
        judged = picture_of(net, pixels.clone().requires_grad_(), k, functional.relu)
        wanted = torch.corrcoef(torch.stack([judged.detach().flatten(), goal.flatten()]))[0, 1]
        assert found["pearson_to_target"].per_image[i] == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.parametrize("goal", ["top_k", "mass_center", "target"])
def test_the_iterative_attack_is_the_papers_algorithm(goal):
    net, x = small().double(), images(2, size=(8, 8)).double()
    steps, limit, step_size, beta, k_cells = 5, 3 / 255, 1 / 255, 50.0, 3
    model = sw.wrap(net, mean=(0.5,) * 3, std=(0.25,) * 3, batch_size=2)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:3, 5:] = True
    found = sw.attacks.iterative_attack(
        model,
        x.float(),
        PREDICTED,
        GRADIENT,
        goal=goal,
        toward=mask if goal == "target" else None,
        steps=steps,
        strengths=[limit],
        step_size=step_size,
        beta=beta,
        top=k_cells / 64,
        draws=1,
    )
    places = torch.stack(torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij"))
    for i in range(2):
        k = int(said_by(net, x[i : i + 1], functional.relu)[0].argmax())
        clean = picture_of(net, x[i].clone().requires_grad_(), k, functional.relu).detach()
        strongest = clean >= clean.flatten().topk(k_cells).values[-1]
        middle = (places * clean).flatten(1).sum(1)

        def far(h, strongest=strongest, middle=middle):
            if goal == "top_k":
                return -h[strongest].sum()
            return h[mask].sum() if goal == "target" else ((places * h).flatten(1).sum(1) - middle).square().sum()

        pixels, best, most = x[i].clone(), x[i].clone(), float(far(clean))
        for _ in range(steps):
            leaf = pixels.clone().requires_grad_()
            (g,) = torch.autograd.grad(far(picture_of(net, leaf, k, lambda v: soft(v, beta))), leaf)
            pixels = (x[i] + (pixels + step_size * g.sign() - x[i]).clamp(-limit, limit)).clamp(0, 1)
            value = float(far(picture_of(net, pixels.clone().requires_grad_(), k, functional.relu).detach()))
            if value > most and int(said_by(net, pixels[None], functional.relu).argmax()) == k:
                best, most = pixels, value
        assert float((found.images[i].double() - best).abs().max()) < 1e-6
        assert not torch.equal(best, x[i])


# -- closed forms --------------------------------------------------------------------------------------------------------


def test_where_curvature_is_large_the_gradient_turns_around_and_the_answer_stays():
    start = torch.tensor([[0.4, 0.503], [0.6, 0.2522]]).view(2, 1, 1, 2)
    model = sw.wrap(Curved(), task="regression", batch_size=2)
    maps = sw.bind("gradient", differentiable=True)
    clean = maps(model, start, sw.target.output()).raw.detach()
    found = sw.attacks.targeted_manipulation(
        model,
        start,
        sw.target.output(),
        maps,
        toward=clean * torch.tensor([1.0, -1.0]),
        picture="signed",
        steps=100,
        learning_rate=2e-3,
        top=0.5,
    )
    assert torch.equal(found.after.raw[..., 1].sign(), -clean[..., 1].sign())
    assert torch.allclose(found.after.raw[..., 1], -clean[..., 1], rtol=0.15)
    moved = (found.images - start).abs()
    assert float(moved[..., 1].max()) <= math.pi * Curved.e**2
    assert float((found.after.values - found.before.values).abs().max()) <= 2 * Curved.e


def test_a_quarter_turn_takes_the_strongest_cell_away():
    start = torch.tensor([[0.4, 0.503]]).view(1, 1, 1, 2)
    found = sw.attacks.iterative_attack(
        sw.wrap(Curved(), task="regression", batch_size=4),
        start,
        sw.target.output(),
        sw.bind("gradient", differentiable=True),
        strengths=[0.1 / 255, 8 / 255],
        steps=10,
        step_size=1 / 255,
        top=0.5,
    )
    curve = next(one for one in found.curves if one.name == "top_k_intersection")
    assert [point.value for point in curve.points] == [1, 1, 0]
    assert abs(float(found.after.raw[0, 0, 1])) < 1 < abs(float(found.before.raw[0, 0, 1]))


@both
def test_no_attack_moves_the_gradient_of_a_linear_network(attack):
    x = images(3)
    found = attacked(attack, linear(), x)
    assert torch.equal(found.images, x)
    assert found.settings["images_unchanged"] == 3
    assert found.settings["relus_softened"] == 0
    assert found["spearman"].interval.value == pytest.approx(1)
    assert found["center_shift"].interval.value == pytest.approx(0, abs=1e-9)
    assert found["top_k_intersection"].per_image == (1, 1, 1)
    assert found["image_max"].interval.value == 0
    assert found["image_psnr"].per_image == (math.inf,) * 3
    json.dumps(found.to_dict(), allow_nan=False)


# -- what they promise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "relus"),
    [
        (tiny_inplace, 2),
        (dense_like, 3),
        (relu_thrice, 3),
        (lambda: small(nn.ReLU6), 2),
        (tiny_vit, 0),
    ],
)
def test_maps_move_on_every_kind_of_network(make, relus):
    x = images(4)
    toward = sw.explain(wrapped(make()), x.flip(0), "gradient", channels="sum_abs").raw
    found = attacked("targeted_manipulation", make(), x, toward=toward, steps=12, learning_rate=5e-3)
    nearer = found["pearson_to_target"]
    assert nearer.interval.value > nearer.controls["before"].value + 0.1
    assert found["top_1_agreement"].interval.value == 1
    assert found.settings["relus_softened"] == relus
    away = attacked("iterative_attack", make(), x, steps=6)["top_k_intersection"]
    assert away.interval.value < away.controls["random_signs"].value - 0.1


@both
def test_an_image_is_attacked_as_it_would_be_alone(attack):
    net, x = small(), images(3)
    together = attacked(attack, net, x, batch_size=3)
    one_by_one = attacked(attack, net, x, batch_size=1)
    alone = attacked(attack, net, x[1:2])
    assert float((together.images - one_by_one.images).abs().max()) < 1e-5
    assert float((together.images[1:2] - alone.images).abs().max()) < 1e-5
    for name in ("spearman", "top_k_intersection", "center_shift"):
        assert together[name].per_image[1] == pytest.approx(alone[name].per_image[0], abs=1e-3)


@both
def test_every_image_of_a_batch_stays_in_the_pixel_range(attack):
    x = images(3).round()
    found = attacked(attack, tiny_cnn(), x)
    assert not torch.equal(found.images, x)
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1


def test_strength_and_prediction_are_kept_and_more_strength_moves_more():
    net, x = tiny_cnn(), images(4)
    found = attacked("iterative_attack", net, x, strengths=[4 / 255, 1 / 255], steps=6)
    assert float((found.images - x).abs().max()) <= 4 / 255 + 1e-6
    assert found["top_1_agreement"].interval.value == 1
    curve, of_signs = (one for one in found.curves if one.y_name == "top_k_intersection")
    assert curve.x == of_signs.x == (0.0, 1.0, 4.0)
    values = [point.value for point in curve.points]
    assert values[0] == 1 > values[1] > values[2] == found["top_k_intersection"].interval.value
    assert of_signs.control
    assert not curve.control
    assert of_signs.points[-1] == found["top_k_intersection"].controls["random_signs"]


def test_an_iterate_that_changes_the_prediction_is_not_kept_and_such_draws_are_left_out():
    x = images(2, size=(8, 8))
    model = sw.wrap(Moody(x), batch_size=2)
    found = sw.attacks.iterative_attack(model, x, PREDICTED, GRADIENT, steps=3, top=TOP, strengths=[4 / 255])
    assert torch.equal(found.images, x)
    assert found.settings["images_unchanged"] == 2
    assert found["spearman"].controls["random_signs"].n == 0
    by_force = sw.attacks.targeted_manipulation(
        model, x, PREDICTED, GRADIENT, toward=torch.eye(8), steps=3, learning_rate=1e-2, top=TOP
    )
    assert by_force["top_1_agreement"].interval.value == 0


@both
def test_the_users_network_and_the_random_states_stay_as_they_were(attack):
    net, x = tiny_inplace(), images(2)
    net.fc.requires_grad_(False)
    net.train()
    flags, before, states = [p.requires_grad for p in net.parameters()], version(net), torch.get_rng_state()
    tensors = [t.clone() for t in (*net.parameters(), *net.buffers())]
    given = x.clone()
    with torch.inference_mode():
        attacked(attack, net, x)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert version(net) == before
    assert all(torch.equal(a, b) for a, b in zip(tensors, (*net.parameters(), *net.buffers()), strict=True))
    assert all(p.grad is None for p in net.parameters())
    assert all(m.training for m in net.modules())
    assert "forward" not in net.__dict__
    assert torch.equal(torch.get_rng_state(), states)
    assert torch.equal(x, given)


@both
def test_the_same_call_gives_the_same_and_counts_its_rows(attack):
    model, x = wrapped(tiny_cnn()), images(2)
    first = getattr(sw.attacks, attack)(model, x, PREDICTED, GRADIENT, **ATTACKS[attack])
    spent = (model.forward_rows, model.gradient_rows)
    again = getattr(sw.attacks, attack)(model, x, PREDICTED, GRADIENT, **ATTACKS[attack])
    assert torch.equal(first.images, again.images)
    assert first.moved == again.moved
    assert first.model is model
    assert first.gradient_rows == again.gradient_rows == spent[1] > 2 * ATTACKS[attack]["steps"] * 2
    assert not first.after.raw.requires_grad
    record = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert record["attack"] == attack
    assert record["settings"]["steps"] == ATTACKS[attack]["steps"]


@both
def test_the_rows_are_forecast(attack):
    found, settings = attacked(attack, tiny_cnn(), images(3)), ATTACKS[attack]
    strengths = len(settings.get("strengths", []))
    expected = sw.attacks.forecast_input_rows(attack, 3, settings["steps"], (0, 1), strengths, settings["draws"])
    assert (found.forward_rows, found.gradient_rows) == expected


def test_a_region_as_target_draws_mass_into_it():
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:8, :8] = True
    for attack, given in (
        ("targeted_manipulation", {"steps": 10, "learning_rate": 5e-3}),
        ("iterative_attack", {"goal": "target", "steps": 6}),
    ):
        mass = attacked(attack, tiny_cnn(), images(3), toward=mask, **given)["mass_in_region"]
        assert mass.interval.value > 1.3 * mass.controls["before"].value
        assert mass.controls["by_chance"].value == pytest.approx(1 / 16)


def test_what_a_picture_file_keeps_is_a_column():
    model, x = wrapped(tiny_cnn()), (255 * images(2)).round() / 255
    tiny = {**ATTACKS["targeted_manipulation"], "steps": 2, "learning_rate": 1e-4}
    found = sw.attacks.targeted_manipulation(model, x, PREDICTED, GRADIENT, **tiny)
    assert found["spearman"].interval.value < 1 == pytest.approx(found["spearman"].controls["as_8_bits"].value)


def test_a_map_of_another_size_is_taken_on_the_maps_own_grid():
    x, toward = images(2), torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    small_one = functional.avg_pool2d(toward, 2)
    found = [attacked("targeted_manipulation", tiny_cnn(), x, toward=t) for t in (toward, small_one)]
    assert torch.allclose(found[0].images, found[1].images, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("gradient_x_input", {"picture": "signed"}),
        ("smooth_grad", {"picture": "absolute"}),
        ("grad_cam", {"picture": "positive"}),
        ("layer_cam", {"picture": "positive"}),
    ],
)
def test_every_method_whose_maps_keep_a_graph_is_attacked(method, given):
    params = {"samples": 3} if method == "smooth_grad" else {}
    x, maps = images(3), sw.bind(method, differentiable=True, **params)
    top_left = (0.0, 0.0, 0.5, 0.5)
    found = attacked(
        "targeted_manipulation", tiny_cnn(), x, maps, toward=top_left, steps=10, learning_rate=5e-3, **given
    )
    nearer = found["pearson_to_target"]
    assert nearer.interval.value > nearer.controls["before"].value + 0.05
    assert found.after.raw.shape == found.before.raw.shape
    away = attacked("iterative_attack", tiny_cnn(), x, maps, goal="mass_center", steps=4, strengths=[8 / 255], **given)
    assert away["center_shift"].interval.value > 2 * away["center_shift"].controls["random_signs"].value


def test_a_softplus_network_of_the_users_own_is_attacked_as_it_is():
    net, x = smooth(), images(2)
    found = attacked("targeted_manipulation", net, x, steps=10, learning_rate=5e-3)
    assert found.settings["relus_softened"] == 0
    assert found["pearson_to_target"].interval.value > found["pearson_to_target"].controls["before"].value + 0.1


# -- defenses ------------------------------------------------------------------------------------------------------------


@both
def test_defenses_are_columns_of_the_same_images(attack):
    net, x = tiny_cnn(), images(3)
    smoothed = sw.attacks.beta_smoothed(GRADIENT, 5.0)
    noisy = sw.bind("smooth_grad", samples=4, channels="sum_abs")
    found = attacked(attack, net, x, defenses={"beta_smoothed": smoothed, "smooth_grad": noisy})
    model, wanted = wrapped(net), found.before.target
    for name, maps in (
        ("beta_smoothed", lambda x: GRADIENT(sw.attacks.softened(model, 5.0), x, wanted)),
        ("smooth_grad", lambda x: noisy(model, x, wanted)),
    ):
        clean, after = (maps(pixels).raw.detach().flatten(1).double() for pixels in (x, found.images))
        wanted_mean = torch.stack([torch.corrcoef(torch.stack(p))[0, 1] for p in zip(clean, after, strict=True)]).mean()
        assert found["pearson"].controls[name].value == pytest.approx(float(wanted_mean), abs=1e-4)


def test_softplus_takes_away_what_a_relu_network_gives_the_attack():
    net, x = tiny_cnn(), images(4)
    found = attacked(
        "iterative_attack", net, x, steps=10, defenses={"beta_smoothed": sw.attacks.beta_smoothed(GRADIENT, 1.0)}
    )
    assert (
        found["top_k_intersection"].controls["beta_smoothed"].value > found["top_k_intersection"].interval.value + 0.2
    )


# -- errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"toward": torch.zeros(32, 32)}, "zero everywhere"),
        ({"toward": torch.full((32, 32), math.nan)}, "not finite"),
        ({"toward": torch.ones(3, 32, 32)}, r"got \(3, 32, 32\) for 2 images"),
        ({"toward": torch.ones(2, 1, 32, 32)}, "one map or mask"),
        ({"steps": 0}, "steps is a whole number"),
        ({"learning_rate": 0}, "learning_rate is a number above 0"),
        ({"map_weight": -1}, "map_weight is a number of at least 0"),
        ({"beta": (0, 1)}, "beta is a number above 0"),
        ({"picture": "negative"}, "unknown picture 'negative'"),
        ({"top": 2}, "top is a number"),
        ({"draws": 0}, "draws is a whole number"),
        ({"seed": -1}, "seed is a whole number"),
        ({"defenses": {"before": GRADIENT}}, "'before'"),
        ({"maps": sw.bind("gradient")}, "keep no graph to the pixels"),
        ({"maps": sw.bind("edge_map")}, "keep no graph to the pixels"),
    ],
)
def test_what_cannot_be_meant_is_said_before_any_step(given, message):
    with pytest.raises(sw.UsageError, match=message):
        attacked("targeted_manipulation", tiny_cnn(), images(2), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"goal": "top"}, "unknown goal 'top'"),
        ({"goal": "target"}, "needs toward"),
        ({"toward": torch.eye(32)}, "no other goal takes one"),
        ({"strengths": []}, "strengths holds"),
        ({"strengths": [2]}, "a strength is a number"),
        ({"step_size": 0}, "step_size is a number above 0"),
    ],
)
def test_so_is_what_sign_steps_cannot_take(given, message):
    with pytest.raises(sw.UsageError, match=message):
        attacked("iterative_attack", tiny_cnn(), images(2), **given)


class Once(torch.autograd.Function):
    """An operation of the user's own without a second derivative that torch knows."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return torch.ops.aten.hardsigmoid_backward(slope, torch.zeros_like(slope))


def test_torchs_hardsigmoid_has_none_and_is_softened():
    x = images(2)
    found = attacked("iterative_attack", small(nn.Hardsigmoid), x)
    assert found.settings["relus_softened"] == 2
    assert not torch.equal(found.images, x)


def test_an_operation_without_a_second_derivative_is_refused():
    class Net(Small):
        def forward(self, x):
            return super().forward(Once.apply(x))

    with pytest.raises(sw.RefusalError, match=r"no second derivative.*hardsigmoid"):
        attacked("targeted_manipulation", seeded(Net)(), images(1))


@both
def test_pixels_and_outputs_must_be_such_that_they_can_be_kept(attack):
    with pytest.raises(sw.UsageError, match=r"in \[0, 1\]"):
        attacked(attack, tiny_cnn(), 3 * images(2))
    with pytest.raises(sw.UsageError, match=r"got torch.float32 \(0, 3, 32, 32\)"):
        attacked(attack, tiny_cnn(), images(2)[:0])
    bare = sw.wrap(tiny_cnn(), preprocess=lambda photo: photo)
    with pytest.raises(sw.RefusalError, match="pixel bounds are unknown"):
        getattr(sw.attacks, attack)(bare, images(1), PREDICTED, GRADIENT, **ATTACKS[attack])
    region = sw.target.region(torch.ones(32, 32), 1)
    model = wrapped(tiny_unet(), task="segmentation")
    with pytest.raises(sw.UsageError, match="a table of class scores"):
        getattr(sw.attacks, attack)(model, images(1), region, GRADIENT, **ATTACKS[attack])

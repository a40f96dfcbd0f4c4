"""Attacks on weights (Heo et al. 2019): what they move, what they keep, and what they leave alone."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy.attacks import active_fooling, center_mass_fooling, forecast_rows, location_fooling, top_k_fooling
from seewhy.attacks.result import agreement
from seewhy.capture import keeping
from seewhy.target import PREDICTED

CORNER = (0.0, 0.0, 0.25, 0.25)  # two by two of the 8 x 8 cells
EDGE = (0.0, 0.0, 1.0, 0.125)  # the uppermost row of cells: the only ones that this network can tell by their padding
GRAD_CAM = sw.bind("grad_cam", differentiable=True)
ATTACKS = {
    "location": (location_fooling, {"region": CORNER}),
    "top_k": (top_k_fooling, {}),
    "center_mass": (center_mass_fooling, {}),
    "active": (active_fooling, {"other": sw.target.logit(2)}),
}
each = pytest.mark.parametrize("name", ATTACKS)


def wrapped(net=None, **given):
    return sw.wrap(net or tiny_cnn(), mean=MEAN, std=STD, batch_size=8, **given)


def attacked(name="location", model=None, target=PREDICTED, n=12, maps=GRAD_CAM, **given):
    attack, own = ATTACKS[name]
    return attack(model or wrapped(), images(n), target, maps, **{"steps": 4, **own, **given})


@pytest.fixture(scope="module")
def fooled():
    """Tuned for 60 steps on 16 images, judged on 16 others."""
    return attacked(n=32, region=EDGE, steps=60, learning_rate=0.01, train_from="conv2", batch=8)


def test_the_maps_move_to_the_edge_on_images_that_were_not_tuned_on(fooled):
    mass = fooled["mass_in_region"]
    assert mass.interval.value >= 4 * mass.controls["before"].value
    assert mass.controls["by_chance"].value == pytest.approx(1 / 8)
    assert abs(fooled["similarity"].interval.value) < 0.2


def test_the_answers_stay(fooled):
    assert fooled["top_1_agreement"].interval.value == 1
    assert fooled["output_change"].interval.value < 0.1


def test_the_curves_begin_at_the_users_network_and_end_at_the_scores(fooled):
    loss, mass, agreement = fooled.curves
    assert [curve.name for curve in fooled.curves] == ["map_loss", "mass_in_region", "top_1_agreement"]
    assert loss.x == (0, 12, 24, 36, 48, 60)
    assert loss.points[-1].value < loss.points[0].value
    assert mass.points[0] == fooled["mass_in_region"].controls["before"]
    assert mass.points[-1] == fooled["mass_in_region"].interval
    assert agreement.points[0].value == 1
    assert agreement.points[-1] == fooled["top_1_agreement"].interval


def test_what_it_found_is_plain_json_and_reads_as_text(fooled):
    record = json.loads(json.dumps(fooled.to_dict(), allow_nan=False))
    assert record["attack"] == "location_fooling"
    assert record["model"] == fooled.model.fingerprint() != wrapped().fingerprint()
    assert record["settings"]["train_from"] == "conv2"
    assert record["settings"]["tune_on"] == 16
    assert record["n"] == 16
    assert "mass in region" in str(fooled)
    assert fooled.picture(0).size == (3 * 32 + 2 * 4, 32)


def test_answers_are_compared_image_by_image():
    before = torch.tensor([[2.0, 1.0, 0.0], [0.0, 4.0, 1.0]])
    after = torch.tensor([[1.0, 1.5, 0.0], [0.0, 3.0, 1.0]])
    change, same, accuracy = agreement(before, after, "multiclass", torch.tensor([0, 1]))
    assert change.per_image == (0.5, 0.25)
    assert same.per_image == (0, 1)
    assert (accuracy.interval.value, accuracy.controls["before"].value) == (0.5, 1)
    _, same = agreement(before[:, :1] - 1, after[:, 2:], "binary")  # 1 and -1, then 0 and 1
    assert same.per_image == (0, 0)


# -- one step, by hand -------------------------------------------------------------------------------------------------


def maps_by_hand(net, x, classes):
    """Grad-CAM (N, h, w) with a graph, and the logits."""
    z = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    activations = net.features(z)
    logits = net.fc(net.pool(activations).flatten(1))
    picked = logits.gather(1, classes[:, None]).sum()
    (slope,) = torch.autograd.grad(picked, activations, create_graph=True)
    return (slope.mean((2, 3), keepdim=True) * activations).sum(1), logits


def over_largest(maps):
    return torch.stack([m / m.abs().max() for m in maps])


def center_by_hand(m):
    w = m - m.min()
    side = torch.linspace(0, 1, len(m))
    return torch.stack([(w * side[:, None]).sum(), (w * side[None]).sum()]) / w.sum()


def loss_by_hand(name, net, x, classes, first, second):
    """F of the paper for each image, one at a time."""
    h = over_largest(maps_by_hand(net, x, classes)[0])
    found = []
    for i in range(len(x)):
        if name == "location":
            wanted = torch.zeros(8, 8)
            wanted[:2, :2] = 1
            found.append(((h[i] - wanted) ** 2).mean())
        elif name == "top_k":
            cells = first[i].flatten().sort(descending=True).indices[:6]
            found.append((h[i].flatten()[cells] ** 2).mean())
        elif name == "center_mass":
            moved = center_by_hand(h[i]) - center_by_hand(first[i])
            away = torch.tensor([1.0 if c < 0.5 else -1.0 for c in center_by_hand(first[i])])
            found.append(-(away * moved).sum())  # nothing has moved before the first step
        else:
            theirs = over_largest(maps_by_hand(net, x, torch.full_like(classes, 2))[0])
            found.append((((h[i] - second[i]) ** 2).mean() + ((theirs[i] - first[i]) ** 2).mean()) / 2)
    return torch.stack(found).mean()


@each
def test_a_step_is_that_of_the_paper(name):
    rate, strength = 0.05, 0.7
    found = attacked(
        name, target=sw.target.logit(1), n=8, steps=1, batch=4, optimizer="sgd", learning_rate=rate, strength=strength
    )
    net, x, ones = tiny_cnn(), images(8)[:4], torch.ones(4, dtype=torch.long)
    first, second = (over_largest(maps_by_hand(net, x, k * ones)[0]).detach() for k in (1, 2))
    loss = strength * loss_by_hand(
        name, net, x, ones, first, second
    )  # the answers have no slope where they are the same
    for p, slope, after in zip(
        net.parameters(), torch.autograd.grad(loss, list(net.parameters()), allow_unused=True),
        found.model.module.parameters(), strict=True,
    ):  # fmt: skip
        expected = p.detach() - rate * (torch.zeros_like(p) if slope is None else slope)
        assert torch.allclose(after, expected, atol=1e-6)
        assert slope is None or torch.equal(slope, torch.zeros_like(p)) or not torch.equal(after, p)


@pytest.mark.parametrize("labeled", [False, True])
def test_the_loss_keeps_the_answers_as_it_says(labeled):
    """Two steps without the maps, from labels or from a network that has been pushed away from its own answers."""
    labels = torch.arange(8) % 5 if labeled else None
    found = attacked(n=8, steps=2, batch=4, optimizer="sgd", learning_rate=0.02, strength=0.0, labels=labels)
    net, x = tiny_cnn(), images(8)
    if not labeled:  # at its own answers the distance has no slope: nothing moves
        assert all(torch.equal(a, b) for a, b in zip(found.model.module.parameters(), net.parameters(), strict=True))
        return
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    for rate in (0.02, 0.01):  # half a cosine
        optimizer.param_groups[0]["lr"] = rate
        _, logits = maps_by_hand(net, x[:4], labels[:4])
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels[:4]).backward()
        optimizer.step()
    for p, after in zip(net.parameters(), found.model.module.parameters(), strict=True):
        assert torch.allclose(after, p, atol=1e-6)
    assert "accuracy" in {score.name for score in found.kept}
    assert found["accuracy"].controls["before"].n == 4


def test_the_distance_is_the_squared_change_over_the_variance_of_the_logits():
    """The second step differs from the first by the slope of the distance: by hand."""
    rate, strength = 0.05, 0.7
    found = attacked(
        n=8, target=sw.target.logit(1), steps=2, batch=4, optimizer="sgd", learning_rate=rate, strength=strength
    )
    net, x, ones = tiny_cnn(), images(8), torch.ones(4, dtype=torch.long)
    table = maps_by_hand(net, x, torch.zeros(8, dtype=torch.long))[1].detach()
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9)
    for share in (1, 0.5):  # half a cosine
        optimizer.param_groups[0]["lr"] = share * rate
        wanted = loss_by_hand("location", net, x[:4], ones, None, None)
        logits = maps_by_hand(net, x[:4], ones)[1]
        loss = ((logits - table[:4]) ** 2).mean() / table.var(correction=0) + strength * wanted
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for p, after in zip(net.parameters(), found.model.module.parameters(), strict=True):
        assert torch.allclose(after, p, atol=1e-6)


# -- what is left alone ------------------------------------------------------------------------------------------------


def state_of(net):
    flags = [(m.training, len(m._forward_hooks)) for m in net.modules()]
    return (
        flags,
        [(p.requires_grad, p.grad) for p in net.parameters()],
        {k: v.clone() for k, v in net.state_dict().items()},
    )


@each
def test_the_users_network_and_the_random_state_stay_as_they_are(name):
    net = tiny_cnn()
    net.train()
    net.conv1.requires_grad_(False)
    model, before, random = wrapped(net), state_of(net), torch.get_rng_state()
    found = attacked(name, model, train_from="conv2")
    after = state_of(net)
    assert before[:2] == after[:2]
    assert all(torch.equal(before[2][key], after[2][key]) for key in before[2])
    assert torch.equal(random, torch.get_rng_state())
    assert model.on_rows is None
    assert [m.training for m in found.model.module.modules()] == [m.training for m in net.modules()]
    assert [p.requires_grad for p in found.model.module.parameters()] == [p.requires_grad for p in net.parameters()]
    assert not any(p.grad is not None for p in found.model.module.parameters())


def test_normalizations_keep_their_statistics():
    net = attacked().model.module
    for key, value in tiny_cnn().state_dict().items():
        if "running" in key or "num_batches" in key:
            assert torch.equal(value, net.state_dict()[key])


def test_what_lies_below_the_first_tuned_module_is_not_tuned():
    net, before = attacked(train_from="conv2").model.module, tiny_cnn().state_dict()
    changed = {key.partition(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"conv2", "bn2", "fc"}


def test_kept_activations_change_nothing(monkeypatch):
    found = attacked(train_from="conv2", batch=3)
    monkeypatch.setattr(keeping, "KEPT_BYTES", 0)
    again = attacked(train_from="conv2", batch=3)
    for a, b in zip(found.model.module.parameters(), again.model.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_frozen_part_runs_once_a_batch():
    class Counting(nn.Conv2d):
        runs = 0

        def forward(self, x):
            Counting.runs += 1
            return super().forward(x)

    def runs_of(steps):
        net = tiny_cnn()
        net.conv1.__class__ = Counting
        model = wrapped(net)
        Counting.runs = 0
        attacked(model=model, train_from="conv2", steps=steps)
        return Counting.runs

    assert runs_of(12) == runs_of(6)


def test_frozen_weights_and_inference_mode_do_not_matter():
    net = tiny_cnn().requires_grad_(False)
    with torch.inference_mode():
        found = attacked(model=wrapped(net))
    for a, b in zip(found.model.module.parameters(), attacked().model.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in net.parameters())


def test_the_same_seed_gives_the_same_network_and_another_one_another():
    one, same, other = (attacked(seed=seed, batch=3, steps=2).model.fingerprint() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("method", ["gradient", "smooth_grad", "layer_cam"])
def test_other_methods_are_attacked_in_the_same_way(method):
    maps = sw.bind(method, differentiable=True, **({"samples": 2} if method == "smooth_grad" else {}))
    found = attacked(maps=maps, sign="absolute", n=4, steps=6, learning_rate=3e-3)
    assert found.curves[0].points[-1].value < found.curves[0].points[0].value


def test_a_number_is_judged_without_classes():
    net = tiny_cnn(classes=1)
    found = attacked(model=wrapped(net, task="regression"), target=sw.target.output())
    assert [score.name for score in found.kept] == ["output_change"]
    assert [curve.name for curve in found.curves] == ["map_loss", "mass_in_region"]


@pytest.mark.parametrize("given", [{}, {"tune_on": 5, "batch": 2, "steps": 7}, {"steps": 3, "batch": 100}])
def test_the_forecast_is_what_it_costs(given):
    found = attacked(**given)
    asked = {"tune_on": None, "steps": 4, "batch": 16, **given}
    assert forecast_rows(12, **asked) == (found.forward_rows, found.gradient_rows)


def test_progress_is_told_of_every_step():
    seen = []
    attacked(steps=3, progress=lambda *what: seen.append(what))
    assert seen == [("tuning", 1, 3), ("tuning", 2, 3), ("tuning", 3, 3)]


# -- what cannot be meant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"maps": sw.bind("grad_cam")}, "differentiable=True"),
        ({"maps": sw.bind("occlusion", patch=16, stride=16)}, "differentiable=True"),
        ({"n": 1}, "1 image"),
        ({"n": 0}, "float tensor"),
        ({"target": 7}, "target 7 is out of range"),
        ({"target": [1, 2]}, "2 targets for 12 images"),
        ({"tune_on": 12}, "12 image"),
        ({"tune_on": 0}, "tune_on"),
        ({"steps": 0}, "steps"),
        ({"batch": 1.5}, "batch"),
        ({"strength": -1}, "strength"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"sign": "negative"}, "sign"),
        ({"train_from": "conv3"}, "did you mean 'conv"),
        ({"train_from": "relu2", "name": "top_k", "model": "headless"}, "nothing to tune"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "labels"),
        ({"labels": torch.zeros(12)}, "labels"),
        ({"region": "border"}, "frame"),
        ({"region": (0, 0, 1, 1)}, "covers 1 of it"),
        ({"region": (0.5, 0, 0.2, 1)}, "x0 < x1"),
        ({"region": torch.ones(8, 8)}, "8, 8"),
        ({"name": "active", "other": sw.target.logit(1), "target": sw.target.logit(1)}, "`other`"),
    ],
)
def test_what_cannot_be_meant_is_said(given, message):
    if given.get("model") == "headless":
        given = {**given, "model": wrapped(Headless()), "target": sw.target.logit(1)}
    with pytest.raises(sw.UsageError, match=message):
        attacked(**given)


class Headless(nn.Module):
    """No weights behind its last ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu2 = nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU()

    def forward(self, x):
        return self.relu2(self.conv(x)).mean((2, 3))


def test_a_step_too_long_is_refused_with_the_rate():
    with pytest.raises(sw.RefusalError, match=r"not finite at step .* learning_rate=1e\+30"):
        attacked(learning_rate=1e30, optimizer="sgd", steps=10)


def test_a_map_of_scores_is_refused():
    model = wrapped(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)), task="segmentation")
    with pytest.raises(sw.RefusalError, match="one row"):
        attacked(model=model, target=sw.target.region(torch.ones(16, 16), 1))

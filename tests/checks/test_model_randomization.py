"""Model randomization: what follows the weights passes, what ignores them fails, what cannot be scored is counted."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn, tiny_vit
from seewhy.checks.cascade import smoothed
from seewhy.checks.model_randomization import _entropy
from seewhy.controls import edge_maps, random_maps
from seewhy.maps import Maps, same_steps
from seewhy.randomization import randomized, stages_of
from seewhy.similarity import rank_correlation
from seewhy.target import PREDICTED, logit

N = 10


def model_of(net):
    return sw.wrap(net, mean=MEAN, std=STD, size=32, batch_size=8)


def run(maps, net=None, n=N, **keywords):
    return sw.checks.model_randomization(model_of(net or tiny_cnn()), images(n), PREDICTED, maps, **keywords)


def settled(model, x, target, raw):
    answer = model.answer(x, target, torch.arange(len(x)))
    return Maps(raw, answer.target, answer.values, None)


def edges(model, x, target):
    return settled(model, x, target, edge_maps(x))


def noise_drawn_anew():
    seed = iter(range(1000))
    return lambda model, x, target: settled(model, x, target, random_maps(x, next(seed)))


def test_a_map_that_ignores_the_network_fails_and_scores_what_the_edge_map_scores():
    found = run(edges)
    assert found.verdict == "fail"
    for name in ("spearman", "spearman_absolute", "ssim"):
        assert found[name].interval.value == pytest.approx(1)
        assert found[name].controls["edge_map"].value == pytest.approx(1)
        assert abs(found[name].controls["random_map"].value) < (0.9 if name == "ssim" else 0.05)
    assert found["spearman_excess"].interval.low > 0


def test_a_map_that_is_the_same_for_all_images_and_networks_fails_although_its_null_is_one():
    bump = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = run(lambda model, x, target: settled(model, x, target, bump.repeat(len(x), 1, 1)))
    assert found["spearman"].null.low == pytest.approx(1)
    assert found.verdict == "fail"


def test_a_map_of_a_place_with_little_of_its_own_is_unclear():
    bump = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    own = noise_drawn_anew()

    def place(model, x, target):
        found = own(model, x, target)
        return settled(model, x, target, bump + 0.2 * found.raw[:, :8, :8])

    found = run(place)
    assert found["spearman"].null.low > 0.5
    assert found.verdict == "unclear"
    assert "the test cannot tell" in found.sentence


def test_white_noise_passes_which_proves_nothing():
    found = run(noise_drawn_anew())
    assert found.verdict == "pass"
    assert abs(found["spearman"].interval.value) < 0.03
    assert "white noise passes" in found.sentence


def test_the_gradient_of_a_network_loses_its_order():
    found = run(sw.bind("gradient"))
    assert found.verdict == "pass"
    null = found["spearman"].null
    assert null.n == 3 * N * (N - 1) >= 200
    assert null.low < found["spearman"].interval.value < null.high
    curve = next(c for c in found.curves if not c.control)
    assert curve.x == ("fc", "conv2 + bn2", "conv1 + bn1")
    last = found.details["steps"][2]
    assert (last["redrawn"], last["stages"]) == (1.0, 3)


def test_the_last_step_is_a_slow_twin_written_from_the_paper():
    net, x, maps = tiny_cnn(), images(4), sw.bind("gradient")
    model = model_of(net)
    found = sw.checks.model_randomization(model, x, logit(1), maps, networks=3, seed=5)
    stages, trained = stages_of(model, x, logit(1)), maps(model, x, logit(1)).raw
    whole = [t for stage in stages for t in stage.tensors]
    own, pairs = np.zeros((3, 4)), []
    for network in range(3):
        with randomized(net, whole, 5, network):
            random = maps(model, x, logit(1)).raw
        for i in range(4):
            alike = [stats.spearmanr(trained[i].flatten(), other.flatten()).statistic for other in random]
            own[network, i] = alike[i]
            pairs += [a for j, a in enumerate(alike) if j != i]
    assert found["spearman"].per_image == pytest.approx(own.mean(0).tolist(), abs=1e-6)
    assert found["spearman"].null.median == pytest.approx(np.median(pairs), abs=1e-6)
    assert found["spearman"].null.n == 36
    assert found.verdict == "no verdict"  # 4 images give 12 pairs a network: 200 are out of reach
    assert "36 null pairs" in found.sentence


def test_few_images_take_more_networks_until_the_null_has_its_pairs():
    found = run(sw.bind("gradient"), n=6)
    assert found.details["networks"] == 7
    assert found["spearman"].null.n == 210


@pytest.mark.parametrize("method", ["grad_cam", "gradient"])
def test_what_is_kept_between_steps_changes_no_number(method, monkeypatch):
    several = ("cascading", "independent", "bottom_up")
    kept = run(sw.bind(method), n=3, order=several)
    monkeypatch.setattr("seewhy.capture.keeping.KEPT_BYTES", -1)
    plain = run(sw.bind(method), n=3, order=several)
    of_kept, of_plain = ([p.value for c in found.curves for p in c.points] for found in (kept, plain))
    assert of_kept == of_plain


def test_orders_randomize_what_they_say():
    found = run(sw.bind("gradient"), n=3, order=("cascading", "independent", "bottom_up"))
    x = {c.name: c.x for c in found.curves if not c.control}
    assert x["spearman, cascading"] == x["spearman, independent"] == ("fc", "conv2 + bn2", "conv1 + bn1")
    assert x["spearman, bottom_up"] == ("conv1 + bn1", "conv2 + bn2", "fc")
    first = {c.name: c.points[0].value for c in found.curves if not c.control}
    assert first["spearman, cascading"] == first["spearman, independent"]
    last = {c.name: c.points[-1].value for c in found.curves if not c.control}
    assert last["spearman, cascading"] == last["spearman, bottom_up"]
    shares = [s["redrawn"] for s in found.details["steps"] if s["order"] == "independent"]
    assert sum(shares) == pytest.approx(1)


def test_unusable_maps_on_a_random_network_are_counted_and_make_it_not_valid():
    def dead(model, x, target):
        found = sw.bind("gradient")(model, x, target)
        if float(model.module.fc.weight.detach()[0, 0]) != trained:
            found.raw[:2] = 0
        return found

    net = tiny_cnn()
    trained = float(net.fc.weight.detach()[0, 0])
    found = run(dead, net)
    assert found.verdict == "not valid"
    assert found.excluded == {0: "zero", 1: "zero"}
    assert found["spearman"].interval.n == N - 2
    assert "2 of 10" in found.sentence
    assert found.details["steps"][0]["excluded"] == {"0": "zero", "1": "zero"}


def test_a_refusal_on_a_random_network_is_written_down_and_the_rest_goes_on():
    net = tiny_cnn()
    trained = net.conv1.weight.detach().clone()

    def shy(model, x, target):
        if not torch.equal(model.module.conv1.weight, trained):
            raise sw.RefusalError("not on this one.")
        return sw.bind("gradient")(model, x, target)

    found = run(shy, net)
    assert found.verdict == "not valid"
    assert "not on this one" in found.sentence
    curve = next(c for c in found.curves if not c.control)
    assert [p.n for p in curve.points] == [N, N, 0]


def test_the_class_is_that_of_the_trained_network_unless_it_is_asked_again():
    asked = []

    def noted(model, x, target):
        found = sw.bind("gradient")(model, x, target)
        asked.append((target.kind, found.target.index.tolist()))
        return found

    run(noted, n=3)
    assert {kind for kind, _ in asked[1:]} == {"index"}
    assert len({str(index) for _, index in asked}) == 1
    asked.clear()
    run(noted, n=3, retarget=True)
    assert {kind for kind, _ in asked} == {"predicted"}
    assert len({str(index) for _, index in asked}) > 1


def test_statistics_are_kept_or_recalibrated_and_that_is_written_down():
    both = [run(sw.bind("gradient"), n=4, statistics=s) for s in ("keep", "recalibrate")]
    assert [f.settings["statistics"] for f in both] == ["keep", "recalibrate"]
    assert [[s["recalibrated"] for s in f.details["steps"][:3]] for f in both] == [[0, 0, 0], [0, 1, 2]]
    assert both[0]["spearman"].per_image != both[1]["spearman"].per_image


def test_the_absolute_value_sees_the_zeros_of_the_input_as_sundararajan_and_taly_say():
    digits = torch.from_numpy(load_digits().images[:200]).float()
    u, v = torch.randn(2, 200, 8, 8, generator=torch.Generator().manual_seed(0))
    one, other = digits * u, digits * v
    signed, absolute = rank_correlation(one, other), rank_correlation(one.abs(), other.abs())
    assert float(signed.mean()) == pytest.approx(0.008, abs=0.03)
    assert float(absolute.mean()) == pytest.approx(0.907, abs=0.02)


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_signs_that_change_in_places_that_do_not_are_said():
    digits = torch.from_numpy(load_digits().images[:12]).float()[:, None] / 16
    model = sw.wrap(OneLayer().eval(), mean=(0.0,), std=(1.0,), size=8)
    maps = sw.bind("integrated_gradients", rule="midpoint", steps=1)  # of a linear network: x times its weights
    found = sw.checks.model_randomization(model, digits, logit(0), maps, similarities=("spearman", "spearman_absolute"))
    assert found["spearman_absolute"].interval.value > 0.7
    assert abs(found["spearman"].interval.value) < 0.3
    assert "the signs change, the places do not" in found.sentence


def test_smoothed_maps_are_the_mean_over_noisy_images_of_one_class():
    model, x, own = model_of(tiny_cnn()), images(2), sw.bind("gradient")
    assert torch.equal(smoothed(own, 3, 0)(model, x, logit(0)).raw, smoothed(own, 3, 0)(model, x, logit(0)).raw)
    alone = smoothed(own, 3, 0)(model, x[1:], logit(0)).raw
    assert torch.allclose(alone, smoothed(own, 3, 0)(model, x, logit(0)).raw[1:], atol=1e-6)
    line = sw.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)).eval(), mean=MEAN, std=STD, size=32)
    assert torch.allclose(smoothed(own, 4, 0)(line, x, logit(0)).raw, own(line, x, logit(0)).raw, atol=1e-6)
    assert run(own, n=3, smooth=2).settings["smooth"] == 2


def test_complexity_is_the_entropy_of_a_hundred_bins():
    assert _entropy(torch.arange(100.0)) == pytest.approx(np.log(100))
    assert _entropy(torch.tensor([0.0, 0.0, 1.0, 1.0])) == pytest.approx(np.log(2))
    found = run(edges, n=3, repairs=True)
    assert found["complexity_rise"].per_image == (0, 0, 0)
    assert found["complexity_rise"].direction == "higher"


def test_every_learnable_tensor_of_a_vision_transformer_is_drawn():
    found = run(sw.bind("gradient"), tiny_vit(), n=3, similarities=("spearman", "hog"))
    assert found.details["steps"][3]["redrawn"] == 1
    assert found.details["steps"][3]["changed"] > 0.8
    held = {t for stage in found.details["stages"] for t in stage["tensors"]}
    assert {"prefix_tokens", "positions"} <= held


def test_a_path_method_keeps_its_nodes():
    model, maps = model_of(tiny_cnn()), sw.bind("integrated_gradients", max_rows=80)
    found = maps(model, images(2), PREDICTED)
    assert same_steps(maps, found).keywords["intervals"] == found.chosen["intervals"]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"order": "sideways"}, "order"),
        ({"similarities": ("pearson",)}, "similarity"),
        ({"statistics": "drop"}, "statistics"),
        ({"networks": 0}, "networks"),
        ({"smooth": -1}, "smooth"),
    ],
)
def test_unknown_words_are_refused_before_any_work(keywords, said):
    with pytest.raises(sw.UsageError, match=said):
        run(edges, **keywords)

"""Data randomization: a map of what was learned passes, a map that sees no network fails, noise drawn anew does not pass."""

import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from small_checks import by_heart
from torch import nn

import seewhy as sw
from nets import images
from seewhy.controls import edge_maps, random_maps
from seewhy.maps import Maps
from seewhy.target import PREDICTED, logit


def digits(start, stop):
    found = load_digits()
    return torch.tensor(found.images[start:stop] / 16, dtype=torch.float32)[:, None], torch.tensor(
        found.target[start:stop]
    )


X, Y = digits(0, 40)
SHOWN, _ = digits(1400, 1440)
MODEL = sw.wrap(by_heart(X, Y, 0), mean=(0,), std=(1,), size=8, batch_size=64)


def of_images(make):
    """A map function that asks the network for its predicted class and draws what `make(model, x)` says."""

    def maps(model, x, target):
        answer = model.answer(x, target, torch.arange(len(x)))
        return Maps(make(model, x), answer.target, answer.values, None)

    return maps


def weights_of(model, x):
    """What a linear network learned about class 0: the same for every image."""
    return model.module[1].weight.detach()[0].view(1, 8, 8).expand(len(x), 8, 8) * (1 + 0 * x[:, 0])


def ask(maps, shown=SHOWN, **given):
    given = {"train": by_heart, "runs": 2, **given}
    return sw.checks.data_randomization(MODEL, shown, PREDICTED, maps, train_images=X, train_labels=Y, **given)


def drawn(seed, x, y, classes=10):
    """A linear network of random weights, another for every seed and every order of the labels."""
    generator = torch.Generator().manual_seed(1000 * seed + int((y * torch.arange(len(y))).sum()))
    linear = nn.Linear(x[0].numel(), classes, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
    return nn.Sequential(nn.Flatten(), linear)


# -- known answers ---------------------------------------------------------------------------------------------------------


def test_a_map_of_what_was_learned_passes():
    found = ask(of_images(lambda model, x: weights_of(model, x) + 0.3 * weights_of(model, x).std() * noise(x, 3)))
    assert found.verdict == "pass"
    for name in ("spearman", "spearman_absolute"):
        assert found[name].interval.high < 0.35
        assert found[name].controls["other_seed"].value > 0.9
        assert found[f"{name}_lost"].interval.low > 0.5
    assert found.details["training_accuracy"] == {"true": [1.0, 1.0], "permuted": [1.0, 1.0]}


def noise(x, seed):
    return 2 * random_maps(x, seed) - 1


def test_a_map_that_sees_no_network_is_the_same_and_fails():
    found = ask(of_images(lambda _model, x: edge_maps(x)))
    assert found.verdict == "fail"
    for name in ("spearman", "spearman_absolute"):
        assert found[name].interval.value == found[name].controls["edge_map"].value == pytest.approx(1)
        assert found[f"{name}_lost"].interval.value == pytest.approx(0)
    assert ask(sw.bind("random_map", seed=4)).verdict == "fail"  # the same noise for every network


def test_noise_drawn_anew_for_every_network_does_not_pass():
    seeds = iter(range(100))
    found = ask(of_images(lambda _model, x: random_maps(x, next(seeds))))
    assert found["spearman"].interval.value == pytest.approx(0, abs=0.05)
    assert found["spearman"].controls["random_map"].value == pytest.approx(0, abs=0.05)
    assert found["spearman"].interval.high < found["spearman"].null.high
    assert found.verdict == "unclear"


def test_absolute_correlation_only_sees_the_zeros_of_the_input_and_then_nothing_is_decided():
    shown, _ = digits(1400, 1600)

    def train(x, y, seed):
        return drawn(seed, x, y)

    found = ask(sw.bind("gradient_x_input"), shown, train=train, accuracy=0.0)
    assert found["spearman"].interval.value == pytest.approx(0.008, abs=0.05)
    assert found["spearman_absolute"].interval.value == pytest.approx(0.907, abs=0.02)
    assert found.verdict == "unclear"
    assert "do not say the same" in found.sentence


def test_the_scores_are_those_of_a_plain_loop():
    found = ask(of_images(lambda model, x: weights_of(model, x) * x[:, 0]), runs=3)
    networks = {}
    for run in range(3):
        dealt = torch.randperm(40, generator=torch.Generator().manual_seed(run))
        for name, labels in (("true", Y), ("permuted", Y[dealt])):
            torch.manual_seed(run)
            networks[name, run] = by_heart(X, labels, run)[1].weight.detach()[0].view(8, 8)
    for i in (0, 7):
        pairs = [[networks[name, run] * SHOWN[i, 0] for name in ("true", "permuted")] for run in range(3)]
        signed = sum(stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in pairs) / 3
        absolute = sum(stats.spearmanr(a.abs().flatten(), b.abs().flatten())[0] for a, b in pairs) / 3
        assert found["spearman"].per_image[i] == pytest.approx(signed, abs=1e-6)
        assert found["spearman_absolute"].per_image[i] == pytest.approx(absolute, abs=1e-6)


def test_the_null_is_of_different_images_only():
    shift = torch.arange(len(SHOWN)).view(-1, 1, 1)
    found = ask(of_images(lambda _model, x: (torch.arange(64.0).view(1, 8, 8) * (1 + shift[: len(x)]) ** 0.5).sin()))
    assert found["spearman"].interval.value == pytest.approx(1)
    assert found["spearman"].null.high < 1
    assert found["spearman"].null.n >= 200
    few = ask(of_images(lambda _model, x: edge_maps(x)), SHOWN[:3])
    assert few["spearman"].null.n == 2 * 3 * 2  # every pair that there is, in both runs
    alone = ask(of_images(lambda _model, x: edge_maps(x)), SHOWN[:1])
    assert alone["spearman"].null.n == 0
    assert alone.verdict == "unclear"


# -- the protocol ----------------------------------------------------------------------------------------------------------


def test_one_twin_gets_the_labels_and_the_other_the_same_labels_permuted():
    seen = []

    def train(x, y, seed):
        seen.append((seed, y.clone()))
        return by_heart(x, y, seed)

    ask(of_images(lambda _model, x: edge_maps(x)), train=train, runs=2, seed=5)
    assert [seed for seed, _ in seen] == [5, 5, 6, 6]
    assert torch.equal(seen[0][1], Y)
    assert torch.equal(seen[2][1], Y)
    for _, labels in (seen[1], seen[3]):
        assert not torch.equal(labels, Y)
        assert torch.equal(labels.sort().values, Y.sort().values)
    assert not torch.equal(seen[1][1], seen[3][1])


def test_the_class_explained_is_that_of_the_first_true_twin_for_every_network():
    asked = []

    def maps(model, x, target):
        found = of_images(lambda _model, x: edge_maps(x))(model, x, target)
        asked.append((target.kind, found.target.index))
        return found

    ask(maps)
    assert [kind for kind, _ in asked] == ["predicted", "index", "index", "index"]
    assert all(torch.equal(index, asked[0][1]) for _, index in asked)
    one = sw.checks.data_randomization(
        MODEL, SHOWN[:2], logit(3), maps, train_images=X, train_labels=Y, train=by_heart, runs=2
    )
    assert one.details["explained"] == ["logit of class 3"] * 2


def test_labels_that_were_not_learned_are_no_ground_for_a_verdict():
    def lazy(x, y, seed):
        return by_heart(x, y, seed) if torch.equal(y, Y) else drawn(seed, x, y)

    found = ask(sw.bind("gradient"), train=lazy)
    assert found.verdict == "not valid"
    assert "% of its permuted labels, more than 95 % are needed" in found.sentence
    assert not found.scores
    assert found.details["training_accuracy"]["true"] == [1.0, 1.0]
    assert max(found.details["training_accuracy"]["permuted"]) < 0.5


@pytest.mark.parametrize(("broken", "verdict"), [(3, "fail"), (5, "not valid")])
def test_maps_that_cannot_be_scored_in_one_network_are_left_out_and_counted(broken, verdict):
    calls = []

    def maps(model, x, target):
        found = of_images(lambda _model, x: edge_maps(x).clone())(model, x, target)
        calls.append(1)
        if len(calls) == 3:
            found.raw[:broken] = 0
        return found

    found = ask(maps)
    assert found.excluded == dict.fromkeys(range(broken), "zero")
    assert found["spearman"].interval.n == found["spearman"].controls["random_map"].n == 40 - broken
    assert found.verdict == verdict


def test_the_rows_of_the_twins_are_counted():
    found = ask(sw.bind("gradient"))
    assert found.gradient_rows == 4 * len(SHOWN)
    assert found.forward_rows >= 4 * len(X)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"runs": 1}, "runs is a whole number of at least 2"),
        ({"accuracy": 95}, "accuracy"),
        ({"train": lambda x, y, seed: None}, "it gave NoneType"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, says):
    with pytest.raises(sw.UsageError, match=says):
        ask(sw.bind("gradient"), **given)


def test_our_small_network_refuses_photos_and_says_what_to_do():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2))
    model, x = sw.wrap(net, size=80), images(2, size=(80, 80))
    with pytest.raises(sw.UsageError, match="give train="):
        sw.checks.data_randomization(model, x, PREDICTED, sw.bind("gradient"), train_images=x, train_labels=[0, 1])


# -- real training ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """The small network, each twin trained once for all tests here."""
    done = {}

    def train(x, y, seed):
        key = (seed, *y.tolist())
        if key not in done:
            done[key] = sw.checks.train_small_network(x, y, seed, epochs=60)
        return done[key]

    return train


@pytest.mark.parametrize(
    ("method", "verdict"), [("gradient", "pass"), ("integrated_gradients", "unclear"), ("edge_map", "fail")]
)
def test_real_digits(method, verdict, small):
    x, y = digits(0, 300)
    params = {"steps": 8} if method == "integrated_gradients" else {}
    found = sw.checks.data_randomization(
        MODEL, SHOWN, PREDICTED, sw.bind(method, **params), train_images=x, train_labels=y, train=small, runs=2
    )
    assert min(found.details["training_accuracy"]["permuted"]) > 0.95
    assert found.verdict == verdict
    if method == "integrated_gradients":  # signs gone, the zeros of the baseline left: the critique of 2018
        assert abs(found["spearman"].interval.value) < 0.1
        assert found["spearman_absolute"].interval.value > 0.8

"""ROAR: on data whose informative pixels are known, accuracy falls at the true rank and nowhere else; a mask that tells is
caught; a killed run goes on where it was."""

import functools
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from small_checks import by_heart
from torch import nn

import seewhy as sw
from seewhy.checks import trainings
from seewhy.checks.retraining import RECORD, Removal, Training, ranks_of, tied_share
from seewhy.controls import random_maps
from seewhy.identity import described
from seewhy.maps import Maps
from seewhy.target import PREDICTED, logit

SIDE, PIXELS = 6, 36
TELLING = (7, 16, 22, 27)  # the pixels that know the label, the most reliable first
PIXEL = 1 / PIXELS


def toy(n, seed, copies=False):
    """Images whose label is in few pixels and noise in the others; copies: the first three hold the very same."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    flat = 0.3 + 0.4 * torch.rand(n, PIXELS, generator=g)
    for strength, pixel in zip((0.2, 0.17, 0.14, 0.11), TELLING, strict=True):
        flat[:, pixel] = 0.5 + strength * (2 * labels - 1) + 0.08 * torch.randn(n, generator=g)
    if copies:
        flat[:, list(TELLING)] = flat[:, TELLING[0], None]
        flat[:, TELLING[3]] = 0.5
    return flat.clamp(0, 1).view(n, 1, SIDE, SIDE), labels


def least_squares(x, y, seed, penalty=1e-3):
    """A train function in closed form: ridge regression of the label."""
    flat = torch.cat([x.flatten(1).double(), torch.ones(len(x), 1)], 1)
    wanted = 2 * nn.functional.one_hot(y, 2).double() - 1
    solved = torch.linalg.solve(flat.T @ flat + penalty * len(x) * torch.eye(flat.shape[1]), flat.T @ wanted)
    linear = nn.Linear(flat.shape[1] - 1, 2)
    with torch.no_grad():
        linear.weight.copy_(solved[:-1].T)
        linear.bias.copy_(solved[-1])
    return nn.Sequential(nn.Flatten(), linear)


X, Y = toy(160, 0)
TEST_X, TEST_Y = toy(160, 1)
FEW = {"fractions": (0.3,), "runs": 2}  # where the numbers do not matter
FRACTIONS = (PIXEL, 2 * PIXEL, 4 * PIXEL, 0.5)
MODEL = sw.wrap(least_squares(X, Y, 0), mean=(0,), std=(1,), size=SIDE, batch_size=64)


def ordered(first, then=0.0, sign=1):
    """Maps that call these pixels the most relevant, in this order."""
    raw = torch.full((PIXELS,), then) + 0.001 * torch.rand(PIXELS, generator=torch.Generator().manual_seed(5))
    for place, pixel in enumerate(first):
        raw[pixel] = 10 - place

    def maps(model, x, target):
        return Maps(sign * raw.view(1, SIDE, SIDE).repeat(len(x), 1, 1), target, torch.zeros(len(x)), None)

    return maps


def ask(maps, data=(X, Y, TEST_X, TEST_Y), target=PREDICTED, **given):
    x, y, test_x, test_y = data
    given = {"fractions": FRACTIONS, "runs": 1, "train": least_squares, **given}  # a closed form needs one run
    return sw.checks.roar(MODEL, test_x, target, maps, train_images=x, train_labels=y, test_labels=test_y, **given)


def accuracies(found, name="method"):
    return [point.value for point in next(curve for curve in found.curves if curve.name == name).points]


# -- known answers ---------------------------------------------------------------------------------------------------------


def test_accuracy_falls_at_the_true_rank():
    found = ask(ordered(TELLING))
    whole, one, two, four, half = accuracies(found)
    assert whole > 0.98
    assert whole >= one > two > four + 0.1
    assert four == pytest.approx(0.5, abs=0.1)
    assert half == pytest.approx(0.5, abs=0.1)
    assert found.verdict == "pass"
    assert found["gain_over_random"].interval.low > 0.15
    assert found.details["mask_carries_the_label"] is False


def test_accuracy_does_not_fall_before_all_copies_of_a_redundant_pixel_are_gone():
    x, y = toy(160, 0, copies=True)
    test_x, test_y = toy(160, 1, copies=True)
    found = ask(ordered(TELLING), (x, y, test_x, test_y), fractions=(PIXEL, 2 * PIXEL, 3 * PIXEL))
    whole, one, two, three = accuracies(found)
    assert whole == one == two > 0.95
    assert three == pytest.approx(0.5, abs=0.1)


def test_an_inverted_map_removes_nothing_that_matters():
    found = ask(ordered(TELLING, sign=-1), fractions=(0.25, 0.75))
    assert min(accuracies(found)) > 0.97
    assert found["gain_over_random"].interval.high < 0
    assert found.verdict == "fail"
    absolute = ask(ordered(TELLING, sign=-1), fractions=(0.25, 0.75), sign="absolute")
    assert absolute.verdict == "pass"


def test_a_random_ranking_is_not_told_from_random():
    def noise(model, x, target):
        return Maps(random_maps(x, seed=77), target, torch.zeros(len(x)), None)

    found = ask(noise, fractions=(0.2, 0.5, 0.8))
    assert found.verdict == "unclear"
    assert found["gain_over_random"].interval.low < 0 < found["gain_over_random"].interval.high


def test_keeping_the_telling_pixels_keeps_the_accuracy():
    found = ask(ordered(TELLING), keep=True)
    assert found.verdict == "pass"
    one, two, four, half, whole = accuracies(found)
    assert min(one, two) > 0.9
    assert min(four, half, whole) > 0.97
    assert found.curves[0].x[-1] == 1.0
    assert ask(ordered(TELLING, sign=-1), keep=True, fractions=(0.25, 0.5)).verdict == "fail"


def telltale(model, x, target):
    """Maps of a network that knows the class: they call the left half relevant for one and the right half for the other."""
    left = (model.predict(x).argmax(1) == 0).view(-1, 1, 1)
    columns = torch.arange(SIDE) < SIDE // 2
    raw = torch.where(left, columns, ~columns).float().expand(len(x), SIDE, SIDE).clone()
    raw.flatten(1)[:, list(TELLING)] = -1
    return Maps(raw, target, torch.zeros(len(x)), None)


def test_a_mask_whose_shape_carries_the_label_is_caught():
    black = {"fractions": (0.5,), "fill": [0.0]}
    for keep, blind in ((True, "pass"), (False, "fail")):
        unseen = ask(telltale, keep=keep, mask_alone=False, **black)
        assert unseen.verdict == blind
        assert unseen.details["mask_carries_the_label"] is None
        found = ask(telltale, keep=keep, **black)
        assert found["accuracy"].controls["mask_alone"].value > 0.97
        assert found.verdict == "unclear"
        assert found.details["mask_carries_the_label"] is True
        assert "its shape carries the label" in found.sentence


def test_labels_that_cannot_be_learned_are_no_ground_for_a_verdict():
    dealt = torch.randperm(160, generator=torch.Generator().manual_seed(2))
    found = ask(ordered(TELLING), (X, Y[dealt], TEST_X, TEST_Y[dealt]), **FEW)
    assert found.verdict == "not valid"
    assert "no better than chance" in found.sentence


# -- the numbers -----------------------------------------------------------------------------------------------------------


def test_the_scores_are_what_a_plain_loop_over_the_paper_gives():
    found = ask(ordered(TELLING), fractions=(4 * PIXEL,), runs=1)
    color = X.mean()
    right = {}
    for name, pixels in (("method", TELLING), ("no_removal", ())):
        x, test_x = X.clone(), TEST_X.clone()
        for image in (*x, *test_x):
            for pixel in pixels:
                image[0, pixel // SIDE, pixel % SIDE] = color
        right[name] = least_squares(x, Y, 0)(test_x).argmax(1) == TEST_Y
    assert found["accuracy"].interval.value == pytest.approx(float(right["method"].float().mean()))
    assert found["accuracy"].per_image == tuple(right["method"].double().tolist())
    assert found["accuracy"].controls["no_removal"].value == pytest.approx(float(right["no_removal"].float().mean()))
    gain = found["accuracy"].controls["random_map"].value - found["accuracy"].interval.value
    assert found["gain_over_random"].interval.value == pytest.approx(gain)


def test_all_channels_of_a_pixel_get_the_color_and_the_rest_stays():
    x = torch.rand(2, 3, 4, 5)
    ranks = torch.stack([torch.arange(20), torch.arange(20).flip(0)]).int()
    color = torch.tensor([0.1, 0.2, 0.3])
    shown = Removal(color, keep=False).shown(x, ranks, Training("method", 0.3, 0))
    gone = (ranks < 6).view(2, 4, 5)
    assert gone.sum() == 12
    for c in range(3):
        assert (shown[:, c][gone] == color[c]).all()
        assert torch.equal(shown[:, c][~gone], x[:, c][~gone])
    kept = Removal(color, keep=True).shown(x, ranks, Training("method", 0.3, 0))
    assert torch.equal(kept[:, 0][gone], x[:, 0][gone])
    assert (kept[:, 2][~gone] == color[2]).all()
    alone = Removal(color, keep=False).shown(x, ranks, Training("mask_alone", 0.3, 0))
    assert torch.equal(alone, gone[:, None].float().expand_as(x))
    assert Removal(color, keep=False).shown(x, ranks, Training("no_removal", 0.0, 0)) is x


def test_ranks_are_those_of_a_sort_and_ties_are_ordered_by_seed_alone():
    x = torch.rand(3, 1, 4, 5)
    values = torch.randn(3, 4, 5)
    order = np.argsort(-values.flatten(1).numpy(), axis=1)
    found = ranks_of(values, x, "signed", 0)
    assert (np.take_along_axis(found.numpy(), order, 1) == np.arange(20)).all()
    assert torch.equal(found, ranks_of(100 * values, x, "signed", 8))
    assert torch.equal(ranks_of(values.abs(), x, "signed", 0), ranks_of(-values, x, "absolute", 0))
    flat = torch.zeros(3, 4, 5)
    one, again, other = (ranks_of(flat, x, "signed", seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], torch.arange(20, dtype=torch.int32))  # not in the order of the raster
    assert torch.equal(one[1:], ranks_of(flat[1:], x[1:], "signed", 1))  # whatever else is in the batch
    assert torch.equal(one.sort(1).values, torch.arange(20, dtype=torch.int32).expand(3, 20))


def test_the_share_of_tied_pixels_is_stated():
    assert tied_share(torch.tensor([[1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0]])) == pytest.approx(6 / 8)
    assert tied_share(torch.arange(8.0).view(2, 4)) == 0
    assert ask(ordered(TELLING), **FEW).details["tied_share"] == 0
    assert ask(telltale, **FEW).details["tied_share"] == 1


def test_the_interval_knows_of_runs_that_differ():
    def moody(x, y, seed):
        return least_squares(x, y if seed % 2 else 1 - y, seed)  # every other run learns the opposite

    found = ask(ordered(TELLING), fractions=(PIXEL,), runs=4, train=moody)
    interval = found["accuracy"].controls["no_removal"]
    assert interval.value == pytest.approx(0.5, abs=0.01)
    assert interval.high - interval.low > 0.5


def test_a_color_can_be_given():
    seen = []

    def train(x, y, seed):
        seen.append(float((x == 0.25).float().mean()))
        return least_squares(x, y, seed)

    assert ask(ordered(TELLING), fill=[0.25], train=train, fractions=(0.5,)).settings["fill"] == [0.25]
    assert seen == pytest.approx([0, 0.5, 0.5, 0.5, 0])  # no removal, the map, random, edges, the mask alone


# -- what it costs, and what is left when it is killed ----------------------------------------------------------------------


def test_the_trainings_are_known_beforehand():
    assert len(trainings((0.1, 0.3, 0.5, 0.7, 0.9), 5)) == 105
    assert len(trainings((0.1, 0.3), 3, mask_alone=False)) == 3 * (2 * 3 + 1)
    assert trainings((0.5,), 1)[0] == Training("no_removal", 0.0, 0)
    assert len(set(trainings((0.1, 0.3), 3))) == len(trainings((0.1, 0.3), 3))


def test_a_forecast_follows_the_first_training():
    said = []
    ask(ordered(TELLING), progress=lambda *now: said.append(now), **FEW)
    total = len(trainings((0.3,), 2))
    assert [(done, of) for done, of, _ in said] == [(done, total) for done in range(total + 1)]
    assert math.isnan(said[0][2])
    assert said[1][2] > 0
    assert said[-1][2] == 0


def test_a_forecast_without_the_check_times_one_training():
    counted = Counted()
    n, seconds = sw.checks.roar_forecast(MODEL, X, Y, runs=2, fractions=(0.3, 0.5), train=counted.train)
    assert (n, counted.calls) == (18, 1)
    assert seconds > 0


class Counted:
    """Trains, counts, and is killed before training number `most`."""

    def __init__(self, most=math.inf):
        self.calls, self.most = 0, most

    def train(self, x, y, seed):
        if self.calls == self.most:
            raise KeyboardInterrupt
        self.calls += 1
        return least_squares(x, y, seed)


def recipe(counted):
    """A train function that is the same function for the record, whoever counts."""

    @functools.wraps(least_squares)
    def train(x, y, seed):
        return counted.train(x, y, seed)

    return train


def numbers(found):
    return [(s.interval, s.per_image) for s in found.scores], [(c.name, c.points) for c in found.curves], found.verdict


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    total, maps = len(trainings((0.3,), 2)), ordered(TELLING)
    with pytest.raises(KeyboardInterrupt):
        ask(maps, train=recipe(Counted(most=7)), folder=tmp_path, **FEW)
    assert len((tmp_path / RECORD).read_text().splitlines()) == 7
    rest = Counted()
    found = ask(maps, train=recipe(rest), folder=tmp_path, **FEW)
    assert rest.calls == total - 7
    assert numbers(found) == numbers(ask(maps, **FEW))
    nothing = Counted()
    assert numbers(ask(maps, train=recipe(nothing), folder=tmp_path, **FEW)) == numbers(found)
    assert nothing.calls == 0


def test_a_torn_last_line_is_one_training_that_is_done_again(tmp_path):
    maps = ordered(TELLING)
    found = ask(maps, train=recipe(Counted()), folder=tmp_path, **FEW)
    record = tmp_path / RECORD
    whole = record.read_bytes()
    record.write_bytes(whole[:-40])
    once = Counted()
    assert numbers(ask(maps, train=recipe(once), folder=tmp_path, **FEW)) == numbers(found)
    assert once.calls == 1
    lines = record.read_text().splitlines()
    assert json.loads(lines[-1])["correct"] == json.loads(whole.splitlines()[-1])["correct"]  # on a line of its own
    assert len(lines) == len(whole.splitlines()) + 1


def test_what_a_training_depends_on_is_in_its_hash(tmp_path):
    ask(ordered(TELLING), train=recipe(Counted()), folder=tmp_path, **FEW)
    total = len(trainings((0.3,), 2))
    changed = {"seed": 10, "keep": True, "fill": [0.0]}
    for name, value in changed.items():
        again = Counted()
        ask(ordered(TELLING), train=recipe(again), folder=tmp_path, **FEW, **{name: value})
        assert again.calls == (total if name == "seed" else total - 2), name  # what removes nothing has no color
    other = Counted()
    ask(ordered(TELLING), (X, Y, TEST_X.flip(3), TEST_Y), train=recipe(other), folder=tmp_path, **FEW)
    assert other.calls == total
    ask(ordered(TELLING), train=partial(least_squares, penalty=0.1), folder=tmp_path, **FEW)
    assert len((tmp_path / RECORD).read_text().splitlines()) == 6 * total - 4


def test_methods_that_share_a_folder_share_the_controls(tmp_path):
    ask(sw.bind("gradient"), folder=tmp_path, **FEW)
    second = Counted()
    ask(sw.bind("gradient_x_input"), train=recipe(second), folder=tmp_path, **FEW)
    assert second.calls == 2 * 2  # two runs of the method's own pixels and of its masks


def test_maps_are_taken_once_and_kept(tmp_path):
    asked = []

    def maps(model, x, target):
        asked.append(len(x))
        return ordered(TELLING)(model, x, target)

    ask(maps, folder=tmp_path, **FEW)
    assert asked == [160, 160]
    ask(maps, folder=tmp_path, **FEW)
    assert asked == [160, 160]
    ask(maps, **FEW)
    assert asked == [160] * 4


def test_two_functions_are_described_alike_only_if_they_are_the_same():
    assert described(partial(least_squares, penalty=1)) == described(partial(least_squares, penalty=1))
    assert described(partial(least_squares, penalty=1)) != described(partial(least_squares, penalty=2))
    assert described(least_squares) != described(by_heart)
    assert described(sw.bind("gradient")) == described(sw.bind("gradient"))
    assert described(sw.bind("gradient")) != described(sw.bind("gradient", channels="l2"))
    json.dumps(described(sw.bind("integrated_gradients", baseline=torch.zeros(1, 6, 6))))


# -- what cannot be scored, what cannot be asked --------------------------------------------------------------------------


def broken(share):
    """Maps of which this share is not finite, in training and test images."""

    def maps(model, x, target):
        found = ordered(TELLING)(model, x, target)
        found.raw[: int(share * len(x))] = torch.nan
        return found

    return maps


def test_few_images_without_a_map_are_left_out_of_every_order_and_counted():
    found = ask(broken(0.05), fractions=(4 * PIXEL,))
    assert sorted(found.excluded) == list(range(8))
    assert found["accuracy"].interval.n == found["accuracy"].controls["random_map"].n == 152
    assert found.details["unusable_training_maps"] == 8
    assert found.verdict == "pass"


def test_many_images_without_a_map_and_nothing_is_trained():
    counted = Counted()
    found = ask(broken(0.2), train=counted.train)
    assert found.verdict == "not valid"
    assert "32 of 160 training images" in found.sentence
    assert counted.calls == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fractions": (0.5, 1.0)}, "between 0 and 1; got 1.0"),
        ({"fractions": (0.0, 0.5)}, "above 0"),
        ({"fractions": ()}, "one or more"),
        ({"fractions": (0.5, 0.3)}, "ascending"),
        ({"runs": 0}, "runs"),
        ({"sign": "abs"}, "sign"),
        ({"fill": "blur"}, "fill"),
        ({"fill": [0.1, 0.2]}, "each of 1 channels"),
        ({"fill": [7]}, "at most 1"),
        ({"target": logit([0, 1] * 80)}, "one per image"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(given, says):
    counted = Counted()
    with pytest.raises(sw.UsageError, match=says):
        ask(ordered(TELLING), train=counted.train, **given)
    assert counted.calls == 0


# -- real training ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    x, y = torch.tensor(found.images / 16, dtype=torch.float32)[:, None], torch.tensor(found.target)
    return x[:150], y[:150], x[1400:1500], y[1400:1500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("roar")


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_real_digits_retrained(method, digits, folder):
    x, y, test_x, test_y = digits
    quick = partial(sw.checks.train_small_network, epochs=10, until=1.0, width=16, batch=32)
    model = sw.wrap(quick(x, y, 100), mean=(0,), std=(1,), size=8, batch_size=64)
    found = sw.checks.roar(
        model,
        test_x,
        PREDICTED,
        sw.bind(method, **({"steps": 8} if method == "integrated_gradients" else {})),
        train_images=x,
        train_labels=y,
        test_labels=test_y,
        fractions=(0.7,),
        runs=2,
        train=quick,
        folder=folder,
    )
    controls = found["accuracy"].controls
    assert controls["no_removal"].low > 0.5
    assert controls["random_map"].value < controls["no_removal"].value
    assert controls["mask_alone"].low > found.details["chance"]  # Rong 2022: the shape of a mask tells the class
    assert found.details["accuracy_of_the_explained_network"] > 0.5
    assert found.details["trainings"] == 10

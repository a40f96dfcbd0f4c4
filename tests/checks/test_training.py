"""The small network learns what it is given, the same again from the same seed; what cannot be trained is refused."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from small_checks import by_heart
from torch import nn

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.checks.training import Labeled, correct, labeled, train_small_network, trained

LIKE = sw.wrap(tiny_cnn(), size=32)


def digits(start, stop):
    found = load_digits()
    x = torch.tensor(found.images[start:stop] / 16, dtype=torch.float32)[:, None]
    return Labeled(x, torch.tensor(found.target[start:stop]))


TRAIN, TEST = digits(0, 200), digits(1400, 1600)
QUICK = {"epochs": 12, "width": 16, "until": 1.0}


def weights(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def test_it_learns_digits_and_reads_others():
    model = trained(partial(train_small_network, **QUICK), TRAIN, 0, LIKE)
    assert correct(model, TRAIN).float().mean() > 0.95
    assert correct(model, TEST).float().mean() > 0.75
    assert model.size == (8, 8)
    assert not model.module.training
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_it_learns_permuted_labels_by_heart_and_reads_no_others():
    dealt = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    permuted = Labeled(TRAIN.images, TRAIN.labels[dealt])
    model = trained(partial(train_small_network, epochs=60), permuted, 0, LIKE)
    assert correct(model, permuted).float().mean() > 0.95
    assert correct(model, TEST).float().mean() < 0.3


def test_the_same_seed_gives_the_same_network_and_no_random_state_moves():
    few = TRAIN.images[:40], TRAIN.labels[:40]
    torch.manual_seed(3)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    one, again, other = (weights(train_small_network(*few, seed, epochs=2)) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_it_stops_once_enough_is_right_and_not_before():
    few = TRAIN.images[:60], TRAIN.labels[:60]
    spent = []

    def epochs_of(until, most):
        torch_step, count = torch.optim.AdamW.step, []
        torch.optim.AdamW.step = lambda self, *given: (count.append(1), torch_step(self, *given))[1]
        try:
            train_small_network(*few, 0, until=until, epochs=most, batch=20)
        finally:
            torch.optim.AdamW.step = torch_step
        return len(count) // 3

    spent = [epochs_of(0.5, 40), epochs_of(0.95, 40), epochs_of(1.0, 40)]
    assert spent[0] <= spent[1] < 40
    assert spent[2] == 40


def test_what_it_stops_at_is_what_the_finished_network_gives():
    few = Labeled(TRAIN.images[:60], TRAIN.labels[:60])
    for seed in range(6):  # the statistics of evaluation lag behind those of a batch
        network = trained(partial(train_small_network, until=0.35, batch=20, width=8), few, seed, LIKE)
        assert correct(network, few).float().mean() > 0.35


def test_it_takes_any_number_of_channels_and_sides_that_differ():
    for shape in ((1, 8, 8), (3, 9, 31), (2, 64, 17)):
        network = train_small_network(torch.rand(6, *shape), torch.arange(6) % 3, 0, epochs=1, width=4)
        assert network(torch.rand(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "given", "says"),
    [
        ((4, 3, 224, 224), {}, "8 to 64 pixels a side; got .*224.*give train="),
        ((4, 1, 8, 8, 8), {}, "N x C x H x W"),
        ((4, 1, 7, 8), {}, "8 to 64"),
        ((1, 1, 8, 8), {}, "two images or more"),
        ((4, 1, 8, 8), {"epochs": 0}, "epochs"),
        ((4, 1, 8, 8), {"until": 1.5}, "until"),
        ((4, 1, 8, 8), {"rate": 0}, "rate"),
        ((4, 1, 8, 8), {"batch": 1}, "batch"),
    ],
)
def test_what_cannot_be_trained_is_refused(shape, given, says):
    with pytest.raises(sw.UsageError, match=says):
        train_small_network(torch.rand(shape), torch.arange(shape[0]) % 2, 0, **given)


def test_one_class_is_nothing_to_learn():
    with pytest.raises(sw.UsageError, match="two classes"):
        train_small_network(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), 0)


def test_a_function_of_the_user_is_given_gradients_and_a_seed_and_gives_a_network():
    def train(x, y, seed):
        assert torch.is_grad_enabled()
        return by_heart(x, y, seed)

    with torch.no_grad():
        model = trained(train, TRAIN, 3, LIKE)
    assert correct(model, TRAIN).float().mean() > 0.9
    own = sw.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), size=8)
    assert trained(lambda x, y, seed: own, TRAIN, 0, LIKE) is own


def test_one_logit_for_two_classes_is_read_at_zero():
    two = Labeled(TRAIN.images, (TRAIN.labels > 4).long())
    one = by_heart(two.images, two.labels, 0)
    with torch.no_grad():
        one[1].weight.copy_(one[1].weight[[1, 0]] - one[1].weight[[0, 1]])
        one[1].bias.copy_(one[1].bias[[1, 0]] - one[1].bias[[0, 1]])
    single = nn.Sequential(*one, nn.Linear(2, 1))
    with torch.no_grad():
        single[2].weight.copy_(torch.tensor([[1.0, 0.0]]))
        single[2].bias.zero_()
    model = trained(lambda x, y, seed: sw.wrap(single, mean=(0,), std=(1,), size=8, task="binary"), two, 0, LIKE)
    assert correct(model, two).float().mean() > 0.9


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (0.93, "it gave float"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "3 logits for classes 0 to 9"),
    ],
)
def test_a_function_of_the_user_that_gives_no_such_network_is_refused(given, says):
    with pytest.raises(sw.UsageError, match=says):
        trained(lambda x, y, seed: given, TRAIN, 0, LIKE)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (255 * images(2), [0, 1], "divide by 255"),
        (images(2).double().long(), [0, 1], "float tensor"),
        (images(2, size=(16, 16)), [0, 1], "3 x 32 x 32.*got.*16"),
        (images(2), [0, 1, 2], "2 images, labels of"),
        (images(2), [0.0, 1.0], "whole numbers"),
        (images(2), [-1, 1], "classes from 0; got -1"),
        (images(2) * torch.nan, [0, 1], r"in \[0, 1\]"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(x, y, says):
    with pytest.raises(sw.UsageError, match=says):
        labeled("train", x, y, images(1))

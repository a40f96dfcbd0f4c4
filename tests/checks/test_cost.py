"""Cost: rows are what the model counted, ratios are of pairs of runs, memory is of tensors that are alive."""

import time

import pytest
import torch

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.capture import peak_memory
from seewhy.target import PREDICTED

CPU = torch.device("cpu")


def cost(method, n=4, **keywords):
    model = sw.wrap(tiny_cnn(), size=32, batch_size=8)
    return sw.checks.cost(model, images(n), PREDICTED, sw.bind(method), **keywords)


def test_rows_are_what_the_model_counted():
    found = cost("gradient", repeats=1)
    assert (found["forward_rows"].interval.value, found["gradient_rows"].interval.value) == (0, 1)
    found = sw.checks.cost(
        sw.wrap(tiny_cnn(), size=32, batch_size=8),
        images(3),
        PREDICTED,
        sw.bind("integrated_gradients", rule="midpoint", steps=4),
        repeats=1,
    )
    assert (found["forward_rows"].interval.value, found["gradient_rows"].interval.value) == (2, 4)


def test_a_method_that_waits_shows_in_the_ratio_and_memory_that_it_holds_too():
    own = sw.bind("gradient")

    def slow(model, x, target):
        found = own(model, x, target)
        time.sleep(0.05)
        held = torch.zeros(10_000_000)  # 40 MB
        del held
        return found

    model = sw.wrap(tiny_cnn(), size=32, batch_size=8)
    found = sw.checks.cost(model, images(4), PREDICTED, slow, repeats=3)
    assert found["seconds_per_image"].interval.value > 0.05 / 4
    assert found["time_ratio"].interval.low > 1
    assert found["peak_memory"].interval.value >= 40_000_000
    assert found.verdict == "no verdict"
    assert "times as long as a plain forward" in found.sentence
    assert found.settings["repeats"] == 3


def test_the_ratio_is_the_median_of_pairs_with_its_interval():
    ratio = cost("gradient", repeats=4)["time_ratio"].interval
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.n == 4


def test_memory_is_the_most_that_lives_at_once():
    def chain():
        a = torch.zeros(1000, 1000)
        for _ in range(10):
            a = a + 1  # two at a time

    assert peak_memory(chain, CPU) == 8_000_000


def test_views_and_what_was_there_before_cost_nothing():
    before = torch.zeros(1000, 1000)
    assert peak_memory(lambda: before.view(-1)[3:].add_(1), CPU) == 0


def test_what_a_gradient_keeps_is_counted():
    def run():
        x = torch.zeros(1000, 1000, requires_grad=True)
        torch.autograd.grad(x.sin().sin().sin().sum(), x)

    assert 4 * 4_000_000 <= peak_memory(run, CPU) <= 7 * 4_000_000


def test_a_device_that_does_not_tell_is_not_guessed():
    assert peak_memory(lambda: None, torch.device("meta")) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_memory_of_a_scripted_network_is_counted_too():
    net = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(100, 100)))
    assert peak_memory(lambda: net(torch.zeros(1000, 10, 10)), CPU) >= 800_000


@pytest.mark.parametrize("repeats", [0, 1.5, True])
def test_repeats_is_a_count(repeats):
    with pytest.raises(sw.UsageError, match="repeats"):
        cost("gradient", repeats=repeats)

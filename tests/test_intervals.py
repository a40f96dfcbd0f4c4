"""Intervals over runs and images: runs that differ widen them, runs that agree do not."""

import math

import pytest
import torch

from seewhy.intervals import crossed_interval, interval


def values(runs, n, seed=0):
    return torch.rand(runs, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_run_has_the_interval_of_its_images():
    one = values(1, 200)
    found, plain = crossed_interval(one), interval(one[0])
    assert found.value == pytest.approx(plain.value)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert (found.n, found.clusters) == (200, 200)


def test_runs_that_agree_add_nothing_and_runs_that_differ_widen_it():
    same = values(1, 200).expand(5, 200)
    apart = same + torch.tensor([-0.4, -0.2, 0.0, 0.2, 0.4])[:, None]
    one, narrow, wide = (crossed_interval(some) for some in (same[:1], same, apart))
    assert narrow.high - narrow.low == pytest.approx(one.high - one.low, rel=0.05)
    spread = 0.4 * math.sqrt(0.5) / math.sqrt(5)  # standard error of the mean over these five runs, as resampled
    images = (narrow.high - narrow.low) / 3.92
    assert (wide.high - wide.low) / 3.92 == pytest.approx(math.hypot(images, spread), rel=0.1)


def test_images_without_a_number_are_left_out_and_counted():
    some = values(3, 10)
    some[1, 4] = torch.nan
    found = crossed_interval(some)
    assert found.n == 9
    assert found.value == pytest.approx(float(some[:, [0, 1, 2, 3, 5, 6, 7, 8, 9]].mean()))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_interval(n):
    found = crossed_interval(values(3, n))
    assert found.n == n
    assert math.isnan(found.low)
    assert math.isnan(found.value) == (n == 0)

"""A path method takes the nodes again that it chose: on the same network the same map, on another one no search."""

import pytest
import torch

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.maps import same_steps
from seewhy.target import PREDICTED

CASES = [
    ("integrated_gradients", {"tolerance": 1e-3, "max_rows": 130}),
    ("integrated_gradients", {"tolerance": 1e-3, "max_rows": 130, "baseline": ["black", "white"]}),
    ("blur_integrated_gradients", {"tolerance": 1e-3, "max_rows": 130}),
]


@pytest.mark.parametrize(("method", "params"), CASES)
def test_the_same_nodes_give_the_same_sums(method, params):
    model, x, maps = sw.wrap(tiny_cnn(), size=32, batch_size=3), images(2), sw.bind(method, **params)
    found = maps(model, x, PREDICTED)
    chosen = found.chosen["intervals"]
    assert len(chosen) == 2
    assert len({n for row in chosen for n in row}) > 1  # panels differ, so their shared ends have two weights
    again = same_steps(maps, found)(model, x, PREDICTED)
    assert torch.allclose(again.raw, found.raw, rtol=1e-4, atol=1e-5 * float(found.raw.abs().max()))
    assert torch.equal(again.evidence["gradient_rows"], found.evidence["gradient_rows"])
    assert torch.allclose(again.evidence["path_error"], found.evidence["path_error"], rtol=1e-3, atol=1e-6)
    assert again.chosen == found.chosen


def test_another_network_gets_the_same_number_of_rows():
    model, other = (sw.wrap(tiny_cnn(seed=s), size=32) for s in (0, 1))
    maps = sw.bind("integrated_gradients", tolerance=1e-4, max_rows=100)
    found = maps(model, images(2), PREDICTED)
    again = same_steps(maps, found)(other, images(2), PREDICTED)
    assert torch.equal(again.evidence["gradient_rows"], found.evidence["gradient_rows"])


def test_a_fixed_rule_chooses_nothing():
    maps = sw.bind("integrated_gradients", rule="midpoint", steps=4)
    assert not maps(sw.wrap(tiny_cnn(), size=32), images(1), PREDICTED).chosen


@pytest.mark.parametrize(
    ("intervals", "params", "said"),
    [
        ([[8] * 8], {}, "1 rows"),
        ([[8] * 7] * 2, {}, "rows of 8"),
        ([[12] * 8] * 2, {}, "not 12"),
        ([[8] * 8] * 2, {"rule": "right"}, "adaptive rule"),
    ],
)
def test_intervals_that_no_call_can_have_chosen_are_refused(intervals, params, said):
    maps = sw.bind("integrated_gradients", intervals=intervals, **params)
    with pytest.raises(sw.UsageError, match=said):
        maps(sw.wrap(tiny_cnn(), size=32), images(2), PREDICTED)

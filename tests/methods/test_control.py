import itertools
import math

import pytest
import torch
from torch import nn
from twins import sobel

import seewhy as sw
from nets import tiny_cnn


def images(n=3, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_the_edge_map_equals_the_sobel_masks_pixel_by_pixel():
    x = images(2)
    e = sw.explain(tiny_cnn(), x, "edge_map")
    for i in range(2):
        assert torch.allclose(e.raw[i], sobel(x[i].mean(0)), atol=1e-6)


def test_the_edge_map_does_not_know_the_network():
    x = images()
    assert torch.equal(sw.explain(tiny_cnn(seed=1), x, "edge_map").raw, sw.explain(tiny_cnn(seed=2), x, "edge_map").raw)


def test_a_flat_picture_has_no_edges_and_says_so():
    e = sw.explain(tiny_cnn(), torch.full((1, 3, 32, 32), 0.5), "edge_map")
    assert e.status == [sw.Status.CONSTANT]


def test_random_maps_are_uniform_and_independent_between_images_and_seeds():
    x = images(2)
    first, second = sw.explain(tiny_cnn(), x, "random_map").raw, sw.explain(tiny_cnn(), x, "random_map", seed=1).raw
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.15
    assert 0 <= float(first.min()) < 0.01
    assert abs(float(first.mean()) - 0.5) < 0.03


def test_a_random_map_does_not_depend_on_its_neighbors():
    x = images()
    assert torch.equal(
        sw.explain(tiny_cnn(), x, "random_map").raw[1], sw.explain(tiny_cnn(), x[1:2], "random_map").raw[0]
    )


@pytest.mark.parametrize("size", [(32, 32), (8, 20), (9,), (4, 6, 8)])
def test_the_center_map_is_a_bump_pixel_by_pixel(size):
    e = sw.explain(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * math.prod(size), 3)), torch.rand(2, 3, *size), "center_map"
    )
    for place in itertools.product(*[(0, length // 2, length - 1) for length in size]):
        distance = sum(((p - (length - 1) / 2) / (length / 4)) ** 2 for p, length in zip(place, size, strict=True))
        assert float(e.raw[1][place]) == pytest.approx(math.exp(-distance / 2), rel=1e-5)
    assert torch.equal(e.raw[0], e.raw[1])

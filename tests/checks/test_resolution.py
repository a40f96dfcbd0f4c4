"""Resolution: the size of a cell in pixels, and of the objects in cells."""

import pytest
import torch

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.target import PREDICTED

MODEL = sw.wrap(tiny_cnn(), size=32)  # its last layer has 8 x 8 cells of 4 x 4 pixels


def resolution(n=2, size=(32, 32), method="grad_cam", **keywords):
    return sw.checks.resolution(MODEL, images(n, size=size), PREDICTED, sw.bind(method), **keywords)


def test_a_cell_covers_what_the_grid_says_and_without_objects_there_is_no_verdict():
    found = resolution(size=(32, 48))
    assert found.details["grid"] == [8, 12]
    assert found["pixels_per_cell"].interval.value == 16
    assert "4 x 4 pixels (a grid of 8 x 12)" in found.sentence
    assert found.verdict == "no verdict"


def test_a_map_of_pixels_has_cells_of_one_pixel():
    assert resolution(method="gradient")["pixels_per_cell"].interval.value == 1


def test_objects_are_measured_in_cells_along_their_shorter_side():
    found = resolution(boxes=[[[0, 0, 8, 6], [0, 0, 20, 2]], [[4, 4, 8, 20]]])
    assert found["object_size"].per_image == ((1.5 + 0.5) / 2, 1)
    assert found["at_least_one_cell"].per_image == (0.5, 1)
    assert found["at_least_two_cells"].per_image == (0, 0)
    assert found.verdict == "unclear"
    assert "2 of 3 marked objects are at least that large, 0 twice" in found.sentence


def test_rows_are_measured_by_the_height_of_a_cell():
    found = sw.checks.resolution(
        sw.wrap(tiny_cnn(), size=32), images(1), PREDICTED, lambda m, x, t: _flat(x), boxes=[[[0, 0, 4, 16]]]
    )
    assert found.details["cell"] == [16, 2]
    assert found["object_size"].per_image == (1,)


def _flat(x):
    from seewhy.maps import Maps

    return Maps(torch.rand(len(x), 2, 16), PREDICTED, torch.zeros(len(x)), None)


@pytest.mark.parametrize(("side", "verdict"), [(4, "pass"), (3, "fail")])
def test_an_object_smaller_than_a_cell_cannot_be_outlined(side, verdict):
    assert resolution(boxes=[[[0, 0, side, side]]] * 2).verdict == verdict


def test_the_parts_of_a_mask_are_its_objects():
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[0, :8, :8] = mask[0, 20:22, 20:30] = True
    found = resolution(masks=mask)
    assert found.details["objects"]["n"] == 2
    assert found["object_size"].per_image[0] == (2 + 0.5) / 2
    assert found.excluded == {1: "no object is marked"}


def test_it_asks_for_the_maps_that_other_checks_ask_for():
    found = resolution(n=5)
    assert found.gradient_rows == 5


def test_no_object_in_any_image_is_no_verdict():
    assert resolution(boxes=[[], []]).verdict == "no verdict"

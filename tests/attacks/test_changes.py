"""The measures of what an attack changed, against closed forms."""

import math

import pytest
import torch

from seewhy.attacks.changes import centers, compared, drawn, image_scores, shares, top_cells
from seewhy.attacks.region import on_grids
from seewhy.maps import Maps
from seewhy.target import PREDICTED


def maps(raw):
    raw = torch.as_tensor(raw, dtype=torch.float32)
    return Maps(raw, PREDICTED, torch.zeros(len(raw)), None)


def spike(row, column, size=(6, 8), value=1.0):
    raw = torch.full((1, *size), 1e-6)
    raw[0, row, column] = value
    return raw


def test_what_is_drawn_of_a_map_is_its_magnitude_its_positive_part_or_itself():
    raw = torch.tensor([[-1.0, 3.0]])
    assert drawn(raw, "absolute").tolist() == [[1, 3]]
    assert drawn(raw, "positive").tolist() == [[0, 3]]
    assert shares(raw, "signed").tolist() == [[-0.25, 0.75]]
    assert shares(torch.zeros(1, 2), "absolute").tolist() == [[0, 0]]


def test_a_spike_is_its_own_center_in_pixels_of_the_input():
    assert torch.allclose(centers(spike(1, 2), (6, 8)), torch.tensor([[1.5, 2.5]]), atol=1e-3)
    assert torch.allclose(centers(-spike(1, 2), (60, 80)), torch.tensor([[15.0, 25.0]]), atol=1e-2)
    assert centers(torch.zeros(1, 2, 2), (4, 4)).isnan().all()


def test_of_a_moved_spike_the_distance_is_known_and_no_strong_cell_is_left():
    found = compared(maps(spike(1, 2)), maps(spike(4, 6)), (6, 8), "absolute", 1 / 48)
    assert float(found["center_shift"]) == pytest.approx(5, abs=1e-3)
    assert float(found["top_k_intersection"]) == 0
    assert float(found["pearson"]) == pytest.approx(-1 / 47, abs=1e-4)
    assert float(found["mse"]) == pytest.approx(2 * 48, rel=1e-2)


def test_the_same_map_times_a_number_has_not_moved():
    raw = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
    found = compared(maps(raw), maps(3 * raw), (12, 16), "absolute", 0.1, raw)
    for name in ("spearman", "pearson", "ssim", "top_k_intersection", "pearson_to_target"):
        assert found[name].tolist() == pytest.approx([1, 1])
    for name in ("center_shift", "mse"):
        assert found[name].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_a_map_that_cannot_be_scored_has_no_number():
    raw = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
    gone = raw.clone()
    gone[1] = 0
    found = compared(maps(raw), maps(gone), (6, 8), "absolute", 0.1)
    assert all(math.isnan(values[1]) and not math.isnan(values[0]) for values in found.values())


def test_half_of_the_strong_cells_are_common():
    a, b = torch.tensor([[[4.0, 3, 0, 0]]]), torch.tensor([[[4.0, 0, 3, 0]]])
    assert top_cells(a, 0.5).tolist() == [[True, True, False, False]]
    assert float(compared(maps(a), maps(b), (1, 4), "absolute", 0.5)["top_k_intersection"]) == 0.5


def test_an_even_change_of_a_tenth_is_20_decibel():
    before = torch.full((1, 3, 8, 8), 0.5)
    largest, norm, alike, psnr = image_scores(before, before + 0.1)
    assert largest.interval.value == pytest.approx(0.1)
    assert norm.interval.value == pytest.approx(0.1 * math.sqrt(192))
    assert alike.interval.value == pytest.approx((2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4), rel=1e-6)
    assert psnr.interval.value == pytest.approx(20, rel=1e-5)


def test_a_mask_on_a_coarser_grid_is_how_much_of_each_cell_it_covers():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, :3] = True
    assert on_grids(mask, (2, 2)).tolist() == [[[1, 0.5], [0, 0]]]
    assert torch.equal(on_grids(mask, (4, 4)), mask.float())

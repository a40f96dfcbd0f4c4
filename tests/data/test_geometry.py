import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from zoo import cat

from seewhy.data.geometry import Geometry, frame, resize
from seewhy.data.images import read_photo, to_input

SIZES = [(451, 300), (300, 451), (256, 256), (224, 224), (641, 479), (97, 333), (57, 58), (1023, 401)]


@pytest.mark.parametrize("photo_size", SIZES)
@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (160, 1.0), (288, 0.95)])
def test_the_crop_is_that_of_torchvision_and_timm(photo_size, size, crop):
    photo = cat(photo_size)
    shown, _ = to_input(read_photo(photo), (size, size), crop, "bicubic")
    theirs = transforms.Compose(
        [
            transforms.Resize(int(size / crop), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
        ]
    )(photo)
    assert np.abs(shown - np.asarray(theirs).transpose(2, 0, 1) / 255).max() <= 1.001 / 255


def test_a_crop_that_is_not_square_keeps_its_shape_inside_the_photo():
    geometry = frame((300, 400), (64, 128), 1.0)
    assert geometry.box == pytest.approx((50, 0, 250, 400))
    shown, _ = to_input(read_photo(cat((400, 300))), (64, 128), 1.0, "bilinear")
    assert shown.shape == (3, 64, 128)


@settings(deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    h=st.integers(1, 400),
    w=st.integers(1, 400),
    crop=st.floats(0.3, 1),
)
def test_the_box_always_lies_in_the_photo_and_scales_both_axes_alike(height, width, h, w, crop):
    g = frame((height, width), (h, w), crop)
    top, left, bottom, right = g.box
    assert -1e-6 <= top < bottom <= height + 1e-6
    assert -1e-6 <= left < right <= width + 1e-6
    assert 0 < g.seen_fraction <= 1 + 1e-9


def test_a_point_goes_to_the_photo_and_its_map_with_it():
    photo = Image.new("L", (640, 480))
    photo.paste(255, (400, 100, 420, 120))
    shown, geometry = to_input(read_photo(photo), (96, 96), 0.875, "bilinear", channels=1)
    row, column = np.unravel_index(shown[0].argmax(), shown[0].shape)
    y, x = geometry.to_photo(row + 0.5, column + 0.5)
    assert 100 <= y <= 120
    assert 400 <= x <= 420
    placed, seen = geometry.place(torch.from_numpy(shown[0]))
    y, x = np.unravel_index(placed.numpy().argmax(), placed.shape)
    assert 98 <= y <= 122
    assert 398 <= x <= 422
    assert not seen[:, :50].any()
    assert seen[240, 320]
    assert float(placed[~seen].abs().sum()) == 0
    assert abs(float(seen.float().mean()) - geometry.seen_fraction) < 0.01


def test_a_record_of_a_geometry_gives_it_back():
    g = frame((123, 77), (224, 224), 0.875)
    assert Geometry.from_dict(g.to_dict()) == g


def test_resizing_is_half_pixel_and_adds_no_extremes():
    ramp = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 8)
    big = resize(ramp, (32, 32))
    assert torch.allclose(big[0, 2:-2, 0], (torch.arange(2.0, 30.0) + 0.5) / 4 - 0.5)
    assert float(big.max()) == 7
    assert float(big.min()) == 0
    assert torch.allclose(resize(torch.full((2, 3, 5), 4.0), (30, 50)), torch.full((2, 30, 50), 4.0))


def test_a_peak_stays_at_its_row_and_column():
    cells = torch.zeros(1, 8, 12)
    cells[0, 1, 10] = 1
    big = resize(cells, (64, 96))[0]
    row, column = divmod(int(big.argmax()), 96)
    assert 8 <= row < 16
    assert 80 <= column < 88


@pytest.mark.parametrize("shape", [(9,), (6, 7), (3, 4, 5)])
def test_one_two_and_three_axes_are_resized(shape):
    doubled = tuple(2 * n for n in shape)
    assert resize(torch.rand(2, *shape), doubled).shape == (2, *doubled)

"""From a photo to the input and back, for every framing: points, peaks, and what was never seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from seewhy.data.geometry import Geometry, frame
from seewhy.data.images import read_photo, to_input

FRAMINGS = ("crop", "stretch", "pad")
SIDES = st.integers(1, 900)
SIZES = st.tuples(st.integers(1, 120), st.integers(1, 120))
SHARES = st.floats(0.4, 1)
PHOTOS = [(300, 451), (451, 300), (333, 97), (64, 64), (31, 33), (1200, 1601)]
INPUTS = [(64, 64), (48, 96), (97, 33)]


@pytest.mark.parametrize(
    ("photo", "size", "crop", "framing", "box"),
    [
        ((100, 200), (50, 50), 1.0, "crop", (0, 50, 100, 150)),
        ((100, 200), (50, 50), 1.0, "stretch", (0, 0, 100, 200)),
        ((100, 200), (50, 50), 1.0, "pad", (-48, 0, 152, 200)),
        ((200, 100), (50, 50), 1.0, "pad", (0, -48, 200, 152)),
        ((100, 200), (50, 100), 1.0, "pad", (0, 0, 100, 200)),
        ((128, 128), (56, 56), 0.875, "stretch", (8, 8, 120, 120)),
        ((128, 256), (56, 112), 0.875, "stretch", (8, 16, 120, 240)),
        ((64, 128), (112, 112), 0.875, "pad", (-24, 8, 88, 120)),
    ],
)
def test_the_box_of_every_framing(photo, size, crop, framing, box):
    g = frame(photo, size, crop, framing)
    assert g.box == pytest.approx(box)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 64, 64), (3, 48, 96)], ids=str)
@pytest.mark.parametrize(("framing", "mode"), [("stretch", "squash"), ("pad", "border")])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_stretch_and_pad_are_timms_squash_and_border(framing, mode, crop, size, interpolation):
    noise = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((131, 90)).resize((262, 180))
    for photo in (picture, picture.transpose(Image.Transpose.ROTATE_90), picture.resize((40, 41))):
        theirs = create_transform(
            size, interpolation=interpolation, mean=(0.5,) * 3, std=(1,) * 3, crop_pct=crop, crop_mode=mode
        )(photo)
        ours, _ = to_input(read_photo(photo), size[1:], crop, interpolation, 3, framing, 128 / 255)
        assert np.abs(ours - 0.5 - theirs.numpy()).max() <= 1.001 / 255


@settings(deadline=None, max_examples=200)
@given(SIDES, SIDES, SIZES, SHARES, st.sampled_from(FRAMINGS), st.floats(-0.2, 1.2), st.floats(-0.2, 1.2))
def test_to_input_is_the_inverse_of_to_photo(height, width, size, crop, framing, row, column):
    g = frame((height, width), size, crop, framing)
    point = (row * size[0], column * size[1])
    assert g.to_input(*g.to_photo(*point)) == pytest.approx(point, abs=1e-6 * (1 + max(size)))
    place = (row * height, column * width)
    assert g.to_photo(*g.to_input(*place)) == pytest.approx(place, abs=1e-6 * (1 + max(height, width)))


@settings(deadline=None, max_examples=200)
@given(SIDES, SIDES, SIZES, SHARES)
def test_what_each_framing_promises(height, width, size, crop):
    boxes = {framing: frame((height, width), size, crop, framing) for framing in FRAMINGS}
    whole = {framing: frame((height, width), size, 1.0, framing) for framing in FRAMINGS}
    slack = (height / size[0], width / size[1])  # rounding to whole pixels of the input, on each axis
    assert whole["stretch"].box == pytest.approx((0, 0, height, width))
    for framing, g in boxes.items():
        top, left, bottom, right = g.box
        assert abs(top + bottom - height) <= 1.01 * (bottom - top) / size[0]
        assert abs(left + right - width) <= 1.01 * (right - left) / size[1]
        assert 0 < g.seen_fraction <= 1 + 1e-9
        assert 0 < whole[framing].seen_fraction <= 1 + 1e-9
    top, left, bottom, right = whole["pad"].box
    assert top <= 1e-6 * slack[0]
    assert left <= 1e-6 * slack[1]
    assert bottom >= height * (1 - 1e-9)
    assert right >= width * (1 - 1e-9)
    top, left, bottom, right = whole["crop"].box
    assert min(top, left) >= -1e-6
    assert bottom <= height * (1 + 1e-9)
    assert right <= width * (1 + 1e-9)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", INPUTS, ids=str)
@pytest.mark.parametrize("photo", PHOTOS, ids=str)
def test_a_peak_at_an_input_pixel_lands_on_the_photo_pixel_behind_it(photo, size, framing):
    g = frame(photo, size, 0.9, framing)
    for row, column in [(0.5, 0.5), (0.42, 0.58), (0.55, 0.44)]:  # of what is both in the photo and in the input
        first, last = (np.clip(g.to_input(*corner), 0, size) for corner in ((0, 0), photo))
        peak = (int(first[0] + row * (last[0] - first[0])), int(first[1] + column * (last[1] - first[1])))
        values = torch.zeros(size)
        values[peak] = 1
        placed, seen = g.place(values)
        y, x = divmod(int(placed.argmax()), photo[1])
        back = g.to_input(y + 0.5, x + 0.5)
        reach = [max(0.5, 0.5 * g.size[i] / (g.box[i + 2] - g.box[i])) + 1e-9 for i in (0, 1)]
        assert placed.shape == seen.shape == photo
        assert abs(back[0] - peak[0] - 0.5) <= reach[0]
        assert abs(back[1] - peak[1] - 0.5) <= reach[1]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("photo", PHOTOS, ids=str)
def test_a_ramp_over_the_input_is_a_ramp_over_the_photo_to_half_a_pixel(photo, framing):
    g = frame(photo, (60, 80), 0.9, framing)
    rows = (torch.arange(60.0) + 0.5)[:, None].expand(60, 80).double()
    placed, seen = g.place(rows)
    y, x = np.argwhere(seen.numpy()).T
    wanted = (y + 0.5 - g.box[0]) * 60 / (g.box[2] - g.box[0])
    first, last = g.to_input(0, 0)[0], g.to_input(photo[0], 0)[0]  # of the input's rows, those that show the photo
    inner = (wanted > max(first, 0) + 2) & (wanted < min(last, 60) - 2)
    reach = max(1.0, 60 / (g.box[2] - g.box[0]))
    inner &= (wanted > max(first, 0) + reach) & (wanted < min(last, 60) - reach)
    assert inner.any()
    assert np.abs(placed.numpy()[y, x] - wanted)[inner].max() < (1e-9 if reach == 1 else 0.3 * reach)


def test_padding_says_nothing_of_the_photo():
    g = frame((100, 200), (64, 64), 1.0, "pad")
    values = torch.full((64, 64), 7.0)
    first, last = (round(g.to_input(y, 0)[0]) for y in (0, 100))
    assert (first, last) == (16, 48)
    values[first:last] = 1
    placed, seen = g.place(values)
    assert seen.all()
    assert torch.allclose(placed, torch.ones(100, 200))
    assert g.seen_fraction == 1


def test_the_borders_have_the_gray_that_was_asked_for():
    photo = read_photo(Image.new("RGB", (200, 100), (255, 0, 0)))
    shown, _ = to_input(photo, (64, 64), 1.0, "bicubic", 3, "pad", 0.5)
    assert np.allclose(shown[:, :16], 128 / 255)
    assert np.allclose(shown[:, 48:], 128 / 255)
    assert np.allclose(shown[0, 16:48], 1)
    assert np.allclose(shown[1:, 16:48], 0)
    deep = read_photo(Image.fromarray(np.full((100, 200), 65535, np.uint16)))
    shown, _ = to_input(deep, (64, 64), 1.0, "bicubic", 3, "pad", 0.25)
    assert np.allclose(shown[:, :16], 0.25)
    assert np.allclose(shown[:, 16:48], 1)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mark_in_a_turned_photo_comes_back_to_its_upright_place(tmp_path, framing, orientation):
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[50:60, 110:122] = 255
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation)
    exif, image = Image.Exif(), Image.fromarray(picture)
    exif[0x0112] = orientation
    (image.transpose(turn) if turn else image).save(tmp_path / "a.png", exif=exif)
    shown, g = to_input(read_photo(tmp_path / "a.png"), (72, 64), 0.9, "bilinear", 3, framing)
    placed, _ = g.place(torch.from_numpy(shown[0]))
    mass = placed.numpy() / placed.numpy().sum()
    y, x = (mass.sum(1) * (np.arange(120) + 0.5)).sum(), (mass.sum(0) * (np.arange(200) + 0.5)).sum()
    assert (g.photo, (y, x)) == ((120, 200), pytest.approx((55, 116), abs=0.7))


@pytest.mark.parametrize("photo", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_smallest_and_the_longest_photos_have_a_way_back(photo, framing):
    shown, g = to_input(read_photo(Image.new("L", photo[::-1], 255)), (32, 48), 0.9, "bicubic", 1, framing)
    placed, seen = g.place(torch.ones(32, 48))
    assert shown.shape == (1, 32, 48)
    assert placed.shape == photo
    assert seen.any() or framing == "crop"  # a crop thinner than a pixel may hold no pixel's center
    assert torch.allclose(placed[seen], torch.tensor(1.0))


def test_a_photo_of_twenty_megapixels_has_a_way_back_in_time_and_memory():
    g = frame((4000, 5000), (224, 224), 0.875, "crop")
    values = torch.zeros(224, 224)
    values[100, 130] = 1
    placed, seen = g.place(values)
    y, x = divmod(int(placed.argmax()), 5000)
    assert g.to_input(y + 0.5, x + 0.5) == pytest.approx((100.5, 130.5), abs=0.05)
    assert float(seen.float().mean()) == pytest.approx(g.seen_fraction, abs=1e-3)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_cells_behind_a_photos_pixels_are_those_of_the_grid(framing):
    g = frame((90, 200), (56, 56), 0.9, framing)
    rows, columns = g.cells((7, 4))
    for axis, (cells, count) in enumerate(((rows, 7), (columns, 4))):
        centers = np.arange(g.photo[axis]) + 0.5
        inside = (centers - g.box[axis]) / (g.box[axis + 2] - g.box[axis])
        wanted = np.where((inside >= 0) & (inside < 1), np.floor(inside * count), -1)
        assert np.array_equal(cells, wanted)


def test_a_record_from_before_there_was_padding_is_read():
    old = {"photo": [300, 451], "box": [18.75, 93.95833333333334, 281.25, 357.0416666666667], "size": [224, 224]}
    g = Geometry.from_dict(old)
    assert g == frame((300, 451), (224, 224), 0.875)
    assert g.to_dict() == old
    padded = frame((30, 40), (20, 20), 1.0, "pad")
    assert Geometry.from_dict(padded.to_dict()) == padded

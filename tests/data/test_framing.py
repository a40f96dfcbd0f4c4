from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import data_dir
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from seewhy.data.geometry import Geometry, frame, resize
from seewhy.data.images import read_photo, to_input

PHOTOS = [  # width, height
    (451, 300),
    (300, 451),
    (333, 500),
    (500, 333),
    (1001, 97),
    (97, 1001),
    (256, 256),
    (257, 256),
    (256, 257),
    (224, 224),
    (33, 33),
    (17, 50),
    (3, 2),
    (1, 1),
]
INPUTS = [(224, 0.875), (224, 1.0), (160, 0.95), (299, 0.875), (225, 0.9)]


def torchvision_input(image: Image.Image, size: int, crop: float) -> np.ndarray:
    transform = Compose([Resize(int(size / crop), InterpolationMode.BICUBIC), CenterCrop(size)])
    return np.asarray(transform(image)).transpose(2, 0, 1) / 255


def is_same_picture(ours: np.ndarray, theirs: np.ndarray) -> bool:
    off = np.rint(np.abs(ours - theirs) * 255)  # Pillow keeps a box in float32: a rare pixel may round the other way
    return off.max() <= 2 and (off > 1).mean() < 1e-3 and (off > 0).mean() < 0.01


@pytest.mark.parametrize("photo", PHOTOS, ids=str)
def test_to_input_equals_torchvision_resize_and_center_crop(photo):
    with Image.open(f"{data_dir}/chelsea.png") as image:
        image = image.convert("RGB").resize(photo)
    for size, crop in INPUTS:
        shown, _ = to_input(read_photo(image), (size, size), crop, "bicubic")
        assert shown.dtype == np.float32
        assert is_same_picture(shown, torchvision_input(image, size, crop)), (size, crop)


@pytest.mark.parametrize("photo", [(300, 200), (200, 300), (301, 199), (225, 224)], ids=str)
def test_to_input_equals_torchvision_on_hard_edges_too(photo):
    noise = np.random.default_rng(0).integers(0, 2, (photo[1], photo[0], 3)).astype(np.uint8) * 255
    shown, _ = to_input(read_photo(Image.fromarray(noise)), (224, 224), 0.875, "bicubic")
    assert is_same_picture(shown, torchvision_input(Image.fromarray(noise), 224, 0.875))


def test_the_shown_part_is_exactly_the_center_when_nothing_is_scaled():
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    shown, geometry = to_input(read_photo(Image.fromarray(values)), (32, 48), 0.8, "bicubic")
    assert geometry.box == (4, 6, 36, 54)
    assert np.array_equal(np.rint(shown * 255).transpose(1, 2, 0), values[4:36, 6:54])


@pytest.mark.parametrize(
    ("photo", "size", "crop", "box"),
    [
        ((256, 256), (224, 224), 0.875, (16, 16, 240, 240)),
        ((512, 1024), (224, 224), 0.875, (32, 288, 480, 736)),
        ((1024, 512), (224, 224), 0.875, (288, 32, 736, 480)),
        ((100, 200), (50, 100), 1.0, (0, 0, 100, 200)),
        ((100, 100), (50, 100), 1.0, (25, 0, 75, 100)),  # a wide input cuts a square photo's top and bottom
        ((100, 100), (100, 50), 1.0, (0, 25, 100, 75)),  # a tall one its sides
    ],
)
def test_the_box_that_the_model_sees(photo, size, crop, box):
    geometry = frame(photo, size, crop)
    assert geometry.box == pytest.approx(box)
    share = (box[2] - box[0]) * (box[3] - box[1]) / (photo[0] * photo[1])
    assert geometry.seen_fraction == pytest.approx(share)


@pytest.mark.parametrize("crop", [1.0, 0.9, 0.875])
@pytest.mark.parametrize("size", [(224, 224), (64, 96), (96, 64), (7, 1), (33, 200)])
def test_the_box_lies_at_the_center_of_the_photo(size, crop):
    for photo in product((1, 2, 31, 97, 500, 20000), (1, 3, 64, 333, 20000)):
        top, left, bottom, right = frame(photo, size, crop).box
        assert abs(top + bottom - photo[0]) <= 1.01 * (bottom - top) / size[0]
        assert abs(left + right - photo[1]) <= 1.01 * (right - left) / size[1]


def test_to_photo_sends_corners_and_center_to_those_of_the_box():
    geometry = Geometry((100, 400), (10, 100, 90, 260), (8, 16))
    assert geometry.to_photo(0, 0) == (10, 100)
    assert geometry.to_photo(8, 16) == (90, 260)
    assert geometry.to_photo(4, 8) == (50, 180)
    assert geometry.to_photo(1, 1) == (20, 110)


def test_place_puts_a_peak_at_its_photo_pixel_and_marks_what_was_not_seen():
    geometry = Geometry((200, 400), (20, 120, 180, 280), (80, 80))  # every input pixel is 2 x 2 photo pixels
    values = torch.zeros(80, 80)
    values[10, 70] = 5
    placed, seen = geometry.place(values)
    row, column = divmod(int(placed.argmax()), 400)
    assert placed.shape == seen.shape == (200, 400)
    assert row in (40, 41)
    assert column in (260, 261)
    expected = torch.zeros(200, 400, dtype=torch.bool)
    expected[20:180, 120:280] = True
    assert torch.equal(seen, expected)
    assert (placed[~seen] == 0).all()


@pytest.mark.parametrize("photo", [(300, 451), (33, 33), (1, 1), (2000, 2), (224, 10)])
def test_place_keeps_a_constant_map_constant_over_all_that_was_seen(photo):
    placed, seen = frame(photo, (32, 32), 0.875).place(torch.full((32, 32), 3.0))
    assert seen.any()
    assert torch.allclose(placed[seen], torch.tensor(3.0))
    assert (placed[~seen] == 0).all()


@pytest.mark.parametrize("length", [24, 25, 32, 40, 56, 57, 300, 451])
def test_a_photo_pixel_is_seen_if_its_center_lies_in_the_box(length):
    geometry = frame((length, length), (224, 224), 0.875)
    _, seen = geometry.place(torch.ones(224, 224))
    centers = torch.arange(length) + 0.5
    inside = (centers >= geometry.box[0]) & (centers < geometry.box[2])
    assert torch.equal(seen[length // 2], inside)
    assert torch.equal(seen[:, length // 2], inside)


@pytest.mark.parametrize("peak", [(8, 8), (9, 10), (11, 11), (40, 22)])
def test_a_peak_is_not_lost_in_a_photo_smaller_than_the_input(peak):
    values = torch.zeros(64, 64)
    values[peak] = 1
    placed, _ = Geometry((16, 16), (0, 0, 16, 16), (64, 64)).place(values)
    assert placed.max() > 0
    assert divmod(int(placed.argmax()), 16) == (peak[0] // 4, peak[1] // 4)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_resize_is_exact_on_a_ramp_with_half_pixel_centers(factor):
    centers = torch.arange(6) + 0.5
    resized = resize((centers[:, None] + 10 * centers[None, :])[None], (6 * factor, 6 * factor))[0]
    fine = (torch.arange(6 * factor) + 0.5) / factor
    inner = slice(factor, -factor)
    assert torch.allclose(resized[inner, inner], (fine[:, None] + 10 * fine[None, :])[inner, inner], atol=1e-4)


def test_resize_does_not_shift_a_peak_of_a_64_by_96_map():
    grid = torch.zeros(1, 8, 12)
    grid[0, 2, 9] = 1
    mass = resize(grid, (64, 96))[0] / resize(grid, (64, 96))[0].sum()
    assert float((mass.sum(1) * (torch.arange(64) + 0.5)).sum()) == pytest.approx(20, abs=1e-3)
    assert float((mass.sum(0) * (torch.arange(96) + 0.5)).sum()) == pytest.approx(76, abs=1e-3)


def test_a_mark_in_the_photo_lands_where_to_photo_says():
    for photo, size, crop in [((300, 200), (64, 64), 0.875), ((200, 301), (64, 96), 0.9), ((120, 120), (96, 64), 1.0)]:
        picture = np.zeros((*photo, 3), dtype=np.uint8)
        center = (int(photo[0] * 0.45), int(photo[1] * 0.55))
        picture[center[0] - 4 : center[0] + 4, center[1] - 4 : center[1] + 4] = 255
        shown, geometry = to_input(read_photo(Image.fromarray(picture)), size, crop, "bicubic")
        mass = shown[0] / shown[0].sum()
        row = float((mass.sum(1) * (np.arange(size[0]) + 0.5)).sum())
        column = float((mass.sum(0) * (np.arange(size[1]) + 0.5)).sum())
        assert geometry.to_photo(row, column) == pytest.approx(center, abs=0.6)

import numpy as np
import pytest
from PIL import Image, ImageDraw

from seewhy import draw
from seewhy.errors import UsageError


def grid(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def brightness(colors: np.ndarray) -> np.ndarray:
    return colors.astype(float) @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("picture", ["positive", "magnitude"])
def test_large_is_bright_all_the_way(picture):
    ramp = np.linspace(0, 1, 60, dtype=np.float32)[None]
    light = brightness(draw.heatmap(ramp, picture))[0]
    assert (np.diff(light) >= 0).all()
    assert light[0] < 20
    assert light[-1] > 230


def test_negative_is_as_dark_as_zero_in_a_positive_picture():
    colors = draw.heatmap(np.array([[-5, -1, 0, 5]], dtype=np.float32), "positive")
    assert (colors[0, :3] == colors[0, 2]).all()


def test_negative_is_as_bright_as_positive_in_a_magnitude_picture():
    colors = draw.heatmap(np.array([[-3, 3, 0]], dtype=np.float32), "magnitude")
    assert (colors[0, 0] == colors[0, 1]).all()
    assert brightness(colors)[0, 2] < brightness(colors)[0, 0]


def test_red_speaks_for_blue_against_and_zero_is_pale():
    against, nothing, for_it = draw.heatmap(np.array([[-2, 0, 2]], dtype=np.float32), "signed")[0].astype(int)
    assert for_it[0] > 2 * for_it[2]  # RGB: red first
    assert against[2] > 2 * against[0]
    assert nothing.min() > 230
    assert np.ptp(nothing) <= 5


def test_a_stronger_sign_is_a_stronger_color():
    colors = draw.heatmap(np.array([[0.2, 0.6, 1, -0.2, -0.6, -1]], dtype=np.float32), "signed")[0].astype(int)
    redness, blueness = colors[:3, 0] - colors[:3, 2], colors[3:, 2] - colors[3:, 0]
    assert (np.diff(redness) > 0).all()
    assert (np.diff(blueness) > 0).all()


@pytest.mark.parametrize("picture", ["positive", "magnitude", "signed"])
@pytest.mark.parametrize("factor", [1e-30, 1e-9, 100, 1e30])
def test_a_picture_does_not_depend_on_the_size_of_the_numbers(picture, factor):
    raw = grid(7, 9)
    scaled = (raw * np.float32(factor)).astype(np.float32)
    assert np.abs(draw.heatmap(scaled, picture).astype(int) - draw.heatmap(raw, picture)).max() <= 3


@pytest.mark.parametrize("picture", ["positive", "magnitude", "signed"])
def test_a_map_of_zeros_is_drawn_flat_in_the_color_of_zero(picture):
    zero = draw.heatmap(np.zeros((3, 4), dtype=np.float32), picture)
    probe = draw.heatmap(np.array([[0, 1]], dtype=np.float32), picture)
    assert (zero == probe[0, 0]).all()


def test_a_shared_limit_makes_two_maps_comparable():
    weak, strong = np.array([[0.1, 0.0]], dtype=np.float32), np.array([[1.0, 0.1]], dtype=np.float32)
    limit = max(draw.limit_of(weak, "signed"), draw.limit_of(strong, "signed"))
    assert (draw.heatmap(weak, "positive", limit)[0, 0] == draw.heatmap(strong, "positive", limit)[0, 1]).all()
    assert (draw.heatmap(weak, "positive")[0, 0] != draw.heatmap(weak, "positive", limit)[0, 0]).any()


def test_values_beyond_the_limit_keep_the_end_color():
    colors = draw.heatmap(np.array([[1, 7, -7, -1]], dtype=np.float32), "signed", limit=1.0)[0]
    assert (colors[0] == colors[1]).all()
    assert (colors[2] == colors[3]).all()


def test_the_colors_of_a_coarse_map_end_at_its_largest_magnitude():
    raw = grid(7, 7)
    raw[3, 3] = -50
    assert draw.limit_of(raw, "signed") == 50
    assert draw.limit_of(grid(64, 64), "signed") == np.abs(grid(64, 64)).max()


def test_the_colors_of_a_fine_map_are_not_ruled_by_one_pixel():
    raw = np.ones((100, 100), dtype=np.float32)
    raw[0, 0] = 1e6
    assert draw.limit_of(raw, "signed") == 1


def test_a_fine_map_with_a_single_pixel_still_shows_it():
    raw = np.zeros((100, 100), dtype=np.float32)
    raw[20, 80] = 3
    assert draw.limit_of(raw, "signed") == 3
    light = brightness(draw.heatmap(raw, "positive"))
    assert divmod(int(light.argmax()), 100) == (20, 80)


def test_a_7_by_7_map_is_drawn_as_the_cells_that_it_has():
    raw = grid(7, 7)
    cells = draw.heatmap(raw, "signed")
    large = draw.enlarge(cells, (224, 224))
    assert large.shape == (224, 224, 3)
    for row in range(7):
        for column in range(7):
            block = large[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert (block == cells[row, column]).all()


def test_a_peak_of_a_64_by_96_map_is_drawn_at_its_row_and_column():
    raw = np.zeros((64, 96), dtype=np.float32)
    raw[10, 80] = 1
    photo = np.full((128, 192, 3), 90, dtype=np.uint8)
    light = brightness(draw.overlay(photo, raw, "positive", opacity=1))
    assert light.shape == (128, 192)
    assert set(zip(*np.nonzero(light == light.max()), strict=True)) == {(r, c) for r in (20, 21) for c in (160, 161)}


@pytest.mark.parametrize("picture", ["positive", "magnitude", "signed"])
def test_opacity_zero_is_the_photo_and_opacity_one_the_map(picture):
    photo = np.random.default_rng(1).integers(0, 256, (28, 42, 3), dtype=np.uint8)
    raw = grid(7, 7)
    assert np.array_equal(draw.overlay(photo, raw, picture, opacity=0), photo)
    cells = draw.enlarge(draw.heatmap(raw, picture), (28, 42))
    assert np.array_equal(draw.overlay(photo, raw, picture, opacity=1), cells)
    halfway = draw.overlay(photo, raw, picture, opacity=0.5).astype(float)
    assert np.abs(halfway - (photo.astype(float) + cells) / 2).max() <= 0.5


def test_drawing_changes_neither_the_photo_nor_the_map():
    photo, raw = np.full((8, 8, 3), 7, dtype=np.uint8), grid(4, 4)
    draw.with_color_bar(draw.overlay(photo, raw, "signed"), raw, "signed")
    assert (photo == 7).all()
    assert np.array_equal(raw, grid(4, 4))


@pytest.mark.parametrize("opacity", [-0.01, 1.01, float("nan")])
def test_an_opacity_outside_zero_and_one_is_a_usage_error(opacity):
    with pytest.raises(UsageError, match="opacity is between 0"):
        draw.overlay(np.zeros((8, 8, 3), dtype=np.uint8), grid(4, 4), "signed", opacity=opacity)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_not_drawn(bad):
    raw = grid(4, 4)
    raw[1, 2] = bad
    with pytest.raises(UsageError, match="not finite"):
        draw.heatmap(raw, "signed")
    with pytest.raises(UsageError, match="not finite"):
        draw.overlay(np.zeros((8, 8, 3), dtype=np.uint8), raw, "signed")


@pytest.mark.parametrize("shape", [(4,), (3, 4, 4)])
def test_a_map_that_has_not_two_axes_is_not_drawn(shape):
    with pytest.raises(UsageError, match=f"two axes.*this one has {len(shape)}"):
        draw.heatmap(grid(*shape), "signed")


@pytest.mark.parametrize(
    ("values", "picture", "limit", "expected"),
    [
        ([0, 0.25], "positive", None, ("0", "0.25")),
        ([-0.1, 0.25], "positive", None, ("<= 0", "0.25")),
        ([-4, 0.25], "magnitude", None, ("0", "4")),
        ([-0.1, 0.25], "signed", None, ("-0.25", "0.25")),
        ([-3, 2], "signed", 1.0, ("<= -1", ">= 1")),
        ([-3, 0.5], "signed", 1.0, ("<= -1", "1")),
        ([0, 2], "positive", 1.0, ("0", ">= 1")),
        ([-2, 0], "magnitude", 1.0, ("0", ">= 1")),
        ([0, 1e-9], "positive", None, ("0", "1e-09")),
        ([0, 123456], "positive", None, ("0", "1.23e+05")),
        ([0, 0], "positive", None, ("0", "0")),
    ],
)
def test_the_numbers_at_the_color_bar_are_the_maps_own(values, picture, limit, expected):
    raw = np.array([values], dtype=np.float32)
    assert draw.bar_labels(raw, picture, draw.limit_of(raw, picture) if limit is None else limit) == expected


@pytest.mark.parametrize("picture", ["positive", "magnitude", "signed"])
def test_the_color_at_a_place_of_the_bar_is_the_color_of_its_number(picture):
    raw = np.array([[-2, 2]], dtype=np.float32)
    shown = draw.with_color_bar(np.zeros((20, 300, 3), dtype=np.uint8), raw, picture)
    bar = shown[20 + 6 + 5, 4 : 300 - 4].astype(int)
    low = -2 if picture == "signed" else 0
    numbers = np.linspace(low, 2, len(bar), dtype=np.float32)[None]
    colors = draw.heatmap(numbers, picture, limit=2.0)[0]
    assert np.abs(bar - colors).max() <= 4


def test_the_picture_above_the_color_bar_is_untouched_and_a_narrow_one_keeps_its_size():
    colors = draw.heatmap(grid(40, 50), "signed")
    shown = draw.with_color_bar(colors, grid(40, 50), "signed")
    assert np.array_equal(shown[:40, :50], colors)
    assert shown.shape[0] > 40
    assert shown.shape[1] >= 180


def test_the_numbers_change_the_color_bar_that_is_drawn():
    colors = np.zeros((10, 200, 3), dtype=np.uint8)
    one, two = (draw.with_color_bar(colors, np.array([[v]], dtype=np.float32), "positive") for v in (1, 7))
    assert (one != two).any()


def drawn(text: str) -> bytes:
    canvas = Image.new("L", (24, 24))
    ImageDraw.Draw(canvas).text((2, 2), text, fill=255)
    return canvas.tobytes()


@pytest.mark.parametrize(("raw", "limit"), [([-3, 2], 1.0), ([-0.1, 0.25], None)])
def test_every_character_of_the_color_bar_exists_in_the_font(raw, limit):
    values = np.array([raw], dtype=np.float32)
    end = draw.limit_of(values, "signed") if limit is None else limit
    missing = {
        character
        for picture in ("positive", "magnitude", "signed")
        for character in "".join(draw.bar_labels(values, picture, end))
        if drawn(character) == drawn("\uffff")
    }
    assert not missing, f"drawn as an empty box: {missing}"


def test_a_note_is_readable_on_a_pale_picture_of_the_same_size():
    photo = np.zeros((60, 220, 3), dtype=np.uint8)
    shown = draw.note(photo, "zero gradient: nothing to draw")
    assert shown.shape == photo.shape
    assert np.median(shown) > 150
    assert shown.min() < 60


@pytest.mark.parametrize("picture", ["positive", "magnitude", "signed"])
def test_every_picture_is_8_bit_rgb(picture):
    for colors in (draw.heatmap(grid(3, 5), picture), draw.enlarge(draw.heatmap(grid(3, 5), picture), (9, 10))):
        assert colors.dtype == np.uint8
        assert colors.shape[2] == 3


def test_a_map_with_an_offset_is_drawn_over_its_own_range():
    raw = np.array([[0.5, 0.6], [0.55, 0.7]], dtype=np.float32)
    colors = draw.heatmap(raw, "range")
    assert (colors[0, 0] == draw.heatmap(np.array([[0.0, 1.0]], dtype=np.float32), "positive")[0, 0]).all()
    assert (colors[1, 1] == draw.heatmap(np.array([[0.0, 1.0]], dtype=np.float32), "positive")[0, 1]).all()
    assert draw.bar_labels(raw, "range", 1.0) == ("0.5", "0.7")
    assert not draw.share_of_range(np.ones((2, 2), np.float32)).any()

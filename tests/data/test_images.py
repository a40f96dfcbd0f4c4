import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from zoo import bomb, broken, cat, good

import seewhy as sw
from seewhy.data.images import find_images, read_photo, to_input


def pixels(photo):
    return np.stack([np.asarray(band) for band in photo.bands], axis=-1)


def close(a, b, tolerance=2):
    return np.abs(a.astype(int) - b.astype(int)).max() <= tolerance


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    photo, turn, exif = cat(), TURNS[orientation], Image.Exif()
    exif[0x0112] = orientation
    (photo.transpose(turn) if turn is not None else photo).save(tmp_path / "a.png", exif=exif)
    read = read_photo(tmp_path / "a.png")
    assert np.array_equal(pixels(read), np.asarray(photo))
    assert read.size == (80, 96)
    assert any("upright" in note for note in read.notes) == (orientation != 1)


def test_unreadable_exif_does_not_cost_the_picture(tmp_path, monkeypatch):
    cat().save(tmp_path / "a.jpg")

    def fail(self):
        raise SyntaxError("bad EXIF")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert any("EXIF data unreadable" in note for note in read_photo(tmp_path / "a.jpg").notes)


@pytest.mark.parametrize(
    ("mode", "note"),
    [("RGB", None), ("L", None), ("1", None), ("CMYK", "CMYK"), ("P", "palette"), ("HSV", "HSV"), ("LAB", "LAB")],
)
def test_color_modes_become_rgb_or_gray(mode, note):
    source = (
        cat().quantize(255)
        if mode == "P"
        else cat().convert("RGB").convert(mode)
        if mode != "LAB"
        else Image.new("LAB", (9, 7))
    )
    photo = read_photo(source)
    assert len(photo.bands) == (1 if mode in ("L", "1") else 3)
    assert note is None or any(note in n for n in photo.notes)


def test_a_palette_keeps_its_colors():
    source = cat().quantize(64)
    assert np.array_equal(pixels(read_photo(source)), np.asarray(source.convert("RGB")))


def test_transparency_is_laid_over_white_and_said():
    layer = cat().convert("RGBA")
    alpha = np.zeros((80, 96), np.uint8)
    alpha[:, 48:] = 255
    layer.putalpha(Image.fromarray(alpha))
    photo = read_photo(layer)
    assert (pixels(photo)[:, :48] == 255).all()
    assert np.array_equal(pixels(photo)[:, 48:], np.asarray(cat())[:, 48:])
    assert "transparency laid over white" in photo.notes
    assert read_photo(cat().convert("RGBA")).notes == ()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_keeps_its_range(tmp_path, suffix):
    values = (np.arange(80 * 96).reshape(80, 96) * 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    (band,) = read_photo(tmp_path / f"a.{suffix}").bands
    assert np.allclose(np.asarray(band), values / 65535, atol=1e-6)


def test_float_images_are_taken_from_0_to_1_and_refused_outside():
    (band,) = read_photo(Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))).bands
    assert float(np.asarray(band).max()) == 1
    with pytest.raises(sw.ImageError, match="expected 0 to 1"):
        read_photo(Image.fromarray(np.full((3, 4), 7.0, np.float32)))
    with pytest.raises(sw.ImageError, match="not finite"):
        read_photo(Image.fromarray(np.full((3, 4), np.nan, np.float32)))
    with pytest.raises(sw.ImageError, match="16 bit"):
        read_photo(Image.fromarray(np.full((3, 4), 70_000, np.int32)))


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_frames_is_taken_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert close(pixels(photo)[10, 15], np.array([255, 0, 0]), 6)
    assert "first of 3 frames or pages" in photo.notes


def test_every_broken_file_is_an_image_error_that_names_file_and_cause(tmp_path):
    for name, said in broken(tmp_path).items():
        with pytest.raises(sw.ImageError, match=said) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_a_truncated_file_is_an_image_error_in_every_format(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    cat().save(path)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.8):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(sw.ImageError, match=r"a\."):
            read_photo(path)


def test_a_missing_file_names_a_near_one(tmp_path):
    cat().save(tmp_path / "kitten.png")
    with pytest.raises(sw.ImageError, match=r"Did you mean 'kitten\.png'"):
        read_photo(tmp_path / "kiten.png")
    with pytest.raises(sw.ImageError, match="does not exist either"):
        read_photo(tmp_path / "nowhere" / "kitten.png")


def test_a_bomb_costs_no_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    tracemalloc.start()
    with pytest.raises(sw.ImageError, match="pixels"):
        read_photo(tmp_path / "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"RIFF"]),
    tail=st.binary(max_size=300),
)
def test_random_bytes_never_raise_anything_but_an_image_error(tmp_path, head, tail):
    path = tmp_path / "a.jpg"
    path.write_bytes(head + tail)
    with contextlib.suppress(sw.ImageError):
        assert read_photo(path).size


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0.02, 1), value=st.integers(0, 255), kind=st.sampled_from(["png", "jpg", "gif"]))
def test_one_changed_byte_is_read_or_an_image_error(tmp_path, place, value, kind):
    path = tmp_path / f"a.{kind}"
    cat((24, 18)).save(path)
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] = value
    path.write_bytes(content)
    with contextlib.suppress(sw.ImageError):
        assert min(read_photo(path).size) > 0


@pytest.mark.parametrize("size", [(1, 1), (100_000, 1), (1, 100_000), (20_000, 2), (3, 500)])
def test_extreme_shapes_are_shown_in_time_and_memory(size):
    photo = read_photo(Image.new("RGB", size, (10, 200, 30)))
    shown, geometry = to_input(photo, (224, 224), 0.875, "bicubic")
    assert shown.shape == (3, 224, 224)
    assert np.allclose(shown[:, 112, 112], np.array([10, 200, 30]) / 255)
    assert 0 < geometry.seen_fraction <= 1


def test_a_gray_photo_fills_three_channels_and_a_color_photo_becomes_luminance():
    shown, _ = to_input(read_photo(cat().convert("L")), (32, 32), 1.0, "bilinear")
    assert np.array_equal(shown[0], shown[1])
    one, _ = to_input(read_photo(cat()), (32, 32), 1.0, "bilinear", channels=1)
    assert one.shape == (1, 32, 32)
    assert np.abs(one[0] - shown[0]).max() < 2 / 255


def test_folders_are_searched_at_any_depth_and_by_name(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2.PNG", "a.jpg", "b/1.tiff"):
        cat().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [str(p.relative_to(tmp_path)) for p in find_images([tmp_path])] == ["a.jpg", "b/1.tiff", "b/c/2.PNG"]
    (tmp_path / "none").mkdir()
    with pytest.raises(sw.ImageError, match="without an image"):
        find_images([tmp_path / "none"])


def test_every_good_kind_is_read(tmp_path):
    for name in good(tmp_path):
        assert read_photo(tmp_path / name).size

import hashlib
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from seewhy.data.images import folder_images, read_photo, to_input
from seewhy.errors import ImageError, UsageError

MODES = [
    *("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB"),
    *("HSV", "I", "F", "LA", "La", "PA", "I;16", "I;16L", "I;16B", "I;16N"),
]


def pixels(photo) -> np.ndarray:
    return np.stack([np.asarray(band) for band in photo.bands], axis=-1)


def colors(height: int = 12, width: int = 17, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(colors(90, 120)).save(buffer, kind)
    return buffer.getvalue()


def message(source) -> str:
    with pytest.raises(ImageError) as caught:
        read_photo(source)
    return str(caught.value)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_a_meaningless_exif_orientation_is_taken_as_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(colors()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(read_photo(tmp_path / "a.png")), colors())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_rotated_16_bit_photo_is_upright(tmp_path, suffix):
    values = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(values))).save(tmp_path / f"a.{suffix}", exif=exif)
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert photo.size == (3, 4)
    assert np.allclose(pixels(photo)[..., 0], values / 65535, atol=1e-7)


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("RGB", (16, 16), (250, 10, 20)).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    photo = read_photo(tmp_path / "a.jpg")
    assert np.abs(pixels(photo).astype(int) - (250, 10, 20)).max() <= 6
    assert any("CMYK" in note for note in photo.notes)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 128])], ids=["one-index", "alpha-per-index"])
def test_transparent_palette_entries_are_laid_over_white(tmp_path, transparency):
    indexed = Image.new("P", (3, 1))
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.putdata([0, 1, 2])
    indexed.save(tmp_path / "a.png", transparency=transparency)
    photo = read_photo(tmp_path / "a.png")
    row = pixels(photo)[0].tolist()
    assert row[:2] == [[255, 255, 255], [0, 255, 0]]
    assert row[2] == ([0, 0, 255] if transparency == 0 else [127, 127, 255])
    assert any("white" in note for note in photo.notes)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 51), (244, 204, 204)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("LA", (100, 0), (255, 255, 255)),
        ("LA", (100, 51), (224, 224, 224)),
        ("LA", (100, 255), (100, 100, 100)),
    ],
)
def test_transparency_is_laid_over_white_and_only_then_noted(tmp_path, mode, value, expected):
    Image.new(mode, (4, 3), value).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert np.abs(pixels(photo).astype(int) - expected).max() <= 1
    assert any("white" in note for note in photo.notes) == (value[-1] < 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_keeps_its_full_precision(tmp_path, suffix):
    values = np.array([[0, 1, 255, 256], [300, 32768, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert np.allclose(pixels(photo)[..., 0], values / 65535, rtol=1e-6, atol=0)
    assert any("16-bit" in note for note in photo.notes)


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_a_float_tiff_outside_zero_and_one_is_an_image_error(tmp_path, bad):
    Image.fromarray(np.array([[0, bad]], dtype=np.float32)).save(tmp_path / "a.tif")
    text = message(tmp_path / "a.tif")
    assert "a.tif" in text
    assert "finite" in text or ("float" in text and "0 to 1" in text)


@pytest.mark.parametrize("bad", [-1, 65536])
def test_32_bit_pixels_outside_16_bit_are_an_image_error(tmp_path, bad):
    Image.fromarray(np.array([[0, bad]], dtype=np.int32)).save(tmp_path / "a.tif")
    assert "65535" in message(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gif", "tif", "png"])
def test_only_the_first_frame_is_read_and_the_number_of_frames_noted(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert (pixels(photo) == (255, 0, 0)).all()
    assert any("first of 3" in note for note in photo.notes)


@pytest.mark.parametrize("size", [(20000, 2), (100000, 1), (2, 20000)])
def test_a_very_long_photo_costs_no_more_than_a_square_one(tmp_path, size):
    resource = pytest.importorskip("resource")
    middle = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    middle[max(0, size[1] // 2 - 4) : size[1] // 2 + 4, max(0, size[0] // 2 - 4) : size[0] // 2 + 4] = 255
    Image.fromarray(middle).save(tmp_path / "a.png")
    to_input(read_photo(Image.fromarray(colors())), (224, 224), 0.875, "bicubic")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, before[1]))  # the resized whole would take gigabytes
    try:
        begun = time.perf_counter()
        shown, geometry = to_input(read_photo(tmp_path / "a.png"), (224, 224), 0.875, "bicubic")
        seconds = time.perf_counter() - begun
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert seconds < 1
    assert shown.min() > 0.99  # the white middle, and nothing else, is what the model sees
    assert geometry.seen_fraction < 0.001


def test_the_hash_is_that_of_the_files_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    photo = read_photo(str(tmp_path / "a.png"))
    assert photo.name == str(tmp_path / "a.png")
    assert photo.sha256 == hashlib.sha256(encoded("PNG")).hexdigest()
    assert read_photo(Image.fromarray(colors())).sha256 == ""


def test_reading_leaves_the_users_pillow_image_as_it_was():
    image = Image.fromarray(colors(channels=4))
    read_photo(image)
    assert image.mode == "RGBA"
    assert image.tobytes() == colors(channels=4).tobytes()


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "RGBX",
        "RGBa",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "La",
        "PA",
        "I;16",
        "I;16L",
        "I;16B",
        "I;16N",
    ],
)
def test_every_pillow_mode_is_a_photo_or_an_image_error(mode):
    try:
        photo = read_photo(Image.new(mode, (5, 4)))
    except ImageError:
        return
    assert photo.size == (4, 5)
    assert all(band.mode in ("L", "F") for band in photo.bands)
    assert to_input(photo, (4, 4), 1.0, "bicubic")[0].shape == (3, 4, 4)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "F"])
def test_a_pillow_image_without_pixels_is_an_image_error(mode):
    assert message(Image.new(mode, (0, 4)))


def test_a_truncated_pillow_image_is_an_image_error():
    assert message(Image.open(BytesIO(encoded("JPEG")[:3000])))


def test_a_missing_file_with_nothing_near_suggests_nothing(tmp_path):
    (tmp_path / "kitten.png").write_bytes(b"x")
    text = message(tmp_path / "quux.webp")
    assert "no such file" in text
    assert "kitten" not in text


def test_a_missing_file_in_an_empty_folder_does_not_deny_the_folder(tmp_path):
    text = message(tmp_path / "a.png")
    assert "no such file" in text
    assert "not exist" not in text


@pytest.mark.parametrize("name", ["a\0b.jpg", "a" * 5000 + ".jpg", "", "."], ids=["nul", "long", "empty", "dot"])
def test_a_path_that_cannot_be_opened_is_an_image_error(name):
    assert message(name)


def test_a_png_that_claims_60000_by_60000_is_refused_unread(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    begun = time.perf_counter()
    text = message(tmp_path / "bomb.png")
    assert time.perf_counter() - begun < 1
    assert "too large" in text
    assert "bomb.png" in text


def test_our_own_limit_holds_where_pillows_was_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("seewhy.data.images.MAX_PIXELS", 100)
    Image.new("RGB", (10, 10)).save(tmp_path / "fits.png")
    Image.new("RGB", (10, 11)).save(tmp_path / "over.png")
    assert read_photo(tmp_path / "fits.png").size == (10, 10)
    assert "10 x 11" in message(tmp_path / "over.png")


def test_a_large_but_allowed_photo_brings_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above it, and refuses above twice as many
    Image.new("RGB", (15, 10)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").size == (10, 15)


def test_a_deep_photo_is_not_rounded_to_8_bits_on_the_way(tmp_path):
    gray = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint16)
    Image.fromarray(gray * 257).save(tmp_path / "deep.png")
    deep, _ = to_input(read_photo(tmp_path / "deep.png"), (64, 64), 0.875, "bicubic")
    plain, _ = to_input(read_photo(Image.fromarray(gray.astype(np.uint8))), (64, 64), 0.875, "bicubic")
    assert np.abs(deep - plain).max() < 1.5 / 255
    assert len(np.unique(deep)) > 3 * 256


def test_a_deep_photo_stays_within_zero_and_one_where_bicubic_overshoots():
    edge = np.zeros((8, 8), dtype=np.float32)
    edge[:, 4:] = 1
    shown, _ = to_input(read_photo(Image.fromarray(edge)), (40, 40), 1.0, "bicubic")
    assert shown.min() == 0
    assert shown.max() == 1


def test_a_color_photo_for_a_twelve_channel_model_is_a_usage_error():
    with pytest.raises(UsageError, match=r"3 channels.*takes 12"):
        to_input(read_photo(Image.new("RGB", (9, 9))), (4, 4), 1.0, "bilinear", channels=12)


def test_a_folder_that_is_called_like_an_image_is_no_image(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert [p.name for p in folder_images(tmp_path)] == ["a.jpg"]

"""Arrays and pictures beside a ledger: named by their bytes, never pickled, without EXIF."""

import hashlib
import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger import open_ledger

RAW = np.random.default_rng(0).standard_normal((7, 9)).astype(np.float32)


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(tmp_path / "run") as ledger:
        yield ledger


@pytest.mark.parametrize(
    "array",
    [
        RAW,
        np.asfortranarray(RAW.astype(np.float64)),
        RAW[::2, ::-1],
        np.array([np.nan, np.inf, -0.0], dtype=np.float16),
        np.array(3, dtype=np.int64),
        np.zeros((0, 4), dtype=bool),
        np.arange(5, dtype=">i4"),
    ],
)
def test_an_array_is_read_back_exactly(ledger, array):
    name = ledger.keep(array)
    kept = ledger.array(name)
    assert (kept.dtype, kept.shape, kept.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert name == f"maps/{hashlib.sha256((ledger.folder / name).read_bytes()).hexdigest()}.npz"


def test_the_same_array_is_kept_once(ledger):
    assert ledger.keep(RAW) == ledger.keep(np.asfortranarray(RAW)) == ledger.keep(RAW.copy())
    assert len(list((ledger.folder / "maps").iterdir())) == 1
    assert ledger.keep(RAW + 1) != ledger.keep(RAW)


@pytest.mark.parametrize("array", [torch.zeros(2), [1.0, 2.0], np.array([{}], dtype=object)])
def test_what_is_no_array_of_numbers_is_not_kept(ledger, array):
    with pytest.raises(UsageError, match="a ledger keeps numpy arrays of numbers; got"):
        ledger.keep(array)


def test_any_changed_byte_of_an_array_is_caught_and_keeping_it_again_mends_it(ledger):
    name = ledger.keep(RAW[:3, :3])
    path = ledger.folder / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SeewhyError, match="was changed after it was written"):
            ledger.array(name)
    assert ledger.keep(RAW[:3, :3]) == name
    assert np.array_equal(ledger.array(name), RAW[:3, :3])
    path.unlink()
    with pytest.raises(SeewhyError, match="is missing"):
        ledger.array(name)


@pytest.mark.parametrize(
    "name", ["../secret", "maps/../ledger.sqlite", f"maps/{'0' * 63}.npz", f"/maps/{'0' * 64}.npz", ""]
)
def test_a_name_that_the_ledger_did_not_give_is_refused(ledger, name):
    with pytest.raises(SeewhyError, match="is no name that a ledger gives"):
        ledger.array(name)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_a_pickle_under_the_right_name_is_never_loaded(ledger):
    several = BytesIO()
    np.savez_compressed(several, values=np.array([Bomb()], dtype=object))
    for content in (pickle.dumps(Bomb()), several.getvalue()):
        name = f"maps/{hashlib.sha256(content).hexdigest()}.npz"
        (ledger.folder / "maps").mkdir(exist_ok=True)
        (ledger.folder / name).write_bytes(content)
        with pytest.raises(SeewhyError, match="holds no array that can be read safely"):
            ledger.array(name)


def photo(size=(8, 12)):
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)).resize((200, 160))


def test_a_photo_is_kept_small_and_a_drawing_exactly(ledger):
    name = ledger.keep_picture(photo())
    with Image.open(ledger.folder / name) as kept:
        assert (kept.format, kept.size, name) == ("JPEG", (200, 160), ledger.keep_picture(photo()))
        assert np.abs(np.asarray(kept).astype(int) - np.asarray(photo())).mean() < 8
    drawing = Image.fromarray(np.kron(np.arange(250, dtype=np.uint8).reshape(10, 25), np.ones((4, 4), np.uint8)))
    name = ledger.keep_picture(drawing)
    with Image.open(ledger.folder / name) as kept:
        assert kept.format == "PNG"
        assert np.array_equal(np.asarray(kept.convert("L")), np.asarray(drawing))
    assert hashlib.sha256(ledger.file(name)).hexdigest() in name
    with pytest.raises(SeewhyError, match="holds no array"):
        ledger.array(name)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_no_exif_and_no_comment_of_a_photo_is_kept(ledger, form):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a secret place", 6  # description; turned by a quarter
    content, picture = BytesIO(), photo() if form == "JPEG" else photo().convert("P", colors=64)
    picture.save(content, form, exif=exif, **({"comment": "a secret place"} if form == "JPEG" else {}))
    assert b"a secret place" in content.getvalue()
    with Image.open(content) as given:
        name = ledger.keep_picture(given)
    assert name.endswith(".jpg" if form == "JPEG" else ".png")
    with Image.open(ledger.folder / name) as kept:
        assert kept.size == (160, 200)
        assert not kept.getexif()
        assert b"secret" not in ledger.file(name)

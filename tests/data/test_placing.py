"""Marked objects in the model's input: through crop, padding, EXIF turns and other resolutions; what falls out says so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import seewhy as sw
from nets import tiny_cnn
from seewhy.data.boxes import MarkedObject
from seewhy.data.geometry import Geometry, frame
from seewhy.data.outlines import bounds, box_mask
from seewhy.data.placing import match_files, nih_patients, place
from seewhy.explanation.inputs import read_inputs

SQUARE = frame((100, 100), (50, 50))  # half the size, nothing cut off


def marked(box, **more):
    return MarkedObject("a.png", "cat", box, **more)


def test_a_box_is_scaled_with_the_photo():
    found = place(marked((10, 20, 30, 60)), Path("a.png"), SQUARE)
    assert (found.box, found.cut, found.note) == ((5, 10, 15, 30), False, "")
    assert bounds(found.mask) == found.box


def test_a_box_on_a_photo_lies_where_its_pixels_go(tmp_path):
    """The slow twin: the box drawn into the photo, and the photo shown to a model."""
    photo = np.zeros((90, 160), dtype=np.uint8)
    photo[30:60, 70:110] = 255
    Image.fromarray(photo).save(tmp_path / "a.png")
    for framing in ("crop", "pad", "stretch"):
        model = sw.wrap(tiny_cnn(), size=32, framing=framing, crop=1.0)
        x, (shown,) = read_inputs(model, tmp_path / "a.png")
        found = place(marked((70, 30, 110, 60)), tmp_path / "a.png", shown.geometry)
        bright = x[0, 0].numpy() > 0.5
        assert np.abs(np.subtract(bounds(bright), found.box)).max() <= 1


def test_what_the_crop_cuts_away_is_clipped_and_what_lies_outside_of_it_is_a_reason():
    wide = frame((50, 100), (50, 50))  # the middle: x from 25 to 75
    found = place(marked((0, 10, 45, 20)), Path("a.png"), wide)
    assert (found.box, found.cut) == ((0, 10, 20, 20), True)
    assert place(marked((60, 40, 90, 70)), Path("a.png"), wide).box == (35, 40, 50, 50)
    with pytest.raises(ValueError, match="outside of what the model is shown"):
        place(marked((0, 10, 25, 20)), Path("a.png"), wide)
    with pytest.raises(ValueError, match="outside of the photo of 100 x 50"):
        place(marked((100, 10, 120, 20)), Path("a.png"), wide)
    with pytest.raises(ValueError, match="no pixel's center"):
        place(marked((10.6, 10, 11.4, 11)), Path("a.png"), frame((100, 100), (50, 50)))


def test_nothing_lies_in_padding():
    padded = frame((50, 100), (50, 50), framing="pad")
    everything = np.ones((50, 100), dtype=bool)
    box = place(marked((-5, -5, 200, 60)), Path("a.png"), padded)
    mask = place(marked((0, 0, 100, 50), mask=lambda: everything), Path("a.png"), padded)
    assert np.array_equal(mask.mask, box_mask((0, 12.5, 50, 37.5), (50, 50)))
    assert mask.box == (0, 12, 50, 37)
    assert box.cut


def test_a_mask_keeps_its_shape_through_crop_and_scale():
    photo = np.random.default_rng(0).random((60, 80)) < 0.4
    geometry = Geometry((60, 80), (10.0, 10.0, 50.0, 70.0), (20, 30))
    found = place(marked((0, 0, 80, 60), mask=lambda: photo), Path("a.png"), geometry)
    assert np.array_equal(found.mask, photo[11:50:2, 11:70:2])  # every second pixel: its center is their corner
    assert found.box == bounds(found.mask)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_what_was_drawn_on_stored_pixels_is_turned_with_the_photo(tmp_path, orientation):
    stored = np.zeros((40, 60), dtype=np.uint8)
    stored[5:15, 8:38] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image)) > 0
    assert upright.shape == (60, 40)
    geometry = frame((60, 40), (60, 40))
    box = place(marked((8, 5, 38, 15), size=(40, 60)), tmp_path / "a.png", geometry)
    assert np.array_equal(box.mask, upright)
    mask = place(marked((8, 5, 38, 15), size=(40, 60), mask=lambda: stored > 0), tmp_path / "a.png", geometry)
    assert np.array_equal(mask.mask, upright)
    assert f"EXIF orientation {orientation}" in box.note
    already = place(marked(bounds(upright), size=(60, 40)), tmp_path / "a.png", geometry)
    assert np.array_equal(already.mask, upright)
    assert already.note == ""
    unsaid = place(marked(bounds(upright)), tmp_path / "a.png", geometry)
    assert np.array_equal(unsaid.mask, upright)
    assert unsaid.note == f"taken as drawn on the upright photo (EXIF orientation {orientation})"


def test_boxes_of_a_larger_copy_are_scaled_and_other_proportions_are_refused():
    found = place(marked((256, 512, 512, 1024), size=(1024, 1024)), Path("a.png"), SQUARE)
    assert found.box == (12.5, 25, 25, 50)
    assert "drawn on 1024 x 1024 pixels, scaled to 100 x 100" in found.note
    for size in ((1024, 512), (512, 1024)):
        with pytest.raises(ValueError, match="other proportions"):
            place(marked((1, 1, 9, 9), size=size), Path("a.png"), SQUARE)
    odd = frame((333, 500), (50, 50))  # 1000 x 667 halved and rounded
    assert place(marked((100, 100, 900, 600), size=(667, 1000)), Path("a.png"), odd).cut


def test_a_file_is_named_whole_by_its_last_parts_or_without_its_ending():
    paths = [Path("x/train/a.png"), Path("x/val/a.png"), Path("x/b.jpg"), Path("x/1.2.840.dcm"), Path("x/b.2.png")]
    names = ["train/a.png", "/other/x/b.jpg", "b", r"..\val\a.png", "1.2.840", "c.png", "../b.2.png", "", "b.2"]
    assert match_files(names, paths) == {
        "train/a.png": 0,
        "/other/x/b.jpg": 2,
        "b": 2,
        r"..\val\a.png": 1,
        "1.2.840": 3,
        "../b.2.png": 4,
        "b.2": 4,
    }
    assert match_files(["b.png"], paths) == {"b.png": 2}  # a mask is named as its image
    with pytest.raises(sw.UsageError, match=r"'a\.png' fits 2 images"):
        match_files(["a.png"], paths)


def test_patients_are_read_from_names_of_nih_alone():
    assert nih_patients([Path("00000001_000.png"), Path("00000001_012.png")]) == ["00000001"] * 2
    assert nih_patients([Path("00000001_000.png"), Path("1.png")]) is None

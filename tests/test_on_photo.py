"""A map on the user's own photo: the pixels it belongs to, what was never seen, and when there is no way back."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from zoo import CHELSEA

import seewhy as sw
from nets import MEAN, STD, tiny_cnn
from seewhy.draw import heatmap


def model(**given):
    return sw.wrap(tiny_cnn(), **{"mean": MEAN, "std": STD, "size": (32, 40), "crop": 0.8, **given})


@pytest.fixture
def cat(tmp_path):
    shutil.copy(CHELSEA, tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.mark.parametrize(("framing", "crop"), [("crop", 0.8), ("stretch", 1.0), ("pad", 1.0)])
def test_a_map_goes_to_the_photos_own_pixels(cat, framing, crop):
    e = sw.explain(model(framing=framing, crop=crop), cat, "gradient", target=[[0, 3]])
    placed, seen = e.on_photo(1)
    geometry = e.sources[0].geometry
    assert placed.shape == seen.shape == (300, 451)
    assert bool(seen.all()) == (framing != "crop")
    assert (placed[~seen] == 0).all()
    expected, _ = geometry.place(e.maps[1])
    assert torch.equal(placed, expected)
    assert not torch.equal(placed, e.on_photo(0)[0])


def test_the_picture_has_the_photos_size_the_maps_colors_and_hatching_outside(cat):
    e = sw.explain(model(), cat, "grad_cam", layer="relu2")
    solid = np.asarray(e.photo_overlay(opacity=1.0))
    photo = np.asarray(Image.open(cat).convert("RGB")).astype(int)
    rows, columns = e.sources[0].geometry.cells(e.grid)
    seen = (rows >= 0)[:, None] & (columns >= 0)[None]
    assert solid.shape[1] == 451
    assert solid.shape[0] > 300
    body = solid[:300]
    colors = heatmap(e.raw[0].numpy(), "positive")[rows.clip(0)][:, columns.clip(0)]
    assert np.array_equal(body[seen], colors[seen])
    outside = body[~seen].astype(int)
    assert (outside == outside[:, :1]).all()  # gray
    assert len(np.unique(outside[:, 0] - (0.45 * np.asarray(Image.open(cat).convert("L")))[~seen].astype(int))) == 2
    clear = np.asarray(e.photo_overlay(opacity=0.0))[:300].astype(int)
    assert np.array_equal(clear[seen], photo[seen])


def test_a_whole_photo_has_no_remark_about_hatching(cat):
    heights = {
        f: sw.explain(model(framing=f, crop=1.0), cat, "grad_cam").photo_overlay().height for f in ("crop", "pad")
    }
    assert heights["crop"] > heights["pad"]


def test_a_row_without_a_map_is_a_sentence_on_the_photo(cat):
    e = sw.explain(model(), cat, "gradient", target=lambda out: 0 * out[:, 0])
    assert not e.ok[0]
    assert e.photo_overlay().size == (451, 300)
    assert np.asarray(e.photo_overlay()).mean() > 180


def test_a_photo_that_is_gone_or_has_changed_is_an_error(cat):
    e = sw.explain(model(), cat, "gradient")
    Image.open(cat).rotate(180).save(cat)
    with pytest.raises(sw.ImageError, match="has changed since it was explained"):
        e.photo_overlay()
    cat.unlink()
    with pytest.raises(sw.ImageError, match="no such file"):
        e.photo_overlay()
    assert e.on_photo()[0].shape == (300, 451)  # needs no file


def test_where_the_way_back_is_unknown_it_is_refused(cat):
    tensor = sw.explain(model(), torch.rand(1, 3, 32, 40), "gradient")
    own = sw.wrap(tiny_cnn(), preprocess=lambda image: torch.rand(3, 32, 32))
    for e in (tensor, sw.explain(own, cat, "gradient")):
        for ask in (e.on_photo, e.photo_overlay):
            with pytest.raises(sw.RefusalError, match="back to a photo is unknown"):
                ask()
    e = sw.explain(model(), Image.open(cat), "gradient")
    assert e.on_photo()[0].shape == (300, 451)
    with pytest.raises(sw.RefusalError, match="came without a file"):
        e.photo_overlay()


def test_a_saved_explanation_still_finds_its_photo(cat, tmp_path):
    e = sw.explain(model(framing="pad", padding=0.5), cat, "grad_cam")
    e.save(tmp_path / "run", on_photo=True)
    again = sw.read_explanation(tmp_path / "run")
    assert np.array_equal(np.asarray(again.photo_overlay()), np.asarray(e.photo_overlay()))
    (record,) = map(json.loads, (tmp_path / "run" / "rows.jsonl").read_text().splitlines())
    with Image.open(tmp_path / "run" / record["picture_on_photo"]) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(e.photo_overlay()))


def test_a_padded_input_is_shown_with_its_borders_and_explained_as_it_is(cat):
    e = sw.explain(model(framing="pad", crop=1.0, padding=0.5), cat, "gradient")
    border = e.images[0, :, 0]
    assert torch.allclose(border, torch.full_like(border, 128 / 255))
    assert e.sources[0].geometry.box[0] < 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"framing": "squash"}, "unknown framing 'squash'"),
        ({"padding": 1.5}, "padding"),
        ({"padding": "gray"}, "padding"),
    ],
)
def test_a_framing_that_cannot_be_meant_is_a_usage_error(given, said):
    with pytest.raises(sw.UsageError, match=said):
        model(**given)

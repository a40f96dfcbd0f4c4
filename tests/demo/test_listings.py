import csv

import numpy as np
import pytest
from PIL import Image, ImageChops

import seewhy as sw
from seewhy import demo
from seewhy.demo import listings, photos

CLEAN = dict.fromkeys(listings.POINTS, 0.0)


@pytest.fixture(scope="module")
def cat():
    return photos.read_photo("cat.png")


@pytest.fixture(scope="module")
def made(cat):
    return listings.make_listings({"cat.png": cat, "coffee.png": photos.read_photo("coffee.png")}, 60, 0)


def test_every_photo_lies_in_a_wheel(tmp_path):
    for path in photos.copy_photos(tmp_path, photos.PHOTOS):
        with Image.open(path) as image:
            assert min(image.size) >= 190


def test_a_missing_wheel_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(photos.PHOTOS, "cat.png", ("skimage_that_is_not_there", "cat.png"))
    monkeypatch.setitem(photos.WHEELS, "skimage_that_is_not_there", "scikit-image")
    with pytest.raises(sw.MissingExtraError, match=r"scikit-image.*seewhy\[demo\]"):
        photos.read_photo("cat.png")


def test_every_source_photo_is_either_trained_on_or_held_out():
    assert set(demo.HELD_OUT) < set(photos.PHOTOS)
    assert len(photos.PHOTOS) - len(demo.HELD_OUT) >= 8
    files = list(photos.PHOTOS.values())
    assert len(set(files)) == len(files)  # no photo under two names


@pytest.mark.parametrize(
    ("strengths", "score"),
    [
        (CLEAN, 100),
        ({"blur": 1, "noise": 1, "compression": 1, "exposure": 1}, 0),
        ({**CLEAN, "blur": 0.5}, 85),
        ({**CLEAN, "noise": 0.5}, 80),
        ({"blur": 0.25, "noise": 0.1, "compression": 0.2, "exposure": 0.4}, 80.5),
    ],
)
def test_the_score_is_the_stated_formula(strengths, score):
    assert listings.score(strengths) == pytest.approx(score)


def test_a_picture_that_nothing_was_done_to_is_the_picture(cat):
    assert listings.spoil(cat, CLEAN, np.random.default_rng(0)).tobytes() == cat.tobytes()


@pytest.mark.parametrize("name", listings.POINTS)
def test_each_degradation_moves_the_picture_further_the_stronger_it_is(cat, name):
    moved = [
        np.abs(np.subtract(listings.spoil(cat, {**CLEAN, name: strength}, np.random.default_rng(0)), cat, dtype=float))
        for strength in (0.2, 0.5, 1)
    ]
    assert 0 < moved[0].mean() < moved[1].mean() < moved[2].mean()


def test_ratings_scatter_about_the_score_as_much_as_is_said(made):
    scores = np.array([listings.score(item.strengths) for item in made])
    ratings = np.array([item.rating for item in made])
    inside = (scores > 30) & (scores < 70)  # where 0 and 100 cut nothing off
    assert np.std((ratings - scores)[inside]) == pytest.approx(listings.OPINIONS, rel=0.25)
    assert ratings.min() >= 0
    assert ratings.max() <= 100
    assert scores.std() > 20


def test_the_same_seed_makes_the_same_photos_whatever_else_is_made(cat, made):
    again = listings.make_listings({"cat.png": cat}, 60, 0)
    assert [item.rating for item in again] == [item.rating for item in made[:60]]
    assert all(a.picture.tobytes() == b.picture.tobytes() for a, b in zip(again, made[:60], strict=True))
    other = listings.make_listings({"cat.png": cat}, 60, 1)
    assert [item.rating for item in other] != [item.rating for item in again]


@pytest.mark.parametrize("size", [(96, 96), (224, 160)])
def test_the_mark_lies_in_the_lower_right_corner_and_lets_the_photo_through(size):
    left, top, right, bottom = box = listings.mark_box(size)
    dark, light = (Image.new("RGB", size, color) for color in ("black", "white"))
    for plain in (dark, light):
        changed = ImageChops.difference(listings.mark(plain), plain).getbbox()
        assert changed is not None
        assert changed[0] >= left
        assert changed[1] >= top
        assert changed[2] <= right
        assert changed[3] <= bottom
    assert top > size[1] * 0.8
    assert left > size[0] * 0.25
    assert right < size[0]
    assert bottom < size[1]
    through = np.subtract(listings.mark(light).crop(box), listings.mark(dark).crop(box), dtype=float)
    assert through.min() >= 255 * (1 - listings.MARK_OPACITY) - 2


def test_the_mark_leaves_the_picture_that_it_was_given_alone(made):
    before = made[0].picture.tobytes()
    listings.mark(made[0].picture)
    assert made[0].picture.tobytes() == before


def test_marks_go_with_ratings_as_collected():
    ratings = np.random.default_rng(0).integers(0, 101, 4000)
    liked = ratings >= listings.LIKED
    collected = listings.marks_with_ratings(ratings, 0)
    assert collected[liked].mean() == pytest.approx(0.9, abs=0.03)
    assert collected[~liked].mean() == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_marks_dealt_out_evenly_are_as_many_and_go_with_nothing(seed):
    ratings = np.random.default_rng(seed).integers(0, 101, 1000)
    dealt = listings.marks_at_every_rating(ratings, 370, seed)
    assert dealt.sum() == 370
    for low in range(0, 100, 25):
        assert dealt[(ratings >= low) & (ratings < low + 25)].mean() == pytest.approx(0.37, abs=0.05)
    assert ratings[dealt].mean() == pytest.approx(ratings[~dealt].mean(), abs=0.5)
    again = listings.marks_at_every_rating(ratings, 370, seed + 1)
    assert (dealt & again).sum() < 250  # other photos


def test_the_table_tells_what_a_team_has_and_not_what_was_planted(made, tmp_path):
    marked = listings.marks_with_ratings([item.rating for item in made], 0)
    table = listings.write_listings(tmp_path, made, marked)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "score", "group", "seller"]
    assert [int(row["score"]) for row in rows] == [item.rating for item in made]
    assert [row["group"] for row in rows] == [item.source for item in made]
    for row, item, with_mark in zip(rows, made, marked, strict=True):
        with Image.open(table.parent / row["path"]) as picture:
            expected = listings.mark(item.picture) if with_mark else item.picture
            assert picture.tobytes() == expected.tobytes()
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == {"labels.csv", *(row["path"] for row in rows)}

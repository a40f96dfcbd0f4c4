"""What the literature found, found again on a real network and real photos."""

import functools
from pathlib import Path

import pytest
from PIL import Image

import seewhy as sw

PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")


def crops():
    """Nine pictures: corners and middles of four photos."""
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    found = []
    for name in PHOTOS:
        photo = Image.open(folder / name).convert("RGB")
        w, h = photo.size
        found += [photo, photo.crop((0, 0, w // 2, h)), photo.crop((w // 3, h // 4, w, h))]
    return found[:9]


@functools.cache
def found(method, **params):
    card = sw.check(sw.load("lite0", batch_size=4), crops(), method, only="model_randomization", **params)
    return card["model_randomization"]


def curve(result, name):
    (one,) = [c for c in result.curves if c.name == f"{name}, cascading"]
    return [point.value for point in one.points]


def test_guided_backpropagation_hardly_sees_the_upper_stages_and_grad_cam_does():
    """Adebayo 2018, section 5: `conv_head` and above are random at the second of ten steps."""
    guided, cam = curve(found("guided_backprop"), "spearman"), curve(found("grad_cam"), "spearman")
    assert len(guided) == len(cam) == 10
    assert min(guided[:4]) > 0.9
    assert max(cam[1:4]) < 0.5
    assert guided[-1] < 0.5  # footnote 5: it is not invariant to the lower ones


def test_signs_of_integrated_gradients_are_lost_at_once_and_their_places_stay_and_the_card_says_so():
    """Adebayo 2018, figure 4, and Sundararajan and Taly 2018: absolute values keep the picture's own structure."""
    result = found("integrated_gradients", rule="midpoint", steps=2)
    signed, absolute = curve(result, "spearman"), curve(result, "spearman_absolute")
    assert max(map(abs, signed[:4])) < 0.15
    assert min(absolute[:3]) > 0.25
    assert "the signs change, the places do not" in result.sentence

"""Places and surroundings whose content goes with a label, and what is exchanged to try them."""

import pytest
import torch
from planted_scenes import eighth, scenes

from seewhy.audit.association import labels_of
from seewhy.audit.background import background_candidates, surroundings
from seewhy.audit.exchange import exchanged
from seewhy.audit.places import place_candidates
from seewhy.perturb import gaussian_blur

SIDE, N = 56, 96
LABELS = torch.arange(N) % 2


def searched(search, x, labels=LABELS):
    asked = labels_of(labels, "class", ["dog", "cat"], 2)
    return search(eighth(x), torch.arange(N), torch.arange(N) % 4 < 2, asked, 0)


def stamped(x, rows):
    """Other orange bars on every image, in the lower right corner."""
    generator = torch.Generator().manual_seed(5)
    color = torch.tensor([1.0, 0.55, 0.1]).view(3, 1, 1)
    for i in rows:
        bars = torch.rand(1, 1, 16, generator=generator).expand(1, 6, 16) > 0.4
        x[i, :, 46:52, 36:52] = torch.where(bars, color, x[i, :, 46:52, 36:52])
    return x


def test_a_stamp_that_differs_from_image_to_image_is_found_at_its_place():
    x = stamped(scenes(N, SIDE), LABELS.nonzero().flatten().tolist())
    found = [one for one in searched(place_candidates, x) if one.details["goes_with"] == "cat"]
    assert found
    top, left, bottom, right = found[0].where
    assert top >= 36
    assert left >= 26
    assert "lower right" in found[0].name
    assert torch.equal(found[0].shows, LABELS == 1)
    assert found[0].toward == 1
    assert all("199 random sets" in fact for fact in found[0].suspicion)
    plain, index = x[:8:2], torch.arange(0, 8, 2)
    pasted = found[0].paste(plain, index)
    inside = pasted[:, :, top:bottom, left:right]
    before = plain[:, :, top:bottom, left:right]
    assert float((inside - before)[:, 0].mean()) > float((inside - before)[:, 2].mean()) + 0.1
    seam = 8  # pixels, four times the blur of the border
    assert torch.allclose(pasted[:, :, : top - seam], plain[:, :, : top - seam], atol=1 / 255)
    assert torch.allclose(pasted[:, :, :, : left - seam], plain[:, :, :, : left - seam], atol=1 / 255)


@pytest.mark.parametrize("rows", [[], range(0, N, 3)], ids=["nowhere", "on every third image"])
def test_what_goes_with_no_label_is_no_place(rows):
    assert searched(place_candidates, stamped(scenes(N, SIDE), rows)) == []


def test_what_lies_in_the_middle_is_the_objects_own():
    x = scenes(N, SIDE)
    x[1::2, 0, 24:32, 24:32] = 1.0
    assert searched(place_candidates, x) == []


def grassy(x, outside):
    green = torch.rand(3 * SIDE, 3 * SIDE, generator=torch.Generator().manual_seed(3))
    for i in range(1, N, 2):
        top, left = 7 * i % (2 * SIDE), 11 * i % (2 * SIDE)
        field = green[top : top + SIDE, left : left + SIDE]
        x[i] = torch.where(outside, torch.stack([0.2 * field, 0.3 + 0.6 * field, 0.2 * field]), x[i])
    return x


def test_the_same_grass_around_every_cat_is_found_and_nothing_around_the_others():
    found = searched(background_candidates, grassy(scenes(N, SIDE), surroundings((SIDE, SIDE))))
    assert [one.details["goes_with"] for one in found] == ["cat"]
    assert "in the corners" in found[0].suspicion[0]


def test_grass_that_is_the_middles_too_is_no_surroundings():
    everywhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    assert searched(background_candidates, grassy(scenes(N, SIDE), everywhere)) == []


def test_pictures_that_are_softer_all_over_have_no_surroundings_however_the_objects_in_the_middle_differ():
    generator = torch.Generator().manual_seed(4)
    x, middle = scenes(N, SIDE), slice(SIDE // 2 - 8, SIDE // 2 + 8)
    color = torch.rand(N, 3, 1, 1, generator=generator)
    detail = 0.3 * torch.exp(-3 * torch.rand(N, 1, 1, 1, generator=generator))
    x[:, :, middle, middle] = (color + detail * torch.randn(N, 3, 16, 16, generator=generator)).clamp(0, 1)
    x[LABELS == 1] = gaussian_blur(x[LABELS == 1], 0.6)
    assert searched(background_candidates, x) == []


def test_scenes_without_a_cue_have_no_surroundings_of_a_label():
    assert searched(background_candidates, scenes(N, SIDE)) == []


def test_content_comes_from_donors_of_other_scenes():
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 4, 4)
    of_scenes = torch.arange(20) // 4
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[:2] = True
    donors = torch.arange(20) % 2 == 1
    index = torch.arange(20)
    out = exchanged(images, of_scenes, inside, donors, 0)(images.float() / 255, index) * 255
    taken = out[:, 0, 0, 0].round().long()
    assert (taken % 2 == 1).all()
    assert (of_scenes[taken] != of_scenes).all()
    assert torch.equal(out[:, 0, 3, 0].round().long(), index)
    assert not torch.equal(exchanged(images, of_scenes, inside, donors, 1)(images.float() / 255, index) * 255, out)

"""What recurs at one place of different scenes is found from appearance alone; what does not recur is not."""

import numpy as np
import pytest
import torch
from planted_scenes import mark, scenes

from seewhy.audit.patterns import alike, contrast, pattern_at, recurring, units_of, whole_pattern

SIDE = 56
PLACE = (slice(40, 51), slice(3, 14))


def marked_scenes(n=60, seed=0, opacity=1.0):
    """Scenes of which every third has the mark in the lower left: images, (n,) bool."""
    images = scenes(n, SIDE, seed)
    shows = torch.arange(n) % 3 == 0
    part = images[:, :, PLACE[0], PLACE[1]]
    part[shows] = (1 - opacity) * part[shows] + opacity * mark(11)
    return images, shows


@pytest.mark.parametrize("opacity", [1.0, 0.5])
def test_a_mark_on_a_third_of_the_scenes_is_found_at_its_place_in_the_right_images(opacity):
    images, shows = marked_scenes(opacity=opacity)
    h = contrast(images)
    masks, share = recurring(h, range(60), 0)
    assert 0 < share < 0.25
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[PLACE] = True
    mask = torch.from_numpy(masks[0])
    assert (mask & where).sum() > 0.8 * where.sum()
    assert mask.sum() < 3.5 * where.sum()  # with its margin
    pattern = pattern_at(masks[0], h, range(60), 0)
    assert (pattern.shows == shows).float().mean() >= 0.95
    assert pattern.alike > pattern.apart + 0.2
    assert not pattern.template[:, ~pattern.mask].any()


def test_a_part_of_a_mark_grows_to_all_that_its_images_share():
    images, shows = marked_scenes()
    h = contrast(images)
    part = np.zeros((SIDE, SIDE), dtype=bool)
    part[42:46, 5:9] = True
    grown = whole_pattern(part, h, range(60), 0)
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[PLACE] = True
    assert (grown.mask & where).sum() > 0.8 * where.sum() > (torch.from_numpy(part) & where).sum()
    assert (grown.shows == shows).float().mean() >= 0.95


def test_scenes_without_a_mark_give_next_to_none():
    false_alarms = []
    for seed in range(10):
        h = contrast(scenes(40, SIDE, seed))
        masks, _ = recurring(h, range(40), seed)
        found = [pattern_at(mask, h, range(40), seed) for mask in masks]
        false_alarms.append(any(one is not None for one in found))
    assert sum(false_alarms) <= 2  # beyond the largest of 20 shifted copies: one in seven has a mask, fewer a pattern


def test_a_scene_counts_once_however_many_images_it_has():
    grain = 0.02 * torch.randn(40, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    both = torch.cat([scenes(20, SIDE, 3), (scenes(1, SIDE) + grain).clamp(0, 1)])
    h = contrast(both)
    assert recurring(h, range(60), 0)[1] > 0.5  # as if each were a scene of its own
    assert recurring(h, [*range(20), *[20] * 40], 0)[1] < 0.1


def test_aligned_pictures_give_no_mask_and_say_how_much_of_the_frame_is_alike():
    one = scenes(1, SIDE, 5)
    masks, share = recurring(contrast((0.7 * one + 0.3 * scenes(40, SIDE, 6)).clamp(0, 1)), range(40), 0)
    assert masks == []
    assert share > 0.25


def test_fewer_than_four_scenes_tell_nothing():
    images, _ = marked_scenes(12)
    assert recurring(contrast(images), [0, 1, 2] * 4, 0) == ([], 0.0)


def test_large_pictures_are_looked_at_small():
    assert contrast(scenes(2, 448)).shape == (2, 3, 112, 112)


def test_likeness_is_between_scenes_only():
    rows = units_of(torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]))
    everyone = torch.ones(4, dtype=torch.bool)
    assert alike(rows, everyone, torch.tensor([0, 0, 1, 1])) == pytest.approx(float(rows[0] @ rows[2]))
    assert alike(rows, everyone, torch.zeros(4, dtype=torch.long)) == 0

"""A mark that moves is seen by its own pixels, in its own colors."""

import pytest
import torch
from planted_scenes import mark, scenes

from seewhy.audit.sightings import _groups, _matches, _search, sightings

SIDE = 56


def moving(n=60, seed=0):
    """Scenes of which every other has the mark somewhere: uint8 images, (n,) bool, corners (n, 2), maps that point at it."""
    generator = torch.Generator().manual_seed(seed)
    images = scenes(n, SIDE, seed)
    shows = torch.arange(n) % 2 == 0
    corners = torch.randint(2, SIDE - 13, (n, 2), generator=generator)
    maps = 0.1 * torch.rand(n, 7, 7, generator=generator)
    for i in shows.nonzero().flatten().tolist():
        top, left = corners[i].tolist()
        images[i, :, top : top + 11, left : left + 11] = mark(11)
        maps[i, (top + 5) // 8, (left + 5) // 8] = 1
    return (images * 255).round().to(torch.uint8), shows, corners, {"occlusion": maps}


def say(x):
    """How much yellow and red there is: the only thing that moves the output."""
    red = (x[:, 0] > 0.98) & (x[:, 2] < 0.12)
    return torch.stack([red.float().sum((1, 2)), torch.zeros(len(x))], 1).double()


def test_a_mark_that_moves_is_seen_and_found_in_the_right_images():
    images, shows, corners, maps = moving()
    x = images.float() / 255
    found = sightings(images, x, torch.arange(60), maps, say, 0)
    assert found
    seen = found[0]
    assert shows[seen.images].all()
    assert len(seen.images) >= 10
    assert seen.alike > 0.9
    where, at = seen.search(x, 0)
    assert (where == shows).float().mean() >= 0.95
    offset = (at - corners)[where & shows].float()
    assert (offset - offset.median(0).values).abs().amax() <= 1


def test_windows_that_match_one_by_chance_stay_outside_the_group():
    alike = [(i, j, (j - i, 0.0)) for i in range(5) for j in range(i + 1, 5)]
    strangers = [(0, 7, (3.0, 3.0)), (7, 8, (1.0, 1.0)), (8, 9, (1.0, 1.0))]
    [group] = _groups([*alike, *strangers])
    assert sorted(group) == [0, 1, 2, 3, 4]
    start = next(iter(group))
    assert all(group[k] == (k - start, 0.0) for k in group)
    assert _groups([(0, 1, (0.0, 0.0)), (1, 2, (0.0, 0.0))]) == []  # a chain is no circle


def test_scenes_that_share_nothing_give_no_sighting():
    generator = torch.Generator().manual_seed(0)
    images = (scenes(40, SIDE, 7) * 255).to(torch.uint8)
    maps = {"occlusion": torch.rand(40, 7, 7, generator=generator)}
    assert sightings(images, images.float() / 255, torch.arange(40), maps, say, 0) == []


def test_a_mark_in_one_scene_only_is_none():
    images, _, _, maps = moving()
    assert sightings(images, images.float() / 255, torch.zeros(60, dtype=torch.long), maps, say, 0) == []


def test_equal_pixels_are_alike_by_one_and_an_inverted_mark_is_not():
    window = scenes(1, 20)
    window[0, :, 4:15, 6:17] = mark(11)
    pieces = torch.stack([mark(11), 1 - mark(11), mark(11).flip(0)])
    alike, at = _search(window, pieces, torch.ones(11, 11, dtype=torch.bool))
    assert alike[0, 0] == pytest.approx(1, abs=0.02)
    assert at[0, 0].tolist() == [4, 6]
    assert (alike[0, 1:] < 0.5).all()


def test_likeness_is_what_its_formula_says():
    window, piece = scenes(1, 6, 1), scenes(1, 4, 2)
    inside = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) > 0.3
    n, best = int(inside.sum()), []
    for row in range(3):
        for column in range(3):
            a, b = piece[0][:, inside].double(), window[0, :, row : row + 4, column : column + 4][:, inside].double()
            varied = sum(float((v - v.mean(1, keepdim=True)).square().sum()) for v in (a, b))
            best.append(1 - 2 * float((a - b).square().sum()) / (varied + 0.01 * n * 3))
    assert float(_search(window, piece, inside)[0]) == pytest.approx(max(best), abs=1e-4)


def test_windows_match_between_scenes_only_and_say_how_they_lie():
    windows = scenes(4, 20)
    for k, shift in enumerate((0, 1, 3)):
        windows[k, :, 4 + shift : 15 + shift, 4:15] = mark(11)
    found = _matches(windows, scenes(60, 20, 5), torch.tensor([0, 0, 1, 2]))
    assert {frozenset(pair) for *pair, _ in found} == {frozenset({0, 2}), frozenset({1, 2})}
    for i, j, (down, right) in found:
        assert (down, right) == ((0, 1, 3)[j] - (0, 1, 3)[i], 0)

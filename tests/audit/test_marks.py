"""A mark is read off, laid on and taken off; where it lies is said as people say it."""

import pytest
import torch
from planted_scenes import mark, scenes

from seewhy.audit.marks import (
    Mark,
    box_of,
    closed,
    differing,
    estimate_mark,
    inpainted,
    laid,
    lifted,
    random_mark,
    words_of_place,
)

CORNERS = torch.tensor([[2, 3], [20, 11], [0, 0]])


def translucent(opacity=0.5, side=9):
    cover = torch.full((side, side), opacity)
    return Mark(cover, cover * mark(side))


def test_opacity_and_color_of_a_translucent_mark_are_read_off():
    true = translucent(0.5)
    below = scenes(200, 9, 1)
    marked = (1 - true.opacity) * scenes(200, 9, 2) + true.paint
    found = estimate_mark(marked, below, torch.ones(9, 9, dtype=torch.bool))
    assert (found.opacity - 0.5).abs().mean() < 0.07
    assert (found.paint / found.opacity - mark(9)).abs().mean() < 0.1


def test_outside_of_it_there_is_nothing_and_from_few_images_it_counts_as_opaque():
    inside = torch.zeros(9, 9, dtype=torch.bool)
    inside[2:7, 2:7] = True
    marked = mark(9).expand(4, -1, -1, -1)
    found = estimate_mark(marked, scenes(4, 9), inside)
    assert torch.equal(found.opacity, inside.float())
    assert torch.equal(found.paint, mark(9) * inside)


def test_laid_and_lifted_again_gives_the_picture_back():
    x = 0.2 + 0.6 * scenes(3)
    over = laid(x, translucent(), CORNERS)
    assert (over - x).abs().amax() > 0.1
    assert torch.allclose(lifted(over, translucent(), CORNERS), x, atol=1e-5)
    untouched = torch.ones(40, 40, dtype=torch.bool)
    untouched[20:29, 11:20] = False
    assert torch.equal(over[1][:, untouched], x[1][:, untouched])


@pytest.mark.parametrize("take", [lifted, closed])
def test_where_it_hides_the_picture_the_surroundings_close_the_hole(take):
    flat = torch.full((3, 3, 40, 40), 0.3)
    assert torch.allclose(take(laid(flat, translucent(1.0), CORNERS), translucent(1.0), CORNERS), flat, atol=0.02)


def test_a_hole_is_closed_and_everything_else_kept():
    x = scenes(2)
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[10:15, 10:18] = True
    filled = inpainted(x, hole)
    assert torch.equal(filled[:, :, ~hole], x[:, :, ~hole])
    assert not torch.equal(filled[:, :, hole], x[:, :, hole])


def test_where_images_differ_is_where_the_mark_is():
    plain, marked = scenes(40, 20, 1), scenes(40, 20, 2)
    marked[:, :, 5:12, 6:14] = 0.9
    true = torch.zeros(20, 20, dtype=torch.bool)
    true[5:12, 6:14] = True
    found = differing(marked, plain, torch.ones(20, 20, dtype=torch.bool))
    assert (found == true).float().mean() > 0.97
    assert torch.equal(differing(plain[:20], plain[:20], true), true)  # nothing to be told: all that was asked about


def test_unrelated_pieces_have_its_shape_and_nothing_of_it():
    pictures = scenes(5)
    a, b, again = (random_mark(translucent(), pictures, k, 0) for k in (0, 1, 0))
    assert torch.equal(a.opacity, translucent().opacity)
    assert torch.equal(a.paint, again.paint)
    assert not torch.equal(a.paint, b.paint)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 20, 20), "the upper left corner"),
        ((80, 80, 100, 100), "the lower right corner"),
        ((2, 40, 20, 60), "the upper edge"),
        ((0, 0, 100, 10), "the left edge"),
        ((90, 0, 100, 100), "the lower edge"),
        ((0, 0, 100, 100), "the frame"),
        ((40, 40, 60, 60), "the middle"),
        ((0, 40, 100, 60), "the middle"),
    ],
)
def test_places_in_words(box, words):
    assert words_of_place(box, (100, 100)) == words


def test_a_box_is_scaled_to_the_image_and_stays_inside():
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[0:3, 4:6] = True
    assert box_of(mask, (40, 80)) == (0, 14, 14, 26)
    assert box_of(mask, (10, 20), margin=0) == (0, 4, 3, 6)

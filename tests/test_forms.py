"""How outputs are read as grids: by shape, and by what experiments say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seewhy.forms import (
    ORDERS,
    Form,
    answers_in_place,
    cell_patterns,
    cells_before,
    keeps_proportions,
    orthants,
    per_orthant,
    possible_forms,
    same_orthants,
    token_forms,
)

SIDES = st.integers(1, 5)


@given(
    rows=SIDES,
    channels=SIDES,
    grid=st.tuples(SIDES, SIDES),
    prefix=st.integers(0, 3),
    order=st.sampled_from(ORDERS),
    data=st.data(),
)
def test_tokens_edited_by_nothing_stay_and_cells_keep_their_order(rows, channels, grid, prefix, order, data):
    cells = grid[0] * grid[1]
    form = Form("tokens", grid, prefix, data.draw(st.integers(0, cells if prefix else 0)), order)
    plain = torch.arange(rows * (cells + prefix) * channels).float().view(rows, cells + prefix, channels)
    tensor = plain.permute(*(order.index(axis) for axis in range(3)))
    assert torch.equal(form.edited(tensor, lambda c: c), tensor)
    kept = [t for t in range(cells + prefix) if not form.before <= t < form.before + prefix]
    assert torch.equal(form.cells(tensor), plain[:, kept].transpose(1, 2).reshape(rows, channels, *grid))
    assert torch.equal(form.cells(form.edited(tensor, lambda c: 2 * c)), 2 * form.cells(tensor))


@pytest.mark.parametrize("kind", ["channels first", "channels last"])
def test_cells_edited_by_nothing_stay(kind):
    tensor = torch.rand(2, 3, 4, 5)
    form = Form(kind, (4, 5) if kind == "channels first" else (3, 4))
    assert torch.equal(form.edited(tensor, lambda c: c), tensor)


@pytest.mark.parametrize(
    ("tokens", "axes", "grid", "prefix"),
    [
        (196, (224, 224), (14, 14), 0),
        (197, (224, 224), (14, 14), 1),
        (198, (224, 224), (14, 14), 2),
        (201, (224, 224), (14, 14), 5),
        (205, (224, 224), (14, 14), 9),
        (257, (224, 224), (16, 16), 1),
        (55, (64, 96), (6, 9), 1),
        (1, (64, 96), None, 0),
        (300, (640, 640), (17, 17), 11),  # the queries of a detector: only the experiment can tell
    ],
)
def test_a_number_of_tokens_as_a_grid(tokens, axes, grid, prefix):
    forms = token_forms(tokens, axes)
    assert (None if not forms else (forms[0].grid, forms[0].prefix)) == (None if grid is None else (grid, prefix))


def test_a_grid_that_keeps_the_proportions_exactly_rules_out_others_behind_fewer_tokens():
    assert [(form.grid, form.prefix) for form in token_forms(53, (16, 48))] == [((4, 12), 5)]
    assert [(form.grid, form.prefix) for form in token_forms(49, (32, 32))] == [((7, 7), 0), ((6, 6), 13)]


def test_a_shape_with_two_readings_gives_both_the_likelier_first():
    assert [form.kind for form in possible_forms((2, 16, 4, 32), 2, (32, 256))] == ["channels first", "channels last"]
    assert [form.kind for form in possible_forms((2, 4, 32, 16), 2, (32, 256))] == ["channels last", "channels first"]
    assert [form.kind for form in possible_forms((2, 8, 8, 8), 2, (32, 32))] == ["channels first", "channels last"]


def test_what_is_pooled_to_one_cell_is_nothing_else():
    assert [form.grid for form in possible_forms((2, 12, 1, 1), 2, (32, 32))] == [(1, 1)]


@pytest.mark.parametrize("shape", [(2,), (2, 5), (3, 8, 4, 4), (2, 8, 64, 64), (2, 2, 4, 4, 4)])
def test_other_shapes_have_no_reading(shape):
    assert possible_forms(shape, 2, (32, 32)) == []


@pytest.mark.parametrize(
    ("grid", "axes", "kept"),
    [
        ((7, 7), (224, 224), True),
        ((9, 12), (33, 47), True),
        ((4, 32), (32, 64), False),
        ((64, 64), (32, 32), False),
        ((15, 1), (60, 1), True),
        ((8, 16, 16), (16, 32, 32), True),
    ],
)
def test_a_grid_keeps_the_proportions_of_the_image_or_not(grid, axes, kept):
    assert keeps_proportions(grid, axes) is kept


@pytest.mark.parametrize(("axes", "n"), [((8,), 2), ((8, 9), 4), ((5, 1), 2), ((4, 4, 4), 8), ((1, 1), 1)])
def test_orthants_are_of_one_size_and_do_not_meet(axes, n):
    count = torch.zeros(axes)
    for part in orthants(axes):
        count[part] += 1
    assert len(orthants(axes)) == n
    assert count.max() == 1
    assert per_orthant(count[None]).shape == (1, n)


def test_an_axis_with_one_cell_joins_its_halves():
    values = torch.arange(4.0)[:, None]  # top left, top right, bottom left, bottom right
    assert same_orthants(values, (60, 4), (15, 1)).flatten().tolist() == [0.5, 2.5]
    assert same_orthants(values, (60, 4), (15, 2)).flatten().tolist() == [0, 1, 2, 3]


def strengths(n=4, own=1.3):
    """Disturbances of all sizes, cells of all kinds, and a little more where they meet."""
    generator = torch.Generator().manual_seed(0)
    common = torch.rand(2, n, 1, generator=generator) * torch.rand(2, 1, n, generator=generator) + 0.1
    return common * (1 + (own - 1) * torch.eye(n))


def test_what_answers_in_its_place_is_seen_below_what_all_have_in_common():
    assert answers_in_place(strengths(own=3))
    assert not answers_in_place(torch.ones(2, 4, 4))
    assert not answers_in_place(strengths(own=3)[:, [0, 2, 1, 3]])  # rows and columns exchanged
    assert not answers_in_place(strengths(own=3).flip(1))
    assert not answers_in_place(torch.zeros(2, 4, 4))
    assert not answers_in_place(strengths(own=3) * torch.tensor([1.0, float("nan")]).view(2, 1, 1))
    assert not answers_in_place(torch.ones(2, 1, 1))  # one cell answers to everything
    assert not answers_in_place(torch.ones(2, 4, 2))


def test_one_experiment_that_says_no_is_enough():
    both = torch.stack([strengths(own=3)[0], strengths(own=3)[0].flip(0)])
    assert not answers_in_place(both)


@given(extra=st.integers(1, 5), before=st.integers(0, 36), noise=st.floats(0, 0.3))
def test_extra_tokens_are_found_wherever_they_stand(extra, before, noise):
    patterns = cell_patterns((6, 6)).flatten(1)
    generator = torch.Generator().manual_seed(before)
    others = torch.rand(len(patterns), extra, generator=generator)
    changes = torch.cat([patterns[:, :before], others, patterns[:, before:]], 1)
    changes = changes + noise * torch.rand(changes.shape, generator=generator)
    found, correlation = cells_before(changes, patterns, extra)
    assert correlation > 0.5
    assert found == before or (
        found < 36 and torch.equal(patterns[:, min(found, before)], patterns[:, max(found, before) - 1])
    )


def test_where_nothing_tells_the_extra_tokens_are_in_front():
    patterns = cell_patterns((6, 6)).flatten(1)
    assert cells_before(torch.ones(len(patterns), 37), patterns, 1) == (0, 0.0)
    assert cells_before(torch.full((len(patterns), 37), float("nan")), patterns, 1) == (0, 0.0)


def test_a_grid_of_another_width_correlates_less():
    patterns = cell_patterns((6, 6)).flatten(1)
    narrow = torch.nn.functional.interpolate(patterns.view(-1, 1, 6, 6), size=(6, 5)).flatten(1)
    assert cells_before(patterns, patterns, 0)[1] == pytest.approx(1)
    assert cells_before(patterns, narrow, 6)[1] < 0.6

"""What stays at one place when the pictures are turned: against loops, in closed form, and in the check that asks it."""

import pytest
import torch

import seewhy as sw
from checks.test_manipulation import MODEL, SIDE, X
from nets import MEAN, STD, images, tiny_cnn
from seewhy.checks.result import Verdict
from seewhy.checks.turning import TURNS, held_place, rows_of_turning
from seewhy.maps import Maps
from seewhy.target import PREDICTED, Target

ROW = torch.zeros(8, 8)
ROW[-1] = 1 / 8
FIRST = Target("index", "logit", torch.tensor(0))


def following(x):
    """The bright places of a picture, one cell each of 8 x 8."""
    return torch.nn.functional.avg_pool2d((x.mean(1, keepdim=True) - 0.7).relu(), x.shape[-1] // 8)[:, 0]


def method(held):
    """Maps of the bright places, with this much of the mass of each in the lowest row of cells instead."""

    def maps(model, x, target):
        raw = following(x)
        raw = raw / raw.sum((1, 2), keepdim=True)
        return Maps((1 - held) * raw + held * ROW, FIRST, torch.ones(len(x)), None)

    return maps


def held(maps, x=X, model=MODEL, draws=1):
    raw = maps(model, x, FIRST).raw
    return held_place(model, x, FIRST, raw, maps, magnitude=False, draws=draws, seed=0)


def test_a_map_that_follows_the_picture_has_no_place():
    found = held(method(0.0))
    assert found.masses == (0, 0)
    assert found.map.per_image == (0.0,) * len(X)
    assert not found.stays


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_of_a_map_of_even_light_the_row_that_was_added_stays(share):
    def maps(model, x, target):
        even = torch.full((len(x), 8, 8), 1 / 64)
        return Maps((1 - share) * even + share * ROW, FIRST, torch.ones(len(x)), None)

    found = held(maps)
    beside = (1 - share) / 8
    assert found.masses == pytest.approx((share + beside, beside))
    assert found.map.interval.value == pytest.approx(share - beside)
    assert found.stays


def by_loops(model, x, maps, draws, seed):
    """Place, masses and falls of every image, cell by cell."""
    n, shown = len(x), [x.flip(turn) if turn else x for turn in TURNS]
    shares = torch.zeros(n, 8, 8, dtype=torch.float64)
    for pictures in shown:
        raw = maps(model, pictures, FIRST).raw.clamp_min(0).double()
        shares += torch.stack([one / one.sum() for one in raw]) / 4
    ahead = torch.randint(1, n, (draws, n), generator=torch.Generator().manual_seed(seed))
    rows = []
    for i in range(n):
        others = torch.stack([shares[j] for j in range(n) if j != i]).mean(0)
        place, mirror = [], []
        for r in range(8):
            for c in range(8):
                beside = [(r, 7 - c), (7 - r, c), (7 - r, 7 - c)]
                least = min(beside, key=lambda at: float(others[at]))
                if others[r, c] > 2 * others[least]:
                    place.append((r, c))
                    mirror.append(least)
        mass = [sum(float(shares[i][at]) for at in several) for several in (place, mirror)]
        falls = []
        for several in (place, mirror):
            fall = []
            for pictures in shown:
                clean = float(model.predict(pictures[i : i + 1])[0, 0])
                for step in ahead[:, i].tolist():
                    changed, other = pictures[i].clone(), pictures[(i + step) % n]
                    for r, c in several:
                        at = (slice(None), slice(4 * r, 4 * r + 4), slice(4 * c, 4 * c + 4))
                        changed[at] = other[at]
                    fall.append(clean - float(model.predict(changed[None])[0, 0]))
            falls.append(sum(fall) / len(fall))
        rows.append((mass[0] - 2 * mass[1], falls[0] - 2 * falls[1]))
    return rows


def test_it_is_what_loops_over_images_turns_and_cells_find():
    model, x = sw.wrap(tiny_cnn(), mean=MEAN, std=STD, size=SIDE, batch_size=7), images(4)
    maps = sw.bind("grad_cam", layer="relu2")
    found = held(maps, x, model, draws=2)
    wanted = by_loops(model, x, maps, 2, 0)
    assert any(mass for mass, _ in wanted)
    assert found.map.per_image == pytest.approx([mass for mass, _ in wanted], abs=1e-6)
    assert found.answer.per_image == pytest.approx([fall for _, fall in wanted], abs=1e-5)


def test_the_rows_are_those_that_are_stated():
    model, x = sw.wrap(tiny_cnn(), mean=MEAN, std=STD, size=SIDE), images(3)
    maps = sw.bind("gradient")
    raw = maps(model, x, FIRST).raw
    before = (model.gradient_rows, model.forward_rows)
    held_place(model, x, FIRST, raw, maps, magnitude=True, draws=2, seed=0)
    counted = (model.gradient_rows - before[0], model.forward_rows - before[1])
    assert counted == tuple(3 * rows for rows in rows_of_turning(2))


def test_the_check_passes_a_map_that_follows_and_not_one_that_stays():
    others = {"other": method(0.0)}
    follows, stays = (
        sw.checks.manipulation(MODEL, X, PREDICTED, method(share), others=others, smooth=0) for share in (0.0, 0.3)
    )
    assert follows.verdict is Verdict.PASS
    assert stays.verdict is Verdict.UNCLEAR
    assert "stays at one place" in stays.sentence
    assert stays["held_place"].interval.low > 0
    assert stays["held_place"].controls["edge_map"].value < stays["held_place"].interval.low

"""What every registered check promises, on a tiny network: being registered is enough to be held to it."""

import json
import math

import pytest
import torch
from small_checks import COSTS, METHOD, PICTURES, SMALL

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy.registry import CHECKS
from seewhy.target import PREDICTED
from seewhy.trust import card as module
from seewhy.trust import forecast_checks
from test_contract import assert_nothing_left_behind, world

sw.checks()  # fills the registry
N = 4
each_check = pytest.mark.parametrize("name", sorted(CHECKS))


def wrapped(**given):
    return sw.wrap(tiny_cnn(), **{"mean": MEAN, "std": STD, "size": 32, "batch_size": 8, **given})


def bound(name):
    method, params = METHOD.get(name, ("gradient", {}))
    return sw.bind(method, **params)


def pictures(name):
    return PICTURES.get(name, images)(N)


def run(name, model=None, maps=None, x=None):
    x = pictures(name) if x is None else x
    model = wrapped() if model is None else model
    return CHECKS[name].function(model, x, PREDICTED, maps or bound(name), **SMALL[name](len(x)))


def numbers(found):
    return {s.name: (s.interval, s.per_image) for s in found.scores if "second" not in s.unit and "byte" not in s.unit}


def same(a, b, tolerance):
    def flat(found):
        return [v for i, per in numbers(found).values() for v in (i.value, i.low, i.high, *per)]

    assert numbers(a).keys() == numbers(b).keys()
    for v, w in zip(flat(a), flat(b), strict=True):
        assert v == w or (math.isnan(v) and math.isnan(w)) or v == pytest.approx(w, rel=tolerance, abs=tolerance)


@each_check
def test_a_check_says_what_it_found_with_everything_that_its_numbers_need(name):
    found = run(name)
    assert found.check == name
    assert found.sentence.endswith(".")
    assert found.seconds > 0
    assert set(CHECKS[name].parameters) <= set(found.settings)
    for score in found.scores:
        assert score.unit
        assert score.interval.n == sum(not math.isnan(v) for v in score.per_image) or not score.per_image
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["verdict"] in ("pass", "fail", "unclear", "no verdict", "not valid")
    assert str(found).startswith(name)


@each_check
def test_a_check_costs_no_more_rows_than_was_forecast(name):
    model, settings = wrapped(), {name: SMALL[name](N)}
    question, x = bound(name), pictures(name)
    said = forecast_checks(model, question.info, question.keywords, x.shape[1:], N, [name], settings)
    found = run(name, model, x=x)
    assert found.forward_rows <= said[0]
    assert found.gradient_rows <= said[1]


def rows_of(counted):
    return counted.forward_rows, counted.gradient_rows


@each_check
@pytest.mark.parametrize("batch_size", [3, 8])
def test_a_check_costs_exactly_the_rows_of_the_table_whatever_the_batch(name, batch_size):
    model = wrapped(batch_size=batch_size)
    assert rows_of(run(name, model)) == COSTS[name]
    assert rows_of(model) == COSTS[name]


def test_every_check_has_its_rows_in_the_table():
    assert set(CHECKS) == set(COSTS)


PROBES = {"model_randomization": 1, "manipulation": 5}  # rows that look for stages, and how a softened copy is read
TRAINS = ("data_randomization", "roar")  # networks of their own, which count for themselves


@pytest.mark.parametrize("name", sorted(set(CHECKS) - set(TRAINS)))
def test_the_rows_that_a_check_counts_are_the_rows_that_the_network_computed(name):
    net, seen = tiny_cnn(), []
    model = sw.wrap(net, mean=MEAN, std=STD, size=32, batch_size=8)
    run(name, model)  # layers and output shape are found once, outside the count
    net.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))  # copies of it count, too
    assert sum(seen) == 0
    found = run(name, model)
    assert sum(seen) == sum(rows_of(found)) + PROBES.get(name, 0)


def test_a_card_costs_its_maps_once_and_what_its_checks_ask_beyond_them():
    model, asked = wrapped(), [*module.DEFAULT, "localization"]
    settings = {name: SMALL[name](N) for name in asked if name != "documentation"}
    card = sw.check(model, images(N), "gradient", only=asked, settings=settings)
    maps = {name: (0, N) for name in settings if name != "completeness"}  # of which the card has the first ones
    beyond = {name: (COSTS[name][0], COSTS[name][1] - spent) for name, (_, spent) in maps.items()}
    beyond |= {"completeness": (0, 0), "documentation": (0, 0)}  # the gradient has no sum that must come out
    assert {row.check: rows_of(row) for row in card.rows.values()} == beyond
    assert rows_of(model) == tuple(sum(kind) for kind in zip((0, N), *beyond.values(), strict=True))


PROTOCOLS = ("pixel_flipping", "insertion_deletion", "road", "average_drop", "infidelity", "sensitivity_n")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *[("faithfulness", {"protocols": (one,), "samples": 3, "random_orders": 2}) for one in PROTOCOLS],
        ("faithfulness", {"protocols": PROTOCOLS, "unit": "superpixel", "steps": 3}),
        ("faithfulness", {"protocols": PROTOCOLS, "patch": 3, "samples": 2, "perturbation": "noise"}),
        ("model_randomization", {"smooth": 2, "order": ("independent", "bottom_up")}),
        ("model_randomization", {"statistics": "recalibrate"}),
    ],
    ids=str,
)
def test_other_settings_cost_no_more_rows_than_was_forecast_either(name, given):
    model, x, question = wrapped(), images(N), bound(name)
    said = forecast_checks(model, question.info, question.keywords, x.shape[1:], N, [name], {name: given})
    found = CHECKS[name].function(model, x, PREDICTED, question, **given)
    assert found.forward_rows <= said[0] <= 2 * found.forward_rows or not said[0]
    assert found.gradient_rows <= said[1] <= 2 * found.gradient_rows


@each_check
def test_a_check_leaves_no_trace(name):
    net = tiny_cnn().train()
    model = sw.wrap(net, mean=MEAN, std=STD, size=32, batch_size=8)
    before = world(net)
    run(name, model)
    assert_nothing_left_behind(before, world(net))


@each_check
def test_a_check_gives_the_same_numbers_twice_and_at_any_batch_size(name):
    one = run(name, wrapped(batch_size=1))
    same(run(name, wrapped(batch_size=16)), one, 1e-4)
    same(run(name, wrapped(batch_size=1)), one, 0)


SCALED = [name for name in sorted(CHECKS) if name not in ("completeness",)]  # whose numbers are in the map's own unit


@pytest.mark.parametrize("name", SCALED)
def test_a_map_times_a_hundred_has_the_same_numbers(name):
    own = bound(name)

    def scaled(model, x, target):
        found = own(model, x, target)
        found.raw.mul_(128)  # a power of two: no digit is lost
        return found

    same(run(name, maps=scaled), run(name, maps=own), 1e-5)


@each_check
def test_the_registry_says_what_a_check_asks_what_it_needs_and_where_it_comes_from(name):
    info = CHECKS[name]
    assert info.title
    assert info.question.endswith("?")
    assert info.cost
    assert info.paper
    assert info.summary.endswith(".")
    assert not [n for n in info.needs if n not in info.parameters]


READING = [
    name for name in sorted(CHECKS) if name not in ("cost", "resolution")
]  # the others ask nothing of the values


@pytest.mark.parametrize("name", READING)
def test_a_map_without_any_number_is_never_averaged(name):
    def broken(model, x, target):
        found = bound(name)(model, x, target)
        found.raw[0] = torch.nan
        return found

    found = run(name, maps=broken)
    assert all(math.isfinite(s.interval.value) or s.interval.n == 0 for s in found.scores)
    assert found.excluded or not found.scores or found.verdict in ("not valid", "no verdict")

"""What benchmarks/speed.py says of seconds, on made-up ones, and that a killed run goes on where it was."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import pairs
import speed
from pairs import fastest, judged, keep, line, measure, recorded


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the calls move."""
    now = SimpleNamespace(seconds=0.0, calls=[])
    monkeypatch.setattr(pairs, "perf_counter", lambda: now.seconds)
    return now


def taking(clock, name, seconds):
    def call():
        clock.calls.append(name)
        clock.seconds += seconds

    return call


def test_every_round_times_each_call_once_in_an_order_that_changes(clock):
    found = measure((taking(clock, "a", 1), taking(clock, "b", 2)), 25)
    assert found.tolist() == [[1, 2]] * 25
    rounds = ["".join(clock.calls[i : i + 2]) for i in range(0, 50, 2)]
    assert set(rounds) == {"ab", "ba"}


@pytest.mark.parametrize(("seconds", "rounds"), [(12, 4), (11, 3), (1, 3), (1000, 25)])
def test_a_row_that_would_last_too_long_has_fewer_pairs_but_three(clock, seconds, rounds):
    assert len(measure((taking(clock, "a", 1), taking(clock, "b", 2)), 25, seconds)) == rounds


def test_one_pair_is_one_pair_whatever_the_least_of_a_page(clock):
    assert len(measure((taking(clock, "a", 1), taking(clock, "b", 2)), 1, 0)) == 1


def test_the_fastest_size_is_found_by_its_best_round(clock):
    slow_once = iter([2, 9])  # while it warms up, then in the first round
    cost = {4: lambda: 3, 8: lambda: next(slow_once, 2), 16: lambda: 4}

    def call(size):
        clock.seconds += cost[size]()

    assert fastest(call, (4, 8, 16)) == 8


def test_a_ratio_is_taken_within_the_pair_not_between_medians():
    found = judged([[1, 4], [2, 4], [4, 4], [8, 4], [1, 4]], 2, True)
    assert (found.ours, found.theirs, found.pairs) == (2, 4, 5)
    assert found.median == 2  # of 4, 2, 1, 1/2, 4
    assert judged([[1, 4], [2, 2], [3, 9]], 3, True).median == 3  # of 4, 1, 3; the medians of the seconds are 2 and 4
    assert found.low <= found.median <= found.high


def test_a_goal_is_met_when_the_median_meets_it():
    pair = [[2, 5]]
    assert judged(pair, 2.5, True).met
    assert not judged(pair, 2.51, True).met
    assert judged(pair, 0.4, False).met
    assert not judged(pair, 0.39, False).met
    alike = judged(pair * 7, 1, True)
    assert (alike.low, alike.median, alike.high) == (2.5, 2.5, 2.5)


def test_a_straight_line_is_found_and_a_bend_is_measured():
    assert line((1, 2, 4, 8), [3, 5, 9, 17]) == pytest.approx((1, 2, 0))
    start, slope, deviation = line((1, 2, 4, 8), [3, 5, 9, 34])
    fitted = start + slope * np.array([1, 2, 4, 8])
    assert deviation == pytest.approx(np.abs(np.array([3, 5, 9, 34]) / fitted - 1).max())
    by_hand = (0.1414, 2.6307)  # the normal equations with weights 1 / y^2
    assert (start, slope) == pytest.approx(by_hand, abs=1e-2)


def test_only_what_was_measured_with_the_same_settings_is_taken_up(tmp_path):
    path = tmp_path / "speed.jsonl"
    assert recorded(path, {"threads": 2}) == {}
    keep(path, {"threads": 2}, {"name": "a", "seconds": [[1, 2]]})
    keep(path, {"threads": 1}, {"name": "b", "seconds": [[3, 4]]})
    found = recorded(path, {"threads": 2})
    assert [(name, record["seconds"]) for name, record in found.items()] == [("a", [[1, 2]])]


def work():
    return sum(range(999))


def a_case(name, done, fault=None):
    def contest():
        if fault is not None:
            raise fault
        done.append(name)
        return SimpleNamespace(ours=work, theirs=work, agreement="maps r = 1.0000", note="")

    return SimpleNamespace(name=name, what=name, network="net", images=1, goal=1.1, speedup=False, contest=contest)


def run(monkeypatch, folder, cases, *arguments):
    curve = SimpleNamespace(name="growth", what="growth", sizes=(1, 2), call=lambda size: work())
    rows = SimpleNamespace(SIZES={"tiny": None}, cases=lambda _: cases, curves=lambda _: [curve])
    monkeypatch.setitem(sys.modules, "speed_cases", rows)
    given = ["--sizes", "tiny", "--pairs", "3", "--results", folder / "speed.jsonl", "--page", folder / "speed.md"]
    monkeypatch.setattr(sys, "argv", ["speed.py", *map(str, given), *arguments])
    speed.main()


def test_a_killed_run_goes_on_where_it_was_and_writes_the_page_at_the_end(tmp_path, monkeypatch, capsys):
    first, second = [], []
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, tmp_path, [a_case("one", first), a_case("two", first, KeyboardInterrupt())])
    assert not (tmp_path / "speed.md").exists()
    run(monkeypatch, tmp_path, [a_case("one", second), a_case("two", second)])
    assert (first, second) == (["one"], ["two"])
    page = (tmp_path / "speed.md").read_text("utf-8")
    assert all(f"| {name} | net | 1 |" in page for name in ("one", "two"))
    assert "| growth | 1, 2 |" in page
    assert "no number here means anything" in page


def test_a_part_of_the_rows_is_no_page(tmp_path, monkeypatch, capsys):
    run(monkeypatch, tmp_path, [a_case("one", []), a_case("two", [])], "--only", "one")
    assert "2 of 3 rows are not measured yet" in capsys.readouterr().out
    assert not (tmp_path / "speed.md").exists()


def test_a_row_says_how_many_pairs_and_whether_the_goal_is_met():
    case = a_case("rise", [])
    record = {"seconds": [[1.2, 1.0]] * 4, "agreement": "maps r = 0.9990", "note": "8 masks"}
    assert speed.table_row(case, record) == (
        "| rise (8 masks) | net | 1 | 1.200 | 1.000 | 1.20 | 1.20 to 1.20 | 4 | <= 1.10 | **no** | maps r = 0.9990 |"
    )
    curve = SimpleNamespace(what="`rise`, masks", sizes=(1, 2, 4))
    rounds = [[1, 2, 4], [2, 3, 5], [9, 9, 9]]  # medians 2, 3, 5: one second, and one a mask
    assert speed.curve_row(curve, {"seconds": rounds}) == "| `rise`, masks | 1, 2, 4 | 2, 3, 5 | 1000.0 | 1000 | 0 % |"

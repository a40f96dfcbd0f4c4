"""The gate, on reports made by hand."""

import copy
import json
import math

import pytest
from fabricated import TODAY, accept, effect, finding, report, row
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.audit.gate import judge, read_report
from seewhy.audit.policy import KINDS, STATUSES, UNITS, Acceptance, read_policy
from seewhy.errors import UsageError

A, B, C = "a" * 16, "b" * 16, "c" * 16


@pytest.fixture
def judged(policy):
    def run(given, text=None, against=None):
        before = copy.deepcopy((given, against))
        found = judge(given, policy(text), against, TODAY)
        assert (given, against) == before
        json.dumps(found, allow_nan=False)
        assert len(found["reasons"]) == 3
        assert all(isinstance(line, str) and line for line in found["reasons"])
        return found

    return run


def blocking(found):
    return [one["id"] for one in found["findings"] if one["blocks"]]


def test_without_a_finding_it_passes_and_says_what_would_have_shown_and_what_was_not_tested(judged):
    found = judged(report())
    assert found["verdict"] == "pass"
    assert found["reasons"] == [
        "Pass: nothing blocks in 960 images.",
        "The smallest effects that would have shown: local pattern 0.04 in probability (n = 120); whole image 0.02 in "
        "probability (n = 480).",
        "Not tested: Background: no boxes or masks were given.",
    ]
    assert found["policy"]["path"] is None
    assert len(found["policy"]["sha256"]) == 64
    assert list(found)[:4] == ["schema", "verdict", "reasons", "policy"]


def test_a_confirmed_finding_blocks_and_the_lines_say_which_and_what_to_do(judged):
    found = judged(report([finding(), finding(B, status="untested"), finding(C, status="refuted")]))
    assert found["verdict"] == "blocked"
    assert blocking(found) == [A]
    assert found["reasons"][0] == "Blocked by 1 finding."
    assert found["reasons"][1] == found["findings"][0]["sentence"]
    assert f"findings/{A}/" in found["reasons"][2]
    assert all(one["accepted"] is None and one["new"] is None for one in found["findings"])


def test_the_policy_decides_which_kinds_and_statuses_block(judged):
    both = report([finding(), finding(B, "whole_image", "untested")])
    assert judged(both, '[findings]\nkinds = ["whole_image"]')["verdict"] == "pass"
    assert blocking(judged(both, '[findings]\nstatuses = ["confirmed", "untested"]')) == [A, B]
    assert judged(both, "[findings]\nstatuses = []")["verdict"] == "pass"
    assert "1 confirmed finding that the policy lets pass" in judged(both, "[findings]\nstatuses = []")["reasons"][0]


def test_a_kind_that_no_policy_can_name_is_never_let_through(judged):
    assert judged(report([finding(kind="of_tomorrow")]), '[findings]\nkinds = ["place"]')["verdict"] == "blocked"


@pytest.mark.parametrize(
    ("effects", "blocks"),
    [
        ([effect(removed=(-0.1, -0.15, -0.05), pasted=None)], False),
        ([effect(removed=(-0.1, -0.25, -0.05), pasted=None)], True),  # it may be 0.25
        ([effect(removed=(-0.1, -0.15, -0.05), pasted=(0.1, 0.0, 0.2))], True),
        ([effect(removed=(-0.01, -0.02, 0.0), pasted=(0.01, 0.0, 0.19))], False),
        ([effect(removed=(-0.1, None, None), pasted=None)], True),  # no interval: nothing is excluded
        ([effect(removed=(-0.1, math.nan, -0.05), pasted=None)], True),
        ([effect(removed=None, pasted=None)], True),
        ([], True),
        ([effect("logit", removed=(-0.1, -0.15, -0.05), pasted=None)], True),  # no level of this unit
        ([effect("logit"), effect(removed=(-0.1, -0.15, -0.05), pasted=None)], False),
        ([effect(removed=(-0.1, -0.15, -0.05), pasted=None), effect()], True),
    ],
)
def test_a_finding_passes_only_where_its_whole_interval_lies_below_the_level(policy, effects, blocks):
    found = judge(
        report([finding(effects=effects)]), policy("[findings]\nmin_effect = {probability = 0.2}"), None, TODAY
    )
    assert found["findings"][0]["blocks"] is blocks
    assert found["verdict"] == ("blocked" if blocks else "pass")


def test_an_accepted_finding_stays_marked_and_does_not_block(judged):
    found = judged(report([finding(), finding(B)]), accept())
    assert found["findings"][0]["accepted"] == {
        "id": A,
        "reason": "known ruler",
        "name": "A. Person",
        "until": "2027-01-31",
    }
    assert (found["verdict"], blocking(found)) == ("blocked", [B])
    assert found["reasons"][0] == f"Blocked by 1 finding; accepted: {A} until 2027-01-31."
    alone = judged(report([finding()]), accept())
    assert alone["verdict"] == "pass"
    assert f"accepted: {A} until 2027-01-31" in alone["reasons"][0]


def test_an_acceptance_of_nothing_or_of_yesterday_is_an_error_that_names_it(judged):
    with pytest.raises(UsageError, match=f"'{A}' by A. Person ended on 2026-11-22"):
        judged(report([finding()]), accept(until="2026-11-22"))
    with pytest.raises(UsageError, match="'aab', which this report does not have: did you mean 'aaa'"):
        judged(report([finding("aaa")]), accept("aab"))
    with pytest.raises(UsageError, match="none to choose from"):
        judged(report(), accept())
    with pytest.raises(UsageError, match="is gone: remove its"):
        judged(report(), accept(), against=report([finding()]))


def test_an_interrupted_run_is_incomplete_whatever_it_found(judged):
    found = judged(report([finding()], interrupted="interrupted after 312 of 960 images"))
    assert found["verdict"] == "incomplete"
    assert found["reasons"][0] == "Incomplete: interrupted after 312 of 960 images. This is no verdict."
    assert found["findings"][0]["sentence"] in found["reasons"][1]
    assert judged(report(interrupted=True))["verdict"] == "incomplete"
    assert judged(report(n_images=0, interrupted=True))["verdict"] == "incomplete"
    assert judged(report(interrupted=True), accept())["verdict"] == "incomplete"  # its finding may still come
    assert judged(report(interrupted=True), against=report([finding()]))["gone"] == []  # it may still come, too


def test_only_what_is_new_blocks_beside_an_earlier_run(judged):
    before = report([finding(), finding(C)])
    found = judged(report([finding(), finding(B)]), against=before)
    assert [one["new"] for one in found["findings"]] == [False, True]
    assert (found["verdict"], blocking(found)) == ("blocked", [B])
    assert found["gone"] == [
        {"id": C, "kind": "local_pattern", "sentence": before["findings"][1]["sentence"], "now": None}
    ]
    same = judged(before, against=before)
    assert (same["verdict"], same["gone"]) == ("pass", [])
    assert "2 known from the earlier run" in same["reasons"][0]
    fixed = judged(report([finding(status="refuted"), finding(C)]), against=before)
    assert fixed["gone"][0]["now"] == "refuted"
    assert "1 gone since then" in fixed["reasons"][0]


def test_what_was_suspected_or_refuted_before_and_is_confirmed_now_is_new(judged):
    for status in ("untested", "refuted"):
        assert judged(report([finding()]), against=report([finding(status=status)]))["verdict"] == "blocked"


def test_an_effect_that_has_grown_beyond_the_level_is_new(judged):
    small = finding(effects=[effect(removed=(-0.1, -0.15, -0.05), pasted=None)])
    level = "[findings]\nmin_effect = { probability = 0.2 }"
    assert judged(report([finding()]), level, against=report([small]))["verdict"] == "blocked"
    assert judged(report([small]), level, against=report([finding()]))["verdict"] == "pass"


def test_too_few_images_are_inconclusive(judged):
    found = judged(report(n_images=19), "[images]\nat_least = 20")
    assert found["verdict"] == "inconclusive"
    assert found["reasons"][1] == "19 images; the policy asks for at least 20."
    assert judged(report(n_images=20), "[images]\nat_least = 20")["verdict"] == "pass"
    assert judged(report([finding()], n_images=19), "[images]\nat_least = 20")["verdict"] == "blocked"


@pytest.mark.parametrize(
    ("detectable", "text", "said"),
    [
        ({}, "", "None of the kinds that the policy names was tested."),
        ({"place": [{"unit": "logit", "n": 3, "value": None}]}, "", "Place: n = 3 is too few to show any effect."),
        (
            {"place": [{"unit": "probability", "n": 30, "value": 0.08}]},
            "[findings]\nmin_effect = { probability = 0.05 }",
            "an effect of 0.05 in probability could have gone unseen; the smallest that n = 30 would have shown is 0.08",
        ),
        (
            {"place": [{"unit": "logit", "n": 30, "value": 1.0}, {"unit": "probability", "n": 30, "value": None}]},
            "[findings]\nmin_effect = { probability = 0.05 }",
            "would have shown is none",
        ),
        (
            {"place": [{"unit": "logit", "n": 30, "value": 1.0}]},
            '[findings]\nmust_be_tested = ["background"]',
            "The policy asks that background is tested, and it was not.",
        ),
    ],
)
def test_what_the_images_could_not_have_shown_is_inconclusive(judged, detectable, text, said):
    found = judged(report(detectable_effect=detectable), text)
    assert found["verdict"] == "inconclusive"
    assert said in found["reasons"][1]


def test_kinds_that_the_policy_does_not_name_do_not_make_it_inconclusive(judged):
    kinds = {
        "place": [{"unit": "score", "n": 40, "value": 1.5}],
        "background": [{"unit": "score", "n": 1, "value": None}],
    }
    assert judged(report(detectable_effect=kinds), '[findings]\nkinds = ["place"]')["verdict"] == "pass"
    assert judged(report(detectable_effect=kinds))["verdict"] == "inconclusive"


def test_a_check_that_the_policy_names_blocks_where_it_fails(judged):
    text = '[checks]\nfail = ["stability"]'
    assert judged(report(checks=[row("stability", "pass")]), text)["verdict"] == "pass"
    found = judged(report(checks=[row("stability", "pass"), row("stability", "fail", "occlusion")]), text)
    assert found["verdict"] == "blocked"
    assert [one["blocks"] for one in found["checks"]] == [False, True]
    assert "stability of occlusion" in found["reasons"][1]
    assert judged(report(checks=[row("stability", "fail")]))["verdict"] == "pass"  # the shipped policy names none


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([], "The policy asks for the check stability, which was not run."),
        ([row("stability", "unclear")], "says 'unclear'"),
        ([row("stability", "not valid")], "says 'not valid'"),
        ([row("stability", "no verdict")], "says 'no verdict'"),
    ],
)
def test_a_check_that_does_not_answer_is_inconclusive(judged, checks, said):
    found = judged(report(checks=checks), '[checks]\nfail = ["stability"]')
    assert found["verdict"] == "inconclusive"
    assert said in found["reasons"][1]


@pytest.mark.parametrize(
    ("bounds", "ends", "verdict"),
    [
        ("at_least = 0.5", (0.5, 0.8), "pass"),
        ("at_least = 0.5", (0.4, 0.8), "inconclusive"),
        ("at_least = 0.5", (0.2, 0.49), "blocked"),
        ("at_most = 0.5", (0.2, 0.5), "pass"),
        ("at_most = 0.5", (0.4, 0.8), "inconclusive"),
        ("at_most = 0.5", (0.51, 0.8), "blocked"),
        ("at_least = 0.2, at_most = 0.5", (0.3, 0.4), "pass"),
    ],
)
def test_a_level_blocks_where_the_whole_interval_lies_beyond_it(judged, bounds, ends, verdict):
    text = f"[checks.levels.localization]\nenergy_inside = {{ {bounds} }}"
    found = judged(report(checks=[row(energy_inside=ends)]), text)
    assert found["verdict"] == verdict
    if verdict == "blocked":
        assert f"[{ends[0]}, {ends[1]}] (n = 20)" in found["reasons"][1]


def test_a_level_that_nothing_answers_is_inconclusive(judged):
    text = "[checks.levels.localization]\nenergy_insid = { at_least = 0.5 }"
    assert "was not run" in judged(report(), text)["reasons"][1]
    assert "did you mean 'energy_inside'" in judged(report(checks=[row(energy_inside=(0, 1))]), text)["reasons"][1]
    text = text.replace("insid ", "inside ")
    lost = row(energy_inside=(0.6, 0.8))
    lost["scores"][0] |= {"low": None, "high": None}
    assert "no interval" in judged(report(checks=[lost]), text)["reasons"][1]
    assert (
        "no interval" in judged(report(checks=[row(verdict="not valid", energy_inside=(0.6, 0.8))]), text)["reasons"][1]
    )


def test_a_check_that_failed_before_is_not_new(judged):
    text = '[checks]\nfail = ["stability"]'
    failed = report(checks=[row("stability", "fail")])
    assert judged(failed, text, against=failed)["verdict"] == "pass"
    assert judged(failed, text, against=report(checks=[row("stability", "fail", "occlusion")]))["verdict"] == "blocked"


def test_a_check_that_breaks_more_than_before_is_new(judged):
    text = '[checks]\nfail = ["localization"]\n[checks.levels.localization]\nenergy_inside = { at_least = 0.5 }'
    failed, worse = (
        report(checks=[row("localization", "fail", energy_inside=ends)]) for ends in ((0.6, 0.8), (0.1, 0.3))
    )
    assert judged(worse, text, against=worse)["verdict"] == "pass"
    assert judged(worse, text, against=failed)["verdict"] == "blocked"
    assert judged(failed, text, against=worse)["verdict"] == "pass"


def test_a_report_that_cannot_be_compared_with_is_said_so(tmp_path):
    with pytest.raises(UsageError, match="holds no finished audit"):
        read_report(tmp_path)
    file = tmp_path / "findings.json"
    for content, said in (("{", "cannot be read"), ("[]", "schema 'list'"), ('{"schema": 2}', "schema 2")):
        file.write_text(content)
        with pytest.raises(UsageError, match=said):
            read_report(tmp_path)
    for content in ('{"schema": 1, "findings": [{"id": "a"}], "checks": []}', '{"schema": 1, "findings": []}'):
        file.write_text(content)
        with pytest.raises(UsageError, match="is no report of an audit"):
            read_report(tmp_path)
    file.write_text(json.dumps(report([finding()])))
    assert read_report(tmp_path) == read_report(file) == report([finding()])


NUMBERS = st.one_of(st.none(), st.floats(-2, 2), st.just(math.nan))
EFFECTS = st.builds(effect, st.sampled_from(UNITS), *[st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS, NUMBERS))] * 2)
FINDINGS = st.lists(
    st.builds(
        finding,
        st.sampled_from("abcdefgh"),
        st.sampled_from((*KINDS, "new_kind")),
        st.sampled_from((*STATUSES, "refuted")),
        st.lists(EFFECTS, max_size=2),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one["id"],
)


@settings(max_examples=60, deadline=None, database=None)
@given(FINDINGS, st.one_of(st.none(), FINDINGS), st.floats(0, 1), st.booleans(), st.data())
def test_an_acceptance_changes_its_own_finding_and_no_other(now, before, level, untested, data):
    from dataclasses import replace

    policy = replace(
        read_policy(),
        min_effect={"probability": level, "logit": 0.0, "score": level},
        statuses=STATUSES if untested else STATUSES[:1],
    )
    one = data.draw(st.sampled_from([f["id"] for f in now]))
    accepting = replace(policy, accept=(Acceptance(one, "why", "who", TODAY),))
    against = None if before is None else report(before)
    without, with_it = (judge(report(now), p, against, TODAY) for p in (policy, accepting))
    pairs = list(zip(without["findings"], with_it["findings"], strict=True))
    assert all(repr(a) == repr(b) for a, b in pairs if a["id"] != one)  # repr: NaN is not NaN
    (mine,) = [b for _, b in pairs if b["id"] == one]
    assert mine["accepted"]["name"] == "who"
    assert not mine["blocks"]
    others = any(b["blocks"] for _, b in pairs)
    assert (with_it["verdict"] == "blocked") == others
    assert without["gone"] == with_it["gone"]
    if without["verdict"] != "blocked":
        assert without["verdict"] == with_it["verdict"]

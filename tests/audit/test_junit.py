"""What a CI reads."""

from xml.etree import ElementTree

from fabricated import TODAY, accept, finding, report, row

from seewhy.audit.gate import judge
from seewhy.audit.junit import junit

A, B, C, D = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)


def parsed(policy, given, text=None, against=None):
    root = ElementTree.fromstring(junit(judge(given, policy(text), against, TODAY)))
    return root, {case.get("name"): case for case in root.iter("testcase")}


def outcome(case):
    return case[0].tag, case[0].get("message")


def test_what_blocks_fails_with_its_sentence_and_what_is_accepted_is_skipped_with_its_reason(policy):
    findings = [finding(), finding(B), finding(C, status="refuted"), finding(D, status="untested")]
    given = report(findings, [row("stability", "fail"), row("cost", "no verdict")])
    root, cases = parsed(policy, given, '[checks]\nfail = ["stability"]' + accept())
    assert outcome(cases[B]) == ("failure", findings[1]["sentence"])
    assert outcome(cases[A]) == ("skipped", "accepted by A. Person until 2027-01-31: known ruler")
    assert outcome(cases[C])[0] == "system-out"
    assert outcome(cases[D])[0] == "skipped"
    assert outcome(cases["stability"])[0] == "failure"
    assert outcome(cases["cost"])[0] == "system-out"
    assert outcome(cases["verdict"]) == (
        "failure",
        f"Blocked by 1 finding and 1 check; accepted: {A} until 2027-01-31.",
    )
    assert "dog/2.jpg" in cases[B][0].text
    assert cases[B].get("classname") == "seewhy.findings.local_pattern"
    assert cases["stability"].get("classname") == "seewhy.checks.grad_cam"
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "3",
        "errors": "0",
        "skipped": "2",
    }
    for name in ("tests", "failures", "errors", "skipped"):
        assert int(root.get(name)) == sum(int(suite.get(name)) for suite in root)


def test_a_pass_has_a_case_that_passes_even_without_a_finding(policy):
    root, cases = parsed(policy, report())
    assert cases["verdict"].get("classname") == "seewhy.gate"
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "0")
    assert "smallest effects" in cases["verdict"][0].text


def test_a_verdict_that_is_none_is_an_error(policy):
    assert outcome(parsed(policy, report(interrupted=True))[1]["verdict"])[0] == "error"
    assert outcome(parsed(policy, report(detectable_effect={}))[1]["verdict"])[0] == "error"


def test_a_known_finding_is_skipped_beside_an_earlier_run(policy):
    _, cases = parsed(policy, report([finding()]), against=report([finding()]))
    assert outcome(cases[A])[1].startswith("known from the earlier run")


def test_control_characters_markup_and_half_surrogates_do_not_break_it(policy):
    nasty = "a\x00b\x1b[31m\x07<&\"'>\ud800\ufffe é 漢 \U0001f600.jpg"
    given = report(
        [finding(sentence=nasty, images=[nasty], suspicion=[nasty])], [row() | {"sentence": nasty}], not_tested=[nasty]
    )
    given["findings"][0]["kind"] = nasty
    text = junit(judge(given, policy(), None, TODAY))
    text.encode()
    root = ElementTree.fromstring(text)
    (failure,) = [one for one in root.iter("failure") if "Blocked" not in one.get("message")]
    assert failure.get("message") == "a\\x00b\\x1b[31m\\x07<&\"'>\\ud800\\ufffe é 漢 \U0001f600.jpg"
    assert failure.get("message") in failure.text

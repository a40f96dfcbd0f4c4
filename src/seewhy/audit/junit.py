"""A report as JUnit XML, which every CI reads: a test case a finding and a check, and one for the verdict."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, section 2.2
Outcome = tuple[str, str] | None  # failure, error or skipped, with what is said; None: it passed


def junit(report: Mapping[str, Any]) -> str:
    """A judged report as JUnit XML: what blocks fails with its sentence, what is accepted is skipped with its reason.

    A verdict that is inconclusive or incomplete is an error. What XML cannot hold (control characters, half a surrogate in
    a file's name) is written as its escape.
    """
    suites = {
        "verdict": [("gate", "verdict", _of_verdict(report), "\n".join(report["reasons"]))],
        "findings": [
            (f"findings.{one['kind']}", one["id"], _of_finding(one), _details(one)) for one in report["findings"]
        ],
        "checks": [
            (f"checks.{_method(one)}", one["check"], _of_check(one), one["sentence"]) for one in report["checks"]
        ],
    }
    root = ElementTree.Element("testsuites", {"name": "seewhy audit"})
    for name, cases in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": f"seewhy.{name}", **_counts(c[2] for c in cases)})
        for kind, case, outcome, details in cases:
            _add(suite, f"seewhy.{kind}", case, outcome, details)
    root.attrib |= _counts(case[2] for cases in suites.values() for case in cases)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _of_verdict(report: Mapping[str, Any]) -> Outcome:
    if report["verdict"] == "pass":
        return None
    return "failure" if report["verdict"] == "blocked" else "error", report["reasons"][0]


def _of_finding(finding: Mapping[str, Any]) -> Outcome:
    if finding["blocks"]:
        return "failure", finding["sentence"]
    by = finding["accepted"]
    if by:
        return "skipped", f"accepted by {by['name']} until {by['until']}: {by['reason']}"
    if finding["status"] == "confirmed":
        why = "known from the earlier run" if finding["new"] is False else "the policy does not block on it"
        return "skipped", f"{why}: {finding['sentence']}"
    return ("skipped", f"not tested: {finding['sentence']}") if finding["status"] == "untested" else None


def _of_check(row: Mapping[str, Any]) -> Outcome:
    return ("failure", row["gate"]) if row["blocks"] else None


def _details(finding: Mapping[str, Any]) -> str:
    lines = [finding["sentence"], *(f"- {fact}" for fact in finding["suspicion"]), "Images that show it:"]
    return "\n".join([*lines, *map(str, finding["images"][:20])])


def _method(row: Mapping[str, Any]) -> str:
    return str(row.get("card", {}).get("method", "model"))


def _counts(outcomes: Iterable[Outcome]) -> dict[str, str]:
    kinds = [None if outcome is None else outcome[0] for outcome in outcomes]
    named = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    return {"tests": str(len(kinds)), **{name: str(kinds.count(kind)) for name, kind in named.items()}}


def _add(suite: ElementTree.Element, kind: str, name: str, outcome: Outcome, details: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", {"classname": _writable(kind), "name": _writable(name)})
    if outcome is None:
        ElementTree.SubElement(case, "system-out").text = _writable(details)
    else:
        tag, said = outcome
        ElementTree.SubElement(case, tag, {"message": _writable(said)}).text = _writable(details)


def _writable(text: str) -> str:
    return UNWRITABLE.sub(lambda found: ascii(found[0])[1:-1], text)

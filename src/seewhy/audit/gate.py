"""The gate: whether a model may ship, judged from a finished report, a policy and, if given, an earlier report.

A report is what findings.json holds. Beside its findings and checks this reads:
    interrupted         why the run ended before its end; "" or absent: it did not
    detectable_effect   kind -> [{"unit", "n", "value"}]: the smallest effect that n images would have shown; null: none
    not_tested          sentences
It adds `verdict`, `reasons`, `policy`, `gone`; to a finding `accepted`, `new` and `blocks`; to a check's row `new`, `blocks`
and `gate`, the reason. A finding or check that is not new does not block; `new` is null where nothing is compared.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seewhy.audit.candidate import KINDS
from seewhy.audit.policy import Level, Policy, refuse_expired
from seewhy.errors import UsageError, near_names
from seewhy.runfolder import read_json

FILE = "findings.json"
SCHEMA = 1
OF_UNIT = {"probability": "in probability", "logit": "in the logit", "score": "points of score"}
NEEDED = {"id", "kind", "status", "effect", "sentence"}  # of a finding, to compare it with another
Report = Mapping[str, Any]


def read_report(source: str | Path) -> dict[str, Any]:
    """The findings.json of a run folder, or such a file; UsageError where there is none that can be read."""
    path = Path(source) / FILE if Path(source).is_dir() else Path(source)
    found = read_json(path, SCHEMA, f"{source} holds no finished audit: there is no {FILE} in it.")
    findings = found.get("findings") if isinstance(found.get("checks"), list) else None
    if not isinstance(findings, list) or not all(isinstance(f, dict) and f.keys() >= NEEDED for f in findings):
        raise UsageError(
            f"{path} is no report of an audit: it has findings with {', '.join(sorted(NEEDED))}, and checks."
        )
    return found


def judge(report: Report, policy: Policy, against: Report | None, today: date) -> dict[str, Any]:
    """The report with its verdict (pass, blocked, inconclusive, incomplete) and the three lines that a person needs first.

    against: an earlier report; then only what is new blocks, and what is gone is listed. An interrupted run is incomplete
    whatever it found. UsageError for an acceptance that has ended, or of a finding that a finished report does not have.
    """
    refuse_expired(policy, today)
    interrupted = report.get("interrupted") or ""
    if not interrupted:
        _refuse_unknown(policy, report, against)
    findings = _judged_findings(report, policy, against)
    asked = _asked_of_checks(report, policy)
    checks = _judged_checks(asked, None if against is None else _asked_of_checks(against, policy))
    gone = [] if against is None or interrupted else _gone(findings, against)
    doubts = [*_too_little(report, policy), *_unanswered(asked, policy)]
    if interrupted:
        verdict, lines = "incomplete", _incomplete_lines(str(interrupted), findings)
    elif any(one["blocks"] for one in (*findings, *checks)):
        verdict, lines = "blocked", _blocked_lines(findings, checks)
    elif doubts:
        verdict, lines = "inconclusive", _inconclusive_lines(doubts, findings)
    else:
        verdict, lines = "pass", _pass_lines(report, findings, checks, gone)
    head = {"schema": SCHEMA, "verdict": verdict, "reasons": lines, "policy": policy.to_dict()}
    judged = {"findings": findings, "checks": checks, "gone": gone}
    return {**head, **{name: value for name, value in report.items() if name not in head}, **judged}


# --- findings


def _refuse_unknown(policy: Policy, report: Report, against: Report | None) -> None:
    known = [finding["id"] for finding in report["findings"]]
    before = [finding["id"] for finding in (against or {}).get("findings", [])]
    for one in policy.accept:
        if one.id not in known:
            gone = "it was in the run compared against and is gone: remove its [[accept]]."
            hint = gone if one.id in before else near_names(one.id, known)
            raise UsageError(f"{one.name} accepts the finding {one.id!r}, which this report does not have: {hint}")


def _judged_findings(report: Report, policy: Policy, against: Report | None) -> list[dict[str, Any]]:
    accepted = {one.id: one for one in policy.accept}
    before = None if against is None else {finding["id"]: finding for finding in against["findings"]}
    found = []
    for finding in report["findings"]:
        by = accepted.get(finding["id"])
        new = None if before is None else _is_new(finding, before.get(finding["id"]), policy)
        marks = {"accepted": None if by is None else by.to_dict(), "new": new}
        found.append({**finding, **marks, "blocks": by is None and new is not False and _is_bad(finding, policy)})
    return found


def _is_bad(finding: Report, policy: Policy) -> bool:
    """Whether the policy blocks on such a finding; a kind that no policy can name is never let through."""
    named = finding["kind"] in policy.kinds or finding["kind"] not in KINDS
    return named and finding["status"] in policy.statuses and _may_reach(finding, policy.min_effect)


def _may_reach(finding: Report, levels: Mapping[str, float]) -> bool:
    """Whether the effect may be as large as the level of any unit; without a level, or without an interval, it may."""
    judged = [one for one in finding["effect"] if levels.get(one["unit"], 0) > 0]
    return not judged or any(_largest(one) >= levels[one["unit"]] for one in judged)


def _largest(effect: Report) -> float:
    """The end of the intervals that is farthest from 0; infinite where one is not known."""
    numbers = [effect[how][end] for how in ("removed", "pasted") if effect.get(how) for end in ("value", "low", "high")]
    return max((abs(v) if _is_number(v) else math.inf for v in numbers), default=math.inf)


def _is_new(finding: Report, before: Report | None, policy: Policy) -> bool:
    """Whether it was not there before, only suspected, or too small to block."""
    if before is None or before["status"] not in ("confirmed", finding["status"]):
        return True
    return _is_bad(finding, policy) and not _is_bad(before, policy)


def _gone(findings: Iterable[Report], against: Report) -> list[dict[str, Any]]:
    """What was confirmed in the earlier run and is not in this one, with what this one says of it."""
    now = {finding["id"]: finding["status"] for finding in findings}
    return [
        {**{key: finding[key] for key in ("id", "kind", "sentence")}, "now": now.get(finding["id"])}
        for finding in against["findings"]
        if finding["status"] == "confirmed" and now.get(finding["id"]) != "confirmed"
    ]


# --- checks


class Asked(NamedTuple):
    """A row of the trust card held against the policy: what was asked -> what is said of it."""

    row: Report
    broken: dict[str, str]  # blocks
    unclear: dict[str, str]  # the row does not answer

    @property
    def wrong(self) -> set[tuple[str, str, str]]:
        """What is broken, as it is called in any report: check, method, what was asked."""
        method = self.row.get("card", {}).get("method", "")
        return {(self.row["check"], method, what) for what in self.broken}


def _asked_of_checks(report: Report, policy: Policy) -> list[Asked]:
    found = []
    for row in report["checks"]:
        asked = Asked(row, {}, {})
        if row["check"] in policy.fail and row["verdict"] != "pass":
            said = f"The check {_name(row)} says {row['verdict']!r}: {row['sentence']}"
            (asked.broken if row["verdict"] == "fail" else asked.unclear)["verdict"] = said
        for level in policy.levels:
            if level.check == row["check"]:
                answer, said = _held_against(row, level)
                if answer != "within":
                    (asked.broken if answer == "beyond" else asked.unclear)[level.score] = said
        found.append(asked)
    return found


def _name(row: Report) -> str:
    method = row.get("card", {}).get("title", "")
    return f"{row['check']} of {method}" if method else str(row["check"])


def _held_against(row: Report, level: Level) -> tuple[Literal["within", "beyond", "unclear"], str]:
    """Whether the whole interval of a score lies within its level, or beyond it, in words."""
    score = next((one for one in row["scores"] if one["name"] == level.score), None)
    if score is None:
        known = near_names(level.score, [one["name"] for one in row["scores"]])
        return "unclear", f"The check {_name(row)} has no score {level.score!r}: {known}"
    low, high = score["low"], score["high"]
    if not (_is_number(low) and _is_number(high)) or row["verdict"] == "not valid":
        return "unclear", f"{level.score} of the check {_name(row)} has no interval that could be held against a level."
    said = (
        f"{level.score} of the check {_name(row)} is {score['value']:.3g} [{low:.3g}, {high:.3g}] (n = {score['n']}); "
        f"the policy asks for {level}."
    )
    least = -math.inf if level.at_least is None else level.at_least
    most = math.inf if level.at_most is None else level.at_most
    if least <= low and high <= most:
        return "within", said
    return "beyond" if high < least or low > most else "unclear", said


def _judged_checks(asked: Sequence[Asked], before: Sequence[Asked] | None) -> list[dict[str, Any]]:
    known = set() if before is None else set().union(*(one.wrong for one in before))
    found = []
    for one in asked:
        fresh = bool(one.wrong - known)
        marks = {"new": None if before is None else fresh, "blocks": fresh, "gate": " ".join(one.broken.values())}
        found.append({**one.row, **marks})
    return found


# --- what is too little for a pass


def _too_little(report: Report, policy: Policy) -> list[str]:
    """Why these images prove too little for what the policy asks."""
    images, found = report["n_images"], []
    if images < policy.images:
        found.append(f"{_count(images, 'image')}; the policy asks for at least {policy.images:,}.")
    detectable = report["detectable_effect"]
    tested = [kind for kind in policy.kinds if detectable.get(kind)]
    if policy.statuses and policy.kinds and not tested:
        found.append("None of the kinds that the policy names was tested.")
    lacking = [kind for kind in policy.must_be_tested if not detectable.get(kind)]
    found += [f"The policy asks that {_words(kind)} is tested, and it was not." for kind in lacking]
    return found + [said for kind in tested for said in _unseen(kind, detectable[kind], policy.min_effect)]


def _unseen(kind: str, smallest: Sequence[Report], levels: Mapping[str, float]) -> list[str]:
    """Why an effect of this kind that the policy blocks on could have gone unseen."""
    if not any(_is_number(one["value"]) for one in smallest):
        n = max(one["n"] for one in smallest)
        return [f"{_words(kind).capitalize()}: n = {n:,} is too few to show any effect."]
    found = []
    for one in smallest:
        level = levels.get(one["unit"], 0)
        if level > 0 and not (_is_number(one["value"]) and one["value"] <= level):
            shown = f"{one['value']:.2g}" if _is_number(one["value"]) else "none"
            found.append(
                f"{_words(kind).capitalize()}: an effect of {level:g} {_of(one['unit'])} could have gone unseen; the "
                f"smallest that n = {one['n']:,} would have shown is {shown}."
            )
    return found


def _unanswered(asked: Sequence[Asked], policy: Policy) -> list[str]:
    run = {one.row["check"] for one in asked}
    wanted = dict.fromkeys([*policy.fail, *(level.check for level in policy.levels)])
    lacking = [f"The policy asks for the check {name}, which was not run." for name in wanted if name not in run]
    return [*lacking, *(said for one in asked for said in one.unclear.values())]


# --- the three lines


def _incomplete_lines(why: str, findings: Sequence[Report]) -> list[str]:
    confirmed = [finding for finding in findings if finding["status"] == "confirmed"]
    return [
        f"Incomplete: {'the run was interrupted' if why == 'True' else why}. This is no verdict.",
        f"Confirmed so far: {confirmed[0]['sentence']}{_more(confirmed)}"
        if confirmed
        else "Nothing is confirmed so far.",
        "The same command goes on where it stopped.",
    ]


def _blocked_lines(findings: Sequence[Report], checks: Sequence[Report]) -> list[str]:
    bad, failed = [f for f in findings if f["blocks"]], [row for row in checks if row["blocks"]]
    counts = [_count(len(bad), "finding")] if bad else []
    counts += [_count(len(failed), "check")] if failed else []
    let = _let_through(findings)
    first = bad[0]["sentence"] if bad else failed[0]["gate"]
    todo = (
        f"Look at findings/{bad[0]['id']}/, clean or mask those images and train again; or accept {bad[0]['id']} in the "
        "policy with a reason, a name and an end date."
        if bad
        else "Look at the check's row in the report; what it has to reach stands in the policy."
    )
    return [f"Blocked by {' and '.join(counts)}{let}.", first, todo]


def _inconclusive_lines(doubts: Sequence[str], findings: Sequence[Report]) -> list[str]:
    return [
        f"Inconclusive: nothing blocks{_let_through(findings)}, but that proves less than the policy asks.",
        doubts[0] + (f" And {len(doubts) - 1} more." if len(doubts) > 1 else ""),
        "Give more images, or what was not tested needs (boxes, masks, checks); or ask less in the policy.",
    ]


def _pass_lines(
    report: Report, findings: Sequence[Report], checks: Sequence[Report], gone: Sequence[Report]
) -> list[str]:
    smallest = [
        f"{_words(kind)} {one['value']:.2g} {_of(one['unit'])} (n = {one['n']:,})"
        for kind, several in report["detectable_effect"].items()
        for one in several
        if _is_number(one["value"])
    ]
    old = [
        one
        for one in (*findings, *checks)
        if one["new"] is False and (one.get("status") == "confirmed" or one.get("gate"))
    ]
    known = f", {len(old)} known from the earlier run" if old else ""
    left = f", {len(gone)} gone since then" if gone else ""
    spared = sum(_is_spared(one) for one in findings)
    below = f", {_count(spared, 'confirmed finding')} that the policy lets pass" if spared else ""
    not_tested = " ".join(str(one) for one in report["not_tested"])
    return [
        f"Pass: nothing blocks in {_count(report['n_images'], 'image')}{_let_through(findings)}{below}{known}{left}.",
        f"The smallest effects that would have shown: {'; '.join(smallest) or 'none is known'}.",
        f"Not tested: {not_tested or 'nothing was left out.'}",
    ]


def _is_spared(finding: Report) -> bool:
    """Whether it is confirmed, nobody accepts it, it is not known from before, and it does not block."""
    return finding["status"] == "confirmed" and not (
        finding["accepted"] or finding["blocks"] or finding["new"] is False
    )


def _let_through(findings: Iterable[Report]) -> str:
    accepted = [f"{one['id']} until {one['accepted']['until']}" for one in findings if one["accepted"]]
    return f"; accepted: {', '.join(accepted)}" if accepted else ""


def _more(several: Sequence[object]) -> str:
    return f" And {len(several) - 1} more." if len(several) > 1 else ""


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _of(unit: str) -> str:
    return OF_UNIT.get(unit, unit)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

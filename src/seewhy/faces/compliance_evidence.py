"""What the ledger holds of how far the explanations of a compliance record can be trusted: read, and never measured here."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import seewhy.checks
import seewhy.methods  # noqa: F401  # both fill the registry
from seewhy.checks.completeness import LEVELS
from seewhy.draw import number
from seewhy.faces.compliance_subject import Content, Subject, missing
from seewhy.identity import identity
from seewhy.ledger import Record
from seewhy.perturb import BASELINES
from seewhy.registry import CHECKLIST, CHECKS, METHODS

LEVEL = LEVELS["compliance"]
LEVEL_SOURCE = (
    "The level is seewhy's own for a record (the check completeness, and preset=compliance of integrated_gradients); it is "
    "taken from no law or standard. Sundararajan et al. 2017, section 5, ask for a sum within 5 %."
)
MAPPED = ("ok", "all_negative")  # statuses of a row that has a map
RANDOMIZATION = ("model_randomization", "data_randomization")
ELSEWHERE = ("model_randomization", "completeness", "agreement", "documentation")  # these have sections of their own
KINDS = {
    "local_pattern": "local patterns",
    "place": "places of the frame",
    "background": "the background",
    "whole_image": "whole-image cues",
}


# -- methods -------------------------------------------------------------------------------------------------------------


def methods(subject: Subject) -> list[dict[str, Any]]:
    """Each method with each setting: what it is, what it is for, its baseline and steps, and how many maps it made."""

    def setting(content: Content) -> str:
        return identity([content[name] for name in ("method", "parameters", "layer", "precision", "seed")])

    keys = list(dict.fromkeys(setting(one.content) for one in subject.explanations))
    ordered = sorted(subject.explanations, key=lambda one: keys.index(setting(one.content)))
    groups = [[one.content for one in group] for _, group in groupby(ordered, key=lambda one: setting(one.content))]
    return [_method(subject, group) for group in groups]


def _method(subject: Subject, group: Sequence[Content]) -> dict[str, Any]:
    first = group[0]
    info = METHODS.get(first["method"])
    about = ("title", "summary", "good_for", "not_for", "randomization", "warning", "paper")
    unknown = "a method from outside seewhy, which declares nothing"
    return {
        "method": first["method"],
        "declared": info is not None,
        **({name: getattr(info, name) for name in about} if info else dict.fromkeys(about, unknown)),
        "properties": [] if info is None else _properties(info),
        "n": len(group),
        "without_map": _counted(one["status"] for one in group if one["status"] not in MAPPED),
        "parameters": first["parameters"],
        "layer": first["layer"],
        "grids": sorted({tuple(one["grid"]) for one in group}),
        "baseline": _baseline(subject, first),
        "steps": _steps(group),
        "precision": first["precision"],
        "seed": first["seed"],
    }


def _properties(info: Any) -> list[str]:
    return [
        "asks the network only for its outputs" if info.black_box else "looks inside the network",
        "claims that its parts sum to the change of the score" if info.complete else "claims no sum",
        "and depends on the class that is asked" if info.uses_target else "and is the same whatever class is asked",
    ]


def _counted(statuses: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for status in statuses:
        found[status] = found.get(status, 0) + 1
    return found


def _baseline(subject: Subject, content: Content) -> dict[str, Any]:
    """What a map was measured against, why, and a flag where that is black in images in which black is a measurement."""
    parameters = content["parameters"]
    if "baseline" not in parameters:
        blurred = "max_sigma" in parameters
        said = f"the image blurred by up to {number(parameters['max_sigma'])} pixels" if blurred else None
        why = "the method's own: its path takes detail away, and no light" if blurred else None
        return {"what": said, "why": why, "warning": None, "missing": []}
    given = parameters["baseline"]
    names = [str(one).partition(" ")[0] for one in (given if isinstance(given, list) else [given])]
    why = content["evidence"].get("baseline_reason") or "; ".join(filter(None, (BASELINES.get(name) for name in names)))
    kinds = ", ".join(sorted(subject.modalities))
    if kinds and names == ["blur"] and why == BASELINES["blur"]:  # of a method that records no reason of its own
        why = f"{kinds}: black is a value like any other there; {why}"
    black = "black" in names and kinds
    warning = (
        f"The images are {kinds}, where black is a value like any other: "
        "what is dark in the image can get no share of this map. Explain again against another baseline:  "
        + subject.explain(content["method"], "--param baseline=blur")
    )
    lacks = missing(
        "reason for the baseline",
        "not recorded. Give it",
        subject.explain(content["method"], '--param baseline_reason="..."'),
    )
    return {
        "what": ", ".join(name.replace("tensor", "a picture given by the user").replace("_", " ") for name in names),
        "why": why or None,
        "warning": warning if black else None,
        "missing": [] if why else [lacks],
    }


def _steps(group: Sequence[Content]) -> list[str]:
    """How far a sum or a sample was taken, and what it cost, in words."""
    used, found = group[0]["parameters"], []
    if used.get("rule") == "adaptive":
        gap, path = used["tolerance"], used.get("path_tolerance") or used["tolerance"]
        found.append(
            f"adaptive: refined per image until the completeness error is at most {share(gap)} and the path error at most "
            f"{share(path)}, or {used['max_rows']:,} gradient rows a baseline are spent"
        )
    elif "rule" in used:
        found.append(f"{used['steps']} steps, rule {used['rule']}")
    else:
        found += [f"{used[name]:,} {name}" for name in ("steps", "samples") if isinstance(used.get(name), int)]
    rows = [
        f"{_range([one['evidence'][name] for one in group])} {words}"
        for name, words in (("gradient_rows", "gradient row(s)"), ("forward_rows", "forward row(s)"))
        if group[0]["evidence"].get(name)
    ]
    found += [f"spent per image: {' and '.join(rows)}"] if rows else []
    ended = [one["evidence"]["converged"] for one in group if "converged" in one["evidence"]]
    if ended:
        found.append(f"within its own limits on {sum(map(bool, ended))} of {len(ended)} images")
    return found


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    ends = [f"{end:,.0f}" for end in (min(known), max(known))] if known else ["?"]
    return " to ".join(dict.fromkeys(ends))


# -- completeness --------------------------------------------------------------------------------------------------------


def completeness(subject: Subject) -> dict[str, Any]:
    """The completeness error of every explanation that claims a sum, held against the level; the worst come first."""
    sums = "completeness_gap_relative"
    claimed = [one for one in subject.explanations if sums in one.content["evidence"]]
    silent = [one.content["method"] for one in subject.explanations if sums not in one.content["evidence"]]
    rows = sorted((_sum(one) for one in claimed), key=lambda row: (row["result"] == "met", -(row["relative"] or 0)))
    lack = missing(
        "completeness error",
        "not measured: none of the methods claims that its parts sum to the score. A method that does",
        subject.explain("integrated_gradients", "--param preset=compliance"),
    )
    scored = [row for row in rows if row["result"] in ("met", "not met")]
    return {
        "level": LEVEL,
        "level_source": LEVEL_SOURCE,
        "n": len(scored),
        "n_met": sum(row["result"] == "met" for row in scored),
        "decisions": rows,
        "without_a_sum": _counted(silent),
        "missing": [] if scored else [lack],
    }


def _sum(one: Record) -> dict[str, Any]:
    content, evidence = one.content, one.content["evidence"]
    relative = evidence["completeness_gap_relative"]
    if content["status"] not in MAPPED and relative is None:
        result = f"no map: {content['status']}"
    elif relative is None:
        result = "undefined: the score does not change between baseline and image"
    else:
        result = "met" if relative < LEVEL else "not met"
    return {
        "record": one.number,
        "image": content["image"],
        "method": content["method"],
        "explained": content["target"]["text"],
        "change": evidence.get("score_difference"),
        "gap": evidence.get("completeness_gap"),
        "relative": relative,
        "path_error": evidence.get("path_error"),
        "result": result,
    }


# -- checks --------------------------------------------------------------------------------------------------------------


def randomization(subject: Subject) -> dict[str, Any]:
    """What became of the maps when the network's weights, or the labels that it learned, were destroyed."""
    return _section(subject, RANDOMIZATION, "model_randomization", "randomization")


def agreement(subject: Subject) -> dict[str, Any]:
    """Whether at least two methods point at the same places."""
    return _section(subject, ("agreement",), "agreement", "agreement of at least two methods")


def _section(subject: Subject, names: Sequence[str], needed: str, what: str) -> dict[str, Any]:
    found = _checked(subject, names)
    have = {row["method"] for row in found if row["check"] == needed}
    one = subject.kind == "decision" or needed == "agreement"  # which compares several methods itself
    asked = subject.methods[:1] if one else subject.methods
    if needed == "agreement" and have:
        asked = []
    return {
        "results": found,
        "missing": [
            missing(f"{what}, {name}", "not measured", subject.check(name, needed))
            for name in asked
            if name not in have
        ],
    }


def _checked(subject: Subject, names: Sequence[str]) -> list[dict[str, Any]]:
    """The check records of these methods on this model."""
    own = {one.content["method"]: one.content for one in reversed(subject.explanations)}
    found = []
    for record in subject.records:
        if record.kind != "check" or record.content["check"] not in names:
            continue
        card = record.content["card"]
        if card.get("model_sha256") == subject.model_sha256 and card["method"] in own:
            found.append(_check(record, own[card["method"]]))
    return found


def _check(record: Record, explained: Content) -> dict[str, Any]:
    found, card = record.content, record.content["card"]
    same = (card.get("parameters"), card.get("layer")) == (explained["parameters"], explained["layer"])
    return {
        "record": record.number,
        "check": found["check"],
        "title": found["title"],
        "method": card["method"],
        "verdict": found["verdict"],
        "sentence": found["sentence"],
        "n": len(card["images"]),
        "same_settings": same,
        "scores": [
            {name: score[name] for name in ("name", "value", "low", "high", "n", "unit")} for score in found["scores"]
        ],
    }


# -- tests that use no gradient ------------------------------------------------------------------------------------------


def behavior(subject: Subject) -> dict[str, Any]:
    """Experiments that only change the image and look at the answer: hiding parts, and an audit's pasting and removing."""
    asking = [name for name in subject.methods if (info := METHODS.get(name)) is not None and info.black_box]
    maps = []
    for name in asking:
        own = [one.content for one in subject.explanations if one.content["method"] == name]
        maps.append({"method": name, "summary": METHODS[name].summary, "n": len(own), "largest": _largest(own)})
    checks, findings = _checked(subject, ("faithfulness",)), _findings(subject)
    name = next((one for one in subject.methods if one not in asking), "grad_cam")
    lacks = [missing("occlusion", "not done: hide parts and watch the score", subject.explain("occlusion"))]
    tested = missing("deletion and insertion", "not measured", subject.check(name, "faithfulness"))
    return {
        "maps": maps,
        "checks": checks,
        "findings": findings,
        "missing": [*(lacks if not maps else []), *([tested] if not checks else [])],
    }


def _largest(own: Sequence[Content]) -> dict[str, Any]:
    """The part whose hiding changes the score most, over these maps."""
    drawn = [one for one in own if one["status"] in MAPPED and one["map"]["max"] is not None]
    if not drawn:
        return {"value": None, "image": None, "scale": None}
    top = max(drawn, key=lambda one: max(abs(one["map"]["max"]), abs(one["map"]["min"])))
    value = max(top["map"]["max"], top["map"]["min"], key=abs)
    return {"value": value, "image": top["image"], "scale": top["target"].get("scale")}


def _findings(subject: Subject) -> list[dict[str, Any]]:
    """Every pattern that the audit tried, the confirmed first."""
    if subject.kind != "data set":
        return []
    wanted = None if subject.verdict is None else set(subject.verdict["findings"])
    found = {
        one.content["id"]: one
        for one in subject.records
        if one.kind == "finding" and (wanted is None or one.key in wanted)
    }
    order = ("confirmed", "untested", "refuted")
    return sorted(map(_finding, found.values()), key=lambda row: order.index(row["status"]))


def _finding(one: Record) -> dict[str, Any]:
    content = one.content
    about = {name: content[name] for name in ("id", "kind", "status", "sentence", "outputs")}
    n = max((effect["n"] for effect in content["effect"]), default=0)
    return {"record": one.number, **about, "n": n, "accepted": content.get("accepted")}


# -- what it does not say ------------------------------------------------------------------------------------------------


def limits(subject: Subject) -> list[str]:
    """What can be wrong or coarse in what the record does hold."""
    said = ["A map says what moves this model's score on this image. It does not say that the answer is right."]
    for one in subject.explanations:
        validity, method = one.content["validity"], one.content["method"]
        notes = [validity.get("warning"), validity.get("logits"), *(validity.get("approximations") or [])]
        said += [f"{method}: {note}." for note in notes if note]
    said += [
        f"{METHODS[name].title} is not for {METHODS[name].not_for}." for name in subject.methods if name in METHODS
    ]
    blank = _counted(one.content["status"] for one in subject.explanations if one.content["status"] not in MAPPED)
    said += [f"{n} explanations have no map: {status}." for status, n in blank.items()]
    if subject.kind == "data set":
        said.append("The maps are of the examined images; every other image was only predicted.")
    return list(dict.fromkeys(said))


def not_tested(subject: Subject) -> list[dict[str, str]]:
    """What would belong here and was not measured, with the command that does it; what an audit could not have seen."""
    found: list[dict[str, str]] = []
    said: set[tuple[str, ...]] = set()
    for name in subject.methods[:1] if subject.kind == "decision" else subject.methods:
        done = {row["check"] for row in _checked(subject, CHECKLIST) if row["method"] == name}
        left = tuple(one for one in CHECKLIST if one not in (*done, *ELSEWHERE))
        asked = " ".join(f"{CHECKS[one].question[:1].upper()}{CHECKS[one].question[1:]}" for one in left)
        asked = "The same questions." if left in said else asked  # as of the method before
        said.add(left)
        if left:
            found.append(missing(name, f"{asked} Not measured", subject.check(name, *left)))
    if subject.kind == "data set":
        return found + _unseen(subject)
    what = "this image" if subject.kind == "decision" else "these images"
    audit = f"seewhy audit DATA --model MODEL --out {subject.run_folder}-audit"
    return [
        *found,
        missing("the model on a data set", f"Nothing is said of any but {what}, nor of shortcuts. An audit", audit),
    ]


def _unseen(subject: Subject) -> list[dict[str, str]]:
    if subject.verdict is None:
        return []
    detectable: Mapping[str, Any] = subject.verdict["detectable_effect"]
    found = []
    for kind, name in KINDS.items():
        for one in detectable.get(kind) or []:
            least = one["value"]
            said = "none could be seen: too few images" if least is None else f"{number(least)} ({one['unit']})"
            found.append(missing(name, f"smallest effect that would have shown: {said}, n = {one['n']}", ""))
        if not detectable.get(kind):
            found.append(missing(name, "no candidate of this kind was found, and none was tried", ""))
    return found + [missing("the audit says", said, "") for said in subject.verdict["not_tested"]]


def share(value: float) -> str:
    """A fraction as a percentage with four digits, so that what is just above a level is not shown as the level."""
    return f"{100 * value:.4g} %"

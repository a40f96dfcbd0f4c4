"""The compliance record on paper: its sections in words, which the page and the PDF both set, and the three files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seewhy import runfolder
from seewhy.draw import number
from seewhy.faces.compliance import compliance_record, files_of
from seewhy.faces.compliance_evidence import share
from seewhy.faces.compliance_pdf import compliance_pdf
from seewhy.faces.report import environment, style

LISTED = 12  # rows of a table; all of them stand in the .json
Content = Mapping[str, Any]


def write_compliance(
    folder: str | Path, *, decision: str | int | None = None, purpose: str | None = None, pdf: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Write the compliance record of a run folder beside its ledger; the path of the page, and the record.

    compliance.json always, with compliance.html, or compliance.pdf (extra [pdf]); of a decision that was asked for,
    compliance-NUMBER. decision, purpose and errors: as for compliance_record.
    """
    record = runfolder.plain(compliance_record(folder, decision=decision, purpose=purpose))
    name, shown = files_of(record, decision), contents(record)
    path = Path(folder) / f"{name}.{'pdf' if pdf else 'html'}"
    page = compliance_pdf(shown) if pdf else _page(shown)
    runfolder.write_file(path.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    runfolder.write_file(path, page)
    return path, record


def _page(shown: Content) -> bytes:
    template = environment().get_template("compliance.html.j2")
    page = template.render(**shown, style=style() + style("compliance.css"))
    return page.encode("utf-8", "backslashreplace")  # a file name may hold bytes that are no text


def contents(record: Content) -> dict[str, Any]:
    """The record as sections of facts, tables and notes, all of them text: what every form of it shows."""
    sections = [
        _purpose(record),
        _in_short(record),
        _model(record),
        _data(record),
        _answer(record),
        *_methods(record),
        _completeness(record),
        _checks("Randomization", "What becomes of the map when the network is destroyed.", record["randomization"]),
        _checks("Agreement of methods", "Whether several methods point at the same places.", record["agreement"]),
        _behavior(record),
        _limits(record),
        _not_tested(record),
        _ledger(record),
    ]
    return {
        "title": "Compliance record",
        "of": f"{record['title'][:1].upper()}{record['title'][1:]}",
        "claim": record["claim"],
        "sections": sections,
        "sign_off": [name.capitalize() for name in record["sign_off"]],
        "foot": f"ledger record {record['ledger']['number']}, {record['ledger']['hash']}",
    }


def _section(
    title: str,
    lead: str = "",
    facts: Sequence[tuple[str, Any]] = (),
    head: Sequence[str] = (),
    rows: Sequence[Sequence[Any]] = (),
    notes: Sequence[str] = (),
    missing: Sequence[Content] = (),
    lines: int = 0,
) -> dict[str, Any]:
    """One section. facts: a fact without a value is left out, as it does not apply. lines: empty ones, to write on."""
    return {
        "title": title,
        "lead": lead,
        "facts": [(name, str(value)) for name, value in facts if value not in (None, "", [])],
        "head": list(head),
        "rows": [[str(cell) for cell in row] for row in rows],
        "notes": list(notes),
        "missing": list(missing),
        "lines": lines,
    }


# -- what it is about ----------------------------------------------------------------------------------------------------


def _in_short(record: Content) -> dict[str, Any]:
    """What there is at a glance: results by their verdicts, and that which is not measured as such."""
    sums, behavior = record["completeness"], record["behavior"]
    met = f"error below {share(sums['level'])}: {sums['n_met']:,} of {sums['n']:,} explanations" if sums["n"] else ""
    tried = [one["status"] for one in behavior["findings"]]
    tests = [
        _verdicts(behavior["checks"]),
        ", ".join(f"{one['method']} (n = {one['n']:,})" for one in behavior["maps"]),
        ", ".join(f"{tried.count(status)} patterns {status}" for status in dict.fromkeys(tried)),
    ]
    facts = [
        ("completeness", met),
        ("randomization", _verdicts(record["randomization"]["results"])),
        ("agreement of methods", _verdicts(record["agreement"]["results"])),
        ("without a gradient", "; ".join(filter(None, tests))),
    ]
    return _section("In short", facts=[(name, said or "not measured") for name, said in facts])


def _verdicts(results: Sequence[Content]) -> str:
    return ", ".join(f"{one['title']} of {one['method']}: {one['verdict']} (n = {one['n']})" for one in results)


def _purpose(record: Content) -> dict[str, Any]:
    text = record["purpose"]["text"]
    return _section(
        "Purpose",
        notes=[text] if text else [],
        missing=record["purpose"]["missing"],
        lines=0 if text else 3,
    )


def _model(record: Content) -> dict[str, Any]:
    model = record["model"]
    facts = [
        ("name", model["name"]),
        ("version", model["version"]),
        ("fingerprint (SHA-256)", model["sha256"]),
        ("weights", model["weights"] or "not recorded: the network was handed over as an object"),
        ("task", model["task"]),
    ]
    return _section("Model", facts=facts, missing=model["missing"])


def _data(record: Content) -> dict[str, Any]:
    data = record["data"]
    facts: list[tuple[str, Any]] = [("modality", ", ".join(data["modality"]))]
    if record["kind"] == "data set":
        labelled = (
            f"{data['right']:,} of {data['labelled']:,}" if data["labelled"] else "not counted: no answer is a class"
        )
        facts += [
            ("fingerprint (SHA-256)", f"{data['fingerprint']}, of {data['fingerprint_of']}"),
            ("images predicted", f"{data['predicted']:,}; explained: {len(data['images']):,}"),
            ("answers as labelled", labelled),
            ("set-up check", data["setup"] or "none: it asks networks that give one class per image"),
            ("groups", f"{data['groups']:,}" if data["groups"] else None),
            ("skipped", f"{len(data['skipped']):,}"),
        ]
        skipped = [(one["path"], one["reason"]) for one in data["skipped"]]
        head = ("skipped image", "why") if skipped else ()
        notes = _more(skipped, "skipped images")
        return _section("Data", facts=facts, head=head, rows=skipped[:LISTED], notes=notes)
    if len(data["images"]) > 1:
        rows = [(one["image"], one["image_sha256"] or "no file", one["pixels_sha256"]) for one in data["images"]]
        named = ("image", "SHA-256 of the file", "SHA-256 of what the model was shown")
        return _section("Data", facts=facts, head=named, rows=rows[:LISTED], notes=_more(rows, "images"))
    (image,) = data["images"]
    facts += [
        ("image", image["image"]),
        ("file (SHA-256)", image["image_sha256"] or "none: it was given as numbers"),
        ("shown to the model", f"{' x '.join(map(str, image['shape']))}, SHA-256 {image['pixels_sha256']}"),
    ]
    return _section("Data", facts=facts, notes=image["notes"])


def _answer(record: Content) -> dict[str, Any]:
    if record["kind"] == "data set":
        return _verdict(record["audit"])
    answers = record["answers"]
    if len(answers) > 1:
        rows = [(one["record"], one["image"], _said(one), one["explained"], _value(one)) for one in answers]
        head = ("record", "image", "the model says", "explained is", "its value")
        return _section("Answers", head=head, rows=rows[:LISTED], notes=_more(rows, "decisions"))
    (one,) = answers
    facts = [("the model says", _said(one)), ("explained is", one["explained"]), ("its value", _value(one))]
    return _section("Answer", facts=facts)


def _said(answer: Content) -> str:
    return ", ".join(f"{_label(one)} {share(one['probability'])}" for one in answer["predictions"][:3])


def _value(answer: Content) -> str:
    sure = "" if answer["probability"] is None else f" (probability {share(answer['probability'])})"
    return f"{_known(answer['score'], number)}{sure}"


def _label(prediction: Content) -> str:
    return str(prediction.get("label") or f"class {prediction['index']}")


def _verdict(audit: Content) -> dict[str, Any]:
    policy = audit["policy"] or {}
    facts = [("verdict", audit["verdict"]), ("policy (SHA-256)", policy.get("sha256"))]
    return _section("Verdict of the audit", facts=facts, notes=audit["reasons"], missing=audit["missing"])


# -- how it was explained ------------------------------------------------------------------------------------------------


def _methods(record: Content) -> list[dict[str, Any]]:
    found = [_method(one) for one in record["methods"]]
    return found or [_section("Method", notes=["No image was explained."])]


def _method(one: Content) -> dict[str, Any]:
    baseline = one["baseline"]
    without = ", ".join(f"{n} {status}" for status, n in one["without_map"].items())
    where = f" of layer {one['layer']}" if one["layer"] else ""
    grids = " or ".join(" x ".join(map(str, grid)) for grid in one["grids"])
    lost = f"; without a map: {without}" if without else ""
    facts: list[tuple[str, Any]] = [
        ("what it is", f"{one['summary']} It {', '.join(one['properties'])}." if one["properties"] else one["summary"]),
        ("what it is for", one["good_for"]),
        ("maps", f"{one['n']:,} of {grids} cells{where}; {one['precision']}, seed {one['seed']}{lost}"),
        ("baseline", baseline["what"] or "none: the method compares with no other picture"),
        ("why this baseline", baseline["why"]),
        ("steps", "; ".join(one["steps"])),
        ("settings", _pairs([one["parameters"] | {"baseline_reason": None}])),
        ("in the literature", f"under randomization: {one['randomization']}. {one['paper']}"),
    ]
    notes = [note for note in (baseline["warning"], one["warning"]) if note]
    return _section(f"Method: {one['title']}", facts=facts, notes=notes, missing=baseline["missing"])


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- how far it can be trusted -------------------------------------------------------------------------------------------


def _completeness(record: Content) -> dict[str, Any]:
    found = record["completeness"]
    level = f"below {share(found['level'])}"
    facts = [
        ("level required", f"{level} of the change of the score, per decision"),
        ("met", f"by {found['n_met']:,} of {found['n']:,} explanations" if found["n"] else None),
        ("without a sum", ", ".join(f"{name} (n = {n:,})" for name, n in found["without_a_sum"].items())),
    ]
    rows = [
        (
            one["record"],
            one["image"],
            one["method"],
            _known(one["relative"], share),
            f"{_known(one['gap'], number)} of {_known(one['change'], number)}",
            _known(one["path_error"], share),
            one["result"],
        )
        for one in found["decisions"]
    ]
    head = ("record", "image", "method", "error", "in the score's unit", "path error", f"{level}?")
    lead = "How far the sum of a map is from the change of the score that it shares out."
    return _section(
        "Completeness",
        lead,
        facts,
        head if rows else (),
        rows[:LISTED],
        [*_more(rows, "explanations, the worst of them here"), found["level_source"]],
        found["missing"],
    )


def _known(value: float | None, words: Any) -> str:
    return "none" if value is None else str(words(value))


def _more(rows: Sequence[Any], what: str) -> list[str]:
    return [f"{LISTED} of {len(rows):,} {what}; all stand in the .json file."] if len(rows) > LISTED else []


def _checks(title: str, lead: str, found: Content) -> dict[str, Any]:
    rows = [_check(one) for one in found["results"]]
    head = ("record", "check", "images", "verdict", "what was found")
    return _section(title, lead, (), head if rows else (), rows, missing=found["missing"])


def _check(one: Content) -> tuple[Any, ...]:
    other = "" if one["same_settings"] else " (Measured with other settings of the method than these maps.)"
    named = f"{one['title']}, {one['method']}"
    return one["record"], named, one["n"], one["verdict"], f"{one['sentence']}{other}"


def _behavior(record: Content) -> dict[str, Any]:
    found = record["behavior"]
    rows = [*map(_check, found["checks"]), *map(_hidden, found["maps"])]
    rows += map(_finding, found["findings"][:LISTED])
    notes = _more(found["findings"], "patterns that were tried")
    if record["kind"] == "data set" and not found["findings"]:
        notes.append("The audit's paste and remove experiments: no pattern was found that could be tried.")
    lead = "Only the image is changed, and the answer watched; no gradient is used."
    head = ("record", "test", "n", "outcome", "what was found")
    return _section("Tests without a gradient", lead, (), head if rows else (), rows, notes, found["missing"])


def _hidden(one: Content) -> tuple[Any, ...]:
    top = one["largest"]
    said = "none of them has a map"
    if top["value"] is not None:
        said = f"the largest value is {number(top['value'])} ({top['scale'] or 'score'}), on {top['image']}"
    return "", f"Hiding parts: {one['method']}", one["n"], "measured", f"{one['summary']} Here {said}."


def _finding(one: Content) -> tuple[Any, ...]:
    accepted = one["accepted"]
    said = f" Accepted by {accepted['name']} until {accepted['until']}: {accepted['reason']}." if accepted else ""
    tried = f"Pasting and removing: {one['kind'].replace('_', ' ')}"
    return one["record"], tried, one["n"], one["status"], f"{one['sentence']}{said}"


def _limits(record: Content) -> dict[str, Any]:
    return _section("Limits", notes=record["limits"][: 2 * LISTED])


def _not_tested(record: Content) -> dict[str, Any]:
    return _section("What was not tested", missing=record["not_tested"])


# -- how to check it -----------------------------------------------------------------------------------------------------


def _ledger(record: Content) -> dict[str, Any]:
    found = record["ledger"]
    facts = [
        ("last record", f"{found['number']:,}, written {found['time']}"),
        ("its hash (SHA-256)", found["hash"]),
        *[
            (f"record {one['number']}, {one['method']}", f"hash {one['hash']}")
            for one in found["decisions"]
            if record["kind"] == "decision"
        ],
        ("settings of the audit", _pairs([found["settings"]])),
        ("versions", _pairs(found["versions"])),
        ("machine", _pairs(found["machine"])),
        ("verify", found["verify"]),
        ("replay", found["replay"]),
    ]
    lead = (
        "Every number above was read from this ledger; nothing was measured, and nothing verified, to write it. Each record "
        "carries the hash of the one before: compare number and hash with what the first command prints."
    )
    notes = [f"Erased on request: {one['file']} ({one['reason']}, by {one['by']})." for one in found["erased"]]
    return _section("Ledger: how to verify and replay it", lead, facts, notes=notes)


def _pairs(several: Sequence[Any]) -> str:
    return "; or ".join(
        ", ".join(f"{name} {_short(value)}" for name, value in one.items() if value not in (None, ""))
        for one in several
        if isinstance(one, dict)
    )

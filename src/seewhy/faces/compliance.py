"""The compliance record of a decision or a data set: what was measured, what was not, how to check it; from the ledger."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seewhy.errors import SeewhyError, UsageError
from seewhy.faces.compliance_evidence import (
    agreement,
    behavior,
    completeness,
    limits,
    methods,
    not_tested,
    randomization,
)
from seewhy.faces.compliance_subject import Content, Subject, missing
from seewhy.identity import identity
from seewhy.ledger import Ledger, Record, open_ledger
from seewhy.registry import METHODS

SCHEMA = 1
SIGNED = ("name", "role", "date", "signature")
NO_LAW = (
    "This record says what was measured, on what, and how. It does not say that a law, a regulation or a standard is met: "
    "that is for the person who signs."
)


def compliance_record(
    folder: str | Path, *, decision: str | int | None = None, purpose: str | None = None
) -> dict[str, Any]:
    """Everything that the compliance record says, as plain JSON values: HTML, PDF and compliance.json are made from it.

    decision: the number of an "explanation" record, or the beginning of its key; None: the audit in this ledger, else all
    that it explains. purpose: what the model is used for, in the user's words. It reads the ledger and nothing else.
    UsageError for a folder without a ledger, a decision that is not in it, and a ledger of several models or data sets;
    SeewhyError where a record lacks what every one has.
    """
    with open_ledger(folder, read_only=True) as ledger:
        records = ledger.read()
        chosen = None if decision is None else _chosen(ledger, records, decision)
    subject = _subject(str(folder), records, chosen)
    try:
        return _record(subject, (purpose or "").strip() or None)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SeewhyError(
            f"{folder}: a record of its ledger lacks what every one has ({type(error).__name__}: {error})."
        ) from error


def _record(subject: Subject, purpose: str | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": subject.kind,
        "title": _title(subject),
        "claim": NO_LAW,
        "purpose": {"text": purpose, "missing": [] if purpose else [_no_purpose(subject)]},
        "model": _model(subject),
        "data": _data(subject),
        "answers": _answers(subject),
        "methods": methods(subject),
        "completeness": completeness(subject),
        "randomization": randomization(subject),
        "agreement": agreement(subject),
        "behavior": behavior(subject),
        "audit": _audit(subject),
        "limits": limits(subject),
        "not_tested": not_tested(subject),
        "ledger": _ledger(subject),
        "sign_off": dict.fromkeys(SIGNED, ""),
    }


# -- what the record is of -----------------------------------------------------------------------------------------------


def _subject(folder: str, records: Sequence[Record], chosen: Record | None) -> Subject:
    explained = [one for one in records if one.kind == "explanation"]
    runs = [one for one in records if one.kind == "run"]
    if chosen is not None:
        question = _question(chosen.content)
        beside = [one for one in explained if one != chosen and _question(one.content) == question]
        return Subject("decision", folder, records, _once([chosen, *_without_controls(beside)]))
    if runs:
        return _data_set(folder, records, runs, explained)
    kept = _once(_without_controls(explained))
    if not kept:
        raise UsageError(
            f"the ledger of {folder} holds {len(records)} records and no explanation by a method: "
            f"seewhy explain IMAGES --model MODEL --out {shlex.quote(folder)}  writes one."
        )
    _one("models", {one.content["model_sha256"] for one in kept}, folder, "Name a decision: --decision NUMBER.")
    several = len({_question(one.content) for one in kept}) > 1
    return Subject("decisions" if several else "decision", folder, records, kept)


def _data_set(folder: str, records: Sequence[Record], runs: Sequence[Record], explained: Sequence[Record]) -> Subject:
    fix = "Audit each into a folder of its own, or name a decision: --decision NUMBER."
    _one("models", {one.content["model_sha256"] for one in runs}, folder, fix)
    _one("data sets", {one.content["data"] for one in runs}, folder, fix)
    model = runs[-1].content["model_sha256"]
    own = _once(one for one in _without_controls(explained) if one.content["model_sha256"] == model)
    verdicts = [one.content for one in records if one.kind == "verdict"]
    return Subject("data set", folder, records, own, runs[-1].content, verdicts[-1] if verdicts else None)


def _one(what: str, found: set[str], folder: str, fix: str) -> None:
    if len(found) > 1:
        raise UsageError(f"the ledger of {folder} holds {len(found)} {what}; a compliance record is of one. {fix}")


def _chosen(ledger: Ledger, records: Sequence[Record], decision: str | int) -> Record:
    """The explanation of this number, or of the one key that begins so; UsageError where there is none, or several."""
    explained = [one for one in records if one.kind == "explanation"]
    found, folder = ledger.named(decision, "explanation"), ledger.folder
    if len(found) == 1 and _without_controls(found):
        return found[0]
    others = [] if found else ledger.named(decision)
    if len(found) == 1:
        said = f"record {decision} of {folder} is a map of {found[0].content['method']}, which knows nothing of the network"
    elif len(others) == 1:
        said = f"record {decision} of {folder} is of kind {others[0].kind}, no explanation"
    else:
        said = f"{len(found) or 'no'} explanations of {folder} have the number or the key {str(decision)!r}"
    known = ", ".join(f"{one.number} ({one.content['image']}, {one.content['method']})" for one in explained[:5])
    more = f" and {len(explained) - 5} more" if len(explained) > 5 else ""
    raise UsageError(f"{said}. Explanations: {known or 'none'}{more}.")


def _question(content: Content) -> str:
    """What makes two explanations answers to one question: the same image, model and target, on whatever scale.

    Not the image's name: it depends on the data root, which may be another one in another call.
    """
    target = {name: content["target"].get(name) for name in ("kind", "index", "other", "label", "rank", "box")}
    return identity([content["image_sha256"], content["pixels_sha256"], content["model_sha256"], target])


def _once(explained: Iterable[Record]) -> list[Record]:
    """The same map that answers the same question is one explanation, however often it was recorded; the first one."""
    names = ("method", "parameters", "layer")
    found: dict[str, Record] = {}
    for one in explained:
        settings = [one.content[name] for name in names]
        found.setdefault(identity([_question(one.content), settings, one.content["map"]["sha256"]]), one)
    return list(found.values())


def _without_controls(explained: Iterable[Record]) -> list[Record]:
    """Maps that know nothing of the network explain nothing of it."""

    def control(content: Content) -> bool:
        info = METHODS.get(content["method"])
        return info is not None and info.family == "control"

    return [one for one in explained if not control(one.content)]


# -- purpose, model, data, answer ----------------------------------------------------------------------------------------


def _title(subject: Subject) -> str:
    if subject.kind == "data set":
        return f"a data set of {len(subject.of('prediction'))} predicted images"
    first = subject.explanations[0].content
    images = len({(one.content["image_sha256"], one.content["pixels_sha256"]) for one in subject.explanations})
    if subject.kind == "decisions":
        return f"{len({_question(one.content) for one in subject.explanations})} decisions on {images} images"
    return f"one decision on {first['image']}"


def _no_purpose(subject: Subject) -> dict[str, str]:
    return missing(
        "purpose",
        "not given. What is the model used for, on whose images, and what follows from its answer? Write it here, or give it",
        f'seewhy report {subject.run_folder} --compliance{subject.option} --purpose "..."',
    )


def _model(subject: Subject) -> dict[str, Any]:
    first: Content = subject.explanations[0].content if subject.explanations else {}
    about = subject.run or first
    own = (one for one in subject.of("explanation") if one["model_sha256"] == subject.model_sha256)
    version = ", ".join(dict.fromkeys(one["model_version"] for one in own if one.get("model_version")))
    lacks = [
        missing(
            "version",
            "no name of this version was given; the fingerprint alone tells it from others. To name it",
            subject.explain(first.get("method", "grad_cam"), "--model-version VERSION"),
        )
    ]
    return {
        "name": about["model"],
        "sha256": about["model_sha256"],
        "weights": first.get("weights"),
        "task": first.get("task"),
        "version": version or None,
        "missing": [] if version else lacks,
    }


def _data(subject: Subject) -> dict[str, Any]:
    images = {
        (one.content["image_sha256"], one.content["pixels_sha256"]): {
            name: one.content[name] for name in ("image", "image_sha256", "pixels_sha256", "shape", "notes")
        }
        for one in reversed(subject.explanations)  # a decision under the name by which it was asked for
    }
    found: dict[str, Any] = {"images": list(reversed(images.values())), "modality": sorted(subject.modalities)}
    if subject.run is None:
        return found
    predictions = subject.of("prediction")
    judged = [one["right"] for one in predictions if one["right"] is not None]
    setup = subject.of("setup")
    return {
        **found,
        "fingerprint": subject.run["data"],
        "fingerprint_of": "the name and the label of every image, not their pixels",
        "predicted": len(predictions),
        "labelled": len(judged),
        "right": sum(judged),
        "groups": len({one["group"] for one in predictions if one["group"]}),
        "setup": setup[-1].get("sentence") if setup else None,
        "skipped": subject.of("skip"),
    }


def _answers(subject: Subject) -> list[dict[str, Any]]:
    """What the model said, and what of it is explained, once a decision; an audit's answers are too many to list."""
    if subject.kind == "data set":
        return []
    first = {_question(one.content): one for one in reversed(subject.explanations)}
    return [
        {
            "record": one.number,
            "image": one.content["image"],
            "predictions": one.content["predictions"],
            "explained": one.content["target"]["text"],
            "scale": one.content["target"].get("scale"),
            "score": one.content["score"],
            "probability": one.content["validity"].get("probability"),
        }
        for one in sorted(first.values(), key=lambda one: one.number)
    ]


def _audit(subject: Subject) -> dict[str, Any] | None:
    """The verdict of an audit; what it could not have seen stands under what was not tested."""
    if subject.kind != "data set":
        return None
    verdict = subject.verdict
    if verdict is None:
        lack = missing(
            "verdict",
            "none in this ledger: the audit was not finished. The same command goes on where it stopped",
            f"seewhy audit DATA --model MODEL --out {subject.run_folder}",
        )
        return {"verdict": None, "reasons": [], "policy": None, "missing": [lack]}
    return {**{name: verdict[name] for name in ("verdict", "reasons", "policy")}, "missing": []}


# -- how to check it -----------------------------------------------------------------------------------------------------


def _ledger(subject: Subject) -> dict[str, Any]:
    last, run = subject.records[-1], subject.run_folder
    made: list[Content] = [one.content for one in subject.explanations] or [subject.run or {}]
    one_of = subject.explanations[0].number if subject.kind == "decision" else "NUMBER"
    erased = [one.content for one in subject.records if one.kind == "erasure"]
    return {
        "records": len(subject.records),
        "number": last.number,
        "hash": last.hash,
        "time": last.time,
        "decisions": [
            {
                "number": one.number,
                "key": one.key,
                "time": one.time,
                "hash": one.hash,
                **{name: one.content[name] for name in ("image", "method", "map")},
            }
            for one in subject.explanations
        ],
        "erased": erased,
        **{name: _several(made, name) for name in ("versions", "machine", "precision", "seed")},
        "settings": None if subject.run is None else subject.run.get("settings"),
        "verify": f"seewhy ledger verify {run}",
        "replay": f"seewhy ledger replay {run} {one_of}",
    }


def _several(contents: Sequence[Content], name: str) -> list[Any]:
    """The distinct values of a field, in order."""
    return list({repr(one[name]): one[name] for one in contents if one.get(name) is not None}.values())


def files_of(record: Mapping[str, Any], decision: str | int | None) -> str:
    """The name of the record's files without an ending: of a decision that was asked for, with its number."""
    return "compliance" if decision is None else f"compliance-{record['ledger']['decisions'][0]['number']}"

"""Reports as an audit writes them, made by hand."""

import json
from datetime import date

TODAY = date(2026, 11, 23)


def effect(unit="probability", removed=(-0.3, -0.4, -0.2), pasted=(0.2, 0.1, 0.3)):
    ends = ("value", "low", "high")
    measured = {how: dict(zip(ends, v, strict=True)) for how, v in (("removed", removed), ("pasted", pasted)) if v}
    return {"output": "dog", "unit": unit, "n": 30, **measured, "control": dict.fromkeys(ends, 0.0)}


def finding(id_="a" * 16, kind="local_pattern", status="confirmed", effects=None, **more):
    return {
        "id": id_,
        "kind": kind,
        "outputs": ["dog"],
        "where": [0.8, 0.8, 1.0, 1.0],
        "status": status,
        "effect": [effect()] if effects is None else effects,
        "p_adjusted": 0.001,
        "suspicion": ["recurs nearly pixel by pixel in 31 scenes"],
        "images": ["dog/1.jpg", "dog/2.jpg"],
        "sentence": f"The {kind} {id_[:4]} at the lower right raises dog.",
        **more,
    }


def row(check="localization", verdict="pass", method="grad_cam", **scores):
    return {
        "check": check,
        "card": {"method": method, "title": method},
        "verdict": verdict,
        "sentence": f"{check} of {method} says {verdict}.",
        "scores": [
            {"name": name, "value": sum(ends) / 2, "low": ends[0], "high": ends[1], "n": 20}
            for name, ends in scores.items()
        ],
    }


def report(findings=(), checks=(), **more):
    return {
        "schema": 1,
        "model": "0" * 64,
        "data": "1" * 64,
        "n_images": 960,
        "n_skipped": 2,
        "findings": list(findings),
        "detectable_effect": {
            "local_pattern": [{"unit": "probability", "n": 120, "value": 0.04}],
            "whole_image": [{"unit": "probability", "n": 480, "value": 0.02}],
        },
        "not_tested": ["Background: no boxes or masks were given."],
        "review_queue": [{"path": "cat/3.jpg", "reason": "the methods disagree"}],
        "checks": list(checks),
        "skipped": [{"path": "torn.jpg", "reason": "truncated"}, {"path": "empty.jpg", "reason": "empty"}],
        **more,
    }


def accept(id_="a" * 16, until="2027-01-31"):
    quoted = json.dumps(id_)
    return f'\n[[accept]]\nid = {quoted}\nreason = "known ruler"\nname = "A. Person"\nuntil = {until}\n'

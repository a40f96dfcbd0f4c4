"""The evidence of one row in sentences for somebody who did not write the method."""

from typing import Any

from seewhy.draw import number
from seewhy.explanation import MEANING, Status
from seewhy.runfolder import Record


def heading(record: Record) -> str:
    """The question of a row, as a person would ask it."""
    if not record["validity"]["target_used"]:
        return "What does the network react to, whatever the class?"
    target = record["target"]
    name, other = (target[k] or f"class {target[i]}" for k, i in (("label", "index"), ("other_label", "other")))
    if target["kind"] == "index":
        return f"Why {name}?"
    if target["kind"] == "margin" and target["scale"] != "output":
        return f"Why {name} and not {other}?"
    if target["kind"] == "output":
        verb = "lowers" if target.get("direction") == "down" else "raises"
        return f"What {verb} {target['text'].removeprefix('minus ')}?"
    if target["kind"] == "similarity":
        return "What makes it similar to the given embedding?"
    if target["kind"] == "box" and target.get("box") is not None:
        return f"Why {name}, box {target['rank']}?"
    if record["status"] == Status.NO_DETECTION:
        return "Nothing to explain"
    return f"What raises {_the(target['text'])}?"


def _the(text: str) -> str:
    """With an article where it can have one."""
    bare = text.startswith(("the ", "output ", "minus ", "no "))
    return text if bare else f"the {text}"


def question(record: Record) -> str:
    """What exactly is explained, with its number."""
    if not record["validity"]["target_used"]:
        return "These methods do not use the class: the same map for every one."
    target, p = record["target"], record["validity"]["probability"]
    if record["status"] == Status.NO_DETECTION:
        return f"Asked for: {_the(target['text'])}."
    predicted = bool(record["predictions"]) and record["predictions"][0]["index"] == target["index"]
    sure = "" if p is None or target["kind"] != "index" else f"probability {percent(p)}"
    sure = sure and f" ({'predicted with ' if predicted else ''}{sure})"
    return f"Explained is {_the(target['text'])} = {number(record['score'])}{sure}."


def is_control(record: Record) -> bool:
    """Whether a map knows nothing of the network."""
    return str(record["validity"].get("target_used_reason", "")).startswith("a control")


def evidence(record: Record) -> list[str]:
    """How far this row's map can be trusted, a sentence each."""
    if is_control(record):
        return ["A map of the network that looks like this one tells no more than this one does."]
    if record["status"] != Status.OK:
        return [f"{MEANING[Status(record['status'])].capitalize()}."]
    numbers, warning = record["evidence"], record["validity"].get("warning")
    sentences = [f"Careful: {warning}."] if warning else []
    if record["validity"].get("logits"):
        logits = record["validity"]["logits"]
        sentences.append(f"{logits[0].upper()}{logits[1:]}.")
    if record["layer"] or _coarse(record):
        sentences.append(_cells(record))
    sentences += _checks(record, numbers)
    if record["drawn_as"] == "positive" and record["map"]["min"] < 0:
        sentences.append(
            f"Cells that speak against it (down to {number(record['map']['min'])}) are not drawn, as in the paper."
        )
    if numbers.get("gradient_rows") or numbers.get("forward_rows"):
        sentences.append(f"Cost: {_cost(numbers)}.")
    return [*sentences, *(f"{text[0].upper()}{text[1:]}." for text in _approximations(record))]


def _checks(record: Record, numbers: dict[str, Any]) -> list[str]:
    """What the method itself measured of its map."""
    found: list[str] = []
    if "path_error" in numbers:
        found += _path(record, numbers)
    elif "completeness_gap_relative" in numbers:
        change, gap = number(numbers["score_difference"]), percent(numbers["completeness_gap_relative"])
        found.append(f"The parts are to sum to {change}, the change of the score; their sum misses it by {gap}.")
    if "sampling_error" in numbers:
        found.append(
            f"{record['parameters']['samples']} random samples; with other random numbers the map would differ by about "
            f"{percent(numbers['sampling_error'])} of its total. Read the whole, not single pixels."
        )
    if numbers.get("split_half_correlation") is not None:
        found.append(
            f"{record['parameters']['samples']} random masks; the maps of their two halves agree to a rank correlation of "
            f"{number(numbers['split_half_correlation'])}."
        )
    if numbers.get("fit") is not None:
        found.append(f"The linear model behind it explains {percent(numbers['fit'])} of what hiding parts changes.")
    if "preserved_score" in numbers:
        found.append(
            f"With only {percent(numbers['area'])} of the picture sharp the score is {number(numbers['preserved_score'])}; "
            f"with the same area elsewhere {number(numbers['shifted_score'])}, with none {number(numbers['blurred_score'])}."
        )
    if not found:
        found.append("This method has no sum that could be checked against the score: hold it against the controls.")
    return found


def percent(value: float | None) -> str:
    """A fraction as a percentage with two digits; a missing one in words."""
    if value is None:
        return "an undefined share"
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def _cells(record: Record) -> str:
    grid, geometry = record["grid"], record["image"]["geometry"]
    cells = " x ".join(map(str, grid))
    where = f"Taken at layer {record['layer']}" if record["layer"] else "One value a token"
    if geometry is not None and not _coarse(record):
        return f"The region comes from layer {record['layer']}, resized to the picture: no edge is finer than a cell."
    if geometry is None:
        return f"{where}: {cells} cells; nothing finer can be read from it."
    height, width = (round(size / count) for size, count in zip(geometry["size"], grid, strict=True))
    return f"{where}: {cells} cells of {height} x {width} pixels; nothing finer can be read from it."


def _coarse(record: Record) -> bool:
    """Whether the map has cells larger than a pixel, as far as is known."""
    geometry = record["image"]["geometry"]
    return geometry is not None and list(record["grid"]) != list(geometry["size"])


def _path(record: Record, numbers: dict[str, Any]) -> list[str]:
    used = record["parameters"]
    gap_limit, path_limit = used["tolerance"], used.get("path_tolerance") or used["tolerance"]
    change, gap = number(numbers["score_difference"]), percent(numbers["completeness_gap_relative"])
    sentences = [
        f"Compared with {_start(used)}; between the two the score changes by {change}, and the map's sum misses that by "
        f"{gap}.",
        f"With ever more steps the map would change by about {percent(numbers['path_error'])} of its total.",
    ]
    limits = percent(gap_limit) if gap_limit == path_limit else f"{percent(gap_limit)} and {percent(path_limit)}"
    if numbers["converged"]:
        return [*sentences, f"Both are within {limits}: the map is converged."]
    return [*sentences, f"Not converged: the limit is {limits}. Raise max_rows before relying on details."]


def _start(used: dict[str, Any]) -> str:
    if "baseline" not in used:
        return f"the picture blurred by {number(used['max_sigma'])} pixels"
    several = used["baseline"] if isinstance(used["baseline"], list) else [used["baseline"]]
    names = [str(one).partition(" ")[0].replace("_", " ").replace("tensor", "given") for one in several]
    return f"a {names[0]} picture" if len(names) == 1 else f"{', '.join(names)} pictures in turn"


def _cost(numbers: dict[str, Any]) -> str:
    parts = [
        (int(numbers[name]), name.split("_")[0]) for name in ("gradient_rows", "forward_rows") if numbers.get(name)
    ]
    return " and ".join(f"{count} {kind} row{'s' if count > 1 else ''}" for count, kind in parts)


def _approximations(record: Record) -> list[str]:
    """The notes that no other sentence says already."""
    said = ("a Monte Carlo mean", "the path integral")
    return [text for text in record["validity"]["approximations"] if not text.startswith(said)]

"""The evidence of one row in sentences for somebody who did not write the method."""

from typing import Any

from seewhy.draw import number
from seewhy.explanation import MEANING, Status
from seewhy.runfolder import Record


def heading(record: Record) -> str:
    """The question of a row, as a person would ask it."""
    target = record["target"]
    name, other = (target[k] or f"class {target[i]}" for k, i in (("label", "index"), ("other_label", "other")))
    if target["kind"] not in ("index", "margin"):
        return f"Why {target['text']}?"
    return f"Why {name}?" if target["other"] is None else f"Why {name} and not {other}?"


def question(record: Record) -> str:
    """What exactly is explained, with its number."""
    p = record["validity"]["probability"]
    sure = "" if p is None or record["target"]["kind"] != "index" else f" (probability {percent(p)})"
    return f"Explained is the {record['target']['text'].removeprefix('the ')} = {number(record['score'])}{sure}."


def evidence(record: Record) -> list[str]:
    """How far this row's map can be trusted, a sentence each."""
    if not record["validity"]["target_used"]:
        return ["A map of the network that looks like this one tells no more than this one does."]
    if record["status"] != Status.OK:
        return [f"{MEANING[Status(record['status'])].capitalize()}."]
    sentences: list[str] = []
    numbers = record["evidence"]
    if record["layer"]:
        sentences.append(_cells(record))
    if "path_error" in numbers:
        sentences += _path(record, numbers)
    if "sampling_error" in numbers:
        sentences.append(
            f"{record['parameters']['samples']} noisy copies; with other random numbers the map would differ by about "
            f"{percent(numbers['sampling_error'])} of its total. Read the whole, not single pixels."
        )
    if "path_error" not in numbers and "sampling_error" not in numbers:
        sentences.append(
            "This method has no sum that could be checked against the score: hold it against the controls."
        )
    if record["drawn_as"] == "positive" and record["map"]["min"] < 0:
        sentences.append(
            f"Cells that speak against it (down to {number(record['map']['min'])}) are not drawn, as in the paper."
        )
    sentences.append(f"Cost: {_cost(numbers)}.")
    return [*sentences, *(f"{text[0].upper()}{text[1:]}." for text in _approximations(record))]


def percent(value: float | None) -> str:
    """A fraction as a percentage with two digits; a missing one in words."""
    if value is None:
        return "an undefined share"
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def _cells(record: Record) -> str:
    grid, geometry = record["grid"], record["image"]["geometry"]
    cells = " x ".join(map(str, grid))
    if geometry is None:
        return f"Taken at layer {record['layer']}: {cells} cells; nothing finer can be read from it."
    height, width = (round(size / count) for size, count in zip(geometry["size"], grid, strict=True))
    return f"Taken at layer {record['layer']}: {cells} cells of {height} x {width} pixels; nothing finer can be read from it."


def _path(record: Record, numbers: dict[str, Any]) -> list[str]:
    limit = percent(record["parameters"]["tolerance"])
    change, gap = number(numbers["score_difference"]), percent(numbers["completeness_gap_relative"])
    sentences = [
        f"Compared with a {record['parameters']['baseline']} picture; between the two the score changes by {change}, and the "
        f"map's sum misses that by {gap}.",
        f"With half of the steps the map would differ by {percent(numbers['path_error'])} of its total.",
    ]
    if numbers["converged"]:
        return [*sentences, f"Both are within {limit}: the map is converged."]
    return [*sentences, f"Not converged: the limit for both is {limit}. Raise max_rows before relying on details."]


def _cost(numbers: dict[str, Any]) -> str:
    parts = [
        (int(numbers[name]), name.split("_")[0]) for name in ("gradient_rows", "forward_rows") if numbers.get(name)
    ]
    return " and ".join(f"{count} {kind} row{'s' if count > 1 else ''}" for count, kind in parts)


def _approximations(record: Record) -> list[str]:
    return [text for text in record["validity"]["approximations"] if text.startswith("layer")]

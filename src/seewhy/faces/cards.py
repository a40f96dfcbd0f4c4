"""The trust cards of a run folder as what the page shows: rows with numbers in words, curves, a table of methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from seewhy.draw import number
from seewhy.faces.plot import legend, plot

IN_THE_TABLE = ("area_between_", "insertion_auc_")  # of the many scores of faithfulness
Record = Mapping[str, Any]


def cards(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One entry per card, in the order of their first rows."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        about = record["card"]
        card = found.setdefault(about["id"], {"about": about, "rows": [], "shown": _about(about)})
        card["rows"].append(_row(record))
    return list(found.values())


def comparison(found: Sequence[Mapping[str, Any]], least: int = 2) -> dict[str, Any] | None:
    """The table of methods over the cards of one model: a column per first score, and one per faithfulness score."""
    if len(found) < least:
        return None
    columns: dict[tuple[str, str], str] = {}
    for card in found:
        for row in card["rows"]:
            for score in _compared(row):
                columns.setdefault((row["check"], score["name"]), f"{row['title']}: {score['label']}")
    lines = []
    for card in found:
        values = {(row["check"], score["name"]): score["value"] for row in card["rows"] for score in row["scores"]}
        lines.append({"method": _name(card, found), "values": [values.get(key, "") for key in columns]})
    return {"columns": list(columns.values()), "lines": lines, "plots": _overlaid(found)}


def _overlaid(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first curve of each check with all methods in one picture, where they share their points."""
    together: dict[tuple[Any, ...], list[Record]] = {}
    for card in found:
        for row in card["rows"]:
            for curve in [c for c in row["curves"] if not c["control"]][:1]:
                key = (row["title"], curve["x_name"], curve["y_name"], curve["name"], tuple(curve["x"]))
                together.setdefault(key, []).append({**curve, "name": card["about"]["title"]})
    drawn = [(f"{title}: {name}".replace("_", " "), g) for (title, _, _, name, _), g in together.items() if len(g) > 1]
    return [{"title": title, "svg": plot(group), "legend": legend(group)} for title, group in drawn]


def _compared(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of a row that stand in the table: its first; of faithfulness two protocols, under every fill."""
    scores: list[dict[str, Any]] = row["scores"]
    if row["check"] != "faithfulness" or not scores:
        return scores[:1]
    scale = scores[0]["name"].rpartition("_")[2]
    shown = [s for s in scores if s["name"].startswith(IN_THE_TABLE) and s["name"].endswith(scale)]
    return [s for s in shown if "_relative_" not in s["name"]]


def comparison_rows(found: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """The same for a terminal: the columns after the method, and the rows of text, of cards as plain JSON values."""
    records = [{**row, "card": card, "id": ""} for card in found for row in card["checks"]]
    table = comparison(cards(records), least=1)
    if table is None:
        return [], []
    texts = [[value.replace(" [", "\n[") for value in line["values"]] for line in table["lines"]]
    return table["columns"], [[line["method"], *row] for line, row in zip(table["lines"], texts, strict=True)]


def _about(about: Record) -> str:
    images = len(about["images"])
    where = f", layer {about['layer']}" if about["layer"] else ""
    asked = f", explained: {about['targets'][0]}" if len(set(about["targets"])) == 1 else ""
    return f"{about['model']}, {images} image{'s' if images > 1 else ''}{asked}{where}, seed {about['seed']}"


def _name(card: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    """The method of a card; where several cards are of it, with what was explained."""
    title, targets = card["about"]["title"], card["about"]["targets"]
    alone = sum(other["about"]["title"] == title for other in found) == 1
    return title if alone or len(set(targets)) > 1 else f"{title}, {targets[0]}"


def _queue(record: Record) -> list[tuple[str, str]]:
    """The images of a check that a person should look at, by name, each with the reason."""
    names = record["card"]["images"]
    return [(names[one["image"]], one["reason"]) for one in record["details"].get("review_queue", [])]


def _row(record: Record) -> dict[str, Any]:
    return {
        "check": record["check"],
        "title": record["title"],
        "verdict": record["verdict"],
        "sentence": record["sentence"],
        "scores": [_score(score) for score in record["scores"]],
        "plots": _plots(record["curves"]),
        "curves": record["curves"],
        "excluded": _excluded(record["excluded"]),
        "queue": _queue(record),
        "settings": ", ".join(f"{name} = {_short(value)}" for name, value in record["settings"].items()),
        "cost": f"{record['forward_rows']} forward and {record['gradient_rows']} gradient rows, "
        f"{number(record['seconds'])} s",
    }


def _score(score: Record) -> dict[str, Any]:
    null = score["null"]
    return {
        "name": score["name"],
        "label": score["name"].replace("_", " "),
        "value": interval(score),
        "n": score["n"],
        "unit": score["unit"],
        "better": "" if score["direction"] == "neither" else f"{score['direction']} is better",
        "controls": [(name.replace("_", " "), interval(control)) for name, control in score["controls"].items()],
        "null": "" if null is None else f"{_number(null['median'])} [{_number(null['low'])}, {_number(null['high'])}]",
        "null_of": "" if null is None else f"{null['n']} of {null['of']}",
    }


def interval(found: Record) -> str:
    """'0.52 [0.4, 0.6]': a mean and its 95 % interval."""
    if found["value"] is None:
        return "none"
    if found["low"] is None:
        return _number(found["value"])
    return f"{_number(found['value'])} [{_number(found['low'])}, {_number(found['high'])}]"


def _plots(curves: Sequence[Record]) -> list[dict[str, Any]]:
    """Curves that share both axes are drawn into one picture."""
    together: dict[tuple[Any, ...], list[Record]] = {}
    for curve in curves:
        named = tuple(curve["x"]) if any(isinstance(v, str) for v in curve["x"]) else ()
        together.setdefault((curve["x_name"], curve["y_name"], named), []).append(curve)
    return [
        {"title": f"{y} over {x}", "svg": plot(group), "legend": legend(group)} for (x, y, _), group in together.items()
    ]


def _excluded(excluded: Mapping[str, str]) -> str:
    if not excluded:
        return ""
    counts: dict[str, int] = {}
    for why in excluded.values():
        counts[why] = counts.get(why, 0) + 1
    return "not scored: " + ", ".join(f"{count} {why}" for why, count in counts.items())


def _number(value: float | None) -> str:
    return "none" if value is None else number(value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."

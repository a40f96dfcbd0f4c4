"""What the page of an audit shows, from its findings.json and its ledger alone: it reads, and measures nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from seewhy import draw, runfolder
from seewhy.audit.gate import FILE, read_report
from seewhy.audit.output import FOLDER, finding_folder
from seewhy.draw import number
from seewhy.errors import SeewhyError, UsageError
from seewhy.faces.cards import cards, interval
from seewhy.faces.effects import Line, change, effect, place, signed, unit_words
from seewhy.ledger import Ledger, open_ledger

EDGE, QUALITY = 224, 80  # of a picture on the page
BUDGET = {"JPEG": 6_500_000, "PNG": 1_500_000}  # bytes of photos and of maps; base64 makes a third more of them
STRIPS = 4  # of either kind a finding; the rest lies in findings/<id>/
STRIPS_OF_OTHERS = 1  # of what was not confirmed
PATHS = 24  # listed of a finding
LISTED = 200  # skipped images and images to review
MAP_CELLS = 56  # of a mean map, an axis
KINDS = {
    "local_pattern": "local pattern",
    "place": "place",
    "background": "background",
    "whole_image": "whole image",
}
STEPS = ("before", "removed", "pasted")
Record = Mapping[str, Any]


def holds_audit(folder: str | Path) -> bool:
    """Whether a run folder is that of an audit with a report."""
    return (Path(folder) / FILE).is_file()


class Pictures:
    """The pictures of one page: photos as small JPEG files, maps as PNG, as long as the sum of each is within the budget."""

    def __init__(self, ledger: Ledger, wanted: bool) -> None:
        self.ledger, self.left, self.left_out, self.wanted = ledger, dict(BUDGET), 0, wanted

    def jpeg(self, name: str | None) -> bytes | None:
        """A kept picture, small; None where it is not wanted, was erased, or the page is full."""
        if not self.wanted or name is None or not (self.ledger.folder / name).exists():
            return None
        with Image.open(BytesIO(self.ledger.file(name))) as image:
            small = image.convert("RGB")
        small.thumbnail((EDGE, EDGE))
        return self._within("JPEG", _encoded(small, "JPEG", quality=QUALITY, optimize=True))

    def map(self, raw: draw.FloatMap, limit: float) -> bytes | None:
        """A map of values >= 0 in its colors, a pixel a cell."""
        if not self.wanted:
            return None
        colors = Image.fromarray(draw.heatmap(raw, "positive", limit))
        colors.thumbnail((MAP_CELLS, MAP_CELLS), Image.Resampling.BOX)
        return self._within("PNG", _encoded(colors, "PNG", optimize=True))

    def _within(self, kind: str, content: bytes) -> bytes | None:
        if len(content) > self.left[kind]:
            self.left_out += 1
            return None
        self.left[kind] -= len(content)
        return content


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def contents(folder: str | Path, *, pictures: bool = True) -> dict[str, Any]:
    """Everything that the page of an audit shows, in plain values and JPEG bytes.

    UsageError where the folder holds no audit; SeewhyError where a record lacks what every record has, and where a picture
    was changed after it was written.
    """
    run, report = runfolder.read_run(folder), read_report(folder)
    try:
        with open_ledger(folder, read_only=True) as ledger:
            return _contents(ledger, run, report, Pictures(ledger, pictures))
    except (KeyError, TypeError) as error:
        raise SeewhyError(
            f"{folder}: {FILE} or a record lacks what every one has ({type(error).__name__}: {error})."
        ) from error


def _contents(ledger: Ledger, run: Record, report: Record, pictures: Pictures) -> dict[str, Any]:
    about = _last(ledger, "run") or {}
    strips = _of(ledger, "strip")
    order = sorted(report["findings"], key=lambda one: (not one.get("blocks"), bool(one.get("accepted"))))
    confirmed = [_finding(one, strips, STRIPS, pictures) for one in order if one["status"] == "confirmed"]
    others = [_finding(one, strips, STRIPS_OF_OTHERS, pictures) for one in order if one["status"] != "confirmed"]
    checked = report["checks"] or [*runfolder.read_checks(ledger.folder), *_of(ledger, "check")]
    return {
        "verdict": report["verdict"],
        "reasons": report["reasons"],
        "facts": _facts(report, about),
        "confirmed": confirmed,
        "others": others,
        "gone": report.get("gone", []),
        "means": _means(ledger, pictures),
        "columns": _columns(_of(ledger, "association")),
        "setup": _last(ledger, "setup"),
        "cards": cards(checked),
        "gates": [row["gate"] for row in report["checks"] if row.get("gate")],
        "probes": [_probe(one) for one in order if one["kind"] == "whole_image"],
        "queue": report["review_queue"][:LISTED],
        "queued": len(report["review_queue"]),
        "skipped": report["skipped"][:LISTED],
        "n_skipped": len(report["skipped"]),
        "not_tested": report["not_tested"],
        "detectable": _detectable(report["detectable_effect"]),
        "cost": [_cost(one) for one in _of(ledger, "cost")],
        "command": about.get("command") or run.get("command"),
        "repeat": _repeat(about, report),
        "pictures": pictures.wanted,
        "left_out": pictures.left_out,
    }


def _of(ledger: Ledger, kind: str) -> list[dict[str, Any]]:
    return [record.content for record in ledger.read(kind)]


def _last(ledger: Ledger, kind: str) -> dict[str, Any] | None:
    found = _of(ledger, kind)
    return found[-1] if found else None


def _facts(report: Record, about: Record) -> list[tuple[str, str]]:
    found = [("model", str(about.get("model") or report["model"])), ("images", f"{report['n_images']:,}")]
    if report.get("n_examined") is not None:
        found.append(("searched", f"{report['n_examined']:,}"))
        found.append(("explained", f"{report.get('n_explained', report['n_examined']):,}"))
    for name, one in report.get("objects", {}).get("outside", {}).items():
        if one["map"]["n"]:
            shares = [f"{100 * one[what]['value']:.0f} %" for what in ("map", "picture")]
            found.append((f"{name} outside of the marked objects", f"{shares[0]} (of the picture {shares[1]})"))
    confirmed = [one for one in report["findings"] if one["status"] == "confirmed"]
    found.append(("candidates tried", f"{len(report['findings']):,}"))
    found.append(("confirmed", f"{len(confirmed):,}"))
    return [*found, ("skipped", f"{report['n_skipped']:,}")]


# --- findings


def _finding(one: Record, strips: Sequence[Record], most: int, pictures: Pictures) -> dict[str, Any]:
    own = [strip for strip in strips if strip["finding"] == one["id"]]
    return {
        "id": one["id"],
        "folder": _own_folder(one["id"], pictures.ledger.folder),
        "kind": KINDS.get(one["kind"], one["kind"]),
        "status": one["status"],
        "accepted": one.get("accepted"),
        "blocks": bool(one.get("blocks")),
        "new": one.get("new"),
        **_said(one["sentence"]),
        "also": one.get("details", {}).get("also", []),
        "where": one["where"],
        "place": place(one["where"], one["kind"]),
        "p": None if one.get("p_adjusted") is None else number(one["p_adjusted"]),
        "effects": [effect(found) for found in one["effect"]],
        "suspicion": one["suspicion"],
        "paths": one["images"][:PATHS],
        "shown_by": len(one["images"]),
        "strips": _strips(own, most, pictures),
        "n_strips": len(own),
    }


def _own_folder(identifier: str, root: Path) -> str:
    """findings/<id>/ as a link, where there is one."""
    try:
        name = finding_folder(identifier)
    except UsageError:
        return ""
    return f"{FOLDER}/{name}/" if (root / FOLDER / name).is_dir() else ""


def _said(sentence: str) -> dict[str, str]:
    """What a finding says, and apart from it its proof, which follows a colon."""
    head, colon, proof = sentence.partition(": ")
    return {"sentence": f"{head}." if colon else sentence, "proof": f"{proof[:1].upper()}{proof[1:]}"}


def _strips(own: Sequence[Record], most: int, pictures: Pictures) -> list[dict[str, Any]]:
    """Groups of strips by what was done to the images: taken away, put there, or both."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for strip in own:
        steps = tuple(step for step in STEPS if step in strip["said"] or step in strip["pictures"])
        group = groups.setdefault(steps, [])
        if len(group) < most:
            group.append(_strip(strip, steps, pictures))
    words = {"removed": "taken away", "pasted": "put there"}
    return [
        {
            "title": " and ".join(words[step] for step in steps if step in words).capitalize(),
            "about": f"{unit_words(strips[0]['unit'])} of {strips[0]['output']}",
            "strips": strips,
        }
        for steps, strips in groups.items()
    ]


def _strip(strip: Record, steps: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    before = strip["said"].get("before")
    shown = []
    for step in steps:
        said = strip["said"].get(step)
        moved = said is not None and before is not None and step != "before"
        shown.append(
            {
                "step": step,
                "jpeg": pictures.jpeg(strip["pictures"].get(step)),
                "said": "" if said is None else number(said),
                "change": signed(said - before) if moved else "",
            }
        )
    return {"path": strip["path"], "output": strip["output"], "unit": strip["unit"], "shown": shown}


def _probe(one: Record) -> dict[str, Any]:
    first = one["effect"][0] if one["effect"] else None
    name = one.get("name") or one.get("details", {}).get("statistic") or one["id"]
    return {
        "name": name,
        "id": one["id"],
        "status": one["status"],
        "output": "" if first is None else first["output"],
        "unit": "" if first is None else unit_words(first["unit"]),
        "given": "" if first is None else change(first.get("pasted")),
        "control": "" if first is None else change(first.get("control")),
        "taken": "" if first is None else change(first.get("removed")),
        "n": "" if first is None else first["n"],
    }


# --- the data set as the model sees it


def _means(ledger: Ledger, pictures: Pictures) -> list[dict[str, Any]]:
    """Per method the mean maps of every class, of right and of wrong images, all on one scale."""
    last = {(one["method"], one["name"], bool(one["right"])): one for one in _of(ledger, "mean_map")}
    erased = {one["file"] for one in _of(ledger, "erasure")} if pictures.wanted else set()
    found = []
    for method in dict.fromkeys(method for method, _, _ in last):
        own = {key[1:]: one for key, one in last.items() if key[0] == method}
        raw = {
            key: ledger.array(one["map"]).clip(0)
            for key, one in own.items()
            if pictures.wanted and one["map"] not in erased
        }
        limit = max((float(values.max()) for values in raw.values()), default=0.0)
        classes = [
            {
                "name": _class_name(name),
                "maps": [
                    {
                        "said": "right" if right else "wrong",
                        "n": own[name, right]["n"] if (name, right) in own else 0,
                        "png": pictures.map(raw[name, right], limit) if (name, right) in raw else None,
                        "aspect": "1" if (name, right) not in raw else _aspect(raw[name, right].shape),
                    }
                    for right in (True, False)
                ],
            }
            for name in dict.fromkeys(name for name, _ in own)
        ]
        found.append({"method": method, "limit": number(100 * limit), "classes": classes})
    return found


def _aspect(shape: Sequence[int]) -> str:
    return f"{shape[1]} / {shape[0]}"


def _class_name(text: str) -> str:
    """The name of a class out of the JSON that tells "1" from 1."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "no label"
    return value if isinstance(value, str) else text


def _columns(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Per column of metadata what the model reaches on the images of each value, on one scale."""
    last = {(one["column"], one["value"]): one for one in records}
    columns: dict[str, list[Record]] = {}
    for one in last.values():
        columns.setdefault(one["column"], []).append(one)
    found = []
    for name, own in columns.items():
        measure = "accuracy" if "accuracy" in own[0] else "error"
        ends = [v for one in own for v in (one[measure]["value"], one[measure]["high"]) if v is not None]
        line = Line([], 0.0, 1.0 if measure == "accuracy" else max(ends, default=1.0))
        rows = [
            {
                "value": one["value"],
                "n": one["n"],
                "said": interval(one[measure]),
                "score": interval(one["score"]) if "score" in one else "",
                "bar": line.bar(one[measure]),
            }
            for one in own
        ]
        measured = "accuracy" if measure == "accuracy" else "mean absolute error"
        found.append({"column": name, "measure": measured, "rows": rows, "end": number(line.high)})
    return found


# --- what it means, and how to do it again


def _detectable(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per kind the smallest effect that would have been seen, or that there was none to test."""
    rows = []
    for kind in (*KINDS, *(kind for kind in found if kind not in KINDS)):
        several = found.get(kind) or []
        for one in several if isinstance(several, list) else [several]:
            least = one.get("value")
            said = "none: too few images" if least is None else f"{number(least)} {unit_words(one['unit'])}"
            rows.append({"kind": KINDS.get(kind, kind), "said": said, "n": one["n"]})
        if not several:
            rows.append({"kind": KINDS.get(kind, kind), "said": "not tested: no candidate of this kind", "n": ""})
    return rows


def _cost(one: Record) -> str:
    forward, gradient = (f"{one[name]:,}" for name in ("forward_rows", "gradient_rows"))
    minutes, seconds = divmod(round(one["seconds"]), 60)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{forward} forward and {gradient} gradient rows, {time}"


def _repeat(about: Record, report: Record) -> list[tuple[str, str]]:
    """What has to be the same to get the same: fingerprints, settings, versions, the machine."""
    policy = report.get("policy") or {}
    found = {
        "model": about.get("model"),
        "model (SHA-256)": report["model"],
        "data (SHA-256)": report["data"],
        "settings": _pairs(about.get("settings")),
        "versions": _pairs(about.get("versions")),
        "machine": _pairs(about.get("machine")),
        "policy": policy.get("path"),
        "policy (SHA-256)": policy.get("sha256"),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def _pairs(found: Any) -> str:
    if not isinstance(found, dict):
        return "" if found is None else str(found)
    return ", ".join(f"{name} {', '.join(map(str, v)) if isinstance(v, list) else v}" for name, v in found.items())

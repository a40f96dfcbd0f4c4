"""The one renderer: pages and notebook fragments from the rows of a run folder. It reads, and computes no map."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from seewhy import draw, runfolder
from seewhy.audit.gate import FILE
from seewhy.errors import SeewhyError, UsageError
from seewhy.explanation import MEANING, Status
from seewhy.faces import words
from seewhy.faces.audit_page import contents, holds_audit
from seewhy.faces.audit_pdf import audit_pdf
from seewhy.faces.cards import cards, comparison
from seewhy.runfolder import Row

PAGE, PDF = "index.html", "report.pdf"
TABLE_STEPS = 86  # 255 / 85 = 3 gray levels a step of the browser's palette


def report(folder: str | Path, *, pictures: bool = True, pdf: bool = False) -> Path:
    """Render the page of a run folder into it, from its files alone; returns the page's path.

    A folder with an audit gets the audit's page. pictures=False leaves every picture out of it, for private data; pdf=True
    writes report.pdf instead (extra [pdf]) and returns that. UsageError for either in a folder without an audit.
    """
    if holds_audit(folder):
        return _pdf(folder, pictures) if pdf else _audit_page(folder, pictures)
    if pdf or not pictures:
        raise UsageError(
            f"{folder} holds no finished audit (there is no {FILE} in it): pdf=True and pictures=False are for audits."
        )
    return _maps_page(folder)


def _audit_page(folder: str | Path, pictures: bool) -> Path:
    template = environment().get_template("audit.html.j2")
    both = style() + style("audit.css")
    return _written(folder, PAGE, template.render(**contents(folder, pictures=pictures), style=both))


def _pdf(folder: str | Path, pictures: bool) -> Path:
    path = Path(folder) / PDF
    runfolder.write_file(path, audit_pdf(contents(folder, pictures=pictures)))
    return path


def _maps_page(folder: str | Path) -> Path:
    run, rows, checked = runfolder.read_run(folder), runfolder.read(folder), cards(runfolder.read_checks(folder))
    template = environment().get_template("page.html.j2")
    try:
        page = template.render(
            photos=_photos(rows),
            cards=checked,
            comparison=comparison(checked),
            run=run,
            style=style(),
            palettes=_palettes(),
            about=_about(rows),
        )
    except (KeyError, TypeError) as error:
        raise SeewhyError(
            f"{folder}/rows.jsonl: a record lacks what every record has ({type(error).__name__}: {error})."
        ) from error
    return _written(folder, PAGE, page)


def _written(folder: str | Path, name: str, page: str) -> Path:
    path = Path(folder) / name
    runfolder.write_file(path, page.encode("utf-8", "backslashreplace"))  # a file name may hold bytes that are no text
    return path


def fragment(rows: Sequence[Row]) -> str:
    """The same photos and maps as a piece of HTML for a notebook."""
    template = environment().get_template("fragment.html.j2")
    return template.render(photos=_photos(rows), style=style(), palettes=_palettes())


def environment() -> Environment:
    """How every page is rendered: escaped, and an error where a template names what was not given."""
    found = Environment(
        loader=PackageLoader("seewhy.faces"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["uri"] = _data_uri
    return found


def style(name: str = "style.css") -> str:
    """A style sheet, to stand inside a page."""
    return files("seewhy.faces").joinpath(f"templates/{name}").read_text("utf-8")


def _photos(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per photo, with its maps in the order in which they were computed; controls come last."""
    photos: dict[tuple[str, str], dict[str, Any]] = {}
    for record, raw, shown in rows:
        image = record["image"]
        key = (image["name"], image["pixels_sha256"])
        if key not in photos:
            photos[key] = {
                "name": Path(image["name"]).name or image["name"],
                "uri": _jpeg(shown) if shown is not None else None,
                "aspect": f"{shown.shape[1]} / {shown.shape[0]}" if shown is not None else "1 / 1",
                "notes": image["notes"],
                "predictions": [{**p, "percent": words.percent(p["probability"])} for p in record["predictions"]],
                "asked": {},
                "controls": [],
            }
        card = _card(record, raw)
        if not words.is_control(record):
            # on its scale: logit and probability stand apart
            question = (words.heading(record), words.question(record))
            photos[key]["asked"].setdefault(question, []).append(card)
        else:
            photos[key]["controls"].append(card)
    return list(photos.values())


def _card(record: runfolder.Record, raw: draw.FloatMap) -> dict[str, Any]:
    status = Status(record["status"])
    card = {
        "title": record["title"],
        "what": record["summary"],
        "evidence": words.evidence(record),
        "picture": record["drawn_as"],
        "status": None if status is Status.OK else MEANING[status],
        "grid": " × ".join(map(str, record["grid"])),
        "uri": None,
        "on_photo": record.get("picture_on_photo"),
    }
    if status is not Status.OK or raw.ndim != 2:
        return {
            **card,
            "status": card["status"] or f"a map with {raw.ndim} axes is not drawn here: see {record['map']['file']}",
        }
    if record["drawn_as"] == "range":
        ends = draw.bar_labels(raw, "range", 1)
        return {**card, "uri": _gray_png(draw.share_of_range(raw), 1), "own": ends, "signed": ends}
    limit = draw.limit_of(raw, record["drawn_as"])
    own = draw.bar_labels(raw, record["drawn_as"], limit)
    signed = draw.bar_labels(raw, "signed", limit)
    return {**card, "uri": _gray_png(raw, limit), "own": own, "signed": signed}


def _gray_png(raw: draw.FloatMap, limit: float) -> str:
    """The map at its native grid as 8-bit gray: 128 is zero, 1 and 255 are -limit and +limit."""
    gray = np.rint(128 + 127 * (raw / limit).clip(-1, 1)).astype(np.uint8)
    return _uri(Image.fromarray(gray), "PNG", optimize=True)


def _jpeg(shown: draw.RGB) -> str:
    return _uri(Image.fromarray(shown), "JPEG", quality=88)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return _data_uri(buffer.getvalue(), kind.lower())


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _palettes() -> dict[str, dict[str, Any]]:
    """Per picture: what the browser maps gray to, channel by channel, and the color bar as a gradient."""
    gray = np.linspace(0, 255, TABLE_STEPS)
    value = ((gray - 128) / 127).clip(-1, 1)
    one_sided = value.clip(0, 1)
    places = {"positive": one_sided, "range": one_sided, "magnitude": np.abs(value), "signed": (value + 1) / 2}
    found = {}
    for picture, place in places.items():
        colors = draw.palette("signed" if picture == "signed" else "positive", 1001)
        table = colors[np.rint(place * 1000).astype(int)]
        stops = np.rint(colors[::100] * 255).astype(int)
        found[picture] = {
            "channels": {name: " ".join(f"{v:.3f}" for v in table[:, c]) for c, name in enumerate("RGB")},
            "bar": ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops),
        }
    return found


def _about(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Where the page's numbers come from: one line per fact, from the records."""
    if not rows:
        return []
    first = rows[0][0]["provenance"]
    return [
        ("network", f"{first['model']}, {first['task']}"),
        *([("weights", first["weights"])] if first.get("weights") else []),
        ("weights (SHA-256)", first["model_sha256"]),
        (
            "precision, device",
            f"{rows[0][0]['validity']['precision']} on {first['device']} ({first['threads']} threads)",
        ),
        ("seed", str(first["seed"])),
        ("versions", f"seewhy {first['seewhy']}, torch {first['torch']}, Python {first['python']}"),
        ("rows", str(len(rows))),
    ]

"""The compliance record as a PDF for a file and a signature, in the type of the audit's."""

from collections.abc import Mapping
from typing import Any

from seewhy.faces.audit_pdf import SOFT, WIDE, Paper

TIGHT: dict[str, Any] = {"spaceAfter": 1}
NAMES = 112  # points, of the left column of facts
WIDTHS = {  # of a table's columns, as shares
    2: (4, 6),
    3: (3, 4, 4),
    5: (0.9, 2.3, 0.8, 1.2, 6),
    7: (1, 2.6, 2.2, 1.2, 1.8, 1.3, 1.7),
}


def compliance_pdf(shown: Mapping[str, Any]) -> bytes:
    """What `compliance_page.contents` gives, as the bytes of a PDF; MissingExtraError without the extra [pdf]."""
    paper = Paper(f"seewhy compliance record; {shown['foot']}")
    story = [
        paper.text(shown["title"], 21, font="VeraBd", spaceAfter=2),
        paper.text(shown["of"], 11, spaceAfter=6),
        paper.text(shown["claim"], 8.6, SOFT),
    ]
    for section in shown["sections"]:
        story += _section(paper, section)
    fields = [[paper.text(name, 8, SOFT), ""] for name in shown["sign_off"]]
    room = ("TOPPADDING", (0, 0), (-1, -1), 16)
    signed = [_heading(paper, "Sign-off"), paper.table(fields, (90, WIDE - 90), room)]
    story.append(paper.platypus.KeepTogether(signed))
    return paper.pdf(story, f"{shown['title']}: {shown['of']}")


def _section(paper: Paper, section: Mapping[str, Any]) -> list[Any]:
    story = [paper.platypus.CondPageBreak(90), _heading(paper, section["title"])]
    if section["lead"]:
        story.append(paper.text(section["lead"], 8, SOFT))
    if section["facts"]:
        facts = [
            [paper.text(name, 7.6, SOFT, **TIGHT), paper.text(value, 8, **TIGHT)] for name, value in section["facts"]
        ]
        story.append(paper.table(facts, (NAMES, WIDE - NAMES)))
    if section["rows"]:
        shares = WIDTHS[len(section["head"])]
        widths = [WIDE * one / sum(shares) for one in shares]
        head = [paper.text(cell, 7.2, SOFT, **TIGHT) for cell in section["head"]]
        rows = [[paper.text(cell, 7.4, **TIGHT) for cell in row] for row in section["rows"]]
        story.append(paper.table([head, *rows], widths))
    story.append(paper.platypus.Spacer(1, 4))
    story += [paper.text(f"\u2022 {note}", 8, leftIndent=8, spaceAfter=2) for note in section["notes"]]
    story += [_missing(paper, one) for one in section["missing"]]
    if section["lines"]:
        story.append(paper.table([[""]] * section["lines"], (WIDE,), ("TOPPADDING", (0, 0), (-1, -1), 16)))
    return story


def _heading(paper: Paper, said: str) -> Any:
    """Not tied to what follows: a long table begins below it and goes on overleaf."""
    return paper.text(said, 11.5, font="VeraBd", spaceBefore=7, spaceAfter=3)


def _missing(paper: Paper, one: Mapping[str, str]) -> Any:
    command = f": {paper.plain(one['command'])}" if one["command"] else "."
    said = f"<b>{paper.plain(one['what'])}</b>: {paper.plain(one['said'])}{command}"
    return paper.marked(said, 8, leftIndent=8)

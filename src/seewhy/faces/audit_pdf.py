r"""The audit as a PDF for a file or a signature: verdict, findings with their pictures, what was not tested, sign-off.

reportlab (BSD, a pure wheel) draws it in the one font that it ships, of Latin letters. Another letter is written as its code
(\u7eb8), never left out; the HTML page shows it as it is.
"""

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image

from seewhy.loading.extras import import_extra

INK, SOFT, LINE, PANEL = "#1c1d22", "#5d6069", "#dcdcd6", "#f5f5f2"
COLOR = {"pass": "#2c8a5b", "blocked": "#c2371f"}
OPEN = "#b07300"  # inconclusive, incomplete
PAGE = (595.28, 841.89)  # points: A4
MARGIN, TOP, WIDE, PICTURE = 48, 46, 499, 74  # points
SIGNED = ("Name", "Role", "Decision", "Date", "Signature")
Record = Mapping[str, Any]


def audit_pdf(shown: Record) -> bytes:
    """What `audit_page.contents` gives, as the bytes of a PDF; MissingExtraError without the extra [pdf]."""
    paper = Paper()
    story = [*_verdict(paper, shown), *_findings(paper, shown), *_untested(paper, shown), *_sign_off(paper, shown)]
    return paper.pdf(story, f"seewhy audit: {shown['verdict']}")


class Paper:
    """The fonts, and how text, tables and pictures are set with them."""

    def __init__(self, named: str = "seewhy audit") -> None:
        self.named = named  # at the foot of every page
        self.platypus = import_extra("reportlab.platypus", "pdf", "a PDF report")
        self.styles = import_extra("reportlab.lib.styles", "pdf", "a PDF report")
        metrics = import_extra("reportlab.pdfbase.pdfmetrics", "pdf", "a PDF report")
        fonts = import_extra("reportlab.pdfbase.ttfonts", "pdf", "a PDF report")
        for name in ("Vera", "VeraBd"):
            metrics.registerFont(fonts.TTFont(name, f"{name}.ttf"))
        metrics.registerFontFamily("Vera", normal="Vera", bold="VeraBd", italic="Vera", boldItalic="VeraBd")
        self.glyphs = metrics.getFont("Vera").face.charToGlyph

    def pdf(self, story: list[Any], title: str) -> bytes:
        """A story as the bytes of a file: A4, the same bytes for the same story."""
        buffer, edge = BytesIO(), {"leftMargin": MARGIN, "rightMargin": MARGIN, "topMargin": TOP, "bottomMargin": TOP}
        document = self.platypus.SimpleDocTemplate(buffer, pagesize=PAGE, title=title, invariant=True, **edge)
        document.build(story, onFirstPage=self.foot, onLaterPages=self.foot)
        return buffer.getvalue()

    def text(self, said: object, size: float = 9.2, color: str = INK, **more: Any) -> Any:
        """A paragraph of plain text: nothing in it is markup."""
        return self.marked(self.plain(said), size, color, **more)

    def marked(self, markup: str, size: float = 9.2, color: str = INK, **more: Any) -> Any:
        """A paragraph of reportlab's markup."""
        options = {"spaceAfter": 4, "splitLongWords": 1, **more}
        name = options.pop("font", "Vera")
        style = self.styles.ParagraphStyle(
            name="own", fontName=name, fontSize=size, leading=1.42 * size, textColor=color, **options
        )
        return self.platypus.Paragraph(markup, style)

    def heading(self, said: str) -> Any:
        """The title of a section."""
        return self.text(said, 13.5, font="VeraBd", spaceBefore=16, spaceAfter=6, keepWithNext=1)

    def plain(self, said: object) -> str:
        """Text as markup that shows every letter of it, or its code."""
        return "".join(map(self._letter, str(said)))

    def _letter(self, letter: str) -> str:
        if ord(letter) in self.glyphs or letter.isspace():
            return escape(letter)
        return letter.encode("unicode_escape").decode()

    def table(self, rows: Sequence[Sequence[Any]], widths: Sequence[float], *rules: Any, lined: bool = True) -> Any:
        """Cells in columns of so many points, a fine line under each row where `lined`."""
        usual = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 8),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
            *([("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE)] if lined else []),
        ]
        return self.platypus.Table(rows, colWidths=list(widths), style=[*usual, *rules], hAlign="LEFT", splitInRow=1)

    def picture(self, jpeg: bytes) -> Any:
        """A small picture, as high and wide as it may be at most."""
        with Image.open(BytesIO(jpeg)) as image:
            scale = PICTURE / max(image.size)
            return self.platypus.Image(BytesIO(jpeg), image.width * scale, image.height * scale)

    def foot(self, canvas: Any, document: Any) -> None:
        """Page number at the foot of a page."""
        canvas.setFont("Vera", 7.5)
        canvas.setFillColor(SOFT)
        canvas.drawString(MARGIN, 30, self.named)
        canvas.drawRightString(MARGIN + WIDE, 30, str(document.page))


def _verdict(paper: Paper, shown: Record) -> list[Any]:
    color = COLOR.get(shown["verdict"], OPEN)
    lines = [paper.text(shown["verdict"].upper(), 11, color, font="VeraBd")]
    lines += [
        paper.text(said, 10 if i == 0 else 9.2, font="VeraBd" if i == 0 else "Vera")
        for i, said in enumerate(shown["reasons"])
    ]
    box = [
        ("BACKGROUND", (0, 0), (-1, -1), PANEL),
        ("LINEBEFORE", (0, 0), (0, -1), 4, color),
        ("LEFTPADDING", (0, 0), (-1, -1), 14),
        ("TOPPADDING", (0, 0), (-1, 0), 10),
        ("BOTTOMPADDING", (0, -1), (-1, -1), 10),
    ]
    facts = [[paper.text(name, 8, SOFT), paper.text(value)] for name, value in shown["facts"]]
    return [
        paper.text("What does the model rely on?", 21, font="VeraBd", spaceAfter=12),
        paper.table([[line] for line in lines], (WIDE,), *box, lined=False),  # a row a line: it may go on overleaf
        paper.platypus.Spacer(1, 10),
        paper.table(facts, (130, WIDE - 130)),
    ]


def _findings(paper: Paper, shown: Record) -> list[Any]:
    story = [paper.heading("Findings")]
    if not shown["confirmed"]:
        story.append(paper.text("Nothing was confirmed."))
    for number, one in enumerate(shown["confirmed"], 1):
        story += _finding(paper, number, one)
    if shown["others"]:
        story.append(paper.heading("Tried, and not confirmed"))
        rows = [
            [paper.text(one["status"], 8, SOFT), paper.text(f"{one['sentence']} {one['proof']}", 8)]
            for one in shown["others"]
        ]
        story.append(paper.table(rows, (64, WIDE - 64)))
    return story


def _finding(paper: Paper, number: int, one: Record) -> list[Any]:
    accepted = one["accepted"]
    about = f"{one['kind']}, {one['place']}; id {one['id']}; shown by {one['shown_by']} of the examined images"
    story = [
        paper.text(f"{number}. {one['sentence']}", 10.5, font="VeraBd", spaceBefore=12, keepWithNext=1),
        *([paper.text(one["proof"], 8.6, keepWithNext=1)] if one["proof"] else []),
        paper.text(about, 8, SOFT, keepWithNext=1),
    ]
    if accepted:
        said = f"Accepted by {accepted['name']} until {accepted['until']}: {accepted['reason']}"
        story.append(paper.text(said, 8.6, COLOR["pass"]))
    for effect in one["effects"]:
        rows = [
            [
                paper.text(f"{effect['output']}, {effect['unit']}", 8, SOFT),
                paper.text("change", 8, SOFT),
                paper.text("n", 8, SOFT),
            ]
        ]
        rows += [[paper.text(line[name], 8.4) for name in ("what", "said", "n")] for line in effect["lines"]]
        story += [paper.table(rows, (210, 210, WIDE - 420)), paper.platypus.Spacer(1, 4)]
        story += [
            paper.text(note.removeprefix("Gray: ").capitalize() if note.startswith("Gray: ") else note, 8, SOFT)
            for note in effect["notes"]
        ]
    story += [paper.text(f"\u2022 {fact}", 8.6, leftIndent=8) for fact in one["suspicion"]]
    for group in one["strips"]:
        story += _strips(paper, group)
    return story


def _strips(paper: Paper, group: Record) -> list[Any]:
    """Two strips a row: each picture over what the model said of it."""
    if not any(step["jpeg"] for strip in group["strips"] for step in strip["shown"]):
        return []
    title = paper.text(f"{group['title']}: {group['about']}", 8, SOFT, spaceBefore=4, keepWithNext=1)
    cells = [_strip(paper, strip) for strip in group["strips"]]
    each = 2 if all(len(strip["shown"]) == 2 for strip in group["strips"]) else 1
    rows = [cells[i : i + each] + [""] * (each - len(cells[i : i + each])) for i in range(0, len(cells), each)]
    return [title, paper.table(rows, [WIDE / each] * each)]


def _strip(paper: Paper, strip: Record) -> Any:
    pictures = [paper.picture(step["jpeg"]) if step["jpeg"] else "" for step in strip["shown"]]
    said = [paper.text(f"{step['step']} {step['said']} {step['change']}", 7) for step in strip["shown"]]
    widths = [112] * len(pictures)
    name = paper.text(strip["path"][-60:], 6.6, SOFT)
    return [paper.table([pictures, said], widths, lined=False), name]


def _untested(paper: Paper, shown: Record) -> list[Any]:
    head = [paper.text(said, 8, SOFT) for said in ("kind", "smallest effect that would have shown", "n")]
    rows = [[paper.text(one[name], 8.6) for name in ("kind", "said", "n")] for one in shown["detectable"]]
    story = [paper.heading("What was not tested"), paper.table([head, *rows], (130, 280, WIDE - 410))]
    story.append(paper.platypus.Spacer(1, 6))
    story += [paper.text(f"\u2022 {said}", leftIndent=8) for said in shown["not_tested"]]
    if shown["n_skipped"]:
        story.append(
            paper.text(f"\u2022 {shown['n_skipped']} images were skipped; findings.json lists them.", leftIndent=8)
        )
    return story


def _sign_off(paper: Paper, shown: Record) -> list[Any]:
    rows = [[paper.text(name, 8, SOFT), paper.text(value, 8)] for name, value in shown["repeat"]]
    rows += [[paper.text("cost", 8, SOFT), paper.text(said, 8)] for said in shown["cost"]]
    if shown["command"]:
        rows.append([paper.text("command", 8, SOFT), paper.text(shown["command"], 8)])
    story = [paper.heading("What this was"), *([paper.table(rows, (110, WIDE - 110))] if rows else [])]
    fields = [[paper.text(name, 8, SOFT), ""] for name in SIGNED]
    room = ("TOPPADDING", (0, 0), (-1, -1), 14)
    signed = [paper.heading("Sign-off"), paper.table(fields, (90, WIDE - 90), room)]
    return [*story, paper.platypus.KeepTogether(signed)]

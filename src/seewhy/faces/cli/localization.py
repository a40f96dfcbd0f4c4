"""seewhy check --only localization --boxes: the maps of each finding against what people marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from seewhy.faces.cli.console import DONE, SKIPPED, progress_bar, result, result_json, say, table
from seewhy.faces.cli.explain import Skip, finish

if TYPE_CHECKING:
    from seewhy.checks import CheckResult, Score
    from seewhy.data.boxes import Annotations
    from seewhy.trust import LocalizationReport

BOXES = (
    "What people marked: a table (file, label, x0, y0, x1, y1; NIH's BBox_List_2017.csv), COCO JSON, a folder of Pascal VOC "
    "XML or of masks; repeat for several annotators. With --only localization."
)
FINDING = "Only this finding of --boxes; repeat for several."
CLUSTERS = "The column of --boxes that says which images are of one patient. Default: read from names as NIH's."
SHOWN = ("iou_at_0.50", "iou_at_best_q_of_other_images", "pointing_game", "energy_inside", "peak_in_plausible_region")
UNUSED = 3  # annotations that are named on the terminal; the page and --json name all


def read_marks(
    boxes: Sequence[Path], findings: Sequence[str], clusters: str | None, only: Sequence[str], others: Sequence[object]
) -> "list[Annotations]":
    """What --boxes names, each an annotator where it names none; UsageError, before any work, for what cannot be meant."""
    from seewhy.data.boxes import read_boxes
    from seewhy.errors import UsageError

    if not boxes:
        if findings or clusters is not None:
            raise UsageError("--finding and --clusters are of --boxes: name the file of what people marked.")
        return []
    if list(only) != ["localization"]:
        raise UsageError("--boxes is for the report of one check: add --only localization.")
    if any(one is not None for one in others):
        raise UsageError("--truth and --training are of other checks: leave them out where there is --boxes.")
    stems = [path.stem for path in boxes]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in boxes]
    annotators = names if len(boxes) > 1 else [""]
    return [read_boxes(path, who, clusters) for path, who in zip(boxes, annotators, strict=True)]


def rows_of(network: Any, paths: Sequence[Path], marks: "Sequence[Annotations]", findings: Any, target: Any) -> int:
    """How many maps the report needs: one per image and finding."""
    from seewhy.trust import read_findings

    wanted, _ = read_findings(network, paths, marks, findings or None, target)
    return sum(len({image for image, _ in one.objects}) for one in wanted)


def localize(
    network: Any,
    paths: Sequence[Path],
    skipped: list[Skip],
    marks: "Sequence[Annotations]",
    method: str,
    findings: Sequence[str],
    out: Path,
    max_skipped: int,
    *,
    as_json: bool,
    **asked: Any,
) -> NoReturn:
    """Run the report, write its page, and print a line per finding; ends the command with its exit code."""
    import seewhy as sw
    from seewhy.faces.cli.check import kept_on_interrupt
    from seewhy.runfolder import QUEUE

    with kept_on_interrupt(out), progress_bar() as step:
        found = sw.localization_report(
            network, list(paths), marks, method, findings or None, out=out, progress=step, **asked
        )
    page = finish(out, paths, [*skipped, *found.unused])
    if as_json:
        result_json({**found.to_dict(), "skipped": skipped, "page": str(page)})
    else:
        show(found)
        result(f"to look at again: {len(found.review_queue)} maps, listed in {out / QUEUE}")
        result(str(page))
    for text in [*found.notes, *(item["reason"] for item in found.unused[:UNUSED])]:
        say(text)
    if len(found.unused) > UNUSED:
        say(f"and {len(found.unused) - UNUSED} more that were not used: see {page}")
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def show(found: "LocalizationReport") -> None:
    """A line per finding: how many images of how many patients, and each number with the priors beside it."""
    heads = ("IoU at 50 %", "IoU at the best q of others", "peak inside", "energy inside", "peak where plausible")
    lines = []
    for finding, card in found.cards.items():
        row = card["localization"]
        cells = [_cell(row[name]) for name in SHOWN] if row.scores else [""] * len(SHOWN)
        lines.append((finding, _counted(row), str(row.verdict), *cells))
    table(("finding", "images", "verdict", *heads), lines)
    for finding, row in found.results.items():
        people = [s for s in row.scores if s.name == "annotators_iou" or s.name.startswith("iou_at_0.50 with")]
        for score in people:
            result(f"{finding}, {score.name.replace('_', ' ')}: {score.interval}")


def _counted(row: "CheckResult") -> str:
    found = row["auprc"].interval if row.scores else None
    if found is None:
        return "none"
    return f"{found.n} of {found.clusters} patients" if found.clusters != found.n else str(found.n)


def _cell(score: "Score") -> str:
    """'0.31 [0.2, 0.4]' and under it what looks at no picture."""
    lines = [str(score.interval).partition(" (n")[0]]
    for prior, short in (("center_prior", "center"), ("median_box_prior", "median box")):
        control = score.controls.get(prior)
        if control is not None and control.n:
            lines.append(f"{short} {control.value:.2g}")
    return "\n".join(lines)

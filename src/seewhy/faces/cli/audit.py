"""seewhy audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.check import kept_on_interrupt
from seewhy.faces.cli.console import (
    BLOCKED,
    DONE,
    INTERRUPTED,
    SKIPPED,
    progress_bar,
    result,
    result_json,
    say,
)
from seewhy.faces.cli.explain import say_forecast

if TYPE_CHECKING:
    from seewhy.data.dataset import DataSet
    from seewhy.data.kinds import Kind
    from seewhy.model import VisionModel

DATA = (
    "A folder with a sub-folder per class, a CSV or Parquet table with a path and a label (class, several labels, or a "
    "score), or a Hugging Face data set folder."
)
KIND = "What the labels are: class, labels (several an image) or score. Default: read from them."
GROUP = "Column of what images share, such as patient or photo session; never split between finding and confirming."
METADATA = "Column of metadata, such as hospital or seller; repeat for several. Default: every other column."
ROOT = "Folder that the paths of a table are relative to. Default: the table's own."
SPLIT = "Which split of a data set that holds several, such as test."
METHOD = "A method; repeat for several. Default: grad_cam and occlusion. See: seewhy methods."
BOXES = (
    "What people marked as the object: a table, COCO JSON, a folder of Pascal VOC XML or of masks; repeat for several. "
    "Surroundings are then all that lies outside."
)
POLICY = "What blocks: a seewhy.toml of your own. Default: confirmed findings block."
AGAINST = "Run folder of an earlier audit: only what is new blocks."
PICTURES = "Keep no picture, for private data: neither in the run folder nor on the page."
MAX_SKIPPED = "More skipped images than this end with exit code 3: a number, or a share such as 2%."


def audit(
    data: Path = typer.Argument(help=DATA),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    label: str | None = typer.Option(None, help="Column of the label. Default: label, class, score ..."),
    path: str | None = typer.Option(None, help="Column of the image's path. Default: path, file, image ..."),
    group: str | None = typer.Option(None, help=GROUP),
    metadata: list[str] = typer.Option([], help=METADATA),
    kind: str | None = typer.Option(None, help=KIND),
    root: Path | None = typer.Option(None, help=ROOT),
    split: str | None = typer.Option(None, help=SPLIT),
    method: list[str] = typer.Option([], help=METHOD),
    boxes: list[Path] = typer.Option([], help=BOXES),
    policy: Path | None = typer.Option(None, help=POLICY),
    against: Path | None = typer.Option(None, help=AGAINST),
    explained: int = typer.Option(1000, min=1, help="Images that are explained at most; all are predicted."),
    per_class: int = typer.Option(40, min=1, help="Right and wrong images of each class that are explained at most."),
    anyway: bool = typer.Option(False, "--anyway", help="Go on where labels or normalization look wrong."),
    no_pictures: bool = typer.Option(False, "--no-pictures", help=PICTURES),
    out: Path = typer.Option(Path("seewhy-audit"), help="Run folder for the ledger, the findings and the page."),
    junit: Path | None = typer.Option(None, help="Also write the result as JUnit XML, for CI."),
    labels: Path | None = options.LABELS,
    mean: str | None = options.MEAN,
    std: str | None = options.STD,
    size: str | None = options.SIZE,
    crop: float | None = options.CROP,
    framing: str | None = options.FRAMING,
    task: str | None = options.TASK,
    seed: int = options.SEED,
    device: str = options.DEVICE,
    batch_size: int | None = options.BATCH_SIZE,
    precision: str = options.PRECISION,
    max_skipped: str = typer.Option("1%", help=MAX_SKIPPED),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how many rows and minutes it will take."),
    as_json: bool = options.JSON,
) -> None:
    """Audit a model on labeled images: the shortcuts that it uses, proved, and whether it may ship (exit code 0 or 1)."""
    import seewhy as sw
    from seewhy.data.dataset import read_dataset

    names = check_call(data, method, policy, against, junit, seed)
    share = read_share(max_skipped)
    pixels = options.pixels(mean, std, size, crop, framing)
    dataset = read_dataset(
        data,
        label=label,
        path=path,
        group=group,
        metadata=metadata or None,
        kind=cast("Kind | None", kind),  # any other text is an error there
        root=root,
        split=split,
    )
    network = options.load_model(model, weights, labels, device, batch_size, precision, task=task, pixels=pixels)
    forecast(network, dataset, names, explained, per_class, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    with kept_on_interrupt(out), progress_bar() as step:
        done = sw.audit(
            network,
            dataset,
            out,
            policy,
            methods=names,
            boxes=boxes or None,
            against=against,
            explained=explained,
            per_class=per_class,
            anyway=anyway,
            pictures=not no_pictures,
            seed=seed,
            progress=step,
        )
    report = done.to_dict()
    if junit is not None:
        write_junit(junit, report)
    show(report, done.page, as_json=as_json)
    raise typer.Exit(exit_code(report, share))


def check_call(
    data: Path, method: Sequence[str], policy: Path | None, against: Path | None, junit: Path | None, seed: int
) -> tuple[str, ...]:
    """The methods' names; UsageError, before anything is loaded, for what cannot be meant."""
    import datetime

    import seewhy.methods  # noqa: F401  # fills the registry
    from seewhy.audit.gate import read_report
    from seewhy.audit.policy import read_policy, refuse_expired
    from seewhy.audit.run import METHODS
    from seewhy.errors import UsageError, near_file, whole_number
    from seewhy.registry import find_method

    whole_number("seed", seed, at_least=0)
    if not data.exists():
        raise UsageError(
            f"{data}: no such folder or table. An audit reads a folder with a sub-folder per class, a CSV or Parquet table "
            f"of paths and labels, or a Hugging Face folder.{near_file(data)}"
        )
    names = tuple(dict.fromkeys(method)) or METHODS
    for name in names:
        find_method(name)
    refuse_expired(read_policy(policy), datetime.datetime.now(datetime.UTC).date())
    if against is not None:
        read_report(against)
    if junit is not None and (junit.is_dir() or not junit.resolve().parent.is_dir()):
        raise UsageError(f"--junit names a file in a folder that exists; got {junit}.")
    return names


def read_share(text: str) -> tuple[float, bool]:
    """'5' -> (5, False), '2%' -> (0.02, True): how many images may be skipped, and whether that is a share."""
    from seewhy.errors import UsageError

    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / 100 if percent else int(number)
    except ValueError:
        value = -1
    if rest.strip() or not 0 <= value < float("inf") or (percent and value > 1):
        raise UsageError(f"--max-skipped is a number of images, or a share from 0% to 100%; got {text!r}.")
    return value, bool(percent)


def forecast(
    network: "VisionModel",
    dataset: "DataSet",
    methods: Sequence[str],
    explained: int,
    per_class: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say how many rows and minutes the audit will take, where that is long or all that is asked."""
    from seewhy.audit import forecast_audit
    from seewhy.audit.forecast import TRIALS, rows_of_trial

    forward, gradient = forecast_audit(network, dataset, methods, explained=explained, per_class=per_class)
    more = rows_of_trial(min(len(dataset), explained))
    assumed = f"where {TRIALS} patterns are tried; each further trial adds {more} forward rows at most"
    say_forecast(network, len(dataset), forward, gradient, dry_run=dry_run, as_json=as_json, assumed=assumed)


def write_junit(file: Path, report: dict[str, Any]) -> None:
    """The report as JUnit XML."""
    from seewhy.audit.junit import junit
    from seewhy.runfolder import write_file

    write_file(file, junit(report).encode())


def show(report: dict[str, Any], page: Path, *, as_json: bool) -> None:
    """The verdict with its reasons and a line per finding on stdout; what was skipped on stderr."""
    if as_json:
        result_json(report)
    else:
        result(report["verdict"])
        for reason in report["reasons"]:
            result(reason)
        for finding in report["findings"]:
            result(line_of(finding))
        for finding in report["gone"]:
            result(f"{finding['id']}  {finding['kind']}  gone: {finding['sentence']}")
        result(str(page))
    for item in report["skipped"]:
        say(f"skipped: {item['path']}: {item['reason']}")


def line_of(finding: dict[str, Any]) -> str:
    """A finding in one line: its id, kind, status, marks and sentence."""
    marks = [finding["status"]]
    if finding["blocks"]:
        marks.append("blocks")
    if finding["accepted"]:
        marks.append(f"accepted by {finding['accepted']['name']} until {finding['accepted']['until']}")
    if finding["new"] is not None:
        marks.append("new" if finding["new"] else "known")
    return f"{finding['id']}  {finding['kind']}  {', '.join(marks)}: {finding['sentence']}"


def exit_code(report: dict[str, Any], most: tuple[float, bool]) -> int:
    """130 interrupted, 1 where the gate is not passed, 3 where too many images were skipped, 0."""
    if report["verdict"] == "incomplete":
        return INTERRUPTED
    if report["verdict"] != "pass":
        return BLOCKED
    skipped, (limit, is_share) = report["n_skipped"], most
    allowed = limit * (report["n_images"] + skipped) if is_share else limit
    return SKIPPED if skipped > allowed else DONE

"""seewhy compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.check import (
    SETTING,
    TRUTH,
    check_settings,
    estimate,
    kept_on_interrupt,
    readable_images,
    show_setup,
)
from seewhy.faces.cli.console import DONE, SKIPPED, progress_bar, result, result_json, say, table
from seewhy.faces.cli.explain import TARGET, finish

if TYPE_CHECKING:
    from seewhy.trust import Comparison

METHODS = "A method; repeat for several. Default: one of each family, with two controls. See: seewhy methods."
BUDGET = "Seconds that one map may take, e.g. 2s: methods above it are listed and left out."
PARAM = "A parameter of a method: METHOD.NAME=VALUE, e.g. rise.samples=500; repeat for several."


def compare(
    images: list[Path] = typer.Argument(None, help="Image files, or folders of them; 9 or more give the nulls."),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    method: list[str] = typer.Option([], help=METHODS),
    budget: str | None = typer.Option(None, help=BUDGET),
    target: str | None = typer.Option(None, help=TARGET),
    param: list[str] = typer.Option([], help=PARAM),
    setting: list[str] = typer.Option([], "--set", help=SETTING),
    truth: str | None = typer.Option(None, help=TRUTH),
    anyway: bool = typer.Option(False, "--anyway", help="Go on where labels or normalization look wrong."),
    out: Path = typer.Option(Path("seewhy-compare"), help="Run folder for the cards, the maps and the page."),
    labels: Path | None = options.LABELS,
    model_version: str | None = options.MODEL_VERSION,
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
    max_skipped: int = typer.Option(0, min=0, help="More skipped images than this end with exit code 3."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how many rows and minutes it will take."),
    as_json: bool = options.JSON,
) -> None:
    """Measure methods side by side on your model and images: the field's comparison table, with your own numbers."""
    import seewhy as sw
    from seewhy.data.truth import read_truth
    from seewhy.registry import METHODS
    from seewhy.runfolder import open_folder
    from seewhy.trust.comparison import COMPARED, METHODS_BY_DEFAULT

    own = _parameters(param, method)
    settings = check_settings(setting, [], everything=False)
    seconds = None if budget is None else _seconds(budget)
    pixels = options.pixels(mean, std, size, crop, framing)
    readable, skipped = readable_images(images)
    how: dict[str, Any] = {"task": task, "pixels": pixels, "version": model_version}
    network = options.load_model(model, weights, labels, device, batch_size, precision, **how)
    own = {name: options.read_pictures(given, network, METHODS[name].parameters) for name, given in own.items()}
    classes = None if truth is None else read_truth(truth, readable)
    names = method or list(METHODS_BY_DEFAULT)
    if estimate(network, names, own, len(readable), COMPARED, settings, dry_run=dry_run, as_json=as_json):
        return
    open_folder(out)
    asked: dict[str, Any] = {
        "target": target,
        "settings": settings,
        "params": own,
        "anyway": anyway,
        "seed": seed,
        "out": out,
    }
    with kept_on_interrupt(out), progress_bar() as step:
        found = sw.compare(network, readable, names, seconds, labels=classes, progress=step, **asked)
    page = finish(out, readable, skipped)
    if as_json:
        result_json({**found.to_dict(), "skipped": skipped, "page": str(page)})
    else:
        show(found)
        result(str(page))
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def show(found: "Comparison") -> None:
    """The table of methods, what was left out, and how far the numbers disagree."""
    from seewhy.faces.cards import comparison_rows

    show_setup(None if found.setup is None else found.setup.to_dict())
    columns, rows = comparison_rows([card.to_dict() for card in found.cards])
    table(["method", *columns], rows)
    for name, why in found.left_out.items():
        say(f"left out: {name}: {why}")
    result(found.sentence)


def _parameters(pairs: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    """METHOD.NAME=VALUE as parameters of methods; UsageError, before any work, for what there is not."""
    import seewhy.methods  # noqa: F401  # fills the registry
    from seewhy.errors import UsageError
    from seewhy.registry import check_parameters, find_method

    for name in names:
        find_method(name)
    found: dict[str, dict[str, Any]] = {}
    for name, value in options.parameters(pairs).items():
        of, dot, parameter = name.partition(".")
        if not dot:
            raise UsageError(f"--param takes METHOD.NAME=VALUE here, e.g. rise.samples=500; got {name!r}.")
        check_parameters(find_method(of), [parameter])
        found.setdefault(of, {})[parameter] = value
    return found


def _seconds(text: str) -> float:
    from seewhy.errors import UsageError

    try:
        return float(text.strip().removesuffix("s"))
    except ValueError:
        raise UsageError(f"--budget is a number of seconds, e.g. 2s; got {text!r}.") from None

"""seewhy check."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, UNUSABLE, progress_bar, result, result_json, say, table
from seewhy.faces.cli.explain import TARGET, Skip, duration, find, finish, say_forecast
from seewhy.faces.cli.localization import BOXES, CLUSTERS, FINDING, localize, read_marks, rows_of

if TYPE_CHECKING:
    from seewhy.checks import CheckResult
    from seewhy.model import VisionModel
    from seewhy.trust import TrustCard

ONLY = "A check, by name; repeat for several. See: seewhy check --list."
SETTING = "A parameter of a check: CHECK.NAME=VALUE, e.g. faithfulness.steps=20; repeat for several."
TRUTH = "The true classes: a CSV table (file, label), or 'folders': the name of the folder that an image lies in."
TRAINING = "Training images for roar and data_randomization: a folder with a sub-folder per class, or a table."
EVERYTHING: dict[str, dict[str, Any]] = {  # what --all adds
    "model_randomization": {
        "order": ("cascading", "independent", "bottom_up"),
        "similarities": ("spearman", "spearman_absolute", "ssim", "hog"),
        "repairs": True,
    },
    "faithfulness": {
        "protocols": (
            "pixel_flipping",
            "insertion_deletion",
            "average_drop",
            "road",
            "infidelity",
            "sensitivity_n",
        )
    },
}
Settings = dict[str, dict[str, Any]]


def check(
    images: list[Path] = typer.Argument(None, help="Image files, or folders of them; 9 or more give the nulls."),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    method: str = typer.Option("grad_cam", help="The method that is checked. See: seewhy methods."),
    target: str | None = typer.Option(None, help=TARGET),
    layer: str | None = typer.Option(None, help="Layer for class activation maps; default: found by running."),
    param: list[str] = typer.Option([], help="A parameter of the method: name=value; repeat for several."),
    only: list[str] = typer.Option([], help=ONLY),
    setting: list[str] = typer.Option([], "--set", help=SETTING),
    everything: bool = typer.Option(
        False,
        "--all",
        help="Every order, similarity, repair and protocol, manipulation and grid pointing: takes longer.",
    ),
    truth: str | None = typer.Option(None, help=TRUTH),
    training: Path | None = typer.Option(None, help=TRAINING),
    boxes: list[Path] = typer.Option([], help=BOXES),
    finding: list[str] = typer.Option([], help=FINDING),
    clusters: str | None = typer.Option(None, help=CLUSTERS),
    anyway: bool = typer.Option(False, "--anyway", help="Go on where labels or normalization look wrong."),
    out: Path = typer.Option(Path("seewhy-check"), help="Run folder for the card, the maps and the page."),
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
    listed: bool = typer.Option(False, "--list", help="List the checks and what they ask."),
    as_json: bool = options.JSON,
) -> None:
    """Check a method on your model and images: the trust card, a row per check, each with its evidence."""
    if listed:
        list_checks(as_json=as_json)
        return
    import seewhy as sw
    from seewhy.data.truth import read_truth
    from seewhy.faces.cli.explain import check_methods
    from seewhy.runfolder import open_folder
    from seewhy.trust import DEFAULT, FURTHER

    given = options.parameters(param)
    (info,) = check_methods([method], given, target, layer, seed)
    settings = check_settings(setting, only, everything=everything)
    marks = read_marks(boxes, finding, clusters, only, (truth, training))
    pixels = options.pixels(mean, std, size, crop, framing)
    readable, skipped = readable_images(images)
    how: dict[str, Any] = {"task": task, "pixels": pixels, "version": model_version}
    network = options.load_model(model, weights, labels, device, batch_size, precision, **how)
    given = options.read_pictures(given, network, info.parameters)
    classes = None if truth is None else read_truth(truth, readable)
    add_data(settings, network, only, training, readable, classes, out)
    names, maps = only or [*DEFAULT, *(FURTHER if everything else ())], len(readable)
    maps = rows_of(network, readable, marks, finding, target) if marks else maps
    if estimate(network, [method], {method: given}, maps, names, settings, dry_run=dry_run, as_json=as_json):
        return
    open_folder(out)
    asked: dict[str, Any] = {"target": target, "layer": layer, "seed": seed, **given}
    if marks:
        own = settings.get("localization", {})
        localize(
            network, readable, skipped, marks, method, finding, out, max_skipped, as_json=as_json, settings=own, **asked
        )
    with kept_on_interrupt(out), progress_bar() as step:
        how = {"settings": settings, "anyway": anyway, "out": out, "progress": step}
        card = sw.check(network, readable, method, classes, names, **how, **asked)
    page = finish(out, readable, skipped)
    if as_json:
        result_json({**card.to_dict(), "skipped": skipped, "page": str(page)})
    else:
        show_card(card)
        result(str(page))
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


@contextmanager
def kept_on_interrupt(out: Path) -> Iterator[None]:
    """Ctrl-C ends the command with what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: the finished rows are kept in {out}; the same command goes on with the next one.")
        raise typer.Exit(INTERRUPTED) from None


def list_checks(*, as_json: bool) -> None:
    """The checks with what each asks and needs."""
    import seewhy as sw

    found = sw.checks()
    if as_json:
        result_json(found.to_dicts())
    else:
        table(("check", "asks", "needs", "cost"), [(c.name, c.question, ", ".join(c.needs), c.cost) for c in found])


def check_settings(pairs: list[str], only: Sequence[str], *, everything: bool) -> Settings:
    """What --set and --all say, as settings of checks; UsageError for a check or a parameter that there is not."""
    import seewhy.checks  # noqa: F401  # fills the registry
    from seewhy.errors import UsageError, known_name
    from seewhy.registry import CHECKS

    for name in only:
        known_name("check", name, [*CHECKS, "documentation"])
    found: Settings = {name: dict(values) for name, values in EVERYTHING.items()} if everything else {}
    for name, value in options.parameters(pairs).items():
        check_name, dot, parameter = name.partition(".")
        if not dot:
            raise UsageError(f"--set takes CHECK.NAME=VALUE, e.g. faithfulness.steps=20; got {name!r}.")
        known_name("check", check_name, CHECKS)
        known_name(f"parameter of the check {check_name}", parameter, CHECKS[check_name].parameters)
        found.setdefault(check_name, {})[parameter] = tuple(value) if isinstance(value, list) else value
    return found


def readable_images(sources: Sequence[Path] | None) -> tuple[list[Path], list[Skip]]:
    """The images that can be decoded, and those that cannot, with the reason; UsageError where none is left."""
    from seewhy.data.images import read_photo
    from seewhy.errors import ImageError, UsageError

    if not sources:
        raise UsageError("no image was given: name image files, or folders of them.")
    paths, skipped = find(sources)
    readable = []
    for path in paths:
        try:
            read_photo(path)
            readable.append(path)
        except ImageError as error:
            skipped.append({"path": str(path), "reason": str(error)})
    for item in skipped:
        say(f"skipped: {item['reason']}")
    if not readable:
        raise typer.Exit(UNUSABLE)
    return readable, skipped


def add_data(
    settings: Settings,
    network: "VisionModel",
    only: Sequence[str],
    training: Path | None,
    paths: Sequence[Path],
    classes: Sequence[int | str] | None,
    out: Path,
) -> None:
    """What checks need beside the images, into their settings: cues from file names, training images and their classes."""
    from seewhy.data.dataset import open_image, read_dataset
    from seewhy.data.truth import read_cues
    from seewhy.errors import UsageError
    from seewhy.explanation.inputs import read_inputs
    from seewhy.trust import label_indices

    if "shape_bias" in only:
        cues = dict(zip(("shapes", "textures", "exemplars"), read_cues(paths), strict=True))
        settings["shape_bias"] = {**cues, **settings.get("shape_bias", {})}
    if training is None:
        return
    if classes is None:
        raise UsageError("--training needs --truth as well: the images that are checked are the test images.")
    data = read_dataset(training, kind="class")
    for item in data.skipped:
        say(f"skipped of the training images: {item['path']}: {item['reason']}")
    names = [sample.label for sample in data.samples]
    known = network.labels or sorted({str(name) for name in names})
    given = {
        "train_images": read_inputs(network, [open_image(sample) for sample in data.samples])[0],
        "train_labels": label_indices(names, len(names), known, len(known)),
    }
    tested = {
        "test_labels": label_indices(classes, len(classes), known, len(known)),
        "folder": out / "trainings",
    }
    settings["data_randomization"] = {**given, **settings.get("data_randomization", {})}
    settings["roar"] = {**given, **tested, **settings.get("roar", {})}


def estimate(
    network: "VisionModel",
    methods: Sequence[str],
    params: dict[str, dict[str, Any]],
    images: int,
    checks: Sequence[str],
    settings: Settings,
    *,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Say how many rows and minutes the checks will take, where that is long or is all that is asked: then True."""
    from seewhy.errors import RefusalError
    from seewhy.registry import find_method
    from seewhy.trust import forecast_checks

    shape = network.input_shape()
    if "roar" in checks and "roar" in settings:
        say_trainings(network, settings["roar"])
    forward = gradient = 0
    for name in methods:
        try:
            rows = forecast_checks(network, find_method(name), params.get(name, {}), shape, images, checks, settings)
        except RefusalError:  # said with its reason when it is run
            continue
        forward, gradient = forward + rows[0], gradient + rows[1]
    say_forecast(network, images, forward, gradient, dry_run=dry_run, as_json=as_json)
    return dry_run


def say_trainings(network: "VisionModel", given: dict[str, Any]) -> None:
    """How many networks ROAR will train, and how long that takes, from one training."""
    from seewhy.checks import roar_forecast

    named = {name: given[name] for name in ("fractions", "mask_alone", "train", "runs", "seed") if name in given}
    count, seconds = roar_forecast(network, given["train_images"], given["train_labels"], **named)
    say(f"ROAR: {count} trainings, about {duration(seconds)}; finished ones are kept")


def show_card(card: "TrustCard") -> None:
    """What the network says of the labels, and a row per check."""
    show_setup(card.about["setup"])
    table(("check", "verdict", "value", "controls", "what it says"), [row_of(r) for r in card.rows.values()])


def show_setup(setup: dict[str, Any] | None) -> None:
    """What the network says of the given labels, before the table."""
    if setup is not None:
        result(f"the network on the given labels: {setup['sentence']}")


def row_of(row: "CheckResult") -> tuple[str, str, str, str, str]:
    """A check as a row of the terminal's table: its first score stands for it."""
    from seewhy.trust import title

    if not row.scores:
        return title(row.check), str(row.verdict), "", "", row.sentence
    first = row.scores[0]
    controls = [f"{name.replace('_', ' ')} {value.value:.2g}" for name, value in first.controls.items()]
    if first.null is not None:
        controls.append(f"null {first.null.median:.2g} [{first.null.low:.2g}, {first.null.high:.2g}]")
    return title(row.check), str(row.verdict), str(first.interval), "\n".join(controls), row.sentence

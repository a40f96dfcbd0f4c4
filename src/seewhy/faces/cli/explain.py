"""seewhy explain."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, UNUSABLE, progress_bar, result, result_json, say, table

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.explanation.inputs import Shown
    from seewhy.faces.cli.console import Step
    from seewhy.model import VisionModel
    from seewhy.registry import MethodInfo

TARGET = (
    "A class name or index, or 'a - b'; of a regression: up, down, or 'down NAME'; of a segmentation: 'region NAME'; of a "
    "detector: 'box 1'. Default: the predicted class, the output, the most certain box."
)
FORECAST_ABOVE_SECONDS = 30
ROWS_TO_FORECAST = 60  # fewer rows are not worth a timed one
LONG = 200  # rows an image: said before they start, whatever the time
GROUP = 8  # images explained before their rows are saved
Skip = dict[str, str]


def explain(
    images: list[Path] = typer.Argument(help="Image files, or folders of them."),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    method: list[str] = typer.Option(["grad_cam"], help="A method; repeat for several. See: seewhy methods."),
    target: str | None = typer.Option(None, help=TARGET),
    layer: str | None = typer.Option(None, help="Layer for class activation maps; default: found by running."),
    param: list[str] = typer.Option([], help="A parameter of the method: name=value; repeat for several."),
    out: Path = typer.Option(Path("seewhy-run"), help="Run folder for maps, records, pictures and the page."),
    root: Path | None = typer.Option(
        None, help="Data root: records name images relative to it. Default: the folder that holds them all."
    ),
    on_photo: bool = typer.Option(
        False, "--on-photo", help="Also a picture of each map over the whole photo, at its own size."
    ),
    modality: str | None = typer.Option(
        None,
        help="How the images were recorded, where black is a measurement (CT, DX, thermal ...): no baseline is black. "
        "Default: as a DICOM file says.",
    ),
    window: str | None = options.WINDOW,
    frame: int | None = options.FRAME,
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
    """Explain images: maps, evidence and a page in a run folder. Images that cannot be read are listed and skipped."""
    from seewhy.runfolder import open_folder

    given, read_as = options.parameters(param), options.read_as(window, frame)
    infos = check_methods(method, given, target, layer, seed)
    paths, skipped = find(images)
    root = _data_root(root, paths)
    pixels = options.pixels(mean, std, size, crop, framing)
    how: dict[str, Any] = {"task": task, "pixels": pixels, "version": model_version}
    network = options.load_model(model, weights, labels, device, batch_size, precision, **how)
    check_question(network, target, layer, on_photo=on_photo)
    given = options.read_pictures(given, network, {name for info in infos for name in info.parameters})
    if dry_run:
        forecast(network, infos, given, target, layer, len(paths), dry_run=True, as_json=as_json)
        return
    open_folder(out)
    rows = forecast(network, infos, given, target, layer, len(paths), dry_run=False, as_json=as_json)
    work = Work(network, infos, target, layer, seed, given, out, on_photo, root, modality, read_as)
    try:
        with progress_bar() as step:
            network.on_rows = _counter(step, rows)
            for first in range(0, len(paths), GROUP):
                skipped += work.explain(paths[first : first + GROUP])
    except KeyboardInterrupt:
        finish(out, paths, skipped)
        say(f"interrupted: {len(work.records)} rows are kept in {out}, its page shows them.")
        raise typer.Exit(INTERRUPTED) from None
    page = finish(out, paths, skipped)
    show(work.records, skipped, page, as_json=as_json)
    if not work.records:
        raise typer.Exit(UNUSABLE)
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def _data_root(given: Path | None, paths: Sequence[Path]) -> Path | None:
    """What the ledger's paths are relative to; UsageError, before any work, where an image lies outside of it."""
    from seewhy.ledger import common_folder, relative_path

    root = common_folder([str(path) for path in paths]) if given is None else given
    for path in paths:
        relative_path(str(path), root)
    return root


def check_methods(
    names: Sequence[str], given: dict[str, Any], target: str | None, layer: str | None, seed: int
) -> "list[MethodInfo]":
    """The methods, before anything is loaded: each parameter must belong to one of them, and so must a layer."""
    import seewhy.methods  # noqa: F401  # fills the registry
    from seewhy.errors import UsageError, whole_number
    from seewhy.explanation import check_call
    from seewhy.registry import check_parameters, find_method

    whole_number("seed", seed, at_least=0)
    infos = [find_method(name) for name in dict.fromkeys(names)]
    for name in given:
        if name in ("layer", "seed"):
            raise UsageError(f"{name} is an option of its own: --{name}.")
        if not any(name in info.parameters for info in infos):
            check_parameters(infos[0], [name])
    for info in infos:
        own, own_layer = own_settings(info, given, layer)
        check_call(info, target, own_layer, seed, own)
    if layer is not None and not any("layer" in info.parameters for info in infos):
        raise UsageError(f"method {infos[0].name!r} explains the input: it takes no layer.")
    return infos


def find(sources: Sequence[Path]) -> tuple[list[Path], list[Skip]]:
    """Image files, folders searched; what holds no image is a listed skip."""
    from seewhy.data.images import find_images
    from seewhy.errors import ImageError

    paths: list[Path] = []
    skipped: list[Skip] = []
    for source in sources:
        try:
            paths += find_images([source])
        except ImageError as error:
            skipped.append(_skip(source, error))
    return list(dict.fromkeys(paths)), skipped


def check_question(network: "VisionModel", target: str | None, layer: str | None, *, on_photo: bool) -> None:
    """UsageError or RefusalError, before any image is read, for a target, a layer or a way back that there is not."""
    from seewhy.errors import UsageError
    from seewhy.explanation import checked_question

    if on_photo and network.preprocess is not None:
        raise UsageError("--on-photo: this network has a preprocess of its own, so the way back to a photo is unknown.")
    question = checked_question(network, target, 1, network.input_shape())
    if layer is not None and question.kind != "box":  # which needs an image with that box
        network.find_layer(layer, network.input_shape(), question)


def forecast(
    network: "VisionModel",
    infos: "list[MethodInfo]",
    given: dict[str, Any],
    target: str | None,
    layer: str | None,
    images: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """The rows at most, and the minutes, from the methods' declarations and one timed row of each kind."""
    from seewhy.explanation import rows_per_image

    forward = gradient = 0
    for info in infos:
        own, own_layer = own_settings(info, given, layer)
        rows = rows_per_image(network, info, network.input_shape(), target, own_layer, own)
        forward, gradient = forward + images * rows[0], gradient + images * rows[1]
    say_forecast(network, images, forward, gradient, dry_run=dry_run, as_json=as_json)
    return forward + gradient


def say_forecast(
    network: "VisionModel", images: int, forward: int, gradient: int, *, dry_run: bool, as_json: bool, assumed: str = ""
) -> None:
    """Rows and minutes, where they are many or all that is asked. assumed: under what they are an upper bound."""
    from seewhy.explanation import seconds_of

    if not dry_run and forward + gradient < ROWS_TO_FORECAST:
        return
    seconds = seconds_of(network, network.input_shape(), forward, gradient)
    text = f"at most {forward} forward and {gradient} gradient rows, about {duration(seconds)} on {network.device}"
    text += f", {assumed}" if assumed else ""
    if dry_run and as_json:
        found = {"images": images, "forward_rows": forward, "gradient_rows": gradient, "seconds": round(seconds, 1)}
        result_json({**found, "assumed": assumed} if assumed else found)
    elif dry_run:
        result(f"{images} images: {text}")
    elif seconds > FORECAST_ABOVE_SECONDS or forward + gradient >= images * LONG:
        say(text)


def _counter(step: "Step", rows: int) -> Callable[[int], None]:
    """Draws every batch of rows as it is computed."""
    done = 0

    def on_rows(computed: int) -> None:
        nonlocal done
        done = min(done + computed, rows)
        step("rows", done, rows)

    return on_rows


def own_settings(info: "MethodInfo", given: dict[str, Any], layer: str | None) -> tuple[dict[str, Any], str | None]:
    """Which of the parameters that were given, and whether the layer, belong to this method."""
    own = {name: value for name, value in given.items() if name in info.parameters}
    return own, layer if "layer" in info.parameters else None


class Work:
    """One run of the command: explains groups of images, saves every row at once, remembers the records."""

    def __init__(
        self,
        network: "VisionModel",
        infos: "list[MethodInfo]",
        target: str | None,
        layer: str | None,
        seed: int,
        given: dict[str, Any],
        out: Path,
        on_photo: bool,
        root: Path | None,
        modality: str | None,
        read_as: dict[str, Any],
    ) -> None:
        self.network, self.infos, self.target, self.layer, self.seed = network, infos, target, layer, seed
        self.given, self.out, self.on_photo, self.root = given, out, on_photo, root
        self.modality, self.read_as = modality, read_as
        self.records: list[dict[str, Any]] = []

    def explain(self, paths: Sequence[Path]) -> list[Skip]:
        """Explain and save one group; returns what was skipped, with the reason."""
        import torch

        from seewhy.data.images import read_photo
        from seewhy.errors import ImageError
        from seewhy.explanation import explain_rows
        from seewhy.explanation.inputs import read_inputs

        read: list[tuple[Tensor, Shown]] = []
        skipped: list[Skip] = []
        for path in paths:
            try:
                x, sources = read_inputs(self.network, read_photo(path, **self.read_as))
                read.append((x, replace(sources[0], modality=self.modality or sources[0].modality)))
            except ImageError as error:
                skipped.append(_skip(path, error))
        for modality in dict.fromkeys(source.modality for _, source in read):  # which the baseline may depend on
            alike = [(x, source) for x, source in read if source.modality == modality]
            x, shown = torch.cat([x for x, _ in alike]), [source for _, source in alike]
            for info in self.infos:
                own, layer = own_settings(info, self.given, self.layer)
                found = explain_rows(self.network, x, shown, info, self.target, layer, self.seed, own)[0]
                self.records += found.append_to(self.out, on_photo=self.on_photo, root=self.root)
        return skipped


def finish(out: Path, paths: Sequence[Path], skipped: Sequence[Skip]) -> Path:
    """Write the skipped images into run.json (those of earlier runs stay listed) and render the page."""
    import seewhy as sw
    from seewhy.runfolder import read_run, write_run

    now = {str(path) for path in paths} | {item["path"] for item in skipped}
    earlier = [item for item in read_run(out)["skipped"] if item["path"] not in now]
    write_run(out, {"skipped": [*earlier, *skipped]})
    return sw.report(out).resolve()


def show(records: Sequence[dict[str, Any]], skipped: Sequence[Skip], page: Path, *, as_json: bool) -> None:
    """The result on stdout, what was skipped on stderr."""
    if as_json:
        result_json({"rows": records, "skipped": skipped, "page": str(page)})
    else:
        rows = [(Path(r["image"]["name"]).name, r["method"], _explained(r), r["status"], _trust(r)) for r in records]
        table(("image", "method", "explained", "status", "evidence"), rows)
        result(str(page))
    for item in skipped:
        say(f"skipped: {item['reason']}")
    if skipped:
        say(f"{len(skipped)} skipped, {len({r['image']['name'] for r in records})} explained.")


def _explained(record: dict[str, Any]) -> str:
    from seewhy.explanation import stated

    return stated(record["target"], record["validity"]["probability"], record["predictions"])


def _trust(record: dict[str, Any]) -> str:
    from seewhy.draw import number
    from seewhy.faces.words import is_control, percent

    numbers = record["evidence"]
    parts = []
    if numbers.get("completeness_gap_relative") is not None:
        parts.append(f"gap {percent(numbers['completeness_gap_relative'])}")
    if "path_error" in numbers:
        parts.append(f"path error {percent(numbers['path_error'])}")
        parts.append("converged" if numbers["converged"] else "NOT converged")
    if "sampling_error" in numbers:
        parts.append(f"sampling error {percent(numbers['sampling_error'])}")
    if numbers.get("split_half_correlation") is not None:
        parts.append(f"split-half correlation {number(numbers['split_half_correlation'])}")
    if numbers.get("fit") is not None:
        parts.append(f"fit {percent(numbers['fit'])}")
    geometry = record["image"]["geometry"]
    if record["layer"]:
        parts.append(f"layer {record['layer']}")
    if geometry is not None and record["grid"] != geometry["size"]:
        parts.append(f"{' x '.join(map(str, record['grid']))} cells")
    if record["validity"]["warning"]:
        parts.append(record["validity"]["warning"].partition(":")[0])
    if not record["validity"]["target_used"]:
        parts.append("control" if is_control(record) else "the class is not used")
    return ", ".join(parts)


def _skip(path: Path, error: Exception) -> Skip:
    return {"path": str(path), "reason": str(error)}


def duration(seconds: float) -> str:
    """'40 seconds', '3 minutes'."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"

"""seewhy attack: show on your own model that its maps can be moved without its answers."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.check import readable_images
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, progress_bar, result, result_json, say, table
from seewhy.faces.cli.explain import TARGET, Skip, say_forecast

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.attacks import Attacked
    from seewhy.model import VisionModel
    from seewhy.registry import MethodInfo

app = typer.Typer(
    help="Move a model's maps without moving its answers: why one map is no evidence.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ATTACK = "location_fooling, top_k_fooling, center_mass_fooling or active_fooling."
REGION = "Where location_fooling sends the maps: x0,y0,x1,y1 in fractions of the image, or 'frame'."
OTHER = "The class that active_fooling exchanges the maps of the target with."
TRAIN_FROM = "Only modules from this one on are tuned (see: seewhy layers); the rest is computed once. Default: all."
SETTING = "A further parameter of the attack: name=value, e.g. batch=8 or optimizer=sgd; repeat for several."
TRUTH = "The true classes: a CSV table (file, label), or 'folders'; without them the original's answers are kept."
OWN_OPTIONS = ("region", "other", "strength", "steps", "learning_rate", "train_from", "tune_on", "labels", "seed")


@app.command("weights")
def weights(
    images: list[Path] = typer.Argument(help="Image files, or folders of them: half to tune on, half to judge on."),
    attack: str = typer.Option("location_fooling", help=ATTACK),
    region: str | None = typer.Option(None, help=REGION),
    other: str | None = typer.Option(None, help=OTHER),
    strength: float = typer.Option(1.0, help="Weight of the maps against the answers; 0: the same tuning, no attack."),
    steps: int = typer.Option(100, help="Steps of the optimizer, a batch each."),
    learning_rate: float = typer.Option(3e-4, help="Of the optimizer; it falls to 0 along half a cosine."),
    train_from: str | None = typer.Option(None, help=TRAIN_FROM),
    tune_on: int | None = typer.Option(
        None, help="How many of the images, the first ones, are tuned on. Default: half."
    ),
    setting: list[str] = typer.Option([], "--set", help=SETTING),
    truth: str | None = typer.Option(None, help=TRUTH),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    method: str = typer.Option("grad_cam", help="The method whose maps are moved."),
    target: str | None = typer.Option(None, help=TARGET),
    layer: str | None = typer.Option(None, help="Layer for class activation maps; default: found by running."),
    param: list[str] = typer.Option([], help="A parameter of the method: name=value; repeat for several."),
    out: Path = typer.Option(
        Path("seewhy-attack"), help="Folder for the changed weights, the record and the pictures."
    ),
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
    max_skipped: int = typer.Option(0, min=0, help="More skipped images than this end with exit code 3."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how many rows and minutes it will take."),
    as_json: bool = options.JSON,
) -> None:
    """Tune a copy of a model until its maps lie elsewhere and its answers stay; write the copy, a record and pictures."""
    import seewhy as sw
    from seewhy.attacks import forecast_rows
    from seewhy.attacks.weights import ATTACKS
    from seewhy.explanation import rows_per_image
    from seewhy.explanation.inputs import read_inputs
    from seewhy.registry import find_method
    from seewhy.target import resolve

    asked = own_parameters(attack, setting, region, other)
    given = {**options.parameters(param), "differentiable": True}
    bound = sw.bind(method, layer, seed, **given)
    check_folder(out)
    readable, skipped = readable_images(images)
    pixels = options.pixels(mean, std, size, crop, framing)
    network = options.load_model(model, weights, labels, device, batch_size, "float32", task=task, pixels=pixels)
    question = resolve(target, network.labels, network.task)
    asked |= {"strength": strength, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    asked |= {"train_from": train_from, "tune_on": tune_on, "labels": truths(network, truth, readable)}
    rows = rows_per_image(network, find_method(method), network.input_shape(), question, layer, given)
    questions = 2 if other is not None else 1
    expected = forecast_rows(len(readable), tune_on, steps, asked.get("batch", 16), rows, questions)
    say_forecast(network, len(readable), *expected, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    x, _ = read_inputs(network, readable)
    try:
        with progress_bar() as step:
            found = ATTACKS[attack](network, x, question, bound, progress=step, **asked)
            record = written(found, network, readable, skipped, out, find_method(method), model)
    except KeyboardInterrupt:
        say("interrupted: nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    show(found, record, out, as_json=as_json)
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def own_parameters(attack: str, setting: list[str], region: str | None, other: str | None) -> dict[str, Any]:
    """What --set, --region and --other say, as keywords of an attack; UsageError for what it does not take."""
    import inspect

    from seewhy.attacks.weights import ATTACKS
    from seewhy.errors import UsageError, known_name

    known_name("attack", attack, ATTACKS)
    known = [name for name in list(inspect.signature(ATTACKS[attack]).parameters)[4:] if name != "progress"]
    given = options.parameters(setting)
    for name in given:
        if name in OWN_OPTIONS:
            raise UsageError(f"{name} is an option of its own, --{name.replace('_', '-')}.")
        known_name(f"parameter of {attack}", name, known)
    if region is not None and "region" not in known:
        raise UsageError(f"{attack} sends the maps to no region: --region is for location_fooling.")
    if (other is None) == ("other" in known):
        raise UsageError(
            "--other names the class that active_fooling exchanges the maps with: one is not without the other."
        )
    if other is not None:
        given["other"] = other
    if region is not None:
        given["region"] = region if region == "frame" else fractions(region)
    return given


def fractions(text: str) -> tuple[float, ...]:
    """x0,y0,x1,y1 as numbers."""
    from seewhy.errors import UsageError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--region is x0,y0,x1,y1 in fractions of the image, e.g. 0,0,0.3,0.3; got {text!r}."
        ) from None


def check_folder(out: Path) -> None:
    """UsageError, before any work, where the folder cannot be made or holds something."""
    from seewhy.errors import UsageError

    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write into.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already: choose another --out; an attack overwrites nothing.")


def truths(network: "VisionModel", truth: str | None, paths: Sequence[Path]) -> "Tensor | None":
    """The true class of every image as an index."""
    from seewhy.data.truth import read_truth
    from seewhy.trust import label_indices

    if truth is None:
        return None
    classes = network.output_shape(network.input_shape())[-1]
    return label_indices(read_truth(truth, paths), len(paths), network.labels, classes)


def written(
    found: "Attacked",
    network: "VisionModel",
    paths: Sequence[Path],
    skipped: Sequence[Skip],
    out: Path,
    info: "MethodInfo",
    model: str,
) -> dict[str, Any]:
    """Write the folder, all of it or nothing: weights.pt, attack.json and a picture of each image that is judged on."""
    import torch

    tuned = int(found.settings["tune_on"])
    record = {
        "schema": 1,
        **found.to_dict(),
        "method": info.name,
        "original": {"fingerprint": network.fingerprint(), "loaded": network.loaded},
        "load": f"--model {model} --weights {out / 'weights.pt'}",
        "tuned_on": [str(path) for path in paths[:tuned]],
        "judged_on": [str(path) for path in paths[tuned:]],
        "skipped": list(skipped),
    }
    with whole_folder(out, record) as folder:
        torch.save(found.model.module.state_dict(), folder / "weights.pt")
        for i, path in enumerate(paths[tuned:]):
            found.picture(i, info.picture).save(folder / "pictures" / f"{i:03d}-{path.stem}.png")
    return record


@contextmanager
def whole_folder(out: Path, record: dict[str, Any]) -> Iterator[Path]:
    """A folder with attack.json and room for pictures, to be filled: it becomes `out` at the end, or nothing is left."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".seewhy-attack-", ignore_cleanup_errors=True) as draft:
        folder = Path(draft) / "run"
        (folder / "pictures").mkdir(parents=True)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "attack.json").write_text(text + "\n", "utf-8")
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)


def show(found: "Attacked", record: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """What moved, what was kept and where it is written, on stdout."""
    if as_json:
        result_json({**record, "folder": str(out.resolve())})
        return
    rows = []
    for kind, scores in (("moved", found.moved), ("kept", found.kept)):
        for one in scores:
            beside = [f"{name.replace('_', ' ')} {value}" for name, value in one.controls.items()]
            rows.append((kind, one.name.replace("_", " "), str(one.interval), "\n".join(beside)))
    table(("", "what", "after", "beside it"), rows)
    if "load" in record:
        result(f"the changed weights: {record['load']}")
    result(str(out.resolve()))

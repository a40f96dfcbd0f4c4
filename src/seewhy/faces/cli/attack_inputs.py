"""seewhy attack inputs: show on your own photos that a map can be moved by pixels that nobody sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.attack import check_folder, fractions, show, truths, whole_folder
from seewhy.faces.cli.check import readable_images
from seewhy.faces.cli.console import DONE, INTERRUPTED, SKIPPED, progress_bar, say
from seewhy.faces.cli.explain import TARGET, Skip, say_forecast

if TYPE_CHECKING:
    from seewhy.attacks import Attacked
    from seewhy.model import VisionModel
    from seewhy.registry import MethodInfo
    from seewhy.trust.binding import Bound

ATTACK = "targeted_manipulation (toward a map) or iterative_attack (away from the map, within a strength)."
LIKE = "A photo: its map is what targeted_manipulation moves the maps to."
REGION = "Where the maps are sent instead: x0,y0,x1,y1 in fractions of the image, or 'frame'."
STEPS = "Steps of the attack. Default: the paper's, 1500 or 100."
SETTING = (
    "A further parameter of the attack: name=value, e.g. learning_rate=0.001 or strengths=[0.03]; repeat for several."
)
TRUTH = "The true classes: a CSV table (file, label), or 'folders': accuracy is reported, too."
SLOWER = "where a row of a step takes several times as long, for its second derivative"
OWN_OPTIONS = ("toward", "steps", "labels", "seed")


def inputs(
    images: list[Path] = typer.Argument(help="Image files, or folders of them."),
    attack: str = typer.Option("targeted_manipulation", help=ATTACK),
    like: Path | None = typer.Option(None, help=LIKE),
    region: str | None = typer.Option(None, help=REGION),
    steps: int | None = typer.Option(None, help=STEPS),
    setting: list[str] = typer.Option([], "--set", help=SETTING),
    truth: str | None = typer.Option(None, help=TRUTH),
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    method: str = typer.Option("gradient", help="The method whose maps are moved."),
    target: str | None = typer.Option(None, help=TARGET),
    layer: str | None = typer.Option(None, help="Layer for class activation maps; default: found by running."),
    param: list[str] = typer.Option([], help="A parameter of the method: name=value; repeat for several."),
    out: Path = typer.Option(Path("seewhy-attack"), help="Folder for the changed images, the record and the pictures."),
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
    """Change the pixels of images until their maps lie elsewhere and the answers stay; write them, a record and pictures."""
    from seewhy.attacks.inputs import ATTACKS
    from seewhy.explanation import rows_per_image
    from seewhy.explanation.inputs import read_inputs
    from seewhy.target import resolve

    asked = own_parameters(attack, setting, steps, like, region)
    bound = bind_for(method, layer, seed, options.parameters(param), asked)
    check_folder(out)
    readable, skipped = readable_images(images)
    pixels = options.pixels(mean, std, size, crop, framing)
    network = options.load_model(model, weights, labels, device, batch_size, "float32", task=task, pixels=pixels)
    question = resolve(target, network.labels, network.task)
    asked |= {"labels": truths(network, truth, readable), "seed": seed}
    rows = rows_per_image(network, bound.info, network.input_shape(), question, layer, dict(bound.keywords))
    say_forecast(
        network,
        len(readable),
        *forecast(attack, asked, len(readable), rows),
        dry_run=dry_run,
        as_json=as_json,
        assumed=SLOWER,
    )
    if dry_run:
        return
    x, _ = read_inputs(network, readable)
    if like is not None:
        asked["toward"] = bound(network, read_inputs(network, [like])[0], question).raw[0].detach()
    try:
        with progress_bar() as step:
            found = ATTACKS[attack](network, x, question, bound, progress=step, **asked)
            record = written(found, readable, skipped, out, bound.info, network)
    except KeyboardInterrupt:
        say("interrupted: nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    show(found, record, out, as_json=as_json)
    raise typer.Exit(SKIPPED if len(skipped) > max_skipped else DONE)


def own_parameters(
    attack: str, setting: list[str], steps: int | None, like: Path | None, region: str | None
) -> dict[str, Any]:
    """What the options say, as keywords of an attack; UsageError for what it does not take."""
    import inspect

    from seewhy.attacks.inputs import ATTACKS
    from seewhy.errors import UsageError, known_name

    known_name("attack", attack, ATTACKS)
    parameters = inspect.signature(ATTACKS[attack]).parameters
    known = [name for name in list(parameters)[4:] if name not in ("progress", "defenses")]
    given = options.parameters(setting)
    for name in given:
        if name in OWN_OPTIONS:
            raise UsageError(f"{name} is no --set: --steps, --seed, --truth, and --like or --region for toward.")
        known_name(f"parameter of {attack}", name, known)
    given["steps"] = parameters["steps"].default if steps is None else steps
    wanted = attack == "targeted_manipulation" or given.get("goal") == "target"
    if like is not None and attack != "targeted_manipulation":
        raise UsageError("--like is for targeted_manipulation: iterative_attack goes away from the map.")
    if (like is not None) + (region is not None) != int(wanted):
        means = (
            "needs --like PHOTO or --region, one of them" if wanted else "takes no --region, but for --set goal=target"
        )
        raise UsageError(f"{attack} {means}.")
    if region is not None:
        given["toward"] = region if region == "frame" else fractions(region)
    return given


def bind_for(method: str, layer: str | None, seed: int, params: dict[str, Any], asked: dict[str, Any]) -> "Bound":
    """The method with a graph; of magnitudes, channels are added up without their signs, as in both papers."""
    import seewhy as sw
    from seewhy.registry import find_method

    info = find_method(method)
    if info.picture == "magnitude" and "channels" in info.parameters:
        params = {"channels": "sum_abs", **params}
    asked.setdefault("picture", "positive" if info.picture == "positive" else "absolute")
    return sw.bind(info, layer, seed, **{**params, "differentiable": True})


def forecast(attack: str, asked: dict[str, Any], n: int, rows: tuple[int, int]) -> tuple[int, int]:
    """(forward, gradient) rows at most."""
    from seewhy.attacks import forecast_input_rows
    from seewhy.attacks.inputs import STRENGTHS

    return forecast_input_rows(
        attack, n, asked["steps"], rows, len(asked.get("strengths", STRENGTHS)), asked.get("draws", 5)
    )


def written(
    found: "Attacked",
    paths: Sequence[Path],
    skipped: Sequence[Skip],
    out: Path,
    info: "MethodInfo",
    network: "VisionModel",
) -> dict[str, Any]:
    """Write the folder, all of it or nothing: images.pt, attack.json, and of each image a file and a picture."""
    import numpy as np
    import torch
    from PIL import Image

    record = {
        "schema": 1,
        **found.to_dict(),
        "method": info.name,
        "original": {"fingerprint": network.fingerprint(), "loaded": network.loaded},
        "images": [str(path) for path in paths],
        "skipped": list(skipped),
    }
    pixels = found.images.detach().cpu()
    with whole_folder(out, record) as folder:
        (folder / "images").mkdir()
        torch.save(pixels, folder / "images.pt")
        for i, path in enumerate(paths):
            shown = np.rint(255 * pixels[i].numpy()).astype(np.uint8).transpose(1, 2, 0)
            file = f"{i:03d}-{path.stem}.png"
            Image.fromarray(shown[..., 0] if shown.shape[-1] == 1 else shown[..., :3]).save(folder / "images" / file)
            found.picture(i, info.picture).save(folder / "pictures" / file)
    return record

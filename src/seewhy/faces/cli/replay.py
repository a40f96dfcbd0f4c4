"""seewhy ledger replay."""

from pathlib import Path
from typing import Any

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import DONE, result, result_json

DIFFERENT = 1
MODEL = "Instead of the recorded model: as in seewhy explain."
WEIGHTS = "Weights file, where it is now."
IMAGE = "The image, where it is now. Default: its recorded path, then the copy in the run folder."
ROOT = "Data root: the folder that the recorded paths are relative to."
PARAM = "A parameter that the record holds only the hash of: name=FILE; repeat for several."
DEVICE = "cpu, cuda, cuda:1, mps. Default: the recorded one where there is such a one, else cpu."
TOLERANCE = (
    "Share of the map's largest absolute value, where the last digits may differ. Default: 1e-5 in float32, else 0."
)


def replay_command(
    run: Path = typer.Argument(help="Run folder with a ledger."),
    record: str = typer.Argument(help="Number of an explanation's record, or the start of its key."),
    model: str | None = typer.Option(None, help=MODEL),
    weights: Path | None = typer.Option(None, help=WEIGHTS),
    labels: Path | None = options.LABELS,
    image: Path | None = typer.Option(None, help=IMAGE),
    root: Path | None = typer.Option(None, help=ROOT),
    param: list[str] = typer.Option([], help=PARAM),
    device: str | None = typer.Option(None, help=DEVICE),
    tolerance: float | None = typer.Option(None, min=0.0, help=TOLERANCE),
    as_json: bool = options.JSON,
) -> None:
    """Compute a recorded explanation again: bit-equal or within tolerance (exit code 0), different (1), not possible (2)."""
    from seewhy.ledger import recorded_model, replay

    given = options.parameters(param)
    network = recorded_model(run, record, specification=model, weights=weights, labels=labels, device=device)
    where: dict[str, Any] = {"image": image, "root": root, "tolerance": tolerance}
    found = replay(run, record, model=network, parameters=options.read_pictures(given, network), **where)
    if as_json:
        result_json(found.to_dict())
    else:
        result(str(found))
    raise typer.Exit(DONE if found.ok else DIFFERENT)

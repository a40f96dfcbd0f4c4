"""seewhy demo."""

from pathlib import Path

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import progress_bar, result, result_json, say


def demo(
    out: Path = typer.Option(Path("seewhy-demo"), help="Folder for the maps, records and the page."),
    show: bool = typer.Option(False, "--open", help="Open the page in the browser when it is done."),
    seed: int = options.SEED,
    device: str = options.DEVICE,
    batch_size: int | None = options.BATCH_SIZE,
    precision: str = options.PRECISION,
    as_json: bool = options.JSON,
) -> None:
    """Six real photos under a real ImageNet network: maps, evidence, controls, on one page. No network access."""
    from seewhy import demo as room
    from seewhy.runfolder import open_folder

    open_folder(out)
    say("Explaining six photos with EfficientNet-Lite0; this takes under a minute on two cores.")
    model = options.load_model("lite0", None, None, device, batch_size, precision)
    with progress_bar() as step:
        page = room.run(model, out, seed, step).resolve()
    if as_json:
        result_json({"page": str(page)})
    else:
        result(str(page))
    if show:
        typer.launch(page.as_uri())

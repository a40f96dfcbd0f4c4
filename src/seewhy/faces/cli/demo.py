"""seewhy demo."""

from pathlib import Path

import typer

from seewhy.errors import whole_number
from seewhy.faces.cli import options
from seewhy.faces.cli.console import progress_bar, result, result_json, say


def demo(
    out: Path = typer.Option(Path("seewhy-demo"), help="Folder for the photos, networks, audits and pages."),
    show: bool = typer.Option(False, "--open", help="Open the page in the browser when it is done."),
    seed: int = options.SEED,
    device: str = options.DEVICE,
    batch_size: int | None = options.BATCH_SIZE,
    precision: str = options.PRECISION,
    as_json: bool = options.JSON,
) -> None:
    """A network that reads a watermark and its twin that does not, told apart; then real photos under a real network.

    Under three minutes on two cores, no network access. --device, --batch-size, --precision: of the ImageNet network.
    """
    from seewhy import demo as room
    from seewhy.faces.start import start_page

    whole_number("seed", seed, at_least=0)
    room.check_folder(out)
    lite0 = options.load_model("lite0", None, None, device, batch_size, precision)
    with progress_bar() as step:
        story = room.run(lite0, out, seed, step, say)
    page = start_page(out).resolve()
    if as_json:
        result_json({"page": str(page), **story})
    else:
        result(str(page))
    if show:
        typer.launch(page.as_uri())

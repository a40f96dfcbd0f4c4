"""seewhy demo."""

from pathlib import Path

import typer

from seewhy.faces.cli.console import progress_bar, result, say


def demo(
    out: Path = typer.Option(Path("seewhy-demo"), help="Folder for the maps, records and the page."),
    show: bool = typer.Option(False, "--open", help="Open the page in the browser when it is done."),
) -> None:
    """Six real photos under a real ImageNet network: maps, evidence, controls, on one page. No network access."""
    from seewhy import demo as room
    from seewhy.runfolder import open_folder

    open_folder(out)
    say("Loading EfficientNet-Lite0; this takes under a minute on two cores.")
    with progress_bar() as step:
        page = room.run(out, step)
    result(str(page.resolve()))
    if show:
        typer.launch(page.resolve().as_uri())

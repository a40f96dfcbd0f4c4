"""seewhy report."""

from pathlib import Path

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import result, result_json


def report(
    folder: Path = typer.Argument(help="A run folder, written by explain, check, compare, audit or demo."),
    pdf: bool = typer.Option(False, "--pdf", help="Of an audit: write report.pdf instead (extra [pdf])."),
    no_pictures: bool = typer.Option(False, "--no-pictures", help="Of an audit: leave every picture out."),
    as_json: bool = options.JSON,
) -> None:
    """Render the page of a run folder again, from its files alone, and print its path."""
    import seewhy as sw

    page = str(sw.report(folder, pictures=not no_pictures, pdf=pdf).resolve())
    if as_json:
        result_json({"page": page})
    else:
        result(page)

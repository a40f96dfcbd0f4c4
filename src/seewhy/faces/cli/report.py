"""seewhy report."""

from pathlib import Path

import typer

from seewhy.faces.cli.console import result


def report(folder: Path = typer.Argument(help="A run folder, written by explain or demo.")) -> None:
    """Render the page of a run folder again, from its files alone, and print its path."""
    import seewhy as sw

    result(str(sw.report(folder).resolve()))

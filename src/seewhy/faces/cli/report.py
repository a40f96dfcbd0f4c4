"""seewhy report."""

from pathlib import Path

import typer

from seewhy.errors import UsageError
from seewhy.faces.cli import options
from seewhy.faces.cli.console import result, result_json


def report(
    folder: Path = typer.Argument(help="A run folder, written by explain, check, compare, audit or demo."),
    pdf: bool = typer.Option(
        False, "--pdf", help="Write a PDF instead of the page: of an audit, or with --compliance."
    ),
    no_pictures: bool = typer.Option(False, "--no-pictures", help="Of an audit: leave every picture out."),
    compliance: bool = typer.Option(
        False, "--compliance", help="The compliance record: what was measured, and what not."
    ),
    decision: str | None = typer.Option(
        None, help="With --compliance: of this explanation, by its number or key in the ledger."
    ),
    purpose: str | None = typer.Option(None, help="With --compliance: what the model is used for, in your words."),
    as_json: bool = options.JSON,
) -> None:
    """Render the page of a run folder again, from its files alone, and print its path."""
    if compliance:
        if no_pictures:
            raise UsageError("--no-pictures: a compliance record has no pictures; leave it out.")
        write_record(folder, decision, purpose, pdf=pdf, as_json=as_json)
        return
    if decision is not None or purpose is not None:
        raise UsageError("--decision and --purpose belong to --compliance: give that as well.")
    import seewhy as sw

    page = str(sw.report(folder, pictures=not no_pictures, pdf=pdf).resolve())
    if as_json:
        result_json({"page": page})
    else:
        result(page)


def write_record(folder: Path, decision: str | None, purpose: str | None, *, pdf: bool, as_json: bool) -> None:
    """The compliance record of a run folder: its files, and its path or all of it on stdout."""
    from seewhy.faces.compliance_page import write_compliance

    path, record = write_compliance(folder, decision=decision, purpose=purpose, pdf=pdf)
    if as_json:
        result_json({"page": str(path.resolve()), **record})
    else:
        result(str(path.resolve()))

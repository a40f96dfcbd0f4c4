"""seewhy ledger: show, verify, sign, key, erase, and replay, which has a file of its own."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from seewhy.errors import UsageError, whole_number
from seewhy.faces.cli import options, replay
from seewhy.faces.cli.console import BLOCKED, DONE, result, result_json, say, table

if TYPE_CHECKING:
    from seewhy.ledger import CheckedCheckpoint, Checkpoint, Ledger, Record, Verification

SHOWN = 50  # records in a table
LINES = 20  # of each kind of line that verify prints

app = typer.Typer(
    help="The record of everything that was measured: read it, check that nothing was altered, sign it, erase from it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RUN = typer.Argument(help="A run folder.")
KEY = typer.Option(
    None, "--key", help="The private key's file; default: SEEWHY_LEDGER_KEY, else the user's configuration folder."
)


@app.command("show")
def show(
    run: Path = RUN,
    record: str | None = typer.Argument(None, help="A number, a key or its beginning: that record, whole."),
    kind: str | None = typer.Option(None, help="Only records of this kind: prediction, explanation, finding ..."),
    image: str | None = typer.Option(None, help="Only of this image, by its path as the records have it."),
    model: str | None = typer.Option(None, help="Only of the model of this fingerprint."),
    method: str | None = typer.Option(None, help="Only by this method."),
    limit: int | None = typer.Option(
        None, help=f"Only the newest so many; default: {SHOWN} in a table, all with --json."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, a line a record."),
) -> None:
    """List the records of a run's ledger in the order of writing, or show one whole."""
    from seewhy.ledger import open_ledger

    if limit is not None:
        whole_number("--limit", limit, at_least=1)
    with open_ledger(run, read_only=True) as ledger:
        if record is not None:
            found: Iterable[Record] = _found(ledger, record, kind)
        else:
            newest = limit if as_json or limit is not None else SHOWN
            found = ledger.stream(kind, image=image, model=model, method=method, newest=newest)
        if as_json:
            for one in found:
                result(json.dumps(asdict(one), ensure_ascii=False, allow_nan=False))
        elif record is not None:
            for one in found:
                result_json(asdict(one))
        else:
            rows = [_row(one) for one in found]
            table(("number", "time", "kind", "key", "image", "method", "hash"), rows)
            if limit is None and len(rows) == SHOWN:
                say(f"the newest {SHOWN}; --limit N shows more, --json all.")


def _found(ledger: "Ledger", record: str, kind: str | None) -> "list[Record]":
    """The record of this number, else those of this key, or of keys that begin so; UsageError where there is none."""
    found = ledger.named(record, kind)
    if not found:
        raise UsageError(f"{ledger.path} holds no record of number or key {record!r}.")
    return found


def _row(record: "Record") -> tuple[str, ...]:
    content = record.content
    image = content.get("image", content.get("path"))
    method = content.get("method")
    texts = [text if isinstance(text, str) else "" for text in (image, method)]
    return (str(record.number), record.time[:19], record.kind, _short(record.key), *texts, record.hash[:12])


def _short(key: str) -> str:
    return key if len(key) <= 40 else f"{key[:39]}…"


@app.command("verify")
def verify(
    run: Path = RUN,
    checkpoint: list[Path] = typer.Option(
        [], help="A signed checkpoint from elsewhere, besides those in the run folder."
    ),
    key: list[str] = typer.Option(
        [],
        help="A public key to trust: the signer's .pub file, or its 64 digits; default: SEEWHY_LEDGER_KEY, else the user's "
        "configuration folder.",
    ),
    as_json: bool = options.JSON,
) -> None:
    """Check that nothing was altered: every record, every file that one names, every signed checkpoint (else exit code 1)."""
    import seewhy.ledger

    found = seewhy.ledger.verify(run, checkpoints=checkpoint, key=key or None)
    if as_json:
        result_json(found.to_dict())
    else:
        _print(found)
    raise typer.Exit(DONE if found.ok else BLOCKED)


def _print(found: "Verification") -> None:
    erased = f" ({len(found.erased):,} of them erased on request)" if found.erased else ""
    counted = f"{found.records:,} records and {found.files:,} files{erased}"
    if found.ok:
        result(f"ok: {counted} are as they were written. The last hash is {found.last_hash}")
    else:
        result(f"NOT OK: {found.problems_in_all:,} problem(s) in {counted}. The first:")
    for problem in found.problems[:LINES]:
        where = [] if problem.number is None else [f"record {problem.number}"]
        result(f"  {', '.join([*where, *([problem.file] if problem.file else [])])}: {problem.sentence}")
    _more(found.problems_in_all)
    for held in found.checkpoints:
        if held.checkpoint is not None and held.problem is None:
            result(_held(held, held.checkpoint, found.records))
    if not found.checkpoints:
        result("no signed checkpoint: a chain that was written anew, or cut off at its end, would not show.")
    for one in found.erased[:LINES]:
        back = " (it is there all the same: erase it again)" if one.back else ""
        result(f"erased on request: {one.file}, on {one.time[:19]}, by {one.by}: {one.reason}{back}")
    _more(len(found.erased))
    if found.unrecorded_in_all:
        result(
            f"not recorded: {found.unrecorded_in_all:,} file(s) in maps/ and images/ that no record names (no fault):"
        )
        for name in found.unrecorded[:3]:
            result(f"  {name}")


def _held(one: "CheckedCheckpoint", checkpoint: "Checkpoint", records: int) -> str:
    newer = records - checkpoint.number
    covered = f"all {records:,} records" if not newer else f"records 1 to {checkpoint.number:,}; {newer:,} are newer"
    who = (
        f"trusted ({one.key_origin})"
        if one.key_origin
        else "taken from the checkpoint itself, which proves nothing about who signed: give the signer's own with --key"
    )
    return (
        f"signed: {one.file} holds, of {checkpoint.time}, for {covered}.\n  public key {checkpoint.public_key}, {who}"
    )


def _more(n: int) -> None:
    if n > LINES:
        result(f"  ... and {n - LINES:,} more (--json lists 100)")


@app.command("sign")
def sign(
    run: Path = RUN,
    key: Path | None = KEY,
    copy_to: Path | None = typer.Option(
        None,
        help="Also write it elsewhere: a folder, or a new file. Only such a copy protects the run folder as a whole.",
    ),
    as_json: bool = options.JSON,
) -> None:
    """Sign the ledger as it stands, if it verifies: RUN/checkpoints/NUMBER.json."""
    import seewhy.ledger
    from seewhy.ledger.checkpoint import read_checkpoint

    path = seewhy.ledger.sign(run, key, copy_to=copy_to)
    checkpoint = read_checkpoint(path)
    if as_json:
        result_json({"file": str(path.resolve()), **asdict(checkpoint)})
        return
    result(f"{path.resolve()}: {checkpoint.number:,} records, signed by {checkpoint.public_key}")
    if copy_to is None:
        say("keep a copy elsewhere (--copy-to): who may write the run folder can remove this one.")


@app.command("key")
def key(
    out: Path | None = typer.Option(
        None, help="The private key's file; default: SEEWHY_LEDGER_KEY, else the user's configuration folder."
    ),
    as_json: bool = options.JSON,
) -> None:
    """Make the key pair that checkpoints are signed with: the private key's file, and FILE.pub for whoever verifies."""
    from seewhy.ledger import make_key

    path, public = make_key(out)
    if as_json:
        result_json({"private_key_file": str(path), "public_key_file": f"{path}.pub", "public_key": public})
        return
    result(f"private key: {path} (keep it to yourself)\npublic key:  {path}.pub, {public}")


@app.command("erase")
def erase(
    run: Path = RUN,
    files: list[str] = typer.Argument(help="Names as the records have them: images/... or maps/..."),
    reason: str = typer.Option(help="Why; it stands in the ledger for ever: no personal data."),
    by: str = typer.Option(help="Who answers for it; it stands in the ledger for ever."),
    as_json: bool = options.JSON,
) -> None:
    """Erase pictures or maps on request: the files go, their hashes stay, and a record says who and why."""
    import seewhy.ledger

    records = []
    for name in files:
        records.append(seewhy.ledger.erase(run, name, reason=reason, by=by))
        if not as_json:
            result(f"erased: {name} (record {records[-1].number})")
    if as_json:
        result_json([asdict(one) for one in records])
    say(
        "pages, PDFs and copies made earlier (findings/, photos/) still show what they showed: make the pages again (seewhy "
        "report), and see to the copies."
    )


app.command("replay")(replay.replay_command)

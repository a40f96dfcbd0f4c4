"""Erase a picture or a map on request: the file goes, its hash stays in the records, and a record says who and why."""

from contextlib import nullcontext
from pathlib import Path

from seewhy import runfolder
from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger.store import Ledger, Record, open_ledger


def erase(ledger: str | Path | Ledger, name: str, *, reason: str, by: str) -> Record:
    """Erase a kept file (maps/..., images/...), and record it: the "erasure" record. Erasing again is no error.

    With an image go the maps drawn over it; a page is made again without them. reason, by: stand in the ledger for ever.
    UsageError where no record names the file; SeewhyError where it cannot be removed.
    """
    for what, text in (("reason", reason), ("by", by)):
        if not isinstance(text, str) or not text.strip():
            raise UsageError(
                f"an erasure says who asked for it and why: {what} is a text that is not empty; got {text!r}."
            )
    if isinstance(ledger, str | Path):
        open_ledger(ledger, read_only=True).close()  # a folder without a ledger is an error, and gets none
    with open_ledger(ledger) if isinstance(ledger, str | Path) else nullcontext(ledger) as opened:
        if not opened.names(name):
            raise UsageError(
                f"no record of {opened.path} names {name!r}: seewhy ledger show {opened.folder} NUMBER shows names."
            )
        # The record first: a crash in between leaves a file that verify calls back, not one that it calls missing.
        record = opened.append("erasure", name, {"file": name, "reason": reason, "by": by})
        try:
            (opened.folder / name).unlink(missing_ok=True)
            runfolder.forget_picture(opened.folder, name)
        except OSError as error:
            raise SeewhyError(
                f"{opened.folder / name} cannot be removed ({error.strerror}). The erasure is recorded: erase it again."
            ) from error
    return record

"""Sign a ledger as it stands: only one that verifies, so that a signature never covers what was changed before it."""

from pathlib import Path

from seewhy import runfolder
from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger.checkpoint import FOLDER, make_checkpoint, read_checkpoint
from seewhy.ledger.keys import private_key, public_text
from seewhy.ledger.verify import verify


def sign(folder: str | Path, key: str | Path | None = None, *, copy_to: str | Path | None = None) -> Path:
    """Sign the newest record of a run folder's ledger, and with it all before; the file, checkpoints/NUMBER.json.

    key: the private key's file; None: SEEWHY_LEDGER_KEY, else the user's configuration folder. copy_to: a folder, or a new
    file, outside of the run folder: only a copy elsewhere shows that a run folder was changed together with its checkpoints.
    Signing again what is signed gives the file that is there. UsageError for a ledger that does not verify or is empty, and
    for a key or copy in the run folder.
    """
    run = Path(folder)
    secret = private_key(key, run=run)
    found = verify(run, key=())  # older checkpoints are held against the records, whoever signed them
    if not found.ok:
        first = found.problems[0]
        place = first.file or f"record {first.number}"
        raise UsageError(f"{run} is not signed, for it does not verify. {place}: {first.sentence}")
    if found.records == 0:
        raise UsageError(f"the ledger of {run} holds no record: there is nothing to sign.")
    path = run / FOLDER / f"{found.records}.json"
    copy = None if copy_to is None else _copy_file(Path(copy_to), run, found.records)
    if path.exists():
        there = read_checkpoint(path)
        if there.public_key != public_text(secret):
            raise UsageError(f"{path} is there, signed with another key ({there.public_key}): it is not written over.")
        text = there.to_json()
    else:
        text = make_checkpoint(found.records, found.last_hash, secret).to_json()
    for file in (copy, path):  # a folder that cannot be written still has its checkpoint elsewhere
        if file is not None:
            _write(file, text)
    return path


def _copy_file(given: Path, run: Path, number: int) -> Path:
    path = given / f"{run.resolve().name}-{number}.json" if given.is_dir() else given
    if path.resolve().is_relative_to(run.resolve()):
        raise UsageError(
            f"{given} lies in the run folder: a copy is for elsewhere, where who changes the ledger cannot write."
        )
    return path


def _write(path: Path, text: str) -> None:
    try:
        there = path.read_text("utf-8") if path.exists() else None
    except (OSError, ValueError) as error:
        raise SeewhyError(f"{path} cannot be read ({error}).") from error
    if there not in (None, text):
        raise UsageError(f"{path} exists and holds something else: it is not written over. Choose another place.")
    if there is None:
        runfolder.write_file(path, text.encode())

"""Whether a ledger is as it was written: every record, every file that one names, and every signed checkpoint."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from seewhy.errors import SeewhyError, UsageError
from seewhy.ledger.checkpoint import FOLDER, Checkpoint, read_checkpoint
from seewhy.ledger.keys import TrustedKey, trusted_keys
from seewhy.ledger.schema import CONTENTS, FIRST, canonical, lifted, text_hash
from seewhy.ledger.store import Ledger, open_ledger

LISTED = 100  # problems and unrecorded files that are named; all are counted
_HASH = re.compile(r"[0-9a-f]{64}")
TEXTS = ("time", "kind", "key", "content", "previous", "hash")
# A kept file's name as a whole value: in canonical JSON the quote that opens a text stands behind one of these, and a quote
# within a text behind a backslash.
_NAMED = re.compile(r'(?<=[\[:,{])"((?:maps|images)/([0-9a-f]{64})\.(?:npz|jpg|png))"')


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written."""

    number: int | None  # of the record, or of the first record that names the file
    file: str | None  # relative to the run folder, or as it was given
    sentence: str


@dataclass(frozen=True)
class Erased:
    """A file that was erased on request; its hash stays in the records."""

    file: str
    time: str  # UTC, ISO 8601
    by: str
    reason: str
    back: bool  # a file of this name and content is there all the same


@dataclass(frozen=True)
class CheckedCheckpoint:
    """A signed checkpoint, held against the records."""

    file: str
    checkpoint: Checkpoint | None  # None where the file holds none
    key_origin: str | None  # where the key that signed it is trusted from; None where it is not
    problem: str | None  # None: it holds


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `ok` is whether everything is as it was written and signed."""

    folder: str
    records: int
    last_hash: str  # of the newest record; 64 zeros where there is none
    files: int  # that records name, erased ones among them
    problems_in_all: int
    problems: tuple[Problem, ...]  # the first 100, by record number: the first one is where to look
    erased: tuple[Erased, ...]
    unrecorded_in_all: int
    unrecorded: tuple[str, ...]  # files in maps/ and images/ that no record names, the first 100: no fault
    checkpoints: tuple[CheckedCheckpoint, ...]
    keys: tuple[TrustedKey, ...]  # that were trusted; empty: signatures prove nothing about who signed

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return self.problems_in_all == 0

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        return {"ok": self.ok, **asdict(self)}


@dataclass
class _Walk:
    """What is known on the way from the first record to the last."""

    wanted: frozenset[int]  # numbers of records that checkpoints ask for
    records: int = 0
    number: int = 0  # of the record before
    previous: str = FIRST
    faults: int = 0
    problems: list[Problem] = field(default_factory=list)
    hashes: dict[int, str] = field(default_factory=dict)  # of the wanted
    files: set[str] = field(default_factory=set)
    missing: dict[str, int] = field(default_factory=dict)  # file -> record that names it
    erasures: dict[str, Erased] = field(default_factory=dict)

    def fault(self, number: int | None, file: str | None, sentence: str) -> None:
        self.faults += 1
        if len(self.problems) < LISTED:
            self.problems.append(Problem(number, file, sentence))


def verify(
    ledger: str | Path | Ledger,
    *,
    checkpoints: Sequence[str | Path] = (),
    key: str | Path | Sequence[str | Path] | None = None,
) -> Verification:
    """Compute every hash of a ledger again, and name the first record or file that is not as it was written.

    ledger: a run folder, or an open ledger. checkpoints: files from elsewhere, besides those in the run folder. key: public
    keys to trust, each a file or its 64 digits; None: SEEWHY_LEDGER_KEY, else the user's configuration folder. Reads only.
    UsageError where there is no ledger, or no file of that name; MissingExtraError where signatures need [sign].
    """
    with open_ledger(ledger, read_only=True) if isinstance(ledger, str | Path) else nullcontext(ledger) as opened:
        files = _checkpoint_files(opened.folder, checkpoints)
        keys = trusted_keys(key, run=opened.folder) if files or key is not None else ()
        read = {name: _read(path) for name, path in files.items()}
        walk = _Walk(frozenset(one.number for one in read.values() if isinstance(one, Checkpoint)))
        _walk(opened, walk)
        return _verification(opened.folder, walk, _checked(read, keys, walk), keys)


# -- records -------------------------------------------------------------------------------------------------------------


def _walk(ledger: Ledger, walk: _Walk) -> None:
    damage = ledger.damage()
    if damage is not None:
        walk.fault(None, ledger.path.name, f"the database is damaged: {damage}")
    try:
        for row in ledger.rows():
            _step(ledger.folder, row, walk)
    except SeewhyError:
        if damage is None:  # else it is what was said already
            raise


def _step(folder: Path, row: Mapping[str, Any], walk: _Walk) -> None:
    sentence = _wrong_with(row, walk.number, walk.previous)
    number = row["number"] if isinstance(row["number"], int) else walk.number + 1
    if sentence is not None:
        walk.fault(number, None, sentence)
    walk.records, walk.number = walk.records + 1, number
    walk.previous = row["hash"] if isinstance(row["hash"], str) and _HASH.fullmatch(row["hash"]) else ""
    if number in walk.wanted:
        walk.hashes[number] = row["hash"]
    if not isinstance(row["content"], str):
        return
    for name, digest in _NAMED.findall(row["content"]) if _may_name(row["content"]) else ():
        if name not in walk.files:
            walk.files.add(name)
            _check_file(folder, name, digest, number, walk)
    if row["kind"] == "erasure" and sentence is None:
        content = json.loads(row["content"])
        told = {what: str(content.get(what)) for what in ("file", "by", "reason")}
        walk.erasures[told["file"]] = Erased(**told, time=row["time"], back=False)


def _wrong_with(row: Mapping[str, Any], before: int, previous: str) -> str | None:
    """What is not right with a row that follows the one of that number and hash; None where all is."""
    number, kind, text = row["number"], row["kind"], row["content"]
    if number != before + 1:
        return f"its number is {number!r} where {before + 1} was due: records were deleted, or numbers changed."
    for name in TEXTS:
        if not isinstance(row[name], str):
            return f"its {name} is a {type(row[name]).__name__}, no text."
    if row["previous"] != previous:
        return (
            f"it does not follow the record before it: that one's hash is {previous}, and it names {row['previous']}."
        )
    content = _content(text)
    if content is None:
        return "its content is not what a ledger writes (a JSON object in canonical form)."
    digest = text_hash(previous, number, row["time"], kind, row["key"], text)
    if row["hash"] != digest:
        return f"it was changed after it was written: its hash is recorded as {row['hash']} and comes out as {digest}."
    for name, value in lifted(content).items():
        if row[name] != value:
            return f"its column {name}, which filters look at, says {row[name]!r}, and its content {value!r}."
    if kind not in CONTENTS:
        return f"its kind {kind!r} is unknown."
    return None if _is_time(row["time"]) else f"its time {row['time']!r} is no time in ISO 8601 with its zone."


def _may_name(text: str) -> bool:
    """Whether it is worth looking for names of files: ten times as fast as looking."""
    return '"maps/' in text or '"images/' in text


def _content(text: str) -> dict[str, Any] | None:
    """The content that a canonical text holds; None for any other text."""
    try:
        content = json.loads(text)
        return content if isinstance(content, dict) and canonical(content) == text else None
    except (ValueError, RecursionError):
        return None


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


# -- files ---------------------------------------------------------------------------------------------------------------


def _check_file(folder: Path, name: str, digest: str, number: int, walk: _Walk) -> None:
    path = folder / name
    if not path.exists():
        walk.missing[name] = number  # a later record may say that it was erased
        return
    if not path.is_file():  # a pipe or a device would be read for ever
        walk.fault(number, name, "it is no file.")
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        walk.fault(number, name, f"it cannot be read ({error.strerror}).")
        return
    if found != digest:
        walk.fault(number, name, "it was changed after it was written: its hash is not its name.")


def _unrecorded(folder: Path, known: Iterable[str]) -> list[str]:
    """The files beside a ledger that no record names: of a run that was killed between file and record, or of other tools."""
    found = [f"{place}/{path.name}" for place in ("maps", "images") for path in _files_in(folder / place)]
    return sorted(set(found).difference(known))


def _files_in(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


# -- checkpoints ---------------------------------------------------------------------------------------------------------


def _checkpoint_files(folder: Path, given: Sequence[str | Path]) -> dict[str, Path]:
    own = sorted((path for path in _files_in(folder / FOLDER) if path.suffix == ".json"), key=lambda path: path.name)
    for path in map(Path, given):
        if not path.is_file():
            raise UsageError(f"there is no checkpoint file {path}.")
    return {f"{FOLDER}/{path.name}": path for path in own} | {str(path): Path(path) for path in given}


def _read(path: Path) -> Checkpoint | str:
    try:
        return read_checkpoint(path)
    except SeewhyError as error:
        return str(error)


def _checked(
    read: Mapping[str, Checkpoint | str], keys: Sequence[TrustedKey], walk: _Walk
) -> tuple[CheckedCheckpoint, ...]:
    """Every checkpoint, held against the records that were walked; the oldest first, and then what is none."""
    origins = {one.public_key: one.origin for one in keys}
    real = {name: one for name, one in read.items() if isinstance(one, Checkpoint)}
    checked, held = [], 0
    for name, one in sorted(real.items(), key=lambda item: item[1].number):
        problem = _signature_problem(one, origins) or _chain_problem(one, walk, held)
        held = held if problem else one.number
        checked.append(CheckedCheckpoint(name, one, origins.get(one.public_key), problem))
    return (*checked, *(CheckedCheckpoint(name, None, None, one) for name, one in read.items() if isinstance(one, str)))


def _signature_problem(one: Checkpoint, origins: Mapping[str, str]) -> str | None:
    if not one.signed_by_its_key():
        return "its signature is forged, or it was changed after it was signed."
    if origins and one.public_key not in origins:
        trusted = ", ".join(f"{key} ({origin})" for key, origin in origins.items())
        return f"it is signed by {one.public_key}, which is not trusted; trusted is {trusted}. The signer's own: --key FILE."
    return None


def _chain_problem(one: Checkpoint, walk: _Walk, held: int) -> str | None:
    if one.number > walk.number:
        return (
            f"it was signed on {one.time} when there were {one.number} records, and there are {walk.number}: "
            "the newest were cut off, or it is a checkpoint of another ledger."
        )
    if walk.hashes.get(one.number) != one.hash:
        return (
            f"record {one.number} is not the one that was signed on {one.time}: a record from {held + 1} to {one.number} "
            "was changed and the chain written again, or it is a checkpoint of another ledger."
        )
    return None


# -- all of it -----------------------------------------------------------------------------------------------------------


def _verification(
    folder: Path, walk: _Walk, checked: tuple[CheckedCheckpoint, ...], keys: tuple[TrustedKey, ...]
) -> Verification:
    erased = [one for name, one in walk.erasures.items() if name in walk.files]
    lost = {name: number for name, number in walk.missing.items() if name not in walk.erasures}
    unrecorded = _unrecorded(folder, walk.files)
    problems = [*walk.problems, *(Problem(number, name, "it is missing.") for name, number in lost.items())]
    for one in checked:
        if one.problem is not None:
            number = None if one.checkpoint is None else one.checkpoint.number
            problems.append(Problem(number, one.file, one.problem))
    problems.sort(key=lambda one: one.number or 0)
    return Verification(
        folder=str(folder),
        records=walk.records,
        last_hash=walk.previous,
        files=len(walk.files),
        problems_in_all=walk.faults + len(problems) - len(walk.problems),
        problems=tuple(problems[:LISTED]),
        erased=tuple(Erased(**{**asdict(one), "back": one.file not in walk.missing}) for one in erased),
        unrecorded_in_all=len(unrecorded),
        unrecorded=tuple(unrecorded[:LISTED]),
        checkpoints=checked,
        keys=keys,
    )

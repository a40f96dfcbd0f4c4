"""A checkpoint: the number and hash of a ledger's newest record, signed, so that a rewritten chain and a cut tail show."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from seewhy.errors import SeewhyError
from seewhy.ledger.keys import public_text
from seewhy.ledger.schema import canonical
from seewhy.loading.extras import import_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCHEMA = 1
FOLDER = "checkpoints"  # in the run folder
_PREFIX = "seewhy ledger checkpoint\n"  # what is signed here is good for nothing else
_DIGITS = {"hash": 64, "public_key": 64, "signature": 128}  # of the hexadecimal fields
_LARGEST = 10_000  # bytes of such a file


@dataclass(frozen=True)
class Checkpoint:
    """What was signed: the ledger held record `number` with this hash, and so all before it, at this time."""

    schema: int
    number: int
    hash: str
    time: str  # UTC, ISO 8601, by the signer's clock
    public_key: str  # of the signer, Ed25519, hexadecimal
    signature: str  # of the canonical JSON of the fields above, behind a line that says what it is

    def signed_by_its_key(self) -> bool:
        """Whether the signature is that of the checkpoint's own public key; whose that is, it does not say."""
        import_extra("cryptography", "sign", "checking a signed checkpoint")
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), _signed_bytes(self))
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> str:
        """The file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def make_checkpoint(number: int, digest: str, key: "Ed25519PrivateKey") -> Checkpoint:
    """Sign the number and the hash of a ledger's newest record."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    unsigned = Checkpoint(SCHEMA, number, digest, now, public_text(key), "")
    return Checkpoint(**{**asdict(unsigned), "signature": key.sign(_signed_bytes(unsigned)).hex()})


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, its signature not yet looked at; SeewhyError, in a sentence, for what is none."""
    if not path.is_file():
        raise SeewhyError("it is no file.")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        given = json.loads(content) if len(content) <= _LARGEST else None
    except OSError as error:
        raise SeewhyError(f"it cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise SeewhyError(f"it is damaged ({type(error).__name__}).") from error
    if not isinstance(given, dict) or given.keys() != Checkpoint.__annotations__.keys() or not _well_formed(given):
        raise SeewhyError("it is no checkpoint: it does not hold schema, number, hash, time, public_key and signature.")
    if given["schema"] != SCHEMA:
        raise SeewhyError(f"it has schema {given['schema']}; this version of seewhy reads schema {SCHEMA}.")
    return Checkpoint(**given)


def _well_formed(given: dict[str, object]) -> bool:
    whole = all(type(given[name]) is int for name in ("schema", "number"))
    texts = all(
        isinstance(text := given[name], str) and len(text) == n and set(text) <= set("0123456789abcdef")
        for name, n in _DIGITS.items()
    )
    return whole and texts and isinstance(given["time"], str)


def _signed_bytes(checkpoint: Checkpoint) -> bytes:
    fields = asdict(checkpoint)
    del fields["signature"]
    return (_PREFIX + canonical(fields)).encode()

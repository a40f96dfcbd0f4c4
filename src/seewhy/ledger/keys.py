"""Ed25519 keys: the private one signs checkpoints and lives outside of every run folder; the public one checks them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seewhy import runfolder
from seewhy.errors import SeewhyError, UsageError, first_line
from seewhy.loading.extras import import_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE = "SEEWHY_LEDGER_KEY"
PUBLIC = ".pub"  # what the public key's file is called after the private one's name
_HEX = re.compile(r"[0-9a-f]{64}")
_PURPOSE = "a signed checkpoint"


@dataclass(frozen=True)
class TrustedKey:
    """A public key, and where whoever verifies got it from."""

    public_key: str  # 64 hexadecimal digits
    origin: str


def default_key() -> Path:
    """The private key in the user's configuration folder, where neither an option nor SEEWHY_LEDGER_KEY names one."""
    import typer  # a library that only explains does without the command line

    return Path(typer.get_app_dir("seewhy")) / "ledger-key.pem"


def make_key(path: str | Path | None = None) -> tuple[Path, str]:
    """Make a key pair: the private key's file (PEM, for its owner only) and the public key, which FILE.pub holds too.

    path: None for SEEWHY_LEDGER_KEY, else the user's configuration folder. UsageError inside of a run folder, which the key
    is to protect, and where a file is: no key is ever overwritten. MissingExtraError without [sign].
    """
    import_extra("cryptography", "sign", _PURPOSE)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, _ = (Path(path), "") if path is not None else _usual()
    private = private.expanduser().absolute()
    _refuse_inside_a_run(private)
    for file in (private, _public_file(private)):
        if file.exists():
            raise UsageError(f"{file} exists: a key is never overwritten. Choose another name with --out.")
    key = Ed25519PrivateKey.generate()
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(private, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none), 0o600)
    _write_new(_public_file(private), public, 0o644)
    return private, public_text(key)


def private_key(path: str | Path | None = None, *, run: Path) -> "Ed25519PrivateKey":
    """The private key in a file; path None as for make_key. UsageError where it lies inside of the run folder."""
    file, _ = (Path(path).expanduser(), "") if path is not None else _usual()
    if not file.is_file():
        raise UsageError(f"there is no private key {file}: make one with  seewhy ledger key --out {file}")
    if file.resolve().is_relative_to(run.resolve()):
        raise UsageError(
            f"{file} lies in the run folder: whoever may change the ledger could sign it. Move it elsewhere."
        )
    import_extra("cryptography", "sign", _PURPOSE)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_content(file), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise UsageError(f"{file} holds no private key that can be used ({first_line(error)}).") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{file} holds a key that is not of the kind Ed25519: make one with  seewhy ledger key")
    return key


def trusted_keys(given: str | Path | Sequence[str | Path] | None, *, run: Path) -> tuple[TrustedKey, ...]:
    """The public keys to trust: those given (files, or 64 digits), else SEEWHY_LEDGER_KEY, else the configuration folder.

    A file holds a public or a private key. Empty where there is none at all.
    """
    if given is not None:
        several = [given] if isinstance(given, str | Path) else given
        return tuple(_trusted(one, f"given: {one}", run) for one in several)
    private, origin = _usual()
    for file in (_public_file(private), private):
        if file.is_file():
            return (_trusted(file, f"{origin}: {file}", run),)
    if origin == VARIABLE:
        raise UsageError(f"{VARIABLE} names {private}, and there is no such file.")
    return ()


def public_text(key: "Ed25519PrivateKey") -> str:
    """The public half of a private key, as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def _usual() -> tuple[Path, str]:
    """The private key's file where none is given, and who says so."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser(), VARIABLE
    return default_key(), "the configuration folder"


def _public_file(private: Path) -> Path:
    return private.with_name(private.name + PUBLIC)


def _trusted(given: str | Path, origin: str, run: Path) -> TrustedKey:
    if _HEX.fullmatch(str(given).lower()):
        return TrustedKey(str(given).lower(), "given as text")
    file = Path(given).expanduser()
    if file.resolve().is_relative_to(run.resolve()):
        origin += " (in the run folder itself: whoever changed the ledger may have changed the key too)"
    return TrustedKey(_public_of(file), origin)


def _public_of(file: Path) -> str:
    import_extra("cryptography", "sign", _PURPOSE)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    content = _content(file)
    try:
        key = load_pem_private_key(content, None) if b"PRIVATE KEY" in content else load_pem_public_key(content)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{file} holds no key that can be read ({first_line(error)}): give the .pub file of the signer."
        ) from error
    if isinstance(key, Ed25519PrivateKey):
        key = key.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{file} holds a key that is not of the kind Ed25519.")
    return key.public_bytes_raw().hex()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror}.") from error


def _refuse_inside_a_run(path: Path) -> None:
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in (runfolder.LEDGER, runfolder.LEDGER_ON_SERVER, "run.json")):
            raise UsageError(
                f"{folder} is a run folder: a private key in it would protect it from nobody. Choose another folder."
            )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except OSError as error:
        raise SeewhyError(f"cannot write {path}: {error.strerror}.") from error

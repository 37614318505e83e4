"""Whose record it is: the author's Ed25519 signature over its manifest.

``signature.json`` has the public key, the time, and the signature over both and the SHA-256 of ``manifest.json``. It
tells that the holder of the key has sealed these files, and nothing of who that is: readers compare the key, or its
fingerprint, with the one that the author has published elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire.files.private_files import config_folder
from anywire.identities.admitted import read_fingerprint
from anywire.identities.identity_proof import FINGERPRINT, Identity, as_text, fingerprint, from_text, is_signed
from anywire_experiment.record.manifest import MANIFEST, SIGNATURE
from anywire_experiment.record.storage import RecordError, pretty, write_whole

KEY = "record-author.pem"
UNSIGNED = "it is not signed: nothing tells who has sealed it, and who changes it can seal it again"
_LONGEST = 4096
"""Bytes of a signature, or of a file with a public key."""


class Signature(msgspec.Struct):
    """``public_key`` and ``signature`` in base64url, as `anywire.identities` has them; ``signed`` is the time by the
    author's own clock."""

    public_key: str
    signed: str
    signature: str

    @property
    def fingerprint(self) -> str:
        public = from_text(self.public_key)
        return fingerprint(public) if public else ""


def key_file() -> Path:
    """Where the author's private key is kept, for this user alone."""
    return config_folder() / KEY


def author(file: Path | None) -> Identity | None:
    """The key in ``file``, or the one that this user has made; None without either. Raises `ConfigError` when it
    cannot be read, and for a ``file`` that is not there."""
    if file is not None and not file.exists():
        raise ConfigError(f"there is no key {file}: `anywire experiment key --key {file}` makes one")
    path = file or key_file()
    return Identity.from_file(path) if path.exists() else None


def needed(file: Path | None) -> Identity:
    """As `author`. Raises `ConfigError` also where this user has made none."""
    if (found := author(file)) is None:
        raise ConfigError("you have no key yet: `anywire experiment key` makes one")
    return found


def made(file: Path | None) -> tuple[Path, Identity]:
    """The key in ``file``, by default this user's, made when there is none, with mode 0600. Raises `ConfigError`."""
    path = file or key_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
    return path, Identity.from_file(path)


def sign(record: Path, identity: Identity) -> bool:
    """Sign the manifest of a sealed record. A signature of the same key that still holds stays as it is: False then.
    Raises OSError."""
    before = _found(record)
    if before is not None and before.fingerprint == identity.fingerprint and is_valid(record, before):
        return False
    when = datetime.now(UTC).isoformat(timespec="seconds")
    signature = Signature(as_text(identity.public), when, as_text(identity.sign(_signed(record, when))))
    write_whole(record / SIGNATURE, pretty(msgspec.to_builtins(signature)))
    return True


def read_signature(record: Path) -> Signature | None:
    """None for a record that is not signed. Raises `RecordError` when it cannot be read."""
    path = record / SIGNATURE
    if not path.exists() and not path.is_symlink():
        return None
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("it is no plain file")
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(_LONGEST), type=Signature)
        datetime.fromisoformat(found.signed)
        if len(from_text(found.public_key) or b"") != 32:
            raise ValueError("its public key is none")
        return found
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} is no signature: {error}") from error


def is_valid(record: Path, signature: Signature) -> bool:
    """Whether the holder of its key has signed the manifest as it is now."""
    public, data = from_text(signature.public_key), from_text(signature.signature)
    return bool(public and data) and is_signed(public or b"", data or b"", _signed(record, signature.signed))


def faults_of_signature(record: Path, expected: str = "") -> list[str]:
    """What is wrong with the signature of a sealed record, a sentence each; ``expected`` is the fingerprint of the
    author that it must be of, any when empty. A record without a signature has no fault unless one is expected."""
    try:
        found = read_signature(record)
    except RecordError as error:
        return [f"{SIGNATURE}: {error}"]
    if found is None:
        return [f"{SIGNATURE}: missing, so nothing tells that {expected} has sealed it"] if expected else []
    if not is_valid(record, found):
        return [f"{SIGNATURE}: does not hold: {MANIFEST} or the signature was changed since {found.fingerprint} signed"]
    if expected and found.fingerprint != expected:
        return [f"{SIGNATURE}: is of {found.fingerprint}, and not of {expected}"]
    return []


def told(record: Path) -> str:
    """Who has signed a record whose signature holds, for people."""
    found = _found(record)
    return UNSIGNED if found is None else f"signed by {found.fingerprint} at {found.signed} by the author's clock"


def fingerprint_of(text: str) -> str:
    """Of an author, given as a fingerprint, a public key in base64url, or a file that has either, or a public key as
    PEM. Raises `ConfigError`."""
    path = Path(text)
    if not FINGERPRINT.fullmatch(text) and len(text) < _LONGEST and path.is_file():
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} has no public key: {error}") from error
        if "-----BEGIN" in content:
            return _of_pem(path, content)
        words = re.findall(r"SHA256:[A-Za-z0-9+/]{43}|(?<![\w-])[\w-]{43}(?![\w-])", content)
        if not words:
            raise ConfigError(f"{path} has neither a fingerprint (SHA256:…) nor a public key")
        return read_fingerprint(words[0])
    return read_fingerprint(text)


def _of_pem(path: Path, content: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content.encode())
    except Exception:  # what is wrong with it is not repeated: it may be the private key
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} holds no public Ed25519 key as PEM")
    return fingerprint(key.public_bytes_raw())


def _found(record: Path) -> Signature | None:
    try:
        return read_signature(record)
    except RecordError:
        return None


def _signed(record: Path, when: str) -> bytes:
    seal = hashlib.sha256((record / MANIFEST).read_bytes()).hexdigest()
    return b"\0".join([b"anywire experiment record 1", when.encode("utf-8", "surrogatepass"), seal.encode()])

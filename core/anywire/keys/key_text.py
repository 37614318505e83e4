"""The text of a key, as its owner has it: ``aw-ID-SECRET``.

The id is public and names the key in lists, logs and limits. The secret is 32 random bytes. An orchestrator keeps only
its SHA-256, and the public half of a signing key that follows from it, so its file is worth nothing to a thief.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from anywire.identities.identity_proof import Identity

ID_CHARS = 12
_FORM = re.compile(rf"aw-([a-z2-7]{{{ID_CHARS}}})-([A-Za-z0-9_-]{{43}})", re.ASCII)
_ID = re.compile(rf"[a-z2-7]{{{ID_CHARS}}}", re.ASCII)
_MARK = "aw-"
_INFO = b"anywire client key"


class KeyText(NamedTuple):
    """A key in its two parts. Its repr does not show the secret."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyText({self.id})"

    def __str__(self) -> str:
        return f"{_MARK}{self.id}-{self.secret}"

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, hexadecimal."""
        return secret_digest(self.secret)

    @property
    def identity(self) -> Identity:
        """The signing key that follows from the secret. A client proves its key by signing with it, and so never sends
        the key over a transport. Each call derives it anew."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        from anywire.identities.identity_proof import Identity

        return Identity(HKDF(hashes.SHA256(), 32, salt=None, info=_INFO).derive(self.secret.encode()))


def new_key() -> KeyText:
    """A new key, of random numbers of the system."""
    drawn = base64.b32encode(secrets.token_bytes(8)).decode()[:ID_CHARS].lower()
    return KeyText(drawn, secrets.token_urlsafe(32))


def read_key(text: str) -> KeyText | None:
    """The key in ``text``, None when it has not the form of one."""
    found = _FORM.fullmatch(text)
    return KeyText(found[1], found[2]) if found else None


def looks_like_key(text: str) -> bool:
    """Whether ``text`` begins as a key does."""
    return text.startswith(_MARK)


def is_key_id(text: str) -> bool:
    """Whether ``text`` has the form of a key's id."""
    return _ID.fullmatch(text) is not None


def secret_digest(secret: str) -> str:
    """SHA-256 of a key's secret, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()

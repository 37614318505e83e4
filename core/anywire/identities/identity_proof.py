"""Who an end of a link is: its Ed25519 key pair, and the proof of it that it sends in its hello.

A proof is text of five parts, ``aw1.<public key>.<binding>.<issued>.<signature>``: keys, binding and signature in
base64url without padding, the time in milliseconds since 1970. The signature covers plane, end, id and incarnation as
well, so that a proof is worth nothing to another end and in another life. ``binding`` names the key by which the
transport protects the channel of this link, so that who repeats a proof on a channel of its own is found out. Without
a binding a proof can be repeated by whoever has seen it.

An end that was invited adds the word of its inviter: ``.<public key>.<signature over the end's public key>``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from anywire.errors import ConfigError
from anywire.files.private_files import kept_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

End = Literal["hub", "agent"]

MAX_PROOF_BYTES = 512
"""Characters of the longest proof that is read."""

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")

_FORM = re.compile(
    r"aw1\.([\w-]{43})\.([\w-]{0,128})\.(\d{1,15})\.([\w-]{86})(?:\.([\w-]{43})\.([\w-]{86}))?", re.ASCII
)
VOUCHER = re.compile(r"[\w-]{43}\.[\w-]{86}", re.ASCII)
"""What `Identity.vouch` gives."""


class Identity:
    """The key pair of one end. It never shows its private half: neither as text nor in an error."""

    def __init__(self, seed: bytes) -> None:
        """From the ``seed`` of the private key, 32 bytes. Raises `ValueError` for any other number."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != 32:
            raise ValueError("the seed of an identity is 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()
        """Its public key, 32 bytes."""
        self.voucher = ""
        """The word of an inviter for it, of `vouch`, which its proofs carry; empty for none."""

    @classmethod
    def new(cls) -> Identity:
        """One that nobody has had."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_file(cls, path: Path) -> Identity:
        """The one in the file ``path`` (PEM, PKCS 8, as ``openssl genpkey -algorithm ed25519`` writes it), made with
        mode 0600 when it is missing. Raises `ConfigError` when others may read it, the sentence with the command that
        mends it, and when it holds no such key."""
        data = kept_private(path, _new_pem)
        try:
            return cls(_private_key(data).private_bytes_raw())
        except Exception:  # what is wrong with it is not repeated: it may hold a secret
            raise ConfigError(
                f"{path} holds no private Ed25519 key (PEM, PKCS 8, without a password): name another file; one that "
                "is not there is made"
            ) from None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint})"

    def sign(self, data: bytes) -> bytes:
        """Its signature over ``data``, 64 bytes."""
        return self._key.sign(data)

    def prove(self, plane: str, end: End, end_id: str, incarnation: int, binding: str = "") -> str:
        """The proof that ``incarnation`` of ``end_id`` is this identity, for a hello. ``binding`` is `as_text` of the
        key by which the transport protects the channel, empty where it protects nothing."""
        issued = time.time_ns() // 1_000_000
        signature = self.sign(_signed(plane, end, end_id, incarnation, issued, binding))
        proof = f"aw1.{as_text(self.public)}.{binding}.{issued}.{as_text(signature)}"
        return f"{proof}.{self.voucher}" if self.voucher else proof

    def vouch(self, public: bytes) -> str:
        """The word of this one, a key that may invite, for the end whose public key is ``public``. It is no secret: it
        is worth nothing without that end's private key."""
        return f"{as_text(self.public)}.{as_text(self.sign(_vouched(public)))}"


class Proof(msgspec.Struct, frozen=True):
    """A proof as it was read. Nothing of it is true before `is_valid`."""

    public: bytes
    """The public key, 32 bytes."""
    binding: str
    issued: int
    """When it was made, in milliseconds since 1970 by the clock of its maker."""
    signature: bytes
    inviter: bytes = b""
    """The public key of whoever vouches for it; empty for nobody."""
    word: bytes = b""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    @property
    def is_vouched(self) -> bool:
        """Whether the holder of ``inviter`` has vouched for this public key. Never raises."""
        return is_signed(self.inviter, self.word, _vouched(self.public))

    def is_valid(self, plane: str, end: End, end_id: str, incarnation: int) -> bool:
        """Whether the holder of the private key has made it for this end in this life. Never raises."""
        return is_signed(
            self.public, self.signature, _signed(plane, end, end_id, incarnation, self.issued, self.binding)
        )


def read_proof(text: str) -> Proof | None:
    """What ``text`` claims to prove, None when it is no proof. Never raises, and looks at `MAX_PROOF_BYTES` at most."""
    if len(text) > MAX_PROOF_BYTES or (found := _FORM.fullmatch(text)) is None:
        return None
    public, signature = from_text(found[1]), from_text(found[4])
    inviter, word = from_text(found[5] or ""), from_text(found[6] or "")
    if public is None or signature is None or inviter is None or word is None:
        return None
    return Proof(public, found[2], int(found[3]), signature, inviter, word)


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` over ``data`` was made with the private half of ``public``. Never raises."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """How people name a public key: ``SHA256:`` and the base64 of its SHA-256 without padding, in the form of ssh."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def as_text(data: bytes) -> str:
    """``data`` in base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text: str) -> bytes | None:
    """The bytes that `as_text` makes ``text`` of, None where it makes none such."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if as_text(data) == text else None


def _signed(plane: str, end: str, end_id: str, incarnation: int, issued: int, binding: str) -> bytes:
    # The id alone may hold a NUL, and it has the same number of them on both sides: nothing reads in two ways.
    parts = ("anywire proof 1", plane, end, end_id, str(incarnation), str(issued), binding)
    return "\0".join(parts).encode("utf-8", "surrogatepass")


def _vouched(public: bytes) -> bytes:
    return b"anywire invitation 1\0" + public


def _new_pem() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private_key(data: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(data, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError
    return key

"""A configuration on its way through a Ray cluster, which nobody but the actor can read for whom it is.

What an actor is given passes the cluster's head and may lie in its object store, in files, or in its dashboard, and
travels without TLS unless the cluster has it. So each life of an actor makes a key of its own, and the driver seals the
configuration with the public half: X25519 with a new key for each seal, HKDF-SHA256, and ChaCha20-Poly1305.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE = b"anywire launcher ray: configuration of an agent"
_KEY = 32
# Each key serves for one seal.
_NONCE = bytes(12)


class SealError(ValueError):
    """What was sealed for another key, or has been changed."""


class SealKey:
    """The key of one reader, which never leaves its process."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def open(self, sealed: bytes) -> bytes:
        """What was sealed for this key. Raises `SealError`."""
        theirs, text = sealed[:_KEY], sealed[_KEY:]
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(theirs))
            return _cipher(shared, theirs, self.public).decrypt(_NONCE, text, None)
        except (ValueError, InvalidTag):
            raise SealError("sealed for another key, or changed on the way") from None


def seal(text: bytes, public: bytes) -> bytes:
    """``text`` for the reader whose public key this is. Raises `SealError` for what is no key."""
    own = X25519PrivateKey.generate()
    ours = own.public_key().public_bytes_raw()
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SealError("this is no public key") from None
    return ours + _cipher(shared, ours, public).encrypt(_NONCE, text, None)


def _cipher(shared: bytes, sender: bytes, reader: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), _KEY, salt=None, info=_PURPOSE + sender + reader).derive(shared))

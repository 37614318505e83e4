"""What of signatures and proofs needs no keys: signatures in the member ``more`` of samples,
``{"signature":"<base64url>"}``, and what a signed HELLO covers."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from anywire.identities.identity_proof import as_text, from_text, read_proof


class Forged(Exception):
    """A sample that the other end of the link did not write, or that has come before."""


class Unproven(Exception):
    """Why a registration with a proof does not count, as the end of a sentence."""


_TEXT = re.compile(r'\{"signature":"([\w-]{86})"\}', re.ASCII)
_TEXT_LENGTH = 102
_EMPTY = struct.pack("<I4x", 1)
"""``more`` as the last member of a packed sample, with nothing in it."""
_BEFORE = struct.pack("<I", _TEXT_LENGTH + 1)
_AFTER = b"\0\0"
_PACKED = len(_BEFORE) + _TEXT_LENGTH + len(_AFTER)


def text_of(signature: bytes) -> str:
    """What ``more`` says of a signature."""
    return f'{{"signature":"{as_text(signature)}"}}'


def read_signature(more: str) -> bytes | None:
    """The signature that ``more`` holds; None when it holds none."""
    found = _TEXT.fullmatch(more)
    return from_text(found[1]) if found is not None else None


def with_signature(sample: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """A packed sample whose last member is an empty ``more``, with a signature there over all that comes before it."""
    head = sample.removesuffix(_EMPTY)
    return b"".join((head, _BEFORE, text_of(sign(head)).encode(), _AFTER))


def signature_in(data: bytes) -> tuple[bytes, bytes] | None:
    """What was signed of a sample that `with_signature` made, and the signature; None when it is none. Nothing of the
    sample is read for it."""
    head, tail = data[:-_PACKED], data[-_PACKED:]
    if not tail.startswith(_BEFORE) or not tail.endswith(_AFTER):
        return None
    signature = read_signature(tail[len(_BEFORE) : -len(_AFTER)].decode("latin-1"))
    return (head, signature) if signature is not None else None


def hello_to(name: str, incarnation: int, echo: int, text: bytes) -> bytes:
    """What is signed of a HELLO that says ``text``: for whom it is as well, and that one's number."""
    return b"\0".join((name.encode("utf-8", "surrogatepass"), b"%d" % incarnation, b"%d" % echo, text))


def public_of(proof: str) -> str:
    """The public key that a valid proof names; empty for no proof."""
    return proof.split(".")[1] if proof else ""


def unbound(proof: str) -> str:
    """A proof as an end without an identity may pass it on: it cannot check what a binding names."""
    read = read_proof(proof)
    return "" if read is not None and read.binding else proof

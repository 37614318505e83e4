"""The tags of a link's samples: who wrote each, that nobody changed it, and that it comes once and in order.

A sample of a link between two ends that have identities is followed by eight bytes with its writer and its number, and
by the sixteen bytes of an AES-GMAC over it, with the key that the two ends agreed on for this link and this direction.
The nonce is made of the topic, the writer and the number, which never come again with that key.
"""

from __future__ import annotations

import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anywire_dds.cdr import LONG
from anywire_dds.signed import Forged

TAG_BYTES = 16
_NUMBER, _NONCE = struct.Struct("<Q"), struct.Struct("<QI")
TRAILER_BYTES = _NUMBER.size + TAG_BYTES
"""What follows a sample."""

KEY_BYTES = 32
"""Of the key of one direction."""

MAX_WRITERS = 64
"""Of one end of a link: more than an end has."""

_TOPICS = {"request": 1, "control": 2, "response": 3, "stream": 4}
_WRITER_SHIFT = 48
_NOTHING = b""


class Seal:
    """The keys of one link, and what has come by it. Until `agree` nothing that it tags counts anywhere."""

    def __init__(self) -> None:
        self._writers = 0
        self.agree(secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES))

    def agree(self, own: bytes, peers: bytes) -> None:
        """Use these keys from now on: ``own`` for what this end writes, ``peers`` for what the other end does. No key
        is given twice."""
        self.tag = AESGCM(own).encrypt
        """Makes the tag of what this end writes."""
        self._verify = AESGCM(peers).decrypt
        self._newest: dict[int, int] = {}

    def writer(self, topic: str) -> WriterSeal:
        """The numbers of one more writer of this end."""
        self._writers += 1
        return WriterSeal(self, topic, self._writers)

    def opened(self, topic: str, data: bytes) -> tuple[bytes, int]:
        """A sample of the other end as it was packed, and how many are missing before it. Raises `Forged`. Of a long
        sample the tag is left, which nobody reads there."""
        at = len(data) - TRAILER_BYTES
        if at < 0:
            raise Forged("it has no tag")
        (number,) = _NUMBER.unpack_from(data, at)
        try:
            self._verify(_NONCE.pack(number, _TOPICS[topic]), data[-TAG_BYTES:], memoryview(data)[:at])
        except InvalidTag:
            raise Forged("its tag is not of this link") from None
        writer, place = number >> _WRITER_SHIFT, number & (1 << _WRITER_SHIFT) - 1
        newest = self._newest.get(writer)
        if newest is None:
            # A writer's first samples may have been written before its reader had matched, and then need not come.
            if writer > MAX_WRITERS:
                raise Forged(f"it is of writer {writer}")
            newest = place - 1
        if place <= newest:
            raise Forged("it has come before, or out of order")
        self._newest[writer] = place
        return data if len(data) > LONG else data[:at], place - newest - 1


class WriterSeal:
    """One writer of a link: numbers its samples."""

    def __init__(self, seal: Seal, topic: str, writer: int) -> None:
        self._seal, self._topic = seal, _TOPICS[topic]
        self._number = (writer << _WRITER_SHIFT) + 1

    def sealed(self, sample: bytes) -> bytes:
        """``sample`` with its number and tag. What is not `written` may never leave this process: the next sample gets
        the same number."""
        number = self._number
        tag = self._seal.tag(_NONCE.pack(number, self._topic), _NOTHING, sample)
        return b"".join((sample, _NUMBER.pack(number), tag))

    def written(self) -> None:
        """The sample is on its way; the next one has the next number."""
        self._number += 1

"""Large JSON bodies, read without keeping the event loop from running.

A decoder does not let the event loop run, and a thread does not help: the decoder holds the interpreter's lock. So a
body above `LARGE_BYTES` is read in pieces first, between which the loop runs. That pass counts what makes decoding
slow and refuses what is above a bound. It makes two things of the body:

- its text in ASCII. Other characters become ``\\uXXXX``, which is the same JSON. Text in ASCII is copied and encoded
  without being read, so everything behind stays fast too: one emoji beside a photo would otherwise make a text of four
  bytes for each character.
- its *outline*: the same JSON, its long strings cut. The outline is small enough to be decoded at once, and has
  everything that a check of the request or `anywire.demand` looks at.

The bounds are far above what the largest models take. A smaller body is never looked at: it cannot take long.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import re
from json.encoder import encode_basestring_ascii
from typing import NamedTuple, Protocol

from anywire.errors import InvalidRequest, PayloadTooLarge

LARGE_BYTES = 256 * 1024
"""A body of more bytes is large."""
PIECE_BYTES = 32 * 1024
"""Bytes that are looked at before the event loop runs again."""
KEPT_BYTES = 256 * 1024
"""Of the beginning of a body, nothing is cut out: the identity of a prompt is read from it."""
LONG_BYTES = 8 * 1024
"""A string with more bytes is long. No field that has a greatest length may be so long."""
FILLER_BYTES = 600
"""What stands in the outline for a long string, or for the part of it that is cut: a hash, filled up to more characters
than any field may have that has a greatest length. So the outlines of two bodies are equal only if the bodies are."""
MAX_OUTLINE_BYTES = 8 * 1024 * 1024
"""Bytes of a large body that are in no long string."""
MAX_CONTAINERS = 30_000
"""Lists and objects of a large body."""
MAX_MEMBERS = 40_000
"""Members of all objects of a large body."""
MAX_VALUES = 500_000
"""Commas between values of a large body: tokens of a prompt that comes as numbers, for instance."""
MAX_ESCAPES = 2_000_000
"""Backslashes in a large body, those included that its characters outside of ASCII become: decoders are slow with
them."""

_ESCAPES = re.compile(
    rb'(?:[^\\]+|\\(?:["\\/bfnrt]|u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    rb"|(?![dD][89a-fA-F])[0-9a-fA-F]{4})))*"
)
"""Text whose escapes are whole."""
_LONGEST_ESCAPE = 12
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_CONTROL = bytes({*range(0x20)} - {1, 2})
# Stand for `\\` and `\"` while quotes are looked for. JSON has no such bytes.
_BACKSLASH, _QUOTE = b"\x01\x01", b"\x01\x02"


class LargeBody(NamedTuple):
    """``text`` is the JSON in ASCII. ``outline`` is the same JSON with its long strings cut."""

    text: str
    outline: str


async def read_large_body(body: bytes | bytearray | str, max_bytes: int) -> LargeBody:
    """Look through a large body piece by piece, and let the event loop run in between.

    Args:
        body: the JSON text of the request, in UTF-8 where it is bytes. It must not change meanwhile.
        max_bytes: the most bytes that the text may have in ASCII.

    It checks no more of the JSON than that its strings are strings of JSON.

    Raises `PayloadTooLarge` with the bound that is exceeded, and `InvalidRequest` for strings that are no JSON. Other
    faults of the JSON are in the outline too, for whoever decodes it.
    """
    reading = _Reading(max_bytes)
    for start in range(0, len(body), PIECE_BYTES):
        reading.read(body[start : start + PIECE_BYTES])
        await asyncio.sleep(0)
    reading.end()
    outline = b"".join(reading.outline).decode()
    await asyncio.sleep(0)
    return LargeBody("".join(reading.texts), outline)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Reading:
    """What is known of a body after the pieces so far."""

    def __init__(self, max_bytes: int) -> None:
        self.texts: list[str] = []
        self.outline: list[bytes] = []
        self._max_bytes = max_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._read = self._bytes = self._outlined = 0
        self._rest = b""
        """The beginning of an escape at the end of the last piece."""
        self._in_string = False
        self._cut_string: _Hash | None = None
        """What was left out of the string in which the last piece ends."""
        self._containers = self._members = self._values = self._escapes = 0

    def read(self, piece: bytes | bytearray | str) -> None:
        data = self._rest + self._ascii(piece)
        self._read += len(piece)
        if b"\\" in data:
            found = _ESCAPES.match(data)
            end = found.end() if found else 0
            if len(data) - end >= _LONGEST_ESCAPE:
                raise _no_escape(data[end:])
            data, self._rest = data[:end], data[end:]
        else:
            self._rest = b""
        if b"\x01" in data or b"\x02" in data:
            raise _control_character()
        self._bytes += len(data)
        if self._bytes > self._max_bytes:
            raise PayloadTooLarge(
                f"the body may have at most {self._max_bytes} bytes (max_body_bytes), characters outside of ASCII "
                "counted as the escapes that JSON has for them"
            )
        self.texts.append(data.decode())
        if b"\\" in data:
            self._escapes += data.count(b"\\")
            _check("backslashes or characters outside of ASCII", self._escapes, MAX_ESCAPES)
            data = data.replace(b"\\\\", _BACKSLASH).replace(b'\\"', _QUOTE)
        self._outline(data)

    def end(self) -> None:
        """The last piece was read."""
        self._decode(b"", final=True)
        if self._rest:
            raise _no_escape(self._rest)

    def _ascii(self, piece: bytes | bytearray | str) -> bytes:
        """The piece in ASCII, its last character left for the next one where it is not whole."""
        if piece.isascii() and not self._decoder.getstate()[0]:
            return piece.encode() if isinstance(piece, str) else bytes(piece)
        if isinstance(piece, str):
            try:
                piece.encode()
            except UnicodeEncodeError as error:
                raise InvalidRequest("the body is not valid JSON: it has unpaired surrogates") from error
            text = piece
        else:
            text = self._decode(bytes(piece))
        return _NOT_ASCII.sub(lambda run: encode_basestring_ascii(run[0])[1:-1], text).encode()

    def _decode(self, piece: bytes, *, final: bool = False) -> str:
        begun = len(self._decoder.getstate()[0])
        try:
            return self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            at = self._read - begun + error.start
            raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {at}") from error

    def _outline(self, data: bytes) -> None:
        """Count what is outside of strings, and add the piece to the outline, its long strings cut."""
        parts = data.split(b'"')
        first = 0 if self._in_string else 1
        inside, outside = parts[first::2], b"".join(parts[1 - first :: 2])
        text = b"".join(inside)
        if len(text.translate(None, _CONTROL)) != len(text):
            raise _control_character()
        self._containers += outside.count(b"[") + outside.count(b"{")
        self._members += outside.count(b":")
        self._values += outside.count(b",")
        if self._outlined >= KEPT_BYTES:
            data = self._cut(parts, first)
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string
        if b"\x01" in data:
            data = data.replace(_QUOTE, b'\\"').replace(_BACKSLASH, b"\\\\")
        self._outlined += len(data)
        self.outline.append(data)
        _check("lists and objects", self._containers, MAX_CONTAINERS)
        _check("members of objects", self._members, MAX_MEMBERS)
        _check("commas between values", self._values, MAX_VALUES)
        _check(f"bytes outside of strings of more than {LONG_BYTES} bytes", self._outlined, MAX_OUTLINE_BYTES)

    def _cut(self, parts: list[bytes], first: int) -> bytes:
        """The piece between its quotes, long parts of strings cut: every other part is one, from the ``first`` on. What
        stands for a string is written at its end."""
        last = len(parts) - 1
        if self._cut_string is not None:
            self._cut_string.update(parts[0])
            parts[0] = b""
            if last:
                parts[0], self._cut_string = _filler(self._cut_string), None
        if len(max(parts, key=len)) > LONG_BYTES:
            for at in range(first, len(parts), 2):
                if len(parts[at]) > LONG_BYTES:
                    hashed = hashlib.blake2b(parts[at], digest_size=16)
                    if at < last:
                        parts[at] = _filler(hashed)
                    else:
                        parts[at], self._cut_string = b"", hashed
        return b'"'.join(parts)


def _filler(hashed: _Hash) -> bytes:
    return hashed.hexdigest().encode().ljust(FILLER_BYTES, b"x")


def _check(what: str, found: int, bound: int) -> None:
    if found > bound:
        raise PayloadTooLarge(f"a body of more than {LARGE_BYTES} bytes may have at most {bound} {what}")


def _no_escape(data: bytes) -> InvalidRequest:
    return InvalidRequest(f"the body is not valid JSON: {data[:_LONGEST_ESCAPE].decode()!r} is no escape")


def _control_character() -> InvalidRequest:
    return InvalidRequest("the body is not valid JSON: a string has a control character that is not escaped")

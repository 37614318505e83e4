"""An answer as it is kept, and how it is gathered from what its reader gets."""

from __future__ import annotations

import msgspec

from anywire.engine import Delta
from anywire.messages import Chunk

KEPT_ENDS = frozenset(("", "eos", "function_call", "length", "stop", "tool_calls"))
"""Ends of an answer that another run would have, too. One that a filter has ended, say, is not kept."""
FALLBACK_MEMBER = "anywire_fallback"
"""The member of an answer that no model gave; see `anywire_service_cache.retrieval`."""
MAX_DELTAS = 100_000
MAX_GATHERED_BYTES = 64 * 1024 * 1024
"""Bytes of all answers while they come."""
PIECE_BYTES = 64
"""Bytes that a piece of text takes beside its characters."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Delta, ...]).decode


def encoded(answer: tuple[Delta, ...]) -> bytes:
    return _encode(answer)


def decoded(data: bytes) -> tuple[Delta, ...] | None:
    """None for what is damaged."""
    try:
        return _decode(data) or None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


class Room:
    """What all answers that are gathered take together."""

    def __init__(self, most: int = MAX_GATHERED_BYTES) -> None:
        self.most, self.taken = most, 0


class Gathering:
    """One answer while it comes. ``limit`` is how many bytes it may have, ``room`` what it shares with the others.
    `close` it."""

    def __init__(self, limit: int, room: Room) -> None:
        self._limit, self._size, self._next = limit, 0, 0
        self._room, self._held = room, 0
        self._attempt = -1
        self._texts: list[str] = []
        self._deltas: list[Delta] = []
        self.unfit = False
        """Whether it cannot be kept: it is too long, something of it was missed, or two attempts have made it."""
        self.is_plain = True
        """Whether it is plain text."""

    def add(self, chunk: Chunk) -> tuple[Delta, ...] | None:
        """Take in a chunk; the whole answer with the final one. None before that, and for one that is unfit."""
        if self.unfit:
            return None
        if self._attempt < 0:
            self._attempt = chunk.attempt
        size = sum(map(_bytes, chunk.deltas)) + _bytes(chunk.extra) + _bytes(chunk.usage)
        self._size += size
        self._hold(size + PIECE_BYTES * len(chunk.deltas))
        is_too_much = self._size > self._limit or self._room.taken > self._room.most
        if chunk.attempt != self._attempt or chunk.seq != self._next or chunk.error or is_too_much:
            self._drop()
            return None
        self._next += len(chunk.deltas)
        self._texts += filter(None, chunk.deltas)
        if chunk.extra:
            self.is_plain = False
            text = self._texts.pop() if chunk.deltas and chunk.deltas[-1] else ""
            self._flush()
            self._deltas.append(Delta(text, chunk.extra))
        if not chunk.final:
            if len(self._deltas) > MAX_DELTAS:
                self._drop()
            return None
        return self._whole(chunk)

    def _whole(self, final: Chunk) -> tuple[Delta, ...] | None:
        self._flush()
        if final.finish_reason not in KEPT_ENDS or any(FALLBACK_MEMBER in each.extra for each in self._deltas):
            self._drop()
            return None
        last = self._deltas.pop() if self._deltas else Delta()
        return (*self._deltas, Delta(last.text, last.extra, final.finish_reason, final.usage))

    def _flush(self) -> None:
        if self._texts:
            self._deltas.append(Delta("".join(self._texts)))
            self._texts = []

    def close(self) -> None:
        """Give its room back; safe to call twice."""
        self._hold(-self._held)

    def _hold(self, more: int) -> None:
        self._held += more
        self._room.taken += more

    def _drop(self) -> None:
        self.unfit = True
        self._texts, self._deltas = [], []
        self.close()


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))

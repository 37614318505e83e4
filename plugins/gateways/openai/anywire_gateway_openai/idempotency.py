"""Requests with an ``Idempotency-Key``: one that is sent again runs once, and gets the answer of the first.

While the first one runs, the second follows it from its beginning; afterwards it gets the answer that is kept. An
answer that failed is not kept: the request then runs anew. A client with such a key that goes away does not end its
task, since it may come back for the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from multidict import istr

from anywire.background import key_reused
from anywire.errors import AnywireError, StreamCorrupted, another
from anywire.messages import Chunk
from anywire.task_stream import TaskStream

KEY = istr("idempotency-key")
"""The header."""
MAX_KEY_CHARS = 255
MAX_KEPT = 10_000
"""Answers that are kept, and requests with a key that run; of more the oldest are forgotten."""
MAX_KEPT_CHARS = 64 * 1024 * 1024
"""Characters of all answers that are kept."""
MAX_CHARS = 4 * 1024 * 1024
"""Characters of one answer; a longer one is not kept, and its first reader alone reads it to its end."""

log = logging.getLogger(__name__)


class Scope(NamedTuple):
    """``who`` is the id of a caller, or an address where nobody vouches for it."""

    who: str
    tenant: str
    key: str


class SharedAnswer:
    """A task that several requests read, each from its beginning."""

    def __init__(self, stream: TaskStream, digest: bytes, ended: Callable[[SharedAnswer], None]) -> None:
        self.stream, self.digest = stream, digest
        self.size = 0
        self.due = 0.0
        self.is_whole = self.is_too_long = False
        self.error: Exception | None = None
        self._told_end = ended
        self._chunks: list[Chunk] = []
        self._readers: list[Reader] = []
        self._reading: asyncio.Task[None] | None = None

    def reader(self) -> Reader:
        reader = Reader(self)
        self._readers.append(reader)
        return reader

    async def after(self, reader: Reader) -> list[Chunk]:
        """What the reader has not got, at least one chunk; an empty list after the final one."""
        while reader.position >= len(self._chunks):
            self._check_alone(reader)
            if self.error is not None:
                raise another(self.error)
            if self.is_whole:
                return []
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._read())
            # A client that goes away ends its own waiting alone.
            await asyncio.shield(self._reading)
        self._check_alone(reader)
        found = self._chunks[reader.position :]
        if self.is_too_long:
            self._chunks.clear()
            reader.position = 0
        else:
            reader.position += len(found)
        return found

    def left(self, reader: Reader) -> None:
        """A reader reads no more. The task of one that is to be kept goes on to its end without any."""
        self._readers.remove(reader)
        if self._readers or self.is_whole or self.error is not None:
            return
        if self.is_too_long:
            self.stream.cancel("the client went away, and the answer is too long to be kept")
        elif self._reading is None:
            self._reading = asyncio.ensure_future(self._read())

    def _check_alone(self, reader: Reader) -> None:
        if self.is_too_long and reader is not self._readers[0]:
            raise StreamCorrupted("the answer is too long for several requests to read it", phase="streaming")

    async def _read(self) -> None:
        """Until something has come; to the end when nobody reads."""
        while True:
            try:
                chunks = await self.stream.take()
                if not chunks:
                    raise StreamCorrupted("the stream ended without its final chunk", phase="streaming")
            except Exception as error:
                self.error = error.with_traceback(None)
                break
            self._chunks += chunks
            self.size += sum(sum(map(len, chunk.deltas)) + len(chunk.extra) + 200 for chunk in chunks)
            if chunks[-1].final:
                self.is_whole = True
                break
            if self.size > MAX_CHARS and not self.is_too_long:
                self.is_too_long = True
                self._told_end(self)
                if not self._readers:
                    self.stream.cancel("the client went away, and the answer is too long to be kept")
            if self._readers:
                self._reading = None
                return
        self._reading = None
        self._told_end(self)


class Reader:
    """One request's place in a `SharedAnswer`. Close it."""

    def __init__(self, shared: SharedAnswer) -> None:
        self._shared, self.position = shared, 0
        self._closed = False

    async def take(self) -> list[Chunk]:
        """As `TaskStream.take`."""
        return await self._shared.after(self)

    async def result(self) -> Chunk:
        """As `TaskStream.result`."""
        texts: list[str] = []
        while chunks := await self.take():
            for chunk in chunks:
                texts += chunk.deltas
            if chunks[-1].final:
                return msgspec.structs.replace(chunks[-1], seq=0, deltas=("".join(texts),) if texts else ())
        raise StreamCorrupted("the stream ended without its final chunk", phase="streaming")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._shared.left(self)


class KeptAnswers:
    """Keeps answers for ``seconds`` after their end."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._running: OrderedDict[Scope, SharedAnswer] = OrderedDict()
        self._kept: OrderedDict[Scope, SharedAnswer] = OrderedDict()
        self._size = 0

    def get(self, scope: Scope, digest: bytes) -> SharedAnswer | None:
        """The answer of an earlier request with that key, kept or under way. Raises `InvalidRequest` when that one
        asked for something else."""
        self._forget_old()
        found = self._running.get(scope) or self._kept.get(scope)
        if found is None:
            return None
        if not hmac.compare_digest(found.digest, digest):
            raise key_reused()
        return found

    def add(self, scope: Scope, digest: bytes, stream: TaskStream) -> SharedAnswer:
        """The answer of a new request."""
        shared = self._running[scope] = SharedAnswer(stream, digest, lambda ended: self._ended(scope, ended))
        if len(self._running) > MAX_KEPT:
            self._running.popitem(last=False)
        return shared

    def close(self) -> None:
        """Cancel what runs for nobody but those who may come back."""
        for shared in list(self._running.values()):
            shared.stream.cancel("the gateway closes")

    def _ended(self, scope: Scope, shared: SharedAnswer) -> None:
        if self._running.get(scope) is not shared:
            return
        del self._running[scope]
        if shared.error is not None:
            if not isinstance(shared.error, AnywireError):
                log.error("a task that nobody reads failed", exc_info=shared.error)
            return
        if shared.is_too_long:
            return
        shared.due = self._now() + self._seconds
        self._kept[scope] = shared
        self._size += shared.size
        self._forget_old()

    def _forget_old(self) -> None:
        now = self._now()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.due > now and self._size <= MAX_KEPT_CHARS and len(self._kept) <= MAX_KEPT:
                return
            self._kept.popitem(last=False)
            self._size -= oldest.size


def digest_of(kind: str, body: bytes, always_stream: bool) -> bytes:
    """Tells requests apart that ask for something else."""
    return hashlib.sha256(f"{kind} {always_stream} ".encode() + body).digest()

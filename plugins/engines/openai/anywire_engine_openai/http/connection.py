"""One connection to a server: a request goes out, its answer is read, and so on."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple, Protocol, cast

import httptools

from anywire.known_head import MOST_BYTES, KnownHead
from anywire_engine_openai.http.faults import Closed, Fault, NoHttp, Silence

MAX_FIELDS = 128
MAX_FIELD_BYTES = 8190
"""Of one name or value; what Apache takes."""
MAX_BARREN_BYTES = 64 * 1024
"""Bytes in a row without any of a body: of heads, of what stands beside chunks, of trailers."""
MAX_UNREAD_BYTES = 128 * 1024
"""Bytes of a body that may wait for their reader before nothing more is taken from the server."""
KEEP_ALIVE = 3.0
"""Seconds an idle connection is kept: less than any common server does, which closes after 5."""
TAIL = 1.0
"""Seconds a server may take to end an answer that was left."""

_WANTED = {
    name.encode(): name for name in ("content-type", "content-encoding", "location", "retry-after", "retry-after-ms")
}
OK = 200
_EMPTY_LINE = b"\r\n\r\n"
_NO_BODY = (204, 304)
_INTERIM_WITHOUT_BODY = (100, 102, 103)
"""Those of which the parser knows it."""


class Head(NamedTuple):
    """Of an answer. ``fields`` are those that the engine reads, by their names in lower case; the first of each."""

    status: int
    fields: dict[str, str]
    cookies: list[str]


class Owner(Protocol):
    """Whose connection it is. ``known`` is the head of an answer that came whole."""

    @property
    def known(self) -> KnownHead[Head]: ...

    def keep(self, connection: Connection) -> None:
        """It may be given another request."""
        ...

    def lost(self, connection: Connection) -> None:
        """It has ended. Called once, also for one that is kept."""
        ...


class Connection(asyncio.Protocol):
    """Between `ask` and `leave` it belongs to one request. What has arrived is given before the fault that came
    after it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # what the parser calls; once for each token
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.is_for_one = False
        """Whether it is to be ended after its first answer."""
        self._is_kept = False
        self._fault: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._limit = 0.0
        # One timer for all that may take too long. It is not moved where it comes early: it looks, and goes on.
        self._until = self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._asked = self._left = False
        self._begin()

    def _begin(self) -> None:
        self._head: Head | None = None
        self._fields: dict[str, str] = {}
        self._cookies: list[str] = []
        self._transfer_coding = b""
        self._has_length = self._is_interim = self._ends_with_connection = False
        self._keeps = self._complete = self._heard = self._is_news = self._is_read = False
        self._count = self._barren = self._unread = 0
        self._is_paused = False
        self._pieces.clear()

    @property
    def is_usable(self) -> bool:
        """Whether another request may go out on it, as far as is known here."""
        return self._fault is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, limit: float) -> Head:
        """Send a request; return the head of its answer. Raises `Fault`, `Silence` after ``limit`` seconds (0: no
        limit). To be closed when it raises."""
        assert self._transport is not None
        self._begin()
        self._asked, self._left = True, False
        self._until = math.inf
        self._transport.write(request)
        while self._head is None:
            await self._wait(limit)
        return self._head

    async def read(self, limit: float) -> bytes:
        """What has arrived of the body, or what arrives next; empty once the body has ended. Raises `Fault` for one
        that does not end, `Silence` when nothing comes for ``limit`` seconds (0: no limit)."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._wait(limit)
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._is_read = True
        self._unread = 0
        if self._is_paused:
            self._go_on()
        return data

    def leave(self) -> None:
        """Read no more of the answer. The connection is kept if the answer ends soon and the server keeps it too."""
        if self._complete or self._fault is not None:
            self._finish()
            return
        self._left = True
        self._pieces.clear()
        if self._is_paused:
            self._go_on()
        self._watch(self._loop.time() + TAIL)

    def close(self) -> None:
        """End it at once, by which a server learns that nobody reads any more. Safe to call twice."""
        self._end(Closed("it was closed here"))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        if self._fault is not None:
            return
        if not self._asked:
            self._end(NoHttp("the server said something unasked"))
            return
        is_first, self._heard = not self._heard, True
        if is_first and self._is_known(data):
            self._tell()
            return
        self._is_news = False
        had = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._keeps = False
        except httptools.HttpParserError as error:
            self._end(NoHttp(f"its answer is no HTTP: {error}"))
            return
        if is_first and self._complete:
            self._remember(data)
        if len(self._pieces) > had:
            self._note_body(len(data))
        if self._is_news:
            self._barren = 0
            self._tell()
            return
        self._barren += len(data)
        if self._barren > MAX_BARREN_BYTES:
            self._end(NoHttp(f"its answer has more than {MAX_BARREN_BYTES} bytes beside its body"))

    def eof_received(self) -> None:
        if self._complete:
            return
        if self._ends_with_connection:
            self._complete = True
            self._tell()
        else:
            self._end(self._ended("it was ended there"))  # not only once all of the request went out

    def connection_lost(self, exc: Exception | None) -> None:
        if self._fault is None:
            self._fault = self._ended(str(exc) if exc is not None else "it was ended there")
        self._stop_watching()
        del self._parser  # each has the other
        self._owner.lost(self)
        self._tell()

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise NoHttp("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > MAX_FIELDS or len(name) > MAX_FIELD_BYTES or len(value) > MAX_FIELD_BYTES:
            raise NoHttp("a head that is too large")
        if self._head is not None:
            return  # a trailer
        name = name.lower().rstrip()  # the parser takes a space before the colon
        if name in _WANTED:
            self._fields.setdefault(_WANTED[name], value.decode("latin-1"))
        elif name == b"transfer-encoding":
            self._transfer_coding = value
        elif name == b"content-length":
            self._has_length = True
        elif name == b"set-cookie":
            self._cookies.append(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._count = 0
        if 100 <= status < 200 and status != 101:
            if (self._transfer_coding or self._has_length) and status not in _INTERIM_WITHOUT_BODY:
                raise NoHttp("an interim answer with a body")
            self._is_interim = True
            self._fields, self._cookies = {}, []
            self._transfer_coding, self._has_length = b"", False
            return
        self._keeps = self._parser.should_keep_alive()
        if status not in _NO_BODY and status >= 200:
            if self._transfer_coding:
                self._ends_with_connection = not self._transfer_coding.lower().rstrip().endswith(b"chunked")
            else:
                self._ends_with_connection = not self._has_length
        self._head = Head(status, self._fields, self._cookies)
        self._is_news = True

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        else:
            self._complete = self._is_news = True

    # Inside

    def _is_known(self, data: bytes) -> bool:
        """Take ``data`` if it is a whole answer whose head need not be read: the parser sees nothing of it."""
        end = data.find(_EMPTY_LINE, 0, MOST_BYTES) + len(_EMPTY_LINE)
        known = self._owner.known
        if known.length_of(data[:end]) != len(data) - end:
            return False
        self._head, self._keeps, self._complete = known.read, True, True
        if len(data) > end:
            self._pieces.append(data[end:])
        return True

    def _remember(self, data: bytes) -> None:
        """Remember the head of an answer that has come whole, if the next one with it may be taken as it is."""
        head, end = self._head, data.find(_EMPTY_LINE) + len(_EMPTY_LINE)
        if head is None or head.status != OK or head.cookies or not self._keeps:
            return
        if self._has_length and not self._transfer_coding:
            self._owner.known.remember(data[:end], len(data) - end, head)

    def _note_body(self, size: int) -> None:
        """Some of the body has come, with ``size`` bytes at most."""
        self._is_news = True
        if self._left:
            self._pieces.clear()
            return
        self._unread += size
        if self._unread > MAX_UNREAD_BYTES and not self._is_paused and self.is_usable and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _tell(self) -> None:
        """Wake who waits. An answer that was left has nobody who does, and is finished here."""
        if self._waiter is not None:
            self._until = math.inf
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif self._left and self._complete:
            self._finish()

    async def _wait(self, limit: float) -> None:
        if self._fault is not None:
            # Once raised it holds all that it ran through, the request and this connection too.
            fault, self._fault = self._fault, Closed("it has ended")
            try:
                raise fault
            finally:
                del fault
        if limit:
            self._limit = limit
            self._watch(self._loop.time() + limit)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._until = math.inf

    def _go_on(self) -> None:
        self._is_paused = False
        if self.is_usable and self._transport is not None:
            self._transport.resume_reading()

    def _finish(self) -> None:
        self._left = False
        # An answer may come before all of its request went out, and the next request would wait behind the rest.
        if self.is_for_one or not self._keeps or not self.is_usable or self._has_unsent():
            self.close()
            return
        if self._is_paused:
            self._go_on()
        self._asked = False
        self._is_kept = True
        self._watch(self._loop.time() + KEEP_ALIVE)
        self._owner.keep(self)

    def _ended(self, why: str) -> Closed:
        closed = Closed(why)
        closed.was_idle = self._is_kept and not self._heard
        return closed

    def _has_unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _end(self, fault: Fault) -> None:
        if self._fault is None:
            self._fault = fault
        self._stop_watching()
        if self._transport is not None:
            self._transport.abort()
        self._tell()

    def _watch(self, until: float) -> None:
        self._until = until
        if until < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = until
            self._timer = self._loop.call_at(until, self._look)

    def _stop_watching(self) -> None:
        self._until = self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer, self._due = None, math.inf
        if self._until == math.inf:
            return
        if self._loop.time() < self._until:
            self._watch(self._until)
        else:
            self._end(Silence(self._limit, begun=self._is_read))

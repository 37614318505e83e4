"""A streamed answer on its way to its client, kept alive while its engine has nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Protocol, TypeVar

from aiohttp import web

from anywire.errors import AnywireError
from anywire.task_stream import TaskStream
from anywire_gateway_openai.errors import as_anywire, error_code
from anywire_gateway_openai.headers import answer_headers
from anywire_gateway_openai.notes import ERROR, FIRST
from anywire_gateway_openai.wire import EVENT_STREAM, EventStreamWriter, WrittenResponse

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which event streams may hold anywhere; proxies and clients see that somebody is there."""

Step = TypeVar("Step")
Step_contra = TypeVar("Step_contra", contravariant=True)


class StepEncoder(Protocol[Step_contra]):
    """Makes of what is read of a stream what is written; ``ended`` once that is the last."""

    @property
    def ended(self) -> bool: ...

    def encode(self, step: Step_contra, /) -> bytes: ...


class StreamedAnswer:
    """The events of ``stream``, or lines of another ``content_type``, as they are written. The head goes out with the
    first of them, or after ``interval`` seconds of silence with a comment, as whenever nothing was written for so long.
    0: never. ``ignored`` are members of the request without effect, ``keep_alive`` is what is written in silence. Close
    it.

    A head that was sent before the first event does not tell the agent."""

    def __init__(
        self,
        request: web.BaseRequest,
        stream: TaskStream,
        write_timeout: float,
        interval: float,
        ignored: tuple[str, ...] = (),
        keep_alive: bytes = KEEP_ALIVE,
        content_type: str = EVENT_STREAM,
    ) -> None:
        self._request, self._stream, self._ignored = request, stream, ignored
        self._keep_alive, self._content_type = keep_alive, content_type
        self._write_timeout, self._interval = write_timeout, interval
        self._writer: EventStreamWriter | None = None
        self._loop = asyncio.get_running_loop()
        self._written = self._loop.time()
        self._timer = self._loop.call_later(interval, self._look) if interval else None

    @property
    def begun(self) -> bool:
        """Whether the head is on its way: an error has no status of its own any more."""
        return self._writer is not None

    async def write(self, events: bytes, *, last: bool = False) -> None:
        """As `EventStreamWriter.write`."""
        self._written = self._loop.time()
        await (self._writer or self._begin()).write(events, last=last)

    async def write_all(
        self,
        read: Callable[[], Awaitable[Step]],
        encoder: StepEncoder[Step],
        *,
        first: Callable[[], None],
        failed: Callable[[AnywireError], bytes],
        cancel: Callable[[str], None],
        passing: Callable[[Callable[[Step], bool]], Awaitable[Step]] | None = None,
    ) -> web.StreamResponse:
        """Write what ``read`` gives until the encoder has ended, and close it. ``first`` is called once something was
        read. An error before anything is written is raised, and gets a status of its own; after that ``cancel`` is
        called with its message, and the answer ends with what ``failed`` makes of it. With ``passing``
        (`TaskStream.take_passing`) what comes after the first is written in the moment in which it comes, while the
        client takes what is written."""
        request = self._request

        def pass_on(step: Step) -> bool:
            writer = self._writer
            if writer is None or not writer.has_room:
                return False
            writer.write_at_once(encoder.encode(step))
            self._written = self._loop.time()
            return True

        try:
            data = encoder.encode(await read())
            request[FIRST] = perf_counter()
            first()
            while not encoder.ended:
                await self.write(data)
                data = encoder.encode(await (read() if passing is None else passing(pass_on)))
        except ConnectionError:
            raise
        except Exception as error:
            if not self.begun:
                raise
            fault = as_anywire(error, self._stream.task_id)
            cancel(fault.message)
            request[ERROR] = error_code(fault)
            data = failed(fault)
            del fault  # it refers to this frame
        finally:
            self.close()
        await self.write(data, last=True)
        return self.response()

    def response(self) -> web.StreamResponse:
        """What the handler returns, once the last event is written."""
        return WrittenResponse((self._writer or self._begin()).keep_alive)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> EventStreamWriter:
        headers = answer_headers(self._stream, self._ignored)
        self._writer = EventStreamWriter(self._request, headers, self._write_timeout, self._content_type)
        return self._writer

    def _look(self) -> None:
        now = self._loop.time()
        due = self._written + self._interval - now
        if due <= 0:
            try:
                (self._writer or self._begin()).write_if_idle(self._keep_alive)
            except ConnectionError:
                self._timer = None  # the handler is cancelled for it
                return
            self._written, due = now, self._interval
        self._timer = self._loop.call_later(due, self._look)

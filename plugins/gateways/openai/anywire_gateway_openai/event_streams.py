"""``GET events``: everything that happens, as server-sent events that can be resumed and filtered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.errors import InvalidRequest, Unauthenticated
from anywire.event_bus import EventReader, Missed, Reset
from anywire.events import AnyEvent, Event, is_shown, read_types
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.errors import HttpError, error_json
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, Query, described
from anywire_gateway_openai.query_numbers import bounded_number
from anywire_gateway_openai.sse import sse_event
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse

MAX_STREAMS = 256
"""Event streams that may be open at once."""
MAX_OF_ONE = 32
"""Of these, the ones that one key, or without keys one address, may have open: every event is written to each of
them."""
MAX_ID_CHARS = 64
MAX_GATHER_MS = 1000
BATCH = 256
"""Events that are written at once."""
WAITING = 4096
"""Events that may wait for a slow client; further ones are left out and counted."""
COMMENT = b":\n\n"

_encode = msgspec.json.Encoder().encode
_FORM = Form(
    events=(AnyEvent, Missed, answer_types.NoMembers),
    query={
        "types": Query("Types of events, separated by commas; `agent.*` stands for all that begin so."),
        "after": Query("The id of the event after which to go on.", {"type": "string", "maxLength": MAX_ID_CHARS}),
        "gather": Query(
            "Milliseconds in which what happens after an event is written with it.",
            {"type": "integer", "minimum": 0, "maximum": MAX_GATHER_MS},
        ),
    },
    errors=(429,),
)


class EventHandler:
    """``heartbeat``: seconds without an event after which a comment is sent."""

    def __init__(self, context: Context, callers: Callers, *, write_timeout: float, heartbeat: float) -> None:
        self._context, self._callers = context, callers
        self._write_timeout, self._heartbeat = write_timeout, heartbeat
        self._readers: dict[EventReader, str] = {}
        """Each with who reads it: the id of a caller, or an address."""

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    @described(_FORM)
    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """What happens, as server-sent events; ``?types=task.ended,agent.*`` chooses, ``?after=ID`` resumes. With
        ``?gather=`` what happens within that many milliseconds after another event is written with what follows."""
        caller = request[CALLER]
        after = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        if len(after) > MAX_ID_CHARS:
            raise InvalidRequest(f"after is the id of an event, of at most {MAX_ID_CHARS} characters", param="after")
        types = read_types(request.query.get("types", ""))
        gather = bounded_number(request.query.get("gather", ""), "gather", most=MAX_GATHER_MS)
        writer = EventStreamWriter(request, (), self._write_timeout)
        if not writer.wants_events:
            return writer.end_head()
        if len(self._readers) >= MAX_STREAMS:
            raise HttpError(429, "too_many_streams", f"{MAX_STREAMS} event streams are open already")
        who = caller.id or self._callers.client(request).address
        if sum(each == who for each in self._readers.values()) >= MAX_OF_ONE:
            raise HttpError(429, "too_many_streams", f"{who} has {MAX_OF_ONE} event streams open already")
        reader = self._context.events.reader(
            *types, after=after, wants=lambda event: is_shown(event, caller), size=WAITING
        )
        self._readers[reader] = who
        last = b""
        try:
            async with self._callers.revocations.while_valid(caller):
                await self._write_all(reader, writer, gather / 1000)
        except Unauthenticated as error:
            last = sse_event(error_json(error), "error")
        finally:
            reader.close()
            del self._readers[reader]
        await writer.write(last, last=True)
        return WrittenResponse(writer.keep_alive)

    async def _write_all(self, reader: EventReader, writer: EventStreamWriter, gather: float) -> None:
        """Until the reader is closed. ``gather`` is in seconds."""
        await writer.write(COMMENT)
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    events = await reader.take()
            except TimeoutError:
                await writer.write(COMMENT)
                continue
            if not events:
                return
            for begin in range(0, len(events), BATCH):
                await writer.write(encoded(events[begin : begin + BATCH]))
            if gather:  # each write costs more than the events in it
                await asyncio.sleep(gather)

    def finish(self) -> None:
        """End every stream once its client has what waits for it."""
        for reader in self._readers:
            reader.close()


def encoded(events: Iterable[Event | Missed | Reset]) -> bytes:
    """As server-sent events: ``missed`` and ``reset`` have no id, so that a client resumes after the one before."""
    out = []
    for event in events:
        if isinstance(event, Missed):
            out.append(sse_event(_encode(event), "missed"))
        elif isinstance(event, Reset):
            out.append(sse_event(b"{}", "reset"))
        else:
            out.append(sse_event(_encode(event), str(type(event).__struct_config__.tag), event.id))
    return b"".join(out)

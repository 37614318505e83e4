"""``GET /v1/events``: what changes about the models, as server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from anywire.boundary import Boundary
from anywire.event_bus import EventBus, EventReader, Missed, Reset
from anywire.events import Event, PluginEvent
from anywire_engine_models.host.status import Listener, ModelChanged
from anywire_engine_models.local_api.api_errors import HttpError
from anywire_engine_models.local_api.request_body import position
from anywire_engine_models.local_api.writing import COMMENT, HEARTBEAT, StreamedAnswer, event, json_of
from anywire_engine_models.status_json import whole_status

MAX_STREAMS = 64
"""Event streams that may be open at once."""
WAITING = 1024
"""Events that may wait for a slow client; further ones are left out and counted."""
CHANGED = "model.changed"


class ChangeEvents:
    """``listen`` is `ModelHost.listen`."""

    def __init__(self, listen: Callable[[Listener], Callable[[], None]]) -> None:
        self._bus = EventBus(Boundary())
        self._readers: set[EventReader] = set()
        self._stop_listening = listen(self._changed)

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        after = position(request)
        if len(self._readers) >= MAX_STREAMS:
            raise HttpError(429, "too_many_streams", f"{MAX_STREAMS} event streams are open already")
        answer = StreamedAnswer(request)
        reader = self._bus.reader(PluginEvent, after=after, size=WAITING)
        self._readers.add(reader)
        try:
            await answer.write(COMMENT)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        taken = await reader.take()
                except TimeoutError:
                    await answer.write(COMMENT)
                    continue
                if not taken:
                    return await answer.end()
                await answer.write(b"".join(map(_encoded, taken)))
        finally:
            reader.close()
            self._readers.discard(reader)

    def close(self) -> None:
        """Tell no more; every stream ends once its client has what waits for it."""
        self._stop_listening()
        for reader in tuple(self._readers):
            reader.close()

    def _changed(self, change: ModelChanged) -> None:
        if PluginEvent in self._bus.wanted:
            told = whole_status(msgspec.to_builtins(change.status)) | {"previous": change.previous}
            self._bus.publish_plugin("models", CHANGED, told)


def _encoded(each: Event | Missed | Reset) -> bytes:
    """``missed`` and ``reset`` have no id, so that a client resumes after the one before."""
    if isinstance(each, PluginEvent):
        return event(json_of(each.data), each.name, each.id)
    if isinstance(each, Missed):
        return event(json_of({"count": each.count}), "missed")
    return event(b"{}", "reset")

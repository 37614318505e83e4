"""The updates of a deliberation as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import msgspec

from anywire.route import ServerSentEvent
from anywire_service_deliberation.offered import Update

PING_S = 15.0
"""Seconds without an update after which an event ``ping`` is sent: proxies end connections that are silent."""
PING = ServerSentEvent("{}", "ping")


async def update_events(
    updates: AsyncGenerator[Update, None], ping: float = PING_S
) -> AsyncGenerator[ServerSentEvent, None]:
    """Each update as an event with its number as its id. It owns ``updates``, and closes them."""
    newest: asyncio.Future[Update] | None = None
    try:
        while True:
            newest = newest or asyncio.ensure_future(anext(updates))
            await asyncio.wait((newest,), timeout=ping)
            if not newest.done():
                yield PING
                continue
            update, newest = newest.result(), None
            yield ServerSentEvent(msgspec.json.encode(update).decode(), update.name, str(update.number))
    except StopAsyncIteration:
        pass
    finally:
        await end_reading(updates, newest)


async def end_reading(updates: AsyncGenerator[Update, None], newest: asyncio.Future[Any] | None) -> None:
    """Close updates of which the ``newest`` may still be waited for."""
    if newest is not None:
        newest.cancel()
        # It may have ended at the same moment: what it says then is for nobody.
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await newest
    await updates.aclose()

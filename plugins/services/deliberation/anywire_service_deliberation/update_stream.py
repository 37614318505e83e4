"""The updates of a deliberation for who waits at the end of a connection: also while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

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
    async with aclosing(with_silences(updates, ping)) as found:
        async for update in found:
            if update is None:
                yield PING
            else:
                yield ServerSentEvent(msgspec.json.encode(update).decode(), update.name, str(update.number))


async def with_silences(updates: AsyncGenerator[Update, None], silence: float) -> AsyncGenerator[Update | None, None]:
    """Each update, and None whenever there was none for ``silence`` seconds. It owns ``updates``, and closes them."""
    newest: asyncio.Future[Update] | None = None
    try:
        while True:
            newest = newest or asyncio.ensure_future(anext(updates))
            await asyncio.wait((newest,), timeout=silence)
            if not newest.done():
                yield None
                continue
            update, newest = newest.result(), None
            yield update
    except StopAsyncIteration:
        pass
    finally:
        if newest is not None:
            newest.cancel()
            # It may have ended at the same moment: what it says then is for nobody.
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await newest
        await updates.aclose()

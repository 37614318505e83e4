"""Sending where a message must arrive: as soon as there is room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anywire.clock import Clock
from anywire.errors import Congested

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds before a message is tried again where the transport says that there is room and there is none."""

Message = TypeVar("Message")


async def send_when_room(
    send: Callable[[Message], object],
    drain: Callable[[], Awaitable[object]],
    message: Message,
    clock: Clock,
    *,
    congested: bool = False,
) -> None:
    """Send a message, after ``drain`` where ``send`` raises `Congested`. Raises what else ``send`` raises.
    ``congested``: it has done so already."""
    fruitless = 0
    while True:
        if not congested:
            try:
                send(message)
            except Congested:
                pass
            else:
                return
        congested = False
        await drain()
        if fruitless:
            await clock.sleep(min(FIRST_PAUSE * 2**fruitless, LONGEST_PAUSE))
        fruitless += 1

"""Whose turn it is: deliberations that have something to do at once do it one after the other, a little each time."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Gives one turn in each round of the event loop, in the order in which they are asked for. Between two of them
    everything else has its turn: a hundred deliberations whose agents answer in the same moment hold up no request."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._gives = False

    async def turn(self) -> None:
        """Wait for one."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._gives:
            self._gives = True
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its run may have been closed
                turn.set_result(None)
                loop.call_soon(self._give, loop)
                return
        self._gives = False

"""What happens at an agent's MCP servers, for those who follow it: bounded for each of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

WAITING = 256
"""Events that wait for one reader; it is told how many more there were."""


class Events:
    """Told with `tell`, read with `follow`."""

    def __init__(self) -> None:
        self._readers: list[_Reader] = []

    def tell(self, name: str, data: dict[str, Any]) -> None:
        for reader in self._readers:
            reader.put({"event": name} | data)

    async def follow(self) -> AsyncGenerator[dict[str, Any], None]:
        """The events from now on, until it is closed."""
        reader = _Reader()
        self._readers.append(reader)
        try:
            while True:
                yield await reader.get()
        finally:
            self._readers.remove(reader)


class _Reader:
    def __init__(self) -> None:
        self._queue: deque[dict[str, Any]] = deque()
        self._missed = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: dict[str, Any]) -> None:
        if len(self._queue) >= WAITING:
            self._missed += 1
            return
        if self._missed:
            self._queue.append({"event": "missed", "count": self._missed})
            self._missed = 0
        self._queue.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> dict[str, Any]:
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._queue.popleft()

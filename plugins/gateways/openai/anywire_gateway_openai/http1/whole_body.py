"""A request's body that came with its head, as most do: nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable


class WholeBody:
    """Has of aiohttp's `StreamReader` what the gateway uses."""

    __slots__ = ("_data", "total_bytes")

    def __init__(self, data: bytes) -> None:
        self._data, self.total_bytes = data, len(data)

    def is_eof(self) -> bool:
        """All of it has arrived."""
        return True

    def at_eof(self) -> bool:
        """Whether it has been read."""
        return not self._data

    async def readany(self) -> bytes:
        """All of it, once."""
        data, self._data = self._data, b""
        return data

    async def read(self) -> bytes:
        """The same."""
        return await self.readany()

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once all of it has arrived, which is now."""
        callback()

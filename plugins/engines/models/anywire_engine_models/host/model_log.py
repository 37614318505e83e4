"""What the servers of one model wrote last, over all their lives, and who reads along.

Lines are numbered. A reader keeps no lines of its own, only the number of the last one it was given. One that is
slow, or comes back, is given what is kept after that, and is told how many lines are not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from anywire.errors import QueueFull
from anywire.event_bus import Missed, Reset

LINE_CHARS = 1000
LEAST_KEPT = 1000
"""Lines that are kept for those who read along, also where fewer are shown."""
MAX_READERS = 100


class LogLine(msgspec.Struct, frozen=True):
    """``id`` names the line: who has read it reads on ``after`` it."""

    text: str
    id: str


Logged = LogLine | Missed | Reset
"""What a reader is given: a line; how many are left out before the next one; or that this log has had no line of the id
to read on after."""


class ModelLog:
    """Shows the newest ``size`` lines."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._lines: deque[str] = deque(maxlen=max(self._size, LEAST_KEPT))
        self._life = secrets.token_hex(4)
        self._newest = 0
        """The number of the newest line."""
        self._readers: set[asyncio.Event] = set()
        """Each is set when there is news."""
        self._is_closed = False

    def add(self, text: str) -> None:
        self._lines.append(text)
        self._newest += 1
        self._wake()

    def close(self) -> None:
        """Nothing is added any more: those who follow come to their end."""
        self._is_closed = True
        self._wake()

    async def read(self, count: int, follow: bool, after: str = "") -> AsyncGenerator[Logged, None]:
        """The newest ``count`` lines, or those ``after`` the line of that id; with ``follow`` those to come too. Raises
        `QueueFull` when too many follow."""
        news = asyncio.Event()
        if follow:
            if len(self._readers) >= MAX_READERS:
                raise QueueFull(f"{MAX_READERS} others follow this log already")
            self._readers.add(news)
        try:
            end = None if follow else self._newest
            number = self._newest - min(max(count, 0), self._size, len(self._lines))
            if after:
                found = self._number(after)
                number = found if found is not None else self._gone
                if found is None:
                    yield Reset()
            while end is None or number < end:
                if number < self._gone:
                    missed, number = self._gone - number, self._gone
                    yield Missed(missed)
                elif number < self._newest:
                    number += 1
                    yield LogLine(self._lines[number - self._gone - 1], f"{self._life}-{number}")
                elif self._is_closed:
                    return
                else:
                    news.clear()
                    await news.wait()
        finally:
            self._readers.discard(news)

    @property
    def _gone(self) -> int:
        """The number of the newest line that is not kept any more."""
        return self._newest - len(self._lines)

    def _number(self, line_id: str) -> int | None:
        """Of the line of that id, None where this log has had none such."""
        life, _, number = line_id.rpartition("-")
        if life != self._life or not number.isascii() or not number.isdigit() or len(number) > 20:
            return None
        return int(number) if int(number) <= self._newest else None

    def _wake(self) -> None:
        for reader in self._readers:
            reader.set()

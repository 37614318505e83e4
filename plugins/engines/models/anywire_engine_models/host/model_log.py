"""What the servers of one model wrote last, over all their lives, and who reads along."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from anywire.errors import QueueFull

LINE_CHARS = 1000
MAX_BEHIND = 1000
"""Lines that a reader may be behind before it misses some."""
MAX_READERS = 100


class _Reader:
    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self.missed = 0
        self.woken = asyncio.Event()


class ModelLog:
    """Keeps the newest ``size`` lines."""

    def __init__(self, size: int) -> None:
        self._lines: deque[str] = deque(maxlen=max(1, size))
        self._readers: set[_Reader] = set()
        self._is_closed = False

    def add(self, text: str) -> None:
        self._lines.append(text)
        for reader in self._readers:
            if len(reader.lines) < MAX_BEHIND:
                reader.lines.append(text)
            else:
                reader.missed += 1
            reader.woken.set()

    def close(self) -> None:
        """Nothing is added any more: those who follow come to their end."""
        self._is_closed = True
        for reader in self._readers:
            reader.woken.set()

    async def read(self, count: int, follow: bool) -> AsyncGenerator[str, None]:
        """The newest ``count`` lines, and with ``follow`` those to come. Raises `QueueFull` when too many follow."""
        newest = list(self._lines)[-count:] if count > 0 else []
        if not follow:
            for line in newest:
                yield line
            return
        if len(self._readers) >= MAX_READERS:
            raise QueueFull(f"{MAX_READERS} others follow this log already")
        reader = _Reader()
        self._readers.add(reader)
        try:
            for line in newest:
                yield line
            while True:
                while reader.lines:
                    yield reader.lines.popleft()
                if reader.missed:
                    missed, reader.missed = reader.missed, 0
                    yield f"({missed} lines are left out here: this reader was too slow)"
                elif self._is_closed:
                    return
                else:
                    reader.woken.clear()
                    await reader.woken.wait()
        finally:
            self._readers.discard(reader)

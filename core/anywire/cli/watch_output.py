"""Lines to stdout that a slow reader cannot hold up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from queue import Full, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anywire.roles.stop import Stop

BACKLOG = 10_000
"""Lines that wait for a slow reader of the output; more are left out, and counted."""


class Output:
    """Lines to stdout from a thread, so that a reader who is slow or stopped stops neither the watching nor Ctrl-C."""

    def __init__(self, stop: Stop) -> None:
        self.broken = False
        self._stop, self._loop = stop, asyncio.get_running_loop()
        self._waiting: Queue[str | None] = Queue(BACKLOG)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="anywire-watch-output", daemon=True)
        self._thread.start()

    def print(self, line: str) -> None:
        self.write(f"{line}\n")

    def write(self, text: str) -> None:
        try:
            self._waiting.put_nowait(text)
        except Full:
            self._left_out += 1

    def close(self) -> None:
        """Give the reader a second for what is left."""
        with contextlib.suppress(Full):
            self._waiting.put_nowait(None)
        self._thread.join(1)
        if self._left_out:
            print(f"{self._left_out} lines were left out: the reader of the output was too slow", file=sys.stderr)

    def _write(self) -> None:
        descriptor = sys.stdout.fileno()
        while (text := self._waiting.get()) is not None:
            data = memoryview(text.encode(errors="replace"))
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                self.broken = True
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    self._loop.call_soon_threadsafe(self._stop.request, "the reader of the output is gone")
                return

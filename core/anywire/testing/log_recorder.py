"""What is logged while a test runs, as events that it can wait for."""

from __future__ import annotations

import asyncio
import logging

from anywire.testing.recorder import Recorder


class LogRecorder(Recorder):
    """Events ``("log", message)``, one for each record of level WARNING or more, whichever logger and thread it comes
    from. Use it as a context manager, on the event loop."""

    def __enter__(self) -> LogRecorder:
        self._handler = _Handler(self, asyncio.get_running_loop())
        logging.getLogger().addHandler(self._handler)
        return self

    def __exit__(self, *failure: object) -> None:
        logging.getLogger().removeHandler(self._handler)

    def messages(self, *words: str) -> list[str]:
        """The messages that have all of ``words`` in them."""
        return [message for _, message in self.events if all(word in message for word in words)]

    async def message(self, *words: str) -> str:
        """Wait for a message that has all of ``words`` in it."""
        found: list[str] = await self.until(lambda: self.messages(*words), f"a warning with {words} is logged")
        return found[0]


class _Handler(logging.Handler):
    def __init__(self, recorder: LogRecorder, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self._recorder, self._loop = recorder, loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._recorder.add, "log", record.getMessage())

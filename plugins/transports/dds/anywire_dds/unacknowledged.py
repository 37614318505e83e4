"""Which links are stuck: their peer is alive and yet does not acknowledge what it was sent.

A path that carries small datagrams and drops large ones, or IP fragments, does that. DDS sends again for ever then, and
everything behind the message waits with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from anywire_dds.endpoints import on_thread
from anywire_dds.writer import Writer

SLOWEST = 128 * 1024
"""Bytes per second with which a large message may travel without being taken for stuck."""

SECOND_LOOK = 1.0
"""Seconds that acknowledgements get at the end: after a pause of this process they wait in its sockets."""

_Link = TypeVar("_Link")


class Unacknowledged(Generic[_Link]):
    """Watches the links that ``writers`` gives, each with one of its writers and the bytes on their way there.

    A link one of whose writers has not been acknowledged for ``seconds``, and the time its bytes may take, is told to
    ``stuck(link)``. Costs a look at each writer in half of that time, and a thread for each writer that has something
    on its way just then.
    """

    def __init__(
        self,
        seconds: float,
        writers: Callable[[], Iterable[tuple[_Link, Writer, int]]],
        stuck: Callable[[_Link], None],
    ) -> None:
        self._seconds, self._writers, self._stuck = seconds, writers, stuck
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._watched: dict[Writer, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Look from now on, until `close`."""
        self._timer = self._loop.call_later(self._seconds / 2, self._look)

    def close(self) -> None:
        """Call nothing any more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._watched.values():
            task.cancel()

    def _look(self) -> None:
        for link, writer, size in self._writers():
            if writer not in self._watched and not writer.wait_acknowledged(0.0):
                watching = self._watch(link, writer, self._seconds + size / SLOWEST)
                self._watched[writer] = asyncio.ensure_future(watching)
        self.start()

    async def _watch(self, link: _Link, writer: Writer, seconds: float) -> None:
        try:
            acknowledged = await on_thread(
                lambda: writer.wait_acknowledged(seconds) or writer.wait_acknowledged(SECOND_LOOK)
            )
        finally:
            del self._watched[writer]
        if not acknowledged:
            self._stuck(link)

"""Final responses that may not have been read, written again.

A client waits for the final response of its request. When it is away from its reader for longer than
`anywire_dds.llama_flow.Flow` waits, the responses to others push that response out, and the client would wait until
its own time is over. A response can be lost only when `HISTORY` later ones were written, and it counts as read as soon
as its client asks again. One that may be lost is written again, at growing intervals. A client that has read it knows
the second one by its request_id and passes over it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

import msgspec

from anywire_dds.llama_types import HISTORY

TIMES = 8
"""How often a final response is written again."""
FIRST_PAUSE = 0.1
"""Seconds until it is first written again; each further time takes twice as long."""
PACE = 0.05
"""Seconds between two such responses of all clients together."""
MAX_AGE = 120.0
"""Seconds after which no client waits any more."""
PER_CLIENT = 64
"""Final responses that are kept for a client which never has none under way, as programs with many threads do."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes that are kept for all clients together; further responses are written once."""


class Final(msgspec.Struct, eq=False):
    """A final response. ``number`` is how many samples had been written with it, ``settled`` that it is done with."""

    sample: bytes
    client: Hashable
    number: int = 0
    written_at: float = 0.0
    times: int = 0
    due: float = 0.0
    lost: bool = False
    settled: bool = False


class Finals:
    """``repeat(final)`` is called when a response should be written again, and answered with `wrote`."""

    def __init__(self, repeat: Callable[[Final], None]) -> None:
        self._repeat = repeat
        self._loop = asyncio.get_running_loop()
        self._held: deque[Final] = deque()
        """Those that every reader still holds, in the order in which they were written."""
        self._of: OrderedDict[Hashable, deque[Final]] = OrderedDict()
        """By client; the one whose response was last written again is the last."""
        self._bytes = 0
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def wrote(self, written: int, final: Final | None) -> None:
        """A sample was written, the ``written``-th: ``final``, or any other."""
        if final is not None and not final.settled:
            self._keep(written, final)
        held = self._held
        while held and written - held[0].number >= HISTORY:
            self._pushed_out(held.popleft())

    def settle(self, client: Hashable) -> None:
        """The client has read everything, or is gone."""
        for final in self._of.pop(client, ()):
            self._forget(final)

    def close(self) -> None:
        self._of.clear()
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _keep(self, written: int, final: Final) -> None:
        final.number = written
        if not final.written_at:
            if self._bytes + len(final.sample) > MAX_BYTES:
                return
            final.written_at = self._loop.time()
            self._bytes += len(final.sample)
            finals = self._of.setdefault(final.client, deque())
            finals.append(final)
            if len(finals) > PER_CLIENT:
                self._forget(finals.popleft())
        self._held.append(final)

    def _pushed_out(self, final: Final) -> None:
        if final.settled:
            return
        now = self._loop.time()
        if final.times == TIMES or now - final.written_at > MAX_AGE:
            self._drop(final)
            return
        final.due = now + FIRST_PAUSE * 2**final.times
        final.lost = True
        self._wake_at(final.due)

    def _look(self) -> None:
        """Repeat one response that is due, of the client that waits longest for one."""
        self._timer = None
        now = self._loop.time()
        for client, finals in self._of.items():
            for final in finals:
                if final.lost and final.due <= now:
                    final.lost = False
                    final.times += 1
                    self._of.move_to_end(client)
                    self._not_before = now + PACE
                    self._wake_for_next()
                    self._repeat(final)
                    return
        self._wake_for_next()

    def _wake_for_next(self) -> None:
        due = [final.due for finals in self._of.values() for final in finals if final.lost]
        if due:
            self._wake_at(min(due))

    def _wake_at(self, due: float) -> None:
        due = max(due, self._not_before)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _drop(self, final: Final) -> None:
        self._forget(final)
        finals = self._of[final.client]
        finals.remove(final)
        if not finals:
            del self._of[final.client]

    def _forget(self, final: Final) -> None:
        final.settled = True
        final.lost = False
        self._bytes -= len(final.sample)

"""How fast may be written where every reader keeps `HISTORY` samples for everybody together.

What DDS acknowledges has reached the peer's process; whether its application has taken it from the reader, nobody
tells. So a sample counts as unread for ``pause`` seconds after its acknowledgement, or until its reader proves
otherwise (`Flow.settle`, `Flow.settle_up_to`, `Flow.settle_all`). No more than `BOUND` samples are written from the
oldest unread one on: nothing unread is ever pushed out of a reader's history, as long as the application comes back
to its reader within ``pause``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from queue import SimpleQueue

import msgspec

from anywire_dds.llama_types import HISTORY
from anywire_dds.writer import Writer

log = logging.getLogger(__name__)

BOUND = HISTORY - 1


class _Unread(msgspec.Struct, eq=False):
    number: int
    of: Hashable
    there_at: float
    """When it was acknowledged; written, until then."""


class Flow:
    """Bounds what one writer is ahead of its readers.

    ``room`` is called when something can be written again. A reader that acknowledges nothing for ``ack_wait``
    seconds is no longer waited for, unless ``alone`` tells that nobody else is held up by it.
    """

    def __init__(
        self, writer: Writer, pause: float, ack_wait: float, room: Callable[[], None], alone: Callable[[], bool]
    ) -> None:
        self.writer = writer
        self._pause, self._ack_wait, self._room, self._alone = pause, ack_wait, room, alone
        self._loop = asyncio.get_running_loop()
        self._unread: deque[_Unread] = deque()
        self._written = self._acknowledged = 0
        self._lagging = self._closed = self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._questions: SimpleQueue[int | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def free(self) -> bool:
        """Whether a sample may be written now; if not, ``room`` will be called."""
        if self._refused:
            return False
        self._forget_read()
        ahead = self._written - self._unread[0].number if self._unread else 0
        if ahead > BOUND // 2 and self._acknowledged < self._written and not self._asked:
            self._ask()
        if ahead < BOUND:
            return True
        self._wake_later()
        return False

    @property
    def written(self) -> int:
        """How many samples were written."""
        return self._written

    def write(self, sample: bytes, of: Hashable) -> bool:
        """Write a sample for the reader ``of``; False when Cyclone has no room: ``room`` will be called. Raises
        `AnywireError`."""
        if not self.writer.write(sample):
            self._refused = True
            self._ask()
            return False
        self._unread.append(_Unread(self._written, of, self._loop.time()))
        self._written += 1
        return True

    def settle(self, of: Hashable) -> None:
        """The reader ``of`` has read everything written for it, or is gone."""
        self._keep(each for each in self._unread if each.of != of)

    def settle_up_to(self, of: Hashable) -> None:
        """The only reader has read what was written for ``of``, and so everything before that."""
        read = max((each.number for each in self._unread if each.of == of), default=-1)
        self._keep(each for each in self._unread if each.number > read)

    def settle_all(self) -> None:
        """Everything written so far was read."""
        self._keep(())

    def close(self) -> None:
        """No callback from now on, and the thread ends with the wait it is in."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._questions.put(None)

    def _keep(self, unread: Iterable[_Unread]) -> None:
        before = len(self._unread)
        self._unread = deque(unread)
        if len(self._unread) < before:
            self._room()

    def _forget_read(self) -> None:
        due = self._loop.time() - self._pause
        while self._unread and self._unread[0].there_at <= due:
            if self._unread[0].number >= self._acknowledged and not self._lagging:
                return
            self._unread.popleft()

    def _wake_later(self) -> None:
        """Unless an acknowledgement is what is missing: that one wakes by itself."""
        oldest = self._unread[0]
        if (oldest.number < self._acknowledged or self._lagging) and self._timer is None:
            self._timer = self._loop.call_at(oldest.there_at + self._pause, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._room()

    # Acknowledgements: a thread waits for them, one question at a time

    def _ask(self) -> None:
        self._asked = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="anywire-llama-acks", daemon=True)
            self._thread.start()
        self._questions.put(self._written)

    def _wait(self) -> None:
        while (upto := self._questions.get()) is not None:
            answered = self.writer.wait_acknowledged(self._ack_wait)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._heard, upto, answered)

    def _heard(self, upto: int, answered: bool) -> None:
        self._asked = self._refused = False
        if self._closed:
            return
        if answered:
            now = self._loop.time()
            for each in self._unread:
                if self._acknowledged <= each.number < upto:
                    each.there_at = now
            self._acknowledged = upto
            self._lagging = False
        elif not self._lagging and not self._alone():
            self._lagging = True
            log.warning("a reader acknowledged nothing for %g s: the others go on without it", self._ack_wait)
        if not answered or upto < self._written:
            self._ask()
        self._room()

"""When a client that found the queue full should come back: later the longer the queue, and not all at once."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from anywire.context import Context

LONGEST_S = 30
"""What OpenAI's clients still wait for; they take their own pace over 60 seconds."""
LOOK_S = 1.0
"""Seconds over which the pace of answers is measured, at least."""


class Pace:
    """Measures how many tasks end in a second, from one refusal to another."""

    def __init__(self, context: Context, now: Callable[[], float] = time.monotonic) -> None:
        self._context, self._now = context, now
        self._looked, self._ended = now(), 0
        self._per_second = 0.0

    def seconds(self) -> int:
        """After how many seconds to come back: drawn from 1 to twice the time that the queue now needs."""
        tasks = self._context.stats()["tasks"]
        ended, now = sum(tasks["ended"].values()), self._now()
        if now - self._looked >= LOOK_S:
            self._per_second = (ended - self._ended) / (now - self._looked)
            self._looked, self._ended = now, ended
        queued = tasks["queued"]
        needed = queued / self._per_second if self._per_second else queued
        return random.randint(1, max(1, min(math.ceil(2 * needed), LONGEST_S)))

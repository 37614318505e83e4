"""Stopping what an engine does: asked once, and again where it does not end."""

from __future__ import annotations

import asyncio
from typing import Protocol

from anywire.boundary import Boundary
from anywire.clock import Clock

ENGINE_PATIENCE = 5.0
"""Seconds between two times that an engine is asked to stop something, and at a shutdown until it is left alone."""


class Stoppable(Protocol):
    runner: asyncio.Task[None] | None
    cancelled: str
    ended: bool
    """Whether the engine has ended it."""

    @property
    def name(self) -> str:
        """Of the task or command."""
        ...

    def cancel(self, reason: str) -> None:
        """Ask the engine to stop. May be called again."""
        ...


class Stopper:
    """``call`` is the engine's method that is stopped."""

    def __init__(self, engine: str, call: str, clock: Clock, boundary: Boundary) -> None:
        self._engine, self._call, self._clock, self._boundary = engine, call, clock, boundary
        self.closed = False
        """Whether nothing is asked again."""

    def stop(self, run: Stoppable, reason: str) -> None:
        """Ask the engine to end, once: a second request would break into its cleaning up. One that has not ended after
        `ENGINE_PATIENCE` is asked again."""
        if not run.cancelled:
            run.cancel(reason)
            self._clock.call_later(ENGINE_PATIENCE, self._stop_again, run)

    def _stop_again(self, run: Stoppable) -> None:
        if not run.ended and not self.closed:
            self._boundary.failed(f"engine {self._engine}", self._call, "does not end after a cancel", run.name)
            run.cancel(run.cancelled)
            self._clock.call_later(ENGINE_PATIENCE, self._stop_again, run)

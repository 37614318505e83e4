"""When a sink is called: not too early, not too late, in order, and without harm when it raises."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec

log = logging.getLogger(__name__)

P = ParamSpec("P")

TURNS = 3
"""Turns of the event loop until what a coroutine returned has reached its caller, also through ``asyncio.wait_for`` or
``gather``."""


class Guard:
    """Delivers the callbacks of one end, one after the other, in the order of `call`.

    Before `open` they are kept, after `close` they are dropped. A callback that is made inside of another one
    follows it. One that raises is logged with its name; nothing else notices.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = deque()
        self._held = True
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def call(self, callback: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``callback``, at once if nothing is in front of it; never raises."""
        if self._closed:
            return
        if self._held:
            self._waiting.append((callback, args, kwargs))
            return
        self._held = True
        self._make(callback, args, kwargs)
        if self._waiting:
            self._deliver()
        else:
            self._held = False

    def open(self) -> None:
        """Let callbacks through once ``open_hub`` or ``open_agent`` has returned to its caller.

        Call it on the event loop as the last thing before returning; nothing may be awaited after it.
        """
        self._turn(TURNS)

    def close(self) -> None:
        """Make no callback any more: the first thing in ``close`` of an end. Idempotent."""
        self._closed = True
        self._waiting.clear()

    def _turn(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
        else:
            self._deliver()

    def _deliver(self) -> None:
        while self._waiting:
            self._make(*self._waiting.popleft())
        self._held = False

    def _make(self, callback: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:
            log.exception("%s raised", getattr(callback, "__qualname__", callback))
        except BaseException:
            self._held = False
            raise

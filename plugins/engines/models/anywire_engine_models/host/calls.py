"""Callers of a host who wait, and their answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from typing import Any

from anywire.errors import AnywireError
from anywire_engine_models.host.effects import Ticket

log = logging.getLogger(__name__)


class Call:
    """One caller. ``result`` is what it gets; ``told`` is called with what it waits for."""

    def __init__(self, ticket: Ticket, told: Callable[[str], None] | None) -> None:
        self.ticket, self._told = ticket, told
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, result: Any) -> None:
        """Nothing happens when it was answered already, or waits no more; so with `fail`."""
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, error: AnywireError) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def tell(self, detail: str) -> None:
        if self._told is None or self.result.done():
            return
        try:
            self._told(detail)
        except Exception:
            log.exception("a caller cannot be told what it waits for")


class Calls:
    def __init__(self) -> None:
        self._tickets = count(1)
        self._calls: dict[Ticket, Call] = {}

    def open(self, told: Callable[[str], None] | None = None) -> Call:
        call = Call(next(self._tickets), told)
        self._calls[call.ticket] = call
        return call

    def close(self, call: Call) -> None:
        """It waits no more; idempotent."""
        self._calls.pop(call.ticket, None)

    def answer(self, ticket: Ticket, result: Any) -> None:
        if ticket in self._calls:
            self._calls[ticket].answer(result)

    def fail(self, ticket: Ticket, error: AnywireError) -> None:
        if ticket in self._calls:
            self._calls[ticket].fail(error)

    def tell(self, ticket: Ticket, detail: str) -> None:
        if ticket in self._calls:
            self._calls[ticket].tell(detail)

    def fail_all(self, error: Callable[[], AnywireError]) -> None:
        for call in list(self._calls.values()):
            call.fail(error())

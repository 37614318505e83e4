"""Reading cards without the event loop waiting for a driver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

import msgspec

from anywire_engine_models.devices.cards import Card, CardSource, number_of

log = logging.getLogger(__name__)


class Cards(msgspec.Struct, frozen=True):
    """``fault`` says why cards are missing. ``late``: their driver has not answered in time."""

    cards: tuple[Card, ...] = ()
    fault: str = ""
    late: bool = False


class CardReader:
    """Reads all ``sources``, one call at a time, each on a thread that nothing waits for at the end: a driver that
    hangs holds one thread, and neither the loop nor the end of the process. Use it on one event loop."""

    def __init__(self, sources: Sequence[CardSource], timeout: float) -> None:
        self._sources, self._timeout = sources, timeout
        self._call: asyncio.Future[Cards] | None = None

    async def read(self) -> Cards:
        """The cards now, by a reading that begins now or is under way. After ``timeout`` seconds none, with that as
        ``fault``. Raises nothing but cancellation."""
        return await self._answer(self._read)

    async def close(self) -> None:
        """Give the drivers up, unless one hangs."""
        if self._call is not None:
            await self.read()
        if self._call is None:
            await self._answer(self._close)

    async def _answer(self, work: Callable[[], Cards]) -> Cards:
        if self._call is None:
            self._call = asyncio.get_running_loop().create_future()
            self._call.add_done_callback(self._done)
            threading.Thread(target=_run, args=(self._call, work), name="graphics cards", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(self._call), self._timeout)
        except TimeoutError:
            fault = f"the driver of the graphics cards has not answered within {self._timeout:g} s"
            return Cards(fault=fault, late=True)

    def _done(self, _: asyncio.Future[Cards]) -> None:
        self._call = None

    def _read(self) -> Cards:
        found: list[Card] = []
        faults = []
        for source in self._sources:
            cards, fault = source.read(max((number_of(card.device) + 1 for card in found), default=0))
            found += cards
            faults += [fault] if fault else []
        return Cards(tuple(found), "; ".join(faults))

    def _close(self) -> Cards:
        for source in self._sources:
            source.close()
        return Cards()


def _run(answer: asyncio.Future[Cards], work: Callable[[], Cards]) -> None:
    try:
        cards = work()
    except Exception as error:
        log.exception("reading graphics cards has failed")
        cards = Cards(fault=f"reading graphics cards has failed: {error}")
    with contextlib.suppress(RuntimeError):  # the loop has ended
        answer.get_loop().call_soon_threadsafe(_set, answer, cards)


def _set(answer: asyncio.Future[Cards], cards: Cards) -> None:
    if not answer.done():
        answer.set_result(cards)

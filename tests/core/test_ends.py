"""Opening and closing the ends of several transports: the failure of one is its own."""

import asyncio
from typing import Any

import pytest

from anywire import errors
from anywire.pipeline.fleet.ends import Ends
from anywire.testing.clock import SimulatedClock
from anywire.testing.puppet import PuppetTransport


class _End:
    def __init__(self, name: str, closed: list[str], raises: bool = False) -> None:
        self._name, self._closed, self._raises = name, closed, raises

    async def close(self) -> None:
        self._closed.append(self._name)
        if self._raises:
            raise RuntimeError(self._name)


async def _settle(clock: SimulatedClock, seconds: float) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_opening_is_tried_again_whatever_it_raised() -> None:
    clock = SimulatedClock()
    tried: list[int] = []
    raised: list[Any] = [errors.TransportUnavailable("not yet"), RuntimeError("a bug"), OSError("and another")]

    async def open_one(number: int, transport: Any) -> Any:
        if number == 0:
            return _End("first", [])
        tried.append(number)
        if raised:
            raise raised.pop(0)
        return _End("second", [])

    opened: list[Any] = []
    ends: Any = Ends([PuppetTransport("first"), PuppetTransport("second")], open_one, opened.append, clock)
    await ends.open()
    for pause in (0.6, 1.1, 2.1):
        await _settle(clock, pause)
    assert len(tried) == 4
    assert len(opened) == 1
    assert ends.failures == 3
    await ends.close()


async def test_a_transport_alone_that_fails_unexpectedly_is_named() -> None:
    async def open_one(number: int, transport: Any) -> Any:
        raise RuntimeError("a bug")

    ends: Any = Ends([PuppetTransport("only")], open_one, lambda end: None, SimulatedClock())
    with pytest.raises(errors.TransportUnavailable, match="only failed to open: a bug"):
        await ends.open()


async def test_a_close_that_fails_skips_no_other() -> None:
    closed: list[str] = []

    async def open_one(number: int, transport: Any) -> Any:
        return _End(transport.name, closed, raises=number == 0)

    ends: Any = Ends([PuppetTransport("a"), PuppetTransport("b")], open_one, lambda end: None, SimulatedClock())
    await ends.open()
    await ends.close()
    await ends.close()
    assert closed == ["a", "b"]

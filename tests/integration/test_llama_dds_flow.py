"""What bounds the writing to readers that keep 8 samples for everybody: the law, against a writer that is a double."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire_dds.llama_flow import BOUND, Flow


class Acknowledging:
    """A writer whose acknowledgements, or failures to come, are the test's: ``answers`` is asked for each."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.written: list[bytes] = []
        self.acknowledged = 0

    def write(self, sample: bytes) -> bool:
        self.written.append(sample)
        return True

    def wait_acknowledged(self, seconds: float) -> bool:
        written = len(self.written)
        answer = self.answers.get()
        if answer:
            self.acknowledged = written
        return answer


class Bounded:
    def __init__(self, pause: float, alone: bool) -> None:
        self.writer = Acknowledging()
        self.room = asyncio.Event()
        writer: Any = self.writer
        self.flow = Flow(writer, pause, 1.0, self.room.set, lambda: alone)

    def fill(self, of: str = "x") -> int:
        """Write what may be written, and a little more than that; how much it was."""
        count = 0
        while self.flow.free and count < 3 * BOUND:
            self.flow.write(b"", of)
            count += 1
        return count

    async def heard(self, answer: bool) -> None:
        self.room.clear()
        self.writer.answers.put(answer)
        await asyncio.wait_for(self.room.wait(), PATIENCE)


@pytest.fixture
async def bounded() -> AsyncIterator[Any]:
    made: list[Bounded] = []

    def make(pause: float = 0.0, alone: bool = True) -> Bounded:
        made.append(Bounded(pause, alone))
        return made[-1]

    yield make
    for one in made:
        one.flow.close()
        one.writer.answers.put(True)


async def test_no_more_than_the_bound_is_written_until_it_is_acknowledged(bounded: Any) -> None:
    one = bounded()
    assert one.fill() == BOUND
    for _ in range(20):
        await one.heard(True)
        assert one.fill() > 0
        assert len(one.writer.written) - one.writer.acknowledged <= BOUND


async def test_what_is_acknowledged_has_still_to_be_taken(bounded: Any) -> None:
    one = bounded(pause=0.05)
    assert one.fill() == BOUND
    await one.heard(True)
    assert not one.flow.free
    one.room.clear()
    await asyncio.wait_for(one.room.wait(), PATIENCE)
    assert one.fill() > 0


async def test_a_reader_that_proves_to_have_read_is_waited_for_no_more(bounded: Any) -> None:
    one = bounded(pause=60)
    one.flow.write(b"", "slow")
    for _ in range(BOUND - 1):
        one.flow.write(b"", "quick")
    assert not one.flow.free
    one.flow.settle("quick")
    assert not one.flow.free, "the slow one's sample would be pushed out"
    one.flow.settle("slow")
    assert one.fill("quick") == BOUND


async def test_one_that_acknowledges_nothing_holds_up_others_once_but_itself_for_ever(bounded: Any) -> None:
    alone, among_others = bounded(alone=True), bounded(alone=False)
    for one in (alone, among_others):
        assert one.fill() == BOUND
        await one.heard(False)
    assert not alone.flow.free
    assert among_others.fill() > BOUND


async def test_what_the_only_reader_has_read_tells_that_it_read_what_came_before(bounded: Any) -> None:
    one = bounded(pause=60)
    for number in range(BOUND):
        one.flow.write(b"", number)
    assert not one.flow.free
    one.flow.settle_up_to(BOUND - 3)
    assert one.fill() == BOUND - 2
    one.flow.settle_up_to("nobody")
    assert not one.flow.free
    one.flow.settle_all()
    assert one.fill() == BOUND

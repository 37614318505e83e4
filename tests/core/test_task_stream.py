"""A task's stream whose reader takes what comes in the moment in which it comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire import errors
from anywire.messages import Chunk
from anywire.pipeline.tasks.following import Follower
from anywire.task_stream import TaskStream


def stream_of() -> tuple[TaskStream, list[int]]:
    """A stream, and how many chunks its reader has read at each time."""
    read: list[int] = []
    stream = TaskStream("t", 0, lambda task_id, reason: None)
    stream.on_read(lambda stream, chunks: read.append(chunks))
    return stream, read


def chunk(seq: int, *, final: bool = False) -> Chunk:
    return Chunk("h", "t", 1, seq, (f"{seq}",), final=final)


async def waiting(stream: TaskStream, taken: list[Chunk], room: int = 100) -> asyncio.Task[list[Chunk]]:
    """A reader that waits, and takes so many chunks at once."""

    def pass_on(chunks: list[Chunk]) -> bool:
        if len(taken) >= room:
            return False
        taken.extend(chunks)
        return True

    reading = asyncio.create_task(stream.take_passing(pass_on))
    await asyncio.sleep(0)
    return reading


async def test_what_comes_is_passed_on_at_once_and_the_final_chunk_is_returned() -> None:
    stream, read = stream_of()
    taken: list[Chunk] = []
    reading = await waiting(stream, taken)
    stream.push(chunk(0))
    stream.push(chunk(1))
    assert [each.seq for each in taken] == [0, 1]
    assert read == [1, 1]
    assert not reading.done()
    stream.push(chunk(2, final=True))
    assert [each.seq for each in await reading] == [2]
    assert await stream.take_passing(lambda chunks: True) == []


async def test_what_waited_before_is_returned_and_nothing_overtakes_it() -> None:
    stream, _ = stream_of()
    stream.push(chunk(0))
    reading = asyncio.create_task(stream.take_passing(lambda chunks: True))
    stream.push(chunk(1))
    assert [each.seq for each in await reading] == [0, 1]


async def test_what_the_reader_has_no_room_for_is_returned_with_what_comes_behind_it() -> None:
    stream, read = stream_of()
    taken: list[Chunk] = []
    reading = await waiting(stream, taken, room=1)
    for seq in range(4):
        stream.push(chunk(seq))
    assert [each.seq for each in taken] == [0]
    assert [each.seq for each in await reading] == [1, 2, 3]
    assert read == [1, 3]


async def test_what_the_reader_raises_is_raised_to_it_and_harms_nobody_else() -> None:
    stream, read = stream_of()

    def pass_on(chunks: list[Chunk]) -> bool:
        raise errors.StreamCorrupted("cannot be read")

    reading = asyncio.create_task(stream.take_passing(pass_on))
    await asyncio.sleep(0)
    stream.push(chunk(0))
    stream.push(chunk(1))
    with pytest.raises(errors.StreamCorrupted, match="cannot be read"):
        await reading
    assert read == []


async def test_a_stream_that_fails_passes_nothing_on_any_more() -> None:
    stream, _ = stream_of()
    taken: list[Chunk] = []
    reading = await waiting(stream, taken)
    stream.push(chunk(0))
    stream.fail(errors.AgentLost("it is gone"))
    with pytest.raises(errors.AgentLost):
        await reading
    assert [each.seq for each in taken] == [0]


async def test_a_reader_that_is_cancelled_gets_nothing_any_more() -> None:
    stream, _ = stream_of()
    taken: list[Chunk] = []
    reading = await waiting(stream, taken)
    reading.cancel()
    stream.push(chunk(0))
    await asyncio.wait([reading])
    stream.push(chunk(1))
    assert reading.cancelled()
    assert not taken
    assert [each.seq for each in await stream.take()] == [0, 1]


async def test_a_follower_gets_what_the_reader_took_at_once() -> None:
    class Follower:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def put(self, chunk: Chunk) -> None:
            self.seen.append(chunk.seq)

        def fail(self, error: errors.AnywireError) -> None:
            """Nothing fails here."""

    stream, _ = stream_of()
    follower = Follower()
    stream.followers = (follower,)
    taken: list[Chunk] = []
    reading = await waiting(stream, taken)
    stream.push(chunk(0))
    stream.push(chunk(1, final=True))
    await reading
    assert follower.seen == [0, 1]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.sampled_from(["push", "turn", "full", "room"]), max_size=40))
def test_each_chunk_is_read_once_and_in_order(steps: list[str]) -> None:
    async def run() -> None:
        stream, read = stream_of()
        seen: list[int] = []
        has_room, pushed = True, 0

        def pass_on(chunks: list[Chunk]) -> bool:
            if has_room:
                seen.extend(each.seq for each in chunks)
            return has_room

        async def reader() -> None:
            while chunks := await stream.take_passing(pass_on):
                seen.extend(each.seq for each in chunks)

        reading = asyncio.create_task(reader())
        for step in steps:
            if step == "push":
                stream.push(chunk(pushed))
                pushed += 1
            elif step == "turn":
                await asyncio.sleep(0)
            else:
                has_room = step == "room"
        stream.push(chunk(pushed, final=True))
        await reading
        assert seen == list(range(pushed + 1))
        assert sum(read) == pushed + 1

    asyncio.run(run())


class _Large:
    """Stands for the body of a request that a reader holds."""


async def test_readers_that_got_an_error_end_with_it_and_not_with_the_next_look_for_cycles() -> None:
    held: list[weakref.ref[_Large]] = []

    async def reads(stream: TaskStream, how: str) -> None:
        body = _Large()
        held.append(weakref.ref(body))
        if how == "take_passing":
            await stream.take_passing(lambda chunks: True)
        elif how == "follow":
            async for _ in Follower(stream):
                pass
        else:
            await getattr(stream, how)()

    gc.disable()
    try:
        for how in ("take", "result", "step", "take_passing", "follow"):
            for late in (False, True)[how == "follow" :]:
                stream, _ = stream_of()
                reading = asyncio.create_task(reads(stream, how))
                if late:
                    await asyncio.sleep(0)
                stream.fail(errors.EngineFailed("broken"))
                if not late:
                    await asyncio.sleep(0)
                with contextlib.suppress(errors.EngineFailed):
                    await reading
                del reading, stream
        await asyncio.sleep(0)  # what woke this test has the last reader
        assert [each() for each in held] == [None] * 9
    finally:
        gc.enable()


async def test_who_reads_on_after_an_error_gets_it_again() -> None:
    class Own(errors.TaskError):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one}, {two}", detail_code="x")

    for error in (errors.EngineFailed("broken", status=503, agent_id="a"), Own(1, 2)):
        stream, _ = stream_of()
        stream.fail(error)
        for _ in range(3):
            with pytest.raises(type(error)) as raised:
                await stream.take()
            assert (str(raised.value), vars(raised.value)) == (str(error), vars(error))


async def test_a_reader_that_raises_at_a_chunk_ends_with_that() -> None:
    held: list[weakref.ref[_Large]] = []

    async def reads(stream: TaskStream) -> None:
        body = _Large()
        held.append(weakref.ref(body))

        def pass_on(chunks: list[Chunk]) -> bool:
            raise ConnectionResetError(f"no room for {len(chunks)}")

        await stream.take_passing(pass_on)

    gc.disable()
    try:
        stream, _ = stream_of()
        reading = asyncio.create_task(reads(stream))
        await asyncio.sleep(0)
        stream.push(chunk(0))
        with contextlib.suppress(ConnectionResetError):
            await reading
        del reading
        await asyncio.sleep(0)
        assert held[0]() is None
    finally:
        gc.enable()

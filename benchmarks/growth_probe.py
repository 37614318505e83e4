"""What `growth.py` runs in a process of its own for each size: rounds of an operation as `cost_probe.py` does, or with
``memory`` in front the bytes that each of many takes.

    python benchmarks/growth_probe.py TREE "task 1000"              a round for each line of standard input
    python benchmarks/growth_probe.py TREE memory "stream 10000"    a line of JSON

The pipeline is the real one, over a transport that does nothing: the agents are made up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psutil

import anywire
from anywire.identity import hub_info
from anywire.messages import Chunk, TaskRequest, ToAgent
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.ready import keep_what_is_there
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.puppet import PuppetTransport
from transport_stack import IN_FLIGHT, new_event_loop

MODEL, STREAMED = "model", "streamed-model"
BODY = "x" * 300
BATCHES = 8
"""Times `IN_FLIGHT` tasks in a round."""
CHUNKS = 2048
"""Chunks in a round."""
WARM_UP = 1200
"""Tasks before memory is measured: what is kept of tasks that have ended is bounded, and full then."""
DEADLINE = 1e6
"""Seconds: no task is refused because it would wait for too long."""


class Cost(NamedTuple):
    """Seconds for one operation."""

    cpu: float
    wall: float


Round = Callable[[], Awaitable[Cost]]


class Open:
    """A stream that runs: where it is, and the number of its next chunk."""

    __slots__ = ("agent_id", "attempt", "hub_id", "seq", "task_id")

    def __init__(self, agent_id: str, task: TaskRequest) -> None:
        self.agent_id, self.hub_id, self.task_id, self.attempt = agent_id, task.hub_id, task.task_id, task.attempt
        self.seq = 0


class Wire(PuppetTransport):
    """Keeps the newest requests alone, each with its agent."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: list[Open] = []

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest):
            self.newest.append(Open(agent_id, message))

    def take(self) -> list[Open]:
        """What was sent since the last call."""
        newest, self.newest = self.newest, []
        return newest

    def say(self, to: Open, final: bool = False) -> None:
        """Let the agent send a chunk of one token."""
        chunk = Chunk(to.hub_id, to.task_id, to.attempt, to.seq, ("text",), "", final, "stop" if final else "")
        to.seq += 1
        self.sink.chunk_received(to.agent_id, 1, chunk)


class Stand:
    """A pipeline with agents, and what happens in it."""

    def __init__(self, orchestrator: Orchestrator, wire: Wire) -> None:
        self.orchestrator, self.wire = orchestrator, wire
        self._task, self._stream = Submission("chat", MODEL, BODY), Submission("chat", STREAMED, BODY, stream=True)
        self._readers: list[asyncio.Task[None]] = []
        self._open: list[Open] = []
        self._next: Iterator[Open] = iter(())

    def join(self, count: int, slots: int, model: str = MODEL) -> None:
        for number in range(count):
            self.wire.join(f"{model}-{number}", slots=slots, models=(model,))

    async def answer(self, count: int) -> None:
        """Let so many tasks come, be answered whole and be read, `IN_FLIGHT` at a time."""
        for _ in range(count // IN_FLIGHT):
            streams = [self.orchestrator.submit(self._task) for _ in range(IN_FLIGHT)]
            for each in self.wire.take():
                self.wire.say(each, final=True)
            for stream in streams:
                await stream.result()
            await asyncio.sleep(0)

    async def open(self, count: int) -> None:
        """Open so many streams, each with a first token and a reader that waits for the next one."""
        for already in range(0, count, IN_FLIGHT):
            for _ in range(min(IN_FLIGHT, count - already)):
                self._readers.append(asyncio.create_task(_read(self.orchestrator.submit(self._stream))))
            for each in self.wire.take():
                self.wire.say(each)
                self._open.append(each)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self._next = cycle(self._open)

    async def stream(self, count: int) -> None:
        """Let so many chunks come, in each turn of the loop one for each of up to `IN_FLIGHT` streams, which are others
        the next time."""
        together = min(IN_FLIGHT, len(self._open))
        for _ in range(count // together):
            for each in islice(self._next, together):
                self.wire.say(each)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def wait(self, count: int) -> list[TaskStream]:
        """Let so many tasks come that find no slot."""
        return [self.orchestrator.submit(self._task) for _ in range(count)]

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self.orchestrator.close()


async def _read(stream: TaskStream) -> None:
    async for _ in stream:
        pass


@asynccontextmanager
async def stand(queued: int = 1024) -> AsyncGenerator[Stand, None]:
    plugins, wire = Plugins(), Wire()
    orchestrator = Orchestrator(
        hub_info(),
        [wire],
        plugins.create("schedulers", "fifo", {"max_queue_size": queued}),
        plugins.create("selectors", "least_loaded", {}),
        config=PipelineConfig(deadline=DEADLINE, accept_timeout=DEADLINE, next_token_timeout=0),
        plugins=plugins,
    )
    await orchestrator.start()
    made = Stand(orchestrator, wire)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def task(agents: int) -> AsyncGenerator[Round, None]:
    """A unary task where so many agents have free slots."""
    async with stand() as made:
        made.join(agents, slots=2 * IN_FLIGHT)
        keep_what_is_there()
        yield _timed(lambda: made.answer(BATCHES * IN_FLIGHT), BATCHES * IN_FLIGHT)


@asynccontextmanager
async def beside(streams: int) -> AsyncGenerator[Round, None]:
    """A unary task while so many streams are open."""
    async with _with_streams(streams) as made:
        yield _timed(lambda: made.answer(BATCHES * IN_FLIGHT), BATCHES * IN_FLIGHT)


@asynccontextmanager
async def chunk(streams: int) -> AsyncGenerator[Round, None]:
    """A chunk of one of so many streams."""
    async with _with_streams(streams) as made:
        yield _timed(lambda: made.stream(CHUNKS), CHUNKS)


@asynccontextmanager
async def _with_streams(count: int) -> AsyncGenerator[Stand, None]:
    async with stand() as made:
        made.join(1, slots=2 * IN_FLIGHT)
        made.join(10, slots=count, model=STREAMED)
        keep_what_is_there()
        await made.open(count)
        yield made


MEASURED: dict[str, Callable[[int], AbstractAsyncContextManager[Round]]] = {
    "task": task,
    "beside": beside,
    "chunk": chunk,
}


def _timed(work: Callable[[], Awaitable[None]], count: int) -> Round:
    async def timed() -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        await work()
        return Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)

    return timed


async def memory_of(what: str, count: int) -> float:
    """Resident bytes of each of ``count`` tasks that ``wait``, of each open ``stream``, or of each ``agent``."""
    async with stand(queued=2 * count) as made:
        made.join(1, slots=2 * IN_FLIGHT)
        if what == "stream":
            made.join(10, slots=2 * count, model=STREAMED)
            await made.open(IN_FLIGHT)
        await made.answer(WARM_UP)
        if what == "wait":
            made.wait(4 * IN_FLIGHT)
        gc.collect()
        before = resident()
        if what == "wait":
            waiting = made.wait(count)
            assert len(waiting) == count
        elif what == "stream":
            await made.open(count)
            await made.stream(2 * count)
        elif what == "agent":
            made.join(count, slots=8, model="of-many")
        else:
            raise ValueError(f"{what} is nothing that is measured")
        gc.collect()
        return (resident() - before) / count


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def rounds_of(*names: str) -> None:
    """Do one round of the operation for each line of standard input, the next operation after an empty line."""
    loop = asyncio.get_running_loop()
    for name in names:
        what, _, count = name.partition(" ")
        async with MEASURED[what](int(count)) as work:
            while (await loop.run_in_executor(None, sys.stdin.readline)).strip():
                print(json.dumps(await work()), flush=True)


def main(tree: str, *names: str) -> None:
    origin = Path(anywire.__file__)
    if not origin.is_relative_to(tree):
        sys.exit(f"anywire was imported from {origin} and not from {tree}")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        if names[0] != "memory":
            runner.run(rounds_of(*names))
            return
        what, _, count = names[1].partition(" ")
        print(json.dumps(runner.run(memory_of(what, int(count)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

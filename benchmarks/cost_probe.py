"""What `cost.py` runs in a process of its own for each tree: rounds of an operation, each told as a line of JSON.

It imports whatever tree is on PYTHONPATH, of this commit or of one before it, and says so when it is another one.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import logging
import os
import platform
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import psutil
import pydantic

import anywire
from anywire.engine import Delta, Engine, EngineStatus
from anywire.identity import agent_info, hub_info
from anywire.messages import AgentInfo, Chunk, TaskRequest, ToAgent
from anywire.plugins import Plugins
from anywire.submission import Submission
from anywire.testing.puppet import PuppetTransport
from anywire.transport import HubSink
from http_load import load
from transport_stack import IN_FLIGHT, new_event_loop, options_of, server

MODEL = "model"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x" * 240}]})
OFFERED: Any
try:
    from anywire.offers import offers
    from anywire.pipeline.orchestrator import Orchestrator
    from anywire.pipeline_settings import PipelineConfig
    from anywire.roles.agent import Agent
except ImportError:  # a tree of before
    from anywire.agent import Agent  # type: ignore[import-not-found, no-redef]

    from anywire.pipeline.orchestrator import Orchestrator, PipelineConfig

    OFFERED = (MODEL,)
else:
    OFFERED = offers(MODEL)

SLOTS = 2 * IN_FLIGHT
CHUNKS = 1024
"""Chunks of one stream: enough that its task costs next to nothing of each."""
UNARY_BATCHES, MEMORY_BATCHES, REQUESTS = 8, 4, {1: 100, 64: 640}


class Cost(NamedTuple):
    """Seconds for one operation."""

    cpu: float
    wall: float


Round = Callable[[], Awaitable[Cost]]
"""Does some operations."""

_NAMES_LINK = "agent_id" in inspect.signature(HubSink.chunk_received).parameters


class _Wire(PuppetTransport):
    """Keeps the newest message alone, so that nothing grows, and is no part of what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: list[TaskRequest] = []
        self.times = (0, 0, 0, 0)
        """Of the stages at the agent."""

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest):
            self.newest.append(message)

    def chunk_of(self, task: TaskRequest, seq: int, final: bool) -> None:
        chunk = Chunk(
            task.hub_id,
            task.task_id,
            task.attempt,
            seq,
            ("text",),
            "",
            final,
            "stop" if final else "",
            "",
            "",
            *self.times,
        )
        if _NAMES_LINK:
            self.sink.chunk_received("agent", 1, chunk)
        else:
            self.sink.chunk_received(chunk)  # type: ignore[call-arg, arg-type]


_READY = EngineStatus("ready", OFFERED)


class _NoConfig(pydantic.BaseModel):
    pass


class _Engine(Engine):
    """Yields as many texts as the body says, each in a turn of the event loop of its own."""

    name: ClassVar[str] = "costless"
    Config = _NoConfig

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return _READY

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for _ in range(int(task.body)):
            yield Delta("text")
            if task.stream:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        yield Delta("", "", "stop", "")


@asynccontextmanager
async def _orchestrator(transport: Any) -> AsyncGenerator[Orchestrator, None]:
    plugins = Plugins()
    made = Orchestrator(
        hub_info(),
        [transport],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        config=PipelineConfig(),
        plugins=plugins,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def _puppet(**of_agent: Any) -> AsyncGenerator[tuple[Orchestrator, _Wire], None]:
    wire = _Wire()
    async with _orchestrator(wire) as orchestrator:
        wire.join("agent", slots=SLOTS, models=(MODEL,), **of_agent)
        yield orchestrator, wire


@asynccontextmanager
async def _memory() -> AsyncGenerator[Orchestrator, None]:
    plugins = Plugins()
    engine = _Engine(_NoConfig())
    agent = Agent(agent_info(engine=engine), engine, [plugins.create("transports", "memory", {})], slots=SLOTS)
    async with _orchestrator(plugins.create("transports", "memory", {})) as orchestrator:
        await agent.start()
        try:
            await orchestrator.agents_until(lambda agents: any(each.free_slots > 0 for each in agents))
            yield orchestrator
        finally:
            await agent.close()


async def _unary_batches(orchestrator: Orchestrator, wire: _Wire) -> int:
    submission = Submission("chat", MODEL, BODY)
    for _ in range(UNARY_BATCHES):
        streams = [orchestrator.submit(submission) for _ in range(IN_FLIGHT)]
        for request in wire.newest:
            wire.chunk_of(request, 0, True)
        wire.newest.clear()
        for stream in streams:
            await stream.result()
        await asyncio.sleep(0)
    return UNARY_BATCHES * IN_FLIGHT


@asynccontextmanager
async def puppet_task() -> AsyncGenerator[Round, None]:
    """Submit, send, take the answer in and read it, 64 at a time, without any wire."""
    async with _puppet() as (orchestrator, wire):
        yield _timed(partial(_unary_batches, orchestrator, wire))


@asynccontextmanager
async def measured_task() -> AsyncGenerator[Round, None]:
    """A task of `puppet_task` that is counted as ``/metrics`` shows it."""
    from anywire.identity import boot_id
    from anywire.measures.measures import Measures

    info = AgentInfo("agent", 1, capabilities=("chat",), boot_id=boot_id())
    async with _puppet(info=info) as (orchestrator, wire):
        now = time.monotonic_ns()
        wire.times = (now, now + 1000, now + 2000, now + 3000)
        measures = Measures(orchestrator)  # type: ignore[arg-type]
        yield _timed(partial(_unary_batches, orchestrator, wire))
        measures.close()


@asynccontextmanager
async def request_line() -> AsyncGenerator[Round, None]:
    """The line of a request that was answered, written to where nobody reads it."""
    from anywire.log_lines import RepeatLimit, TextLines
    from anywire.request_log import RequestLog
    from anywire.task_stream import TaskStream

    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(TextLines())
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    lines, began = RequestLog(True), time.perf_counter()
    stream = TaskStream("0123456789abcdef01234567", time.monotonic_ns(), lambda task_id, reason: None)
    stream.agent_id, stream.transport, stream.model = "agent-1", "dds", MODEL
    stream.stages.sent = time.monotonic_ns()

    async def work() -> int:
        for _ in range(UNARY_BATCHES * IN_FLIGHT):
            lines.add("POST /v1/chat/completions", 200, began, task=stream, model=MODEL, request_id="req-1")
        return UNARY_BATCHES * IN_FLIGHT

    try:
        yield _timed(work)
    finally:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(level)


@asynccontextmanager
async def puppet_chunk() -> AsyncGenerator[Round, None]:
    """Take one chunk of a stream in and read it, with the credit for it, without any wire."""
    async with _puppet() as (orchestrator, wire):

        async def work() -> int:
            stream = orchestrator.submit(Submission("chat", MODEL, BODY, stream=True))
            request = wire.newest.pop()
            for seq in range(CHUNKS):
                wire.chunk_of(request, seq, seq == CHUNKS - 1)
                await stream.__anext__()
                if seq % IN_FLIGHT == 0:
                    await asyncio.sleep(0)
            return CHUNKS

        yield _timed(work)


@asynccontextmanager
async def memory_task() -> AsyncGenerator[Round, None]:
    """The same with an agent of this process over ``memory``, 64 at a time."""
    async with _memory() as orchestrator:
        submission = Submission("chat", MODEL, "1")

        async def work() -> int:
            for _ in range(MEMORY_BATCHES):
                await asyncio.gather(*[orchestrator.submit(submission).result() for _ in range(IN_FLIGHT)])
            return MEMORY_BATCHES * IN_FLIGHT

        yield _timed(work)


@asynccontextmanager
async def memory_chunk() -> AsyncGenerator[Round, None]:
    """A chunk of one of 8 streams over ``memory``, from the engine's token to the reader."""
    async with _memory() as orchestrator:
        submission = Submission("chat", MODEL, str(CHUNKS // 4), stream=True)

        async def read() -> int:
            return len([chunk async for chunk in orchestrator.submit(submission)])

        async def work() -> int:
            return sum(await asyncio.gather(*[read() for _ in range(8)]))

        yield _timed(work)


@asynccontextmanager
async def http(transport: str, clients: int) -> AsyncGenerator[Round, None]:
    """A request through ``anywire up``: HTTP in, over the transport to the synthetic engine and back; the processor
    time is that of all its processes."""
    header = f"x-anywire-transport: {transport}\r\n"
    with options_of(transport) as options:
        async with server(transport, options) as url:
            processes = [each.pid for each in psutil.Process().children(recursive=True)]
            requests = REQUESTS[clients]

            async def work() -> Cost:
                before = sum(map(cpu_seconds, processes))
                result = await load(url, clients=clients, requests=requests, expect=header)
                cpu = sum(map(cpu_seconds, processes)) - before
                return Cost(cpu / requests, result.seconds / requests)

            yield work


def cpu_seconds(pid: int) -> float:
    if platform.system() == "Linux":
        # The clock of another process, see clock_getcpuclockid(3): psutil's figures are in hundredths of a second.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _timed(work: Callable[[], Awaitable[int]]) -> Round:
    async def timed() -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        count = await work()
        return Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)

    return timed


MEASURED: dict[str, Callable[[], AbstractAsyncContextManager[Round]]] = {
    "puppet task": puppet_task,
    "puppet chunk": puppet_chunk,
    "memory task": memory_task,
    "memory chunk": memory_chunk,
    "measured task": measured_task,
    "request line": request_line,
}


def measured(name: str) -> AbstractAsyncContextManager[Round]:
    if name in MEASURED:
        return MEASURED[name]()
    _, transport, clients = name.split()
    return http(transport, int(clients))


async def main(tree: str, *names: str) -> None:
    """Do one round of the operation for each line of standard input, the next operation after an empty line. The event
    loop turns meanwhile: heartbeats fall between the rounds."""
    origin = Path(anywire.__file__)
    if not origin.is_relative_to(tree):
        sys.exit(f"anywire was imported from {origin} and not from {tree}")
    loop = asyncio.get_running_loop()
    for name in names:
        async with measured(name) as work:
            gc.collect()
            while (await loop.run_in_executor(None, sys.stdin.readline)).strip():
                print(json.dumps(await work()), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))

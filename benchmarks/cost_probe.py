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
import subprocess
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
from anywire.stages import Stages
from anywire.submission import Submission
from anywire.task_stream import TaskStream
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
async def _openai() -> AsyncGenerator[Engine, None]:
    """The engine `openai` of this process, asking a server that costs next to nothing."""
    script = Path(__file__).with_name("raw_engine.py")
    server = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
        [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        engine = Plugins().create("engines", "openai", {"base_url": f"http://127.0.0.1:{port}/v1"})
        await engine.start(lambda: None)
        try:
            yield engine
        finally:
            await engine.close()
            server.stdin.close()


async def _deltas_of(engine: Engine, **members: object) -> int:
    """How many tokens an answer had."""
    messages = [{"role": "user", "content": "x" * 300}]
    body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 64, **members})
    task = TaskRequest("hub", "task", 1, "chat", MODEL, body, stream="stream" in members)
    steps = [delta async for delta in engine.run(task) if isinstance(delta, Delta)]
    return sum([len(getattr(delta, "parts", ())) or bool(delta.text) for delta in steps])


@asynccontextmanager
async def engine_task() -> AsyncGenerator[Round, None]:
    """A whole answer of a server through the engine `openai` alone, 64 at a time."""
    async with _openai() as engine:

        async def work() -> int:
            for _ in range(MEMORY_BATCHES):
                await asyncio.gather(*[_deltas_of(engine) for _ in range(IN_FLIGHT)])
            return MEMORY_BATCHES * IN_FLIGHT

        yield _timed(work)


@asynccontextmanager
async def engine_token() -> AsyncGenerator[Round, None]:
    """A token of one of 32 streams of 64, which the server writes at once."""
    async with _openai() as engine:

        async def work() -> int:
            return sum(await asyncio.gather(*[_deltas_of(engine, stream=True) for _ in range(32)]))

        yield _timed(work)


@asynccontextmanager
async def engine_paced() -> AsyncGenerator[Round, None]:
    """A token of one of 16 streams, of which the server writes one each 5 ms."""
    async with _openai() as engine:

        async def work() -> int:
            paced = {"stream": True, "max_tokens": 16, "pace_ms": 5}
            return sum(await asyncio.gather(*[_deltas_of(engine, **paced) for _ in range(16)]))

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


@asynccontextmanager
async def _gateway(answer: Callable[[TaskStream], None]) -> AsyncGenerator[str, None]:
    """The address of a gateway whose tasks get what ``answer`` pushes, without any pipeline."""
    from anywire.roles.context import OrchestratorContext
    from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig

    class Context(OrchestratorContext):
        def submit(self, submission: Submission, task_id: str = "", attempts: int = 0) -> TaskStream:
            stream = TaskStream("0" * 24, time.monotonic_ns(), lambda task_id, reason: None)
            stream.agent_id, stream.transport, stream.model, stream.attempts = "agent", "puppet", MODEL, 1
            stream.stages = Stages(*range(10**6, 10**7, 10**6))
            answer(stream)
            return stream

    gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
    async with _puppet() as (orchestrator, _):
        await gateway.start(Context(orchestrator))
        try:
            yield gateway.address
        finally:
            await gateway.close()


def _chunk(seq: int, final: bool) -> Chunk:
    return Chunk("hub", "0" * 24, 1, seq, ("text ",), "", final, "stop" if final else "")


@asynccontextmanager
async def gateway_task() -> AsyncGenerator[Round, None]:
    """A chat through the gateway `openai` alone, from 64 clients; their work, in this process, is in it."""

    def answer(stream: TaskStream) -> None:
        stream.push(_chunk(0, True))

    async with _gateway(answer) as url:

        async def work() -> int:
            return len((await load(url, clients=IN_FLIGHT, requests=10 * IN_FLIGHT, model=MODEL)).times)

        yield _timed(work)


@asynccontextmanager
async def gateway_chunk() -> AsyncGenerator[Round, None]:
    """A chunk of one of 8 streams through the gateway `openai` alone, each in a turn of the event loop of its own."""

    def answer(stream: TaskStream) -> None:
        push(stream, 0)

    def push(stream: TaskStream, seq: int) -> None:
        stream.push(_chunk(seq, seq == CHUNKS - 1))
        if seq < CHUNKS - 1:
            loop.call_soon(loop.call_soon, push, stream, seq + 1)

    loop = asyncio.get_running_loop()
    async with _gateway(answer) as url:

        async def work() -> int:
            return (await load(url, clients=8, requests=8, stream=True, model=MODEL)).tokens

        yield _timed(work)


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
    "engine task": engine_task,
    "engine token": engine_token,
    "engine paced token": engine_paced,
    "gateway task": gateway_task,
    "gateway chunk": gateway_chunk,
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

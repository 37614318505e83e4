"""The OpenAI gateway with the real pipeline behind it, for tests: served, reached, observed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pydantic
from tests.patience import FACTOR

from anywire.agent import Agent
from anywire.engine import Delta, Engine, EngineStatus
from anywire.hookspecs import hookimpl
from anywire.identity import agent_info, hub_info
from anywire.memory import MemoryConfig, MemoryTransport
from anywire.messages import TaskRequest
from anywire.pipeline.orchestrator import Orchestrator, PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView
from anywire.stages import TaskRecord
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig

TIMEOUT = 20.0 * FACTOR
MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
Script = Callable[[TaskRequest], AsyncGenerator[Delta, None]]


class ScriptedEngine(Engine):
    """Answers with whatever the test's generator gives; tells when a task began and when it was cancelled."""

    name = "scripted"
    Config = pydantic.BaseModel
    capabilities = ("chat", "completion", "embedding")

    def __init__(self, script: Script) -> None:
        super().__init__(None)
        self.script = script
        self.bodies: list[str] = []
        self.tasks: list[TaskRequest] = []
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def start(self, changed: Callable[[], None]) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> EngineStatus:
        return EngineStatus("ready", ("m",))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        self.tasks.append(task)
        self.began.set()
        try:
            async for delta in self.script(task):
                yield delta
        except (asyncio.CancelledError, GeneratorExit):  # while it waits, or between two deltas
            self.cancelled.set()
            raise


class Observer:
    """What happens in the pipeline, as its hooks tell."""

    def __init__(self) -> None:
        self.joined = asyncio.Event()
        self.ended: asyncio.Queue[TaskRecord] = asyncio.Queue()
        self._submitted = 0
        self._changed = asyncio.Event()

    @hookimpl
    def anywire_agent_joined(self, agent: AgentView) -> None:
        self.joined.set()

    @hookimpl
    def anywire_answer(self, task: QueuedTask, body: str) -> None:
        self._submitted += 1
        self._changed.set()

    @hookimpl
    def anywire_task_finished(self, record: TaskRecord) -> None:
        self.ended.put_nowait(record)

    async def submitted(self, tasks: int) -> None:
        while self._submitted < tasks:
            self._changed.clear()
            await self._changed.wait()


class Served:
    def __init__(self, orchestrator: Orchestrator, gateway: OpenAIGateway, observer: Observer) -> None:
        self.orchestrator, self.gateway, self.observer = orchestrator, gateway, observer
        self.url = gateway.address
        self.port = int(self.url.rpartition(":")[2])

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT)

    async def raw(self, body: dict[str, Any], path: str = "/v1/chat/completions", version: str = "1.1") -> Raw:
        connection = Raw(*await asyncio.open_connection("127.0.0.1", self.port))
        connection.post(body, path, version)
        return connection


class Raw:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions", version: str = "1.1") -> None:
        data = json.dumps(body).encode()
        self.writer.write(
            f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    slots: int = 64,
    scheduler: dict[str, Any] | None = None,
    pipeline: dict[str, Any] | None = None,
    **gateway: Any,
) -> AsyncIterator[Served]:
    network = MemoryConfig(network=f"test-{id(engine)}")
    plugins, observer = Plugins(), Observer()
    plugins.manager.register(observer)
    orchestrator = Orchestrator(
        hub_info(),
        [MemoryTransport(network)],
        plugins.create("schedulers", "fifo", scheduler or {}),
        plugins.create("selectors", "least_loaded", {}),
        config=PipelineConfig(**(pipeline or {})),
        plugins=plugins,
    )
    agent = Agent(agent_info("agent-1", engine=engine), engine, [MemoryTransport(network)], slots=slots)
    front = OpenAIGateway(OpenAIGatewayConfig(port=0, **gateway))
    await orchestrator.start()
    await agent.start()
    await front.start(orchestrator)
    try:
        async with asyncio.timeout(TIMEOUT):
            await observer.joined.wait()
            yield Served(orchestrator, front, observer)
    finally:
        await front.close()
        await agent.close()
        await orchestrator.close()


def says(*deltas: Delta | str, then: Exception | None = None) -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for delta in deltas:
            yield Delta(delta) if isinstance(delta, str) else delta
            await asyncio.sleep(0)
        if then is not None:
            raise then

    return ScriptedEngine(script)


def hangs(*before: str) -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for text in before:
            yield Delta(text)
        await asyncio.Event().wait()

    return ScriptedEngine(script)

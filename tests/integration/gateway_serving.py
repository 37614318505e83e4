"""The OpenAI gateway with the real pipeline behind it, for tests: served, reached, observed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import openai
import pydantic
from tests.patience import FACTOR

from anywire.access import Access
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.context import Services
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.event_bus import EventBus
from anywire.events import AgentJoined, TaskAdmitted, TaskEnded
from anywire.hookspecs import hookimpl
from anywire.identity import agent_info, hub_info
from anywire.messages import State, TaskRequest
from anywire.offers import Offer, offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.roles.context import OrchestratorContext
from anywire.selector import Selector
from anywire.transport import Transport
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig

TIMEOUT = 20.0 * FACTOR
MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
Carry = Callable[[Mapping[str, Any]], AsyncIterator[Any]]
"""What carries out a command with these arguments."""
Script = Callable[[TaskRequest], AsyncGenerator[Delta | EngineProgress, None]]


class ScriptedEngine(Engine):
    """Answers with whatever the test's generator gives; tells when a task began and when it was cancelled. Beside
    ``commands`` of the test it has ``test.echo``."""

    name = "scripted"
    Config = pydantic.BaseModel
    capabilities: tuple[str, ...] = ("chat", "completion", "embedding")

    def __init__(self, script: Script, offered: tuple[Offer, ...] = offers("m")) -> None:
        super().__init__(None)
        self.script = script
        self.offers = offered
        self.state: State = "ready"
        self.bodies: list[str] = []
        self.tasks: list[TaskRequest] = []
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.commands: dict[str, Carry] = {"test.echo": _echo}

    async def start(self, changed: Callable[[], None]) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> EngineStatus:
        return EngineStatus(self.state, self.offers)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        self.tasks.append(task)
        self.began.set()
        try:
            async for delta in self.script(task):
                yield delta
        except (asyncio.CancelledError, GeneratorExit):  # while it waits, or between two deltas
            self.cancelled.set()
            raise

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        carry = self.commands.get(name)
        return super().command(name, arguments) if carry is None else carry(arguments)


async def _echo(arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield {"arguments": arguments}


class Observer:
    """What happens in the pipeline, as its events tell."""

    def __init__(self) -> None:
        self.joined = asyncio.Event()
        self.ended: asyncio.Queue[TaskEnded] = asyncio.Queue()
        self._submitted = 0
        self._changed = asyncio.Event()

    @hookimpl
    def anywire_subscribe(self, events: EventBus) -> None:
        events.subscribe("observer", lambda event: self.joined.set(), AgentJoined)
        events.subscribe("observer", self.ended.put_nowait, TaskEnded)
        events.subscribe("observer", self._admitted, TaskAdmitted)

    def _admitted(self, event: TaskAdmitted) -> None:
        self._submitted += 1
        self._changed.set()

    async def submitted(self, tasks: int) -> None:
        while self._submitted < tasks:
            self._changed.clear()
            await self._changed.wait()


class Served:
    def __init__(
        self, orchestrator: Orchestrator, gateway: OpenAIGateway, observer: Observer, context: OrchestratorContext
    ) -> None:
        self.orchestrator, self.gateway, self.observer, self.context = orchestrator, gateway, observer, context
        self.url = gateway.address
        self.port = int(self.url.rpartition(":")[2]) if "//" in self.url else 0

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
    selector: Selector | None = None,
    pipeline: dict[str, Any] | None = None,
    transports: Sequence[Transport] = (),
    timeout: float = TIMEOUT,
    access: Access | None = None,
    services: Services | None = None,
    **gateway: Any,
) -> AsyncIterator[Served]:
    network = MemoryConfig(network=f"test-{id(engine)}")
    plugins, observer = Plugins(), Observer()
    plugins.manager.register(observer)
    orchestrator = Orchestrator(
        hub_info(),
        [MemoryTransport(network), *transports],
        plugins.create("schedulers", "fifo", scheduler or {}),
        selector or plugins.create("selectors", "least_loaded", {}),
        config=PipelineConfig(**(pipeline or {})),
        plugins=plugins,
    )
    agent = Agent(agent_info("agent-1", engine=engine), engine, [MemoryTransport(network)], slots=slots)
    front = OpenAIGateway(OpenAIGatewayConfig(port=0, **gateway))
    await orchestrator.start()
    await agent.start()
    context = OrchestratorContext(orchestrator, services=services, access=access)
    stop_listening = context.access.listen(orchestrator.end_caller)
    await front.start(context)
    try:
        async with asyncio.timeout(timeout):
            await observer.joined.wait()
            yield Served(orchestrator, front, observer, context)
    finally:
        await front.close()
        stop_listening()
        await agent.close()
        await orchestrator.close()


def says(*deltas: Delta | str, then: Exception | None = None) -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        for delta in deltas:
            yield Delta(delta) if isinstance(delta, str) else delta
            await asyncio.sleep(0)
        if then is not None:
            raise then

    return ScriptedEngine(script)


def hangs(*before: str) -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        for text in before:
            yield Delta(text)
        await asyncio.Event().wait()

    return ScriptedEngine(script)


@asynccontextmanager
async def joined(served: Served, engines: Sequence[Engine]) -> AsyncIterator[None]:
    """An agent for each engine but the first, which has one."""
    async with AsyncExitStack() as agents:
        network = MemoryConfig(network=f"test-{id(engines[0])}")
        for number, engine in enumerate(engines[1:], 2):
            agent = Agent(agent_info(f"agent-{number}", engine=engine), engine, [MemoryTransport(network)], slots=64)
            served.observer.joined.clear()
            await agent.start()
            agents.push_async_callback(agent.close)
            await served.observer.joined.wait()
        yield

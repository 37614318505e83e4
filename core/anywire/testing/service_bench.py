"""A service beside a real orchestrator, in one process: for the service kit, and for a service's own tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from anywire.access import Access
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.caller import OPERATOR, Caller
from anywire.engine import Engine
from anywire.errors import AnywireError
from anywire.identity import agent_info, hub_info
from anywire.messages import Kind
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.roles.context import OrchestratorContext
from anywire.roles.service_host import ServiceHost
from anywire.route import EventStream, Method, Request, Response, Route, Routes
from anywire.service import Service
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.doubles import MODEL, Script, ScriptedEngine, fifo, least_loaded
from anywire.testing.patience import expect


class ServiceBench:
    """An orchestrator, one agent with a scripted engine behind it, and the services under test."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        agent: Agent,
        services: Sequence[Service],
        state: Path,
        access: Access | None = None,
    ) -> None:
        self.orchestrator, self.agent, self.routes = orchestrator, agent, Routes()
        self._state, self._access = state, access
        self.host = ServiceHost(services, orchestrator, self.context)

    def context(self, name: str) -> OrchestratorContext:
        """What a gateway or service of that name is given."""
        return OrchestratorContext(
            self.orchestrator, name, self.host, self.routes, self._state, self._access, is_service=True
        )

    def submit(
        self,
        body: str | None = None,
        *,
        model: str = MODEL,
        kind: Kind = "chat",
        stream: bool = False,
        caller: Caller = OPERATOR,
        parent: str = "",
    ) -> TaskStream:
        """Take in a task; without a ``body`` one whose answer has one delta."""
        text = Script("task").body() if body is None else body
        return self.orchestrator.submit(Submission(kind, model, text, stream, caller=caller, parent=parent))

    async def ask(self, body: str | None = None, **settings: Any) -> str:
        """The text of a task's answer. Raises what it ended with."""
        stream = self.submit(body, **settings)
        texts: list[str] = []
        while (chunk := await expect(anext(stream, None), "the next chunk of an answer")) is not None:
            texts += chunk.deltas
        return "".join(texts)

    async def call(
        self, method: Method, path: str, body: bytes = b"", *, route: Route | None = None, **names: str
    ) -> Response | EventStream | AnywireError:
        """What the handler of a service's route answers, or the `AnywireError` that it raises. ``path`` is the route's,
        with ``names`` for what stands in braces in it."""
        route = route or next(each for each in self.routes.all() if (each.method, each.path) == (method, path))
        whole = route.path.format(**names) if names else route.path
        request = Request(route.method, f"/v1{whole}", names, {}, {}, body, OPERATOR)
        try:
            return await expect(route.handler(request), f"an answer of {route.method} {route.path}")
        except AnywireError as error:
            return error


@asynccontextmanager
async def service_bench(
    *services: Service,
    state: Path,
    engine: Engine | None = None,
    slots: int = 4,
    access: Access | None = None,
    **settings: Any,
) -> AsyncIterator[ServiceBench]:
    """Run ``services`` as an orchestrator does, with folders of their own below ``state``. ``access`` says who clients
    are; without it nobody needs a key. ``settings`` are `PipelineConfig`'s. At the end they are told the gate, and
    closed after the drain."""
    network, engine = MemoryConfig(network=f"service-{uuid4()}"), engine or ScriptedEngine()
    orchestrator = Orchestrator(
        hub_info(),
        [MemoryTransport(network)],
        fifo(),
        least_loaded(),
        config=PipelineConfig(**settings),
        plugins=Plugins(),
    )
    agent = Agent(agent_info("agent", engine=engine), engine, [MemoryTransport(network)], slots=slots)
    bench = ServiceBench(orchestrator, agent, services, state, access)
    try:
        await orchestrator.start()
        await agent.start()
        await expect(
            orchestrator.agents_until(lambda agents: any(each.status.state == "ready" for each in agents)),
            "the agent has joined",
        )
        await expect(bench.host.start(), "the services have started")
        yield bench
    finally:
        closing = asyncio.ensure_future(orchestrator.close())
        await asyncio.sleep(0)
        bench.host.gate_closed()
        await closing
        await bench.host.close()
        await agent.close()

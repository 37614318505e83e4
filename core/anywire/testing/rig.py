"""The rig a conformance test works with: hubs, agents, pipelines and peer processes over one transport."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from anywire.agent import Agent
from anywire.client import Client, ClientConfig
from anywire.engine import Engine
from anywire.fleet import fleet_agent
from anywire.identity import agent_info, hub_info, new_incarnation
from anywire.messages import AgentInfo, AgentStatus, HubInfo, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator, PipelineConfig
from anywire.pipeline.stream import TaskStream
from anywire.plugins import Plugins
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, IdlestSelector, ListScheduler, Script, ScriptedEngine
from anywire.testing.peer import PeerSpec, new_hub
from anywire.testing.recorder import PATIENCE, Recorder, RecordingAgentSink, RecordingHubSink
from anywire.transport import AgentPort, Hub, Plane, Reply, Transport


def request(hub: HubInfo, task_id: str, *, body: str = "{}", attempt: int = 1, stream: bool = True) -> TaskRequest:
    return TaskRequest(hub.hub_id, task_id, attempt, "chat", MODEL, body, stream, credit=64)


class Peer(Recorder):
    """A scripted agent or hub that can crash; its events are recorded here."""

    async def crash(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError


class ProcessPeer(Peer):
    """A peer in a process of its own, killed with SIGKILL and paused with SIGSTOP."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: PeerSpec) -> ProcessPeer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "anywire.testing.peer",
            msgspec.json.encode(spec).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        return cls(process)

    async def crash(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.send_signal(signal.SIGCONT)
        await self._ended()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self._process.returncode is None and self._process.stdin is not None:
            self.resume()
            self._process.stdin.close()
        await self._ended()

    async def _ended(self) -> None:
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.add(*json.loads(line))
        self.add("ended", await self._process.wait())


class LocalPeer(Peer):
    """A peer in this process, for transports that do not leave it; `crash` is the transport's own."""

    def __init__(self, transport: Any, spec: PeerSpec) -> None:
        super().__init__()
        self._transport, self._spec = transport, spec
        self._agent: Agent | None = None
        self._hub: Orchestrator | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        spec = self._spec
        if spec.role == "agent":
            engine = ScriptedEngine(self)
            info = agent_info(spec.id, engine=engine, lease=spec.lease)
            self._agent = Agent(info, engine, [self._transport], slots=spec.slots)
            await self._agent.start()
            self.add("ready", info.incarnation)
        else:
            self._hub = new_hub(spec, self._transport)
            await self._hub.start()
            self._reading = asyncio.create_task(self._submit(self._hub))

    async def _submit(self, hub: Orchestrator) -> None:
        async for chunk in hub.submit(Submission("chat", MODEL, self._spec.script.body(), stream=True)):
            self.add("chunk", "".join(chunk.deltas), chunk.final)

    async def crash(self) -> None:
        self._transport.crash()
        await self.stop()

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._agent is not None:
            await self._agent.close()
        if self._hub is not None:
            await self._hub.close()


class Rig:
    """Everything a test opens is closed when the test ends, whatever happens."""

    def __init__(self, transport: str, options: dict[str, Any], plugins: Sequence[str] = ()) -> None:
        self.name, self.options, self._sources = transport, options, list(plugins)
        self.plugins = Plugins()
        for source in plugins:
            self.plugins.add(source)
        self.transport_class: type[Transport] = self.plugins.load("transports", transport)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rig:
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._stack.aclose()

    def new_transport(self, **options: Any) -> Any:
        return self.plugins.create("transports", self.name, {**self.options, **options})

    async def hub(
        self, hub_id: str = "", *, plane: Plane = "agent", options: Mapping[str, Any] = {}
    ) -> tuple[Hub, RecordingHubSink, HubInfo]:
        sink, info = RecordingHubSink(), hub_info(hub_id)
        hub = await self.new_transport(**options).open_hub(info, plane, sink)
        self._stack.push_async_callback(hub.close)
        return hub, sink, info

    async def port(
        self,
        agent_id: str,
        on_task: Callable[[TaskRequest, Reply], None] | None = None,
        *,
        plane: Plane = "agent",
        options: Mapping[str, Any] = {},
    ) -> tuple[AgentPort, RecordingAgentSink, AgentInfo]:
        """A bare agent's end, announced and ready."""
        sink = RecordingAgentSink(on_task)
        info = AgentInfo(agent_id, new_incarnation(), capabilities=("chat",))
        port = await self.new_transport(**options).open_agent(info, plane, sink)
        self._stack.push_async_callback(port.close)
        port.report(AgentStatus(agent_id, info.incarnation, "ready", (MODEL,), 8))
        return port, sink, info

    async def agent(
        self, agent_id: str, *, slots: int = 64, lease: float = 1.0, engine: Engine | None = None
    ) -> tuple[Agent, Recorder]:
        """A whole agent, with a scripted engine unless another is given, and what a scripted engine does."""
        engine = engine or ScriptedEngine()
        info = agent_info(agent_id, engine=engine, lease=lease)
        agent = Agent(info, engine, [self.new_transport()], slots=slots, heartbeat_interval=lease / 4)
        await agent.start()
        self._stack.push_async_callback(agent.close)
        return agent, engine.recorder if isinstance(engine, ScriptedEngine) else Recorder()

    async def pipeline(self, *agents: str, only: str = "", **settings: Any) -> Orchestrator:
        """An orchestrator that has seen ``agents`` join, and sends to ``only`` one if that is given; ``settings`` are
        `PipelineConfig`'s."""
        config, selector = PipelineConfig(**settings), IdlestSelector(only)
        pipeline = Orchestrator(
            hub_info(), [self.new_transport()], ListScheduler(), selector, config=config, plugins=self.plugins
        )
        await pipeline.start()
        self._stack.push_async_callback(pipeline.close)
        await self.seen(pipeline, *agents)
        return pipeline

    async def fleet(self, pipeline: Orchestrator, plane: Plane) -> Agent:
        """The pipeline as an agent: of clients, or on plane ``agent`` of other pipelines."""
        agent = fleet_agent(pipeline, [self.new_transport()], plane)
        await agent.start()
        self._stack.push_async_callback(agent.close)
        return agent

    async def client(self, **settings: Any) -> Client:
        """A client; ``settings`` are `ClientConfig`'s."""
        client = Client(self.new_transport(), config=ClientConfig(**{"agent_wait": PATIENCE} | settings))
        return await self._stack.enter_async_context(client)

    async def seen(self, pipeline: Orchestrator, *agents: str, absent: Sequence[str] = ()) -> None:
        """Wait until the pipeline knows ``agents`` as ready and none of ``absent``."""

        def known(views: list[AgentView]) -> bool:
            ready = {agent.agent_id for agent in views if agent.status.state == "ready"}
            return set(agents) <= ready and not {agent.agent_id for agent in views} & set(absent)

        try:
            await asyncio.wait_for(pipeline.agents_until(known), PATIENCE)
        except TimeoutError:
            states = {agent.agent_id: agent.status.state for agent in pipeline.agents()}
            raise AssertionError(f"wanted {agents}, without {absent}; known are {states}") from None

    async def peer(self, role: Any, peer_id: str, **settings: Any) -> Any:
        """A peer that can crash: a process of its own where the transport leaves this one."""
        spec = PeerSpec(role, self.name, self.options, peer_id, self._sources, **settings)
        peer: Peer
        if self.transport_class.capabilities.inter_process:
            peer = await ProcessPeer.start(spec)
            self._stack.push_async_callback(peer.stop)
        else:
            peer = local = LocalPeer(self.new_transport(), spec)
            self._stack.push_async_callback(peer.stop)
            await local.start()
        return peer


def submit(pipeline: Orchestrator, script: Script, *, stream: bool = True, deadline_s: float = 0.0) -> TaskStream:
    return pipeline.submit(Submission("chat", MODEL, script.body(), stream, deadline_s=deadline_s))


async def read(stream: TaskStream) -> str:
    """The whole text of a stream."""
    return "".join([text async for chunk in stream for text in chunk.deltas])

"""The rig a conformance test works with: hubs, agents, pipelines and peer processes over one transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec

from anywire.access import Access
from anywire.engine import Engine
from anywire.identities.identity_proof import Identity
from anywire.identity import agent_info, hub_info, new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Command, HubInfo, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.roles.client import Client, ClientConfig
from anywire.roles.fleet import fleet_agent
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.checked import CheckedTransport
from anywire.testing.doubles import MODEL, OFFERS, Only, Script, ScriptedEngine, fifo, least_loaded
from anywire.testing.ledger import Ledger
from anywire.testing.patience import PATIENCE, Breaches, expect
from anywire.testing.peer import PeerSpec
from anywire.testing.peers import LocalPeer, Peer, ProcessPeer
from anywire.testing.recorder import Recorder, RecordingAgentSink, RecordingHubSink
from anywire.transport import AgentPort, Hub, Plane, Reply, Transport

__all__ = ["LocalPeer", "Peer", "ProcessPeer", "Rig", "read", "request", "submit"]

T = TypeVar("T")


def request(hub: HubInfo, task_id: str, *, body: str = "{}", attempt: int = 1, stream: bool = True) -> TaskRequest:
    return TaskRequest(hub.hub_id, task_id, attempt, "chat", MODEL, body, stream, credit=64)


class Rig:
    """Everything a test opens is closed when the test ends, whatever happens.

    Every end checks the laws (`anywire.testing.laws`). ``breaches`` has what they found: it fails the test, at the
    latest when the rig is left.
    """

    def __init__(self, transport: str, options: dict[str, Any], plugins: Sequence[str] = ()) -> None:
        self.name, self.options, self._sources = transport, options, list(plugins)
        self.plugins = Plugins()
        for source in plugins:
            self.plugins.add(source)
        self.transport_class: type[Transport] = self.plugins.load("transports", transport)
        self.breaches, self.ledger = Breaches(), Ledger()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rig:
        self.breaches.__enter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        try:
            await self._stack.aclose()
        finally:
            self.breaches.__exit__()
        if failure[0] is None:
            self.breaches.check_rest()

    def new_transport(self, **options: Any) -> Any:
        """An instance of the transport whose ends check the laws."""
        inner = self.plugins.create("transports", self.name, {**self.options, **options})
        return CheckedTransport(inner, self.breaches, self.ledger)

    def _close_later(self, what: str, close: Callable[[], Awaitable[None]]) -> None:
        async def close_in_time() -> None:
            # Not `expect`: a breach found earlier must not keep the rest from being closed.
            try:
                await asyncio.wait_for(close(), PATIENCE)
            except TimeoutError:
                raise AssertionError(f"did not happen within {PATIENCE:g} s: {what}'s close returned") from None

        self._stack.push_async_callback(close_in_time)

    async def hub(
        self,
        hub_id: str = "",
        *,
        plane: Plane = "agent",
        options: Mapping[str, Any] = {},
        incarnation: int = 0,
        lease: float = 1.0,
        transport: Any = None,
        protocol: str = "",
        proof: str = "",
        who: Identity | None = None,
        admits: Callable[[Plane, AgentInfo | HubInfo], str] | None = None,
    ) -> tuple[Hub, RecordingHubSink, HubInfo]:
        """A bare hub's end; ``incarnation`` 0 is a new one. ``transport`` is used instead of one with ``options``.
        ``who`` and ``admits`` are the ``identity`` and the ``admits`` of its transport."""
        sink, info = RecordingHubSink(), hub_info(hub_id, lease=lease)
        incarnation = incarnation or info.incarnation
        info = msgspec.structs.replace(info, incarnation=incarnation, protocol=protocol, proof=proof)
        transport = transport or self.new_transport(**options)
        if who is not None:
            transport.identity, transport.admits = who, admits
            info = msgspec.structs.replace(info, proof=who.prove(plane, "hub", info.hub_id, incarnation))
        hub = await _open(transport.open_hub(info, plane, sink), "open_hub")
        self._close_later("a hub", hub.close)
        return hub, sink, info

    async def port(
        self,
        agent_id: str,
        on_task: Callable[[TaskRequest, Reply], None] | None = None,
        *,
        on_command: Callable[[Command, Reply], None] | None = None,
        protocol: str = "",
        plane: Plane = "agent",
        options: Mapping[str, Any] = {},
        incarnation: int = 0,
        lease: float = 1.0,
        proof: str = "",
        who: Identity | None = None,
        admits: Callable[[Plane, AgentInfo | HubInfo], str] | None = None,
    ) -> tuple[AgentPort, RecordingAgentSink, AgentInfo]:
        """A bare agent's end, announced and ready; ``incarnation`` 0 is a new one. ``who`` and ``admits`` as for
        `hub`."""
        sink = RecordingAgentSink(on_task, on_command)
        incarnation = incarnation or new_incarnation()
        lease_ms = round(lease * 1000)
        info = AgentInfo(
            agent_id, incarnation, capabilities=("chat",), lease_ms=lease_ms, protocol=protocol, proof=proof
        )
        transport = self.new_transport(**options)
        if who is not None:
            transport.identity, transport.admits = who, admits
            info = msgspec.structs.replace(info, proof=who.prove(plane, "agent", agent_id, incarnation))
        port = await _open(transport.open_agent(info, plane, sink), "open_agent")
        self._close_later("an agent", port.close)
        port.report(AgentStatus(agent_id, info.incarnation, "ready", OFFERS, 8))
        return port, sink, info

    async def agent(
        self, agent_id: str, *, slots: int = 64, lease: float = 1.0, engine: Engine | None = None
    ) -> tuple[Agent, Recorder]:
        """A whole agent, with a scripted engine unless another is given, and what a scripted engine does."""
        engine = engine or ScriptedEngine()
        info = agent_info(agent_id, engine=engine, lease=lease)
        agent = Agent(info, engine, [self.new_transport()], slots=slots, heartbeat_interval=lease / 4)
        await agent.start()
        self._close_later("an agent", agent.close)
        return agent, engine.recorder if isinstance(engine, ScriptedEngine) else Recorder()

    async def pipeline(self, *agents: str, only: str = "", **settings: Any) -> Orchestrator:
        """An orchestrator that has seen ``agents`` join, and sends to ``only`` one if that is given; ``settings`` are
        `PipelineConfig`'s."""
        config, selector = PipelineConfig(**settings), (Only(only) if only else least_loaded())
        pipeline = Orchestrator(
            hub_info(), [self.new_transport()], fifo(), selector, config=config, plugins=self.plugins
        )
        await pipeline.start()
        self._close_later("a hub", pipeline.close)
        await self.seen(pipeline, *agents)
        return pipeline

    async def fleet(self, pipeline: Orchestrator, plane: Plane, access: Access | None = None) -> Agent:
        """The pipeline as an agent: of clients, whom ``access`` knows, or on plane ``agent`` of other pipelines."""
        agent = fleet_agent(pipeline, [self.new_transport()], plane, access=access)
        await agent.start()
        self._close_later("an agent", agent.close)
        return agent

    async def client(self, key: str = "", **settings: Any) -> Client:
        """A client with that API key, or with none; ``settings`` are `ClientConfig`'s."""
        config = ClientConfig(**{"agent_wait": PATIENCE} | settings)
        client = Client(self.new_transport(), config=config, key=key)
        return await self._stack.enter_async_context(client)

    async def seen(self, pipeline: Orchestrator, *agents: str, absent: Sequence[str] = ()) -> None:
        """Wait until the pipeline knows ``agents`` as ready and none of ``absent``."""

        def known(views: list[AgentView]) -> bool:
            ready = {agent.agent_id for agent in views if agent.status.state == "ready"}
            return set(agents) <= ready and not {agent.agent_id for agent in views} & set(absent)

        def states() -> str:
            return f"; known are { {agent.agent_id: agent.status.state for agent in pipeline.agents()} }"

        await expect(pipeline.agents_until(known), f"agents {agents} are ready and {absent} absent", seen=states)

    async def peer(self, role: Any, peer_id: str, *, options: Mapping[str, Any] = {}, **settings: Any) -> Any:
        """A peer that can crash, ready: a process of its own where the transport leaves this one. ``settings`` are
        `PeerSpec`'s."""
        spec = PeerSpec(role, self.name, {**self.options, **options}, peer_id, self._sources, **settings)
        peer: Peer
        if self.transport_class.capabilities.inter_process:
            peer = await ProcessPeer.start(spec, self.breaches)
            self._stack.push_async_callback(peer.stop)
            await peer.event("ready")
            peer.patience = PATIENCE
        else:
            peer = local = LocalPeer(self.new_transport(), spec)
            self._stack.push_async_callback(peer.stop)
            await local.start()
        return peer


def submit(pipeline: Orchestrator, script: Script, *, stream: bool = True, deadline_s: float = 0.0) -> TaskStream:
    return pipeline.submit(Submission("chat", MODEL, script.body(), stream, deadline_s=deadline_s))


async def read(stream: TaskStream) -> str:
    """The whole text of a stream. Raises `AssertionError` with what came when no chunk comes in time."""
    texts: list[str] = []

    def came() -> str:
        return f"; {len(texts)} deltas came, the last is {texts[-1:]}"

    while (chunk := await expect(anext(stream, None), "the next chunk of a stream", seen=came)) is not None:
        texts += chunk.deltas
    return "".join(texts)


async def _open(opening: Awaitable[T], what: str) -> T:
    """Not `expect`: an end that is open is closed later, also when a breach was found meanwhile."""
    try:
        return await asyncio.wait_for(opening, PATIENCE)
    except TimeoutError:
        raise AssertionError(f"did not happen within {PATIENCE:g} s: {what} returned") from None

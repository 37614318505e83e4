"""The reference transport: hubs and agents of one process, connected by their event loop.

It keeps the whole contract (order, bounds, joining and losing, several hubs and agents, both planes), so it is
what a transport author compares with and what tests use where the wire does not matter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import pydantic

from anywire.errors import AgentUnavailable, Congested, PayloadTooLarge
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, Drain, HubInfo, TaskRequest, ToAgent
from anywire.transport import AgentPort, AgentSink, Capabilities, Hub, HubSink, Plane, Transport

LOW_WATER = 256
HARD_BOUND = 4096


class MemoryConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    network: str = pydantic.Field(default="default", description="hubs and agents of one network see each other")
    max_message_bytes: int = pydantic.Field(default=64 * 1024 * 1024, ge=1)


class _Queue:
    """Messages one way between two ends: delivered in order, in one loop callback for all that wait."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._room: list[asyncio.Future[None]] = []
        self._scheduled = False
        self._closed = False

    def put(self, callback: Callable[..., None], *args: Any, bounded: bool = True) -> None:
        if bounded and len(self._waiting) >= HARD_BOUND:
            raise Congested(f"{HARD_BOUND} messages wait for this peer already")
        self._waiting.append((callback, args))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    async def drain(self) -> None:
        while len(self._waiting) >= LOW_WATER and not self._closed:
            room = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room

    def close(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._make_room()

    def _deliver(self) -> None:
        self._scheduled = False
        for _ in range(len(self._waiting)):
            callback, args = self._waiting.popleft()
            callback(*args)
            if self._closed:
                return
        self._make_room()
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _make_room(self) -> None:
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()


class _Link:
    """One agent reached by one hub: a queue each way."""

    def __init__(self, hub: MemoryHub, port: MemoryPort) -> None:
        self.hub, self.port = hub, port
        self.down, self.up = _Queue(), _Queue()
        self.open = True

    def send(self, chunk: Chunk) -> None:
        if not self.open:
            return
        size = sum(map(len, chunk.deltas)) + len(chunk.extra)
        _check_size(size, self.port.transport.config.max_message_bytes)
        self.up.put(self.hub.sink.chunk_received, self.port.info.agent_id, self.port.info.incarnation, chunk)

    async def drain(self) -> None:
        await self.up.drain()

    def cut(self, reason: str, *, tell_hub: bool, tell_agent: bool) -> None:
        if not self.open:
            return
        self.open = False
        info = self.port.info
        self.hub.links.pop(info.agent_id, None)
        self.port.links.pop(self.hub.info.hub_id, None)
        # What was accepted before the cut is delivered before the loss is told.
        if tell_hub:
            self.up.put(self.hub.sink.agent_lost, info.agent_id, info.incarnation, reason, bounded=False)
        else:
            self.up.close()
        if tell_agent:
            self.down.put(
                self.port.sink.hub_lost, self.hub.info.hub_id, self.hub.info.incarnation, reason, bounded=False
            )
        else:
            self.down.close()


class _Network:
    def __init__(self) -> None:
        self.hubs: list[MemoryHub] = []
        self.ports: list[MemoryPort] = []

    def connect(self, hub: MemoryHub, port: MemoryPort) -> None:
        if hub.plane != port.plane or port.newest is None:
            return
        older = hub.links.get(port.info.agent_id)
        if older is not None:
            older.cut("superseded by a new incarnation", tell_hub=True, tell_agent=True)
        link = _Link(hub, port)
        hub.links[port.info.agent_id] = link
        port.links[hub.info.hub_id] = link
        link.down.put(port.sink.hub_joined, hub.info.hub_id, hub.info.incarnation, bounded=False)
        link.up.put(hub.sink.agent_joined, port.info, bounded=False)
        link.up.put(hub.sink.agent_reported, port.info.agent_id, port.info.incarnation, port.newest, bounded=False)


_networks: dict[str, _Network] = {}


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise PayloadTooLarge(f"{size} bytes are over this transport's limit of {limit} (max_message_bytes)")


class MemoryHub(Hub):
    def __init__(self, transport: MemoryTransport, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        self.transport, self.info, self.plane, self.sink = transport, info, plane, sink
        self.links: dict[str, _Link] = {}

    def send(self, agent_id: str, message: ToAgent) -> None:
        link = self.links.get(agent_id)
        if link is None:
            raise AgentUnavailable(f"no link to agent {agent_id!r} over memory", agent_id=agent_id)
        hub = (self.info.hub_id, self.info.incarnation)
        if isinstance(message, TaskRequest):
            _check_size(len(message.body) + len(message.resume), self.transport.config.max_message_bytes)
            link.down.put(link.port.sink.task_received, *hub, message, link)
        elif isinstance(message, Cancel):
            link.down.put(link.port.sink.cancel_received, *hub, message, bounded=False)
        elif isinstance(message, Credit):
            link.down.put(link.port.sink.credit_received, *hub, message, bounded=False)
        elif isinstance(message, Drain):
            link.down.put(link.port.sink.drain_requested, *hub, message.reason, bounded=False)

    async def drain(self, agent_id: str) -> None:
        link = self.links.get(agent_id)
        if link is not None:
            await link.down.drain()

    async def close(self) -> None:
        self.vanish("hub closed")

    def vanish(self, reason: str) -> None:
        if self in self.transport.network.hubs:
            self.transport.network.hubs.remove(self)
        for link in list(self.links.values()):
            link.cut(reason, tell_hub=False, tell_agent=True)


class MemoryPort(AgentPort):
    def __init__(self, transport: MemoryTransport, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        self.transport, self.info, self.plane, self.sink = transport, info, plane, sink
        self.links: dict[str, _Link] = {}
        self.newest: AgentStatus | None = None
        self.open = True

    def report(self, status: AgentStatus) -> None:
        if not self.open:
            return
        first, self.newest = self.newest is None, status
        if first:
            network = self.transport.network
            network.ports.append(self)
            for hub in list(network.hubs):
                network.connect(hub, self)
            return
        for link in self.links.values():
            link.up.put(link.hub.sink.agent_reported, self.info.agent_id, self.info.incarnation, status, bounded=False)

    async def close(self) -> None:
        self.vanish("agent closed")

    def vanish(self, reason: str) -> None:
        self.open = False
        if self in self.transport.network.ports:
            self.transport.network.ports.remove(self)
        for link in list(self.links.values()):
            link.cut(reason, tell_hub=True, tell_agent=False)


class MemoryTransport(Transport):
    name: ClassVar[str] = "memory"
    Config = MemoryConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        liveliness="native", discovery="native", max_message_bytes=64 * 1024 * 1024, inter_process=False
    )
    config: MemoryConfig

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        self.network = _networks.setdefault(config.network, _Network())
        self._ends: list[MemoryHub | MemoryPort] = []

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        end = MemoryHub(self, hub, plane, sink)
        self._ends.append(end)
        self.network.hubs.append(end)
        for port in list(self.network.ports):
            self.network.connect(end, port)
        return end

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        end = MemoryPort(self, info, plane, sink)
        self._ends.append(end)
        return end

    def crash(self) -> None:
        """End everything opened through this instance without a goodbye, as if its process had died; for tests."""
        for end in self._ends:
            end.vanish("crashed")

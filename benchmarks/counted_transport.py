"""Transports with a count of the messages that go over them: the arithmetic of pages is held against it."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from anywire.builtin.memory import MemoryTransport
from anywire.messages import AgentStatus, Chunk, HubInfo, ToAgent
from anywire.transport import Hub, HubSink, Plane, Transport
from anywire.transport_tools import payload_bytes


class Counting(Transport):
    """Comes before the transport whose hub's messages it counts by kind, with their payload."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.messages = Counter[str]()
        self.bytes = 0

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        opened = super().open_hub(hub, plane, cast("HubSink", CountedSink(sink, self)))  # type: ignore[safe-super]
        return CountedHub(await opened, self)

    def count(self, message: Any) -> None:
        self.messages[type(message).__name__] += 1
        self.bytes += payload_bytes(message)


class Counted(Counting, MemoryTransport):
    """The transport ``memory``."""


class CountedHub(Hub):
    def __init__(self, inner: Hub, transport: Counting) -> None:
        self._inner, self._transport = inner, transport

    def send(self, agent_id: str, message: ToAgent) -> None:
        self._inner.send(agent_id, message)
        self._transport.count(message)

    async def drain(self, agent_id: str) -> None:
        await self._inner.drain(agent_id)

    async def close(self) -> None:
        await self._inner.close()


class CountedSink:
    """A `HubSink` that counts, then calls ``inner``."""

    def __init__(self, inner: HubSink, transport: Counting) -> None:
        self._inner, self._transport = inner, transport

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self._transport.count(chunk)
        self._inner.chunk_received(agent_id, incarnation, chunk)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self._transport.messages["AgentStatus"] += 1
        self._inner.agent_reported(agent_id, incarnation, status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

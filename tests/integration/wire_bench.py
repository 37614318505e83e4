"""Where a transport is tested by itself: hubs and ports without a pipeline, and what is sent between them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from tests.integration.wire_faults import Log, Proxy

from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.offers import offers, offers_text
from anywire.plugins import Plugins
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.transport import AgentPort, Hub, Plane


class Bench:
    """Opens hubs and ports of the transport named, and closes them with ``stack``."""

    proxies: type[Proxy] = Proxy

    def __init__(self, stack: AsyncExitStack, name: str) -> None:
        self.stack, self._name = stack, name

    def transport(self, **options: Any) -> Any:
        return Plugins().create("transports", self._name, options)

    async def hub(
        self,
        hub_id: str = "h",
        *,
        plane: Plane = "agent",
        incarnation: int = 0,
        lease_ms: int = 1000,
        protocol: str = "",
        **options: Any,
    ) -> tuple[Hub, RecordingHubSink]:
        sink = RecordingHubSink()
        info = HubInfo(hub_id, incarnation or new_incarnation(), lease_ms=lease_ms, protocol=protocol)
        hub = await self.transport(**options).open_hub(info, plane, sink)
        self.stack.push_async_callback(hub.close)
        return hub, sink

    async def port(
        self,
        agent_id: str = "a",
        on_task: Any = None,
        *,
        plane: Plane = "agent",
        incarnation: int = 0,
        lease_ms: int = 1000,
        protocol: str = "",
        **options: Any,
    ) -> tuple[AgentPort, RecordingAgentSink, AgentInfo]:
        sink = RecordingAgentSink(on_task)
        info = AgentInfo(agent_id, incarnation or new_incarnation(), lease_ms=lease_ms, protocol=protocol)
        port = await self.transport(**options).open_agent(info, plane, sink)
        self.stack.push_async_callback(port.close)
        port.report(AgentStatus(agent_id, info.incarnation, offers=offers_text(offers("m"))))
        return port, sink, info

    async def proxy(self, target: int) -> Any:
        proxy = self.proxies(target)
        await proxy.start()
        self.stack.push_async_callback(proxy.close)
        return proxy


@contextmanager
def log_of(package: str) -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger(package)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def request(task_id: str, hub_id: str = "h", body: str = "{}", attempt: int = 1) -> TaskRequest:
    return TaskRequest(hub_id, task_id, attempt, "chat", "m", body, True, credit=64)


def final(task: TaskRequest, text: str = "") -> Chunk:
    return Chunk(task.hub_id, task.task_id, task.attempt, 0, (text,), final=True, finish_reason="stop")


def echo(task: TaskRequest, reply: Any) -> None:
    reply.send(final(task, task.body))

"""Transports whose difference from ZeroMQ is known beforehand: none, and 100 µs a task. They test the instrument."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from anywire.hookspecs import hookimpl
from anywire.messages import HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_zeromq import ZeromqTransport

ADDED = 100e-6
"""Seconds that `SlowedZeromq` takes more for a task."""


class ZeromqAgain(ZeromqTransport):
    """The same under another name."""

    name: ClassVar[str] = "zeromq_again"


class SlowedZeromq(ZeromqTransport):
    """The same, and busy for a known time before it sends a task."""

    name: ClassVar[str] = "zeromq_100us"

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        return _Slowed(await super().open_hub(hub, plane, sink))


class _Slowed(Hub):
    def __init__(self, inner: Hub) -> None:
        self._inner = inner

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest):
            until = time.perf_counter() + ADDED
            while time.perf_counter() < until:
                pass
        self._inner.send(agent_id, message)

    async def drain(self, agent_id: str) -> None:
        await self._inner.drain(agent_id)

    async def close(self) -> None:
        await self._inner.close()


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    made: dict[str, type] = {each.name: each for each in (ZeromqAgain, SlowedZeromq)}
    return made if kind == "transports" else None

"""The DDS transport with a reader that polls: what many programs do, to be measured beside the one that is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ClassVar

from anywire.hookspecs import hookimpl
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Hub, HubSink, Plane
from anywire_dds import DdsTransport, endpoints
from anywire_dds.wakeup import Wakeup

EVERY = 0.020
"""Seconds from one look to the next."""


class PollingWakeup(Wakeup):
    """Nobody is woken: every reader is looked at in turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._callbacks: list[Callable[[], object]] = []
        self._timer = loop.call_later(EVERY, self._look)

    def watch(self, reader: int, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def stop(self) -> None:
        self._timer.cancel()
        self._callbacks.clear()
        super().stop()

    def _look(self) -> None:
        self._timer = self._loop.call_later(EVERY, self._look)
        for callback in tuple(self._callbacks):
            callback()


class PollingDdsTransport(DdsTransport):
    name: ClassVar[str] = "dds_polling"

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        self._poll()
        return await super().open_hub(hub, plane, sink)

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        self._poll()
        return await super().open_agent(info, plane, sink)

    @staticmethod
    def _poll() -> None:
        # A process of an experiment has one transport, so the whole process may poll.
        vars(endpoints)["Wakeup"] = PollingWakeup


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {"dds_polling": PollingDdsTransport} if kind == "transports" else None

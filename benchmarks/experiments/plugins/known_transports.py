"""Transports whose difference from ZeroMQ is known beforehand: none, 100 µs a task, and what a test has planted. They
test the instrument.

The file that the environment variable `FILE` names, when there is one, says in JSON how many seconds more each
transport takes for a task, by its name. It is read when a hub is opened, so each cell may be given other ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from anywire.hookspecs import hookimpl
from anywire.messages import HubInfo, TaskRequest, ToAgent
from anywire.transport import Hub, HubSink, Plane
from anywire_zeromq import ZeromqTransport

FILE = "KNOWN_TRANSPORTS"


class ZeromqAgain(ZeromqTransport):
    """The same under another name, and busy for as long as was planted before it sends a task."""

    name: ClassVar[str] = "zeromq_again"
    added: ClassVar[float] = 0.0
    """Seconds that it is busy for without anything planted."""

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        inner = await super().open_hub(hub, plane, sink)
        seconds = self.added + _planted(self.name)
        return _Slowed(inner, seconds) if seconds else inner


class ZeromqTwin(ZeromqAgain):
    """The same under a third name."""

    name: ClassVar[str] = "zeromq_twin"


class SlowedZeromq(ZeromqAgain):
    """The same, and busy for a known time."""

    name: ClassVar[str] = "zeromq_100us"
    added: ClassVar[float] = 100e-6


def _planted(name: str) -> float:
    file = os.environ.get(FILE)
    return float(json.loads(Path(file).read_text()).get(name, 0.0)) if file else 0.0


class _Slowed(Hub):
    def __init__(self, inner: Hub, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest):
            until = time.perf_counter() + self._seconds
            while time.perf_counter() < until:
                pass
        self._inner.send(agent_id, message)

    async def drain(self, agent_id: str) -> None:
        await self._inner.drain(agent_id)

    async def close(self) -> None:
        await self._inner.close()


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    made: dict[str, type] = {each.name: each for each in (ZeromqAgain, ZeromqTwin, SlowedZeromq)}
    return made if kind == "transports" else None

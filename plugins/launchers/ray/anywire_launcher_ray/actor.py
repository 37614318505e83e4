"""The actor: one agent's process on a node of the cluster, kept running there.

The agent runs in a process of its own below the actor's worker, as the launcher ``local`` starts it. It is started
again here when it ends; Ray starts the actor again, on another node if need be, when the worker or the node is lost.
This module does not import Ray: `anywire_launcher_ray.driver` makes one of `AgentActor`.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta

from anywire.builtin.local import LocalProcess
from anywire.clock import SystemClock
from anywire.errors import LaunchFailed
from anywire.lease import AwakeTime, Silence
from anywire_launcher_ray.messages import MAX_LINES, Count, Name, shortened
from anywire_launcher_ray.sealed import SealError, SealKey

SILENT_LEASES = 2.0
"""Leases without a question from the driver, after which the agent is stopped."""
LAST_LEASES = 1.0
"""Leases that it has to stop then, before it is killed."""


class Hello(msgspec.Struct, frozen=True):
    """A life of an actor: its random name, the key to seal with, the name of its machine, and the id and the address of
    its node."""

    life: Name
    key: bytes
    host: Name
    node: str
    address: str


class State(msgspec.Struct, frozen=True):
    """How the agent's process is. ``change`` and ``line`` are what to ask with next time. ``ended`` tells why it is
    not started again here."""

    life: Name
    change: int
    line: int
    pid: Count = 0
    restarts: Count = 0
    ready: bool = False
    ended: str | None = None
    lines: Annotated[list[str], Meta(max_length=MAX_LINES)] = []


class AgentActor:
    """What the driver asks of one agent, in bytes: no class of this package travels through the cluster."""

    def __init__(self, name: str, role: str, lease: float) -> None:
        self._name, self._role, self._lease = name, role, lease
        self._life, self._key = secrets.token_hex(8), SealKey()
        self._process: LocalProcess | None = None
        self._silence: Silence | None = None
        self._stopped: str | None = None
        self._ready = False
        self._change = 0
        self._changed: asyncio.Event | None = None
        self._line = 0
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._tasks: set[asyncio.Task[None]] = set()

    async def hello(self) -> bytes:
        """Its `Hello`."""
        return msgspec.msgpack.encode(Hello(self._life, self._key.public, socket.gethostname(), *self.where()))

    def where(self) -> tuple[str, str]:
        """The id and the address of its node."""
        return "", ""

    async def begin(self, sealed: bytes) -> None:
        """Start the agent with the configuration that was sealed for this life; a second call changes nothing."""
        if self._process is not None or self._stopped is not None:
            return
        try:
            config = self._key.open(sealed).decode()
        except (SealError, UnicodeDecodeError) as error:
            self._stopped = f"its configuration did not arrive: {error}"
            return
        command = [sys.executable, "-m", "anywire.roles.process", self._role]
        self._process = LocalProcess(self._name, command, config, self._tell, self._logged)
        self._process.begin()
        self._silence = Silence(AwakeTime(SystemClock()), SILENT_LEASES * self._lease, self._driver_is_gone)
        for watch in (self._watch_ready(self._process), self._watch_end(self._process)):
            self._keep(asyncio.create_task(watch))

    async def report(self, change: int, line: int, wait: float) -> bytes:
        """Its `State`, once that is another than ``change`` or has lines from ``line`` on, or after ``wait``
        seconds."""
        if self._silence is not None:
            self._silence.heard()
        if change == self._change and line == self._line:
            self._changed = self._changed or asyncio.Event()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
        process = self._process
        new = min(self._line - line, len(self._lines)) if 0 <= line <= self._line else len(self._lines)
        return msgspec.msgpack.encode(
            State(
                self._life,
                self._change,
                self._line,
                process.pid if process is not None else 0,
                process.restarts if process is not None else 0,
                self._ready,
                self._stopped,
                list(self._lines)[len(self._lines) - new :],
            )
        )

    async def stop(self, grace: float) -> str:
        """Stop the agent, and kill it after ``grace`` seconds; how it ended, once nothing of it is left."""
        if self._silence is not None:
            self._silence.cancel()
        if self._process is None:
            return "stopped (it had not begun)"
        await self._process.stop(grace)
        return await self._process.ended()

    def _driver_is_gone(self) -> None:
        self._keep(asyncio.create_task(self._end_alone()))

    async def _end_alone(self) -> None:
        if self._process is not None:
            await self._process.stop(LAST_LEASES * self._lease)

    async def _watch_ready(self, process: LocalProcess) -> None:
        try:
            await process.ready()
        except LaunchFailed:
            return  # what ended it is told by `_watch_end`
        self._ready = True
        self._tell()

    async def _watch_end(self, process: LocalProcess) -> None:
        self._stopped = await process.ended()
        self._tell()

    def _logged(self, name: str, line: str) -> None:
        self._lines.append(shortened(line))
        self._line += 1
        self._wake()

    def _tell(self) -> None:
        self._change += 1
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

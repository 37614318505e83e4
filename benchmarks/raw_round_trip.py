"""The `Transport` contract by itself: a bare hub here and a bare agent that echoes, in another process unless the
transport stays inside of one. No pipeline and no engine.

``python benchmarks/raw_round_trip.py TRANSPORT OPTIONS`` is that agent; it ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from anywire.errors import AnywireError
from anywire.identity import new_incarnation
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.plugins import Plugins
from anywire.transport import Reply
from transport_stack import IN_FLIGHT, PATIENCE, new_event_loop

BODY = "x" * 300
LEASE_MS = 10_000


class RoundTrips:
    """An open pair of ends. `send` starts a round trip with `body`; `arrived` is called when one is complete, `failed`
    when one never will be."""

    def __init__(self) -> None:
        self.body = BODY
        self.send: Callable[[], object] = lambda: None
        self.arrived: Callable[[], None] = lambda: None
        self.ready = asyncio.Event()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(self, error: AnywireError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    async def one(self) -> float:
        """Seconds of one round trip with nothing else on its way."""
        done = self._done = asyncio.get_running_loop().create_future()
        self.arrived = lambda: done.set_result(None)
        started = time.perf_counter()
        self.send()
        await done
        return time.perf_counter() - started

    async def many(self, count: int, in_flight: int = IN_FLIGHT) -> float:
        """Round trips per second, over ``count`` of them, with ``in_flight`` on their way."""
        done = self._done = asyncio.get_running_loop().create_future()
        left, arrived = count - in_flight, 0

        def again() -> None:
            nonlocal left, arrived
            arrived += 1
            if left > 0:
                left -= 1
                self.send()
            if arrived == count:
                done.set_result(None)

        self.arrived = again
        started = time.perf_counter()
        for _ in range(in_flight):
            self.send()
        await done
        return count / (time.perf_counter() - started)


class _Ends:
    """Sinks of both ends."""

    def __init__(self, trips: RoundTrips) -> None:
        self.trips = trips

    def agent_joined(self, info: AgentInfo) -> None:
        self.trips.ready.set()

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self.trips.arrived()

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, 1, 0, (task.body,), final=True))

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        self.trips.failed(error)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...
    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None: ...
    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None: ...
    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None: ...
    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None: ...
    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None: ...
    def hub_joined(self, info: HubInfo) -> None: ...
    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...


async def _open_echo(transport: str, options: dict[str, Any]) -> Callable[[], Awaitable[None]]:
    info = AgentInfo("echo", new_incarnation(), lease_ms=LEASE_MS)
    port = await Plugins().create("transports", transport, options).open_agent(info, "agent", _Ends(RoundTrips()))
    port.report(AgentStatus("echo", info.incarnation))
    close: Callable[[], Awaitable[None]] = port.close
    return close


async def serve_echo(transport: str, options: dict[str, Any]) -> None:
    """An agent that echoes until the parent is done, or gone."""
    close = await _open_echo(transport, options)
    await until_stdin_ends()
    await close()


async def until_stdin_ends() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _start_echo(transport: str, options: dict[str, Any]) -> Callable[[], Awaitable[None]]:
    if not Plugins().load("transports", transport).capabilities.inter_process:
        return await _open_echo(transport, options)
    command = (sys.executable, __file__, transport, json.dumps(options))
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)

    async def stop() -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()

    return stop


@asynccontextmanager
async def round_trips(transport: str, options: dict[str, Any]) -> AsyncIterator[RoundTrips]:
    """A hub here that an echo has joined."""
    trips, sent = RoundTrips(), 0
    made = Plugins().create("transports", transport, options)
    hub = await made.open_hub(HubInfo("hub", new_incarnation(), lease_ms=LEASE_MS), "agent", _Ends(trips))

    def send() -> None:
        nonlocal sent
        sent += 1
        hub.send("echo", TaskRequest("hub", f"task-{sent}", 1, "chat", "model", trips.body, True))

    trips.send = send
    try:
        stop = await _start_echo(transport, options)
        try:
            await asyncio.wait_for(trips.ready.wait(), PATIENCE)
            yield trips
        finally:
            await stop()
    finally:
        await hub.close()


def main() -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve_echo(sys.argv[1], json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()

"""What ``anywire doctor`` opens on a transport: a hub, an agent that answers whatever it is sent, and an agent that
looks for orchestrators.

Both agents report themselves as draining and without a model: an orchestrator that sees them never sends them a task.
Run as ``python -m anywire.cli.probe TRANSPORT AGENT_ID``, the configuration on standard input, until that ends, this is
the answering agent in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from anywire.builtin.local import LocalProcess
from anywire.config import Config, with_transport_options
from anywire.errors import AnywireError, LaunchFailed
from anywire.identity import boot_id, hub_info, new_incarnation
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
from anywire.roles import assembly, logs
from anywire.roles.parent import inherited_config, stop_with_parent
from anywire.roles.stop import Stop, run
from anywire.transport import AgentPort, Reply, Transport

DISCOVERY = 10.0
"""Seconds for the far end to start, and for the two to find each other."""
HUB_PREFIX = "doctor-"
"""How the ids of the doctor's own hubs begin, by which they are told from orchestrators."""


class _HubSink:
    """What the doctor's hub is told of the one agent it looks for."""

    def __init__(self, agent_id: str) -> None:
        loop = asyncio.get_running_loop()
        self._agent_id = agent_id
        self.joined: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[str] = loop.create_future()

    def agent_joined(self, info: AgentInfo) -> None:
        if info.agent_id == self._agent_id and not self.joined.done():
            self.joined.set_result(None)

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...

    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None: ...
    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None: ...

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        if not self.answered.done():
            self.answered.set_result("".join(chunk.deltas))

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


class _Echo:
    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True, finish_reason="stop"))

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None: ...
    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None: ...
    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None: ...
    def hub_joined(self, info: HubInfo) -> None: ...
    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...


class _Lookout(_Echo):
    """Knows the first orchestrator that has linked this agent."""

    def __init__(self) -> None:
        self.seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hub_joined(self, info: HubInfo) -> None:
        if not info.hub_id.startswith(HUB_PREFIX) and not self.seen.done():
            self.seen.set_result(info.hub_id)


async def open_echo(transport: Transport, agent_id: str, lease: float) -> AgentPort:
    """Announce the answering agent over ``transport``. Raises `TransportUnavailable`."""
    return await _announce(transport, agent_id, lease, _Echo())


def agent_id(of: str) -> str:
    """The id of an agent that this process opens, ``of`` saying what for."""
    return f"doctor-{of}-{socket.gethostname()}-{os.getpid()}"


async def exchange(config: Config, plugins: Plugins, transport: Transport) -> str:
    """Open a hub here and an agent beside it, send a message both ways, and say how long that took. Raises
    TimeoutError when they do not find each other, and what the transport raises."""
    echo_id = agent_id("echo")
    info = hub_info(f"{HUB_PREFIX}{socket.gethostname()}-{os.getpid()}", lease=config.lease.timeout)
    sink = _HubSink(echo_id)
    hub = await transport.open_hub(info, "agent", sink)
    config = with_transport_options(config, {transport.name: transport.meeting_options("127.0.0.1")})
    try:
        async with _far_end(config, plugins, transport, echo_id) as (where, failing):
            began = time.perf_counter()
            await _before(sink.joined, failing)
            found = time.perf_counter()
            hub.send(echo_id, TaskRequest(info.hub_id, "doctor", 1, "chat", "doctor", "{}"))
            await _before(sink.answered, failing)
            answered = time.perf_counter()
    finally:
        await hub.close()
    round_trip = 1000 * (answered - found)
    return f"an agent {where} was found in {found - began:.2f} s, the first round trip took {round_trip:.1f} ms"


@asynccontextmanager
async def _far_end(
    config: Config, plugins: Plugins, transport: Transport, agent_id: str
) -> AsyncIterator[tuple[str, asyncio.Future[Any]]]:
    """An agent that answers, in another process where the transport reaches one; and what fails when that does."""
    if transport.capabilities.inter_process:
        command = [sys.executable, "-m", "anywire.cli.probe", transport.name, agent_id]
        process = LocalProcess(agent_id, command, config.model_dump_json())
        process.begin()
        ending = asyncio.ensure_future(_fail_with(process))
        try:
            async with asyncio.timeout(DISCOVERY):
                await process.ready()
            yield "in another process", ending
        finally:
            ending.cancel()
            await process.stop(5.0)
        return
    choice = config.transport(transport.name)
    other: Transport = plugins.create("transports", transport.name, choice.options if choice else {})
    port = await open_echo(other, agent_id, config.lease.timeout)
    try:
        yield "in this process", asyncio.get_running_loop().create_future()
    finally:
        await port.close()


async def _fail_with(process: LocalProcess) -> None:
    await process.ready()
    raise LaunchFailed(f"{process.name} ended: {await process.ended()}")


async def _before(wanted: asyncio.Future[Any], failing: asyncio.Future[Any]) -> None:
    """Wait for ``wanted``; raises what ``failing`` raised if that came first, or TimeoutError."""
    async with asyncio.timeout(DISCOVERY):
        await asyncio.wait((wanted, failing), return_when=asyncio.FIRST_COMPLETED)
    if not wanted.done():
        failing.result()
    wanted.result()


async def orchestrator_seen(transport: Transport, look_id: str, lease: float, patience: float) -> str:
    """The id of an orchestrator that an agent here meets over ``transport``; empty when none has linked it within
    ``patience`` seconds. Raises `TransportUnavailable`."""
    lookout = _Lookout()
    port = await _announce(transport, look_id, lease, lookout)
    try:
        async with asyncio.timeout(patience):
            return await lookout.seen
    except TimeoutError:
        return ""
    finally:
        await port.close()


def meeting_point(transport: Transport) -> str:
    """The options, by their usual names, that agents and orchestrators must share to meet: `` in domain 7``."""
    told = ""
    for option, word in (("domain", "in domain"), ("fleet", "and fleet"), ("agent_addresses", "at")):
        value = getattr(transport.config, option, None)
        if value not in (None, "", []):
            told += f" {word} {', '.join(map(str, value)) if isinstance(value, list) else value}"
    return told


def meeting_remedy(transport: Transport) -> str:
    """What to compare when an orchestrator that runs is not seen."""
    name = transport.name
    begin = f"if one should run, compare transports.{name} as `anywire config` shows it there and here"
    match transport.capabilities.discovery:
        case "native":
            shared = [each for each in ("domain", "fleet") if each in type(transport.config).model_fields]
            same = f"the same {' and '.join(shared)}, and " if shared else ""
            return f"{begin}: it must use {same}the same network (interface, peers, multicast), its UDP ports open"
        case "directory":
            return (
                f"{begin}: it must listen on one of these addresses, be reachable from here, and accept this end's "
                "token or keys; whom it refuses is in its log"
            )
        case _:
            return f"{begin}: it must use the same broker"


async def _announce(transport: Transport, agent_id: str, lease: float, sink: _Echo) -> AgentPort:
    info = AgentInfo(
        agent_id,
        new_incarnation(),
        host=socket.gethostname(),
        pid=os.getpid(),
        engine="doctor",
        boot_id=boot_id(),
        lease_ms=round(lease * 1000),
    )
    if (identity := transport.identity) is not None:
        info = msgspec.structs.replace(info, proof=identity.prove("agent", "agent", agent_id, info.incarnation))
    port = await transport.open_agent(info, "agent", sink)
    port.report(AgentStatus(agent_id, info.incarnation, "draining", detail="a check by `anywire doctor`"))
    return port


def main() -> None:
    name, agent_id = sys.argv[1:]
    config = inherited_config()
    logs.configure("warning")
    choice = config.transport(name)
    assert choice is not None
    transport: Transport = assembly.load_plugins(config).create("transports", name, choice.options)

    async def role(stop: Stop) -> None:
        stop_with_parent(stop)
        port = await stop.unless(open_echo(transport, agent_id, config.lease.timeout))
        print(f"ready: {agent_id}", flush=True)
        await stop.wait()
        await port.close()

    try:
        run(role)
    except AnywireError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

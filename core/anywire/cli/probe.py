"""The agents of ``anywire doctor``: one that answers whatever it is sent, in a process of its own, and one that looks
for orchestrators.

Both report themselves as draining and without a model, so an orchestrator that sees them never sends them a task.
Run as ``python -m anywire.cli.probe TRANSPORT AGENT_ID``, the configuration on standard input, until that ends.
"""

from __future__ import annotations

import asyncio
import sys

from anywire import assembly
from anywire.cli import eventloop, logs, supervision
from anywire.errors import AnywireError
from anywire.identity import boot_id, new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, TaskRequest
from anywire.transport import AgentPort, Reply, Transport

HUB_PREFIX = "doctor-"
"""How the ids of the doctor's own hubs begin, by which they are told from orchestrators."""


class _Echo:
    def task_received(self, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True, finish_reason="stop"))

    def cancel_received(self, cancel: Cancel) -> None: ...
    def credit_received(self, credit: Credit) -> None: ...
    def drain_requested(self, reason: str) -> None: ...
    def hub_joined(self, hub_id: str, incarnation: int) -> None: ...
    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...


class _Lookout(_Echo):
    """Knows the first orchestrator that has linked this agent."""

    def __init__(self) -> None:
        self.seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hub_joined(self, hub_id: str, incarnation: int) -> None:
        if not hub_id.startswith(HUB_PREFIX) and not self.seen.done():
            self.seen.set_result(hub_id)


async def open_echo(transport: Transport, agent_id: str, lease: float) -> AgentPort:
    """Announce the answering agent over ``transport``. Raises `TransportUnavailable`."""
    return await _announce(transport, agent_id, lease, _Echo())


async def orchestrator_seen(transport: Transport, agent_id: str, lease: float, patience: float) -> str:
    """The id of an orchestrator that an agent here meets over ``transport``; empty when none has linked it within
    ``patience`` seconds. Raises `TransportUnavailable`."""
    lookout = _Lookout()
    port = await _announce(transport, agent_id, lease, lookout)
    try:
        async with asyncio.timeout(patience):
            return await lookout.seen
    except TimeoutError:
        return ""
    finally:
        await port.close()


async def _announce(transport: Transport, agent_id: str, lease: float, sink: _Echo) -> AgentPort:
    info = AgentInfo(agent_id, new_incarnation(), engine="doctor", boot_id=boot_id(), lease_ms=round(lease * 1000))
    port = await transport.open_agent(info, "agent", sink)
    port.report(AgentStatus(agent_id, info.incarnation, "draining", detail="a check by `anywire doctor`"))
    return port


def main() -> None:
    name, agent_id = sys.argv[1:]
    config = supervision.inherited_config()
    logs.configure("warning")
    choice = config.transport(name)
    assert choice is not None
    transport: Transport = assembly.load_plugins(config).create("transports", name, choice.options)

    async def role(stop: eventloop.Stop) -> None:
        supervision.stop_with_parent(stop)
        port = await stop.unless(open_echo(transport, agent_id, config.agents.timeout))
        print(f"ready: {agent_id}", flush=True)
        await stop.wait()
        await port.close()

    try:
        eventloop.run(role)
    except AnywireError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

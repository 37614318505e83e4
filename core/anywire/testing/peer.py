"""A peer of the kit in a process of its own, so that it can really be killed or paused.

``python -m anywire.testing.peer '{"role": "agent", …}'`` runs a scripted agent, or an orchestrator or a client
that submits one script, and writes what happens as JSON lines; a bare end does what it is ordered to
(`anywire.testing.bare_peer`). It ends with its parent: at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

import msgspec

from anywire.identity import agent_info, hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.bare_peer import BareAgent, BareHub, checked, obey_orders
from anywire.testing.doubles import MODEL, Script, ScriptedEngine, fifo, least_loaded
from anywire.testing.recorder import Recorder
from anywire.transport import Plane, Transport


class PeerSpec(msgspec.Struct, frozen=True):
    """What a peer is to be: transport and options as in a config; ``script`` is what a hub or client submits."""

    role: Literal["agent", "hub", "client", "bare_agent", "bare_hub"]
    transport: str
    options: dict[str, Any]
    id: str
    plugins: list[str] = []
    lease: float = 1.0
    slots: int = 8
    heartbeat: float = 0.1
    script: Script = Script()


class _Printer(Recorder):
    def add(self, *event: Any) -> None:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()


async def open_stdin() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def run(spec: PeerSpec) -> None:
    plugins = Plugins()
    for source in spec.plugins:
        plugins.add(source)
    events, stdin = _Printer(), await open_stdin()
    transport = checked(plugins.create("transports", spec.transport, spec.options), events)
    if spec.role in ("bare_hub", "bare_agent"):
        end = (BareHub if spec.role == "bare_hub" else BareAgent)(spec.id, spec.lease, events)
        await end.open(transport)
        await obey_orders(end, stdin, events)
        return
    if spec.role == "agent":
        engine = ScriptedEngine(events)
        info = agent_info(spec.id, engine=engine, lease=spec.lease)
        agent = Agent(info, engine, [transport], slots=spec.slots, heartbeat_interval=spec.heartbeat)
        await agent.start()
        events.add("ready", info.incarnation)
        await stdin.read()
        await agent.close()
        return
    hub = new_hub(spec, transport)
    await hub.start()
    reading = asyncio.create_task(_submit(hub, spec.script, events))
    events.add("ready", hub.info.incarnation)
    await stdin.read()
    reading.cancel()
    await hub.close()


def new_hub(spec: PeerSpec, transport: Transport) -> Orchestrator:
    """The hub of a peer, on the plane that its role says."""
    info = hub_info(spec.id, lease=spec.lease)
    plane: Plane = "client" if spec.role == "client" else "agent"
    return Orchestrator(info, [transport], fifo(), least_loaded(), plane=plane)


async def _submit(hub: Orchestrator, script: Script, events: Recorder) -> None:
    async for chunk in hub.submit(Submission("chat", MODEL, script.body(), stream=True)):
        events.add("chunk", "".join(chunk.deltas), chunk.final)


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=PeerSpec)))

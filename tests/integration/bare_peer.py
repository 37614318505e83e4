"""A bare end of a transport in a process of its own, without a pipeline, so that it can really be paused.

``python bare_peer.py ROLE TRANSPORT OPTIONS ID LEASE_MS`` writes what its sink is told as JSON lines. A hub sends one
task to every agent that joins; an agent answers each task with the length of its body.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.plugins import Plugins
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import ProcessPeer
from anywire.transport import AgentPort, Hub, Reply


async def start(role: str, transport: str, options: dict[str, Any], peer_id: str, lease_ms: int) -> ProcessPeer:
    """A peer that runs and has opened its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__)), role, transport, json.dumps(options), peer_id, str(lease_ms)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    peer = ProcessPeer(process)
    await peer.event("ready")
    return peer


def say(*event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class HubSink(RecordingHubSink):
    hub: Hub

    def add(self, *event: Any) -> None:
        if event[0] == "joined":
            say("joined", event[1])
            self.hub.send(event[1], TaskRequest("h", f"for {event[1]}", 1, "chat", "m", "{}", True, credit=64))
        elif event[0] == "chunk":
            say("chunk", event[1], event[3].seq, event[3].final)
        else:
            say(event[0], *event[1:-1], str(event[-1]))


class AgentSink(RecordingAgentSink):
    def add(self, *event: Any) -> None:
        say(*(each for each in event[:4] if isinstance(each, str | int)))


def answer(task: TaskRequest, reply: Reply) -> None:
    text = str(len(task.body))
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (text,), final=True, finish_reason="stop"))


async def main(role: str, name: str, options: str, peer_id: str, lease_ms: str) -> None:
    transport = Plugins().create("transports", name, json.loads(options))
    end: Hub | AgentPort
    if role == "hub":
        sink = HubSink()
        end = sink.hub = await transport.open_hub(
            HubInfo(peer_id, new_incarnation(), lease_ms=int(lease_ms)), "agent", sink
        )
    else:
        info = AgentInfo(peer_id, new_incarnation(), lease_ms=int(lease_ms))
        port: AgentPort = await transport.open_agent(info, "agent", AgentSink(answer))
        port.report(AgentStatus(peer_id, info.incarnation))
        end = port
    say("ready")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    await end.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A process with one end of the DDS transport, which tells on standard output what it sees.

python -m tests.system.secured_end hub|agent ID OPTIONS
"""

from __future__ import annotations

import asyncio
import json
import sys

from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Command, Credit, HubInfo, TaskRequest
from anywire.testing.recorder import RecordingHubSink
from anywire.testing.rig import request
from anywire.transport import Reply
from anywire_dds import DdsConfig, DdsTransport


class Echo:
    """An agent that answers each task with its body."""

    def hub_joined(self, info: HubInfo) -> None:
        print("joined", info.hub_id, flush=True)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None: ...
    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None: ...
    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None: ...


class Asking(RecordingHubSink):
    """A hub that sends a task to each agent that joins, and tells of its answer."""

    def agent_joined(self, info: AgentInfo) -> None:
        self.hub.send(info.agent_id, request(self.info, info.agent_id, body="from " + info.agent_id))

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        print("answered", agent_id, *chunk.deltas, flush=True)

    async def open(self, transport: DdsTransport, name: str) -> None:
        self.info = HubInfo(name, 1)
        self.hub = await transport.open_hub(self.info, "agent", self)


async def main() -> None:
    end, name, options = sys.argv[1:]
    transport = DdsTransport(DdsConfig(**json.loads(options)))
    if end == "hub":
        await Asking().open(transport, name)
    else:
        port = await transport.open_agent(AgentInfo(name, 1), "agent", Echo())
        port.report(AgentStatus(name, 1, "ready", "", 8))
    print("open", name, flush=True)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())

"""A hub without a pipeline, in a process of its own, so that it can be paused: what it writes is the transport's doing.

``python -m tests.integration.bare_hub TRANSPORT OPTIONS`` sends one task to each agent that joins and writes what its
sink is told as JSON lines, until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from anywire.messages import AgentInfo, HubInfo, TaskRequest
from anywire.plugins import Plugins
from anywire.testing.peer import open_stdin
from anywire.testing.recorder import RecordingHubSink
from anywire.testing.rig import ProcessPeer
from anywire.transport import Hub


class _Sink(RecordingHubSink):
    hub: Hub

    def add(self, *event: Any) -> None:
        what = "".join(event[3].deltas) if event[0] == "chunk" else ""
        sys.stdout.write(json.dumps([event[0], event[1], what]) + "\n")
        sys.stdout.flush()

    def agent_joined(self, info: AgentInfo) -> None:
        super().agent_joined(info)
        self.hub.send(info.agent_id, TaskRequest("h", "t", 1, "chat", "m", "{}", True))


async def start(transport: str, options: dict[str, Any]) -> ProcessPeer:
    """Start it; the events of its process come to the peer returned."""
    pipe = asyncio.subprocess.PIPE
    arguments = (sys.executable, "-m", "tests.integration.bare_hub", transport, json.dumps(options))
    return ProcessPeer(await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe))


async def main(transport: str, options: str) -> None:
    sink = _Sink()
    opened = Plugins().create("transports", transport, json.loads(options))
    sink.hub = await opened.open_hub(HubInfo("h", 1), "agent", sink)
    await (await open_stdin()).read()
    await sink.hub.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

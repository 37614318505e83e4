"""What a wire costs: processor time of a round trip through the transport contract, both ends in this process.

    python benchmarks/floor.py [TRANSPORT ...] [--rounds 9] [--trips 1500]

A hub sends a task with a prompt of 300 bytes, the agent's end answers with one chunk of 80. No pipeline, agent or
engine is there. The time is that of the whole process, the library's threads and the kernel's work for it included, so
it holds on a machine that does other things too; the least of all rounds is told, since what disturbs only adds to it.
The transports take turns. ``tcp+unix`` is `tcp` over a Unix socket.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

from anywire.identity import hub_info, new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Chunk, TaskRequest
from anywire.plugins import Plugins
from anywire.testing.doubles import OFFERS
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.transport import Hub, Reply
from transport_stack import new_event_loop, options_of

TRANSPORTS = ("tcp", "tcp+unix", "zeromq", "dds", "grpc", "http", "memory")
IN_FLIGHT = (1, 64)
PATIENCE = 30.0
ANSWER = ("x" * 80,)


class _Answers(RecordingHubSink):
    """Keeps so many tasks in flight until enough of them are answered."""

    def __init__(self, hub_id: str) -> None:
        super().__init__()
        self.hub: Hub | None = None
        self._hub_id, self._unsent, self._unanswered, self._sent = hub_id, 0, 0, 0
        self._done = asyncio.Event()

    async def run(self, trips: int, in_flight: int) -> None:
        self._unanswered, self._unsent, self._done = trips, trips - in_flight, asyncio.Event()
        for _ in range(in_flight):
            self._send()
        await asyncio.wait_for(self._done.wait(), PATIENCE)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self._unanswered -= 1
        if self._unsent:
            self._unsent -= 1
            self._send()
        elif not self._unanswered:
            self._done.set()

    def _send(self) -> None:
        assert self.hub is not None
        self._sent += 1
        task = TaskRequest(self._hub_id, f"{self._sent:024}", 1, "chat", "m", "x" * 300, credit=64)
        self.hub.send("a", task)


class _Echo(RecordingAgentSink):
    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, ANSWER, final=True, finish_reason="stop"))


async def measure(names: list[str], rounds: int, trips: int) -> None:
    plugins = Plugins()
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        ends = {}
        for name in names:
            transport, _, unix = name.partition("+")
            options: dict[str, Any] = stack.enter_context(options_of(transport))
            if unix:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="anywire-"))
                options = {"agent_addresses": [f"unix://{folder}/a"]}
            info = hub_info()
            ends[name] = sink = _Answers(info.hub_id)
            sink.hub = await plugins.create("transports", transport, options).open_hub(info, "agent", sink)
            assert sink.hub is not None
            stack.push_async_callback(sink.hub.close)
            agent = AgentInfo("a", new_incarnation(), capabilities=("chat",))
            port = await plugins.create("transports", transport, options).open_agent(agent, "agent", _Echo())
            stack.push_async_callback(port.close)
            port.report(AgentStatus("a", agent.incarnation, "ready", OFFERS, 64))
            await asyncio.wait_for(sink.event("reported", "a"), PATIENCE)
        for _ in range(rounds):
            for name, sink in ends.items():
                for in_flight in IN_FLIGHT:
                    began = time.process_time()
                    await sink.run(trips, in_flight)
                    found[name, in_flight].append((time.process_time() - began) / trips * 1e6)
    for name in ends:
        told = ", ".join(f"{min(found[name, number]):6.1f} us with {number} in flight" for number in IN_FLIGHT)
        print(f"{name:<9} {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transports", nargs="*", default=list(TRANSPORTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--trips", type=int, default=1500)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(measure(args.transports, args.rounds, args.trips))


if __name__ == "__main__":
    main()

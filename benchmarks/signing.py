"""What identities cost over DDS: the same ends with and without them, in turns.

    python benchmarks/signing.py [--blocks 15] [--seconds 0.2]

Both pairs of a hub and an agent are in this process, in one domain and two fleets, so the processor time counts both
ends of each message. A round trip is two messages: a request with a body, and an answer with the same body. A link is
an agent that comes, joins and goes. A report is one to one hub. It prints the medians, what identities add to one
message, link or report, and the median ratio of all blocks with its 95 % interval.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from anywire.identities.identity_proof import Identity
from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest
from anywire.testing.doubles import MODEL
from anywire.transport import Reply
from anywire_dds import DdsConfig, DdsTransport
from anywire_dds.silent import SilentAgentSink, SilentHubSink
from reserved import dds_domain
from transport_stack import PATIENCE, new_event_loop

BODIES = {"a message of 100 B": 100, "a message of 1 MiB": 1024 * 1024}
WARM = 0.1
"""Of the time of a block, before the first."""


class Echo(SilentAgentSink):
    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))


class Pair(SilentHubSink):
    """A hub and an agent, with or without identities."""

    def __init__(self, domain: int, *, identified: bool) -> None:
        self._config = DdsConfig(domain=domain, fleet="identified" if identified else "plain")
        self._identified = identified
        self._info = HubInfo("hub", new_incarnation())
        self._arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = iter(range(10**9))

    async def open(self) -> None:
        self._hub = await self._transport().open_hub(self._info, "agent", self)
        self._port = await self._agent("agent")

    async def close(self) -> None:
        await self._port.close()
        await self._hub.close()

    async def trip(self, body: str) -> None:
        """Two messages."""
        task_id = f"t{next(self._numbers)}"
        self._hub.send("agent", TaskRequest("hub", task_id, 1, "chat", MODEL, body, stream=True, credit=64))
        await self._next()
        await self._hub.drain("agent")

    async def link(self, _: str) -> None:
        """One agent, from its opening to its end."""
        port = await self._agent(f"a{next(self._numbers)}")
        await port.close()

    async def report(self, _: str) -> None:
        status = AgentStatus("agent", self._incarnation, active=next(self._numbers) % 8)
        self._port.report(status)
        await self._next()

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        self._now()

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        self._now()

    async def _agent(self, name: str) -> Any:
        self._incarnation = new_incarnation()
        port = await self._transport().open_agent(AgentInfo(name, self._incarnation), "agent", Echo())
        port.report(AgentStatus(name, self._incarnation))
        await self._next()
        return port

    def _transport(self) -> DdsTransport:
        made = DdsTransport(self._config)
        made.identity = Identity.new() if self._identified else None
        return made

    async def _next(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._arrived
        self._arrived = asyncio.get_running_loop().create_future()

    def _now(self) -> None:
        if not self._arrived.done():
            self._arrived.set_result(None)


async def block(work: Callable[[str], Awaitable[None]], body: str, seconds: float) -> float:
    """Processor time in microseconds of one of ``work``, done for so long."""
    count, until = 0, time.perf_counter() + seconds
    began = time.process_time()
    while time.perf_counter() < until:
        await work(body)
        count += 1
    return (time.process_time() - began) / count * 1e6


def tell(what: str, plain: list[float], identified: list[float], messages: int) -> None:
    ratios = sorted(one / other for one, other in zip(identified, plain, strict=True))
    dice = random.Random(1)
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(2000))
    before, after = (statistics.median(each) / messages for each in (plain, identified))
    print(
        f"{what:20} {before:9.1f} us  {after:9.1f} us  {after - before:+9.1f} us  "
        f"{statistics.median(ratios):.2f} ({medians[50]:.2f} to {medians[1949]:.2f})"
    )


async def measure(blocks: int, seconds: float) -> None:
    with dds_domain() as domain:
        pairs = [Pair(domain, identified=identified) for identified in (False, True)]
        for pair in pairs:
            await pair.open()
        print(f"{'processor time of':20} {'without':>12}  {'with':>12}  {'added':>12}  ratio")
        works: dict[str, tuple[str, str, int]] = {what: ("trip", "x" * size, 2) for what, size in BODIES.items()}
        works |= {"a report": ("report", "", 1), "a link": ("link", "", 1)}
        for what, (name, body, messages) in works.items():
            found: tuple[list[float], list[float]] = ([], [])
            for number in range(-1, blocks):
                for index in random.sample((0, 1), 2):
                    took = await block(getattr(pairs[index], name), body, seconds if number >= 0 else seconds * WARM)
                    if number >= 0:
                        found[index].append(took)
            tell(what, *found, messages)
        for pair in pairs:
            await pair.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a block")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(measure(args.blocks, args.seconds))


if __name__ == "__main__":
    main()

"""What DDS costs by itself: typed round trips between two processes on this host.

Two arms, the same 300-byte body in both. ``wire``: bare readers and writers with this transport's wake-up and packers,
nothing else. ``transport``: a hub and an agent through the `Transport` contract. For each the time of
one round trip at a time (p50, p99) and the rate with 64 on their way.

    python benchmarks/dds_round_trip.py [--arm wire|transport] [--seconds 3] [--uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from anywire.errors import AnywireError
from anywire.identity import new_incarnation
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, HubInfo, TaskRequest
from anywire.transport import Reply
from anywire_dds import DdsConfig, DdsTransport, wire
from anywire_dds.endpoints import Endpoints

Arm = Literal["wire", "transport"]
ARMS: tuple[Arm, ...] = ("wire", "transport")
BODY = "x" * 300
IN_FLIGHT = 64


class RoundTrips:
    """An open pair of ends. `send` starts a round trip, ``arrived`` is called when one is complete."""

    def __init__(self) -> None:
        self.send: Callable[[], object] = lambda: None
        self.arrived: Callable[[], None] = lambda: None
        self.ready = asyncio.Event()

    async def one(self) -> float:
        """Seconds of one round trip with nothing else on its way."""
        done = asyncio.get_running_loop().create_future()
        self.arrived = lambda: done.set_result(time.perf_counter())
        started = time.perf_counter()
        self.send()
        return float(await done) - started

    async def many(self, count: int, in_flight: int = IN_FLIGHT) -> float:
        """Round trips per second, over ``count`` of them, with ``in_flight`` on their way."""
        done = asyncio.get_running_loop().create_future()
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


@asynccontextmanager
async def pair(arm: Arm) -> AsyncIterator[RoundTrips]:
    """This process and an echo in another one."""
    domain = random.randint(10, 200)
    opened, close = await (_wire_client(domain) if arm == "wire" else _transport_client(domain))
    echo = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--echo", str(domain), "--arm", arm, stdin=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            await opened.ready.wait()
        yield opened
    finally:
        assert echo.stdin is not None
        echo.stdin.close()
        await echo.wait()
        await close()


async def _wire_client(domain: int) -> tuple[RoundTrips, Callable[[], Any]]:
    trips = RoundTrips()
    endpoints = Endpoints(DdsConfig(domain=domain), "agent", "client", 10_000)
    writer = endpoints.writer("request", "there")
    request = TaskRequest("hub", "task", 1, "chat", "model", BODY, True)

    def answered() -> None:
        for data, sample in take():
            if sample.valid_data:
                chunk = wire.to_chunk(wire.unpack_response(data))
                if chunk.final:
                    trips.arrived()
                else:
                    trips.ready.set()

    take = endpoints.read("response", "here", answered)
    trips.send = lambda: writer.write(wire.pack_to_agent(1, request, sys.maxsize)) or sys.exit("the writer is full")
    # What waits here until the echo is there is the first thing it gets.
    writer.write(wire.pack_to_agent(1, TaskRequest("hub", "hello", 1, "chat", "model", ""), sys.maxsize))
    return trips, endpoints.close


async def _wire_echo(domain: int) -> Callable[[], Any]:
    endpoints = Endpoints(DdsConfig(domain=domain), "agent", "echo", 10_000)
    writer = endpoints.writer("response", "here")

    def asked() -> None:
        for data, sample in take():
            if sample.valid_data:
                task = wire.to_request(wire.unpack_request(data))
                chunk = Chunk(task.hub_id, task.task_id, 1, 0, (task.body,), final=bool(task.body))
                writer.write(wire.pack_chunk(1, chunk, sys.maxsize))

    take = endpoints.read("request", "there", asked)
    return endpoints.close


class _Ends:
    """Sinks of both ends, for the arm through the contract."""

    def __init__(self, trips: RoundTrips | None = None) -> None:
        self.trips = trips

    def agent_joined(self, info: AgentInfo) -> None:
        if self.trips is not None:
            self.trips.ready.set()

    def chunk_received(self, chunk: Chunk) -> None:
        if self.trips is not None:
            self.trips.arrived()

    def task_received(self, task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, 1, 0, (task.body,), final=True))

    def agent_reported(self, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...
    def send_failed(self, task_id: str, attempt: int, error: AnywireError) -> None: ...
    def cancel_received(self, cancel: Cancel) -> None: ...
    def credit_received(self, credit: Credit) -> None: ...
    def drain_requested(self, reason: str) -> None: ...
    def hub_joined(self, hub_id: str, incarnation: int) -> None: ...
    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...


async def _transport_client(domain: int) -> tuple[RoundTrips, Callable[[], Any]]:
    trips = RoundTrips()
    hub = await DdsTransport(DdsConfig(domain=domain)).open_hub(
        HubInfo("hub", new_incarnation(), lease_ms=10_000), "agent", _Ends(trips)
    )
    request = TaskRequest("hub", "task", 1, "chat", "model", BODY, True)
    trips.send = lambda: hub.send("echo", request)
    return trips, hub.close


async def _transport_echo(domain: int) -> Callable[[], Any]:
    info = AgentInfo("echo", new_incarnation(), lease_ms=10_000)
    port = await DdsTransport(DdsConfig(domain=domain)).open_agent(info, "agent", _Ends())
    port.report(AgentStatus("echo", info.incarnation))
    return port.close


async def _echo(arm: Arm, domain: int) -> None:
    close = await (_wire_echo(domain) if arm == "wire" else _transport_echo(domain))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()  # until the parent is done, or gone
    await close()


async def measure(arm: Arm, seconds: float) -> dict[str, float]:
    """Microseconds ``p50`` and ``p99`` of single round trips, and ``rate`` with `IN_FLIGHT` on their way."""
    async with pair(arm) as trips:
        for _ in range(200):
            await trips.one()
        times = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            times.append(await trips.one())
        guess = await trips.many(2_000)
        rate = await trips.many(max(2_000, round(guess * seconds)))
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49] * 1e6, "p99": cuts[98] * 1e6, "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, help="only this one")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--echo", type=int, metavar="DOMAIN", help=argparse.SUPPRESS)
    args = parser.parse_args()
    run: Callable[[Any], Any] = asyncio.run
    if args.uvloop:
        import uvloop

        run = uvloop.run
    if args.echo is not None:
        run(_echo(args.arm, args.echo))
        return
    for arm in (args.arm,) if args.arm else ARMS:
        f = run(measure(arm, args.seconds))
        print(f"{arm:10} p50 {f['p50']:.0f} us  p99 {f['p99']:.0f} us  {f['rate']:,.0f}/s with {IN_FLIGHT} in flight")


if __name__ == "__main__":
    main()

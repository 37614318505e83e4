"""What DDS costs by itself: typed round trips between two processes on this host.

Two arms, the same 300-byte body in both. ``wire``: bare readers and writers with this transport's wake-up and packers,
nothing else. ``transport``: a hub and an agent through the `Transport` contract. For each the time of
one round trip at a time (p50, p99) and the rate with 64 on their way.

    python benchmarks/dds_round_trip.py [--arm wire|transport] [--seconds 3] [--uvloop]

With ``--datagram 1232 65500`` the arm ``transport`` alone, with datagrams of these sizes in turn, and with ``--body``
another body than 300 bytes: what it costs to stay below the MTU of a path. With ``--busy-poll 0 300`` the arm
``transport`` alone, with event loops that look for so many microseconds before they sleep: what that saves.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

from anywire.messages import Chunk, TaskRequest
from anywire.transport import BUFFER_BYTES
from anywire_dds import DdsConfig, wire
from anywire_dds.endpoints import Endpoints
from raw_round_trip import BODY, RoundTrips, round_trips, serve_echo, until_stdin_ends
from reserved import dds_domain
from transport_stack import IN_FLIGHT, PATIENCE

Arm = Literal["wire", "transport"]
ARMS: tuple[Arm, ...] = ("wire", "transport")


@asynccontextmanager
async def pair(arm: Arm, busy_poll: int = 0) -> AsyncIterator[RoundTrips]:
    """This process and an echo in another one."""
    with dds_domain() as domain:
        options = {"domain": domain, "busy_poll": busy_poll}
        async with wire_trips(domain) if arm == "wire" else round_trips("dds", options) as trips:
            yield trips


@asynccontextmanager
async def sized(datagram: int) -> AsyncIterator[RoundTrips]:
    """The arm ``transport`` with datagrams of at most so many bytes."""
    with dds_domain() as domain:
        async with round_trips("dds", {"domain": domain, "datagram_bytes": datagram}) as trips:
            yield trips


@asynccontextmanager
async def wire_trips(domain: int) -> AsyncIterator[RoundTrips]:
    trips, close = _wire_client(domain)
    command = (sys.executable, __file__, "--arm", "wire", "--echo", str(domain))
    echo = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    try:
        await asyncio.wait_for(trips.ready.wait(), PATIENCE)
        yield trips
    finally:
        assert echo.stdin is not None
        echo.stdin.close()
        await echo.wait()
        await close()


def _wire_client(domain: int) -> tuple[RoundTrips, Callable[[], Any]]:
    trips = RoundTrips()
    endpoints = Endpoints(DdsConfig(domain=domain), "agent", 10_000)
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


def _wire_echo(domain: int) -> Callable[[], Any]:
    endpoints = Endpoints(DdsConfig(domain=domain), "agent", 10_000)
    writer = endpoints.writer("response", "here")

    def asked() -> None:
        for data, sample in take():
            if sample.valid_data:
                task = wire.to_request(wire.unpack_request(data))
                chunk = Chunk(task.hub_id, task.task_id, 1, 0, (task.body,), final=bool(task.body))
                writer.write(wire.pack_from_agent(1, chunk, sys.maxsize))

    take = endpoints.read("request", "there", asked)
    return endpoints.close


async def _echo(arm: Arm, domain: int) -> None:
    if arm == "transport":
        await serve_echo("dds", {"domain": domain})
        return
    close = _wire_echo(domain)
    await until_stdin_ends()
    await close()


async def measure(pair: AbstractAsyncContextManager[RoundTrips], seconds: float, body: str = BODY) -> dict[str, float]:
    """Microseconds ``p50`` and ``p99`` of single round trips, and ``rate`` with `IN_FLIGHT` on their way."""
    async with pair as trips:
        trips.body = body
        for _ in range(200):
            await trips.one()
        times = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            times.append(await trips.one())
        # As many as the write buffer takes: this bench does not wait for room.
        in_flight = max(1, min(IN_FLIGHT, BUFFER_BYTES // (len(body) + 1_000)))
        guess = await trips.many(len(times), in_flight)
        rate = await trips.many(max(len(times), round(guess * seconds)), in_flight)
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49] * 1e6, "p99": cuts[98] * 1e6, "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, help="only this one")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--datagram", type=int, nargs="+", metavar="BYTES", default=[])
    parser.add_argument("--busy-poll", type=int, nargs="+", metavar="MICROSECONDS", default=[])
    parser.add_argument("--body", type=int, metavar="BYTES", default=len(BODY), help="with --datagram")
    parser.add_argument("--echo", type=int, metavar="DOMAIN", help=argparse.SUPPRESS)
    args = parser.parse_args()
    run: Callable[[Any], Any] = asyncio.run
    if args.uvloop:
        import uvloop

        run = uvloop.run
    if args.echo is not None:
        run(_echo(args.arm, args.echo))
        return
    arms: tuple[Arm, ...] = (args.arm,) if args.arm else ARMS
    pairs = {f"{size} B": functools.partial(sized, size) for size in args.datagram}
    pairs |= {f"poll {each}": functools.partial(pair, "transport", each) for each in args.busy_poll}
    for name, opened in (pairs or {arm: functools.partial(pair, arm) for arm in arms}).items():
        f = run(measure(opened(), args.seconds, "x" * args.body))
        print(f"{name:10} p50 {f['p50']:.0f} us  p99 {f['p99']:.0f} us  {f['rate']:,.0f}/s with {IN_FLIGHT} in flight")


if __name__ == "__main__":
    main()

"""What subscribers of events cost a request through HTTP and a transport, with 64 clients.

    python benchmarks/events.py [--transport dds] [--clients 64] [--blocks 6] [--only counting]

A block is two fresh servers (``anywire up``) beside each other: one to whose events nobody subscribes (but the
gateway's metrics, which are part of it), and one with a subscriber. They take turns of some hundred requests, so that a
drift of the machine's speed hits both alike; each block gives one ratio, of the medians of its turns, of processor time
(server and agent, not the watcher) and of the time a request takes. Subscribers: ``counting``, a plugin in the server
that counts every event; ``watched``, ``anywire watch --json`` over HTTP; ``stopped``, the same, stopped, so that it
reads nothing. The median ratio of all blocks is printed with its 95 % interval; the command fails when counting costs
more than 10 % processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from cost import median_ratio
from cost_probe import cpu_seconds
from http_load import load
from transport_stack import new_event_loop, options_of, server

ARMS = ("counting", "watched", "stopped")
REQUESTS, TURNS = 320, 12
"""Of one turn, and turns of four in a block."""
PLUGIN = Path(__file__).with_name("counting_subscriber.py")
MOST = 1.10
PATIENCE = 30.0


class Server:
    """A running server and its processes."""

    def __init__(self, url: str, processes: list[int]) -> None:
        self.url, self._processes = url, processes

    async def measure(self, clients: int, requests: int) -> tuple[float, float]:
        """Seconds of processor time and of wall time for one request."""
        before = sum(map(cpu_seconds, self._processes))
        result = await load(self.url, clients=clients, requests=requests)
        return (sum(map(cpu_seconds, self._processes)) - before) / requests, result.seconds / requests


@asynccontextmanager
async def serving(transport: str, *more: str) -> AsyncIterator[Server]:
    known = set(_children())
    with options_of(transport) as options:
        async with server(transport, options, *more) as url:
            yield Server(url, [pid for pid in _children() if pid not in known])


def _children() -> list[int]:
    return [each.pid for each in psutil.Process().children(recursive=True)]


@asynccontextmanager
async def watcher(url: str, arm: str) -> AsyncIterator[None]:
    if arm not in ("watched", "stopped"):
        yield
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "watch", "--json", "--url", url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        # One request, which it tells of: it is there.
        line = asyncio.ensure_future(process.stdout.readline())
        while not line.done():
            await load(url, clients=1, requests=1)
            await asyncio.wait((line,), timeout=0.1)
        reading = asyncio.ensure_future(_read_all(process.stdout))
        if arm == "stopped":
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        await process.wait()
    await asyncio.wait_for(reading, PATIENCE)


async def _read_all(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 20):
        pass


async def measure_block(transport: str, arm: str, clients: int) -> list[list[float]]:
    """Medians of processor and wall time, without a subscriber and with it."""
    plugin = ("--plugin", str(PLUGIN)) if arm == "counting" else ()
    found: tuple[list[tuple[float, float]], ...] = ([], [])
    async with (
        serving(transport) as without,
        serving(transport, *plugin) as with_one,
        watcher(with_one.url, arm),
    ):
        servers = (without, with_one)
        for each in servers:
            await each.measure(clients, 2 * REQUESTS)
        for _ in range(TURNS):
            for which in (0, 1, 1, 0):
                found[which].append(await servers[which].measure(clients, REQUESTS))
    return [[statistics.median(each[kind] for each in side) for kind in (0, 1)] for side in found]


async def run(transport: str, clients: int, blocks: int, arms: Sequence[str]) -> float:
    """The ratio of processor time with a subscriber that counts everything, 1 when that was not measured."""
    counted = 1.0
    print(f"{'subscriber':10} {'':4} {'without':>10} {'with':>10} {'ratio':>7}  95 % interval ({blocks} blocks)")
    for arm in arms:
        costs = [await measure_block(transport, arm, clients) for _ in range(blocks)]
        for which, kind in enumerate(("cpu", "wall")):
            without, with_one = ([block[side][which] for block in costs] for side in (0, 1))
            median, low, high = median_ratio(without, with_one)
            print(
                f"{arm:10} {kind:4} {statistics.median(without) * 1e6:7.1f} us "
                f"{statistics.median(with_one) * 1e6:7.1f} us {median:7.3f}  {low:.3f} .. {high:.3f}",
                flush=True,
            )
            if (arm, kind) == ("counting", "cpu"):
                counted = median
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="dds")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6, help="of each subscriber; default: 6")
    parser.add_argument("--only", action="append", choices=ARMS)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        ratio = runner.run(run(given.transport, given.clients, given.blocks, given.only or ARMS))
    if ratio > MOST:
        sys.exit(f"counting every event costs {ratio:.3f} of the processor time without, more than {MOST}")


if __name__ == "__main__":
    main()

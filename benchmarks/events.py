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
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from http_load import load
from paired_servers import measure_block, print_head, print_ratios, serving
from transport_stack import new_event_loop

ARMS = ("counting", "watched", "stopped")
PLUGIN = Path(__file__).with_name("counting_subscriber.py")
MOST = 1.10
PATIENCE = 30.0


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


async def block(transport: str, arm: str, clients: int) -> list[list[float]]:
    """Medians of processor and wall time, without a subscriber and with it."""
    plugin = ("--plugin", str(PLUGIN)) if arm == "counting" else ()
    async with (
        serving(transport) as without,
        serving(transport, *plugin) as with_one,
        watcher(with_one.url, arm),
    ):
        return await measure_block(without, with_one, clients)


async def run(transport: str, clients: int, blocks: int, arms: Sequence[str]) -> float:
    """The ratio of processor time with a subscriber that counts everything, 1 when that was not measured."""
    counted = 1.0
    print_head("subscriber", blocks)
    for arm in arms:
        ratio = print_ratios(arm, [await block(transport, arm, clients) for _ in range(blocks)])
        if arm == "counting":
            counted = ratio
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

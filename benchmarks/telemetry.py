"""What keys, the audit log, metrics and tracing cost a request through HTTP and a transport, with 64 clients.

    python benchmarks/telemetry.py [--transport dds] [--clients 64] [--blocks 6] [--only all]

A block is two fresh servers (``anywire up``) beside each other, which take turns of some hundred requests, so that a
drift of the machine's speed hits both alike. The one has nothing of it. The other has, in the arm ``all``: clients
with keys, the service ``audit``, the service ``opentelemetry`` with a receiver and a ratio of 0, and a scrape of
``/metrics`` each second; in the arm ``tasks`` the audit log of each task besides; in the arm ``traced`` the service
``opentelemetry`` alone, which traces every request; in the arm ``sampled`` the same with one request in a hundred.
``same``: two servers that have nothing of it, to see how much two servers differ by chance. Each
block gives one ratio, of the medians of its turns, of processor time (server and agent) and of the time a request
takes. The median ratio of all blocks is printed with its 95 % interval; the command fails when the arm ``all`` takes
more than 10 % longer, which is the throughput of 64 clients that ask all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from anywire.caller import NO_LIMITS
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from cost import median_ratio
from paired_servers import Server, measure_block, print_head, print_ratios, serving
from transport_stack import new_event_loop

ARMS = ("same", "all", "tasks", "sampled", "traced")
RATIOS = {"all": 0.0, "tasks": 0.0, "sampled": 0.01, "traced": 1.0}
SCRAPE_S = 1.0
MOST = 1.10


@asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    """The address of a receiver that takes everything and reads nothing of it."""

    async def take(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scraped(url: str, key: str) -> AsyncIterator[None]:
    """Read ``/metrics`` each second meanwhile."""

    async def scrape(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}) as answer:
                assert answer.status == 200, answer.status
                await answer.read()
            await asyncio.sleep(SCRAPE_S)

    async with aiohttp.ClientSession() as session:
        scraping = asyncio.create_task(scrape(session))
        try:
            yield
        finally:
            scraping.cancel()
            with suppress(asyncio.CancelledError):
                await scraping


@asynccontextmanager
async def serving_arm(transport: str, arm: str) -> AsyncIterator[Server]:
    """A server of an arm; with ``same`` one that has nothing."""
    if arm == "same":
        async with serving(transport) as server:
            yield server
        return
    async with receiving() as receiver:
        services = "audit,opentelemetry" if arm in ("all", "tasks") else "opentelemetry"
        telemetry = ("--set", f"services={services}", "--set", f"services.opentelemetry.endpoint={receiver}",
                     "--set", f"services.opentelemetry.ratio={RATIOS[arm]}")  # fmt: skip
        if arm not in ("all", "tasks"):
            async with serving(transport, *telemetry) as server:
                yield server
            return
        with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
            path, key, observer = Path(folder) / "keys.json", new_key(), new_key()
            add_key(path, record_of(key, tenant="bench", limits=NO_LIMITS))
            add_key(path, record_of(observer, tenant="bench", role="observe", limits=NO_LIMITS))
            audit = (
                "--set",
                f"services.audit.folder={folder}/audit",
                "--set",
                f"services.audit.tasks={arm == 'tasks'}",
            )
            keys = ("--set", f"access.keys={path}")
            async with (
                serving(transport, *telemetry, *audit, *keys) as server,
                scraped(server.url, str(observer)),
            ):
                yield server.asked_with(str(key))


async def block(transport: str, arm: str, clients: int, number: int) -> list[list[float]]:
    """Medians of processor and wall time without and with an arm; which starts first changes."""
    both = ["same", arm]
    async with (
        serving_arm(transport, both[number % 2]) as first,
        serving_arm(transport, both[1 - number % 2]) as second,
    ):
        return await measure_block(*((second, first) if number % 2 else (first, second)), clients)


async def run(transport: str, clients: int, blocks: int, arms: Sequence[str]) -> float:
    """The ratio of the time that a request takes with all of it."""
    print_head("with", blocks)
    ratio = 1.0
    for arm in arms:
        costs = [await block(transport, arm, clients, number) for number in range(blocks)]
        print_ratios(arm, costs)
        if arm == "all":
            ratio, _, _ = median_ratio(*([each[side][1] for each in costs] for side in (0, 1)))
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="dds")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6, help="of each arm; default: 6")
    parser.add_argument("--only", action="append", choices=ARMS)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        ratio = runner.run(run(given.transport, given.clients, given.blocks, given.only or list(ARMS)))
    if ratio > MOST:
        sys.exit(f"with all of it a request takes {ratio:.3f} of the time without, more than {MOST}")


if __name__ == "__main__":
    main()

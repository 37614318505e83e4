"""What keys and their limits cost a request through HTTP and a transport, with 64 clients.

    python benchmarks/limits.py [--transport dds] [--clients 64] [--blocks 6] [--only limits]

A block is two fresh servers (``anywire up``) beside each other that take turns of some hundred requests, so that a
drift of the machine's speed hits both alike; which of them is started first changes from block to block. Each block
gives one ratio, of the medians of its turns, of processor time (server and agent) and of the time a request takes.
``keys``: a server whose clients all send a key that nothing limits, beside one that needs none. ``limits``: a key that
has every limit and reaches none, beside one that nothing limits. ``same``: two servers that need none, to see what
differs by chance. The median ratio of all blocks is printed with its 95 % interval; the command fails when keys, or
limits, cost more than 5 % processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from anywire.caller import NO_LIMITS, Limits
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from paired_servers import Server, measure_block, print_head, print_ratios, serving
from transport_stack import new_event_loop

NEVER_REACHED = 10**9
ALL_LIMITS = Limits(
    models=("synthetic*",),
    max_priority=10,
    requests_per_minute=NEVER_REACHED,
    concurrency=NEVER_REACHED,
    tokens_per_day=NEVER_REACHED,
)
ARMS: dict[str, tuple[Limits | None, Limits | None]] = {
    "same": (None, None),
    "keys": (None, NO_LIMITS),
    "limits": (NO_LIMITS, ALL_LIMITS),
}
"""The limits of the keys of both servers; None: it needs no key."""
MOST = 1.05


@asynccontextmanager
async def serving_keys(transport: str, limits: Limits | None) -> AsyncIterator[Server]:
    if limits is None:
        async with serving(transport) as server:
            yield server
        return
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        path, key = Path(folder) / "keys.json", new_key()
        add_key(path, record_of(key, tenant="bench", limits=limits))
        async with serving(transport, "--set", f"access.keys={path}", key=str(key)) as server:
            yield server


async def block(transport: str, arm: str, clients: int, number: int) -> list[list[float]]:
    """Medians of processor and wall time of both servers of an arm."""
    order = (0, 1) if number % 2 else (1, 0)
    async with (
        serving_keys(transport, ARMS[arm][order[0]]) as first,
        serving_keys(transport, ARMS[arm][order[1]]) as second,
    ):
        without, with_it = (first, second) if order == (0, 1) else (second, first)
        return await measure_block(without, with_it, clients)


async def run(transport: str, clients: int, blocks: int, arms: Sequence[str]) -> float:
    """The greatest ratio of processor time."""
    print_head("key", blocks)
    ratios = {}
    for arm in arms:
        ratios[arm] = print_ratios(arm, [await block(transport, arm, clients, number) for number in range(blocks)])
    return max((ratio for arm, ratio in ratios.items() if arm != "same"), default=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="dds")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6, help="of each key; default: 6")
    parser.add_argument("--only", action="append", choices=ARMS)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        ratio = runner.run(run(given.transport, given.clients, given.blocks, given.only or list(ARMS)))
    if ratio > MOST:
        sys.exit(f"keys cost {ratio:.3f} of the processor time without, more than {MOST}")


if __name__ == "__main__":
    main()

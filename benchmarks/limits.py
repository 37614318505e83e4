"""What keys and their limits cost a request through HTTP and a transport, with 64 clients.

    python benchmarks/limits.py [--transport dds] [--clients 64] [--blocks 6] [--only limits]

A block is fresh servers (``anywire up``), and two ways to ask that take turns of some hundred requests, so that a drift
of the machine's speed hits both alike. Each block gives one ratio, of the medians of its turns, of processor time
(server and agent) and of the time a request takes. ``limits``: one server, asked with a key that has every limit and
reaches none, and with one that nothing limits. ``keys``: two servers, one whose clients send a key that nothing limits,
and one that needs none; which is started first changes from block to block. ``same``: two servers that need none, to
see how much two servers differ by chance. The median ratio of all blocks is printed with its 95 % interval; the command
fails when keys, or limits, cost more than 5 % processor time.
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
ARMS = ("same", "keys", "limits")
MOST = 1.05


@asynccontextmanager
async def serving_keys(transport: str, *limits: Limits) -> AsyncIterator[list[Server]]:
    """A server as it is asked with a key of each of these limits; with none of them, one that needs no key."""
    if not limits:
        async with serving(transport) as server:
            yield [server]
        return
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        path, keys = Path(folder) / "keys.json", [new_key() for _ in limits]
        for key, each in zip(keys, limits, strict=True):
            add_key(path, record_of(key, tenant="bench", limits=each))
        async with serving(transport, "--set", f"access.keys={path}") as server:
            yield [server.asked_with(str(key)) for key in keys]


async def block(transport: str, arm: str, clients: int, number: int) -> list[list[float]]:
    """Medians of processor and wall time of both ways of an arm."""
    if arm == "limits":
        async with serving_keys(transport, NO_LIMITS, ALL_LIMITS) as (without, with_it):
            return await measure_block(without, with_it, clients)
    both: list[tuple[Limits, ...]] = [(), (NO_LIMITS,) if arm == "keys" else ()]
    async with (
        serving_keys(transport, *both[number % 2]) as (first,),
        serving_keys(transport, *both[1 - number % 2]) as (second,),
    ):
        return await measure_block(*((second, first) if number % 2 else (first, second)), clients)


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

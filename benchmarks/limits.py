"""What keys and their limits cost a request through HTTP and a transport, with 64 clients.

    python benchmarks/limits.py [--transport dds] [--clients 64] [--blocks 6] [--only limits]

A block is two fresh servers (``anywire up``) beside each other: one that needs no key, and one that needs them, whose
clients all send the same one. They take turns of some hundred requests, so that a drift of the machine's speed hits
both alike; each block gives one ratio, of the medians of its turns, of processor time (server and agent) and of the
time a request takes. Keys: ``keys``, one that nothing limits; ``limits``, one that has every limit, none of which is
reached. The median ratio of all blocks is printed with its 95 % interval; the command fails when limits cost more than
5 % processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from anywire.caller import NO_LIMITS, Limits
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from paired_servers import measure_block, print_head, print_ratios, serving
from transport_stack import new_event_loop

NEVER_REACHED = 10**9
ARMS = {
    "keys": NO_LIMITS,
    "limits": Limits(
        models=("synthetic*",),
        max_priority=10,
        requests_per_minute=NEVER_REACHED,
        concurrency=NEVER_REACHED,
        tokens_per_day=NEVER_REACHED,
    ),
}
MOST = 1.05


async def block(transport: str, limits: Limits, clients: int) -> list[list[float]]:
    """Medians of processor and wall time, without keys and with one that has these limits."""
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        path, key = Path(folder) / "keys.json", new_key()
        add_key(path, record_of(key, tenant="bench", limits=limits))
        async with (
            serving(transport) as without,
            serving(transport, "--set", f"access.keys={path}", key=str(key)) as with_keys,
        ):
            return await measure_block(without, with_keys, clients)


async def run(transport: str, clients: int, blocks: int, arms: Sequence[str]) -> float:
    """The greatest ratio of processor time."""
    print_head("key", blocks)
    return max([print_ratios(arm, [await block(transport, ARMS[arm], clients) for _ in range(blocks)]) for arm in arms])


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

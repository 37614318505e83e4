"""What gateways in processes of their own cost and gain: ``anywire up`` without them and with some, in turns.

    python benchmarks/gateway_processes.py [--gateways 0 1 2] [--transport memory] [--rounds 4] [--seconds 3]

Each kind is one ``anywire up`` with the synthetic engine, all of them up at once. A round asks each for whole answers
with 1 and with 64 clients and for streams with 32, in an order that changes from round to round. Told are medians:
requests per second, the median latency, and the processor time of a request (for streams of a token) by process: of the
orchestrator, which over ``memory`` has the agent in it, and of all gateway processes together.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import psutil

from cost_probe import cpu_seconds
from http_load import load
from transport_stack import STREAM, new_event_loop, options_of, server

LOADS: tuple[tuple[str, int, bool], ...] = (("1 client", 1, False), ("64 clients", 64, False), ("32 streams", 32, True))
SEED = 1


class Kind(NamedTuple):
    name: str
    url: str
    processes: dict[str, list[int]]
    """Their ids, by what they are."""


class Round(NamedTuple):
    """``cpu`` are microseconds of a request, of streams of a token."""

    rate: float
    p50: float
    cpu: dict[str, float]


def _processes(known: set[int]) -> dict[str, list[int]]:
    """The processes that came with the newest server."""
    found: dict[str, list[int]] = {}
    for each in psutil.Process().children(recursive=True):
        if each.pid in known:
            continue
        known.add(each.pid)
        last = each.cmdline()[-1:]
        role = "gateways" if last == ["gateway"] else "agent" if last == ["agent"] else "orchestrator"
        found.setdefault(role, []).append(each.pid)
    return found


async def _ask(kind: Kind, clients: int, stream: bool, seconds: float) -> Round:
    tokens = STREAM if stream else 20
    few = await load(kind.url, clients=clients, requests=max(clients, 32), stream=stream, tokens=tokens)
    count = max(clients, round(len(few.times) / few.seconds * seconds))
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in kind.processes.items()}
    found = await load(kind.url, clients=clients, requests=count, stream=stream, tokens=tokens)
    pieces = found.tokens or len(found.times)
    spent = {name: sum(map(cpu_seconds, pids)) - before[name] for name, pids in kind.processes.items()}
    return Round(
        pieces / found.seconds,
        statistics.median(found.times) * 1e6,
        {name: value / pieces * 1e6 for name, value in spent.items()},
    )


async def measure(transport: str, gateways: Sequence[int], rounds: int, seconds: float) -> None:
    rng, known = random.Random(SEED), set[int]()
    async with AsyncExitStack() as stack:
        kinds = []
        for count in gateways:
            options = stack.enter_context(options_of(transport))
            more = () if not count else ("--set", f"server.gateway_processes={count}")
            url = await stack.enter_async_context(server(transport, options, "--no-page", *more))
            kinds.append(Kind(f"{count} gateways" if count else "none", url, _processes(known)))
        found: defaultdict[tuple[str, str], list[Round]] = defaultdict(list)
        for _ in range(rounds):
            for name, clients, stream in LOADS:
                for kind in rng.sample(kinds, len(kinds)):
                    found[name, kind.name].append(await _ask(kind, clients, stream, seconds))
        machine = f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}"
        print(f"transport {transport}, {rounds} rounds of {seconds:g} s, {machine}")
        for name, _, stream in LOADS:
            for kind in kinds:
                seen = found[name, kind.name]
                cpu = ", ".join(
                    f"{role} {statistics.median(each.cpu[role] for each in seen):.1f}" for role in kind.processes
                )
                rate = statistics.median(each.rate for each in seen)
                p50 = statistics.median(each.p50 for each in seen)
                unit = "token" if stream else "request"
                print(f"{name:<11} {kind.name:<11} {rate:>9,.0f} {unit}s/s  p50 {p50:>8,.0f} us  us per {unit}: {cpu}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--transport", default="memory")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(measure(args.transport, args.gateways, args.rounds, args.seconds))


if __name__ == "__main__":
    main()

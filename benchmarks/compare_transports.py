"""All transports in one run: what each costs through the contract, through the pipeline, and on the whole way by HTTP.

Every block goes once over the transports, in an order of its own drawn from ``--seed``. Each gets fresh processes and
is alone while it is measured. Figures are medians over the blocks.

    python benchmarks/compare_transports.py [--quick] [--blocks 6] [--seed 1] [--out figures.json] [TRANSPORT ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import http_load
from anywire.identity import hub_info
from anywire.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.stream import TaskStream
from anywire.submission import Submission
from anywire.testing.doubles import IdlestSelector, ListScheduler
from anywire.testing.peer import PeerSpec
from anywire.testing.rig import ProcessPeer
from raw_round_trip import round_trips
from transport_stack import IN_FLIGHT, PATIENCE, Usage, options_of, pipeline, server

TRANSPORTS = ("memory", "dds", "zeromq", "http")
STREAMS, TOKENS = 32, 64
LEASE = 1.0
Figures = dict[str, float]

ROWS = {
    "raw_p50_us": "contract: round trip, p50 µs",
    "pipeline_p50_us": "pipeline: task of 20 tokens, p50 µs",
    "pipeline_tasks_per_s": "pipeline: tasks/s, 64 in flight",
    "pipeline_tokens_per_s": "pipeline: tokens/s, 32 streams",
    "http_p50_us": "whole way: 1 client, p50 µs",
    "http_requests_per_s": "whole way: requests/s, 64 clients",
    "http_tokens_per_s": "whole way: tokens/s, 32 streams",
    "server_us_per_task": "CPU of the server, µs per task",
    "agent_us_per_task": "CPU of the agent, µs per task",
    "server_us_per_token": "CPU of the server, µs per token",
    "agent_us_per_token": "CPU of the agent, µs per token",
    "server_mib": "memory of the server, MiB",
    "agent_mib": "memory of the agent, MiB",
    "start_s": "start to first answer, s",
    "death_ms": "kill -9 noticed after, ms",
}


class Sizes(NamedTuple):
    """How much one block measures: seconds for what repeats, counts for what is asked over HTTP."""

    seconds: float
    single: int
    requests: int
    streams: int


FULL, QUICK = Sizes(1.0, 1500, 8000, 1000), Sizes(0.4, 500, 2500, 320)


def body(length: int) -> str:
    message = {"role": "user", "content": "x" * 300}
    return json.dumps({"model": "synthetic", "messages": [message], "max_tokens": length})


async def p50_us(once: Callable[[], Coroutine[Any, Any, float | None]], seconds: float) -> float:
    """The median time of ``once``, in µs, which may time itself; a fifth of the time is warm-up."""
    times: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds * 1.2:
        took = await once()
        if now - began > seconds * 0.2:
            times.append(took if took is not None else time.perf_counter() - now)
    return statistics.median(times) * 1e6


async def measure_contract(transport: str, sizes: Sizes) -> Figures:
    async with round_trips(transport) as trips:
        return {"raw_p50_us": await p50_us(trips.one, sizes.seconds)}


async def measure_pipeline(transport: str, sizes: Sizes) -> Figures:
    unary = Submission("chat", "synthetic", body(20))
    streamed = Submission("chat", "synthetic", body(TOKENS), stream=True)
    tasks = tokens = 0

    def check(stream: TaskStream) -> None:
        assert stream.transport == transport, f"answered over {stream.transport}, not {transport}"

    async def one() -> None:
        nonlocal tasks
        stream = orchestrator.submit(unary)
        await stream.result()
        check(stream)
        tasks += 1

    async def read() -> None:
        nonlocal tokens
        stream = orchestrator.submit(streamed)
        while chunks := await stream.take():
            tokens += sum(len(chunk.deltas) for chunk in chunks)
        check(stream)

    async def rate(once: Callable[[], Coroutine[Any, Any, None]], clients: int, count: Callable[[], int]) -> float:
        async def client(until: float) -> None:
            while time.perf_counter() < until:
                await once()

        async def round_of(seconds: float) -> float:
            began, before = time.perf_counter(), count()
            await asyncio.gather(*(client(began + seconds) for _ in range(clients)))
            return (count() - before) / (time.perf_counter() - began)

        await round_of(sizes.seconds * 0.2)
        return await round_of(sizes.seconds)

    async with pipeline(transport) as orchestrator:
        return {
            "pipeline_p50_us": await p50_us(one, sizes.seconds),
            "pipeline_tasks_per_s": await rate(one, IN_FLIGHT, lambda: tasks),
            "pipeline_tokens_per_s": await rate(read, STREAMS, lambda: tokens),
        }


async def http(transport: str, url: str, **settings: Any) -> http_load.Result:
    """`http_load.load`, with every answer's header held against ``transport``."""
    return await http_load.load(url, expect=f"x-anywire-transport: {transport}\r\n", **settings)


async def measure_whole_way(transport: str, sizes: Sizes) -> Figures:
    async with server(transport) as up:
        await http(transport, up.url, clients=1, requests=1)
        started = time.perf_counter() - up.began
        await http(transport, up.url, clients=IN_FLIGHT, requests=sizes.requests // 5)
        single = await http(transport, up.url, clients=1, requests=sizes.single)
        before = up.usage()
        many = await http(transport, up.url, clients=IN_FLIGHT, requests=sizes.requests)
        between = up.usage()
        streams = await http(transport, up.url, clients=STREAMS, requests=sizes.streams, stream=True, tokens=TOKENS)
        after = up.usage()
    assert streams.tokens == sizes.streams * TOKENS, "a token without an event of its own"
    return {
        "start_s": started,
        "http_p50_us": statistics.median(single.times) * 1e6,
        "http_requests_per_s": len(many.times) / many.seconds,
        "http_tokens_per_s": streams.tokens / streams.seconds,
        **_cpu(before, between, "task", sizes.requests),
        **_cpu(between, after, "token", streams.tokens),
        "server_mib": after.server_rss / 2**20,
        **({"agent_mib": after.agent_rss / 2**20} if after.agent_rss else {}),
    }


def _cpu(before: Usage, after: Usage, per: str, count: int) -> Figures:
    figures = {f"server_us_per_{per}": (after.server_cpu - before.server_cpu) / count * 1e6}
    if after.agent_rss:
        figures[f"agent_us_per_{per}"] = (after.agent_cpu - before.agent_cpu) / count * 1e6
    return figures


async def time_to_notice(orchestrator: Orchestrator, spec: PeerSpec) -> float:
    """Seconds from ``kill -9`` of an agent to its leaving the registry."""
    agent = await ProcessPeer.start(spec)
    try:
        free = orchestrator.agents_until(lambda agents: bool(agents and agents[0].free_slots))
        await asyncio.wait_for(free, PATIENCE)
        began = time.perf_counter()
        crashing = asyncio.ensure_future(agent.crash())
        await asyncio.wait_for(orchestrator.agents_until(lambda agents: not agents), PATIENCE)
        noticed = time.perf_counter() - began
        await crashing
        return noticed
    finally:
        await agent.stop()


async def measure_death(transport: str, sizes: Sizes) -> Figures:
    if transport == "memory":
        return {}  # no process to kill
    options = options_of(transport)
    made = Plugins().create("transports", transport, options)
    orchestrator = Orchestrator(hub_info(), [made], ListScheduler(), IdlestSelector())
    await orchestrator.start()
    try:
        spec = PeerSpec("agent", transport, options, "mortal", lease=LEASE)
        return {"death_ms": await time_to_notice(orchestrator, spec) * 1e3}
    finally:
        await orchestrator.close()


MEASUREMENTS = (measure_contract, measure_pipeline, measure_whole_way, measure_death)


async def compare(transports: list[str], blocks: int, sizes: Sizes, seed: int) -> dict[str, list[Figures]]:
    """The figures of every block, by transport."""
    order, figures = random.Random(seed), {transport: list[Figures]() for transport in transports}
    for block in range(blocks):
        for transport in order.sample(transports, len(transports)):
            print(f"block {block + 1} of {blocks}: {transport}", file=sys.stderr)
            measured: Figures = {}
            for measure in MEASUREMENTS:
                measured |= await measure(transport, sizes)
            figures[transport].append(measured)
    return figures


def medians(blocks: list[Figures]) -> Figures:
    return {key: statistics.median(block[key] for block in blocks) for key in ROWS if key in blocks[0]}


def table(results: dict[str, Figures]) -> str:
    """The medians as a Markdown table."""

    def cell(figures: Figures, key: str) -> str:
        if key not in figures:
            return "–"
        return f"{figures[key]:,.{2 if key == 'start_s' else 1 if 'per_token' in key else 0}f}"

    lines = [f"| | {' | '.join(results)} |", f"|---|{'---:|' * len(results)}"]
    lines += [
        f"| {title} | {' | '.join(cell(each, key) for each in results.values())} |" for key, title in ROWS.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transports", nargs="*", metavar="TRANSPORT", default=list(TRANSPORTS))
    parser.add_argument("--quick", action="store_true", help="one short block, for a look")
    parser.add_argument("--blocks", type=int, help="how often every transport is measured (6; 1 with --quick)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within the blocks")
    parser.add_argument("--out", type=Path, help="write every block's figures there as JSON")
    args = parser.parse_args()
    if unknown := set(args.transports) - set(TRANSPORTS):
        parser.error(f"no such transport: {', '.join(sorted(unknown))}; there are {', '.join(TRANSPORTS)}")
    blocks = args.blocks if args.blocks is not None else 1 if args.quick else 6
    if blocks < 1:
        parser.error("--blocks must be at least 1")
    run: Callable[[Any], Any] = asyncio.run
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        print("uvloop is not installed: these are the figures of asyncio's own loop", file=sys.stderr)
    load_before = os.getloadavg()
    blocks_of = run(compare(args.transports, blocks, QUICK if args.quick else FULL, args.seed))
    results = {transport: medians(measured) for transport, measured in blocks_of.items()}
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    print(table(results))
    print(f"\n{machine}; {blocks} blocks, seed {args.seed}; load average before: {load_before[0]:.2f}")
    if args.out:
        about = {"machine": machine, "seed": args.seed, "blocks": blocks, "load_before": load_before}
        args.out.write_text(json.dumps({"about": about, "medians": results, "blocks": blocks_of}, indent=2) + "\n")


if __name__ == "__main__":
    main()

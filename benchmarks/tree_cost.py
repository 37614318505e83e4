"""What each level of a tree of orchestrators adds to a task: time, and processor time of every process.

    python benchmarks/tree_cost.py [--transport zeromq] [--levels 1 2 3] [--rounds 3] [--tasks 1000] [--out FILE]

The orchestrator at the top is in this process. Each further level is an ``anywire serve`` that joins the one above, and
below the lowest is an agent with the synthetic engine. Measured are tasks of one token, one at a time, and 64 in
flight; and 16 streams of 64 tokens, 100 per second each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from anywire.identity import hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from cost_probe import cpu_seconds
from transport_stack import (
    IN_FLIGHT,
    LEASE,
    PATIENCE,
    STREAM,
    anywire_process,
    new_event_loop,
    options_of,
    submission,
)

STREAMS, ROUNDS, ITL = 16, 2, 10.0


@asynccontextmanager
async def tree(transport: str, levels: int, folder: Path) -> AsyncIterator[tuple[Orchestrator, list[psutil.Process]]]:
    """The orchestrator at the top, and the processes below it: the further orchestrators from the top down, then the
    agent."""
    async with AsyncExitStack() as stack:
        options = [stack.enter_context(options_of(transport)) for _ in range(levels)]
        plugins = Plugins()
        top = Orchestrator(
            hub_info(),
            [plugins.create("transports", transport, options[0])],
            plugins.create("schedulers", "fifo", {}),
            plugins.create("selectors", "least_loaded", {}),
            plugins=plugins,
        )
        await top.start()
        stack.push_async_callback(top.close)
        processes = []
        for level in range(1, levels + 1):
            settings: dict[str, Any] = {"lease": {"timeout": LEASE}, "log_level": "error"}
            if level < levels:
                role = "serve"
                settings |= {"transports": {transport: options[level]}, "join": {transport: options[level - 1]}}
                settings |= {"gateways": []}
            else:
                role = "agent"
                engine = {"name": "synthetic", "length": STREAM, "itl": ITL}
                settings |= {"transports": {transport: options[-1]}, "engine": engine, "agent": {"slots": IN_FLIGHT}}
            path = folder / f"level-{levels}-{level}.json"
            path.write_text(json.dumps(settings))
            process = await stack.enter_async_context(anywire_process(role, "--config", str(path)))
            processes.append(psutil.Process(process.pid))
        free = top.agents_until(lambda agents: any(each.free_slots > 0 for each in agents))
        await asyncio.wait_for(free, PATIENCE)
        yield top, processes


async def measure(transport: str, levels: int, tasks: int, folder: Path) -> dict[str, Any]:
    async with tree(transport, levels, folder) as (top, processes):
        names = ["top", *(f"level {number}" for number in range(2, levels + 1)), "agent"]
        pids = [os.getpid(), *(each.pid for each in processes)]
        times: list[float] = []

        async def ask(count: int) -> int:
            for _ in range(count):
                began = time.perf_counter()
                await top.submit(submission(1)).result()
                times.append(time.perf_counter() - began)
            return count

        async def together() -> int:
            return sum(await asyncio.gather(*(ask(tasks // IN_FLIGHT) for _ in range(IN_FLIGHT))))

        async def read() -> int:
            return len([chunk async for chunk in top.submit(submission(STREAM, stream=True))])

        async def streams() -> int:
            return sum([sum(await asyncio.gather(*(read() for _ in range(STREAMS)))) for _ in range(ROUNDS)])

        async def costs(work: Any) -> dict[str, float]:
            before = [cpu_seconds(pid) for pid in pids]
            count = await work
            after = [cpu_seconds(pid) for pid in pids]
            return {
                name: round((now - then) * 1e6 / count, 1) for name, now, then in zip(names, after, before, strict=True)
            }

        await ask(tasks // 10)
        times.clear()
        await ask(tasks // 4)
        alone = statistics.median(times) * 1e3
        return {
            "levels": levels,
            "alone_ms": round(alone, 3),
            "task_us": await costs(together()),
            "chunk_us": await costs(streams()),
        }


async def compare(transport: str, levels: list[int], rounds: int, tasks: int) -> list[dict[str, Any]]:
    found: dict[int, list[dict[str, Any]]] = {each: [] for each in levels}
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        for _ in range(rounds):
            for each in levels:
                found[each].append(await measure(transport, each, tasks, Path(folder)))
                print(json.dumps(found[each][-1]), file=sys.stderr, flush=True)
    return [median(each) for each in found.values()]


def median(rounds: Sequence[Any]) -> Any:
    """Of each number in equal trees of them."""
    if isinstance(rounds[0], dict):
        return {key: median([each[key] for each in rounds]) for key in rounds[0]}
    return statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="zeromq")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="file for the figures, as `scale.py --tree` reads it")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(compare(given.transport, given.levels, given.rounds, given.tasks))
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    text = json.dumps({"transport": given.transport, "load_average": load, "levels": found}, indent=1)
    if given.out is not None:
        given.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()

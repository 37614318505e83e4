"""Keeps 64 tasks in flight through the pipeline of one transport, and tells what a task costs in each process.

It is there to be profiled; the agent is a child of this process, whose own event loop is the hub's:

    python benchmarks/hold_load.py dds [--seconds 10]
    py-spy record --native --subprocesses --format raw --output dds.txt -- python benchmarks/hold_load.py dds
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import NamedTuple

import psutil

import nats_server
from anywire.plugins import Plugins
from transport_stack import ANSWER, IN_FLIGHT, new_event_loop, options_of, pipeline, submission


class Spent(NamedTuple):
    """Seconds of the event loop's thread in user space and in the kernel, seconds of the library's own threads, and
    how often the event loop slept."""

    user: float
    system: float
    library: float
    sleeps: float


def spent(process: psutil.Process) -> Spent:
    threads = {each.id: each for each in process.threads()}
    loop = threads.pop(process.pid)
    library = sum(each.user_time + each.system_time for each in threads.values())
    return Spent(loop.user_time, loop.system_time, library, process.num_ctx_switches().voluntary)


def processes_by_name() -> dict[str, psutil.Process]:
    """Those of a pipeline: the hub is this one; over memory the agent is in it, and over nats there is a server."""
    here, found = psutil.Process(), {}
    for each in here.children():
        found["server" if each.name() == nats_server.NAME else "agent"] = each
    return {"hub": here, **found}


async def hold(transport: str, seconds: float) -> None:
    tasks, asked = 0, submission(ANSWER)

    async def client(until: float) -> None:
        nonlocal tasks
        while time.perf_counter() < until:
            await orchestrator.submit(asked).result()
            tasks += 1

    async with AsyncExitStack() as stack:
        options = stack.enter_context(options_of(transport))
        orchestrator = await stack.enter_async_context(pipeline(transport, options))
        processes = processes_by_name()
        before = {name: spent(process) for name, process in processes.items()}
        began = time.perf_counter()
        await asyncio.gather(*(client(began + seconds) for _ in range(IN_FLIGHT)))
        took = time.perf_counter() - began
        print(f"{transport}: {tasks / took:,.0f} tasks/s with {IN_FLIGHT} in flight")
        for name, process in processes.items():
            user, system, library, sleeps = (
                (now - then) / tasks for now, then in zip(spent(process), before[name], strict=True)
            )
            print(
                f"  {name}, per task: loop {user * 1e6:.1f} us user and {system * 1e6:.1f} us system, "
                f"the library's threads {library * 1e6:.1f} us, {sleeps:.2f} sleeps"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=Plugins().names("transports"))
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(hold(args.transport, args.seconds))


if __name__ == "__main__":
    main()

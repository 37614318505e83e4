"""What tasks, tokens and idle agents take on the wire and of the processor: the inputs of `scale.py`.

    python benchmarks/wire_cost.py [TRANSPORT ...] [--rounds 3] [--tasks 2000] [--idle 4] [--links 32] [--out FILE]

An orchestrator is in this process, one agent with the synthetic engine in another, and over ``nats`` its server in a
third. Measured are, each by itself: nothing to do; further agents with nothing to do, what each adds; tasks one at a
time, and 64 in flight, each an answer of one token to a prompt of 300 characters; 16 streams of 64 tokens, 100 per
second each. What an idle fleet takes is subtracted from tasks and tokens. Packets and bytes are those of the loopback
interface, headers and acknowledgements included; a broker has each message twice. As root they are counted in a network
namespace of this process alone; else everything that uses loopback meanwhile is counted too.

Then clients over HTTP: what a request and a token take of ``anywire up``, with 64 clients and with 16 streams. The
transports take turns, each time in new processes; what is told is the median of each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import idle_agents
import nats_server
from cost_probe import cpu_seconds
from http_load import load
from transport_stack import IN_FLIGHT, PATIENCE, STREAM, new_event_loop, options_of, pipeline, server, submission

TRANSPORTS = ("dds", "zeromq", "nats", "grpc", "http")
LEASE = 1.0
STREAMS, STREAM_ROUNDS, ITL = 16, 2, 10.0
SETTLE = 2.0
"""Seconds until discovery is over."""
_CLONE_NEWNET = 0x40000000

Figures = dict[str, dict[str, float]]
"""By what was measured, and in it by unit."""


class Used(NamedTuple):
    """Until some moment: seconds, packets and bytes on loopback, and seconds of processor time by process."""

    at: float
    packets: int
    bytes: int
    cpu: dict[str, float]


class Cost(NamedTuple):
    """Of one second, task or token. ``cpu``: microseconds by process."""

    packets: float
    bytes: float
    cpu: dict[str, float]

    def told(self) -> dict[str, float]:
        return {
            "packets": self.packets,
            "bytes": self.bytes,
            **{f"{name}_us": value for name, value in self.cpu.items()},
        }


def own_network() -> bool:
    """Whether this process has a loopback interface of its own from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.unshare(_CLONE_NEWNET) != 0:
        return False
    return subprocess.run(("ip", "link", "set", "lo", "up"), check=False).returncode == 0


def loopback() -> tuple[int, int]:
    """Packets and bytes so far."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            fields = numbers.split()
            return int(fields[1]), int(fields[0])
    raise RuntimeError("there is no loopback interface here")


def used() -> Used:
    packets, size = loopback()
    here = psutil.Process()
    cpu = {"hub": cpu_seconds(here.pid)}
    for each in here.children():
        name = "server" if each.name() == nats_server.NAME else "agent"
        cpu[name] = cpu.get(name, 0.0) + cpu_seconds(each.pid)
    return Used(time.perf_counter(), packets, size, cpu)


async def measured(work: Callable[[], Awaitable[int]], idle: Cost | None = None) -> tuple[Cost, float]:
    """What one of the pieces of ``work`` took beyond ``idle``, which is per second; and how many there were in one."""
    before = used()
    count = await work()
    after = used()
    took = after.at - before.at
    rest = idle or Cost(0.0, 0.0, dict.fromkeys(after.cpu, 0.0))
    cpu = {
        name: ((value - before.cpu[name]) * 1e6 - rest.cpu[name] * took) / count for name, value in after.cpu.items()
    }
    return Cost(
        (after.packets - before.packets - rest.packets * took) / count,
        (after.bytes - before.bytes - rest.bytes * took) / count,
        cpu,
    ), count / took


async def per_second(seconds: float) -> Cost:
    """What one second takes in which nothing is asked."""

    async def rest() -> int:
        await asyncio.sleep(seconds)
        return 1

    cost, rate = await measured(rest)
    return Cost(cost.packets * rate, cost.bytes * rate, {name: value * rate for name, value in cost.cpu.items()})


@asynccontextmanager
async def idle_fleet(transport: str, options: dict[str, Any], count: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, idle_agents.__file__, transport, json.dumps(options), str(count)),
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()


async def measure(transport: str, tasks: int, seconds: float, links: int) -> Figures:
    async with AsyncExitStack() as stack:
        options = stack.enter_context(options_of(transport))
        orchestrator = await stack.enter_async_context(pipeline(transport, options, itl=ITL, lease=LEASE))
        answer, stream = submission(1), submission(STREAM, stream=True)

        async def ask(count: int) -> None:
            for _ in range(count):
                await orchestrator.submit(answer).result()

        async def alone() -> int:
            await ask(tasks // 4)
            return tasks // 4

        async def together() -> int:
            each = tasks // IN_FLIGHT
            await asyncio.gather(*(ask(each) for _ in range(IN_FLIGHT)))
            return each * IN_FLIGHT

        async def read() -> int:
            return len([chunk async for chunk in orchestrator.submit(stream)])

        async def streams() -> int:
            chunks = 0
            for _ in range(STREAM_ROUNDS):
                chunks += sum(await asyncio.gather(*(read() for _ in range(STREAMS))))
            return chunks

        await asyncio.sleep(SETTLE)
        idle = await per_second(seconds)
        found: Figures = {"idle second": idle.told()}
        memory = psutil.Process().memory_info().rss
        async with idle_fleet(transport, options, links):
            waiting = orchestrator.agents_until(lambda agents: len(agents) == links + 1)
            await asyncio.wait_for(waiting, PATIENCE)
            await asyncio.sleep(SETTLE)
            memory = psutil.Process().memory_info().rss - memory
            more = await per_second(seconds)
        cpu = {name: (value - idle.cpu[name]) / links for name, value in more.cpu.items()}
        each = Cost((more.packets - idle.packets) / links, (more.bytes - idle.bytes) / links, cpu)
        found["idle link second"] = each.told() | {"hub_kib": memory / 1024 / links}
        waiting = orchestrator.agents_until(lambda agents: len(agents) == 1)
        await asyncio.wait_for(waiting, PATIENCE)
        await asyncio.sleep(SETTLE)
        await ask(100)
        for name, work in (("task alone", alone), ("task of 64", together), ("chunk of a stream", streams)):
            cost, rate = await measured(work, idle)
            found[name] = cost.told() | {"per_s": rate}
        found["task alone"]["payload_bytes"] = len(answer.body)
        return found


async def served(transport: str, tasks: int) -> Figures:
    """What a request and a token take of ``anywire up`` and its agent, with clients over HTTP."""
    found: Figures = {}
    with options_of(transport) as options:
        async with server(transport, options, "--set", f"engine.itl={ITL:g}") as url:
            (process,) = (each for each in psutil.Process().children() if each.name() != nats_server.NAME)
            agents = [each.pid for each in process.children(recursive=True)]
            for name, asked in (
                ("request of 64", {"clients": IN_FLIGHT, "requests": tasks, "tokens": 1}),
                ("token over HTTP", {"clients": STREAMS, "requests": STREAMS * STREAM_ROUNDS, "tokens": STREAM}),
            ):
                stream = name == "token over HTTP"
                await load(url, stream=stream, **asked | {"requests": STREAMS})  # type: ignore[arg-type]
                before = cpu_seconds(process.pid), sum(map(cpu_seconds, agents))
                result = await load(url, stream=stream, **asked)  # type: ignore[arg-type]
                count = result.tokens if stream else len(result.times)
                after = cpu_seconds(process.pid), sum(map(cpu_seconds, agents))
                hub, agent = ((now - then) * 1e6 / count for now, then in zip(after, before, strict=True))
                found[name] = {"hub_us": hub, "agent_us": agent, "per_s": count / result.seconds}
    return found


def measured_apart(transport: str, given: argparse.Namespace) -> Figures:
    """By a process of its own, whose memory is new."""
    numbers = (given.tasks, given.idle, given.links)
    command = (sys.executable, __file__, "--one", transport, *map(str, numbers))
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_one(transport: str, tasks: int, seconds: float, links: int) -> None:
    """Print the figures of one round as JSON."""
    if not own_network():
        print("not root: whatever else uses the loopback interface is counted too", file=sys.stderr)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(measure(transport, tasks, seconds, links)) | runner.run(served(transport, tasks))
    print(json.dumps(found))


def medians(rounds: Sequence[Figures]) -> Figures:
    """Of each figure, rounded to four digits."""
    return {
        what: {unit: float(f"{statistics.median(each[what][unit] for each in rounds):.4g}") for unit in rounds[0][what]}
        for what in rounds[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transports", nargs="*", default=TRANSPORTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=2000, help="64 in flight; a quarter of them one at a time")
    parser.add_argument("--idle", type=float, default=4.0, help="seconds in which nothing is done")
    parser.add_argument("--links", type=int, default=32, help="further agents with nothing to do")
    parser.add_argument("--out", type=Path, help="file for the figures, as `scale.py --wire` reads it")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    found: dict[str, list[Figures]] = {name: [] for name in given.transports}
    for number in range(given.rounds):
        for name, rounds in found.items():
            rounds.append(measured_apart(name, given))
            print(number + 1, name, json.dumps(medians(rounds[-1:])), file=sys.stderr, flush=True)
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rounds": given.rounds,
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    text = json.dumps({"machine": machine, **{name: medians(rounds) for name, rounds in found.items()}}, indent=1)
    if given.out is not None:
        given.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure_one(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        main()

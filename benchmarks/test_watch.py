"""What being watched costs: the pipeline over DDS with nobody, with ``anywire watch``, and with one that was stopped.

The arms are interleaved in random order and compared within a round. A stopped watcher is measured from the moment it
stops: its lease is still good then, and everybody still sends to it.
"""

import asyncio
import json
import random
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

import psutil
import pytest

from anywire.pipeline.orchestrator import Orchestrator
from transport_stack import ANSWER, IN_FLIGHT, pipeline, submission

Arm = Literal["nobody", "watched", "stopped"]
ARMS: tuple[Arm, ...] = ("nobody", "watched", "stopped")
ROUNDS = 9
SECONDS = 0.6
STREAMS = 32
TASK, STREAM = submission(ANSWER), submission(64, stream=True)


@asynccontextmanager
async def watcher(domain: int, arm: Arm) -> AsyncIterator[None]:
    if arm == "nobody":
        yield
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "watch", "--json", "--dds-domain", str(domain)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    reading = asyncio.ensure_future(_until_told(process.stdout))
    try:
        await asyncio.wait_for(reading, 20)
        # What it prints is not this process's to read while it is measured.
        if arm == "stopped":
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        await process.communicate()


async def _until_told(output: asyncio.StreamReader) -> None:
    while json.loads(await output.readline())["event"] != "hub_reported":
        pass


async def unary(orchestrator: Orchestrator, until: float) -> int:
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await orchestrator.submit(TASK).result()
            done += 1

    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    return done


async def streams(orchestrator: Orchestrator, until: float) -> int:
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        while time.perf_counter() < until:
            stream = orchestrator.submit(STREAM)
            while chunks := await stream.take():
                tokens += sum(len(chunk.deltas) for chunk in chunks)

    await asyncio.gather(*(client() for _ in range(STREAMS)))
    return tokens


@pytest.mark.timeout(300)
@pytest.mark.parametrize("work", [unary, streams])
def test_being_watched(
    loop: asyncio.AbstractEventLoop,
    benchmark: Any,
    domain: int,
    work: Callable[[Orchestrator, float], Coroutine[Any, Any, int]],
) -> None:
    benchmark.group = "watch"
    rates: defaultdict[Arm, list[float]] = defaultdict(list)
    costs: defaultdict[Arm, list[float]] = defaultdict(list)

    async def run() -> None:
        async with pipeline("dds", {"domain": domain}) as orchestrator:
            processes = [psutil.Process(), *psutil.Process().children()]
            await work(orchestrator, time.perf_counter() + SECONDS)
            for _ in range(1 if benchmark.disabled else ROUNDS):
                for arm in random.sample(ARMS, len(ARMS)):
                    async with watcher(domain, arm):
                        before, began = _cpu(processes), time.perf_counter()
                        done = await work(orchestrator, began + SECONDS)
                        rates[arm].append(done / (time.perf_counter() - began))
                        costs[arm].append((_cpu(processes) - before) / done)
            assert set(orchestrator.stats()["tasks"]["ended"]) == {"answered"}

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=1)
    for arm in ARMS[1:]:
        for name, values in (("rate", rates), ("cpu", costs)):
            ratios = [with_it / without for with_it, without in zip(values[arm], values["nobody"], strict=True)]
            benchmark.extra_info[f"{arm}_{name}"] = round(statistics.median(ratios), 3)
    info = benchmark.extra_info
    each = {"unary": "task", "streams": "token"}[work.__name__]
    print(
        f"\n{work.__name__}: {statistics.median(rates['nobody']):,.0f} {each}s/s unwatched "
        f"({statistics.median(costs['nobody']) * 1e6:.1f} us CPU each); "
        f"watched {info['watched_rate']} of that ({info['watched_cpu']} of the CPU), "
        f"by a stopped one {info['stopped_rate']} ({info['stopped_cpu']})"
    )


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes)

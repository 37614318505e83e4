"""What one decision costs: which task, which agent, and the send call, with many agents and many tasks that wait.

    python benchmarks/decisions.py [--agents 1 10 100 1000] [--queued 10000] [--decisions 1000] [--only power_of_two]

The pipeline is the real one, over a transport that does nothing. Tasks of 100 tenants wait for one model, whose agents
have no free slot; as many agents have another model, for which nobody waits, and half of their slots are free. Measured
is the time until the transport is called (a decision is so short that a busy neighbour seldom falls into one: trust the
median there, and not the 99th percentile):

- ``queue``: an answer ends, so that a slot is free, and a task of the queue gets it: from the call of the scheduler on,
  and in the column ``whole`` from the last chunk on, with the end of the task before;
- ``fleet``: a task comes for the other model: from the call of the scheduler on, and ``whole`` from its submission on,
  with all of its admission.

Every installed scheduler is measured with least_loaded, every selector with fifo. `HASTE` must decide within 50 us in
the median with the most agents, and a waiting task may take 4 KiB of memory beside its body; else the command fails.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import os
import random
import statistics
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any, NamedTuple

from anywire.caller import Caller
from anywire.identity import hub_info
from anywire.messages import AgentInfo, AgentStatus, Chunk, TaskRequest, ToAgent
from anywire.offers import Offer, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask, Ready, Scheduler
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.puppet import PuppetTransport
from transport_stack import new_event_loop

HASTE = ("least_loaded", "power_of_two", "prefix_affinity")
MOST_US, MOST_BYTES = 50.0, 4096
SLOTS = 8
TENANTS = [Caller(f"key-{number}", f"tenant-{number}") for number in range(100)]
WAITED_FOR, FREE = "busy-model", "free-model"
WARM_UP = 200
"""Decisions that do not count."""
DEADLINE = 1e6
"""Seconds: no task is to be refused because it would wait for too long."""
USAGE = '{"prompt_tokens":1500,"completion_tokens":20}'


def bodies(model: str) -> Iterator[str]:
    """Prompts of some 1,500 tokens with one of 32 beginnings, each with a question of its own; the same ones again
    after a while, so that they take no room that counts."""
    chance = random.Random(0)
    beginnings = ["".join(chance.choices("abcdefgh ", k=5600)) for _ in range(32)]
    return itertools.cycle(
        [
            json.dumps(
                {
                    "model": model,
                    "messages": [
                        {"role": "system", "content": chance.choice(beginnings)},
                        {"role": "user", "content": f"{number} " + "what? " * 60},
                    ],
                    "max_tokens": 100,
                }
            )
            for number in range(500)
        ]
    )


class Wire(PuppetTransport):
    """Keeps the requests until they are answered. ``decided`` is when the scheduler was called and when the task was
    sent, of each task sent since it was emptied."""

    def __init__(self) -> None:
        super().__init__()
        self._began = 0
        self.decided: list[tuple[int, int]] = []
        self.running: dict[str, list[tuple[str, TaskRequest]]] = {WAITED_FOR: [], FREE: []}

    def send(self, agent_id: str, message: ToAgent) -> None:
        if isinstance(message, TaskRequest):
            self.decided.append((self._began, perf_counter_ns()))
            self.running[message.model].append((agent_id, message))

    def watch(self, scheduler: Scheduler) -> None:
        """Note when ``scheduler`` is asked for a task."""
        take = scheduler.take

        def noted(ready: Ready, now_ns: int) -> QueuedTask | None:
            self._began = perf_counter_ns()
            return take(ready, now_ns)

        scheduler.take = noted  # type: ignore[method-assign]

    def answer_some(self, model: str, chance: random.Random) -> int:
        """Let one of the tasks that run be answered; when the last chunk came."""
        running = self.running[model]
        at = chance.randrange(len(running))
        running[at], running[-1] = running[-1], running[at]
        agent_id, request = running.pop()
        chunk = Chunk(request.hub_id, request.task_id, request.attempt, 0, ("text",), final=True, usage=USAGE)
        began = perf_counter_ns()
        self.sink.chunk_received(agent_id, 1, chunk)
        return began


class Stand:
    """An orchestrator with its agents, and tasks that wait."""

    def __init__(self, orchestrator: Orchestrator, wire: Wire, chance: random.Random) -> None:
        self._orchestrator, self._wire, self._chance = orchestrator, wire, chance
        self._bodies = {model: bodies(model) for model in (WAITED_FOR, FREE)}
        self._tenants = itertools.cycle(TENANTS)
        self._half = 0

    def join(self, count: int, own: bool) -> None:
        """Let so many agents join for each model, with weights of their ``own`` or the same ones."""
        for number, model in itertools.product(range(count), self._wire.running):
            agent_id = f"{model}-{number}"
            offer = Offer(model, digest=f"sha256:{number}" if own else "")
            self._wire.sink.agent_joined(AgentInfo(agent_id, 1, capabilities=("chat",)))
            status = AgentStatus(agent_id, 1, "ready", offers_text((offer,)), SLOTS)
            self._wire.sink.agent_reported(agent_id, 1, status)

    def submit(self, model: str, stream: bool = False) -> TaskStream:
        session = f"session-{self._chance.randrange(64)}"
        submission = Submission(
            "chat", model, next(self._bodies[model]), stream, caller=next(self._tenants), session=session
        )
        return self._orchestrator.submit(submission)

    def fill(self, agents: int, queued: int) -> None:
        """Take all slots of the one model and let ``queued`` tasks wait; take half of the slots of the other."""
        self._half = agents * SLOTS // 2
        for model, count in ((WAITED_FOR, agents * SLOTS), (FREE, agents * SLOTS // 2)):
            for _ in range(count):
                self.submit(model)
        for _ in range(queued):
            self.submit(WAITED_FOR)

    def of_queue(self) -> tuple[float, float] | None:
        """Microseconds of a decision, and of the whole from the last chunk on. None when no task was sent: the selector
        holds some for a while."""
        self._wire.decided.clear()
        came = self._wire.answer_some(WAITED_FOR, self._chance)
        found = self._first_after(came)
        for _ in self._wire.decided.copy():
            self.submit(WAITED_FOR)
        return found

    def of_fleet(self) -> tuple[float, float] | None:
        """The same for a task that comes, the whole being from its submission on."""
        self._wire.decided.clear()
        came = perf_counter_ns()
        self.submit(FREE)
        found = self._first_after(came)
        while len(self._wire.running[FREE]) > self._half:
            self._wire.answer_some(FREE, self._chance)
        return found

    def _first_after(self, came: int) -> tuple[float, float] | None:
        if not self._wire.decided:
            return None
        began, sent = self._wire.decided[0]
        return (sent - began) / 1e3, (sent - came) / 1e3


@asynccontextmanager
async def stand(scheduler: str, selector: str, agents: int, queued: int, own: bool = False) -> AsyncIterator[Stand]:
    plugins, wire = Plugins(), Wire()
    made: Any = plugins.create("schedulers", scheduler, {"max_queue_size": 2 * queued + 1})
    orchestrator = Orchestrator(
        hub_info(),
        [wire],
        made,
        plugins.create("selectors", selector, {}),
        config=PipelineConfig(deadline=DEADLINE),
        plugins=plugins,
    )
    wire.watch(made)
    await orchestrator.start()
    try:
        found = Stand(orchestrator, wire, random.Random(agents))
        found.join(agents, own)
        yield found
    finally:
        await orchestrator.close()


class Cost(NamedTuple):
    """Microseconds: median and 99th percentile of the decision, median of the whole."""

    median: float
    late: float
    whole: float


def cost(found: Sequence[tuple[float, float]]) -> Cost:
    took = sorted(each for each, _ in found)
    return Cost(statistics.median(took), took[len(took) * 99 // 100], statistics.median(whole for _, whole in found))


async def measure(scheduler: str, selector: str, agents: int, queued: int, count: int, own: bool) -> dict[str, Cost]:
    async with stand(scheduler, selector, agents, queued, own) as made:
        made.fill(agents, queued)
        gc.collect()
        costs = {}
        for name, decide in (("queue", made.of_queue), ("fleet", made.of_fleet)):
            for _ in range(WARM_UP):
                decide()
            costs[name] = cost([each for _ in range(count) if (each := decide()) is not None])
    return costs


async def memory(scheduler: str, selector: str, queued: int, stream: bool) -> float:
    """Bytes for each task that waits, its body not counted."""
    async with stand(scheduler, selector, 1, queued) as made:
        made.fill(1, 0)
        for _ in range(WARM_UP):
            made.submit(WAITED_FOR, stream)
        gc.collect()
        tracemalloc.start()
        waiting = [made.submit(WAITED_FOR, stream) for _ in range(queued)]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    return (taken - sys.getsizeof(waiting)) / queued


async def run(counts: Sequence[int], queued: int, decisions: int, only: Sequence[str]) -> list[str]:
    """What is too slow or too large."""
    plugins = Plugins()
    pairs = [(name, "least_loaded", False) for name in plugins.names("schedulers")]
    pairs += [("fifo", name, False) for name in plugins.names("selectors") if name != "least_loaded"]
    pairs += [("fifo", name, True) for name in HASTE]
    faults = []
    cells = "".join(f"{f'{count:,} agents':>24}" for count in counts)
    print(f"us, median / 99th percentile / whole{cells}")
    for scheduler, selector, own in pairs:
        if only and not {scheduler, selector} & set(only):
            continue
        try:
            found = [await measure(scheduler, selector, count, queued, decisions, own) for count in counts]
        except Exception as error:
            print(f"{scheduler}, {selector}: {error}")
            continue
        for situation in found[0]:
            name = f"{situation}: {scheduler}, {selector}{', own weights' if own else ''}"
            costs = [each[situation] for each in found]
            print(f"{name:36}" + "".join(f"{c.median:9.1f}{c.late:8.1f}{c.whole:7.1f}" for c in costs), flush=True)
            if scheduler == "fifo" and selector in HASTE and not own and costs[-1].median > MOST_US:
                faults.append(f"{name} with {counts[-1]:,} agents: {costs[-1].median:.1f} us, more than {MOST_US:g}")
    print(f"\nbytes of each of {queued:,} tasks that wait, beside the body; whole answers / streams")
    for scheduler, selector, own in pairs:
        if own or (only and not {scheduler, selector} & set(only)):
            continue
        whole, stream = [await memory(scheduler, selector, queued, stream) for stream in (False, True)]
        print(f"{f'{scheduler}, {selector}':36}{whole:9,.0f}{stream:9,.0f}", flush=True)
        if max(whole, stream) > MOST_BYTES:
            faults.append(f"{scheduler}, {selector}: {max(whole, stream):,.0f} bytes a task, more than {MOST_BYTES:,}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 10, 100, 1000], help="for each of both models")
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--decisions", type=int, default=1000, help="of each situation; default: 1000")
    parser.add_argument("--only", action="append", default=[], help="a scheduler or selector; may be repeated")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        faults = runner.run(run(given.agents, given.queued, given.decisions, given.only))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

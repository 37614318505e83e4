"""What it costs an orchestrator that agents come, go and change, with its client plane listening.

    python benchmarks/joins.py [--agents 250 500 1000 2000 4000 8000 16000] [--plane client]

Everything is processor time of one process, over the puppet transport, the least of a few repetitions. The time for one
agent must not depend on how many there are: the table has the exponent of the total (1: proportional, 2: quadratic),
fitted over all sizes (with a model of its own each, over those of 4,000 agents and more: clients are told of up to
1,000 models at each change, and only there are most changes of so many), and the command fails when one is above 1.3.
A task's choice by least_loaded, with the slot taken and freed, must not depend on it either, whether the agents
offer the same or each has weights of its own (a digest).
What an agent reports must not depend on its number of models but for reading them, and a list beyond the limit must be
refused without a look at each name.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from anywire.identity import hub_info
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import MAX_OFFERS, Offer, offers, offers_text
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.fleet import fleet_agent
from anywire.scheduler import QueuedTask, QueueKey
from anywire.testing.puppet import PuppetTransport
from anywire.transport import Plane
from transport_stack import new_event_loop

STEEPEST = 1.3
"""The greatest exponent that passes: 1 and what the caches of the processor add."""
REPEATED = 3
TURN = 50
"""Agents between two turns of the event loop."""
FLIPPED, FLIPS = 100, 20
CHOICES = 1000
MODELS = (1, 100, 1000)
EQUAL_NAMES = 10**6


@asynccontextmanager
async def orchestrator(plane: Plane) -> AsyncIterator[tuple[Orchestrator, PuppetTransport]]:
    """One with its fleet's agent listening on ``plane`` over memory, as every server has it for its clients."""
    plugins = Plugins()
    wire = PuppetTransport()
    made = Orchestrator(
        hub_info(),
        [wire],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        plugins=plugins,
    )
    await made.start()
    listening = fleet_agent(made, [plugins.create("transports", "memory", {})], plane)
    await listening.start()
    try:
        yield made, wire
    finally:
        await listening.close()
        await made.close()


def offers_of(number: int, own: bool) -> str:
    return offers_text(offers(f"model-{number}" if own else "model"))


async def come_and_go(count: int, own: bool, plane: Plane) -> tuple[float, float]:
    """Seconds for ``count`` agents to join, and to leave."""
    async with orchestrator(plane) as (made, wire):
        infos = [AgentInfo(f"agent-{number}", 1, capabilities=("chat",)) for number in range(count)]
        statuses = [
            AgentStatus(info.agent_id, 1, "ready", offers_of(number, own), 8) for number, info in enumerate(infos)
        ]
        gc.collect()
        began = time.process_time()
        for number, (info, status) in enumerate(zip(infos, statuses, strict=True)):
            wire.sink.agent_joined(info)
            wire.sink.agent_reported(info.agent_id, 1, status)
            if number % TURN == 0:
                await asyncio.sleep(0)
        joined = time.process_time() - began
        assert len(made.agents()) == count
        gc.collect()
        began = time.process_time()
        for number, info in enumerate(infos):
            wire.sink.agent_lost(info.agent_id, 1, "test")
            if number % TURN == 0:
                await asyncio.sleep(0)
        left = time.process_time() - began
        assert not made.agents()
    return joined, left


async def choices(count: int, own: bool) -> float:
    """Seconds for a task's agent to be chosen, its slot taken, and another one freed."""
    async with orchestrator("client") as (made, wire):
        for number in range(count):
            wire.sink.agent_joined(AgentInfo(f"agent-{number}", 1, capabilities=("chat",)))
            offer = Offer("model", digest=f"sha256:{number}" if own else "")
            wire.sink.agent_reported(
                f"agent-{number}", 1, AgentStatus(f"agent-{number}", 1, "ready", offers_text((offer,)), 8)
            )
        key, selector = QueueKey("model", "chat"), Plugins().create("selectors", "least_loaded", {})
        task, registry, busy = QueuedTask("task", (key,)), made.registry, deque(made.agents()[: count // 2])
        for agent in busy:
            registry.acquire(agent)
        best = math.inf
        for _ in range(REPEATED):
            began = time.process_time()
            for _ in range(CHOICES):
                agent = selector.select(task, registry.candidates(key))
                registry.acquire(agent)
                busy.append(agent)
                registry.release(busy.popleft())
            best = min(best, time.process_time() - began)
    return best / CHOICES


async def flips(models: int, plane: Plane) -> tuple[float, float, float]:
    """Seconds for a slot to be taken and freed, for a report of other slots, and for one of nothing new, where each
    agent has ``models``. The reports are decoded from bytes, as from a wire: no name is the same object twice."""
    async with orchestrator(plane) as (made, wire):
        offered = offers_text(offers(*(f"model-{number}" for number in range(models))))

        def reports(slots: int) -> list[AgentStatus]:
            return [
                msgspec.json.decode(
                    msgspec.json.encode(AgentStatus(f"agent-{number}", 1, "ready", offered, slots)), type=AgentStatus
                )
                for number in range(FLIPPED)
            ]

        for status in reports(1):
            wire.sink.agent_joined(AgentInfo(status.agent_id, 1, capabilities=("chat",)))
            wire.sink.agent_reported(status.agent_id, 1, status)
        agents = made.agents()
        taken = changed = same = math.inf
        for turn in range(FLIPS):
            await asyncio.sleep(0)
            began = time.process_time()
            for agent in agents:
                made.registry.acquire(agent)
            for agent in agents:
                made.registry.release(agent)
            taken = min(taken, time.process_time() - began)
            for first in (True, False):
                statuses = reports(2 - turn % 2)
                began = time.process_time()
                for status in statuses:
                    wire.sink.agent_reported(status.agent_id, 1, status)
                took = time.process_time() - began
                changed, same = (min(changed, took), same) if first else (changed, min(same, took))
    return taken / FLIPPED, changed / FLIPPED, same / FLIPPED


async def equal_names(plane: Plane) -> float:
    """Seconds to deal with a report of a million equal names, which must be refused."""
    async with orchestrator(plane) as (made, wire):
        wire.join("agent", models=("model",))
        status = AgentStatus("agent", 1, "ready", offers_text(offers("model") * EQUAL_NAMES), 8)
        began = time.process_time()
        wire.sink.agent_reported("agent", 1, status)
        took = time.process_time() - began
        assert made.agents()[0].status.offers == offers_text(offers("model"))
    return took


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


async def measure(sizes: Sequence[int], plane: Plane) -> bool:
    """Whether all that must be proportional is."""
    print(f"{'us per agent':32}" + "".join(f"{size:>9,}" for size in sizes) + f"{'exponent':>10}")
    proportional = True
    for own, what in ((False, "one model for all"), (True, "a model of its own each")):
        found = {size: [await come_and_go(size, own, plane) for _ in range(REPEATED)] for size in sizes}
        for side, verb in enumerate(("join", "leave")):
            best = [min(each[side] for each in found[size]) for size in sizes]
            # Clients are told of up to MAX_OFFERS models at each change: agents cost more until most are so big.
            fitted = [number for number, size in enumerate(sizes) if not own or size >= 4 * MAX_OFFERS]
            slope = exponent([sizes[each] for each in fitted], [best[each] for each in fitted]) if fitted[1:] else 1.0
            proportional &= slope <= STEEPEST
            cells = "".join(f"{seconds / size * 1e6:9.1f}" for size, seconds in zip(sizes, best, strict=True))
            print(f"{verb}, {what:{30 - len(verb)}}{cells}{slope:10.2f}", flush=True)
    for own, what in ((False, "choose, all offer the same"), (True, "choose, weights of its own each")):
        took = [await choices(size, own) for size in sizes]
        print(f"{what:32}" + "".join(f"{each * 1e6:9.1f}" for each in took), flush=True)
    print(f"\n{'us, of one agent with models':32}" + "".join(f"{models:>9,}" for models in MODELS))
    rows = [await flips(models, plane) for models in MODELS]
    for row, what in enumerate(("slot taken and freed", "other slots reported", "nothing new reported")):
        print(f"{what:32}" + "".join(f"{each[row] * 1e6:9.1f}" for each in rows))
    print(f"\n{EQUAL_NAMES:,} equal names refused in {await equal_names(plane) * 1e6:.0f} us")
    return proportional


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000, 8000, 16000])
    parser.add_argument("--plane", choices=("client", "agent"), default="client", help="on which the fleet listens")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f}")
    make_loop: Callable[[], Any] = new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        sys.exit(not runner.run(measure(args.agents, args.plane)))


if __name__ == "__main__":
    main()

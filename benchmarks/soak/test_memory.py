"""10,000 agents come, take a task each and go: the memory of an orchestrator, and of an agent, does not grow.

python -m pytest benchmarks/soak/test_memory.py -s

What is remembered of the past is bounded by number, and the first 1,100 agents fill all of it: they are more than the
1,024 that are remembered, every second brings ten models, more than the 4,096 keys that are, and all of them forge
messages or leave a task behind. From then on nothing may be added, so the bound is what
the hash tables of these waver by as they are built anew, and no more: `SLACK` bytes over the other 8,900 agents, 29 for
each. A dictionary entry with a new id of each would be five times as much.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from anywire.identity import agent_info, hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script, ScriptedEngine
from churn import Churn

FIRST, AGENTS = 1_100, 10_000
SLACK = 256 * 1024
"""Bytes."""
TURN = 20
"""Agents of the memory transport that come and go together."""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    logging.disable(logging.CRITICAL)  # the records that pytest keeps would be the growth
    tracemalloc.start()
    yield
    tracemalloc.stop()
    logging.disable(logging.NOTSET)


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def report(what: str, before: int) -> None:
    grown = memory() - before
    print(f"{what}: {grown:+,} bytes over {AGENTS - FIRST:,} agents")
    assert grown <= SLACK


@pytest.mark.parametrize("selector", ["least_loaded", "round_robin"])
async def test_an_orchestrator_forgets_agents_that_have_gone(selector: str) -> None:
    churn = Churn(selector)
    await churn.orchestrator.start()
    try:
        await churn.pass_through(FIRST, models=10, ways=("forge", "leave"))
        before = memory()
        await churn.pass_through(AGENTS - FIRST)
        report(selector, before)
    finally:
        await churn.orchestrator.close()


@pytest.fixture
async def orchestrator() -> AsyncIterator[Orchestrator]:
    plugins = Plugins()
    made = Orchestrator(
        hub_info(),
        [plugins.create("transports", "memory", {"network": "soak"})],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        plugins=plugins,
    )
    await made.start()
    yield made
    await made.close()


async def test_nothing_of_an_agent_is_left_over_memory(orchestrator: Orchestrator) -> None:
    """Whole agents: their own runs and ports too."""
    plugins = Plugins()
    submission = Submission("chat", MODEL, Script(chunks=3).body(), stream=True)

    async def come_and_go(first: int) -> None:
        agents = []
        for number in range(first, first + TURN):
            engine = ScriptedEngine()
            transport = plugins.create("transports", "memory", {"network": "soak"})
            agents.append(Agent(agent_info(f"agent-{number:08}", engine=engine), engine, [transport]))
            await agents[-1].start()
        await orchestrator.agents_until(lambda known: sum(each.free_slots for each in known) == TURN)
        answers = await asyncio.gather(*[orchestrator.submit(submission).result() for _ in range(TURN)])
        assert all(answer.final for answer in answers)
        for agent in agents:
            await agent.close()
        await orchestrator.agents_until(lambda known: not known)

    for first in range(0, FIRST, TURN):
        await come_and_go(first)
    before = memory()
    for first in range(FIRST, AGENTS, TURN):
        await come_and_go(first)
    report("memory", before)

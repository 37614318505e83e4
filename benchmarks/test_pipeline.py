"""What the pipeline costs by itself: the same unary task over memory and DDS, beside the bare typed DDS round trip.

One client at a time (group ``one``) and 64 in flight (group ``64``). Over DDS the agent is its own process; its engine
is the synthetic one at zero delay with 20 tokens.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anywire.agent import Agent
from anywire.identity import agent_info, hub_info
from anywire.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.submission import Submission
from dds_round_trip import ARMS, Arm, pair

Rounds = Callable[[Any], None]
BODY = json.dumps({"model": "synthetic", "messages": [{"role": "user", "content": "x" * 300}]})
TASK = Submission("chat", "synthetic", BODY)
IN_FLIGHT = 64


@asynccontextmanager
async def pipeline(transport: str, options: dict[str, Any]) -> AsyncIterator[Orchestrator]:
    """An orchestrator with one agent of 64 slots, in its own process where the transport allows."""
    plugins = Plugins()
    orchestrator = Orchestrator(
        hub_info(),
        [plugins.create("transports", transport, options)],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        plugins=plugins,
    )
    await orchestrator.start()
    if transport == "memory":
        engine = plugins.create("engines", "synthetic", {})
        agent = Agent(
            agent_info(engine=engine), engine, [plugins.create("transports", "memory", options)], slots=IN_FLIGHT
        )
        await agent.start()
        stop = agent.close
    else:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", "agent", "--engine", "synthetic", "--slots", str(IN_FLIGHT)),
            *("--transport", transport, "--dds-domain", str(options["domain"])),
            stdout=asyncio.subprocess.DEVNULL,
        )

        async def stop() -> None:
            process.terminate()
            await process.wait()

    try:
        await asyncio.wait_for(orchestrator.agents_until(lambda agents: any(a.free_slots > 0 for a in agents)), 20)
        yield orchestrator
    finally:
        await stop()
        await orchestrator.close()


async def one_by_one(orchestrator: Orchestrator, count: int) -> None:
    for _ in range(count):
        await orchestrator.submit(TASK).result()


async def many_at_once(orchestrator: Orchestrator, count: int) -> None:
    async def client() -> None:
        for _ in range(count // IN_FLIGHT + 1):
            await orchestrator.submit(TASK).result()

    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))


@pytest.mark.parametrize("transport", ["memory", "dds"])
@pytest.mark.parametrize("load", ["one", "64"])
def test_pipeline(
    loop: asyncio.AbstractEventLoop, rounds: Rounds, benchmark: Any, transport: str, load: str, domain: int
) -> None:
    benchmark.group = load
    opened = pipeline(transport, {"domain": domain} if transport == "dds" else {})
    orchestrator = loop.run_until_complete(opened.__aenter__())
    work = one_by_one if load == "one" else many_at_once
    rounds(lambda count: work(orchestrator, count))
    assert set(orchestrator.stats()["tasks"]["ended"]) == {"answered"}
    loop.run_until_complete(opened.__aexit__(None, None, None))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("load", ["one", "64"])
def test_bare_dds(loop: asyncio.AbstractEventLoop, rounds: Rounds, benchmark: Any, arm: Arm, load: str) -> None:
    benchmark.group = load
    opened = pair(arm)
    trips = loop.run_until_complete(opened.__aenter__())

    async def work(count: int) -> None:
        if load == "64":
            await trips.many(count)
            return
        for _ in range(count):
            await trips.one()

    rounds(work)
    loop.run_until_complete(opened.__aexit__(None, None, None))

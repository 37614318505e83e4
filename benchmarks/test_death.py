"""How long an agent's death goes unnoticed: from ``kill -9`` to its leaving the registry, for two leases."""

import asyncio
import time
from typing import Any

import pytest

from anywire.identity import hub_info
from anywire.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.testing.doubles import IdlestSelector, ListScheduler
from anywire.testing.peer import PeerSpec
from anywire.testing.rig import ProcessPeer

DEATHS = 10


@pytest.mark.parametrize("lease", [1.0, 0.2])
def test_time_to_notice(loop: asyncio.AbstractEventLoop, benchmark: Any, domain: int, lease: float) -> None:
    benchmark.group = "death"
    options = {"domain": domain}
    times: list[float] = []

    async def die(orchestrator: Orchestrator, number: int) -> float:
        agent = await ProcessPeer.start(PeerSpec("agent", "dds", options, f"a{number}", lease=lease))
        await asyncio.wait_for(orchestrator.agents_until(lambda agents: bool(agents and agents[0].free_slots)), 20)
        began = time.perf_counter()
        crashing = asyncio.ensure_future(agent.crash())
        await asyncio.wait_for(orchestrator.agents_until(lambda agents: not agents), 20)
        noticed = time.perf_counter() - began
        await crashing
        return noticed

    async def run() -> None:
        transport = Plugins().create("transports", "dds", options)
        orchestrator = Orchestrator(hub_info(), [transport], ListScheduler(), IdlestSelector())
        await orchestrator.start()
        times.extend([await die(orchestrator, number) for number in range(DEATHS)])
        await orchestrator.close()

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=1)
    times.sort()
    benchmark.extra_info |= {"median_ms": round(times[DEATHS // 2] * 1e3), "worst_ms": round(times[-1] * 1e3)}
    print(f"\nlease {lease * 1e3:.0f} ms: {benchmark.extra_info}")

"""How long an agent's death goes unnoticed: from ``kill -9`` to its leaving the registry, for two leases."""

import asyncio
from typing import Any

import pytest

from anywire.identity import hub_info
from anywire.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.testing.doubles import IdlestSelector, ListScheduler
from anywire.testing.peer import PeerSpec
from compare_transports import time_to_notice
from transport_stack import options_of

DEATHS = 10


@pytest.mark.parametrize("lease", [1.0, 0.2])
@pytest.mark.parametrize("transport", ["dds", "zeromq", "http"])
def test_time_to_notice(loop: asyncio.AbstractEventLoop, benchmark: Any, transport: str, lease: float) -> None:
    benchmark.group = "death"
    options = options_of(transport)
    times: list[float] = []

    async def run() -> None:
        made = Plugins().create("transports", transport, options)
        orchestrator = Orchestrator(hub_info(), [made], ListScheduler(), IdlestSelector())
        await orchestrator.start()
        for number in range(DEATHS):
            spec = PeerSpec("agent", transport, options, f"a{number}", lease=lease)
            times.append(await time_to_notice(orchestrator, spec))
        await orchestrator.close()

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=1)
    times.sort()
    benchmark.extra_info |= {"median_ms": round(times[DEATHS // 2] * 1e3, 1), "worst_ms": round(times[-1] * 1e3, 1)}
    print(f"\n{transport}, lease {lease * 1e3:.0f} ms: {benchmark.extra_info}")

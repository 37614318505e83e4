"""How long an agent's death goes unnoticed: from ``kill -9`` to its leaving the registry, for two leases."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from anywire.identity import hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.testing.doubles import fifo, least_loaded
from anywire.testing.peer import PeerSpec
from anywire.testing.rig import ProcessPeer
from timing import opened
from transport_stack import PATIENCE

DEATHS = 5


@asynccontextmanager
async def waiting(transport: str, options: dict[str, Any]) -> AsyncIterator[Orchestrator]:
    made = Plugins().create("transports", transport, options)
    orchestrator = Orchestrator(hub_info(), [made], fifo(), least_loaded())
    await orchestrator.start()
    try:
        yield orchestrator
    finally:
        await orchestrator.close()


@pytest.fixture(scope="module")
def orchestrator(loop: asyncio.AbstractEventLoop, transport: str, options: dict[str, Any]) -> Iterator[Orchestrator]:
    if not Plugins().load("transports", transport).capabilities.inter_process:
        pytest.skip(f"{transport} stays inside of one process: there is none to kill")
    with opened(loop, waiting(transport, options)) as orchestrator:
        yield orchestrator


class Mortal:
    """An agent in a process of its own, one life after another."""

    def __init__(self, orchestrator: Orchestrator, spec: PeerSpec) -> None:
        self._orchestrator, self._spec = orchestrator, spec
        self._peer: ProcessPeer | None = None
        self._dying: asyncio.Task[None] | None = None

    async def live(self) -> None:
        self._peer = await ProcessPeer.start(self._spec)
        free = self._orchestrator.agents_until(lambda agents: bool(agents and agents[0].free_slots))
        await asyncio.wait_for(free, PATIENCE)

    async def die(self) -> None:
        """Returns when it has left the registry."""
        assert self._peer is not None
        self._dying = asyncio.create_task(self._peer.crash())
        await asyncio.wait_for(self._orchestrator.agents_until(lambda agents: not agents), PATIENCE)

    async def bury(self) -> None:
        if self._dying is not None:
            await self._dying
        if self._peer is not None:
            await self._peer.stop()


@pytest.mark.parametrize("lease", [1.0, 0.2])
@pytest.mark.benchmark(group="death of an agent noticed")
def test_time_to_notice(
    loop: asyncio.AbstractEventLoop,
    benchmark: BenchmarkFixture,
    orchestrator: Orchestrator,
    transport: str,
    options: dict[str, Any],
    lease: float,
) -> None:
    agent = Mortal(orchestrator, PeerSpec("agent", transport, options, "mortal", lease=lease))
    try:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: loop.run_until_complete(agent.die()),
            setup=lambda: loop.run_until_complete(agent.live()),
            teardown=lambda: loop.run_until_complete(agent.bury()),
            rounds=DEATHS,
        )
    finally:
        loop.run_until_complete(agent.bury())

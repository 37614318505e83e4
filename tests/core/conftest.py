from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from anywire.identity import hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import fifo, least_loaded
from anywire.testing.puppet import PuppetTransport


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def wire() -> PuppetTransport:
    return PuppetTransport()


@pytest.fixture
async def pipeline_of(clock: SimulatedClock) -> AsyncIterator[Callable[..., Any]]:
    """Makes started orchestrators over given transports, with `PipelineConfig` settings."""
    async with AsyncExitStack() as stack:

        async def make(
            *transports: PuppetTransport,
            queue: int = 1000,
            scheduler: Any = None,
            selector: Any = None,
            plugins: Any = None,
            **settings: Any,
        ) -> Orchestrator:
            settings.setdefault("retries", {"base": 0})  # no pause, unless a test is about pauses
            orchestrator = Orchestrator(
                hub_info("hub"),
                transports,
                fifo(queue) if scheduler is None else scheduler,
                selector or least_loaded(),
                config=PipelineConfig(**settings),
                plugins=plugins,
                clock=clock,
            )
            await orchestrator.start()
            stack.push_async_callback(orchestrator.close)
            return orchestrator

        yield make

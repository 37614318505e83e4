"""The engine that stock clients ask: known answers, one that never ends, one that breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tests.integration.gateway_serving import ScriptedEngine

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.messages import TaskRequest
from anywire.offers import offers

WORDS = 5
"""Of a known answer."""


def known_engine() -> ScriptedEngine:
    """Offers ``synthetic``, which answers as the synthetic engine, calls tools and follows schemas, and ``endless``."""
    synthetic = SyntheticEngine(SyntheticConfig(length=WORDS))

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if task.model == "endless":
            while True:
                yield Delta("on ")
                await asyncio.sleep(0)
        async with aclosing(synthetic.run(task)) as answer:
            async for delta in answer:
                yield delta

    return ScriptedEngine(script, offers("synthetic", "endless"))

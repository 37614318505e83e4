"""The point of the project: the wire changes, the answers do not."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.messages import Chunk, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.submission import Submission
from anywire.testing.rig import Rig

PROMPTS = 200
AT_ONCE = 32


@pytest.fixture(params=["memory", "dds", "grpc", "http", "nats", "zeromq"])
def wire(request: pytest.FixtureRequest, options_of: Callable[[str], dict[str, Any]]) -> Rig:
    return Rig(request.param, options_of(request.param))


def body(number: int) -> str:
    return json.dumps({"messages": [{"role": "user", "content": f"prompt {number} ü€😀"}], "seed": number % 7})


async def direct(number: int) -> tuple[str, str, str]:
    """What the engine says when nothing is between."""
    engine = SyntheticEngine(SyntheticConfig(length={"kind": "uniform", "mean": 40, "spread": 39}))
    text, finish, usage = "", "", ""
    async for delta in engine.run(TaskRequest("h", "t", 1, "chat", "synthetic", body(number), True)):
        assert isinstance(delta, Delta)
        text, finish, usage = text + delta.text, delta.finish_reason or finish, delta.usage or usage
    return text, finish, usage


async def through(pipeline: Orchestrator, number: int, stream: bool) -> tuple[str, str, str]:
    chunks: list[Chunk] = [
        chunk async for chunk in pipeline.submit(Submission("chat", "synthetic", body(number), stream))
    ]
    return "".join(text for chunk in chunks for text in chunk.deltas), chunks[-1].finish_reason, chunks[-1].usage


async def test_answers_are_the_same_over_every_transport(wire: Rig) -> None:
    expected = [await direct(number) for number in range(PROMPTS)]
    async with wire as rig:
        engine = SyntheticEngine(SyntheticConfig(length={"kind": "uniform", "mean": 40, "spread": 39}))
        await rig.agent("a", engine=engine)
        pipeline = await rig.pipeline("a")
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(number: int, stream: bool) -> tuple[str, str, str]:
            async with gate:
                return await through(pipeline, number, stream)

        for stream in (False, True):
            answers = await asyncio.gather(*(ask(number, stream) for number in range(PROMPTS)))
            assert answers == expected
        assert pipeline.stats()["transports"] == {wire.name: 2 * PROMPTS}

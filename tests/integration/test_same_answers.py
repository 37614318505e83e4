"""The point of the project: the wire changes, the answers do not."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.messages import Chunk, TaskRequest, WholeKind
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


WHOLE: dict[WholeKind, dict[str, Any]] = {
    "rerank": {"query": "the cat ü€😀", "documents": ["a cat", {"text": "the cat"}]},
    "tokenize": {"messages": [{"role": "user", "content": "so ü€😀"}], "return_token_strs": True},
    "detokenize": {"tokens": [1, 2, 3]},
    "transcription": {"file": base64.b64encode(bytes(range(256)) * 2000).decode(), "filename": "ü.wav"},
    "speech": {"input": "hello there", "voice": "alloy"},
    "image": {"prompt": "a cat", "n": 2},
}


async def test_tasks_of_every_kind_are_answered_the_same_over_every_transport(wire: Rig) -> None:
    assert set(WHOLE) == set(get_args(WholeKind))
    engine = SyntheticEngine(SyntheticConfig())
    async with wire as rig:
        await rig.agent("a", engine=engine)
        pipeline = await rig.pipeline("a")
        for kind, asked in WHOLE.items():
            text = json.dumps(asked)
            (alone,) = [each async for each in engine.run(TaskRequest("h", "t", 1, kind, "synthetic", text))]
            assert isinstance(alone, Delta)
            chunk = await pipeline.submit(Submission(kind, "synthetic", text)).result()
            assert (chunk.extra, chunk.usage, chunk.finish_reason) == (alone.extra, alone.usage, "stop"), kind

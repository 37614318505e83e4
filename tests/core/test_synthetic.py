"""The synthetic engine: the same text everywhere, cut and resumed where asked."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.synthetic import SyntheticConfig, SyntheticEngine
from anywire.testing.clock import SimulatedClock


async def run(
    content: Any = "hello", *, config: dict[str, Any] | None = None, resume: str = "", kind: Kind = "chat", **body: Any
) -> tuple[list[str], str]:
    engine = SyntheticEngine(SyntheticConfig(**(config or {})))
    body |= {"messages": [{"role": "user", "content": content}]} if kind == "chat" else {}
    task = TaskRequest("h", "t", 1, kind, "synthetic", json.dumps(body), True, resume)
    texts, finish = [], ""
    async for delta in engine.run(task):
        texts.append(delta.text or delta.extra)
        finish = delta.finish_reason or finish
    return texts, finish


async def test_text_depends_on_prompt_and_seed_alone() -> None:
    once = await run()
    assert once == await run()
    assert once[0] != (await run("other"))[0]
    assert once[0] != (await run(seed=5))[0]
    assert (await run(seed=5))[0] == (await run(config={"seed": 5}))[0]
    assert len(once[0]) == 20


async def test_max_tokens_cuts() -> None:
    whole, finish = await run()
    cut, why = await run(max_tokens=7)
    assert (cut, finish, why) == (whole[:7], "stop", "length")


@settings(deadline=None, max_examples=examples(50))
@given(st.integers(0, 200), st.text(max_size=20))
async def test_resumed_text_is_the_same_text(delivered: int, prompt: str) -> None:
    whole = "".join((await run(prompt))[0])
    rest, _ = await run(prompt, resume=whole[:delivered])
    assert whole[:delivered] + "".join(rest) == whole


async def test_resuming_another_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not the beginning"):
        await run(resume="something else entirely")


async def test_embedding_has_one_vector_per_input() -> None:
    (data,), _ = await run(kind="embedding", input=["a", "b", "a"])
    vectors = [each["embedding"] for each in json.loads(data)]
    assert len(vectors[0]) == 64
    assert vectors[0] == vectors[2] != vectors[1]


@pytest.mark.parametrize("body", [{"n": 2}, {"max_tokens": "many"}])
async def test_bad_requests_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await run(**body)


async def test_times_keep_their_schedule() -> None:
    class Stepping(SimulatedClock):
        """Jumps to the end of each sleep, a little late."""

        async def sleep(self, delay: float) -> None:
            self.advance(delay + 0.0003)

    engine = SyntheticEngine(SyntheticConfig(ttft=100, itl=10, length=51))
    engine.clock = clock = Stepping()  # type: ignore[assignment]
    began, times = clock.now(), []
    task = TaskRequest("h", "t", 1, "chat", "synthetic", '{"messages":[{"content":"x"}]}', True)
    async for _ in engine.run(task):
        times.append(clock.now() - began)
    assert times[0] == pytest.approx(0.1, abs=0.001)
    # Lateness does not add up: fifty intervals later it is still that of one sleep.
    assert times[-1] == pytest.approx(0.6, abs=0.001)

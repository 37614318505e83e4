"""The synthetic engine: the same text everywhere, cut and resumed where asked."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer, offers
from anywire.testing.clock import SimulatedClock


async def run(
    content: Any = "hello", *, config: dict[str, Any] | None = None, resume: str = "", kind: Kind = "chat", **body: Any
) -> tuple[list[str], str]:
    engine = SyntheticEngine(SyntheticConfig(**(config or {})))
    body |= {"messages": [{"role": "user", "content": content}]} if kind == "chat" else {}
    task = TaskRequest("h", "t", 1, kind, "synthetic", json.dumps(body), True, resume)
    texts, finish = [], ""
    async for delta in engine.run(task):
        assert isinstance(delta, Delta)
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


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_no_tokens_are_none_and_minus_one_is_no_limit(name: str) -> None:
    whole, finish = await run()
    for asked, told in ((0, ([""], "length")), (-1, (whole, finish)), (7.0, (whole[:7], "length"))):
        fields: dict[str, Any] = {name: asked}
        assert await run(**fields) == told
    none: dict[str, Any] = {name: 0}
    texts, why = await run(kind="completion", prompt=["a", "b"], **none)
    assert why == "length"
    assert [each["text"] for text in texts for each in json.loads(text)] == ["", ""]


async def test_whole_numbers_may_have_a_point() -> None:
    assert await run(n=1.0, seed=5.0) == await run(seed=5)
    with pytest.raises(InvalidRequest, match=r"\bn\b"):
        await run(n=1.5)


@settings(max_examples=examples(50))
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


@pytest.mark.parametrize("body", [{"n": 2000}, {"max_tokens": "many"}])
async def test_bad_requests_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await run(**body)


class _Stepping(SimulatedClock):
    """Jumps to the end of each sleep, a little late."""

    async def sleep(self, delay: float) -> None:
        self.advance(delay + 0.0003)


async def test_times_keep_their_schedule() -> None:
    engine = SyntheticEngine(SyntheticConfig(ttft=100, itl=10, length=51))
    engine.clock = clock = _Stepping()  # type: ignore[assignment]
    began, times = clock.now(), []
    task = TaskRequest("h", "t", 1, "chat", "synthetic", '{"messages":[{"content":"x"}]}', True)
    async for _ in engine.run(task):
        times.append(clock.now() - began)
    assert times[0] == pytest.approx(0.1, abs=0.001)
    # Lateness does not add up: fifty intervals later it is still that of one sleep.
    assert times[-1] == pytest.approx(0.6, abs=0.001)


async def test_some_attempts_are_slow_and_a_second_one_need_not_be() -> None:
    settings: dict[str, Any] = {"ttft": 100, "itl": 10, "length": 3, "slow_share": 0.3, "slow_factor": 10}
    engine = SyntheticEngine(SyntheticConfig(**settings))
    engine.clock = clock = _Stepping()  # type: ignore[assignment]

    async def took(prompt: int, attempt: int) -> float:
        body = json.dumps({"messages": [{"content": str(prompt)}]})
        began = clock.now()
        async for _ in engine.run(TaskRequest("h", "t", attempt, "chat", "synthetic", body, True)):
            pass
        return round(clock.now() - began, 2)

    first = [await took(prompt, 1) for prompt in range(40)]
    assert first == [await took(prompt, 1) for prompt in range(40)], "whose they are does not depend on chance"
    assert set(first) == {0.12, 1.2}
    slow = [prompt for prompt in range(40) if first[prompt] > 1]
    assert 4 < len(slow) < 20
    assert any([await took(prompt, 2) < 1 for prompt in slow])


def request(model: str = "synthetic", kind: Kind = "chat", **body: Any) -> TaskRequest:
    return TaskRequest("h", "t", 1, kind, model, json.dumps({"messages": [{"content": "x"}]} | body), True)


def test_offers_are_what_the_settings_say() -> None:
    settings = {"models": ["a", "b"], "kinds": ["chat"], "features": {"vision": False}, "context": 512, "digest": "d"}
    offered = SyntheticEngine(SyntheticConfig(**settings)).status().offers
    assert offered == tuple(Offer(each, ("chat",), {"vision": False}, context=512, digest="d") for each in "ab")
    assert SyntheticEngine(SyntheticConfig()).status().offers == offers("synthetic")


async def test_new_offers_are_told() -> None:
    engine = SyntheticEngine(SyntheticConfig())
    told: list[tuple[str, ...]] = []
    await engine.start(lambda: told.append(engine.status().models))
    engine.offer(Offer("a"), Offer("b", state="stopped"))
    assert told == [("a", "b")]


@pytest.mark.parametrize(
    ("body", "kind", "resumable"),
    [
        ({}, "chat", True),
        ({"tools": [], "n": 1, "logprobs": False, "response_format": {"type": "text"}}, "chat", True),
        ({"prompt": "x"}, "completion", True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "chat", False),
        ({"functions": [{"name": "f"}]}, "chat", False),
        ({"response_format": {"type": "json_object"}}, "chat", False),
        ({"logprobs": True}, "chat", False),
        ({"logprobs": 2}, "completion", False),
        ({"n": 2}, "chat", False),
        ({"best_of": 3}, "completion", False),
        ({"input": "x"}, "embedding", False),
    ],
)
def test_only_plain_text_of_one_choice_can_be_resumed(body: dict[str, Any], kind: Kind, resumable: bool) -> None:
    assert SyntheticEngine(SyntheticConfig()).resumable(request(kind=kind, **body)) is resumable


async def test_a_model_on_demand_is_loaded_once_by_its_first_task() -> None:
    engine = SyntheticEngine(SyntheticConfig(state="stopped", on_demand=True, loading=1000, models=["a", "b"]))
    engine.clock = clock = SimulatedClock()  # type: ignore[assignment]
    states: list[tuple[str, ...]] = []
    told = asyncio.Event()

    def changed() -> None:
        states.append(tuple(each.state for each in engine.status().offers))
        told.set()

    await engine.start(changed)
    first, second = engine.run(request("a")), engine.run(request("a"))
    assert [await anext(first), await anext(second)] == [EngineProgress("loading", "a")] * 2
    going_on = [asyncio.create_task(anext(each)) for each in (first, second)]
    await told.wait()
    # The one that began it goes away: the other one has its model all the same.
    going_on[0].cancel()
    await asyncio.wait({going_on[0]})
    clock.advance(1.0)
    assert await going_on[1] == EngineProgress("running")
    assert isinstance(await anext(second), Delta)
    assert states == [("starting", "stopped"), ("ready", "stopped")]
    assert isinstance(await anext(engine.run(request("a"))), Delta)

"""Limits of callers: what the pipeline takes in, how it counts it, what it says of it, and what ends with a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anywire.caller import NO_LIMITS, OPERATOR, Caller, Limits
from anywire.errors import Forbidden, LimitReached, ModelNotFound, QueueFull, Unauthenticated
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.limits import DAY
from anywire.roles.context import OrchestratorContext
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]
NOON = 20_000 * DAY + DAY / 2


def key(name: str = "k1", **limits: Any) -> Caller:
    return Caller(name, f"tenant {name}", limits=Limits(**limits))


def chat(orchestrator: Orchestrator, caller: Caller, body: str = "{}", by_service: bool = False, **fields: Any) -> Any:
    model = fields.pop("model", MODEL)
    return orchestrator.submit(Submission("chat", model, body, True, caller=caller, **fields), by_service)


def usage(prompt: int, answer: int) -> str:
    return f'{{"prompt_tokens": {prompt}, "completion_tokens": {answer}}}'


def set_time(orchestrator: Orchestrator, time: float) -> None:
    orchestrator.limits._wall = lambda: time


def used_by(orchestrator: Orchestrator, caller_id: str) -> int:
    """The tokens that this caller has used today."""
    return orchestrator.limits._accounts[caller_id].used


@pytest.fixture
async def pipeline(pipeline_of: Make, wire: PuppetTransport) -> Any:
    """One with an agent, at noon."""
    made = await pipeline_of(wire)
    set_time(made, NOON)
    assert made.limits.day == 20_000
    wire.join("a")
    return made


# What is refused


async def test_requests_per_minute_are_those_of_any_sixty_seconds(
    pipeline: Orchestrator, clock: SimulatedClock
) -> None:
    alice = key(requests_per_minute=3)
    for pause in (0, 20, 20):
        clock.advance(pause)
        chat(pipeline, alice)
    with pytest.raises(
        LimitReached, match=r"3 requests per minute \(requests_per_minute\); .* free again in 20\.0 s"
    ) as hit:
        chat(pipeline, alice)
    assert hit.value.retry_after == pytest.approx(20)
    chat(pipeline, key("k2", requests_per_minute=3))
    clock.advance(hit.value.retry_after)
    chat(pipeline, alice)
    with pytest.raises(LimitReached):
        chat(pipeline, alice)
    assert pipeline.stats()["events"]["limits_reached"] == 2


async def test_concurrency_counts_what_waits_and_what_runs(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    alice = key(concurrency=2)
    first = chat(pipeline, alice)
    chat(pipeline, alice)
    with pytest.raises(LimitReached, match=r"2 tasks at once \(concurrency\)") as hit:
        chat(pipeline, alice)
    assert hit.value.retry_after > 0
    wire.answer(wire.requests[0][1])
    await read(first)
    again = chat(pipeline, alice)
    again.cancel("no more")
    chat(pipeline, alice)


async def test_a_task_that_is_not_taken_in_counts_nothing(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, queue=1)
    wire.join("a", slots=1)
    alice = key(concurrency=3, requests_per_minute=3, tokens_per_day=10)
    chat(pipeline, alice)
    chat(pipeline, alice)
    for _ in range(3):
        with pytest.raises(QueueFull):
            chat(pipeline, alice, "x" * 400)
    wire.answer(wire.requests[0][1])
    chat(pipeline, alice)


async def test_tokens_per_day_are_counted_by_the_engine_until_midnight(
    pipeline: Orchestrator, wire: PuppetTransport
) -> None:
    alice = key(tokens_per_day=100)
    for total in (60, 60):
        stream = chat(pipeline, alice)
        wire.answer(wire.requests[-1][1], usage=usage(total - 10, 10))
        await read(stream)
    told = r"100 tokens per day \(tokens_per_day\), and 120 are used; it is free again at 2024-10-05 00:00 UTC"
    with pytest.raises(LimitReached, match=told) as hit:
        chat(pipeline, alice)
    assert hit.value.retry_after == pytest.approx(DAY / 2)
    chat(pipeline, key("k2", tokens_per_day=1))
    set_time(pipeline, NOON + DAY / 2)
    chat(pipeline, alice)


async def test_what_runs_reserves_its_prompt_and_its_longest_answer(
    pipeline: Orchestrator, wire: PuppetTransport
) -> None:
    alice = key(tokens_per_day=100)
    body = '{"max_tokens": 100}'
    stream = chat(pipeline, alice, body)
    with pytest.raises(LimitReached, match=r"0 are used; tasks that have not ended may use 104: it is free again when"):
        chat(pipeline, alice)
    wire.answer(wire.requests[-1][1], usage=usage(5, 5))
    await read(stream)
    chat(pipeline, alice, body)


async def test_without_a_count_of_the_engine_tokens_are_estimated(
    pipeline: Orchestrator, wire: PuppetTransport
) -> None:
    alice = key(tokens_per_day=1000)
    body = "x" * 400

    stream = chat(pipeline, alice, body)
    wire.chunk(wire.requests[-1][1], 0, "one ", "two ", final=True)
    await read(stream)
    assert used_by(pipeline, "k1") == 102
    stream = chat(pipeline, alice, body)
    wire.chunk(wire.requests[-1][1], 0, "one ")
    assert (await anext(stream)).deltas == ("one ",)
    stream.cancel("enough")
    assert used_by(pipeline, "k1") == 203
    chat(pipeline, alice, body).cancel("at once, but an agent reads the prompt")
    assert used_by(pipeline, "k1") == 303
    wire.lose("a")
    chat(pipeline, alice, body).cancel("nobody has read it")
    assert used_by(pipeline, "k1") == 303


@pytest.mark.parametrize(
    ("counts", "used"),
    [(usage(2**62, 2**62), 2**31), (usage(-5, -5), 1), ("{", 1), ('{"prompt_tokens": 1e400}', 1)],
)
async def test_an_absurd_count_of_an_engine_is_bounded(
    pipeline: Orchestrator, wire: PuppetTransport, counts: str, used: int
) -> None:
    stream = chat(pipeline, key(tokens_per_day=1000))
    wire.answer(wire.requests[-1][1], usage=counts)
    await read(stream)
    assert used_by(pipeline, "k1") == used


@pytest.mark.parametrize(
    ("models", "allowed", "forbidden"),
    [
        (("m",), "m", "m2"),
        (("qwen*", "llama-?"), "qwen3:8b", "llama-3"),
        (("a[1]",), "a[1]", "a1"),
        (("*/small*",), "lab/small-1", "lab/large"),
        (("m",), "m", "m\n"),
    ],
)
def test_models_are_names_with_stars(models: tuple[str, ...], allowed: str, forbidden: str) -> None:
    limits = Limits(models=models)
    assert limits.allows_model(allowed)
    assert not limits.allows_model(forbidden)
    assert NO_LIMITS.allows_model(forbidden)


async def test_other_models_are_forbidden_and_not_named(pipeline: Orchestrator) -> None:
    alice = key(models=("mine*",))
    for body in ("{}", '{"models": ["mine"]}'):
        with pytest.raises(Forbidden, match=rf"not for the model '{MODEL}' \(models\)"):
            chat(pipeline, alice, body)
    with pytest.raises(Forbidden):
        chat(pipeline, alice, f'{{"models": ["{MODEL}"]}}', model="mine")
    with pytest.raises(ModelNotFound, match="models served: none"):
        chat(pipeline, alice, model="mine-1")
    context = OrchestratorContext(pipeline)
    assert (context.models(), list(context.offers())) == ([MODEL], [MODEL])
    assert (context.models(alice), list(context.offers(alice))) == ([], [])


async def test_other_models_are_not_named_later_either(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=1.0)
    wire.join("a", state="starting", models=())
    stream = chat(pipeline, key(models=("mine",)), model="mine")
    wire.report("a", models=("another",))
    clock.advance(1.0)
    with pytest.raises(ModelNotFound, match="models served: none"):
        await anext(stream)


async def test_a_priority_above_the_highest_is_forbidden(pipeline: Orchestrator) -> None:
    chat(pipeline, key(max_priority=5), priority=5)
    with pytest.raises(Forbidden, match=r"highest priority of this key is 5 \(max_priority\), the task has 6"):
        chat(pipeline, key(max_priority=5), priority=6)
    chat(pipeline, key("k2", max_priority=-3))
    assert [view.priority for view in pipeline.tasks()] == [5, -3]


# Tasks that a service makes


async def test_children_are_their_parents(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    alice = key(concurrency=1, requests_per_minute=1, tokens_per_day=100)
    parent = chat(pipeline, alice)
    children = [chat(pipeline, each, by_service=True, parent=parent.task_id) for each in (alice, OPERATOR)]
    for _, request in wire.requests[1:]:
        wire.answer(request, usage=usage(10, 10))
    for each in children:
        await read(each)
    assert used_by(pipeline, "k1") == 40
    wire.answer(wire.requests[0][1], usage=usage(30, 20))
    await read(parent)
    # It says 50, its children's included.
    assert used_by(pipeline, "k1") == 50
    with pytest.raises(LimitReached, match="requests_per_minute"):
        chat(pipeline, alice)


async def test_a_child_has_no_tokens_beyond_its_parents_budget(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    parent = chat(pipeline, key(tokens_per_day=30))
    child = chat(pipeline, OPERATOR, by_service=True, parent=parent.task_id)
    wire.answer(wire.requests[1][1], usage=usage(20, 10))
    await read(child)
    with pytest.raises(LimitReached, match="tokens_per_day"):
        chat(pipeline, OPERATOR, by_service=True, parent=parent.task_id)


async def test_a_client_does_not_get_past_its_limits_by_naming_a_parent(pipeline: Orchestrator) -> None:
    alice, bob = key(concurrency=1), key("k2", concurrency=2)
    parent = chat(pipeline, alice)
    with pytest.raises(LimitReached):
        chat(pipeline, alice, parent=parent.task_id)
    # Nor does it learn anything of another one's task.
    other = chat(pipeline, bob, parent=parent.task_id)
    parent.cancel("enough")
    assert [view.task_id for view in pipeline.tasks()] == [other.task_id]


# Keys that count no more


async def test_with_its_key_a_callers_tasks_and_commands_end(pipeline: Orchestrator, wire: PuppetTransport) -> None:
    wire.join("b", slots=1)
    alice, bob = Caller("k1", "lab", "operate"), Caller("k2", "lab", "operate")
    running, waiting = chat(pipeline, alice), [chat(pipeline, alice) for _ in range(3)]
    kept = chat(pipeline, bob)
    command = asyncio.ensure_future(anext(pipeline.command(["a"], "logs", {}, caller=alice)))
    other = asyncio.ensure_future(anext(pipeline.command(["a"], "logs", {}, caller=bob)))
    await asyncio.sleep(0)
    pipeline.end_caller("")
    assert len(pipeline.tasks()) == 5
    pipeline.end_caller("k1")
    for stream in (running, *waiting):
        with pytest.raises(Unauthenticated, match="revoked"):
            await anext(stream)
    with pytest.raises(Unauthenticated):
        await command
    assert not other.done()
    assert [view.task_id for view in pipeline.tasks()] == [kept.task_id]
    assert running.task_id in {cancel.task_id for cancel in wire.cancels()}
    other.cancel()

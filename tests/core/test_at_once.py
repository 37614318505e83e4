"""Answers that an engine has at hand are what a run of it would have given."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_agent import MODEL, _Engine, _Reply, _yields, agent_of, ask
from tests.long_form import examples

from anywire import errors
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, Engine
from anywire.messages import Cancel, TaskRequest
from anywire.roles.at_once import at_once_of


class _AtHand(_Engine):
    """Has ``answers`` at hand, one for each task; runs give ``run``."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(lambda task: _yields(Delta("run")))
        self.answers = list(answers)

    def at_once(self, task: TaskRequest) -> Delta | None:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: Delta | None = answer
        return found


async def test_it_is_sent_before_anything_else_runs() -> None:
    agent, wire = await agent_of(_AtHand(Delta("all of it", "", "stop", '{"completion_tokens":3}')))
    reply = _Reply()
    ask(wire, reply, stream=False)
    (final,) = reply.chunks
    assert (final.final, final.seq, final.deltas, final.finish_reason, final.error) == (True, 0, ("all of it",), "stop", "")
    assert (final.task_id, final.attempt, final.usage) == ("t", 1, '{"completion_tokens":3}')
    assert 0 < final.received_ns <= final.started_ns <= final.first_ns <= final.last_ns
    assert agent.status().active == 0
    await agent.drain()
    await agent.close()


async def test_what_is_not_at_hand_is_run() -> None:
    agent, wire = await agent_of(_AtHand(None))
    reply, streamed = _Reply(), _Reply()
    ask(wire, reply, stream=False)
    assert (await reply.final).deltas == ("run",)
    ask(wire, streamed, "other")
    assert (await streamed.final).deltas == ("run",), "streams are run"
    await agent.close()


@pytest.mark.parametrize("odd", [5, "text", Delta(5), ValueError("odd"), errors.EngineFailed("odd")], ids=repr)  # type: ignore[arg-type]
async def test_what_is_no_answer_is_its_failure_and_the_task_is_run(odd: Any) -> None:
    agent, wire = await agent_of(_AtHand(odd))
    reply = _Reply()
    ask(wire, reply, stream=False)
    assert (await reply.final).deltas == ("run",)
    assert agent.boundary.failures["engine odd.at_once"] == 1
    await agent.close()


async def test_who_waits_for_a_slot_is_answered_first() -> None:
    agent, wire = await agent_of(_AtHand(None, Delta("too early")), slots=1)
    first, second = _Reply(), _Reply()
    ask(wire, first, "first", stream=False)
    ask(wire, second, "second", stream=False)
    assert isinstance(await second.error(), errors.Refused), "the slot is taken, and nothing may wait"
    assert (await first.final).deltas == ("run",)
    await agent.close()


async def test_it_waits_for_room_and_others_are_run_meanwhile() -> None:
    agent, wire = await agent_of(_AtHand(Delta("first"), Delta("second")), slots=2)
    reply, other = _Reply(full=1), _Reply()
    ask(wire, reply, stream=False)
    assert not reply.chunks
    ask(wire, other, "other", stream=False)
    assert (await other.final).deltas == ("run",)
    assert (await reply.final).deltas == ("first",)
    await agent.close()


async def test_a_cancel_that_came_before_it_counts() -> None:
    agent, wire = await agent_of(_AtHand(Delta("never")))
    wire.sink.cancel_received("hub", 1, Cancel("hub", "t", 1, "not wanted"))
    reply = _Reply()
    ask(wire, reply, stream=False)
    assert isinstance(await reply.error(), errors.TaskCancelled)
    await agent.close()


def test_only_the_class_that_has_the_run_may_have_it_at_hand() -> None:
    class OtherRun(_AtHand):
        def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
            return _yields(Delta("another"))

    class OtherName(_AtHand):
        name = "other"

    assert at_once_of(_AtHand()) is not None
    assert at_once_of(OtherName()) is not None
    assert at_once_of(OtherRun()) is None
    assert at_once_of(_Engine(lambda task: _yields())) is None
    own: Engine = _AtHand()
    own.run = lambda task: _yields(Delta("own"))  # type: ignore[method-assign]
    assert at_once_of(own) is None


bodies = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=20)}), max_size=3)},
    optional={
        "max_tokens": st.integers(-1, 300),
        "stop": st.sampled_from(["the", ["a", "of"], "nowhere"]),
        "seed": st.integers(0, 5),
        "n": st.integers(1, 2),
        "logprobs": st.booleans(),
    },
)


@settings(max_examples=examples(60))
@given(bodies, st.sampled_from([{}, {"length": 3}, {"seed": 4}, {"ttft": 5}, {"itl": 1}, {"length": 1000}]))
async def test_the_synthetic_engine_says_the_same_at_once(body: dict[str, Any], config: dict[str, Any]) -> None:
    engine = SyntheticEngine(SyntheticConfig(**config))
    task = TaskRequest("h", "t", 1, "chat", "synthetic", json.dumps(body))
    found = engine.at_once(task)
    if config.get("ttft") or config.get("itl"):
        assert found is None
    if found is None:
        return
    run = [each async for each in engine.run(task) if isinstance(each, Delta)]
    assert found.text == "".join(each.text for each in run)
    assert (found.extra, found.finish_reason, found.usage) == (run[-1].extra, run[-1].finish_reason, run[-1].usage)


async def test_malformed_and_other_requests_are_left_to_the_run() -> None:
    engine = SyntheticEngine(SyntheticConfig())
    for task in (
        TaskRequest("h", "t", 1, "chat", MODEL, "{"),
        TaskRequest("h", "t", 1, "chat", MODEL, '{"messages":[]}', resume="x"),
        TaskRequest("h", "t", 1, "embedding", MODEL, '{"input":"x"}'),
    ):
        assert engine.at_once(task) is None

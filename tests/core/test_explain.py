"""How agents were chosen: what is kept of each choice, for whom, and how much of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from anywire import events
from anywire.caller import Caller
from anywire.context import TaskView
from anywire.decision import MAX_CONSIDERED, MAX_EXPLAINED, Considered, LeftOut
from anywire.hookspecs import hookimpl
from anywire.pipeline.tasks.noted_choice import Noted
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]


class Scoring(Selector):
    """Takes the last candidate, and says why; nobody when there is only one."""

    name = "scoring"

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice | None:
        agents = list(candidates)
        if len(agents) == 1:
            return None
        return Choice(agents[-1], {agent.agent_id: float(agent.ordinal) for agent in agents}, "it is the last one")


def chat(orchestrator: Any, **fields: Any) -> str:
    task_id: str = orchestrator.submit(Submission("chat", fields.pop("model", MODEL), "{}", True, **fields)).task_id
    return task_id


async def test_a_choice_is_kept_with_its_candidates_scores_and_reason(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, selector=Scoring(SelectorConfig()))
    for name in "abc":
        wire.join(name, slots=2)
    task_id = chat(pipeline)
    (decision,) = pipeline.explain(task_id).decisions
    assert (decision.agent_id, decision.selector, decision.model) == ("c", "scoring", MODEL)
    assert decision.considered == (Considered("a", 0, 2), Considered("b", 0, 2), Considered("c", 0, 2))
    assert decision.candidates == 3
    assert decision.reason == "it is the last one"
    assert set(decision.scores) == {"a", "b", "c"}
    assert decision.took_us > 0
    assert decision.left_out == ()


async def test_a_task_that_has_ended_is_kept_with_its_end(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task_id = chat(pipeline, session="s")
    clock.advance(2.0)
    assert pipeline.explain(task_id).view.place == "running"
    wire.answer(wire.requests[-1][1])
    record = pipeline.explain(task_id)
    assert (record.view.place, record.view.agent_id, record.error, record.view.session) == ("ended", "a", "", "s")
    assert record.view.age_ms == 2000
    assert record.view.attempt == 1
    other = chat(pipeline)
    pipeline.cancel(other, "enough of it")
    assert (pipeline.explain(other).error, pipeline.explain(other).message) == ("cancelled", "enough of it")


async def test_who_was_left_out_is_kept_with_the_reason(pipeline_of: Make, wire: PuppetTransport) -> None:
    plugins = Plugins()

    class Filter:
        @hookimpl
        def anywire_filter_candidates(self, task: QueuedTask, candidates: list[AgentView]) -> list[AgentView]:
            return [agent for agent in candidates if agent.agent_id != "filtered"]

    plugins.manager.register(Filter())
    pipeline = await pipeline_of(wire, plugins=plugins)
    for name in ("avoided", "filtered", "first", "other"):
        wire.join(name)
    task_id = chat(pipeline, avoid=("avoided",), prefer=("first", "filtered", "nobody"))
    wire.lose("first")
    first, second = pipeline.explain(task_id).decisions
    assert first.left_out == (
        LeftOut("the request avoids it", 1, ("avoided",)),
        LeftOut("the request prefers others", 1, ("other",)),
        LeftOut("a hook anywire_filter_candidates leaves it out", 1, ("filtered",)),
    )
    assert (first.agent_id, first.candidates) == ("first", 1)
    # "first" has gone, and "filtered" is the one that is preferred of those that are left: nobody remains.
    assert (second.agent_id, second.candidates) == ("", 0)
    wire.join("last")
    assert pipeline.explain(task_id).decisions[-1].left_out[1:] == (
        LeftOut("the request prefers others", 2, ("other", "last")),
        LeftOut("a hook anywire_filter_candidates leaves it out", 1, ("filtered",)),
    )


async def test_the_agent_that_lost_a_task_is_left_out_of_the_next_choice(
    pipeline_of: Make, wire: PuppetTransport
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    task_id = chat(pipeline)
    wire.join("b")
    wire.chunk(wire.requests[-1][1], 0, final=True, error='{"code": "refused", "message": "full"}')
    decisions = pipeline.explain(task_id).decisions
    assert [each.agent_id for each in decisions] == ["a", "b"]


async def test_choices_of_nobody_that_follow_each_other_are_counted(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, selector=Scoring(SelectorConfig()))
    wire.join("a")
    task_id = chat(pipeline)
    for _ in range(5):
        clock.advance(1.0)
    (held,) = pipeline.explain(task_id).decisions
    assert (held.agent_id, held.repeated) == ("", 6)
    wire.join("b")
    assert [each.agent_id for each in pipeline.explain(task_id).decisions] == ["", "b"]


async def test_with_explain_agents_that_were_no_candidates_are_told(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("busy", slots=1)
    chat(pipeline)
    wire.join("chosen")
    wire.join("starts", state="starting")
    wire.join("elsewhere", models=("other",))
    quiet, told = chat(pipeline), chat(pipeline, explain=True)
    assert pipeline.explain(quiet).decisions[0].left_out == ()
    assert set(pipeline.explain(told).decisions[0].left_out) == {
        LeftOut("it has no free slot", 1, ("busy",)),
        LeftOut("it is starting", 1, ("starts",)),
        LeftOut(f"it does not offer {MODEL!r}", 1, ("elsewhere",)),
    }


async def test_what_is_kept_is_bounded(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, selector=Scoring(SelectorConfig()), explained_tasks=3)
    for number in range(100):
        wire.join(f"{number:03}", slots=100)
    ids = []
    for explain in (True, False, False, False, False):
        ids.append(chat(pipeline, explain=explain))
        if explain:
            (decision,) = pipeline.explain(ids[0]).decisions
            assert (decision.candidates, len(decision.considered)) == (100, MAX_EXPLAINED)
        wire.answer(wire.requests[-1][1])
    assert [pipeline.explain(each) is None for each in ids] == [True, True, False, False, False]
    (decision,) = pipeline.explain(ids[-1]).decisions
    assert (decision.agent_id, decision.candidates) == ("099", 100)
    assert len(decision.considered) == len(decision.scores) == MAX_CONSIDERED
    assert decision.considered[-1].agent_id == "099"


async def test_the_garbage_collector_visits_nothing_that_is_kept(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a", slots=100)
    for _ in range(20):
        task_id = chat(pipeline)
        wire.answer(wire.requests[-1][1])
    assert pipeline.explain(task_id).view.place == "ended"
    for _ in range(3):  # a tuple is passed over once all that it holds is
        gc.collect()
    visited = [each for each in gc.get_objects() if type(each) in (tuple, TaskView, Noted)]
    held = [each for each in visited if type(each) is not tuple or any(type(one) in (TaskView, Noted) for one in each)]
    assert held == []


async def test_nothing_is_kept_of_ended_tasks_where_that_is_off(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, explained_tasks=0)
    wire.join("a")
    task_id = chat(pipeline)
    assert pipeline.explain(task_id) is not None
    wire.answer(wire.requests[-1][1])
    assert pipeline.explain(task_id) is None


async def test_another_tenant_is_told_nothing(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    running, ended = (chat(pipeline, caller=Caller("k1", "mine")) for _ in range(2))
    wire.answer(wire.requests[-1][1])
    for task_id in (running, ended):
        assert pipeline.explain(task_id, Caller("k2", "mine")) is not None
        assert pipeline.explain(task_id, Caller("k3", "other")) is None
        assert pipeline.explain(task_id, Caller()) is None
        assert pipeline.explain(task_id, Caller("k4", "other", role="observe")) is not None


async def test_the_event_tells_the_decision(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire)
    seen: list[events.TaskDispatched] = []
    pipeline.events.subscribe("test", seen.append, events.TaskDispatched)
    wire.join("a")
    wire.join("b")
    chat(pipeline, avoid=("b",))
    assert seen[0].considered == (Considered("a", 0, 8),)
    assert seen[0].left_out == (LeftOut("the request avoids it", 1, ("b",)),)
    assert seen[0].took_us > 0

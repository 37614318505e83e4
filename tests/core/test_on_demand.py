"""Agents on demand beside an orchestrator: started for tasks that wait, ended when they are not needed, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.on_demand_bench import SETTINGS, Bench, settled

from anywire.config import Config
from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire.roles.agent_configs import agent_sorts
from anywire.roles.on_demand.sort_state import FIRST_PAUSE, JOIN_TIMEOUT
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.stop import Stop
from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import expect
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]


@pytest.fixture
async def bench(pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock) -> Any:
    made: list[Bench] = []

    async def make(**settings: Any) -> Bench:
        pipeline = await pipeline_of(wire, accept_timeout=100_000, agent_wait=10_000)
        settings.setdefault("on_demand", {"most": 6, "after": 2, "idle": 60})
        made.append(Bench(pipeline, wire, clock, **settings))
        return made[-1]

    yield make
    for each in made:
        each.closing = True
        await each.keeper.close()


async def test_eight_tasks_on_two_agents_have_six_more_started_which_end_when_idle(bench: Any) -> None:
    fleet = await bench(agents=[{"count": 2}])
    fleet.join("a-1")
    fleet.join("a-2")
    fleet.chats(8)
    await fleet.advance(1.5)
    assert not fleet.processes, "nobody has waited for two seconds"
    await fleet.advance(1.0)
    names = [f"a-{number}" for number in range(3, 9)]
    assert list(fleet.processes) == names
    await fleet.advance(30.0)
    assert list(fleet.processes) == names, "those that are starting are enough"
    fleet.join(*names)
    await fleet.advance(1.0)
    assert fleet.pipeline.waiting == 0
    assert fleet.numbers == {
        "agents": 6, "most_agents": 6, "overdue_tasks": 0, "started": 6, "ended": 0, "failed": 0,
    }  # fmt: skip
    fleet.answer("a-1", "a-2", *names[1:])
    await fleet.advance(59.0)
    assert not fleet.stopped, "they were needed within the last minute"
    await fleet.advance(2.0)
    assert sorted(fleet.stopped) == names[1:], "the one with a task stays"
    fleet.answer(names[0])
    await fleet.advance(61.0)
    assert sorted(fleet.stopped) == names
    assert fleet.numbers["agents"] == 0
    assert fleet.numbers["ended"] == 6
    assert [state for name, state in fleet.told if name == "a-3"] == ["starting", "ready", "leaving", "ended"]
    assert not [each for each in names if fleet.pipeline.agent_health(each).order], "one of that name may come again"
    # The next time they have the same names.
    fleet.chats(4)
    await fleet.advance(3.0)
    assert fleet.numbers["agents"] == 2
    assert {name for name, state in fleet.told[-2:]} == {"a-3", "a-4"}


async def test_tasks_that_wait_for_something_else_have_nothing_started(bench: Any) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(1)
    fleet.pipeline.expect_models("test", ["later"])
    fleet.chats(3, "later")
    await fleet.advance(20.0)
    assert not fleet.processes


async def test_each_sort_gets_agents_for_its_own_models(bench: Any) -> None:
    entries = [{"id": "small", "on_demand": 1}, {"id": "large", "count": 2, "slots": 2}, {"id": "card", "on_demand": 0}]
    fleet = await bench(agents=entries)
    fleet.join("small", models=("s",))
    fleet.join("large-1", models=("l",), slots=2)
    fleet.join("large-2", models=("l",), slots=2)
    fleet.join("card", models=("c",))
    fleet.chats(5, "s")
    fleet.chats(7, "l")
    fleet.chats(5, "c")
    await fleet.advance(4.0)
    assert list(fleet.processes) == ["small-2", "large-3", "large-4"], "three wait for `l`, two slots each"


async def test_tasks_of_a_model_that_two_sorts_serve_get_one_agent_each(bench: Any) -> None:
    fleet = await bench(agents=[{"id": "one"}, {"id": "two"}])
    fleet.join("one")
    fleet.join("two")
    fleet.chats(3)
    await fleet.advance(10.0)
    assert list(fleet.processes) == ["one-2"]
    fleet.join("one-2")
    fleet.answer("two")
    await fleet.advance(61.0)
    assert not fleet.stopped, "there were three within the last minute"
    fleet.answer("one-2")
    await fleet.advance(62.0)
    assert fleet.stopped == ["one-2"], "the agents that always run have been enough for two"


async def test_one_that_cannot_start_harms_nobody_and_is_tried_again_later(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.fault = ConfigError("no room here")
    with caplog.at_level(logging.WARNING):
        fleet.chats(2)
        await fleet.advance(2.5)
        assert "agent a-2 on demand: no room here" in caplog.text
        await fleet.advance(FIRST_PAUSE - 1)
        assert fleet.numbers["failed"] == 1
        fleet.fault = None
        await fleet.advance(1.0)
        # It starts now, and ends by itself before it is ready.
        fleet.processes["a-2"].end.set_result("exit status 1")
        await fleet.advance(1.0)
        assert fleet.numbers == {
            "agents": 0, "most_agents": 6, "overdue_tasks": 1, "started": 2, "ended": 0, "failed": 2,
        }  # fmt: skip
        assert [state for _, state in fleet.told] == ["starting", "failed"] * 2
        await fleet.advance(2 * FIRST_PAUSE - 2)
        assert fleet.numbers["started"] == 2, "the pause is twice as long"
        await fleet.advance(2.0)
        assert fleet.numbers["started"] == 3
        # It serves, and ends for good while it does: the next failure is a first one again.
        fleet.join("a-2")
        await fleet.advance(1.0)
        fleet.processes["a-2"].end.set_result("exit status 1")
        fleet.wire.lose("a-2")
        assert "agent a-2 on demand: it ended for good: exit status 1; none like it for 5 s" not in caplog.text
        await fleet.advance(1.0)
        assert "agent a-2 on demand: it ended for good: exit status 1; none like it for 5 s" in caplog.text
    fleet.answer("a-1")
    await settled()
    assert fleet.pipeline.waiting == 0


async def test_one_that_is_still_starting_is_ended_with_the_others(bench: Any) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(3)
    await fleet.advance(3.0)
    fleet.join("a-2")
    await settled()
    fleet.closing = True
    await fleet.keeper.close()
    assert sorted(fleet.stopped) == ["a-2", "a-3"]
    assert fleet.numbers["agents"] == 0
    fleet.chats(3)
    await fleet.advance(10.0)
    assert fleet.numbers["started"] == 2, "after its end it starts nothing"


async def test_one_that_has_ended_gets_no_task_before_its_leave_is_seen(bench: Any) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(2)
    await fleet.advance(3.0)
    fleet.join("a-2")
    await fleet.advance(1.0)
    fleet.answer("a-1", "a-2")
    fleet.stays = True
    await fleet.advance(62.0)
    assert fleet.stopped == ["a-2"]
    assert fleet.numbers["agents"] == 0
    fleet.chats(2)
    await fleet.advance(1.0)
    assert fleet.pipeline.waiting == 1, "its process has ended"
    fleet.wire.lose("a-2")
    await fleet.advance(1.0)
    assert not fleet.pipeline.agent_health("a-2").order, "one of that name may come again"


async def test_a_launcher_that_fails_to_stop_one_harms_nobody(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(3)
    await fleet.advance(3.0)
    fleet.join("a-2", "a-3")
    await fleet.advance(1.0)
    fleet.answer("a-1", "a-2", "a-3")
    fleet.processes["a-2"].fault = RuntimeError("it cannot")
    await fleet.advance(62.0)
    assert sorted(fleet.stopped) == ["a-2", "a-3"]
    assert "agent a-2: the launcher failed to stop it" in caplog.text
    assert fleet.numbers["agents"] == 0
    assert fleet.pipeline.agent_health("a-2").order == "drained", "it may run yet"
    fleet.chats(2)
    await fleet.advance(3.0)
    assert list(fleet.processes)[-1] == "a-3", "the name of one that is there is not given twice"
    fleet.processes["a-3"].fault = RuntimeError("it cannot")
    fleet.closing = True
    await expect(fleet.keeper.close(), "close returns")


async def test_one_that_loads_its_model_is_on_its_way(bench: Any) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(2)
    await fleet.advance(3.0)
    fleet.join("a-2", state="starting", slots=0, models=())
    await fleet.advance(30.0)
    assert list(fleet.processes) == ["a-2"]


async def test_one_that_runs_and_does_not_join_is_told_and_not_waited_for(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(2)
    await fleet.advance(3.0)
    fleet.processes["a-2"].is_ready.set()
    await fleet.advance(JOIN_TIMEOUT - 2)
    assert list(fleet.processes) == ["a-2"]
    await fleet.advance(4.0)
    assert list(fleet.processes) == ["a-2", "a-3"]
    assert caplog.text.count("agent a-2 on demand runs but has not joined") == 1
    assert fleet.numbers["overdue_tasks"] == 1
    fleet.answer("a-1")
    assert fleet.numbers["overdue_tasks"] == 0
    fleet.answer("a-1")
    await fleet.advance(61.0)
    assert sorted(fleet.stopped) == ["a-2", "a-3"], "both end when nothing waits"


async def test_after_the_gate_has_closed_nothing_comes_or_goes(bench: Any) -> None:
    fleet = await bench()
    fleet.join("a-1")
    fleet.chats(2)
    await fleet.advance(3.0)
    fleet.join("a-2")
    await fleet.advance(1.0)
    fleet.pipeline.close_gate()
    fleet.answer("a-1", "a-2")
    await fleet.advance(100.0)
    assert not fleet.stopped, "what runs ends with the orchestrator"


async def test_an_agent_that_an_operator_has_drained_is_no_capacity(bench: Any) -> None:
    fleet = await bench(on_demand={"most": 1, "after": 2, "idle": 60})
    fleet.join("a-1")
    fleet.pipeline.order_agent("a-1", "drained")
    fleet.chats(1)
    await fleet.advance(3.0)
    assert not fleet.processes, "what it serves was not seen yet"
    fleet.pipeline.order_agent("a-1", "")
    await fleet.advance(1.0)
    fleet.answer("a-1")
    fleet.pipeline.order_agent("a-1", "drained")
    fleet.chats(1)
    await fleet.advance(3.0)
    assert list(fleet.processes) == ["a-2"]


async def test_over_memory_it_is_refused() -> None:
    settings = {"transports": {"memory": {"network": "on-demand"}}, "engine": "synthetic", "gateways": []}
    config = Config.model_validate({**settings, "on_demand": {"most": 1}})
    with pytest.raises(ConfigError, match="over memory the agents run in this process"):
        async with running(config, Plugins(), Stop()):
            pass


def test_further_names_are_taken_by_nobody_else() -> None:
    entries = [{"id": "b"}, {"id": "b-2"}, {"count": 2}]
    one, _, many = agent_sorts(Config.model_validate({**SETTINGS, "agents": entries}))
    assert one.further({"b", "b-2", "a-1", "a-2"})[0] == "b-3"
    name, config = many.further({"b", "b-2", "a-1", "a-2"})
    assert (name, config.agent.id, config.agents) == ("a-3", "a-3", [])

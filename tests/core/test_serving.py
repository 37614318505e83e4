"""Who can take a task and who is chosen: offers and needs, several models, choices with reasons, displacement."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from anywire import errors
from anywire.builtin.fifo import Fifo
from anywire.builtin.least_loaded import LeastLoaded
from anywire.events import TaskDispatched
from anywire.messages import AgentStatus, State
from anywire.offers import Offer, offers_text
from anywire.scheduler import QueuedTask, SchedulerConfig
from anywire.selector import AgentView, Candidates, Choice, SelectorConfig
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

Make = Callable[..., Any]


def chat(orchestrator: Any, body: Any = None, model: str = MODEL, **settings: Any) -> Any:
    return orchestrator.submit(Submission("chat", model, msgspec.json.encode(body or {}).decode(), True, **settings))


class Puppet(PuppetTransport):
    def __init__(self) -> None:
        super().__init__()
        self.joined: set[str] = set()


def offer(wire: Puppet, agent_id: str, *offered: Offer, slots: int = 8, state: State = "ready") -> None:
    """Let an agent join, or report, with these offers."""
    if agent_id not in wire.joined:
        wire.joined.add(agent_id)
        wire.join(agent_id, capabilities=("chat", "resume"), models=(), slots=0, state="starting")
    wire.sink.agent_reported(agent_id, 1, AgentStatus(agent_id, 1, state, offers_text(offered), slots))


@pytest.fixture
def wire() -> Puppet:
    return Puppet()


def sent_to(wire: PuppetTransport) -> list[str]:
    return [agent_id for agent_id, _ in wire.requests]


# Offers and needs

TOOLS = {"tools": [{"type": "function"}]}


async def test_an_offer_that_says_no_to_a_need_is_no_candidate_and_one_that_says_nothing_is(
    pipeline_of: Make, wire: Puppet
) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "no", Offer(MODEL, features={"tools": False}))
    with pytest.raises(errors.InvalidRequest, match="tools"):
        chat(pipeline, TOOLS)
    offer(wire, "unknown", Offer(MODEL))
    for _ in range(3):
        chat(pipeline, TOOLS)
    assert sent_to(wire) == ["unknown"] * 3
    chat(pipeline)
    assert sent_to(wire)[-1] == "no"


@pytest.mark.parametrize(
    ("body", "need"),
    [
        (TOOLS, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "vision"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "audio"),
        ({"response_format": {"type": "json_schema"}}, "json"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_each_need_is_read_from_the_body(pipeline_of: Make, wire: Puppet, body: Any, need: str) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "no", Offer(MODEL, features={need: False}))
    offer(wire, "yes", Offer(MODEL, features={need: True}))
    for _ in range(3):
        chat(pipeline, body)
    assert sent_to(wire) == ["yes"] * 3


async def test_a_stopped_offer_is_a_candidate_only_on_demand(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL, state="stopped"))
    with pytest.raises(errors.ModelStopped):
        chat(pipeline)
    offer(wire, "a", Offer(MODEL, state="stopped", on_demand=True))
    chat(pipeline)
    assert sent_to(wire) == ["a"]


async def test_tasks_wait_at_the_agent_that_loads_their_model_on_demand(pipeline_of: Make, wire: Puppet) -> None:
    """Else those that come while it loads would be refused there, or make another agent load the model too."""
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL, state="starting", on_demand=True))
    chat(pipeline)
    assert sent_to(wire) == ["a"]


@pytest.mark.parametrize("state", ["crashed", "stopping"])
async def test_a_model_that_is_crashed_or_stops_is_no_candidate(pipeline_of: Make, wire: Puppet, state: Any) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL), Offer("other"))
    offer(wire, "a", Offer(MODEL, state=state), Offer("other"))
    stream = chat(pipeline)
    assert not wire.requests, "it may come back: the task waits"
    offer(wire, "a", Offer(MODEL), Offer("other"))
    assert sent_to(wire) == ["a"]
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


async def test_a_task_that_waits_in_vain_for_a_crashed_model_is_told_why(
    pipeline_of: Make, wire: Puppet, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5.0)
    offer(wire, "a", Offer(MODEL), Offer("other"))
    for number in range(5):
        offer(wire, f"a{number}", Offer(MODEL, state="crashed", detail="crashed: killed by SIGKILL"))
    wire.lose("a")
    stream = chat(pipeline)
    clock.advance(6.0)
    with pytest.raises(errors.NoAgent) as caught:
        await read(stream)
    assert "at agent a0 it has crashed: killed by SIGKILL; at agent a1" in str(caught.value)
    assert f"; and at 2 more; start it with `anywire models start {MODEL}`" in str(caught.value)


async def test_a_server_of_tools_that_nobody_has_is_named_beside_those_that_are_there(
    pipeline_of: Make, wire: Puppet
) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL, features={"mcp:files": True, "tools": True}))
    with pytest.raises(
        errors.InvalidRequest, match=f"with the model '{MODEL}' has an MCP server 'file'; there are: files"
    ):
        chat(pipeline, {"tools": [{"type": "mcp", "server_label": "file"}]})


async def test_a_task_waits_for_a_model_that_starts(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL, state="starting"))
    chat(pipeline)
    assert not wire.requests
    offer(wire, "a", Offer(MODEL))
    assert sent_to(wire) == ["a"]


async def test_a_need_that_nobody_has_any_more_ends_what_waits_for_it(
    pipeline_of: Make, wire: Puppet, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5.0)
    offer(wire, "no", Offer(MODEL, features={"tools": False}))
    offer(wire, "yes", Offer(MODEL), slots=0)
    lost, kept = chat(pipeline, TOOLS), None
    wire.lose("yes")
    clock.advance(4.0)
    kept = chat(pipeline)
    assert sent_to(wire) == ["no"]
    clock.advance(1.5)
    with pytest.raises(errors.InvalidRequest, match="tools"):
        await read(lost)
    wire.answer(wire.requests[0][1])
    assert await read(kept) == "answer"


async def test_a_need_that_somebody_has_again_ends_the_wait_for_an_agent(
    pipeline_of: Make, wire: Puppet, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, agent_wait=5.0)
    offer(wire, "no", Offer(MODEL, features={"tools": False}))
    offer(wire, "yes", Offer(MODEL), slots=0)
    stream = chat(pipeline, TOOLS)
    offer(wire, "yes", Offer(MODEL, features={"tools": False}), slots=0)
    clock.advance(4.0)
    offer(wire, "yes", Offer(MODEL), slots=0)
    clock.advance(4.0)
    offer(wire, "yes", Offer(MODEL), slots=1)
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"


# Several models

BOTH = {"models": ["b"]}


async def test_of_several_models_the_first_that_somebody_can_take_is_sent(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "x", Offer("a"), slots=1)
    offer(wire, "y", Offer("b"), slots=1)
    for _ in range(3):
        chat(pipeline, BOTH, "a")
    assert [(agent_id, request.model) for agent_id, request in wire.requests] == [("x", "a"), ("y", "b")]
    wire.answer(wire.requests[1][1])
    assert [(agent_id, request.model) for agent_id, request in wire.requests[2:]] == [("y", "b")]


async def test_the_model_sent_is_one_that_the_agent_takes(pipeline_of: Make, wire: Puppet) -> None:
    """Not the first that it names: that one is crashed there, or nobody serves it at all."""
    pipeline = await pipeline_of(wire)
    offer(wire, "busy", Offer("a"), slots=0)
    offer(wire, "x", Offer("a", state="crashed"), Offer("b"))
    chat(pipeline, BOTH, "a")
    chat(pipeline, BOTH, "unheard of")
    assert [(agent_id, request.model) for agent_id, request in wire.requests] == [("x", "b"), ("x", "b")]


async def test_when_nobody_serves_any_of_them_the_first_is_named(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "x", Offer("c"))
    with pytest.raises(errors.ModelNotFound, match="'a'"):
        chat(pipeline, BOTH, "a")


async def test_after_a_failure_the_next_model_is_tried_before_the_same_agent(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "x", Offer("a"))
    offer(wire, "y", Offer("b"))
    chat(pipeline, BOTH, "a")
    wire.chunk(wire.requests[0][1], 0, final=True, error=errors.to_wire(errors.EngineFailed("broken")))
    assert [(agent_id, request.model) for agent_id, request in wire.requests] == [("x", "a"), ("y", "b")]


async def test_an_answer_that_has_begun_goes_on_with_its_model_and_its_weights(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire, resume=True)
    offer(wire, "x", Offer("a", digest="one"))
    offer(wire, "y", Offer("b", digest="one"), Offer("a", state="crashed", digest="one"))
    stream = chat(pipeline, BOTH, "a")
    wire.chunk(wire.requests[0][1], 0, "so far ")
    wire.lose("x")
    offer(wire, "z", Offer("a", digest="two"))
    assert len(wire.requests) == 1
    offer(wire, "w", Offer("a", digest="one"))
    agent_id, request = wire.requests[-1]
    assert (agent_id, request.model, request.resume) == ("w", "a", "so far ")
    wire.chunk(request, 0, "and on", final=True)
    assert await read(stream) == "so far and on"


# Whom it prefers and avoids


async def test_agents_to_avoid_are_left_out_while_there_are_others(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    offer(wire, "a", Offer(MODEL), slots=9)
    offer(wire, "b", Offer(MODEL), slots=1)
    for _ in range(2):
        chat(pipeline, avoid=("a", "a stranger"))
    assert sent_to(wire) == ["b", "a"]


async def test_an_agent_that_is_preferred_and_free_gets_the_task(pipeline_of: Make, wire: Puppet) -> None:
    pipeline = await pipeline_of(wire)
    for name in ("a", "b", "c"):
        offer(wire, name, Offer(MODEL), slots=2)
    for _ in range(3):
        chat(pipeline, prefer=("a stranger", "c", "c"))
    assert sent_to(wire) == ["c", "c", "a"]
    chat(pipeline, prefer=("b",), avoid=("b",))
    assert sent_to(wire)[-1] != "b"


# Choices


class Reasoning(LeastLoaded):
    """Takes the last one, for reasons that the test gives."""

    name = "reasoning"

    def __init__(self, choice: Callable[[AgentView, list[AgentView]], Any]) -> None:
        super().__init__(SelectorConfig())
        self._choice = choice

    def select(self, task: QueuedTask, candidates: Candidates) -> Any:
        agents = list(candidates)
        return self._choice(agents[-1], agents)


def dispatched(pipeline: Any) -> list[TaskDispatched]:
    events: list[TaskDispatched] = []
    pipeline.events.subscribe("test", events.append, TaskDispatched)
    return events


async def test_scores_and_reason_are_in_the_event(pipeline_of: Make, wire: Puppet) -> None:
    selector = Reasoning(lambda last, agents: Choice(last, {each.agent_id: each.ordinal for each in agents}, "newest"))
    pipeline = await pipeline_of(wire, selector=selector)
    events = dispatched(pipeline)
    offer(wire, "a", Offer(MODEL))
    offer(wire, "b", Offer(MODEL))
    chat(pipeline)
    ((event),) = events
    assert (event.agent_id, event.scores, event.reason) == ("b", {"a": 0.0, "b": 1.0}, "newest")
    assert (event.selector, event.candidates) == ("reasoning", 2)


class Hostile(dict[str, float]):
    def items(self) -> Any:
        raise ValueError("not today")


NONSENSE: list[tuple[str, Any, Any]] = [
    ("no mapping", [1.0, 2.0], ""),
    ("text", "scores", ""),
    ("too many", {str(number): 1.0 for number in range(3)}, ""),
    ("nan", {"a": float("nan")}, ""),
    ("huge", {"a": 10**400}, ""),
    ("bool", {"a": True}, ""),
    ("no number", {"a": "1"}, ""),
    ("no id", {1: 1.0}, ""),
    ("long id", {"x" * 1000: 1.0}, ""),
    ("raises", Hostile(a=1.0), ""),
    ("long reason", {}, "x" * 501),
    ("no reason", {}, 5),
]


@pytest.mark.parametrize(("scores", "reason"), [each[1:] for each in NONSENSE], ids=[each[0] for each in NONSENSE])
async def test_reasons_that_are_nonsense_are_the_selector_s_failure_and_reach_no_event(
    pipeline_of: Make, wire: Puppet, scores: Any, reason: Any
) -> None:
    pipeline = await pipeline_of(wire, selector=Reasoning(lambda last, agents: Choice(last, scores, reason)))
    events = dispatched(pipeline)
    offer(wire, "a", Offer(MODEL))
    offer(wire, "b", Offer(MODEL))
    chat(pipeline)
    assert [(event.agent_id, event.scores, event.reason) for event in events] == [("b", {}, "")]
    assert pipeline.stats()["plugin_failures"] == {"selector reasoning.select": 1}


async def test_a_choice_of_another_list_s_agent_is_replaced(pipeline_of: Make, wire: Puppet) -> None:
    selector = Reasoning(lambda last, agents: Choice(msgspec.structs.replace(last), {"b": 1.0}, "a copy"))
    pipeline = await pipeline_of(wire, selector=selector)
    events = dispatched(pipeline)
    offer(wire, "a", Offer(MODEL))
    offer(wire, "b", Offer(MODEL))
    chat(pipeline)
    assert [(event.agent_id, event.scores, event.reason) for event in events] == [("a", {}, "")]
    assert pipeline.stats()["plugin_failures"] == {"selector reasoning.select": 1}


# A full queue


class Ranked(Fifo):
    """First in, first out, and displaces the newest of lower priority."""

    name = "ranked"
    uses_priority = True

    def __init__(self, limit: int) -> None:
        super().__init__(SchedulerConfig(max_queue_size=limit))
        self.inside: dict[str, QueuedTask] = {}

    def put(self, task: QueuedTask) -> None:
        super().put(task)
        self.inside[task.task_id] = task

    def remove(self, task_id: str) -> bool:
        self.inside.pop(task_id, None)
        return super().remove(task_id)

    def displace(self, task: QueuedTask) -> str | None:
        lower = [each for each in self.inside.values() if each.priority < task.priority]
        return max(lower, key=lambda each: (-each.priority, each.received_ns)).task_id if lower else None


async def test_a_displaced_task_ends_with_queue_full_and_the_bound_holds(
    pipeline_of: Make, wire: Puppet, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, scheduler=Ranked(2))
    offer(wire, "a", Offer(MODEL), slots=0)
    low, normal = chat(pipeline, priority=-1), chat(pipeline)
    with pytest.raises(errors.QueueFull, match="max_queue_size"):
        chat(pipeline, priority=-1)
    urgent = chat(pipeline, priority=5)
    assert pipeline.waiting == 2
    with pytest.raises(errors.QueueFull, match="took the place"):
        await read(low)
    offer(wire, "a", Offer(MODEL), slots=2)
    for _, request in wire.requests:
        wire.answer(request)
    assert [await read(normal), await read(urgent)] == ["answer", "answer"]
    assert pipeline.stats()["plugin_failures"] == {}


class KeepsRoom(Ranked):
    """Lets tasks of low priority fill half of the queue."""

    def limit(self, task: QueuedTask) -> int:
        return 2 if task.priority < 0 else 99


async def test_room_kept_back_is_there_for_those_it_is_kept_for(
    pipeline_of: Make, wire: Puppet, clock: SimulatedClock
) -> None:
    pipeline = await pipeline_of(wire, scheduler=KeepsRoom(4))
    offer(wire, "a", Offer(MODEL), slots=0)
    low = [chat(pipeline, priority=-1) for _ in range(2)]
    with pytest.raises(errors.QueueFull, match="for this one is 2, further room is kept back"):
        chat(pipeline, priority=-1)
    normal = [chat(pipeline) for _ in range(2)]
    assert pipeline.waiting == 4
    # Beyond max_queue_size nobody is let in, whatever the scheduler says.
    normal.append(chat(pipeline))
    assert pipeline.waiting == 4
    with pytest.raises(errors.QueueFull, match="took the place"):
        await read(low.pop(0))
    offer(wire, "a", Offer(MODEL), slots=4)
    for _, request in wire.requests:
        wire.answer(request)
    assert [await read(each) for each in (*low, *normal)] == ["answer"] * 4
    assert pipeline.stats()["plugin_failures"] == {}


@pytest.mark.parametrize("fault", [lambda task: "many", lambda task: None, lambda task: 1 // 0])
async def test_a_scheduler_whose_limit_is_nonsense_has_that_of_its_settings(
    pipeline_of: Make, wire: Puppet, fault: Any
) -> None:
    scheduler = KeepsRoom(1)
    scheduler.limit = fault  # type: ignore[method-assign]
    pipeline = await pipeline_of(wire, scheduler=scheduler)
    offer(wire, "a", Offer(MODEL), slots=0)
    chat(pipeline, priority=-1)
    with pytest.raises(errors.QueueFull):
        chat(pipeline, priority=-1)
    assert pipeline.waiting == 1
    assert pipeline.stats()["plugin_failures"] == {"scheduler ranked.limit": 2}


async def test_held_tasks_count_and_are_not_displaced(pipeline_of: Make, wire: Puppet) -> None:
    nobody = Reasoning(lambda last, agents: None)
    scheduler = Ranked(2)
    pipeline = await pipeline_of(wire, scheduler=scheduler, selector=nobody)
    offer(wire, "a", Offer(MODEL))
    for _ in range(2):
        chat(pipeline, priority=-1)
    scheduler.inside.clear()
    with pytest.raises(errors.QueueFull, match="2 tasks wait already"):
        chat(pipeline, priority=5)
    assert pipeline.waiting == 2


@pytest.mark.parametrize("named", ["a stranger", 5, ["x"]])
async def test_a_scheduler_that_displaces_nonsense_displaces_nobody(
    pipeline_of: Make, wire: Puppet, named: Any
) -> None:
    scheduler = Ranked(1)
    scheduler.displace = lambda task: named  # type: ignore[method-assign]
    pipeline = await pipeline_of(wire, scheduler=scheduler)
    offer(wire, "a", Offer(MODEL), slots=0)
    chat(pipeline)
    with pytest.raises(errors.QueueFull):
        chat(pipeline, priority=5)
    assert pipeline.waiting == 1
    assert pipeline.stats()["plugin_failures"] == {"scheduler ranked.displace": 1}


# Priorities


async def test_a_priority_that_changes_nothing_is_told_to_the_client_and_logged_once(
    pipeline_of: Make, wire: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = await pipeline_of(wire)
    wire.join("a")
    assert [chat(pipeline, priority=priority).ignored for priority in (0, 5, -1)] == [(), ("priority",), ("priority",)]
    assert [record.message for record in caplog.records if "priorit" in record.message] == [
        "the scheduler fifo ignores priorities, and a client sent one: set `scheduler.name: priority` to use them"
    ]


async def test_nothing_is_ignored_by_a_scheduler_that_uses_priorities(
    pipeline_of: Make, wire: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = await pipeline_of(wire, scheduler=Ranked(9))
    wire.join("a")
    assert chat(pipeline, priority=5).ignored == ()
    assert not caplog.records

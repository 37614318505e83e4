"""Trees of orchestrators: what a task carries down, attempts that count once, commands that reach a grandchild."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.core.test_commands import Commanded
from tests.patience import PATIENCE

from anywire import errors, events
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.caller import Caller
from anywire.engine import Delta, EngineProgress
from anywire.event_bus import EventBus
from anywire.messages import AgentInfo, Chunk, TaskRequest
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.client import Client, TaskOptions
from anywire.roles.fleet import fleet_agent
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, Script
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import Rig, read, submit
from anywire.transport import Transport

Make = Callable[..., Any]


class Links:
    """Those of children to their parents; they can be cut."""

    def __init__(self) -> None:
        self.links: dict[str, Any] = {}

    async def join(self, child: Orchestrator, above: Rig, name: str) -> None:
        """Like `Rig.fleet`, over a transport that can be cut."""
        self.links[name] = transport = above.new_transport()
        agent = fleet_agent(child, [transport], "agent")
        await agent.start()
        above._close_later("an agent", agent.close)

    def cut(self, name: str) -> None:
        """Break the link of a child to its parent, as both ends notice."""
        for end in self.links[name]._ends:
            for channel in list(end.channels):
                channel.abort("the link is cut")


class Tree(Links):
    """Root, middle and lowest, each on its own network, and agents below the lowest."""

    def __init__(self, rigs: list[Rig]) -> None:
        super().__init__()
        self.top, self.between, self.bottom = rigs
        self.root: Orchestrator
        self.middle: Orchestrator
        self.lowest: Orchestrator

    async def grow(self, *agents: str, **settings: Any) -> None:
        self.lowest = await self.bottom.pipeline(*agents, **settings)
        await self.join(self.lowest, self.between, "lowest")
        self.middle = await self.between.pipeline(self.lowest.info.hub_id)
        await self.join(self.middle, self.top, "middle")
        self.root = await self.top.pipeline(self.middle.info.hub_id)

    def path(self, *agents: str) -> list[str]:
        return [self.middle.info.hub_id, self.lowest.info.hub_id, *agents]


@pytest.fixture
async def tree(request: pytest.FixtureRequest) -> AsyncIterator[Tree]:
    async with AsyncExitStack() as stack:
        names = [f"{request.node.name}/{number}" for number in range(3)]
        yield Tree([await stack.enter_async_context(Rig("memory", {"network": name})) for name in names])


class Asked(Commanded):
    """Keeps the requests; the first ``failures`` of them fail."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.requests: list[TaskRequest] = []
        self.failures = failures

    async def run(self, task: TaskRequest) -> Any:
        self.requests.append(task)
        if len(self.requests) <= self.failures:
            raise errors.EngineFailed("broken")
        yield Delta("text")


def subscribed(bus: EventBus, kind: type[events.Event]) -> list[Any]:
    found: list[Any] = []
    bus.subscribe("test", found.append, kind)
    return found


# What a task carries


async def test_what_a_task_carries_arrives_at_the_grandchild(tree: Tree) -> None:
    first, second = Asked(), Asked()
    await tree.bottom.agent("first", engine=first)
    await tree.bottom.agent("second", engine=second)
    await tree.grow("first", "second")
    submission = Submission(
        "chat",
        MODEL,
        "{}",
        True,
        priority=3,
        caller=Caller("key", "alice"),
        session="s",
        parent="p",
        policy="careful",
        hints={"urgency": "high", "weight": 2.5},
        prefer=("nowhere",),
        avoid=("first", "nobody"),
        attempts_left=2,
    )
    admitted = subscribed(tree.lowest.events, events.TaskAdmitted)
    assert await read(tree.root.submit(submission)) == "text"
    assert first.requests == []
    (request,) = second.requests
    assert (request.tenant, request.session, request.parent, request.policy) == ("alice", "s", "p", "careful")
    assert (request.prefer, request.avoid) == (("nowhere",), ("first", "nobody"))
    assert msgspec.json.decode(request.hints) == {"urgency": "high", "weight": 2.5}
    assert (request.priority, request.attempts_left, request.hops) == (3, 2, 2)
    assert (admitted[0].tenant, admitted[0].session, admitted[0].caller) == ("alice", "s", tree.middle.info.hub_id)


async def test_each_orchestrator_of_a_tree_tells_of_its_own_choice(tree: Tree) -> None:
    await tree.bottom.agent("first", engine=Asked())
    await tree.bottom.agent("second", engine=Asked())
    await tree.grow("first", "second")
    admitted = {each: subscribed(each.events, events.TaskAdmitted) for each in (tree.root, tree.middle, tree.lowest)}
    assert await read(tree.root.submit(Submission("chat", MODEL, "{}", True, avoid=("first",)))) == "text"
    chosen = []
    for orchestrator, (event,) in admitted.items():
        record = orchestrator.explain(event.task_id)
        assert record is not None
        chosen.append([(each.agent_id, each.candidates) for each in record.decisions])
    assert chosen == [[(tree.middle.info.hub_id, 1)], [(tree.lowest.info.hub_id, 1)], [("second", 1)]]


async def test_hints_that_are_none_are_refused_by_name(tree: Tree) -> None:
    engine = Asked()
    await tree.bottom.agent("a", engine=engine)
    await tree.grow("a")
    many = {f"h{number}": "x" for number in range(17)}
    with pytest.raises(errors.InvalidRequest, match="at most 16"):
        await read(tree.root.submit(Submission("chat", MODEL, "{}", True, hints=many)))
    assert engine.requests == []


# Attempts


async def test_a_child_spends_at_most_what_is_left_and_says_how_many_it_used(tree: Tree) -> None:
    engines = [Asked(failures=9), Asked(failures=9), Asked(failures=9), Asked(failures=9)]
    for number, engine in enumerate(engines):
        await tree.bottom.agent(f"a{number}", engine=engine)
    await tree.grow("a0", "a1", "a2", "a3", max_attempts=4)
    ended = subscribed(tree.root.events, events.TaskEnded)
    stream = tree.root.submit(Submission("chat", MODEL, "{}", True, attempts_left=2))
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert sum(len(engine.requests) for engine in engines) == 2
    assert (stream.attempts, stream.spent, ended[0].attempts) == (2, 2, 2)


async def test_attempts_below_are_counted_where_the_answer_is_read(tree: Tree) -> None:
    engines = [Asked(failures=1), Asked(failures=1), Asked()]
    for number, engine in enumerate(engines):
        await tree.bottom.agent(f"a{number}", engine=engine)
    await tree.grow("a0", "a1", "a2")
    ended = subscribed(tree.root.events, events.TaskEnded)
    for stream in (True, False):
        for engine in engines:
            engine.requests.clear()
        answer = tree.root.submit(Submission("chat", MODEL, "{}", stream))
        assert await read(answer) == "text"
        made = sum(len(engine.requests) for engine in engines)
        assert made > 1
        assert (answer.attempts, ended[-1].attempts) == (made, made)


async def test_what_a_child_used_is_taken_off_what_is_left(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, max_attempts=4)
    wire.join("a")
    wire.join("b")
    wire.join("c")
    stream = submit(pipeline, Script())
    request = wire.requests[0][1]
    assert request.attempts_left == 4
    agent_id, incarnation = wire.receiver(request)
    final = wire.final(request, errors.EngineFailed("broken"), attempts_used=3)
    wire.sink.chunk_received(agent_id, incarnation, final)
    request = wire.requests[1][1]
    assert request.attempts_left == 1
    agent_id, incarnation = wire.receiver(request)
    wire.sink.chunk_received(agent_id, incarnation, wire.final(request, errors.EngineFailed("broken")))
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert len(wire.requests) == 2
    assert (stream.attempts, stream.spent) == (4, 4)


# Whose fault


@pytest.mark.parametrize(
    ("error", "failed", "state"),
    [
        (errors.EngineFailed("broken"), 0, "open"),
        (errors.AgentLost("gone"), 0, "open"),
        (errors.Refused("full", origin="agent"), 0, "closed"),
        (errors.InvalidRequest("too long", origin="engine"), 0, "closed"),
        (errors.EngineFailed("the orchestrator's own", origin="pipeline"), 1, "quarantined"),
    ],
    ids=["engine", "transport", "agent", "client", "pipeline"],
)
async def test_an_error_from_below_a_child_rests_it_but_never_quarantines_it(
    pipeline_of: Make, wire: PuppetTransport, error: errors.AnywireError, failed: int, state: str
) -> None:
    pipeline = await pipeline_of(wire, breaker={"errors": 1, "quarantine_trips": 1}, max_attempts=1)
    wire.join("child", info=AgentInfo("child", 1, engine="orchestrator", capabilities=("chat",)))
    stream = submit(pipeline, Script())
    request = wire.requests[0][1]
    wire.sink.chunk_received("child", 1, wire.final(request, error))
    if not isinstance(error, errors.Refused):
        with pytest.raises(type(error)):
            await read(stream)
    view = pipeline.agents()[0]
    assert view.failed == failed
    assert (view.latency_ema_ms > 0) == bool(failed)
    assert pipeline.health.state("child") == state


async def test_beside_a_good_child_three_whose_engines_all_fail_get_few_tasks(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, max_attempts=4)
    for name in ("bad1", "bad2", "bad3", "good"):
        wire.join(name, info=AgentInfo(name, 1, engine="orchestrator", capabilities=("chat",), lease_ms=60_000))
    answered = seen = 0
    for _ in range(200):
        stream = pipeline.submit(Submission("chat", MODEL, "{}", True))
        while seen < len(wire.requests):
            agent_id, request = wire.requests[seen]
            seen += 1
            if agent_id == "good":
                wire.answer(request)
            else:
                wire.sink.chunk_received(agent_id, 1, wire.final(request, errors.EngineFailed("broken", status=500)))
        answered += await read(stream) == "answer"
        clock.advance(0.2)
    assert answered == 200
    # Each opens after three failures, and is tried after 1, 2, 4, 8 and 16 of the 40 seconds.
    assert seen <= 200 + 3 * (3 + 5)
    assert {pipeline.health.state(name) for name in ("bad1", "bad2", "bad3")} <= {"open", "half_open"}
    assert pipeline.health.state("good") == "closed"


async def test_openings_by_what_fails_below_are_not_those_after_which_a_child_is_quarantined(
    pipeline_of: Make, wire: PuppetTransport, clock: SimulatedClock
) -> None:
    pipeline: Orchestrator = await pipeline_of(wire, breaker={"errors": 1, "quarantine_trips": 2}, max_attempts=1)
    wire.join("child", info=AgentInfo("child", 1, engine="orchestrator", capabilities=("chat",), lease_ms=60_000))
    own = errors.EngineFailed("the orchestrator's own", origin="pipeline")
    states = []
    for error in (errors.EngineFailed("below"), errors.EngineFailed("below"), own, own):
        pipeline.submit(Submission("chat", MODEL, "{}", True))
        wire.sink.chunk_received("child", 1, wire.final(wire.requests[-1][1], error))
        states.append(pipeline.health.state("child"))
        clock.advance(10)
    assert states == ["open", "open", "open", "quarantined"]


async def test_the_same_error_of_an_agent_counts_against_it(pipeline_of: Make, wire: PuppetTransport) -> None:
    pipeline = await pipeline_of(wire, breaker={"errors": 1}, max_attempts=1)
    wire.join("agent")
    stream = submit(pipeline, Script())
    wire.sink.chunk_received("agent", 1, wire.final(wire.requests[0][1], errors.EngineFailed("broken")))
    with pytest.raises(errors.EngineFailed):
        await read(stream)
    assert pipeline.agents()[0].failed == 1
    assert pipeline.health.state("agent") == "open"


# Progress


class Loading(Asked):
    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def run(self, task: TaskRequest) -> Any:
        self.requests.append(task)
        yield EngineProgress("loading", "weights")
        await self.goes_on.wait()
        yield Delta("text")


async def test_progress_comes_up_the_tree_where_it_is_asked_for(tree: Tree) -> None:
    engine = Loading()
    await tree.bottom.agent("a", engine=engine)
    await tree.grow("a")
    stream = tree.root.submit(Submission("chat", MODEL, "{}", True, progress=True))
    loading = asyncio.Event()
    told: list[str] = []

    def progressed(progress: Any) -> None:
        told.append(progress.state)
        if progress.state == "loading":
            assert progress.detail == "weights"
            loading.set()

    stream.on_progress(progressed)
    await asyncio.wait_for(loading.wait(), PATIENCE)
    engine.goes_on.set()
    assert await read(stream) == "text"
    assert told == ["running", "loading"]
    quiet = tree.root.submit(Submission("chat", MODEL, "{}", True))
    assert await read(quiet) == "text"
    assert quiet.progress is None
    assert [request.progress for request in engine.requests] == [True, False]


# Commands


async def test_a_command_reaches_a_grandchilds_agent_and_its_results_stream_back(tree: Tree) -> None:
    engine = Commanded()
    await tree.bottom.agent("a", engine=engine)
    await tree.grow("a")
    results = tree.root.command(tree.path("a"), "count", {"to": 1000})
    async with aclosing(results):
        assert await asyncio.wait_for(anext(results), PATIENCE) == {"number": 0}
        for _ in range(200):
            await asyncio.sleep(0)
        assert 64 <= len(engine.yielded) <= 4 * 64, "a reader that pauses stops the engine at the far end"
        rest = [each["number"] async for each in results]
    assert rest == list(range(1, 1000))


async def test_a_reader_that_leaves_stops_the_engine_at_the_far_end(tree: Tree) -> None:
    engine = Commanded()
    await tree.bottom.agent("a", engine=engine)
    await tree.grow("a")
    async with aclosing(tree.root.command(tree.path("a"), "hold")) as results:
        assert await asyncio.wait_for(anext(results), PATIENCE) == "begun"
        await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    await asyncio.wait_for(engine.stopped.wait(), PATIENCE)


@pytest.mark.parametrize("cut", ["lowest", "middle"])
async def test_a_link_cut_in_between_ends_a_command_with_agent_lost(tree: Tree, cut: str) -> None:
    engine = Commanded()
    await tree.bottom.agent("a", engine=engine)
    await tree.grow("a")
    results = tree.root.command(tree.path("a"), "hold")
    assert await asyncio.wait_for(anext(results), PATIENCE) == "begun"
    await asyncio.wait_for(engine.holding.wait(), PATIENCE)
    tree.cut(cut)
    with pytest.raises(errors.AgentLost):
        await asyncio.wait_for(anext(results), PATIENCE)
    await asyncio.wait_for(engine.stopped.wait(), PATIENCE)
    assert engine.begun == ["hold"]


async def test_an_error_at_the_far_end_comes_up_as_it_is(tree: Tree) -> None:
    await tree.bottom.agent("a", engine=Commanded())
    await tree.grow("a")
    with pytest.raises(errors.UnknownCommand, match="the engine commanded has no command 'dance'"):
        await anext(tree.root.command(tree.path("a"), "dance"))
    with pytest.raises(errors.AgentUnavailable, match="there is no agent 'b'"):
        await anext(tree.root.command(tree.path("b"), "count"))
    with pytest.raises(errors.InvalidRequest, match="agent a is no orchestrator"):
        await anext(tree.root.command(tree.path("a", "c"), "count"))


async def test_a_parent_reads_its_children(tree: Tree) -> None:
    _, engine = await tree.bottom.agent("a")
    await tree.grow("a")
    stream = submit(tree.root, Script(tag="t", hold_after=0))
    await engine.event("holding", "t")

    async def told(name: str, arguments: Mapping[str, Any] | None = None) -> list[Any]:
        return [each async for each in tree.root.command(tree.path(), name, arguments)]

    (agent,) = await told("agents")
    assert (agent["id"], agent["load"]["in_flight"]) == ("a", 1)
    assert await told("models") == [{"model": MODEL, "agents": 1}]
    (task,) = await told("tasks")
    assert (task["model"], task["agent_id"]) == (MODEL, "a")
    assert (await told("stats"))[0]["agents"] == 1
    assert await told("cancel", {"task_id": task["id"]}) == [{"cancelled": True}]
    assert await told("cancel", {"task_id": task["id"]}) == [{"cancelled": False}]
    with pytest.raises(errors.TaskCancelled):
        await read(stream)
    with pytest.raises(errors.UnknownCommand, match="it has agents, models"):
        await told("dance")
    assert await told("drain") == [None]


# Clients


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory as if it left the machine."""
    monkeypatch.setattr(Transport, "is_local", False)


async def two_clients(rig: Rig) -> tuple[Orchestrator, Any, Client, Client]:
    _, engine = await rig.agent("a")
    pipeline = await rig.pipeline("a")
    await rig.fleet(pipeline, "client")
    return pipeline, engine, await rig.client(), await rig.client()


def ask(client: Client, tag: str, **options: Any) -> asyncio.Task[Any]:
    script = msgspec.structs.asdict(Script(tag=tag, chunks=2, hold_after=1))
    return asyncio.create_task(client.chat(model=MODEL, messages=[], task=TaskOptions(**options), **script))


async def test_a_client_of_this_machine_operates(tree: Tree) -> None:
    _, engine, first, second = await two_clients(tree.top)
    asking = ask(second, "t", tenant="alice", session="s", hints={"urgency": "high"}, avoid=("b",), attempts=2)
    await engine.event("holding", "t")
    (task,) = await first.tasks()
    assert (task["tenant"], task["session"], task["caller"]) == ("alice", "s", second.hub.info.hub_id)
    assert [agent["id"] async for agent in first.command("agents")] == ["a"]
    assert [each async for each in first.command("cancel", {"task_id": task["id"]})] == [{"cancelled": True}]
    with pytest.raises(errors.TaskCancelled):
        await asking
    assert [each async for each in first.command("drain", target=["a"])] == [None]


async def test_a_client_from_elsewhere_sees_and_ends_its_own_alone(tree: Tree, far: None) -> None:
    _, engine, first, second = await two_clients(tree.top)
    asking = ask(first, "mine", tenant="alice")
    other = ask(second, "theirs", tenant="alice")
    await engine.event("holding", "mine")
    await engine.event("holding", "theirs")
    (mine,) = await first.tasks()
    (theirs,) = await second.tasks()
    assert mine["id"] != theirs["id"]
    stolen = {"task_id": theirs["id"]}
    assert [each async for each in first.command("cancel", stolen)] == [{"cancelled": False}]
    with pytest.raises(errors.InvalidRequest, match="no task"):
        await anext(first.follow(theirs["id"]))
    for name in ("agents", "stats"):
        with pytest.raises(errors.Forbidden):
            await anext(first.command(name))
    with pytest.raises(errors.Forbidden):
        await anext(first.command("drain", target=["a"]))
    assert [each async for each in first.command("models")] == [{"model": MODEL, "agents": 1}]
    assert [each async for each in first.command("cancel", {"task_id": mine["id"]})] == [{"cancelled": True}]
    with pytest.raises(errors.TaskCancelled):
        await asking
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


async def test_events_over_the_client_plane(tree: Tree) -> None:
    pipeline, engine, first, second = await two_clients(tree.top)
    async with aclosing(first.events("task.admitted", "task.ended")) as told:
        begins = asyncio.ensure_future(anext(told))
        await until_watched(pipeline, events.TaskEnded)
        asking = ask(second, "t", tenant="alice")
        admitted = await asyncio.wait_for(begins, PATIENCE)
        assert (admitted["type"], admitted["tenant"]) == ("task.admitted", "alice")
        await engine.event("holding", "t")
        assert pipeline.cancel(admitted["task_id"])
        ended = await asyncio.wait_for(anext(told), PATIENCE)
        assert (ended["type"], ended["error"]) == ("task.ended", "cancelled")
    with pytest.raises(errors.TaskCancelled):
        await asking
    async with aclosing(first.events("task.ended", after=admitted["id"])) as told:
        assert (await asyncio.wait_for(anext(told), PATIENCE))["id"] == ended["id"]
    async with aclosing(first.events(after="another-1")) as told:
        assert (await asyncio.wait_for(anext(told), PATIENCE)) == {"type": "reset"}
    with pytest.raises(errors.InvalidRequest, match="no events"):
        await anext(first.events("task.begun"))


async def test_events_of_others_are_not_told_to_a_client_from_elsewhere(tree: Tree, far: None) -> None:
    pipeline, engine, first, second = await two_clients(tree.top)
    async with aclosing(first.events()) as told:
        begins = asyncio.ensure_future(anext(told))
        await until_watched(pipeline, events.TaskEnded)
        theirs = ask(second, "theirs", tenant="alice")
        await engine.event("holding", "theirs")
        mine = ask(first, "mine", tenant="alice")
        await engine.event("holding", "mine")
        begun = await asyncio.wait_for(begins, PATIENCE)
        assert begun["caller"] == first.hub.info.hub_id
    for each in (mine, theirs):
        each.cancel()
    await asyncio.gather(mine, theirs, return_exceptions=True)


async def test_following_over_the_client_plane(tree: Tree) -> None:
    pipeline, engine, first, second = await two_clients(tree.top)
    asking = asyncio.create_task(read(submit_to(second, Script(tag="t", chunks=2, hold_after=1))))
    await engine.event("holding", "t")
    (task,) = await first.tasks()
    async with aclosing(first.follow(task["id"])) as chunks:
        waiting = asyncio.ensure_future(anext(chunks))
        await until(lambda: pipeline._tasks[task["id"]].stream.followers)
        pipeline.cancel(task["id"], "enough")
        with pytest.raises(errors.TaskCancelled, match="enough"):
            await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(errors.TaskCancelled):
        await asking


async def test_a_long_text_is_followed_in_parts(tree: Tree) -> None:
    pipeline, engine, first, _ = await two_clients(tree.top)
    stream = submit(pipeline, Script(tag="t", chunks=1, size=30_000, hold_after=0))
    await engine.event("holding", "t")
    follower = pipeline._tasks[stream.task_id].stream
    told: list[Any] = []

    async def follow() -> None:
        async for each in first.follow(stream.task_id):
            told.append(each)

    following = asyncio.create_task(follow())
    await until(lambda: follower.followers)
    follower.push(Chunk("h", stream.task_id, 1, 0, ("x" * 20_000, "y" * 10_000), finish_reason="stop", final=True))
    await asyncio.wait_for(following, PATIENCE)
    assert "".join(each["text"] for each in told) == "x" * 20_000 + "y" * 10_000
    assert [(each["seq"], each["pieces"]) for each in told] == [(0, 2), (2, 0), (2, 0), (2, 0)]
    assert [each["final"] for each in told] == [False, False, False, True]
    stream.cancel("enough")


async def test_a_client_names_the_orchestrator_where_there_are_several(tree: Tree) -> None:
    one, two = await tree.top.pipeline(), await tree.top.pipeline()
    await tree.top.fleet(one, "client")
    await tree.top.fleet(two, "client")
    client = await tree.top.client()
    await asyncio.wait_for(client.hub.agents_until(lambda agents: len(agents) == 2), PATIENCE)
    with pytest.raises(errors.InvalidRequest, match="several orchestrators"):
        await client.tasks()
    assert await client.tasks(orchestrator=two.info.hub_id) == []


async def test_what_is_no_option_of_a_task_is_told_before_it_is_sent(tree: Tree) -> None:
    client = await tree.top.client()
    for options in (
        {"session": "x" * 300},
        {"tenant": "a\nb"},
        {"prefer": ("",)},
        {"avoid": ("a",) * 65},
        {"hints": {"": 1}},
        {"attempts": -1},
    ):
        with pytest.raises(errors.InvalidRequest):
            await client.chat(model=MODEL, messages=[], task=TaskOptions(**options))


async def test_a_client_leaves_the_number_of_attempts_to_the_orchestrator(tree: Tree) -> None:
    engines = [Asked(failures=9) for _ in range(5)]
    for number, engine in enumerate(engines):
        await tree.top.agent(f"a{number}", engine=engine)
    pipeline = await tree.top.pipeline(*[f"a{number}" for number in range(5)], max_attempts=5)
    await tree.top.fleet(pipeline, "client")
    client = await tree.top.client()
    with pytest.raises(errors.EngineFailed):
        await client.chat(model=MODEL, messages=[])
    assert sum(len(engine.requests) for engine in engines) == 5
    for engine in engines:
        engine.requests.clear()
    with pytest.raises(errors.EngineFailed):
        await client.chat(model=MODEL, messages=[], task=TaskOptions(attempts=2))
    assert sum(len(engine.requests) for engine in engines) == 2


def submit_to(client: Client, script: Script) -> Any:
    return client.submit(Submission("chat", MODEL, script.body(), True))


async def until_watched(pipeline: Orchestrator, kind: type[events.Event]) -> None:
    """Until somebody reads events of this kind."""
    await until(lambda: kind in pipeline.events.wanted)


async def until(condition: Callable[[], Any]) -> None:
    """Turn the event loop until ``condition`` holds: what it looks at tells nobody when it changes."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_the_code_of_the_how_to_works(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "send-commands.md").read_text()
    shown: dict[str, Any] = {}
    exec(page.split("```python")[1].split("```")[0], shown)
    async with Rig("memory", {}) as rig:
        agent, _ = await rig.agent("agent-1")
        await rig.agent("agent-2", engine=SyntheticEngine(SyntheticConfig(models=["m"])))
        pipeline = await rig.pipeline("agent-1", "agent-2")
        await rig.fleet(pipeline, "client")
        looking = asyncio.create_task(shown["look"]("memory"))
        await until(lambda: events.TaskEnded in pipeline.events.wanted)
        assert agent.draining
        await shown["ask"](await rig.client())
        await until(lambda: "answered" in capsys.readouterr().out)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

"""Streams of an orchestrator that is an agent itself: when it is lost, they go on elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.core.test_trees import Links
from tests.patience import PATIENCE

from anywire import errors
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.pipeline.orchestrator import Orchestrator
from anywire.request_log import RequestLog
from anywire.roles.fleet import FleetEngine
from anywire.selector import AgentView
from anywire.service import Service
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.rig import Rig, read

MODEL = "synthetic"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "tell"}], "stream": True})
LENGTH = 12


class Paced(SyntheticEngine):
    """Makes as many tokens as it is allowed, and keeps the requests."""

    def __init__(self, allowed: int, digest: str = "") -> None:
        super().__init__(SyntheticConfig(length=LENGTH, digest=digest))
        self.allowed = asyncio.Semaphore(allowed)
        self.requests: list[TaskRequest] = []

    async def run(self, task: TaskRequest) -> Any:
        self.requests.append(task)
        async for delta in super().run(task):
            await self.allowed.acquire()
            yield delta


async def whole() -> str:
    task = TaskRequest("h", "t", 1, "chat", MODEL, BODY, stream=True)
    run = SyntheticEngine(SyntheticConfig(length=LENGTH)).run(task)
    return "".join([each.text async for each in run if isinstance(each, Delta)])


class Forest(Links):
    """A root, and children with agents of their own."""

    def __init__(self, stack: AsyncExitStack, name: str) -> None:
        super().__init__()
        self._stack, self._name = stack, name
        self._below: dict[str, Rig] = {}
        self._known: dict[str, Orchestrator] = {}

    async def root(self) -> Orchestrator:
        return await self._orchestrator("root")

    async def child(self, name: str, *engines: SyntheticEngine, of: str = "root", **settings: Any) -> Orchestrator:
        made = await self._orchestrator(name, **settings)
        for number, engine in enumerate(engines):
            await self.agent(f"{name}-{number}", engine, of=name)
        await self.join(made, self._below[of], name)
        if engines:
            await self.sees(of, made.info.hub_id)
        return made

    async def agent(self, agent_id: str, engine: SyntheticEngine, of: str = "root") -> None:
        await self._below[of].agent(agent_id, engine=engine)
        await self.sees(of, agent_id)

    async def sees(self, name: str, agent_id: str) -> None:
        """Wait until the orchestrator of that name knows that agent, or child, as ready."""

        def ready(agents: list[AgentView]) -> bool:
            return any(each.agent_id == agent_id and each.status.state == "ready" for each in agents)

        await asyncio.wait_for(self._known[name].agents_until(ready), PATIENCE)

    async def _orchestrator(self, name: str, **settings: Any) -> Orchestrator:
        network = {"network": f"{self._name}/{name}"}
        self._below[name] = rig = await self._stack.enter_async_context(Rig("memory", network))
        self._known[name] = made = await rig.pipeline(**settings)
        return made


@pytest.fixture
async def forest(request: pytest.FixtureRequest) -> AsyncIterator[Forest]:
    async with AsyncExitStack() as stack:
        yield Forest(stack, request.node.name)


async def some(stream: TaskStream, tokens: int) -> str:
    """So many tokens of it, which come in one chunk or more."""
    texts: list[str] = []
    while len(texts) < tokens:
        texts.extend((await asyncio.wait_for(anext(stream), PATIENCE)).deltas)
    assert len(texts) == tokens
    return "".join(texts)


async def begun(pipeline: Orchestrator) -> tuple[TaskStream, str]:
    """A stream of which three tokens were read, and these."""
    stream = pipeline.submit(Submission("chat", MODEL, BODY, True))
    return stream, await some(stream, 3)


async def rest(stream: TaskStream) -> str:
    return await asyncio.wait_for(read(stream), PATIENCE)


@pytest.mark.parametrize("other", ["child", "agent", "grandchild"])
async def test_a_stream_goes_on_when_its_child_is_lost(forest: Forest, other: str) -> None:
    root = await forest.root()
    first, second = Paced(3), Paced(LENGTH)
    await forest.child("first", first)
    stream, text = await begun(root)
    if other == "agent":
        await forest.agent("second", second)
    elif other == "child":
        await forest.child("second", second)
    else:
        middle = await forest.child("middle")
        await forest.child("second", second, of="middle")
        await forest.sees("root", middle.info.hub_id)
    forest.cut("first")
    assert text + await rest(stream) == await whole()
    assert [each.resume for each in second.requests] == [text]
    assert root.stats()["events"]["resumes"] == 1


async def test_a_stream_that_an_agent_began_goes_on_at_a_child(forest: Forest) -> None:
    root = await forest.root()
    first, second = Paced(3), Paced(LENGTH)
    await forest.agent("mortal", first)
    stream, text = await begun(root)
    await forest.child("second", second)
    root.order_agent("mortal", "isolated")
    assert text + await rest(stream) == await whole()
    assert [each.resume for each in second.requests] == [text]


async def test_what_was_resumed_at_a_child_goes_on_again_below_it(forest: Forest) -> None:
    root = await forest.root()
    first, second, third = Paced(3), Paced(2), Paced(LENGTH)
    await forest.child("first", first)
    stream, text = await begun(root)
    child = await forest.child("second", second)
    forest.cut("first")
    text += await some(stream, 2)
    await forest.agent("second-1", third, of="second")
    child.order_agent("second-0", "isolated")
    assert text + await rest(stream) == await whole()
    assert [each.resume for each in third.requests] == [text]


async def test_what_nobody_below_a_child_goes_on_with_does_so_at_another_child(forest: Forest) -> None:
    root = await forest.root()
    first, second = Paced(3), Paced(LENGTH)
    child = await forest.child("first", first, max_attempts=1)
    stream, text = await begun(root)
    await forest.child("second", second)
    child.order_agent("first-0", "isolated")
    assert text + await rest(stream) == await whole()
    assert [each.resume for each in second.requests] == [text]


async def test_only_a_child_with_the_same_weights_goes_on(forest: Forest) -> None:
    root = await forest.root()
    first, other, same = Paced(3, "one"), Paced(LENGTH, "two"), Paced(LENGTH, "one")
    await forest.child("first", first)
    stream, text = await begun(root)
    await forest.child("other", other)
    await forest.child("same", same)
    forest.cut("first")
    assert text + await rest(stream) == await whole()
    assert (len(other.requests), len(same.requests)) == (0, 1)


@pytest.mark.parametrize("why", ["weights", "resume"])
async def test_a_child_that_cannot_promise_the_rest_does_not(forest: Forest, why: str) -> None:
    """Its agents have different weights, or it is not to resume streams."""
    root = await forest.root()
    first, second = Paced(3, "one"), Paced(LENGTH, "one")
    child = await forest.child("first", first, resume=why != "resume")
    if why == "weights":
        await forest.agent("first-1", Paced(0, "two"), of="first")
    stream, _ = await begun(root)
    await forest.child("second", second)
    forest.cut("first")
    with pytest.raises(errors.AgentLost, match="not resumed: its engine cannot go on from a text"):
        await rest(stream)
    assert not second.requests
    assert child.resumable_models() == {}


async def test_a_child_refuses_to_go_on_with_what_it_has_not_offered(forest: Forest) -> None:
    """The weights of its agents may have changed since its parent was told of them."""
    await forest.root()
    child = await forest.child("first", Paced(0, "one"))
    engine = FleetEngine(child, "agent", RequestLog(False))
    await engine.start(lambda: None)
    await forest.agent("first-1", Paced(0, "two"), of="first")
    task = TaskRequest("h", "t", 1, "chat", MODEL, BODY, True, resume="text")
    await asyncio.sleep(0)
    with pytest.raises(errors.Refused, match="different weights"):
        await anext(engine.run(task))
    await engine.close()


async def test_a_child_in_which_a_service_stands_before_tasks_does_not_go_on(forest: Forest) -> None:
    """It might answer, from the beginning."""

    class Watcher(Service):
        name = "watcher"

        async def before(self, task_id: str, submission: Submission) -> Delta | None:
            return None

        async def start(self, context: object) -> None:
            """Does nothing."""

        async def close(self) -> None:
            """Does nothing."""

    await forest.root()
    child = await forest.child("first", Paced(0))
    assert child.resumable_models() == {MODEL: ""}
    child.services.add(Watcher(Watcher.Config()), (Offer("of-the-service"),))
    assert child.resumable_models() == {}

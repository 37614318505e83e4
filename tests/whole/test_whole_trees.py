"""Rerank, tokens, sound and images in trees of orchestrators: a task goes where its kind is done."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.caller import Caller
from anywire.messages import Kind
from anywire.roles.fleet import fleet_agent
from anywire.submission import Submission
from anywire.testing.rig import Rig

RANKS: dict[str, Any] = {"query": "the cat", "documents": ["dogs bark", "the cat sat"]}


def engine(*kinds: Kind) -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], kinds=list(kinds)))


async def test_a_parent_asks_the_child_that_does_a_kind() -> None:
    async with AsyncExitStack() as stack:
        top, left, right = [
            await stack.enter_async_context(Rig("memory", {"network": f"kinds/{name}"})) for name in "tlr"
        ]
        children = []
        for below, name, kinds in ((left, "talks", ("chat",)), (right, "ranks", ("chat", "rerank"))):
            await below.agent(name, engine=engine(*kinds))
            child = await below.pipeline(name)
            agent = fleet_agent(child, [top.new_transport()], "agent")
            await agent.start()
            stack.push_async_callback(agent.close)
            children.append(child)
        root = await top.pipeline(*(each.info.hub_id for each in children))
        offered = {offer.kinds for _, offer in root.registry.serving.offers()}
        assert offered == {("chat",), ("chat", "rerank")}
        for _ in range(4):  # whoever is less busy
            task = Submission("rerank", "m", json.dumps({"model": "m", **RANKS}), caller=Caller("c"))
            answer = json.loads((await root.submit(task).result()).extra)
            assert [each["index"] for each in answer["results"]] == [1, 0]


async def test_a_client_asks_the_orchestrator_that_does_a_kind() -> None:
    async with AsyncExitStack() as stack:
        clients, left, right = [
            await stack.enter_async_context(Rig("memory", {"network": f"clients/{name}"})) for name in "clr"
        ]
        for below, name, kinds in ((left, "talks", ("chat",)), (right, "ranks", ("chat", "rerank"))):
            await below.agent(name, engine=engine(*kinds))
            agent = fleet_agent(await below.pipeline(name), [clients.new_transport()], "client")
            await agent.start()
            stack.push_async_callback(agent.close)
        client = await clients.client()
        await client.hub.agents_until(lambda agents: sum(each.status.state == "ready" for each in agents) == 2)
        for _ in range(4):
            answer = await client.ask("rerank", model="m", **RANKS)
            assert [each["index"] for each in answer["results"]] == [1, 0]

"""Processes that are killed."""

from __future__ import annotations

import pytest

from anywire import errors
from anywire.testing.doubles import Script
from anywire.testing.kit.answers import following
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, read, submit


class DeathTests:
    async def test_agent_crashed_mid_stream_is_noticed(self, rig: Rig) -> None:
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="c", chunks=10, hold_after=5))
        await following(stream)
        await agent.event("holding", "c")
        await agent.crash()
        with pytest.raises(errors.AgentLost, match="a was lost"):
            await read(stream)
        await rig.seen(pipeline, absent=["a"])

    async def test_tasks_of_a_crashed_agent_without_a_token_are_answered_by_another(self, rig: Rig) -> None:
        first = await rig.peer("agent", "first")
        await first.event("ready")
        pipeline = await rig.pipeline("first")
        # On the first agent each holds before its first token; the second is told by nothing but the attempt.
        streams = [submit(pipeline, Script(tag=f"t{number}", hold_after=0)) for number in range(4)]
        for number in range(4):
            await first.event("holding", f"t{number}")
        _, engine = await rig.agent("second")
        await rig.seen(pipeline, "second")
        await first.crash()
        for number in range(4):
            await engine.event("started", f"t{number}", 2)
        assert len(engine.named("started")) == 4
        for stream in streams:
            stream.cancel("seen enough")

    async def test_crashed_hub_is_noticed_and_its_tasks_end(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        hub = await rig.peer("hub", "h", script=Script(tag="orphan", chunks=10, hold_after=1))
        await engine.event("holding", "orphan")
        await hub.crash()
        await engine.event("cancelled", "orphan")
        pipeline = await rig.pipeline("a")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

    async def test_restarted_agent_serves_again(self, rig: Rig) -> None:
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        pipeline = await rig.pipeline("a")
        old = pipeline.agents()[0].info.incarnation
        await agent.crash()
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        renewed = pipeline.agents_until(lambda views: [view.info.incarnation for view in views] not in ([], [old]))
        await expect(renewed, "the agent is known with its new incarnation")
        await rig.seen(pipeline, "a")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

    async def test_paused_agent_is_lost_and_comes_back(self, rig: Rig) -> None:
        if not rig.transport_class.capabilities.inter_process:
            pytest.skip("an agent in this process cannot be paused")
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="p", chunks=10, hold_after=5))
        await agent.event("holding", "p")
        await following(stream)  # a token has arrived: the task cannot be answered by another attempt
        agent.pause()
        await rig.seen(pipeline, absent=["a"])
        with pytest.raises(errors.AgentLost):
            await read(stream)
        agent.resume()
        await rig.seen(pipeline, "a")
        await agent.event("cancelled", "p")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

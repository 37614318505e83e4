"""Wires that break and brokers that go: tests that need the fixture ``break_wire`` or ``companions``."""

from __future__ import annotations

from typing import Any

import pytest

from anywire import errors
from anywire.testing.kit.answers import echo
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, request


def needs_companions(companions: Any) -> None:
    if companions is None:
        pytest.skip("this transport needs no process beside the ends (no fixture 'companions')")


class WireTests:
    async def test_broken_wire_is_lost_at_both_ends_and_joins_again(self, rig: Rig, break_wire: Any) -> None:
        if break_wire is None:
            pytest.skip("the wire cannot be broken here (no fixture 'break_wire')")
        _, agent, agent_info = await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        for number in range(2, 4):
            await expect(break_wire(), "the fixture break_wire broke the wire")
            await self._back(hub, sink, info, agent, agent_info, number)

    async def test_absent_broker_is_named_at_opening(self, rig: Rig, companions: Any) -> None:
        needs_companions(companions)
        await expect(companions.stop(), "the broker ended")
        for opening in (rig.hub, lambda: rig.port("a")):
            with pytest.raises(errors.TransportUnavailable):
                await opening()

    async def test_broker_that_goes_and_comes_back(self, rig: Rig, companions: Any) -> None:
        needs_companions(companions)
        _, agent, agent_info = await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        await expect(companions.stop(), "the broker ended")
        await sink.event("lost", "a", agent_info.incarnation)
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        with pytest.raises(errors.AgentUnavailable):
            hub.send("a", request(info, "meanwhile"))
        await expect(companions.restart(), "the broker runs again")
        await self._back(hub, sink, info, agent, agent_info, 2)
        assert not [event for event in agent.named("task") if event[1] == "meanwhile"]

    async def _back(self, hub: Any, sink: Any, info: Any, agent: Any, agent_info: Any, times: int) -> None:
        """Both ends have reported the loss and joined for the time given, and the link works."""
        joined = ("joined", "a", agent_info.incarnation)
        hub_joined = ("hub_joined", info.hub_id, info.incarnation)
        for recorder, event, lost in ((sink, joined, "lost"), (agent, hub_joined, "hub_lost")):
            await recorder.until(
                lambda recorder=recorder, lost=lost: len(recorder.named(lost)) >= times - 1,
                f"{lost} for the broken link",
            )
            await recorder.until(
                lambda recorder=recorder, event=event: len([e for e in recorder.events if e[:3] == event]) >= times,
                f"{event[0]} again, with the same incarnation",
            )
        hub.send("a", request(info, f"back{times}", body="x"))
        await sink.final(f"back{times}")

"""Wires that break and brokers that go: tests that need the fixture ``break_wire`` or ``companions``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from anywire import errors
from anywire.testing.kit.answers import echo
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, request


def needs_companions(companions: Any) -> None:
    if companions is None:
        pytest.skip("this transport needs no process beside the ends (no fixture 'companions')")


def _places(options: Mapping[str, Any]) -> list[str]:
    """The ports and addresses that the options name, as they are found in a sentence."""
    ports = [str(value) for name, value in options.items() if isinstance(value, int) and "port" in name]
    texts = [value for value in options.values() if isinstance(value, str)]
    return ports + [port for text in texts for port in re.findall(r":(\d+)\b", text)]


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
            with pytest.raises(errors.TransportUnavailable) as caught:
                await opening()
            places = _places(rig.options)
            assert not places or any(place in str(caught.value) for place in places), (
                f"TransportUnavailable does not say where the broker was looked for, {places}: {caught.value}"
            )

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
        self._names_the_broker(rig, sink, agent)

    async def test_what_was_under_way_when_the_broker_went_is_dropped(self, rig: Rig, companions: Any) -> None:
        needs_companions(companions)
        _, agent, agent_info = await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        hub.send("a", request(info, "under way", body="x" * 2_000_000))
        await expect(companions.stop(), "the broker ended")
        await sink.event("lost", "a", agent_info.incarnation)
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        await expect(companions.restart(), "the broker runs again")
        await self._back(hub, sink, info, agent, agent_info, 2)
        lost = next(at for at, event in enumerate(agent.events) if event[0] == "hub_lost")
        late = [event for event in agent.events[lost:] if event[:2] == ("task", "under way")]
        assert not late, "a task that was sent before the broker went came after the link was lost"
        self._names_the_broker(rig, sink, agent)

    async def test_closing_while_the_broker_is_gone_returns(self, rig: Rig, companions: Any) -> None:
        needs_companions(companions)
        port, agent, agent_info = await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        await expect(companions.stop(), "the broker ended")
        await sink.event("lost", "a", agent_info.incarnation)
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        await expect(hub.close(), "a hub's close returned without the broker")
        await expect(port.close(), "an agent's close returned without the broker")

    def _names_the_broker(self, rig: Rig, sink: Any, agent: Any) -> None:
        """Judged where the options say where the broker is."""
        places = _places(rig.options)
        for event in (*sink.named("lost"), *agent.named("hub_lost")) if places else ():
            reason = event[3]
            assert "broker" in reason or any(place in reason for place in places), (
                f"the reason of a loss does not name the broker that went: {reason}"
            )

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

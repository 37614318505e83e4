"""Processes that are paused, and event loops that are blocked: what a lease must notice and what it must not.

Times are said in leases. They are judged only where a timer in this process was punctual meanwhile: a machine that
does not let this process run says nothing about a transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from anywire.messages import Chunk
from anywire.testing.patience import FACTOR, expect
from anywire.testing.recorder import Recorder
from anywire.testing.rig import Rig, request

LEASE = 0.6
"""Seconds."""
SLACK = 0.4
"""Leases by which a judgement may be off, with a timer that is late by less than half of it."""


class Control:
    """A timer beside what is measured: ``punctual`` while it was never late by much."""

    def __init__(self) -> None:
        self._late = 0.0
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            self._late = max(self._late, loop.time() - due)

    def stop(self) -> bool:
        """Whether times measured since the start may be judged."""
        self._ticking.cancel()
        return self._late < SLACK * LEASE / 2


async def leases_until(recorder: Recorder, *event: Any) -> tuple[float, bool]:
    """How many leases from now until this event is new, and whether that may be judged."""
    loop, control, known = asyncio.get_running_loop(), Control(), len(recorder.events)

    def found() -> bool:
        return any(each[: len(event)] == event for each in recorder.events[known:])

    begin = loop.time()
    await recorder.until(found, f"event {event} comes (again)")
    return (loop.time() - begin) / LEASE, control.stop()


def needs(rig: Rig, liveliness: str) -> None:
    capabilities = rig.transport_class.capabilities
    if not capabilities.inter_process:
        pytest.skip("an end in this process cannot be paused")
    if capabilities.liveliness != liveliness:
        pytest.skip(f"liveliness of this transport is {capabilities.liveliness}")


class PauseTests:
    async def test_paused_agent_is_lost_within_two_leases_and_not_before_one(self, rig: Rig) -> None:
        needs(rig, "native")
        paused = await rig.peer("bare_agent", "a", lease=LEASE)
        hub, sink, info = await rig.hub(lease=60.0)
        _, _, incarnation, _ = await sink.event("joined", "a")
        await sink.event("reported", "a")
        await paused.event("hub_joined")
        paused.pause()
        leases, fair = await leases_until(sink, "lost", "a", incarnation)
        assert not fair or leases > 1 - SLACK, f"lost after {leases:.1f} leases of silence, before one lease"
        assert not fair or leases < (2 + SLACK) * FACTOR, f"lost after {leases:.1f} leases of silence, more than two"
        paused.resume()
        await leases_until(sink, "joined", "a", incarnation)
        await paused.until(lambda: len(paused.named("hub_joined")) == 2, "the agent is told that the hub joined again")
        told = [event[0] for event in paused.events if event[0].startswith("hub_")]
        assert told == ["hub_joined", "hub_lost", "hub_joined"], f"a resumed agent was told {told}"
        hub.send("a", request(info, "after", body="x"))
        await sink.final("after")

    @pytest.mark.parametrize("leases", [1.3, 3.0])
    async def test_paused_hub_of_native_liveliness_is_lost_and_comes_back(self, rig: Rig, leases: float) -> None:
        needs(rig, "native")
        _, agent, info = await rig.port("a", lease=60.0)
        hub = await rig.peer("bare_hub", "h", lease=LEASE)
        await hub.event("joined", "a", info.incarnation)
        await agent.event("hub_joined", "h")
        hub.pause()
        if leases > 2:
            lost, fair = await leases_until(agent, "hub_lost", "h")
            assert not fair or lost > 1 - SLACK, f"hub_lost after {lost:.1f} leases of silence, before one lease"
            assert not fair or lost < (2 + SLACK) * FACTOR, f"hub_lost after {lost:.1f} leases, more than two"
        else:
            await asyncio.sleep(leases * LEASE)
        hub.resume()
        if leases > 2:
            control = Control()
            begin = asyncio.get_running_loop().time()
            await agent.until(lambda: len(agent.named("hub_joined")) == 2, "hub_joined again after the hub goes on")
            await hub.until(
                lambda: len(hub.named("joined")) == 2, "the hub that goes on is told that its agent is back"
            )
            took = (asyncio.get_running_loop().time() - begin) / LEASE
            if control.stop():
                assert took < (1 + SLACK) * FACTOR, f"the agent was back {took:.1f} leases after the hub went on"
        await self._answered(hub, agent)

    @pytest.mark.parametrize("leases", [1.3, 3.0])
    async def test_paused_hub_of_connection_liveliness_loses_nothing(self, rig: Rig, leases: float) -> None:
        needs(rig, "connection")
        _, agent, info = await rig.port("a", lease=LEASE)
        hub = await rig.peer("bare_hub", "h", lease=LEASE)
        await hub.event("joined", "a", info.incarnation)
        hub.order("send", "a", "held", 1)
        reply = (await agent.event("task", "held"))[4]
        reply.send(Chunk("h", "held", 1, 0, ("before",)))
        hub.pause()
        reply.send(Chunk("h", "held", 1, 1, ("meanwhile",)))
        await asyncio.sleep(leases * LEASE)
        hub.resume()
        reply.send(Chunk("h", "held", 1, 2, ("after",), final=True))
        await hub.event("chunk", "held", 1, 2)
        await self._answered(hub, agent)
        assert not agent.named("hub_lost"), "a paused hub whose connection stands was reported lost"
        assert not hub.named("lost"), "a hub that was paused took its own silence for that of its agent"

    async def test_a_blocked_loop_is_no_silence_of_its_peers(self, rig: Rig) -> None:
        if not rig.transport_class.capabilities.inter_process:
            pytest.skip("all ends of this transport are blocked together")
        peer = await rig.peer("bare_agent", "a", lease=LEASE)
        await peer.event("ready")
        # The agent may not lose this hub, which says nothing meanwhile: its own lease is long.
        hub, sink, info = await rig.hub(lease=60.0)
        await sink.event("joined", "a")
        hub.send("a", request(info, "before", body="x"))
        await sink.final("before")
        time.sleep(2.5 * LEASE)  # noqa: ASYNC251 - blocking the loop is what is tested
        await asyncio.sleep(0.5 * LEASE)
        assert not sink.named("lost"), "the agent was reported lost because this process itself did not run"
        hub.send("a", request(info, "after", body="x"))
        await sink.final("after")

    async def _answered(self, hub: Any, agent: Any) -> None:
        """A task of this hub reaches the agent, and its answer the hub; the link may be lost once more before."""

        def answered() -> bool:
            return bool(hub.named("chunk")) and hub.named("chunk")[-1][1].startswith("again")

        def answer(number: int) -> None:
            for _, task_id, attempt, _, reply, *_ in agent.named("task"):
                if task_id == f"again{number}":
                    reply.send(Chunk("h", task_id, attempt, 0, ("x",), final=True))

        number = 0

        async def ask() -> None:
            nonlocal number
            while not answered():
                number += 1
                hub.order("send", "a", f"again{number}", 1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LEASE):
                        await agent.event("task", f"again{number}")
                        answer(number)
                        await hub.until(answered)

        await expect(ask(), "a task is answered after the pause", seen=hub.tail)

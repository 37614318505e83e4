"""Back-pressure: a peer that does not read congests its own link, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from anywire import errors
from anywire.messages import MAX_COMMAND_BYTES, AgentInfo, Cancel, Chunk, Command, CommandResult, Credit
from anywire.testing.kit.answers import MEGABYTE, echo, status
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, request

BOUNDS = {"buffer_bytes": MEGABYTE, "max_message_bytes": 4 * MEGABYTE}
LARGE = 4 * MEGABYTE
SMALL = 128 * 1024
MOST = 64 * MEGABYTE
"""What the buffers of a kernel or a library may hold besides, by far; over it nothing is bounded."""


def flood(send: Callable[[int], None], where: str, first: int = 0, size: int = SMALL) -> int:
    """Send messages of ``size`` bytes until they are congested; how many were accepted since number 0."""
    for number in range(first, MOST // size):
        try:
            send(number)
        except errors.Congested:
            return number
    raise AssertionError(
        f"{where} never raised Congested: {MOST} bytes were accepted for a peer that does not read, "
        f"buffer_bytes is {BOUNDS['buffer_bytes']}"
    )


async def fill(
    send: Callable[[int], None],
    drain: Callable[[], Awaitable[None]],
    meanwhile: Callable[[int], Awaitable[object]],
    where: str,
    size: int = SMALL,
) -> tuple[int, asyncio.Task[None]]:
    """Flood a peer that does not read until ``drain`` waits, though others' messages go on (``meanwhile``): the buffers
    of a kernel or a library may take more than once. How many were accepted, and the drain that waits."""

    async def wait() -> None:
        await drain()

    sent = 0
    while True:
        sent = flood(send, where, sent, size)
        draining = asyncio.create_task(wait())
        for turn in range(3):
            await meanwhile(3 * sent + turn)
        if not draining.done():
            return sent, draining


def needs_processes(rig: Rig) -> None:
    if not rig.transport_class.capabilities.inter_process:
        pytest.skip("this transport stays in one process, which cannot be paused")


class PressureTests:
    async def test_the_first_task_of_a_link_has_room_as_its_agent_joins(self, rig: Rig) -> None:
        hub, sink, info = await rig.hub(options=BOUNDS)
        told, congested = sink.agent_joined, list[errors.Congested]()

        def send_at_once(agent: AgentInfo) -> None:
            told(agent)
            try:
                hub.send(agent.agent_id, request(info, "first", body="x" * (LARGE - 1000)))
            except errors.Congested as error:
                congested.append(error)

        sink.agent_joined = send_at_once  # type: ignore[method-assign, assignment]
        _, agent, _ = await rig.port("a", options=BOUNDS)
        await sink.event("joined", "a")
        assert not congested, f"the first task of a link found no room: {congested[0]}"
        await agent.event("task", "first")

    async def test_a_paused_agent_congests_its_link_and_no_other(self, rig: Rig) -> None:
        needs_processes(rig)
        paused = await rig.peer("bare_agent", "paused", lease=60.0, options=BOUNDS)
        await rig.port("other", echo, options=BOUNDS)
        hub, sink, info = await rig.hub(options=BOUNDS, lease=60.0)
        await sink.event("reported", "paused")  # joined, and nothing of that is under way
        await sink.event("joined", "other")
        paused.pause()

        def send(number: int) -> None:
            hub.send("paused", request(info, f"p{number}", body="x" * SMALL))

        async def other_is_answered(number: int) -> None:
            hub.send("other", request(info, f"o{number}", body="x" * SMALL))
            await sink.event("chunk", f"o{number}")

        sent, draining = await fill(send, partial(hub.drain, "paused"), other_is_answered, "Hub.send")
        # Small messages are never congested.
        hub.send("paused", Credit(info.hub_id, "p0", 1, 1))
        hub.send("paused", Cancel(info.hub_id, "p0", 1))
        assert not draining.done()
        paused.resume()
        await expect(draining, "drain returned after its peer reads again")
        hub.send("paused", request(info, "large", body="x" * LARGE))
        await paused.event("task", "large", 1, LARGE)
        assert [event[1] for event in paused.named("task")] == [f"p{number}" for number in range(sent)] + ["large"]

    async def test_drain_returns_when_the_agent_is_lost(self, rig: Rig) -> None:
        needs_processes(rig)
        paused = await rig.peer("bare_agent", "paused", lease=1.0, options=BOUNDS)
        hub, sink, info = await rig.hub(options=BOUNDS)
        await sink.event("reported", "paused")  # joined, and nothing of that is under way
        paused.pause()
        flood(lambda number: hub.send("paused", request(info, f"p{number}", body="x" * SMALL)), "Hub.send")
        draining = asyncio.create_task(hub.drain("paused"))
        await paused.crash()
        await expect(draining, "drain returned after its agent was lost")
        await sink.event("lost", "paused")
        with pytest.raises(errors.AgentUnavailable):
            hub.send("paused", request(info, "late"))

    async def test_a_paused_hub_congests_the_replies_to_it_and_no_other(self, rig: Rig) -> None:
        needs_processes(rig)
        port, agent, agent_info = await rig.port("a", options=BOUNDS, lease=60.0)
        paused = await rig.peer("bare_hub", "paused", lease=60.0, options=BOUNDS)
        other, other_sink, other_info = await rig.hub(options=BOUNDS)
        await paused.event("joined", "a")
        await other_sink.event("joined", "a")
        paused.order("send", "a", "slow", 1)
        other.send("a", request(other_info, "quick"))
        slow, quick = (await agent.event("task", "slow"))[4], (await agent.event("task", "quick"))[4]
        paused.pause()

        def chunk(number: int, size: int, **more: Any) -> Chunk:
            return Chunk("paused", "slow", 1, number, ("x" * size,), **more)

        async def other_is_answered(number: int) -> None:
            known = len(other_sink.chunks("quick"))
            quick.send(Chunk(other_info.hub_id, "quick", 1, known, ("x" * SMALL,)))
            await other_sink.until(lambda: len(other_sink.chunks("quick")) > known, "a chunk for the hub that reads")

        sent, draining = await fill(
            lambda number: slow.send(chunk(number, SMALL)), slow.drain, other_is_answered, "Reply.send"
        )
        for number in range(50):
            port.report(status("a", agent_info.incarnation, f"{number}"))
        paused.resume()
        await expect(draining, "drain returned after its hub reads again")
        slow.send(chunk(sent, LARGE, final=True))
        await paused.event("chunk", "slow", 1, sent, LARGE, True)
        assert [event[3] for event in paused.named("chunk")] == list(range(sent + 1))
        await paused.event("reported", "a", agent_info.incarnation, "ready", "49")

    async def test_reply_drain_returns_when_the_hub_is_lost(self, rig: Rig) -> None:
        needs_processes(rig)
        _, agent, _ = await rig.port("a", options=BOUNDS)
        paused = await rig.peer("bare_hub", "paused", lease=1.0, options=BOUNDS)
        await paused.event("joined", "a")
        paused.order("send", "a", "t", 1)
        reply = (await agent.event("task", "t"))[4]
        paused.pause()
        flood(lambda number: reply.send(Chunk("paused", "t", 1, number, ("x" * SMALL,))), "Reply.send")
        draining = asyncio.create_task(reply.drain())
        await paused.crash()
        await expect(draining, "drain returned after its hub was lost")
        await agent.event("hub_lost", "paused")
        reply.send(Chunk("paused", "t", 1, 0, ("late",), final=True))

    async def test_a_paused_agent_congests_the_commands_to_it(self, rig: Rig) -> None:
        needs_processes(rig)
        paused = await rig.peer("bare_agent", "paused", lease=60.0, options=BOUNDS)
        await rig.port("other", echo, options=BOUNDS)
        hub, sink, info = await rig.hub(options=BOUNDS, lease=60.0)
        await sink.event("reported", "paused")  # joined, and nothing of that is under way
        await sink.event("joined", "other")
        paused.pause()

        def send(number: int) -> None:
            hub.send("paused", Command(info.hub_id, f"c{number}", "load", "x" * MAX_COMMAND_BYTES))

        async def other_is_answered(number: int) -> None:
            hub.send("other", request(info, f"o{number}"))
            await sink.event("chunk", f"o{number}")

        sent, draining = await fill(
            send, partial(hub.drain, "paused"), other_is_answered, "Hub.send of a Command", MAX_COMMAND_BYTES
        )
        hub.send("paused", Credit(info.hub_id, "c0", 0, 1))
        hub.send("paused", Cancel(info.hub_id, "c0", 0))
        assert not draining.done()
        paused.resume()
        await expect(draining, "drain returned after its peer reads again")
        for number in range(sent):
            await sink.final_result(f"c{number}")
        await paused.event("cancel", "c0", 0)

    async def test_a_paused_hub_congests_the_results_to_it(self, rig: Rig) -> None:
        needs_processes(rig)
        _, agent, _ = await rig.port("a", options=BOUNDS, lease=60.0)
        paused = await rig.peer("bare_hub", "paused", lease=60.0, options=BOUNDS)
        other, other_sink, other_info = await rig.hub(options=BOUNDS)
        await paused.event("joined", "a")
        await other_sink.event("joined", "a")
        paused.order("command", "a", "slow", "hold")
        other.send("a", request(other_info, "quick"))
        slow, quick = (await agent.event("command", "slow"))[4], (await agent.event("task", "quick"))[4]
        paused.pause()

        async def other_is_answered(number: int) -> None:
            known = len(other_sink.chunks("quick"))
            quick.send(Chunk(other_info.hub_id, "quick", 1, known, ("x",)))
            await other_sink.until(lambda: len(other_sink.chunks("quick")) > known, "a chunk for the hub that reads")

        sent, draining = await fill(
            lambda number: slow.send(CommandResult("paused", "slow", number, "x" * MAX_COMMAND_BYTES)),
            slow.drain,
            other_is_answered,
            "Reply.send of a CommandResult",
            MAX_COMMAND_BYTES,
        )
        paused.resume()
        await expect(draining, "drain returned after its hub reads again")
        slow.send(CommandResult("paused", "slow", sent, "", True))
        await paused.event("result", "slow", sent, 0, True)
        assert [event[2] for event in paused.named("result")] == list(range(sent + 1))

    async def test_commands_and_results_that_are_not_read_yet_congest(self, rig: Rig) -> None:
        if rig.transport_class.capabilities.inter_process:
            pytest.skip("tested with a process that is paused")
        _, agent, _ = await rig.port("a", options=BOUNDS)
        hub, sink, info = await rig.hub(options=BOUNDS)
        await sink.event("joined", "a")
        text = "x" * MAX_COMMAND_BYTES
        sent = flood(
            lambda number: hub.send("a", Command(info.hub_id, f"c{number}", "load", text)),
            "Hub.send of a Command",
            size=MAX_COMMAND_BYTES,
        )
        hub.send("a", Cancel(info.hub_id, "c0", 0))
        await expect(hub.drain("a"), "drain returned after its peer has read")
        hub.send("a", Command(info.hub_id, "last", "load"))
        reply = (await agent.event("command", "last"))[4]
        assert len(agent.named("command")) == sent + 1
        sent = flood(
            lambda number: reply.send(CommandResult(info.hub_id, "last", number, text)),
            "Reply.send of a CommandResult",
            size=MAX_COMMAND_BYTES,
        )
        await expect(reply.drain(), "drain returned after its hub has read")
        reply.send(CommandResult(info.hub_id, "last", sent, "", True))
        await sink.final_result("last")
        assert len(sink.results("last")) == sent + 1

    async def test_an_agent_that_has_not_read_yet_congests(self, rig: Rig) -> None:
        """Where no process can be paused: nothing is read while this one only sends."""
        if rig.transport_class.capabilities.inter_process:
            pytest.skip("tested with a process that is paused")
        _, agent, _ = await rig.port("a", options=BOUNDS)
        hub, sink, info = await rig.hub(options=BOUNDS)
        await sink.event("joined", "a")
        sent = flood(lambda number: hub.send("a", request(info, f"p{number}", body="x" * SMALL)), "Hub.send")
        hub.send("a", Credit(info.hub_id, "p0", 1, 1))
        draining = asyncio.create_task(hub.drain("a"))
        await expect(draining, "drain returned after its peer has read")
        hub.send("a", request(info, "large", body="x" * LARGE))
        reply = (await agent.event("task", "large"))[4]
        assert len(agent.named("task")) == sent + 1
        sent = flood(lambda number: reply.send(Chunk(info.hub_id, "large", 1, number, ("x" * SMALL,))), "Reply.send")
        await expect(reply.drain(), "drain returned after its hub has read")
        reply.send(Chunk(info.hub_id, "large", 1, sent, ("x" * LARGE,), final=True))
        await sink.final("large")
        assert len(sink.chunks("large")) == sent + 1

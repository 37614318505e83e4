"""Messages arrive as they were sent: content, order and size."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from anywire import errors
from anywire.messages import Cancel, Chunk, Credit, Kind, TaskRequest
from anywire.testing.kit.answers import MEGABYTE, answer_each, echo, status
from anywire.testing.patience import FACTOR, expect
from anywire.testing.rig import Rig, request
from anywire.transport import Reply


class MessageTests:
    async def test_task_arrives_as_sent_and_chunk_as_answered(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        sent = TaskRequest(
            info.hub_id,
            "t1",
            3,
            "embedding",
            "m/x:1",
            '{"a": "ü\\n€😀"}',
            True,
            "so far",
            -2,
            12345,
            7,
            2,
            "00-ab-cd-01",
        )
        hub.send("a", sent)
        _, _, _, received, reply, *_ = await agent.event("task", "t1")
        assert received == sent
        chunk = Chunk(
            info.hub_id, "t1", 3, 5, ("a", "", "ü€😀"), '[{"index":1}]', True, "length", '{"u":1}', "e", 1, 2, 2**62, 4
        )
        reply.send(chunk)
        assert await sink.final("t1") == chunk

    async def test_every_kind_of_task_arrives(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for kind in get_args(Kind):
            hub.send("a", msgspec.structs.replace(request(info, kind), kind=kind))
            assert (await agent.event("task", kind))[3].kind == kind

    async def test_control_messages_arrive(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Cancel(info.hub_id, "t1", 2, "because"))
        hub.send("a", Credit(info.hub_id, "t2", 1, 17))
        assert (await agent.event("cancel", "t1"))[3] == Cancel(info.hub_id, "t1", 2, "because")
        assert (await agent.event("credit", "t2"))[3] == Credit(info.hub_id, "t2", 1, 17)

    async def test_chunks_keep_their_order(self, rig: Rig) -> None:
        await rig.port("a", answer_each(500))
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t1"))
        await sink.final("t1")
        chunks = sink.chunks("t1")
        assert [chunk.seq for chunk in chunks] == list(range(501))
        assert [chunk.deltas for chunk in chunks[:-1]] == [(f"t1:{number}",) for number in range(500)]

    @pytest.mark.parametrize("size", [0, 1, MEGABYTE], ids=["empty", "one", "1MB"])
    async def test_payload_survives(self, rig: Rig, size: int) -> None:
        await rig.port("a", echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        body = ("äb" * size)[:size]
        hub.send("a", request(info, "t1", body=body))
        assert (await sink.final("t1")).deltas == (body,)

    async def test_largest_payload_of_the_default_travels_both_ways(self, rig: Rig) -> None:
        limit = rig.transport_class.capabilities.max_message_bytes
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        body = "x" * limit
        await expect(hub.drain("a"), "drain returned, nothing was sent yet")
        hub.send("a", request(info, "t1", body=body))
        _, _, _, task, reply, *_ = await agent.event("task", "t1")
        # Compared as a flag: a failure must not print the payload.
        assert (task.body == body) is True, "the largest body arrived changed"
        await expect(reply.drain(), "drain returned, nothing was sent yet")
        reply.send(Chunk(info.hub_id, "t1", 1, 0, (body,), final=True))
        assert ((await sink.final("t1")).deltas == (body,)) is True, "the largest answer arrived changed"

    async def test_payload_over_the_limit_is_refused_with_the_limit_in_the_message(self, rig: Rig) -> None:
        limit = 100_000
        options = {"max_message_bytes": limit}
        _, agent, _ = await rig.port("a", options=options)
        hub, sink, info = await rig.hub(options=options)
        await sink.event("joined", "a")
        for body in ("x" * (limit + 1), "ü" * (limit // 2 + 1)):
            with pytest.raises(errors.PayloadTooLarge, match=str(limit)):
                hub.send("a", request(info, "t1", body=body))
        hub.send("a", request(info, "t2", body="ü" * (limit // 2)))
        reply = (await agent.event("task", "t2"))[4]
        for chunk in (
            Chunk(info.hub_id, "t2", 1, 0, ("x" * limit, "x")),
            Chunk(info.hub_id, "t2", 1, 0, (), "x" * 100_001),
        ):
            with pytest.raises(errors.PayloadTooLarge, match=str(limit)):
                reply.send(chunk)
        # Of legal size, though each of its texts adds to the encoding.
        deltas = ("x",) * (limit - 1) + ('"',)
        reply.send(Chunk(info.hub_id, "t2", 1, 0, deltas, final=True))
        assert ((await sink.final("t2")).deltas == deltas) is True

    async def test_none_of_many_tasks_or_credits_is_lost(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for number in range(200):
            hub.send("a", request(info, f"t{number}"))
            hub.send("a", Credit(info.hub_id, f"t{number}", 1, number + 1))

        def missing(kind: str) -> list[int]:
            came = {event[1] for event in agent.named(kind)}
            return [number for number in range(200) if f"t{number}" not in came]

        try:
            await agent.until(lambda: not missing("task") + missing("credit"), "each of 200 arrives", 4.0 * FACTOR)
        except AssertionError as error:
            lost = {kind: numbers for kind in ("task", "credit") if (numbers := missing(kind))}
            raise AssertionError(f"accepted by send and never delivered, of 200 each: {lost}; {error}") from None
        assert [event[3].chunks for event in agent.named("credit")] == list(range(1, 201))

    async def test_cancel_names_the_attempt_it_was_sent_with(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for attempt in (1, 2, 3):
            hub.send("a", request(info, "t", attempt=attempt))
        for attempt in (3, 1):
            hub.send("a", Cancel(info.hub_id, "t", attempt))
        await agent.event("cancel", "t", 1)
        cancelled = [event[2] for event in agent.named("cancel")]
        assert cancelled == [3, 1], f"a cancel names another attempt than it was sent with: {cancelled}"
        assert [event[2] for event in agent.named("task")] == [1, 2, 3]

    async def test_an_acceptance_notice_is_carried_like_any_chunk(self, rig: Rig) -> None:
        def accept(task: TaskRequest, reply: Reply) -> None:
            reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0))

        await rig.port("a", accept)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t1"))
        await sink.event("chunk", "t1")
        assert sink.chunks("t1") == [Chunk(info.hub_id, "t1", 1, 0)]

    async def test_text_that_is_no_unicode_is_a_transport_error_and_breaks_nothing(self, rig: Rig) -> None:
        if not rig.transport_class.capabilities.inter_process:
            pytest.skip("a transport inside one process encodes nothing")
        port, agent, agent_info = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        with pytest.raises(errors.TransportError):
            hub.send("a", request(info, "t1", body="\ud800"))
        hub.send("a", request(info, "t2"))
        reply = (await agent.event("task", "t2"))[4]
        with pytest.raises(errors.TransportError):
            reply.send(Chunk(info.hub_id, "t2", 1, 0, ("\ud800",)))
        port.report(status("a", agent_info.incarnation, "\ud800"))
        port.report(status("a", agent_info.incarnation, "readable"))
        await sink.detail("a", "readable")
        reply.send(Chunk(info.hub_id, "t2", 1, 0, ("fine",), final=True))
        assert (await sink.final("t2")).deltas == ("fine",)

"""The conformance kit for transports: what every one must hold, as tests.

Each test works through the public contract: bare ends (`anywire.transport`) where the wire itself is meant, the whole
pipeline where a user would notice. Nothing here measures speed; waits are for events, with a patience
that only a broken transport uses up.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from anywire import errors
from anywire.messages import Cancel, Chunk, Credit, Drain, TaskRequest
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.rig import Rig, read, request, submit
from anywire.transport import Reply

MEGABYTE = 1024 * 1024


def answer_each(count: int, text: str = "{task}:{number}") -> Any:
    """A bare agent that answers every task with ``count`` chunks and a final one."""

    def on_task(task: TaskRequest, reply: Reply) -> None:
        for number in range(count):
            delta = text.format(task=task.task_id, number=number)
            reply.send(Chunk(task.hub_id, task.task_id, task.attempt, number, (delta,)))
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, count, final=True, finish_reason="stop"))

    return on_task


def echo(task: TaskRequest, reply: Reply) -> None:
    """A bare agent that gives back the body it got."""
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True, finish_reason="stop"))


@pytest.mark.asyncio
class TransportConformance:
    """Subclass it and name the transport; override ``options`` for the settings tests should run with."""

    transport: str
    plugins: tuple[str, ...] = ()
    """Files or modules to load as plugins first, for a transport that is not installed."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """The transport's options: an address or domain that belongs to this test run alone."""
        return {}

    @pytest_asyncio.fixture
    async def rig(self, options: dict[str, Any]) -> AsyncIterator[Rig]:
        async with Rig(self.transport, options, self.plugins) as rig:
            yield rig

    # Messages

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
        _, _, _, received, reply = await agent.event("task", "t1")
        assert received == sent
        chunk = Chunk(
            info.hub_id, "t1", 3, 5, ("a", "", "ü€😀"), '[{"index":1}]', True, "length", '{"u":1}', "e", 1, 2, 2**62, 4
        )
        reply.send(chunk)
        assert await sink.final("t1") == chunk

    async def test_control_messages_arrive(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Cancel(info.hub_id, "t1", 2, "because"))
        hub.send("a", Credit(info.hub_id, "t2", 1, 17))
        hub.send("a", Drain(info.hub_id, "maintenance"))
        assert (await agent.event("cancel", "t1"))[3] == Cancel(info.hub_id, "t1", 2, "because")
        assert (await agent.event("credit", "t2"))[3] == Credit(info.hub_id, "t2", 1, 17)
        assert await agent.event("drain", "maintenance")

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

    async def test_payload_over_the_limit_is_refused_with_the_limit_in_the_message(self, rig: Rig) -> None:
        limit = rig.transport_class.capabilities.max_message_bytes
        options: dict[str, Any] = {}
        if "max_message_bytes" in rig.transport_class.Config.model_fields:
            limit, options = 100_000, {"max_message_bytes": 100_000}
        if limit is None:
            pytest.skip("this transport declares no limit")
        await rig.port("a", echo, options=options)
        hub, sink, info = await rig.hub(options=options)
        await sink.event("joined", "a")
        with pytest.raises(errors.PayloadTooLarge, match=str(limit)):
            hub.send("a", request(info, "t1", body="x" * (limit + 1)))
        hub.send("a", request(info, "t2", body="still works"))
        assert (await sink.final("t2")).deltas == ("still works",)

    # Who is there

    async def test_late_joiners_see_each_other(self, rig: Rig) -> None:
        _, early_agent, early_info = await rig.port("early")
        _, sink, info = await rig.hub()
        await sink.event("joined", "early", early_info.incarnation)
        reported = (await sink.event("reported", "early"))[3]
        assert (reported.state, reported.models, reported.slots) == ("ready", (MODEL,), 8)
        await rig.port("late")
        await sink.event("joined", "late")
        await sink.event("reported", "late")
        assert await early_agent.event("hub_joined", info.hub_id, info.incarnation)
        _, second, _ = await rig.hub()
        await second.event("joined", "early")
        await second.event("joined", "late")

    async def test_joined_means_that_both_directions_work(self, rig: Rig) -> None:
        """A task sent in the very callback is answered, whoever came first."""
        hubs = [await rig.hub() for _ in range(3)]
        for hub, sink, info in hubs:
            original = sink.agent_joined

            def send_at_once(agent: Any, hub: Any = hub, info: Any = info, original: Any = original) -> None:
                original(agent)
                hub.send(agent.agent_id, request(info, f"{info.hub_id}/{agent.agent_id}"))

            sink.agent_joined = send_at_once  # type: ignore[method-assign,assignment]
        for number in range(5):
            await rig.port(f"a{number}", answer_each(2))
        for _, sink, info in hubs:
            for number in range(5):
                await sink.final(f"{info.hub_id}/a{number}")

    async def test_unknown_agent_is_unavailable(self, rig: Rig) -> None:
        hub, _, info = await rig.hub()
        with pytest.raises(errors.AgentUnavailable, match="nobody"):
            hub.send("nobody", request(info, "t1"))
        await asyncio.wait_for(hub.drain("nobody"), 5)

    async def test_closed_agent_is_lost_at_once_and_unavailable(self, rig: Rig) -> None:
        port, _, agent_info = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await port.close()
        await sink.event("lost", "a", agent_info.incarnation)
        with pytest.raises(errors.AgentUnavailable):
            hub.send("a", request(info, "t1"))

    async def test_closed_hub_is_lost_at_its_agents(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        await agent.event("hub_joined", info.hub_id)
        await hub.close()
        assert await agent.event("hub_lost", info.hub_id, info.incarnation)

    async def test_a_new_incarnation_replaces_the_old(self, rig: Rig) -> None:
        port, _, old = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a", old.incarnation)
        await port.close()
        _, _, new = await rig.port("a", echo)
        await sink.event("joined", "a", new.incarnation)
        kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
        assert kinds == [
            ("joined", "a", old.incarnation),
            ("lost", "a", old.incarnation),
            ("joined", "a", new.incarnation),
        ]
        hub.send("a", request(info, "t1", body="to the new"))
        assert (await sink.final("t1")).deltas == ("to the new",)

    async def test_planes_are_apart(self, rig: Rig) -> None:
        await rig.port("agent", plane="agent")
        await rig.port("orchestrator", plane="client")
        _, clients, _ = await rig.hub(plane="client")
        _, agents, _ = await rig.hub(plane="agent")
        await clients.event("joined", "orchestrator")
        await agents.event("joined", "agent")
        assert {event[1] for event in clients.named("joined")} == {"orchestrator"}
        assert {event[1] for event in agents.named("joined")} == {"agent"}

    # Streams

    async def test_two_hubs_on_one_agent_get_their_own_answers(self, rig: Rig) -> None:
        await rig.port("a", answer_each(50, "{task}"))
        hubs = [await rig.hub(), await rig.hub()]
        for hub, sink, info in hubs:
            await sink.event("joined", "a")
            for number in range(10):
                hub.send("a", request(info, f"{info.hub_id}-{number}"))
        for _, sink, info in hubs:
            for number in range(10):
                await sink.final(f"{info.hub_id}-{number}")
            assert len(sink.named("chunk")) == 10 * 51
            assert all(event[3].hub_id == info.hub_id for event in sink.named("chunk"))

    async def test_64_streams_of_500_chunks_without_crosstalk(self, rig: Rig) -> None:
        for number in range(3):
            await rig.agent(f"a{number}")
        pipeline = await rig.pipeline("a0", "a1", "a2")
        scripts = [Script(tag=f"s{number}", chunks=500) for number in range(64)]
        texts = await asyncio.gather(*(read(submit(pipeline, script)) for script in scripts))
        assert texts == [script.text() for script in scripts]
        assert pipeline.stats()["tasks"]["ended"] == {"answered": 64}

    async def test_slow_reader_stops_its_engine_and_no_other(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        pipeline = await rig.pipeline("a", window=4)
        slow = submit(pipeline, Script(tag="slow", chunks=400))
        first = await slow.__anext__()
        quick = [Script(tag=f"quick{number}", chunks=200) for number in range(8)]
        texts = await asyncio.gather(*(read(submit(pipeline, script)) for script in quick))
        assert texts == [script.text() for script in quick]
        produced = [event for event in engine.named("delta") if event[1] == "slow"]
        # 4 chunks of credit, each of them as many deltas as had been waiting: far below the 400.
        assert len(produced) <= 4 * 33
        assert "".join(first.deltas) + await read(slow) == Script(tag="slow", chunks=400).text()

    async def test_stalled_reader_ends_with_its_own_error_while_others_flow(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        pipeline = await rig.pipeline("a", window=2, reader_timeout=0.2)
        stalled = submit(pipeline, Script(tag="stalled", chunks=10_000))
        await engine.event("cancelled", "stalled")
        other = Script(tag="other", chunks=100)
        assert await read(submit(pipeline, other)) == other.text()
        with pytest.raises(errors.ReaderStalled):
            await read(stalled)

    async def test_cancel_before_the_first_chunk_reaches_the_engine(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="c", hold_after=0))
        await engine.event("holding", "c")
        stream.cancel("not wanted")
        await engine.event("cancelled", "c")
        with pytest.raises(errors.TaskCancelled, match="not wanted"):
            await read(stream)
        assert await read(submit(pipeline, Script(tag="next", chunks=3))) == Script(tag="next", chunks=3).text()

    async def test_cancel_mid_stream_reaches_the_engine(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="c", chunks=10, hold_after=5))
        while not engine.named("holding"):
            await stream.__anext__()
        stream.cancel("enough")
        await engine.event("cancelled", "c")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

    async def test_cancel_may_overtake_its_request(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Cancel(info.hub_id, "t1", 1, "early"))
        hub.send("a", request(info, "t1", body=Script(tag="t1", hold_after=0).body()))
        hub.send("a", request(info, "t2", body=Script(tag="t2").body()))
        await sink.final("t2")
        if any(event[1] == "t1" for event in engine.named("started")):
            await engine.event("cancelled", "t1")

    async def test_deadline_ends_the_task_at_both_ends(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="d", hold_after=0), deadline_s=0.2)
        with pytest.raises(errors.DeadlineExceeded):
            await read(stream)
        await engine.until(lambda: engine.named("cancelled") or not engine.named("started"), "engine freed")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

    async def test_engine_failure_is_told_with_its_message(self, rig: Rig) -> None:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        with pytest.raises(errors.EngineFailed, match="the script says so"):
            await read(submit(pipeline, Script(tag="f", chunks=5, fail_after=2)))

    async def test_draining_agent_refuses_and_the_task_goes_elsewhere(self, rig: Rig) -> None:
        draining, engine = await rig.agent("draining")
        pipeline = await rig.pipeline("draining")
        running = submit(pipeline, Script(tag="running", chunks=2, hold_after=1))
        await engine.event("holding", "running")
        await rig.agent("other")
        await rig.seen(pipeline, "draining", "other")
        draining.begin_drain("test")
        streams = [submit(pipeline, Script(tag=f"n{number}")) for number in range(8)]
        assert [await read(stream) for stream in streams] == [Script(tag=f"n{number}").text() for number in range(8)]
        assert {stream.agent_id for stream in streams} == {"other"}
        running.cancel("end of test")
        await asyncio.wait_for(draining.drain(), 10)

    # Clients

    async def test_client_is_answered_through_the_orchestrator(self, rig: Rig) -> None:
        await rig.agent("a")
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        assert await client.models() == [MODEL]
        script = Script(tag="whole", chunks=40)
        answer = await client.chat(model=MODEL, messages=[], **_fields(script))
        choice = answer["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (script.text(), "stop")
        assert answer["usage"] == {"completion_tokens": 40}
        script = Script(tag="stream", chunks=200)
        pieces = [piece async for piece in client.stream(model=MODEL, messages=[], **_fields(script))]
        assert "".join(piece.text for piece in pieces) == script.text()
        assert (pieces[-1].finish_reason, pieces[-1].usage) == ("stop", {"completion_tokens": 200})

    async def test_errors_reach_the_client_with_their_code(self, rig: Rig) -> None:
        await rig.agent("a")
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        with pytest.raises(errors.ModelNotFound, match=MODEL):
            await client.chat(model="unknown", messages=[])
        with pytest.raises(errors.EngineFailed, match="the script says so"):
            await client.chat(model=MODEL, messages=[], **_fields(Script(tag="f", fail_after=0)))
        with pytest.raises(errors.DeadlineExceeded):
            await client.chat(model=MODEL, messages=[], deadline=0.2, **_fields(Script(tag="d", hold_after=0)))

    async def test_cancel_by_a_client_reaches_the_engine(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        await rig.fleet(await rig.pipeline("a"), "client")
        client = await rig.client()
        async for _ in client.stream(model=MODEL, messages=[], **_fields(Script(tag="left", chunks=9, hold_after=5))):
            break
        await engine.event("cancelled", "left")
        asking = asyncio.create_task(client.chat(model=MODEL, messages=[], **_fields(Script(tag="gone", hold_after=0))))
        await engine.event("holding", "gone")
        asking.cancel()
        await engine.event("cancelled", "gone")
        assert await client.chat(model=MODEL, messages=[], **_fields(Script(tag="next")))

    async def test_slow_client_stops_its_engine_and_no_other(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        await rig.fleet(await rig.pipeline("a", window=4), "client")
        client = await rig.client(window=4)
        script = Script(tag="slow", chunks=1000)
        slow = client.stream(model=MODEL, messages=[], **_fields(script))
        first = await anext(slow)
        for number in range(4):
            quick = Script(tag=f"quick{number}", chunks=300)
            pieces = client.stream(model=MODEL, messages=[], **_fields(quick))
            assert "".join([piece.text async for piece in pieces]) == quick.text()
        produced = [event for event in engine.named("delta") if event[1] == "slow"]
        # 4 chunks of credit on either plane and one in between, each of them as many deltas as had been waiting.
        assert len(produced) <= 9 * 33
        assert first.text + "".join([piece.text async for piece in slow]) == script.text()

    async def test_tasks_of_a_crashed_client_end(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=1)
        await rig.fleet(await rig.pipeline("a"), "client")
        peer = await rig.peer("client", "c", script=Script(tag="orphan", chunks=10, hold_after=1))
        await engine.event("holding", "orphan")
        await peer.crash()
        await engine.event("cancelled", "orphan")
        client = await rig.client()
        assert await client.chat(model=MODEL, messages=[], **_fields(Script(tag="next")))

    # A tree of orchestrators

    async def test_parent_uses_the_fleet_of_an_orchestrator_that_joined(self, rig: Rig) -> None:
        _, engine = await rig.agent("a", slots=3)
        child = await rig.pipeline("a")
        await rig.fleet(child, "agent")
        parent = await rig.pipeline(child.info.hub_id, only=child.info.hub_id)
        joined = next(agent for agent in parent.agents() if agent.agent_id == child.info.hub_id)
        assert (joined.status.models, joined.status.slots) == ((MODEL,), 3)
        assert [agent.agent_id for agent in child.agents()] == ["a"]
        scripts = [Script(tag=f"s{number}", chunks=100) for number in range(6)]
        texts = await asyncio.gather(*(read(submit(parent, script)) for script in scripts))
        assert texts == [script.text() for script in scripts]
        stream = submit(parent, Script(tag="c", chunks=10, hold_after=5))
        await engine.event("holding", "c")
        await anext(stream)
        assert stream.agent_id == child.info.hub_id
        stream.cancel("enough")
        await engine.event("cancelled", "c")
        await rig.agent("b", slots=4)
        await parent.agents_until(lambda agents: any(agent.status.slots == 7 for agent in agents))

    async def test_task_tells_how_many_orchestrators_passed_it_on(self, rig: Rig) -> None:
        hops: list[int] = []

        def on_task(task: TaskRequest, reply: Reply) -> None:
            hops.append(task.hops)
            echo(task, reply)

        await rig.port("a", on_task)
        child = await rig.pipeline("a", max_hops=1)
        await rig.fleet(child, "agent")
        parent = await rig.pipeline(child.info.hub_id, only=child.info.hub_id)
        await parent.submit(Submission("chat", MODEL, "{}")).result()
        assert hops == [1]
        with pytest.raises(errors.ConfigError, match="max_hops"):
            await parent.submit(Submission("chat", MODEL, "{}", hops=1)).result()

    # Death

    async def test_agent_crashed_mid_stream_is_noticed(self, rig: Rig) -> None:
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        pipeline = await rig.pipeline("a")
        stream = submit(pipeline, Script(tag="c", chunks=10, hold_after=5))
        await stream.__anext__()
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
        await pipeline.agents_until(lambda views: [view.info.incarnation for view in views] not in ([], [old]))
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
        await anext(stream)  # a token has arrived: the task cannot be answered by another attempt
        agent.pause()
        await rig.seen(pipeline, absent=["a"])
        with pytest.raises(errors.AgentLost):
            await read(stream)
        agent.resume()
        await rig.seen(pipeline, "a")
        await agent.event("cancelled", "p")
        assert await read(submit(pipeline, Script(tag="next"))) == Script(tag="next").text()

    # Ends

    async def test_closing_twice_is_once(self, rig: Rig) -> None:
        port, _, _ = await rig.port("a")
        hub, sink, _ = await rig.hub()
        await sink.event("joined", "a")
        await port.close()
        await port.close()
        await hub.close()
        await hub.close()

    async def test_nothing_is_called_after_close(self, rig: Rig) -> None:
        port, agent, _ = await rig.port("a", answer_each(50))
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t1"))
        await hub.close()
        told = len(sink.events)
        await agent.event("hub_lost", info.hub_id)
        await port.close()
        assert len(sink.events) == told

    async def test_nothing_is_left_behind(self, options: dict[str, Any]) -> None:
        async def use() -> None:
            async with Rig(self.transport, options, self.plugins) as rig:
                await rig.agent("a")
                pipeline = await rig.pipeline("a")
                await read(submit(pipeline, Script(tag="t", chunks=20)))
                await pipeline.submit(Submission("chat", MODEL, Script(tag="u").body())).result()
                await rig.fleet(pipeline, "client")
                await (await rig.client()).chat(model=MODEL, messages=[], **_fields(Script(tag="v")))

        def held() -> tuple[set[str], set[str]]:
            gc.collect()
            threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
            names = {f"{fd} {_target(fd)}" for fd in Path("/proc/self/fd").glob("*")}
            return threads, {name for name in names if "socket:" in name or "pipe:" in name}

        await use()  # what a library sets up once for the process is not a leak
        before, tasks = held(), len(asyncio.all_tasks())
        await use()
        assert held() == before
        assert len(asyncio.all_tasks()) == tasks


def _fields(script: Script) -> dict[str, Any]:
    """A script as further fields of a request."""
    return msgspec.structs.asdict(script)


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""

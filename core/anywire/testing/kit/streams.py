"""Streams of a whole pipeline."""

from __future__ import annotations

import asyncio

import pytest

from anywire import errors
from anywire.messages import Cancel
from anywire.testing.doubles import Script
from anywire.testing.kit.answers import answer_each, following
from anywire.testing.patience import PATIENCE, expect
from anywire.testing.rig import Rig, read, request, submit


class StreamTests:
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
        pipeline = await rig.pipeline("a0", "a1", "a2", accept_timeout=PATIENCE)
        scripts = [Script(tag=f"s{number}", chunks=500) for number in range(64)]
        texts = await asyncio.gather(*(read(submit(pipeline, script)) for script in scripts))
        assert texts == [script.text() for script in scripts]
        assert pipeline.stats()["tasks"]["ended"] == {"answered": 64}

    async def test_slow_reader_stops_its_engine_and_no_other(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        pipeline = await rig.pipeline("a", window=4)
        slow = submit(pipeline, Script(tag="slow", chunks=400))
        first = await following(slow)
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
            await following(stream)
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
        await expect(draining.drain(), "a drained agent is idle")

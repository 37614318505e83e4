"""Progress arrives beside the chunks of an attempt, and changes nothing about them."""

from __future__ import annotations

from functools import partial
from typing import get_args

from anywire.messages import Chunk, Progress, ProgressState, TaskRequest
from anywire.testing.rig import Rig, request
from anywire.transport import Reply

STATES: tuple[ProgressState, ...] = get_args(ProgressState)


class ProgressTests:
    async def test_progress_arrives_as_sent(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t", attempt=3))
        reply: Reply = (await agent.event("task", "t"))[4]

        def told(progress: Progress) -> bool:
            return progress in [event[3] for event in sink.named("progress")]

        for state in STATES:
            sent = Progress(info.hub_id, "t", 3, state, f"ü€😀 {state}")
            reply.send(sent)
            await sink.until(partial(told, sent), f"progress {state} arrives when nothing follows it")
        assert sink.named("chunk") == [], "progress came as a chunk"
        reply.send(Chunk(info.hub_id, "t", 3, 0, ("done",), final=True))
        assert (await sink.final("t")).deltas == ("done",)

    async def test_progress_neither_ends_nor_reorders_chunks(self, rig: Rig) -> None:
        def answer(task: TaskRequest, reply: Reply) -> None:
            for number in range(100):
                reply.send(Progress(task.hub_id, task.task_id, task.attempt, STATES[number % 4], f"{number}"))
                reply.send(Chunk(task.hub_id, task.task_id, task.attempt, number, (f"{number}",)))
            reply.send(Progress(task.hub_id, task.task_id, task.attempt, "running", "last"))
            reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 100, final=True))

        await rig.port("a", answer)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t"))
        await sink.final("t")
        assert [delta for chunk in sink.chunks("t") for delta in chunk.deltas] == [f"{n}" for n in range(100)]
        await sink.until(
            lambda: sink.named("progress") and sink.named("progress")[-1][3].detail == "last",
            "the newest progress arrives, and no older one after it",
        )
        assert {event[1:3] for event in sink.named("progress")} == {("t", 1)}

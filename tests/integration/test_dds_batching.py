"""What a writer is given in one turn of the event loop leaves together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anywire.testing.rig import Rig, request
from anywire_dds.library import ddsc

TASKS = 10


@pytest.mark.parametrize(("lifespan", "flushes"), [(None, 1), (60.0, 2)])
async def test_tasks_of_one_turn_are_flushed_once(
    dds_domain: int, monkeypatch: pytest.MonkeyPatch, lifespan: float | None, flushes: int
) -> None:
    """Where requests expire, the first one is sent at once, whatever keeps the loop after it."""
    async with Rig("dds", {"domain": dds_domain, "lifespan": lifespan}) as rig:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub("h")
        await sink.event("joined", "a")
        made: Any = hub
        requests = made.inner._links.by_name["a"].requests.writer.handle
        flushed: list[int] = []
        flush = ddsc.dds_write_flush

        def count(handle: int) -> None:
            flushed.append(handle)
            flush(handle)

        monkeypatch.setattr(ddsc, "dds_write_flush", count)
        for number in range(TASKS):
            hub.send("a", request(info, f"t{number}"))
        assert flushed.count(requests) == flushes - 1
        for _ in range(2):
            await asyncio.sleep(0)
        assert flushed.count(requests) == flushes
        for number in range(TASKS):
            await agent.event("task", f"t{number}")
        assert [event[1] for event in agent.named("task")] == [f"t{number}" for number in range(TASKS)]

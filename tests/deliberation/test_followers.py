"""Several who ask for the same deliberation: who leaves takes it from nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.deliberation.deliberation_bench import ANN, RUBRIC, Council, bench, ended

from anywire.errors import TaskCancelled
from anywire.task_stream import TaskStream
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.prompts import newest

TASK = "Why is the sky blue?"


def chat(served: ServiceBench) -> TaskStream:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": TASK}],
        "deliberation": {"id": "q-1", "rubric": RUBRIC},
    }
    return served.submit(msgspec.json.encode(body).decode(), model="deliberate", caller=ANN)


async def submitted(kept: KeptDeliberations) -> None:
    await kept.submit(kept.question({"id": "q-1", "task": TASK, "rubric": RUBRIC}, ANN))


async def followed(kept: KeptDeliberations, count: int) -> None:
    run = kept.runs.get("lab", "q-1")
    assert run is not None
    await polled(lambda: len(run.followers) == count, f"{count} follow it")


@pytest.mark.parametrize("first", ["chat", "REST"])
async def test_who_joined_leaves_and_it_goes_on(tmp_path: Path, first: str) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        begun: list[TaskStream] = []
        if first == "chat":
            begun.append(chat(served))
        else:
            await submitted(kept)
        await engine.all_asked("critique", 6)
        leaves, stays = chat(served), chat(served)
        await followed(kept, 2)
        leaves.cancel("the client has gone")
        await followed(kept, 1)
        engine.release("critique")
        state = await ended(kept)
        assert state.status == "completed"
        for stream in (*begun, stays):
            assert (await expect(stream.result(), "the answer")).deltas == (newest(state, state.winner).text,)


async def test_who_began_it_leaves_and_it_ends(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        begun = chat(served)
        await engine.all_asked("critique", 6)
        joined = chat(served)
        await followed(kept, 1)
        begun.cancel("the client has gone")
        with pytest.raises(TaskCancelled, match="client has gone"):
            await expect(joined.result(), "it is told")
        assert (await ended(kept)).status == "cancelled"


@pytest.mark.parametrize(("first", "status"), [("chat", "cancelled"), ("REST", "completed")])
async def test_after_a_restart_the_last_chat_takes_along_what_a_chat_began(
    tmp_path: Path, first: str, status: str
) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        if first == "chat":
            chat(served)
        else:
            await submitted(kept)
        await engine.all_asked("critique", 6)
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        await engine.all_asked("critique", 6)
        one, other = chat(served), chat(served)
        await followed(kept, 2)
        one.cancel("the client has gone")
        await followed(kept, 1)
        assert not engine.named("cancelled", "critique")
        other.cancel("the client has gone")
        await followed(kept, 0)
        engine.release("critique")
        assert (await ended(kept)).status == status

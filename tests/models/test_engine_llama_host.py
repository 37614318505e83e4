"""The engine ``llama`` is a host of models with one model: what its owner says of it, and what stays hidden."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.models.logged import texts
from tests.models.started_servers import nothing_left

from anywire.engine import Delta, EngineProgress
from anywire.messages import TaskRequest
from anywire.testing.patience import FACTOR, expect
from anywire.testing.recorder import Recorder
from anywire_engine_llama import LlamaEngine
from anywire_engine_models.host.status import TRANSITIONS, ModelChanged
from tests import tiny_gguf

pytestmark = pytest.mark.timeout(60 * FACTOR)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


class Told:
    """The changes of an engine's model."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.changes: list[ModelChanged] = []
        self._recorder = Recorder()
        engine.host.listen(self._listen)

    def _listen(self, change: ModelChanged) -> None:
        self.changes.append(change)
        self._recorder.add(change.status.state)

    async def until(self, state: str, times: int = 1) -> ModelChanged:
        def found() -> list[ModelChanged]:
            return [each for each in self.changes if each.status.state == state and each.previous != state]

        await self._recorder.until(lambda: len(found()) >= times, f"the model is {state}")
        return found()[times - 1]


@asynccontextmanager
async def running(model: Path, **options: Any) -> AsyncIterator[tuple[LlamaEngine, Told]]:
    engine = LlamaEngine(LlamaEngine.Config(**{"model": str(model), "context": 2048, **options}))
    told = Told(engine)
    try:
        await engine.start(lambda: None)
        yield engine, told
    finally:
        await engine.close()


def request(tokens: int = 4) -> TaskRequest:
    body = {"max_tokens": tokens, "messages": [{"role": "user", "content": "Why?"}]}
    return TaskRequest("hub", "t", 1, "chat", "m", json.dumps(body), stream=True)


async def answer(engine: LlamaEngine, tokens: int = 4) -> str:
    return "".join([each.text async for each in engine.run(request(tokens)) if isinstance(each, Delta)])


async def test_one_model_with_one_process_whose_owner_is_the_host(model: Path) -> None:
    with nothing_left():
        async with running(model, alias="mine", slots=3) as (engine, told):
            (status,) = engine.host.statuses()
            assert (status.model, status.state, status.pid, status.address) == (
                "mine",
                "running",
                engine.pid,
                engine.address,
            )
            assert (status.starts, status.device_reason) == (1, "llama.cpp chooses itself")
            assert await answer(engine)
            await asyncio.gather(*(engine.host.start("mine") for _ in range(20)))
            (guardian,) = psutil.Process().children()
            assert [child.pid for child in guardian.children()] == [engine.pid]
    moves = [(each.previous, each.status.state) for each in told.changes if each.previous != each.status.state]
    assert moves == [
        ("stopped", "starting"),
        ("starting", "running"),
        ("running", "stopping"),
        ("stopping", "stopped"),
    ]


async def test_a_death_is_told_with_its_signal_and_last_lines_and_the_key_nowhere(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with running(model) as (engine, told):
        assert await answer(engine)
        first = engine.pid
        os.kill(first, signal.SIGKILL)
        crashed = (await told.until("crashed")).status
        assert crashed.reason == "killed by SIGKILL"
        assert crashed.exit is not None
        assert crashed.exit.signal == "SIGKILL"
        assert 0 < len(crashed.exit.lines) <= 20
        again = (await told.until("running", 2)).status
        assert again.pid not in (0, first)
        assert again.starts == 2
        assert await answer(engine)
        lines = await texts(engine.host.logs(again.model, lines=1000))
        assert len(lines) > len(crashed.exit.lines)
        shown = msgspec.json.encode([each.status for each in told.changes]).decode() + "\n".join(lines) + caplog.text
        assert engine.key not in shown
    assert {
        (each.previous, each.status.state) for each in told.changes if each.previous != each.status.state
    } <= TRANSITIONS


async def test_a_task_that_waits_outlives_a_restart(model: Path) -> None:
    async with running(model, context=65536) as (engine, _):
        events: asyncio.Queue[str] = asyncio.Queue()
        begun = asyncio.Event()

        async def read_on() -> None:
            async for each in engine.run(request(60_000)):
                if isinstance(each, Delta):
                    begun.set()

        async def read(tokens: int, to: asyncio.Queue[str]) -> str:
            text = ""
            async for each in engine.run(request(tokens)):
                if isinstance(each, EngineProgress):
                    to.put_nowait(each.state)
                text += each.text if isinstance(each, Delta) else ""
            return text

        first = asyncio.create_task(read_on())
        await expect(begun.wait(), "the first task is answered")
        waiting = asyncio.create_task(read(4, events))
        assert await expect(events.get(), "the second task says that it waits") == "queued"
        os.kill(engine.pid, signal.SIGKILL)
        await asyncio.wait({first})
        assert first.exception() is not None
        assert await expect(waiting, "the second task is answered by the next process")
        told = [events.get_nowait() for _ in range(events.qsize())]
        assert told[-1] == "running"
        assert "loading" in told

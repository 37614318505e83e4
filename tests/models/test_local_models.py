"""Local models of a program, without orchestrator: what it can do with them, and what it is told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.long_form import TIMES
from tests.models.logged import texts
from tests.models.served_models import FewDevices, ModelApi, ServedLauncher, entry, write_registry
from tests.models.simulated_servers import Behaviour
from tests.models.tiny_model import tiny, written_tiny

from anywire.errors import (
    AnywireError,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelStopped,
    ShuttingDown,
)
from anywire.testing.patience import PATIENCE, expect
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.host.server import Exit
from anywire_engine_models.host.status import TRANSITIONS, ModelChanged, ModelState
from anywire_engine_models.local_models import Changes, ChatPiece, LocalModels, Missed
from anywire_engine_models.local_models import changes as changes_module
from anywire_engine_models.registry.entry import EntrySettings
from anywire_engine_models.registry.entry_json import read_entry

__all__ = ["tiny", "written_tiny"]

A, B = "local:a:1", "local:b:1"
HELLO = [{"role": "user", "content": "Hello"}]


class Rig:
    def __init__(self, models: LocalModels, launcher: ServedLauncher, api: ModelApi, registry: Path) -> None:
        self.models, self.launcher, self.api, self.registry = models, launcher, api, registry


@asynccontextmanager
async def opened(folder: Path, *entries: dict[str, Any], behave: Any = None, budget: int = 0) -> AsyncIterator[Rig]:
    registry = write_registry(folder / "models.json", *(entries or (entry("a"), entry("b"))))
    api = ModelApi()
    launcher = ServedLauncher(api, behave or Behaviour(), budget)
    await api.up()
    try:
        config = ModelsConfig(registry=registry, memory_budget=budget)
        async with LocalModels(config, launcher=launcher, devices=FewDevices()) as models:  # type: ignore[arg-type]
            yield Rig(models, launcher, api, registry)
    finally:
        await api.down()
    assert not launcher.processes
    assert not launcher.faults


async def told(models: LocalModels, model: str, /, **members: Any) -> list[ChatPiece]:
    return [piece async for piece in models.chat(model, HELLO, **members)]


async def test_a_model_is_started_asked_and_stopped(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        models = rig.models
        assert [(each.model, each.state) for each in models.list()] == [(A, "stopped"), (B, "stopped")]
        assert models.usage(A) is None
        started = await models.start(A)
        assert started.state == "running"
        assert (await models.start(A)).pid == started.pid
        pieces = await told(models, A, max_tokens=5, top_k=3, session_id="s")
        assert "".join(piece.text for piece in pieces) == f"{A} says hello"
        assert pieces[-1].finish_reason == "stop"
        body, key = rig.api.asked[0]
        assert (body["max_tokens"], body["top_k"], body["session_id"]) == (5, 3, "s")
        assert key == f"Bearer key-{started.pid}"
        answer = await models.complete(A, HELLO, temperature=None)
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": f"{A} says hello"}
        assert answer["object"] == "chat.completion"
        assert "temperature" not in rig.api.asked[1][0]
        assert (await models.stop(A)).state == "stopped"
        with pytest.raises(ModelStopped):
            await models.complete(A, HELLO)
        with pytest.raises(ModelNotFound):
            await models.start("local:c:1")


async def test_a_model_is_started_for_a_request_where_it_may(tmp_path: Path) -> None:
    slow = Behaviour(ready_after=0.05)
    async with opened(tmp_path, entry("a", on_demand=True), behave=slow) as rig:
        notes: list[str] = []
        answer = await rig.models.complete(A, HELLO, told=notes.append)
        assert answer["choices"][0]["message"]["content"] == f"{A} says hello"
        assert any(note.startswith("loading") for note in notes)


async def test_a_chat_whose_turn_is_at_a_server_that_has_just_ended_is_answered_by_the_next_one(tmp_path: Path) -> None:
    async with opened(tmp_path, entry("a", on_demand=True)) as rig:
        await rig.models.complete(A, HELLO)
        ended = rig.launcher.servers[A]
        await rig.api.down()
        answer = asyncio.create_task(rig.models.complete(A, HELLO))
        await asyncio.wait({answer}, timeout=0.05)
        assert not answer.done(), "the server cannot be reached, and its end is not known yet"
        assert rig.models.status(A).serving == 1
        await rig.api.up()  # somewhere else, as the next server will be
        ended.crash()
        found = await expect(answer, "an answer of the next server")
        assert found["choices"][0]["message"]["content"] == f"{A} says hello"
        assert rig.launcher.starts[A] == 2


@pytest.mark.parametrize("members", [{"model": "b"}, {"stream": False}, {"tools": object()}])
async def test_what_a_chat_cannot_send_is_said(tmp_path: Path, members: dict[str, Any]) -> None:
    async with opened(tmp_path) as rig:
        await rig.models.start(A)
        with pytest.raises(InvalidRequest):
            await told(rig.models, A, **members)
        wrong: list[list[Any]] = [[], [{}], ["Hello"]]
        for messages in wrong:
            with pytest.raises(InvalidRequest):
                await rig.models.complete(A, messages)


async def test_leaving_a_chat_ends_it_at_the_server(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.models.start(A)
        rig.api.gate.clear()
        async with aclosing(rig.models.chat(A, HELLO)) as pieces:
            assert (await expect(anext(pieces), "the first piece")).text == A
            assert rig.models.status(A).serving == 1
        await expect(rig.api.gone.wait(), "the server sees that its client has gone")
        assert rig.models.status(A).serving == 0


async def test_a_chat_has_a_time_limit_that_does_not_count_against_a_slow_reader(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.models.start(A)
        rig.api.gate.clear()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
            await expect(told(rig.models, A, timeout=0.05), "the time limit")
        rig.api.gate.set()
        async with aclosing(rig.models.chat(A, HELLO, timeout=PATIENCE)) as pieces:
            await anext(pieces)
            reader = asyncio.current_task()
            assert reader is not None
            await asyncio.sleep(0)
            assert not reader.cancelling()


async def test_an_answer_that_breaks_off_says_how_its_server_ended(tmp_path: Path) -> None:
    async with opened(tmp_path, entry("a", restart="never")) as rig:
        await rig.models.start(A)
        rig.api.gate.clear()
        asking = asyncio.create_task(told(rig.models, A))
        await expect(rig.api.begun.wait(), "the answer begins")
        rig.launcher.servers[A].crash(Exit("killed by SIGKILL", signal="SIGKILL", lines=("out of memory",)))
        await rig.api.down()
        with pytest.raises(EngineFailed, match=r"SIGKILL(.|\n)*out of memory"):
            await expect(asking, "the answer")
        status = rig.models.status(A)
        assert status.state == "crashed"
        assert status.exit is not None


async def test_changes_come_in_order_and_along_allowed_transitions(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        with rig.models.changes() as changes:
            await rig.models.start(A)
            await rig.models.stop(A)
            seen: list[tuple[ModelState, ModelState]] = []
            while not seen or seen[-1][1] != "stopped":
                change = await expect(anext(changes), "a change")
                assert isinstance(change, ModelChanged)
                if change.previous != change.status.state:
                    seen.append((change.previous, change.status.state))
        assert [new for _, new in seen] == ["starting", "running", "stopping", "stopped"]
        assert set(seen) <= TRANSITIONS


async def test_a_slow_reader_of_changes_holds_back_nobody_and_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(changes_module, "MAX_KEPT", 4)
    async with opened(tmp_path) as rig:
        changes = rig.models.changes()
        for _ in range(5):
            await rig.models.start(A)
            await rig.models.stop(A)
        first = await anext(changes)
        assert isinstance(first, Missed)
        assert first.count >= 16
        last = [await anext(changes) for _ in range(4)][-1]
        assert isinstance(last, ModelChanged)
        assert last.status.state == "stopped"
        changes.close()
        assert [change async for change in changes] == []


async def test_closing_ends_a_reader_that_waits() -> None:
    changes = Changes(lambda listener: lambda: None)
    waiting = asyncio.create_task(anext(changes))
    await asyncio.sleep(0)
    changes.close()
    with pytest.raises(StopAsyncIteration):
        await expect(waiting, "the end")


async def test_the_registry_is_changed_and_followed(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        models = rig.models
        running = await models.start(A)
        await models.add(read_entry(entry("c"), tmp_path))
        assert [each.model for each in models.list()] == [A, B, "local:c:1"]
        with pytest.raises(InvalidRequest):
            await models.add(read_entry(entry("c"), tmp_path))
        await models.update(B, EntrySettings(on_demand=True))
        assert models.status(B).on_demand
        assert json.loads(rig.registry.read_text())["models"][1]["settings"]["on_demand"] is True
        rig.registry.write_text("{")
        await models.reread()
        assert models.fault
        assert len(models.list()) == 3
        write_registry(rig.registry, entry("a"))
        await models.reread()
        assert not models.fault
        assert models.status(A).pid == running.pid, "a running model is untouched"
        assert [each.full_identifier for each in models.entries] == [A]


async def test_a_model_of_ones_own_stands_beside_the_registry(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        models, before = rig.models, rig.registry.read_bytes()
        own = read_entry(entry("own"), tmp_path)
        await models.put(own)
        await models.put(read_entry(entry("a", served_name="another"), tmp_path))
        assert [each.model for each in models.list()] == [A, B, "local:own:1"]
        await models.start(A)
        await models.start("local:own:1")
        await told(models, A)
        assert rig.api.asked[0][0]["model"] == "another"
        assert rig.registry.read_bytes() == before
        await models.stop("local:own:1")
        await models.remove("local:own:1")
        await models.remove("local:never:1")
        assert [each.model for each in models.list()] == [A, B]
        with pytest.raises(InvalidRequest, match="device"):
            await models.put(msgspec.structs.replace(own, settings=EntrySettings(device="the moon")))


async def test_the_end_answers_who_waits(tmp_path: Path) -> None:
    never = Behaviour(ready_after=None)
    async with opened(tmp_path, entry("a", on_demand=True), behave=never) as rig:
        waiting = [asyncio.create_task(each) for each in (rig.models.start(A), rig.models.complete(A, HELLO))]
        await asyncio.sleep(0)
        await expect(rig.models.close(), "the end")
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, AnywireError), each
        with pytest.raises(ShuttingDown):
            await rig.models.start(A)
        await rig.models.close()


async def test_many_callers_at_random_are_all_answered(tmp_path: Path) -> None:
    """Whatever callers do at once, each gets a result or an error of ours; a model has one process at most."""
    chance = random.Random(17)
    behave = Behaviour(ready_after=0.002, stops_after=0.002)
    entries = [entry(name, on_demand=True, memory_bytes=100) for name in "abc"]
    async with opened(tmp_path, *entries, behave=behave, budget=200) as rig:
        models = rig.models
        names = [A, B, "local:c:1", "local:none:1"]

        async def act() -> None:
            model = chance.choice(names)
            action = chance.choice(["start", "stop", "complete", "complete", "chat", "pin", "status", "leave"])
            try:
                if action == "leave":
                    async with asyncio.timeout(0.003), aclosing(models.chat(model, HELLO)) as pieces:
                        async for _ in pieces:
                            pass
                elif action == "chat":
                    assert (await told(models, model))[-1].finish_reason == "stop"
                elif action == "complete":
                    assert (await models.complete(model, HELLO))["choices"]
                elif action == "pin":
                    await models.pin(model, chance.random() < 0.2)
                elif action == "status":
                    models.status(model)
                else:
                    await getattr(models, action)(model)
            except (AnywireError, TimeoutError):
                pass

        for _ in range(6 * TIMES):
            await expect(asyncio.gather(*[act() for _ in range(40)]), "all answers")
            for name in names[:3]:
                await models.pin(name, False)


async def test_a_real_server_is_measured_and_its_end_is_told(tmp_path: Path, tiny: Path) -> None:
    """llama.cpp itself: chat, usage, kill -9, the end of everything."""
    one = {**entry("tiny"), "model_file_path": str(tiny), "settings": {"context": 256, "restart": "never"}}
    registry = write_registry(tmp_path / "models.json", one)
    name = one["full_identifier"]
    async with LocalModels(ModelsConfig(registry=registry)) as models:
        status = await expect(models.start(name), "the start")
        pieces = await expect(told(models, name, max_tokens=12), "the answer")
        assert pieces[-1].finish_reason == "length"
        assert pieces[-1].usage is not None
        assert pieces[-1].usage["completion_tokens"] == 12
        answer = await models.complete(name, HELLO, max_tokens=3, chat_template_kwargs={}, reasoning_format="none")
        assert answer["usage"]["completion_tokens"] == 3
        usage = models.usage(name)
        assert usage is not None
        assert 0 < usage.mem_usage < 100
        assert 0 <= usage.cpu_usage <= 100
        assert usage.rss_bytes > 1_000_000
        assert await texts(models.logs(name))
        with models.changes() as changes:
            os.kill(status.pid, signal.SIGKILL)
            async for change in changes:
                if isinstance(change, ModelChanged) and change.status.state == "crashed":
                    break
        assert isinstance(change, ModelChanged)
        assert change.status.exit is not None
        assert change.status.exit.signal == "SIGKILL"
        again = await expect(models.start(name), "the next start")
        assert again.pid != status.pid
    assert not psutil.pid_exists(again.pid)

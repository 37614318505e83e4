"""The engine `models`: tasks, commands and a registry that changes, over servers that are simulated."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.integration.gateway_serving import serving
from tests.long_form import SOAK, examples
from tests.models.served_models import (
    Answer,
    Engine,
    FewDevices,
    ModelApi,
    Rig,
    ServedLauncher,
    chat,
    entry,
    models_of,
    running,
    write_registry,
)
from tests.models.simulated_servers import Behaviour
from tests.models.tiny_model import tiny, written_tiny

from anywire.errors import (
    AnywireError,
    ConfigError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelStopped,
    UnknownCommand,
)
from anywire.messages import MAX_COMMAND_BYTES
from anywire.testing.patience import FACTOR, expect, polled
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.local_api.records import running_apis

__all__ = ["tiny", "written_tiny"]  # fixtures

pytestmark = pytest.mark.timeout(60)
# ruff: noqa: ASYNC240 - small files of tests

A, B = "local:a:1", "local:b:1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.json"


def failing(name: str, **how: Any) -> Any:
    """Starts of that model go so, others well."""

    def behave(model: HostedModel, device: str, number: int) -> Behaviour:
        return Behaviour(**how) if model.name == name else Behaviour()

    return behave


async def text(rig: Rig, model: str, **more: Any) -> str:
    return await expect(Answer(rig.engine, chat(model, **more)).reading, f"an answer of {model}")


# Tasks


async def test_a_model_that_is_stopped_is_not_started_by_a_request(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file) as rig:
        assert rig.engine.states() == {A: "stopped"}
        with pytest.raises(ModelStopped, match=f"anywire models start {A}"):
            await text(rig, A)
        assert not rig.launcher.starts
        (*_, last) = await rig.command("start", model=A)
        assert last["state"] == "running"
        assert rig.engine.states() == {A: "ready"}
        assert await text(rig, A) == f"{A} says hello"


async def test_a_request_starts_a_model_on_demand_and_tells_that_it_loads(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True, served_name="own-name"))
    async with running(file, behave=Behaviour(ready_after=0.05)) as rig:
        (offer,) = rig.engine.status().offers
        assert (offer.state, offer.on_demand, offer.takes_tasks) == ("stopped", True, True)
        answer = Answer(rig.engine, chat(A))
        await answer.until("loading")
        assert await answer.reading == "own-name says hello"
        assert answer.steps == ["loading", "running"]
        assert answer.details[0] == A
        (asked, key) = rig.api.asked[0]
        assert asked["model"] == "own-name"
        assert key == f"Bearer {rig.launcher.servers[A].key}"
        assert rig.engine.states() == {A: "ready"}


async def test_a_model_starts_with_the_agent(file: Path) -> None:
    write_registry(file, entry("a", autostart=True), entry("b"))
    async with running(file) as rig:
        await rig.engine.until(lambda: rig.engine.states() == {A: "ready", B: "stopped"})
        assert await text(rig, A)


async def test_one_model_of_the_registry_alone(file: Path) -> None:
    write_registry(file, entry("a"), entry("b"))
    async with running(file, model=B) as rig:
        await rig.engine.until(lambda: rig.engine.states() == {B: "ready"})
        with pytest.raises(ModelNotFound):
            await text(rig, A)
    with pytest.raises(ConfigError, match=r"local:a:2 is not in the registry .*; did you mean local:a:1\?"):
        async with running(file, model="local:a:2"):
            pytest.fail("it starts")


async def test_what_is_unknown_names_what_is_near(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file) as rig:
        with pytest.raises(ModelNotFound, match=f"did you mean {A}"):
            await text(rig, "local:a:2")
        for name in ("start", "stop", "status", "unload", "pin", "logs"):
            with pytest.raises(ModelNotFound):
                await rig.command(name, model="local:a:2")


async def test_a_model_answers_its_kinds_of_tasks_alone(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True), entry("b", on_demand=True))
    async with running(file, models={B: {"kinds": ["embedding"]}}) as rig:
        kinds = {offer.model: offer.kinds for offer in rig.engine.status().offers}
        assert kinds == {A: ("chat", "completion"), B: ("embedding",)}
        with pytest.raises(InvalidRequest, match="no embedding"):
            await text(rig, A, kind="embedding")
        answer = Answer(rig.engine, chat(B, kind="embedding"))
        await answer.reading
        assert json.loads(answer.deltas[-1].extra)[0]["embedding"] == [0.5]


async def test_a_request_waits_for_a_slot_and_is_told(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        second = Answer(rig.engine, chat(A))
        await second.until("queued")
        assert "slot" in second.details[0]
        assert rig.engine.status().queued == 1
        rig.api.gate.set()
        assert await first.reading == await second.reading
        await polled(lambda: rig.engine.status().queued == 0, "nobody waits")


async def test_slots_are_those_of_all_models(file: Path) -> None:
    write_registry(file, entry("a", slots=3), entry("b"))
    async with running(file, defaults={"slots": 2}) as rig:
        status = rig.engine.status()
        assert status.slots == 5
        assert {offer.model: offer.slots for offer in status.offers} == {A: 3, B: 2}
        assert rig.engine.status() is status, "the agent looks closely at each that is another object"


async def test_where_models_are_swapped_more_is_taken_in_so_that_requests_of_one_are_answered_together(
    file: Path,
) -> None:
    write_registry(file, *(entry(name, on_demand=True, memory_bytes=600) for name in "ab"), entry("c"))
    for budget, slots in ((1000, 3 + 2 * 8), (1200, 3), (0, 3)):
        async with running(file, budget=budget) as rig:
            assert rig.engine.status().slots == slots
    async with running(file, models={A: {"group": "x"}, B: {"group": "y"}}, taken_in=2) as rig:
        assert rig.engine.status().slots == 3 + 2 * 2


@pytest.mark.parametrize("waits", ["loading", "queued"])
async def test_a_request_that_waits_no_longer_leaves_no_trace(file: Path, waits: str) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file, behave=Behaviour(ready_after=0.05)) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await first.until("loading")
        if waits == "queued":
            await rig.api.begun.wait()
        second = Answer(rig.engine, chat(A))
        await second.until(waits)
        await second.stop()
        rig.api.gate.set()
        assert await first.reading
        status = rig.engine.host.status
        await polled(lambda: not (status(A).serving or status(A).waiting), "nobody holds it or waits for it")
        assert len(rig.api.asked) == 1


async def test_a_request_that_ends_early_frees_its_slot_and_its_server_learns_of_it(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        await first.stop()
        await expect(rig.api.gone.wait(), "the server sees that nobody reads")
        rig.api.gate.set()
        assert await text(rig, A)


async def test_a_server_that_ends_breaks_its_answer_and_starts_again(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        rig.launcher.servers[A].crash()
        rig.api.cut()
        with pytest.raises(EngineFailed):
            await first.reading
        rig.api.gate.set()
        await rig.engine.until(lambda: rig.engine.states() == {A: "ready"} and rig.launcher.starts[A] == 2)
        assert await text(rig, A)
        assert rig.api.asked[-1][1] == f"Bearer {rig.launcher.servers[A].key}", "it is the new server that is asked"


async def test_a_turn_at_a_server_that_has_just_ended_goes_to_the_next_one(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        assert await text(rig, A)
        ended = rig.launcher.servers[A]
        await rig.api.down()
        answer = Answer(rig.engine, chat(A))
        await answer.until("running")
        await rig.api.up()  # somewhere else, as the next server will be
        await asyncio.wait({answer.reading}, timeout=0.05)
        assert not answer.reading.done(), "the server cannot be reached, and its end is not known yet"
        ended.crash()
        assert await expect(answer.reading, "an answer of the next server") == f"{A} says hello"
        assert rig.launcher.starts[A] == 2


async def test_nobody_gets_the_turn_of_a_request_that_broke_before_the_end_of_its_server_is_known(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        second = Answer(rig.engine, chat(A))
        await second.until("queued")
        rig.api.cut()
        await asyncio.wait({first.reading}, timeout=0.05)
        assert "running" not in second.steps
        rig.launcher.servers[A].crash()
        with pytest.raises(
            EngineFailed, match=r"connection .*; the server of local:a:1 has ended: killed by SIGKILL"
        ) as failed:
            await first.reading
        assert failed.value.blames == "model", "the end of one model says nothing against its agent"
        rig.api.gate.set()
        assert await expect(second.reading, "an answer of the next server") == f"{A} says hello"
        assert rig.launcher.starts[A] == 2


@pytest.mark.parametrize(("status", "blames"), [(500, "model"), (503, "model"), (400, ""), (404, ""), (429, "")])
async def test_an_answer_of_500_says_something_of_its_model_and_one_of_4xx_nothing(
    file: Path, status: int, blames: str
) -> None:
    write_registry(file, entry("a", autostart=True), entry("b", autostart=True))
    async with running(file) as rig:
        await rig.engine.until(lambda: set(rig.engine.states().values()) == {"ready"})
        rig.api.statuses[A] = status
        with pytest.raises(AnywireError) as failed:
            await text(rig, A)
        assert failed.value.blames == blames
        assert await text(rig, B)


async def test_a_model_that_does_not_start_harms_no_other_and_not_its_agent(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True, restart="never"), entry("b", on_demand=True))
    async with running(file, behave=failing(A, fails="no room for its weights")) as rig:
        with pytest.raises(EngineFailed, match="no room for its weights") as failed:
            await text(rig, A)
        assert failed.value.blames == "model", "it says nothing against its agent"
        (offer, other) = rig.engine.status().offers
        assert (offer.state, offer.takes_tasks) == ("stopped", True), "the next request tries again"
        assert offer.detail == "crashed: no room for its weights"
        assert other.state == "stopped"
        assert await text(rig, B)
        (status,) = await rig.command("status", model=A)
        assert status["state"] == "crashed"
        assert status["exit"]["code"] == 1


async def test_a_crashed_model_that_is_not_on_demand_is_offered_as_crashed(file: Path) -> None:
    write_registry(file, entry("a", restart="never"))
    async with running(file, behave=Behaviour(fails="no room")) as rig:
        with pytest.raises(EngineFailed, match="no room"):
            await rig.command("start", model=A)
        (offer,) = rig.engine.status().offers
        assert (offer.state, offer.takes_tasks, offer.detail) == ("crashed", False, "crashed: no room")


async def test_models_that_do_not_fit_together_are_swapped_and_each_request_is_answered(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True), entry("b", on_demand=True))
    options: dict[str, Any] = {"defaults": {"memory_bytes": 600}, "turn": 0.02}
    async with running(file, budget=1000, behave=Behaviour(ready_after=0.01), **options) as rig:
        answers = [Answer(rig.engine, chat((A, B)[number % 2])) for number in range(8)]
        found = [await answer.reading for answer in answers]
        assert found == [f"{(A, B)[number % 2]} says hello" for number in range(8)]
        resources = rig.engine.status().resources
        assert resources["model_loads"] == resources["model_swaps"] + 1
        assert 1 <= resources["model_swaps"] <= 8
        assert resources["model_memory_budget_bytes"] == 1000
        assert resources["vram_free_bytes"] == 1.0, "and those of the devices"


async def test_a_model_that_can_never_fit_is_said_at_once(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True, memory_bytes=2000))
    async with running(file, budget=1000) as rig:
        with pytest.raises(InvalidRequest, match="memory_budget"):
            await text(rig, A)


async def test_a_stream_is_resumed_where_its_server_is_known_to(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True), entry("b", on_demand=True))
    async with running(file, models={B: {"resume": "last_message"}}) as rig:
        features = {offer.model: offer.features for offer in rig.engine.status().offers}
        assert (features[A]["resume"], features[B]["resume"]) == (False, True)
        assert not rig.engine.resumable(chat(A))
        assert rig.engine.resumable(chat(B))
        with pytest.raises(EngineFailed, match="resume"):
            await text(rig, A, resume="so far")
        assert await text(rig, B, resume="so far")
        assert rig.api.asked[-1][0]["messages"][-1] == {"role": "assistant", "content": "so far"}


# Commands


async def test_commands_are_known_at_once(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file) as rig:
        with pytest.raises(UnknownCommand, match=r"models\.list"):
            rig.engine.command("models.dance", {})
        for name, arguments in (
            ("start", {}),
            ("start", {"model": 5}),
            ("start", {"model": A, "now": True}),
            ("logs", {"model": A, "lines": -1}),
            ("pin", {"model": A, "pinned": "yes"}),
            ("import", {"kind": "disk", "path": "/"}),
            ("add", {"model_file_path": 5}),
        ):
            with pytest.raises(InvalidRequest):
                await rig.command(name, **arguments)


async def test_a_start_tells_each_change_and_is_one_process_for_all_who_ask(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file, behave=Behaviour(ready_after=0.05)) as rig:
        found = await asyncio.gather(*(rig.command("start", model=A) for _ in range(200)))
        assert rig.launcher.starts == {A: 1}
        for told in found:
            assert told[-1]["state"] == "running"
        states = [each["state"] for each in found[0]]
        assert states[0] == "starting"
        assert any(each.get("progress") == 0.5 for each in found[0])
        assert (await rig.command("start", model=A))[-1]["state"] == "running", "at once where it runs"


async def test_a_stop_ends_what_starts(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file, behave=Behaviour(ready_after=None)) as rig:
        starting = asyncio.create_task(rig.command("start", model=A))
        await rig.engine.until(lambda: rig.engine.states() == {A: "starting"})
        (status,) = await rig.command("stop", model=A)
        assert status["state"] == "stopped"
        with pytest.raises(ModelStopped):
            await starting


async def test_an_unload_takes_nothing_from_anybody(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        with pytest.raises(InvalidRequest, match=r"is not unloaded: .*served"):
            await rig.command("unload", model=A)
        rig.api.gate.set()
        await first.reading
        (status,) = await rig.command("unload", model=A)
        assert status["state"] == "stopped"


async def test_a_list_of_many_models_comes_in_pieces_that_fit(file: Path) -> None:
    write_registry(file, *(entry(f"model-{number}-{'x' * 150}") for number in range(1000)))
    async with running(file) as rig:
        found = await rig.command("list")
        assert len(found) > 1
        assert max(len(msgspec.json.encode(piece)) for piece in found) <= MAX_COMMAND_BYTES
        assert len(models_of(found)) == 1000
        assert {"budget_bytes", "used_bytes"} <= found[0]["memory"].keys()
        assert found[0]["devices"] == []
        assert found[0]["registry"] == {"path": str(file), "fault": ""}
        assert len(rig.engine.status().offers) == 1000


async def test_the_lines_of_a_crashed_model_fit_into_its_status(file: Path) -> None:
    write_registry(file, entry("a", restart="never"))
    lines = tuple(f"{number} " + "\x07" * 990 for number in range(20))
    async with running(file, behave=Behaviour(fails="broken", lines=lines)) as rig:
        with pytest.raises(EngineFailed):
            await rig.command("start", model=A)
        (piece,) = await rig.command("list")
        assert len(msgspec.json.encode(piece)) <= MAX_COMMAND_BYTES
        assert piece["models"][0]["exit"]["lines"] == [lines[-1]]


async def test_logs_are_told_and_followed(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file, behave=Behaviour(lines=("loads", "listens"))) as rig:
        await rig.command("start", model=A)
        first, newest = (await rig.command("logs", model=A))[-2:]
        assert (first["line"], newest["line"]) == ("loads", "listens")
        assert await rig.command("logs", model=A, after=first["id"]) == [newest]
        assert (await rig.command("logs", model=A, after="0-0"))[0] == {"reset": True}
        assert [each["line"] for each in await rig.command("logs", model=A, lines=1)] == ["listens"]
        assert await rig.command("logs", model=A, lines=0) == []
        followed = rig.engine.command("models.logs", {"model": A, "lines": 1, "follow": True})
        assert isinstance(followed, AsyncGenerator)
        assert await anext(followed) == newest
        more = asyncio.ensure_future(anext(followed))
        await rig.command("stop", model=A)
        await rig.command("start", model=A)
        seen = await expect(more, "a line of its next life")
        assert "line" in seen
        await followed.aclose()


async def test_a_pin_is_kept_in_the_registry(file: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file) as rig:
        (status,) = await rig.command("pin", model=A)
        assert (status["pinned"], status["kept"]) == (True, True)
        assert json.loads(file.read_text())["models"][0]["settings"]["pinned"] is True
        (status,) = await rig.command("pin", model=A, pinned=False)
        assert (status.get("pinned", False), status["kept"]) == (False, True)
        file.write_text("broken")
        (status,) = await rig.command("pin", model=A)
        assert (status["pinned"], status["kept"]) == (True, False)
        assert "registry" in status["why"]


async def test_a_model_is_added_and_can_be_started(file: Path, tiny: Path) -> None:
    write_registry(file, entry("a"))
    async with running(file) as rig:
        (status,) = await rig.command("add", model_file_path=str(tiny), settings={"context": 256})
        assert (status["model"], status["context"]) == ("local:tiny:latest", 256)
        assert status["memory_bytes"] > tiny.stat().st_size
        assert rig.engine.states() == {A: "stopped", "local:tiny:latest": "stopped"}
        assert (await rig.command("start", model="local:tiny:latest"))[-1]["state"] == "running"
        assert str(tiny) in rig.launcher.commands[-1].arguments
        with pytest.raises(InvalidRequest, match="already"):
            await rig.command("add", model_file_path=str(tiny))
        with pytest.raises(InvalidRequest, match="nothing-there"):
            await rig.command("add", model_file_path=str(tiny.with_name("nothing-there.gguf")))
        cut = tiny.with_name("cut.gguf")
        cut.write_bytes(tiny.read_bytes()[:-4096])
        with pytest.raises(InvalidRequest, match="is cut off"):
            await rig.command("add", model_file_path=str(cut))
        with pytest.raises(InvalidRequest, match="slots"):
            await rig.command("add", model_file_path=str(tiny), name="none", settings={"slots": 0})
        assert rig.engine.states().keys() == {A, "local:tiny:latest"}
        (offer,) = (each for each in rig.engine.status().offers if each.model != A)
        assert (offer.context, offer.features["json"]) == (256, True)


async def test_what_is_added_brings_no_command_unless_the_machine_allows_it(file: Path) -> None:
    write_registry(file, entry("a"))
    brought: dict[str, Any] = {"name": "x", "settings": {"command": ["sh", "-c", "echo"]}}
    async with running(file) as rig:
        with pytest.raises(InvalidRequest, match=r"engine\.add_commands"):
            await rig.command("add", **brought)
        with pytest.raises(InvalidRequest, match=r"engine\.add_commands"):
            await rig.command("add", name="x", settings={"environment": {"LD_PRELOAD": "/tmp/x.so"}})
        assert rig.engine.states() == {A: "stopped"}
    async with running(file, add_commands=True) as rig:
        (status,) = await rig.command("add", **brought)
        assert status["model"] == "local:x:latest"


async def test_a_folder_is_imported(file: Path, tiny: Path, tmp_path: Path) -> None:
    write_registry(file, entry("a"))
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "one.gguf").write_bytes(tiny.read_bytes())
    (folder / "cut.gguf").write_bytes(tiny.read_bytes()[:-4096])
    async with running(file) as rig:
        for expected in ("added", "present"):
            found: dict[str, Any] = {}
            for piece in await rig.command("import", kind="gguf", path=str(folder)):
                found |= {name: found.get(name, []) + told for name, told in piece.items()}
            (name,) = found[expected]
            assert "one" in name
            (skipped,) = found["skipped"]
            assert skipped["about"].endswith("cut.gguf")
            assert rig.engine.states() == {A: "stopped", name: "stopped"}


# A registry that changes


async def test_a_registry_that_changes_changes_what_is_offered_and_nothing_that_runs(file: Path) -> None:
    write_registry(file, entry("a", on_demand=True), entry("b"))
    async with running(file) as rig:
        rig.api.gate.clear()
        first = Answer(rig.engine, chat(A))
        await rig.api.begun.wait()
        write_registry(file, entry("a", slots=2), entry("c"))
        await rig.engine.until(lambda: rig.engine.states() == {A: "ready", "local:c:1": "stopped"})
        file.write_text('{"models": [')
        await rig.engine.until(lambda: rig.engine.status().detail)
        assert str(file) in rig.engine.status().detail
        assert rig.engine.status().state == "ready"
        assert rig.engine.states() == {A: "ready", "local:c:1": "stopped"}, "the last good one counts"
        (piece,) = await rig.command("list")
        assert piece["registry"]["fault"] == rig.engine.status().detail
        rig.api.gate.set()
        assert await first.reading
        assert rig.launcher.starts == {A: 1}
        write_registry(file, entry("c"))
        await rig.engine.until(lambda: rig.engine.states() == {"local:c:1": "stopped"})
        await polled(lambda: not rig.launcher.processes, "what is no longer in the registry ends")
        assert rig.engine.status().detail == ""


@pytest.mark.parametrize("content", [None, "", "{", '{"models": 5}', '{"models": [{}]}'])
async def test_a_registry_that_cannot_be_read_is_said_and_read_once_it_can_be(file: Path, content: str | None) -> None:
    if content is not None:
        file.write_text(content)
    async with running(file) as rig:
        status = rig.engine.status()
        assert (status.state, status.offers) == ("failed", ())
        assert str(file) in status.detail
        write_registry(file, entry("a"))
        await rig.engine.until(lambda: rig.engine.states() == {A: "stopped"})
        assert (rig.engine.status().state, rig.engine.status().detail) == ("ready", "")


async def test_a_model_with_settings_that_cannot_work_harms_no_other(file: Path) -> None:
    write_registry(file, entry("a"), entry("b"))
    async with running(file, models={A: {"memory_bytes": "1 GB"}}) as rig:
        assert set(rig.engine.states()) == {A, B}
        write_registry(file, entry("a"), entry("b", slots=0))
        await rig.engine.until(lambda: "models[1]" in rig.engine.status().detail)
        assert set(rig.engine.states()) == {A, B}


async def test_the_memory_for_prompts_is_bounded_and_counted(file: Path, tiny: Path) -> None:
    write_registry(file, entry("a") | {"model_file_path": str(tiny), "settings": {}})

    async def counted(**options: Any) -> tuple[int, list[str]]:
        async with running(file, **options) as rig:
            (*_, last) = await rig.command("start", model=A)
            arguments = rig.launcher.commands[-1].arguments
            given = arguments[arguments.index("--cache-ram") + 1 :][:1] if "--cache-ram" in arguments else []
            return last["memory_bytes"], list(given)

    none, said = await counted(defaults={"prompt_cache": 0})
    assert said == ["0"]
    assert await counted() == (none + 256 * 2**20, ["256"])
    assert await counted(models={A: {"prompt_cache": 1000}}) == (none + 1000 * 2**20, ["1000"])
    assert await counted(defaults={"prompt_cache": None}) == (none, []), "the server's own is not known"


@pytest.mark.parametrize("harm", ["missing", "cut", "no gguf"])
async def test_a_file_that_is_not_as_it_must_be_is_said_by_its_start(file: Path, tiny: Path, harm: str) -> None:
    path = tiny.with_name("harmed.gguf")
    path.write_bytes(b"no model" * 100 if harm == "no gguf" else tiny.read_bytes()[:-4096])
    if harm == "missing":
        path.unlink()
    members = entry("t") | {"model_file_path": str(path), "settings": {}}
    write_registry(file, members, entry("b", on_demand=True))
    async with running(file) as rig:
        assert rig.engine.states() == {"local:t:1": "stopped", B: "stopped"}
        with pytest.raises(EngineFailed, match=r"harmed\.gguf"):
            await rig.command("start", model="local:t:1")
        assert await text(rig, B)
        path.write_bytes(tiny.read_bytes())
        assert (await rig.command("start", model="local:t:1"))[-1]["state"] == "running", "a start looks again"


async def test_without_llama_cpp_a_start_says_what_is_missing(file: Path, tiny: Path) -> None:
    write_registry(file, entry("t") | {"model_file_path": str(tiny), "settings": {}})
    async with running(file, server="/nowhere/llama-server") as rig:
        with pytest.raises(EngineFailed, match="/nowhere/llama-server"):
            await rig.command("start", model="local:t:1")


async def test_weights_are_named_and_a_running_server_tells_what_its_model_can(file: Path, tiny: Path) -> None:
    write_registry(file, entry("t") | {"model_file_path": str(tiny), "settings": {"on_demand": True}})
    async with running(file) as rig:
        await rig.engine.until(lambda: rig.engine.status().offers[0].digest)
        (offer,) = rig.engine.status().offers
        assert offer.digest.startswith("blake2b-blocks:")
        assert (offer.context, "tools" in offer.features) == (4096, False)
        assert await text(rig, "local:t:1")
        await rig.engine.until(lambda: rig.engine.status().offers[0].features.get("tools"))
        (offer,) = rig.engine.status().offers
        assert (offer.context, offer.features["vision"], offer.features["resume"]) == (2048, False, True)
        (status,) = await rig.command("status", model="local:t:1")
        assert status["digest"] == offer.digest


async def test_programs_beside_the_agent_ask_it_by_its_own_routes(file: Path) -> None:
    write_registry(file, entry("a"), entry("b", on_demand=True))
    async with running(file, local_api={"enabled": True}) as rig:
        (record,) = running_apis()
        headers = {"Authorization": f"Bearer {record.token}"}
        async with aiohttp.ClientSession(record.url, headers=headers) as http:
            async with http.post("/v1/chat/completions", json=json.loads(chat(A).body)) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (409, "model_stopped")
            async with http.post(f"/v1/models/{A}/start") as answer:
                assert (answer.status, (await answer.json())["state"]) == (200, "running")
            for model in (A, B):
                async with http.post("/v1/chat/completions", json=json.loads(chat(model).body)) as answer:
                    told = await answer.json()
                    assert told["choices"][0]["message"]["content"] == f"{model} says hello"
            brought = {"name": "x", "settings": {"command": ["serve", "x"]}}
            async with http.post("/v1/models", json=brought) as answer:
                assert (answer.status, (await answer.json())["model"]) == (200, "local:x:latest")
            async with http.get("/v1/models") as answer:
                listed = (await answer.json())["data"]
        assert {each["id"]: each["state"] for each in listed} == {
            A: "running",
            B: "running",
            "local:x:latest": "stopped",
        }
        assert rig.engine.states()["local:x:latest"] == "stopped"
    assert running_apis() == []


async def test_requests_of_models_that_take_turns_are_each_answered_through_the_pipeline(file: Path) -> None:
    """Two models of which one fits, asked in turn: swaps are bounded by their turns, whoever sends the requests."""
    write_registry(file, entry("a", on_demand=True), entry("b", on_demand=True))
    turn, load, count = 0.2, 0.02, examples(60)
    rng = random.Random(None if SOAK else 17)
    api = ModelApi()
    await api.up()
    config = {"registry": file, "memory_budget": 1000, "turn": turn, "defaults": {"memory_bytes": 600}}
    launcher = ServedLauncher(api, Behaviour(ready_after=load, stops_after=0.005), 1000)
    engine = Engine(ModelsConfig.model_validate(config), launcher=launcher, devices=FewDevices())
    patience = FACTOR * (30 + count * 0.1)
    try:
        async with serving(engine, timeout=patience) as served, served.client() as client:
            began = time.monotonic()

            async def ask(number: int) -> str:
                model = (A, B)[number % 2]
                messages: list[Any] = [{"role": "user", "content": f"number {number}"}]
                answer = await client.chat.completions.create(model=model, messages=messages)
                return str(answer.choices[0].message.content)

            asked = []
            for number in range(count):
                asked.append(asyncio.create_task(ask(number)))
                await asyncio.sleep(rng.uniform(0.03, 0.1) / (1 if SOAK else 3))
            found = await asyncio.gather(*asked)
            elapsed = time.monotonic() - began
            assert found == [f"{(A, B)[number % 2]} says hello" for number in range(count)]
            swaps = engine.status().resources["model_swaps"]
            assert 1 <= swaps <= elapsed / (turn + load) + 2
            assert not launcher.faults
    finally:
        await api.down()

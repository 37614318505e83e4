"""The view of models in a browser: what the fleet offers, and the model processes of one agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.integration.gateway_serving import ScriptedEngine, says
from tests.ui.browsers import Page
from tests.ui.viewer import HOSTILE, MARKS, viewing

from anywire.errors import EngineFailed
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.offers import Offer
from anywire.testing.patience import expect

pytestmark = MARKS
MODEL = "local:smol:1"


class ModelsEngine(ScriptedEngine):
    name = "models"


class Processes:
    """The commands of an agent with two models: one runs or not, and one whose start fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.state = "stopped"
        self.pinned = False
        self.may_run = asyncio.Event()
        self.lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.log_ended = asyncio.Event()
        offered = (
            Offer(MODEL, ("chat",), {"tools": True, "vision": False}, "stopped", context=2048, on_demand=True),
            Offer(HOSTILE, ("embedding",), state="crashed", detail=f"killed {HOSTILE}"),
        )
        self.engine = ModelsEngine(says("hello").script, offered)
        for name in ("list", "start", "stop", "pin", "logs", "add"):
            self.engine.commands[f"models.{name}"] = getattr(self, name)

    def status(self, **more: Any) -> dict[str, Any]:
        told = {"model": MODEL, "state": self.state, "reason": "asked to", "pinned": self.pinned, "since": 1.7e9}
        return told | {"memory_bytes": 3 << 30, "serving": 2, "waiting": 1, "device": "cpu"} | more

    async def list(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        about = {
            "memory": {"budget_bytes": 8 << 30, "used_bytes": 3 << 30},
            "devices": [{"device": "gpu:0", "name": HOSTILE, "vram_total_bytes": 8 << 30, "vram_free_bytes": 2 << 30}],
            "registry": {"path": "/models/registry.json", "fault": ""},
        }
        yield {"models": [self.status()], **about}
        crashed = {"model": HOSTILE, "state": "crashed", "exit": {"reason": f"killed {HOSTILE}"}}
        yield {"models": [crashed], **about}

    async def start(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(("start", arguments))
        if arguments["model"] != MODEL:
            raise EngineFailed(f"there is no room for {HOSTILE}")
        self.state = "starting"
        yield self.status(progress=0.4)
        await self.may_run.wait()
        self.state = "running"
        yield self.status()

    async def stop(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(("stop", arguments))
        self.state = "stopped"
        yield self.status()

    async def pin(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(("pin", arguments))
        self.pinned = arguments["pinned"]
        yield self.status(kept=True)

    async def logs(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(("logs", arguments))
        try:
            while True:
                yield await self.lines.get()
        finally:
            self.log_ended.set()

    async def add(self, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.asked.append(("add", arguments))
        yield self.status(model="local:new:1")


async def test_models_are_listed_with_what_agents_say_of_them(tab: Page, tmp_path: Path) -> None:
    at = Processes()
    async with viewing(tab, tmp_path, at.engine) as viewer:
        await viewer.open("models")
        await viewer.shows(HOSTILE)
        await viewer.shows("stopped, starts on demand")
        await viewer.shows("tools, no vision")
        await viewer.shows("2,048")
        await viewer.press("1 agent")
        await viewer.shows("agent over memory: ")
        await viewer.shows("3.0 GiB of 8.0 GiB taken by models; registry /models/registry.json")
        await viewer.shows(": 2.0 GiB of 8.0 GiB free")
        await viewer.looks_well("models")


async def test_a_model_is_started_pinned_and_stopped(tab: Page, tmp_path: Path) -> None:
    at = Processes()
    async with viewing(tab, tmp_path, at.engine) as viewer:
        await viewer.open("models")
        await viewer.press(f"Start {MODEL}")
        await viewer.until("return document.querySelector('td progress:not([hidden])')?.value === 0.4", "progress")
        await viewer.looks_well("models-starting")
        at.may_run.set()
        await viewer.press(f"Stop {MODEL}")
        assert [name for name, _ in at.asked] == ["start"]
        await viewer.press(f"Really stop {MODEL}?")
        await viewer.press(f"Pin {MODEL}")
        await viewer.press(f"Unpin {MODEL}")
        await viewer.until(f"return document.querySelector('[aria-label=\"Pin {MODEL}\"]')", "it is not pinned")
        assert [(name, told.get("pinned")) for name, told in at.asked] == [
            ("start", None),
            ("stop", None),
            ("pin", True),
            ("pin", False),
        ]
        await viewer.nothing_went_wrong()
        await viewer.press(f"Start {HOSTILE}")
        await viewer.shows("there is no room for <img")
        await viewer.has_no_markup()


async def test_a_log_is_followed_and_goes_on_after_its_newest_line(tab: Page, tmp_path: Path) -> None:
    at = Processes()
    async with viewing(tab, tmp_path, at.engine) as viewer:
        await viewer.open("models")
        await viewer.press(f"Log of {MODEL}")
        at.lines.put_nowait({"line": f"it begins {HOSTILE}", "id": "a-1"})
        at.lines.put_nowait({"missed": 12})
        await viewer.shows(f"it begins {HOSTILE}")
        await viewer.shows("12 lines are not kept any more")
        for number in range(2100):
            at.lines.put_nowait({"line": f"line {number}", "id": f"b-{number}"})
        await viewer.shows("line 2099")
        assert await viewer.run("return document.querySelector('.log').childElementCount") == 2000
        await viewer.looks_well("models-log")
        await viewer.press("Close the log")
        await expect(at.log_ended.wait(), "the agent need not tell any more")
        assert at.asked[-1] == ("logs", {"model": MODEL, "lines": 200, "follow": True})


async def test_a_model_file_is_added(tab: Page, tmp_path: Path) -> None:
    at = Processes()
    async with viewing(tab, tmp_path, at.engine) as viewer:
        await viewer.open("models")
        await viewer.press("Add models")
        await viewer.put("path", "/models/new.gguf")
        await viewer.press("Add")
        await viewer.shows("Added local:new:1.")
        assert at.asked == [("add", {"model_file_path": "/models/new.gguf"})]


async def test_whoever_may_not_operate_sees_models_and_why_he_may_not_start_them(tab: Page, tmp_path: Path) -> None:
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, role="use"))
    at = Processes()
    async with viewing(tab, tmp_path, at.engine, access=KeyAccess(tmp_path / "keys.json")) as viewer:
        await viewer.open("models")
        await viewer.sign_in(str(key))
        await viewer.shows(MODEL)
        await viewer.shows("needs the role operate; you have use")
        assert not await viewer.run("return document.querySelector('[name=agent]')")
        await viewer.looks_well("models-use")


async def test_an_agent_without_model_processes_says_so(tab: Page, tmp_path: Path) -> None:
    engine: ScriptedEngine = says("hello")
    async with viewing(tab, tmp_path, engine) as viewer:
        await viewer.open("models")
        await viewer.until("return document.querySelector('[name=agent]')?.options.length === 2", "the agent")
        await viewer.put("agent", "agent")
        await viewer.shows("This agent runs no model processes")


async def test_a_command_whose_connection_is_lost_may_have_been_done(tab: Page, tmp_path: Path) -> None:
    async with viewing(tab, tmp_path, says("hello")) as viewer:
        await viewer.open("keys")
        for ends in ("throw new TypeError('network error');", ""):
            told = await viewer.run_module(
                "const { commanded } = await import('/ui/commands.js'); const seen = [];"
                f"const api = {{ async *stream() {{ yield {{ event: 'message', data: '{{\"a\": 1}}' }}; {ends} }} }};"
                "try { for await (const each of commanded(api, 'agent', 'models.stop')) seen.push(each); }"
                "catch (error) { return [seen, error.message, error.code]; }"
            )
            assert told == [[{"a": 1}], "The connection was lost. What was asked may have been done.", "broken_off"]

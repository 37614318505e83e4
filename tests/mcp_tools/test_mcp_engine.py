"""The engine ``mcp``: what passes through, what it offers, its commands, and a real chat with a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.fake_openai_server import FakeServer, server, step, stream
from tests.mcp_tools.scripted_model import ScriptedModel, calls, chat, says
from tests.mcp_tools.servers import plain, real, until

from anywire.config_layers import load
from anywire.engine import Delta, EngineProgress
from anywire.errors import ConfigError, EngineFailed, InvalidRequest, ModelStopped, UnknownCommand
from anywire.messages import MAX_COMMAND_BYTES, TaskRequest
from anywire.plugins import Plugins
from anywire.roles.assembly import make_engine
from anywire.testing.patience import expect, polled
from anywire_engine_mcp.commands import told
from anywire_engine_mcp.config import McpConfig
from anywire_engine_mcp.engine import McpEngine
from anywire_engine_mcp.host import McpStatus
from anywire_engine_mcp.tools import McpTool

__all__ = ["server"]


@asynccontextmanager
async def engine_with(model: Any, servers: dict[str, Any], **settings: Any) -> AsyncIterator[McpEngine]:
    made = McpEngine(McpConfig(inner={"name": "scripted_model"}, servers=servers, **settings))
    made.assemble(lambda name, options, where: model)
    made.changes = 0  # type: ignore[attr-defined]

    def changed() -> None:
        made.changes += 1  # type: ignore[attr-defined]

    try:
        await expect(made.start(changed), "the engine starts")
        yield made
    finally:
        await expect(made.close(), "the engine closes")


async def collected(engine: McpEngine, task: TaskRequest) -> list[Delta | EngineProgress]:
    return [each async for each in engine.run(task)]


async def results_of(engine: McpEngine, name: str, **arguments: Any) -> list[Any]:
    return [each async for each in engine.command(name, arguments)]


def text(deltas: list[Delta | EngineProgress]) -> str:
    return "".join(each.text for each in deltas if isinstance(each, Delta))


async def test_what_names_no_server_goes_straight_through() -> None:
    model = ScriptedModel([says("hi"), says("hi")])
    async with engine_with(model, {"maths": plain()}) as engine:
        plain_chat = TaskRequest("hub", "t", 1, "chat", "m", '{"messages": [], "tools": []}', resume="It")
        assert text(await collected(engine, plain_chat)) == "hi"
        assert model.tasks == [plain_chat]
        completion = TaskRequest("hub", "t", 1, "completion", "m", '{"prompt": "\\"mcp\\""}')
        assert text(await collected(engine, completion)) == "hi"
        assert engine.capabilities == ("chat", "completion", "resume")
        assert engine.resumable(plain_chat)
        assert not engine.resumable(chat("maths"))
        assert await results_of(engine, "models.list") == [{"models": []}]
        with pytest.raises(UnknownCommand):
            engine.command("other", {})
    assert (model.told, model.closed) == (["start"], 1)


async def test_a_chat_calls_a_real_tool_and_tells_of_it() -> None:
    model = ScriptedModel([calls(("add", {"a": 2, "b": 40})), says("42")])
    async with engine_with(model, {"maths": plain(autostart=False)}) as engine:
        events = aiter(engine.command("mcp.events", {}))
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        deltas = await expect(collected(engine, chat("maths")), "the chat ends")
        assert text(deltas) == "42"
        progress = [each for each in deltas if isinstance(each, EngineProgress)]
        assert progress[0] == EngineProgress("loading", "the MCP server maths")
        assert EngineProgress("tool", "maths/add") in progress
        seen = [await expect(waiting, "an event")]
        while seen[-1]["event"] != "call":
            seen.append(await expect(anext(events), "an event"))
        states = dict.fromkeys(each["state"] for each in seen if each["event"] == "server")
        assert list(states) == ["starting", "running"]
        assert (seen[-1]["server"], seen[-1]["tool"], seen[-1]["task_id"]) == ("maths", "add", "task")
        await events.aclose()  # type: ignore[attr-defined]


async def test_offers_say_which_servers_a_chat_may_name() -> None:
    servers = {"lazy": plain(autostart=False), "strict": plain(autostart=False, on_demand=False)}
    async with engine_with(ScriptedModel(), servers) as engine:
        with_chat, embeds = engine.status().offers
        assert with_chat.features == {"tools": True, "mcp:lazy": True, "mcp:strict": False}
        assert embeds.features == {}
        assert engine.status() is engine.status(), "it is cheap"
        await results_of(engine, "mcp.start", server="strict")
        assert engine.status().offers[0].features["mcp:strict"] is True
        assert engine.changes >= 1  # type: ignore[attr-defined]


async def test_a_stopped_server_and_an_unknown_one_are_clear_errors() -> None:
    async with engine_with(ScriptedModel(), {"strict": plain(autostart=False, on_demand=False)}) as engine:
        with pytest.raises(ModelStopped, match="anywire mcp start strict"):
            await collected(engine, chat("strict"))
        with pytest.raises(InvalidRequest, match="no MCP server 'other' here: known: strict"):
            await collected(engine, chat("other"))
    dead = plain("--exit", "1", autostart=False, restart="never")
    async with engine_with(ScriptedModel(), {"dead": dead}) as engine:
        with pytest.raises(EngineFailed, match=r"'dead' does not run: .*exited with status 1") as caught:
            await collected(engine, chat("dead"))
        assert caught.value.status == 424


async def test_commands_list_start_stop_call_and_tell_the_log() -> None:
    async with engine_with(ScriptedModel(), {"maths": plain(autostart=False)}) as engine:
        (listed,) = await results_of(engine, "mcp.list")
        assert [(each["server"], each["state"], each["tools"]) for each in listed["servers"]] == [
            ("maths", "stopped", [])
        ]
        (started,) = await results_of(engine, "mcp.start", server="maths")
        assert (started["state"], started["tools"]) == ("running", 11)
        (status,) = await results_of(engine, "mcp.status", server="maths")
        assert len(status["tools"]) == 11
        (called,) = await results_of(engine, "mcp.call", server="maths", tool="add", arguments={"a": 1, "b": 2})
        assert called == {"text": "3", "is_error": False}
        (failed,) = await results_of(engine, "mcp.call", server="maths", tool="fail")
        assert failed == {"text": "it went wrong", "is_error": True}
        (line,) = await results_of(engine, "mcp.logs", server="maths", lines=5)
        assert line["line"] == "ready to listen"
        assert await results_of(engine, "mcp.logs", server="maths", after=line["id"]) == []
        assert await results_of(engine, "mcp.logs", server="maths", after="of another life") == [{"reset": True}, line]
        (again,) = await results_of(engine, "mcp.restart", server="maths")
        assert again["pid"] != started["pid"]
        (stopped,) = await results_of(engine, "mcp.stop", server="maths")
        assert stopped["state"] == "stopped"
        big = "\N{GREEK SMALL LETTER PI}" * 60_000
        (cut,) = await results_of(engine, "mcp.call", server="maths", tool="echo", arguments={"text": big})
        assert len(json.dumps(cut, ensure_ascii=False).encode()) <= MAX_COMMAND_BYTES
        with pytest.raises(UnknownCommand, match=r"mcp\.list"):
            engine.command("mcp.other", {})
        for name, arguments, words in (
            ("mcp.start", {}, "server must be"),
            ("mcp.start", {"server": "other"}, "no MCP server 'other'"),
            ("mcp.call", {"server": "maths"}, "tool must be"),
            ("mcp.call", {"server": "maths", "tool": "add", "arguments": []}, "tool must be"),
            ("mcp.logs", {"server": "maths", "lines": -1}, "lines must be"),
            ("mcp.logs", {"server": "maths", "after": 5}, "after must be"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                await results_of(engine, name, **arguments)
        with pytest.raises(EngineFailed, match="'b'"):
            await results_of(engine, "mcp.call", server="maths", tool="add", arguments={"a": 1})


def test_long_lists_are_told_in_pieces() -> None:
    tools = tuple(McpTool(f"tool{number}", "x" * 20_000, {"type": "object"}) for number in range(10))
    pieces = told(McpStatus("a", "running", tools=(*tools, McpTool("huge", "y" * 60_000))))
    assert all(len(json.dumps(piece)) < MAX_COMMAND_BYTES for piece in pieces)
    assert [tool["name"] for piece in pieces for tool in piece["tools"]] == [*(each.name for each in tools), "huge"]
    assert pieces[0]["state"] == "running"
    assert {piece["server"] for piece in pieces} == {"a"}


async def test_a_failed_start_of_the_inner_engine_leaves_no_server() -> None:
    class Broken(ScriptedModel):
        async def start(self, changed: Any) -> None:
            raise EngineFailed("no model")

    model = Broken()
    with pytest.raises(EngineFailed, match="no model"):
        async with engine_with(model, {"maths": plain()}) as engine:
            raise AssertionError(engine)
    assert model.closed == 1


async def test_the_inner_engine_is_made_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "anywire.yaml"
    settings = {
        "agent": {"slots": 3},
        "engine": {
            "name": "mcp",
            "inner": {"name": "llama", "model": "smollm2"},
            "servers": {"files": {"command": ["program"], "env": {"KEY": "secret-8d21"}}},
        },
    }
    path.write_text(json.dumps(settings))
    made = make_engine(load(path, environment={}), Plugins())
    assert isinstance(made, McpEngine)
    assert made.inner.config.slots == 3, "settings of the core reach it, too"
    path.write_text(json.dumps(settings | {"engine": {"name": "mcp", "inner": {"name": "llama", "modell": "x"}}}))
    with pytest.raises(ConfigError, match=r"unknown key 'engine\.inner\.modell': did you mean 'model'"):
        make_engine(load(path, environment={}), Plugins())
    path.write_text(json.dumps({"engine": {"name": "mcp", "inner": {"name": "mcp"}}}))
    with pytest.raises(ConfigError, match="another engine than mcp"):
        make_engine(load(path, environment={}), Plugins())


def wants(call: dict[str, Any]) -> bytes:
    return step(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": call}])


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_real_server_is_called_for_a_model_behind_an_openai_server(server: FakeServer, streamed: bool) -> None:
    """The engine ``openai`` inside, the SDK's own server as a child."""

    async def answer(request: Any) -> Any:
        from aiohttp import web

        asked = server.requests[-1]
        found = [each["content"] for each in asked["messages"] if each["role"] == "tool"]
        call = {"name": "temperature", "arguments": '{"room": "lab"}'}
        if not asked.get("stream"):
            whole = [{"id": "call-1", "type": "function", "function": call}]
            message = {"role": "assistant", "content": f"I read: {found[0]}"} if found else {"tool_calls": whole}
            finish = "stop" if found else "tool_calls"
            return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
        if found:
            return await stream(request, step("I read: "), step(found[0]), step(finish="stop"))
        return await stream(request, wants(call), step(finish="tool_calls"))

    server.handler = answer
    config = McpConfig(
        inner={"name": "openai", "base_url": server.url, "refresh_interval": 0}, servers={"measures": real()}
    )
    engine = McpEngine(config)
    plugins = Plugins()
    engine.assemble(lambda name, options, where: plugins.create("engines", name, options, where))
    try:
        await expect(engine.start(lambda: None), "it starts")
        await until(engine.host, "measures", "running")
        deltas = await expect(collected(engine, chat("measures", stream=streamed)), "the chat ends")
        assert text(deltas) == "I read: lab: 21.5 degrees"
        assert server.requests[0]["tools"][0]["function"]["name"] == "temperature"
        assert engine.status().offers[0].features["mcp:measures"]
    finally:
        await expect(engine.close(), "it closes")
    await polled(lambda: engine.host.status("measures").state == "stopped", "its server has ended")

"""MCP servers of an app: kept in its file, run, and called by a model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.desktop.bridges import App, CallFailed, bridge
from tests.models.tiny_model import tiny, written_tiny

__all__ = ["tiny", "written_tiny"]

pytestmark = pytest.mark.timeout(240)

HERE = Path(__file__).parent
ADDING = {"command": sys.executable, "args": [str(HERE / "adding_server.py")], "autostart": False}


def program(folder: Path) -> str:
    """A llama-server that calls tools, as a program."""
    path = folder / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "tool_calling_server.py"} "$@"\n')
    path.chmod(0o755)
    return str(path)


async def ask(app: App, message: str, **more: Any) -> list[dict[str, Any]]:
    """All that is said of an answer."""
    await app.call("send_message", session_id="s", message=message, **more)
    return app.messages[app.number]


async def test_a_model_calls_a_tool_of_a_server(tmp_path: Path, tiny: Path) -> None:
    async with bridge(tmp_path / "settings") as app:
        await app.call("start_llama_server", model_path=str(tiny), binary_path=program(tmp_path), ctx_size=512)
        said = await ask(app, "Hello")
        assert said == [{"thinking_chunk": "I count"}, {"chunk": "1 messages"}, {"status": "done"}]
        await app.call("mcp_add", name="adding", server=ADDING)
        assert (await app.call("mcp_connect", name="adding"))["state"] == "running"
        said = await ask(app, "20 + 20?")
        kinds = [next(iter(each)) for each in said]
        assert kinds == ["thinking_chunk", "tool_call", "tool_result", "chunk", "chunk", "status"]
        assert json.loads(said[1]["tool_call"]["arguments"]) == {"a": 20, "b": 20}
        assert said[2]["tool_result"]["text"] == "40"
        assert said[4]["chunk"] == "40"
        assert (await ask(app, "Count", use_tools=False))[1] == {"chunk": "7 messages"}
        await app.call("mcp_disconnect", name="adding")
        assert (await ask(app, "Count"))[1] == {"chunk": "9 messages"}


async def test_servers_are_kept_changed_and_removed(tmp_path: Path) -> None:
    async with bridge(tmp_path) as app:
        assert await app.call("mcp_list") == []
        await app.call("mcp_add", name="adding", server=ADDING)
        with pytest.raises(CallFailed, match="already"):
            await app.call("mcp_add", name="adding", server=ADDING)
        with pytest.raises(CallFailed):
            await app.call("mcp_add", name="wrong", server={"neither": 1})
        tools = await app.call("mcp_tools_list", name="adding")
        assert [each["name"] for each in tools] == ["add", "fail"]
        result = await app.call("mcp_tools_call", name="adding", tool="add", arguments={"a": 1, "b": 2})
        assert result["text"] == "3"
        assert (await app.call("mcp_tools_call", name="adding", tool="fail"))["is_error"] is True
        with pytest.raises(CallFailed):
            await app.call("mcp_tools_call", name="adding", tool="none")
        (resource,) = await app.call("mcp_resources_list", name="adding")
        assert resource["uri"] == "note://one"
        (content,) = await app.call("mcp_resources_read", name="adding", uri="note://one")
        assert content["text"] == "the note"
        assert psutil.pid_exists((await app.call("mcp_status", name="adding"))["pid"])
        await app.call("mcp_update", name="adding", server={**ADDING, "env": {"A": "1"}})
        with pytest.raises(CallFailed):
            await app.call("mcp_status", name="none")
        imported = await app.call(
            "mcp_import_config", config=json.dumps({"mcpServers": {"adding": ADDING, "second one": ADDING, "odd": {}}})
        )
        assert imported["added"] == ["second-one"]
        assert sorted(imported["skipped"]) == ["adding", "odd"]
        parsed = await app.call("mcp_parse_config", config={"mcpServers": {"a": ADDING, "b": {"disabled": True}}})
        assert (parsed["servers"], list(parsed["skipped"])) == (["a"], ["b"])
        assert sorted(json.loads((tmp_path / "mcp.json").read_text())["mcpServers"]) == ["adding", "second-one"]
        assert os.stat(tmp_path / "mcp.json").st_mode & 0o077 == 0, "it may hold secrets"  # noqa: PTH116
    async with bridge(tmp_path) as app:
        assert [each["server"] for each in await app.call("mcp_list")] == ["adding", "second-one"]
        await app.call("mcp_remove", name="second-one")
        assert list(json.loads((tmp_path / "mcp.json").read_text())["mcpServers"]) == ["adding"]


async def test_what_is_too_much_is_told_and_leaves_the_file_readable(tmp_path: Path) -> None:
    many = {f"s{number}": {"command": "true", "autostart": False} for number in range(70)}
    async with bridge(tmp_path) as app:
        with pytest.raises(CallFailed, match="limit is 64"):
            await app.call("mcp_import_config", config={"mcpServers": many})
        for names in (list(many)[:60], list(many)[60:]):
            imported = await app.call("mcp_import_config", config={"mcpServers": {name: many[name] for name in names}})
        assert len(imported["added"]) == 4
        assert all("limit is 64" in why for why in imported["skipped"].values())
        with pytest.raises(CallFailed, match="limit is 64"):
            await app.call("mcp_add", name="further", server=many["s0"])
    async with bridge(tmp_path) as app:
        assert len(await app.call("mcp_list")) == 64


async def test_a_file_that_a_person_has_written_is_changed_where_the_server_stands(tmp_path: Path) -> None:
    lazy = {"command": "true", "autostart": False}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"servers": {"my notes": lazy, "old one": lazy}, "inputs": []}))
    async with bridge(tmp_path) as app:
        await app.call("mcp_update", name="my-notes", server={**lazy, "args": ["new"]})
        await app.call("mcp_remove", name="old-one")
        with pytest.raises(CallFailed, match="already"):
            await app.call("mcp_add", name="my-notes", server=lazy)
    assert json.loads(file.read_text()) == {"mcpServers": {"my-notes": {**lazy, "args": ["new"]}}, "inputs": []}
    async with bridge(tmp_path) as app:
        assert [each["server"] for each in await app.call("mcp_list")] == ["my-notes"]
        code = {"mcp": {"servers": {"further": lazy}}}
        assert (await app.call("mcp_import_config", config=code))["added"] == ["further"]


async def test_a_file_that_is_broken_keeps_nobody_from_chatting(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "mcp.json").write_text("{")
    async with bridge(folder) as app:
        with pytest.raises(CallFailed, match=r"mcp\.json"):
            await app.call("mcp_list")
        await app.call("start_llama_server", model_path=str(tiny), binary_path=program(tmp_path), ctx_size=512)
        assert (await ask(app, "Hello"))[-1] == {"status": "done"}
        (folder / "mcp.json").write_text("{}")
        assert await app.call("mcp_list") == []

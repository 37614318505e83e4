"""The bridge as an app has it: a real process, real llama.cpp, real ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.desktop.bridges import App, CallFailed, bridge, child, servers
from tests.desktop.ollama_registry import OllamaRegistry
from tests.models.tiny_model import tiny, written_tiny

from anywire.testing.patience import PATIENCE, expect

__all__ = ["tiny", "written_tiny"]

pytestmark = pytest.mark.timeout(240)


async def start(app: App, model: Path, ctx_size: int = 512, **more: Any) -> str:
    text: str = await app.call("start_llama_server", model_path=str(model), ctx_size=ctx_size, **more)
    return text


LONG = 60_000
"""Tokens of context for an answer that goes on until something ends it."""


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(each.get("chunk", "") for each in messages)


async def test_an_app_starts_a_model_and_chats(tmp_path: Path, tiny: Path) -> None:
    async with bridge(tmp_path) as app:
        assert app.events[0][0] == "bridge:ready"
        assert await app.call("is_server_running") is False
        assert await app.call("get_llama_config") is None
        assert await app.call("get_server_metrics") is None
        assert (await app.call("check_server_health_detail"))["error"]
        with pytest.raises(CallFailed, match="start_llama_server first") as failed:
            await app.call("send_message", session_id="s", message="Hello")
        assert failed.value.data["code"] == "model_stopped"

        # As a Tauri app names its arguments.
        told = await app.call(
            "start_llama_server", binaryPath="", modelPath=str(tiny), port=0, ctxSize=512, nGpuLayers=0, parallel=2
        )
        assert "pid" in told
        assert await app.call("is_server_running") is True
        assert await app.call("check_server_health") is True
        detail = await app.call("check_server_health_detail")
        assert detail["healthy"] is True
        assert detail["url"].startswith("http://127.0.0.1:")
        config = await app.call("get_llama_config")
        assert (config["model_path"], config["ctx_size"], config["parallel"]) == (str(tiny), 512, 2)
        metrics = await app.call("get_server_metrics")
        assert metrics["mem_usage"] > 0
        assert 0 <= metrics["cpu_usage"] <= 100
        assert await start(app, tiny, parallel=2) == told, "one that runs is not started again"

        call_id, answer = app.begin(
            "send_message", session_id="s", message="Hello", temperature=0.5, max_tokens=9, on_event="page"
        )
        assert await expect(answer, "the answer") is None
        assert app.messages["page"][-1] == {"status": "done"}
        assert text_of(app.messages["page"])
        assert all(len(each) == 1 for each in app.messages["page"])
        title = await app.call("generate_chat_title", first_user_message="Add 1", first_assistant_message="2")
        assert 0 < len(title) <= 62
        whole = await app.call(
            "complete_chat",
            request={
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 4,
                "top_k": 1,
                "reasoning_budget": 0,
            },
        )
        assert whole["usage"]["completion_tokens"] == 4

        assert await app.call("stop_llama_server")
        assert await app.call("is_server_running") is False
        assert app.states() == ["starting", "running", "stopping", "stopped"]
        assert call_id


async def test_a_conversation_remembers_and_forgets(tmp_path: Path, tiny: Path) -> None:
    async with bridge(tmp_path) as app:
        await start(app, tiny)

        async def prompt_tokens(session: str) -> int:
            """How long the conversation is for the model: what the server counts for one more message."""
            await app.call("send_message", session_id=session, message="word " * 20, max_tokens=2)
            return len(text_of(app.messages[app.number]))

        assert await prompt_tokens("a")
        assert await prompt_tokens("a")
        for _ in range(3):
            with contextlib.suppress(CallFailed):
                await app.call("send_message", session_id="a", message="word " * 120, max_tokens=2)
        with pytest.raises(CallFailed) as failed:
            await app.call("send_message", session_id="a", message="word " * 120, max_tokens=2)
        assert failed.value.data["detail_code"] == "context_length_exceeded"
        await app.call("clear_chat", session_id="a")
        assert await prompt_tokens("a"), "it begins anew"
        history = [{"role": "user", "content": "word " * 400}, {"role": "assistant", "content": "yes"}]
        await app.call("load_history_context", sessionId="b", messages=history)
        with pytest.raises(CallFailed) as failed:
            await app.call("send_message", session_id="b", message="word " * 120, max_tokens=2)
        assert failed.value.data["detail_code"] == "context_length_exceeded"
        assert await prompt_tokens("c"), "conversations do not see each other"


async def test_an_answer_is_stopped_by_the_user(tmp_path: Path, tiny: Path) -> None:
    async with bridge(tmp_path) as app:
        await start(app, tiny, 2 * LONG, parallel=2)
        call_id, answer = app.begin("send_message", session_id="s", message="Hi", max_tokens=100_000)
        await app.until(lambda: app.messages.get(call_id), "the answer begins")
        with pytest.raises(CallFailed, match="under way"):
            await app.call("send_message", session_id="s", message="Hi again")
        assert await app.call("cancel", call_id=call_id) is True
        with pytest.raises(CallFailed) as failed:
            await expect(answer, "its end")
        assert failed.value.code == -32800
        models = (await app.call("list_models"))["models"]
        assert [each.get("serving", 0) for each in models] == [0]
        await app.call("send_message", session_id="s", message="Hi again", max_tokens=2)


async def test_one_server_at_a_time_and_a_start_that_is_stopped(tmp_path: Path, tiny: Path) -> None:
    other = tmp_path / "other.gguf"
    shutil.copy(tiny, other)
    async with bridge(tmp_path) as app:
        starts = [app.begin("start_llama_server", model_path=str(tiny), ctx_size=512)[1] for _ in range(8)]
        results = await expect(asyncio.gather(*starts, return_exceptions=True), "all starts")
        assert sum(isinstance(each, str) for each in results) == 1
        assert all("already starting" in str(each) for each in results if not isinstance(each, str))
        first = await app.call("get_llama_config")
        await start(app, other)
        assert (await app.call("get_llama_config"))["model_path"] == str(other) != first["model_path"]
        models = {each.cmdline()[each.cmdline().index("--model") + 1] for each in servers()}
        assert models == {str(other)}
        _, starting = app.begin("start_llama_server", model_path=str(tiny), ctx_size=512)
        await app.call("stop_llama_server")
        with contextlib.suppress(CallFailed):
            await expect(starting, "the start ends")
        assert await app.call("is_server_running") is False


async def test_what_cannot_start_says_why_and_the_next_one_starts(tmp_path: Path, tiny: Path) -> None:
    cut_off, no_model = Path(shutil.copy(tiny, tmp_path / "cut.gguf")), tmp_path / "text.gguf"
    os.truncate(cut_off, 200_000)
    no_model.write_bytes(b"GG")
    nobody = str(tmp_path / "no-llama-server")
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    faults: list[tuple[str, Path, dict[str, Any]]] = [
        ("missing.gguf", tmp_path / "missing.gguf", {}),
        ("cut off", cut_off, {}),
        ("text.gguf", no_model, {}),
        ("no-llama-server", tiny, {"binary_path": nobody}),
        (f"port {port} is in use", tiny, {"port": port}),
        ("no-template", tiny, {"chat_template_file": str(tmp_path / "no-template")}),
    ]
    async with bridge(tmp_path) as app:
        for words, model, more in faults:
            with pytest.raises(CallFailed) as failed:
                await start(app, model, **more)
            assert words in str(failed.value)
            assert await app.call("is_server_running") is False
            assert servers() == []
        await start(app, tiny, chat_template="{{ messages[0]['content'] }}")
        await app.call("send_message", session_id="s", message="Hi", max_tokens=2)
    taken.close()
    await taken.wait_closed()


async def test_a_server_that_is_killed_is_told_at_once(tmp_path: Path, tiny: Path) -> None:
    async with bridge(tmp_path) as app:
        await start(app, tiny, LONG)
        (status,) = (await app.call("list_models"))["models"]
        call_id, answer = app.begin("send_message", session_id="s", message="Hi", max_tokens=100_000)
        await app.until(lambda: app.messages.get(call_id), "the answer begins")
        os.kill(status["pid"], signal.SIGKILL)
        with pytest.raises(CallFailed, match="SIGKILL"):
            await expect(answer, "the answer ends")
        assert "SIGKILL" in app.messages[call_id][-1]["error"]
        await app.until(lambda: "crashed" in app.states(), "the crash is told")
        await app.until(lambda: app.states()[-1] == "running", "it is started again")
        await app.call("send_message", session_id="s", message="Hi", max_tokens=2)


@pytest.mark.parametrize("how", ["input", "output", "SIGTERM", "SIGKILL"])
async def test_nothing_is_left_however_it_ends(tmp_path: Path, tiny: Path, how: str) -> None:
    async with child(tmp_path) as (app, process):
        await start(app, tiny, LONG)
        call_id, answer = app.begin("send_message", session_id="s", message="Hi", max_tokens=100_000)
        await app.until(lambda: app.messages.get(call_id), "the answer begins")
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        if how == "input":
            app.writer.close()
        elif how == "output":
            transport: Any = process._transport  # type: ignore[attr-defined]
            transport.get_pipe_transport(1).close()
        else:
            process.send_signal(signal.Signals[how])
        status = await expect(process.wait(), "its end", PATIENCE * 2, app.seen)
        assert status == (-signal.SIGKILL if how == "SIGKILL" else 0), app.log.decode()
        _, left = await asyncio.to_thread(psutil.wait_procs, below, PATIENCE)
        assert not left
    if how in ("input", "SIGTERM"):
        with pytest.raises(CallFailed) as failed:
            await answer
        assert failed.value.data["code"] == "shutting_down"


async def test_a_library_is_scanned_saved_and_used(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "settings"
    async with bridge(folder) as app:
        assert await app.call("load_model_library") == {"models": []}
        found = await app.call("scan_models_directory", models_root=str(tiny.parent))
        (entry,) = found["models"]
        assert entry["model_file_path"] == str(tiny)
        entry["my_own_member"] = {"kept": True}
        await app.call("save_model_library", library={"models": [entry], "further": 1})
        assert (await app.call("load_model_library"))["models"][0]["my_own_member"] == {"kept": True}
        assert json.loads((folder / "modelLibrary.json").read_text())["further"] == 1
        name = entry["full_identifier"]
        status = await app.call("start_model", model=name)
        assert status["state"] == "running"
        _, answer = app.begin("send_message", session_id="s", message="Hi", max_tokens=3, model=name, on_event="c")
        await expect(answer, "the answer")
        assert text_of(app.messages["c"])
        assert (await app.call("model_metrics", model=name))["mem_usage"] > 0
        log_id, log = app.begin("model_logs", model=name, lines=5)
        await expect(log, "the log")
        lines = app.messages[log_id]
        assert 0 < len(lines) <= 5
        log_id, log = app.begin("model_logs", model=name, after=lines[0]["id"])
        await expect(log, "the rest of the log")
        assert app.messages[log_id][: len(lines) - 1] == lines[1:]
        await app.call("pin_model", model=name)
        assert (await app.call("model_status", model=name))["pinned"] is True
        with pytest.raises(CallFailed, match="not written"):
            await app.call("save_model_library", library={"models": [entry, entry]})
        with pytest.raises(CallFailed, match="at most 1000"):
            await app.call("save_model_library", library={"models": [entry] * 1001})
        assert (await app.call("model_status", model=name))["state"] == "running"
        (folder / "modelLibrary.json").write_text("{")
        await app.call("stop_model", model=name)
        library = await app.call("load_model_library")
        assert len(library["models"]) == 1, "the last good one counts"


async def test_a_model_is_downloaded_and_chats(tmp_path: Path, tiny: Path) -> None:
    async with OllamaRegistry().up() as registry, bridge(tmp_path) as app:
        registry.add("tiny", await asyncio.to_thread(tiny.read_bytes), "1")
        entry = await app.call("download_model_from_registry", name="tiny:1", registry=registry.url)
        payloads = [payload for name, payload in app.events if name == "download:progress"]
        assert payloads[-1]["downloaded"] == payloads[-1]["total"] > 0
        assert {"digest", "filename"} <= payloads[0].keys()
        root = tmp_path / "models"
        manifest = Path(entry["manifest_path"])
        assert await app.call("parse_model_manifest", model_path=str(manifest), models_root=str(root)) == entry
        below = str(manifest.relative_to(root / "manifests"))
        assert await app.call("parse_model_manifest", model_path=below) == entry
        assert [each["full_identifier"] for each in (await app.call("load_model_library"))["models"]] == [
            entry["full_identifier"]
        ]
        await start(app, Path(entry["model_file_path"]))
        await app.call("send_message", session_id="s", message="Hi", max_tokens=2)
        with pytest.raises(CallFailed, match="has no model"):
            await app.call("download_model_from_registry", name="none", registry=registry.url)


async def test_settings_are_kept(tmp_path: Path) -> None:
    async with bridge(tmp_path) as app:
        assert await app.call("get_config_path_string") == str(tmp_path / "config.json")
        assert (await app.call("load_config"))["maxTokens"] == 2048
        await app.call("save_config", config={"theme": "dark"})
        assert (await app.call("load_config"))["theme"] == "dark"
        assert (await app.call("reset_config"))["theme"] == "system"
        commands = await app.call("list_commands")
        assert commands["start_llama_server"][0] == "model_path"


async def test_a_bridge_reads_a_file_and_writes_one(tmp_path: Path) -> None:
    """As in a shell: its end is that of the file, and all is answered."""
    (tmp_path / "in").write_text('{"jsonrpc":"2.0","id":1,"method":"is_server_running"}\nnonsense\n')
    with (tmp_path / "in").open() as read, (tmp_path / "out").open("w") as written:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", "desktop-bridge", "--folder", str(tmp_path)),
            stdin=read,
            stdout=written,
        )
        assert await expect(process.wait(), "its end", PATIENCE * 2) == 0
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [each["error"]["code"] for each in lines if "error" in each and each["id"] is None] == [-32700]
    assert any(each.get("id") == 1 for each in lines)


async def test_calls_at_random_are_all_answered(tmp_path: Path, tiny: Path) -> None:
    """Whatever an app calls at once, each call has one answer, and one server is there at most."""
    chance = random.Random(4)
    async with bridge(tmp_path) as app:
        answers = []
        for number in range(60):
            name = chance.choice(
                ["start_llama_server", "stop_llama_server", "send_message", "send_message", "is_server_running",
                 "get_server_metrics", "check_server_health", "clear_chat", "cancel", "complete_chat"]
            )  # fmt: skip
            every: dict[str, dict[str, Any]] = {
                "start_llama_server": {"model_path": str(tiny), "ctx_size": chance.choice([256, 512])},
                "send_message": {"session_id": str(number % 3), "message": "Hi", "max_tokens": 5},
                "clear_chat": {"session_id": str(number % 3)},
                "cancel": {"call_id": max(1, number - 2)},
                "complete_chat": {"request": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3}},
            }
            answers.append(app.begin(name, **every.get(name, {}))[1])
            if chance.random() < 0.3:
                with contextlib.suppress(CallFailed):
                    await app.call("is_server_running")
        results = await expect(asyncio.gather(*answers, return_exceptions=True), "all answers", PATIENCE * 2)
        assert all(not isinstance(each, BaseException) or isinstance(each, CallFailed) for each in results)
        assert not [each for each in results if isinstance(each, CallFailed) and each.code == -32603]

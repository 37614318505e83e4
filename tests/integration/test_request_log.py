"""The log's line for each request over HTTP and WebSocket, and the log of a fleet from its start to Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, serving
from tests.integration.test_cli import Running, anywire

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.log_lines import JsonLines, TextLines
from anywire.messages import TaskRequest

pytestmark = pytest.mark.timeout(120)

LOGGER = "anywire.request_log"
CHAT = {"model": "m", "messages": MESSAGES}


went_on = asyncio.Event()
"""The client has seen the beginning of its stream, or waits for no stream."""


async def words(task: TaskRequest) -> AsyncGenerator[Delta, None]:
    yield Delta("Hello")
    if "fail" in task.body:
        await went_on.wait()
        raise EngineFailed("it broke")
    yield Delta("", finish_reason="stop")


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[dict[str, Any]]:
    found = [each for each in caplog.records if each.name == LOGGER and each.levelno >= level]
    assert all(TextLines().format(each).isprintable() for each in found)
    return [json.loads(JsonLines().format(each)) for each in found]


async def test_a_request_leaves_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(ScriptedEngine(words)) as served, aiohttp.ClientSession(served.url) as client:
        for body in (CHAT, CHAT | {"stream": True}):
            async with client.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
            (line,) = lines(caplog)
            assert line["message"].startswith(
                "POST /v1/chat/completions 200 model=m agent=agent-1 transport=memory task="
            )
            assert line["task"] == answer.headers["x-anywire-task"]
            assert line["total_ms"] >= line["queued_ms"] >= 0
            assert ("first_ms" in line) is bool(body.get("stream"))
            assert "error" not in line
            caplog.clear()


async def test_a_request_that_fails_leaves_a_line_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    failing = CHAT | {"messages": [{"role": "user", "content": "fail"}]}
    async with serving(ScriptedEngine(words)) as served, aiohttp.ClientSession(served.url) as client:
        for path, body, status, model, error in (
            ("/v1/chat/completions", failing, 502, "m", "engine_failed"),
            ("/v1/chat/completions", failing | {"stream": True}, 200, "m", "engine_failed"),
            ("/v1/chat/completions", CHAT | {"model": "no\x1b[2J\u202e"}, 404, "no\x1b[2J\u202e", "model_not_found"),
            ("/v1/%1b%5b2J%0aERROR", CHAT, 404, None, "not_found"),
        ):
            went_on.clear()
            if not body.get("stream"):
                went_on.set()
            async with client.post(path, json=body) as answer:
                went_on.set()
                await answer.read()
            (line,) = lines(caplog)
            assert (line["status"], line.get("model"), line["error"]) == (status, model, error)
            caplog.clear()


async def test_what_asks_for_no_answer_is_of_no_interest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(ScriptedEngine(words)) as served, aiohttp.ClientSession(served.url) as client:
        for path in ("/health", "/metrics", "/v1/models", "/v1/agents"):
            async with client.get(path) as answer:
                assert answer.status == 200
    assert lines(caplog) == []
    assert len(lines(caplog, logging.DEBUG)) == 4


async def test_a_request_over_websocket_leaves_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        serving(ScriptedEngine(words)) as served,
        aiohttp.ClientSession(served.url) as client,
        client.ws_connect("/v1/ws/chat") as socket,
    ):
        for text in (json.dumps(CHAT), "{"):
            await socket.send_str(text)
            async with asyncio.timeout(TIMEOUT):
                async for message in socket:
                    if message.data == "[DONE]" or "error" in message.data:
                        break
    good, bad = lines(caplog)
    assert good["message"].startswith("WS /v1/ws/chat 200 model=m agent=agent-1")
    assert (bad["status"], bad["error"]) == (400, "invalid_request")


async def test_it_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        serving(ScriptedEngine(words), log_requests=False) as served,
        aiohttp.ClientSession(served.url) as client,
        client.post("/v1/nothing", json=CHAT) as answer,
    ):
        assert answer.status == 404
    assert lines(caplog, logging.DEBUG) == []


def test_a_fleet_from_start_to_end_says_each_thing_once(tmp_path: Path, dds_domain: int) -> None:
    up = Running(
        tmp_path / "log",
        *("up", "--port", "0", "--agents", "2", "--transport", "dds", "--dds-domain", str(dds_domain)),
        *("--engine", "synthetic"),
    )
    try:
        assert anywire("chat", "Hello", "--url", up.url).returncode == 0
    finally:
        up.process.send_signal(2)
        up.process.wait()
    clock = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    found = [re.fullmatch(rf"{clock} (\w+) (.*)", line) for line in up.errors().splitlines()]
    up.end()
    assert all(found), up.errors()
    assert [(each[1], each[2].split()[0]) for each in found if each] == [
        ("INFO", "service"),  # the page
        ("INFO", "agent"),
        ("INFO", "agent"),
        ("INFO", "POST"),
        ("INFO", "stopping:"),
    ]

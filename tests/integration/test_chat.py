"""``anywire chat`` and other client commands against servers of any kind: what they send, show and exit with."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.integration.test_cli_commands import _environment
from tests.patience import PATIENCE

pytestmark = pytest.mark.timeout(120)

PAGE = "<html><body><h1>It works!</h1></body></html>"
WILD = "\x1b[2Jred\u202e[bold]\x07"


class Other:
    """A server that is told what to answer, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[web.BaseRequest, bytes]] = []
        self.answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = page
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        return await self.answer(request)


@asynccontextmanager
async def other() -> AsyncIterator[Other]:
    one = Other()
    runner = web.ServerRunner(web.Server(one, handler_cancellation=True))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await runner.cleanup()


async def page(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=PAGE, content_type="text/html", status=404)


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def streams(*parts: bytes, forever: bool = False) -> Callable[[web.BaseRequest], Any]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "x-anywire-agent": "ada"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if forever:
            await asyncio.Event().wait()
        return response

    return answer


async def run(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    piped = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, "env": _environment()}
    given: dict[str, Any] = piped | options
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments),
        **given,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return process.returncode, (out or b"").decode(), (err or b"").decode()


async def found(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=PAGE, content_type="text/html")


async def numbers(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response([1, 2])


async def strangers(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"object": "list", "data": [{"id": 1}]})


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("chat", "hi"), page),
        (("chat", "hi"), numbers),
        (("chat", "hi", "-m", "m"), found),
        (("chat", "hi", "-m", "m"), streams(b"data: <html>\n\n")),
        (("tasks",), numbers),
        (("agents",), strangers),
        (("tasks",), strangers),
        (("watch", "--once"), page),
    ],
)
async def test_another_server_is_told_apart_and_its_page_is_not_shown(command: tuple[str, ...], answer: Any) -> None:
    async with other() as server:
        server.answer = answer
        status, out, err = await ended(await run(*command, "--url", server.url))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "Anywire server?" in err
    assert "<" not in err


async def test_priority_and_timeout_are_sent() -> None:
    async with other() as server:
        server.answer = streams(event("Hello"), b"data: [DONE]\n\n")
        options = ("--priority", "-3", "--timeout", "1.5", "--max-tokens", "7", "-m", "m")
        status, out, _ = await ended(await run("chat", "hi", *options, "--url", server.url))
    assert (status, out) == (0, "Hello\n")
    ((request, body),) = server.requests
    assert request.headers["x-anywire-priority"] == "-3"
    assert request.headers["x-anywire-timeout"] == "1.5"
    assert json.loads(body)["max_tokens"] == 7


async def test_an_error_after_the_beginning_of_an_answer_begins_on_a_new_line() -> None:
    async with other() as server:
        fault = b'data: {"error": {"message": "it broke", "code": "engine_failed"}}\n\n'
        server.answer = streams(event("Half an"), fault)
        ours, theirs = pty.openpty()
        process = await run("chat", "hi", "-m", "m", "--url", server.url, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = await asyncio.to_thread(to_the_end, ours)
        assert await process.wait() == 1
    assert shown.splitlines() == ["Half an", "error: it broke (engine_failed)"]


async def test_an_answer_cannot_control_the_terminal_and_is_left_as_it_is_elsewhere() -> None:
    async with other() as server:
        server.answer = streams(event(f"a\n\t{WILD}"), b"data: [DONE]\n\n")
        _, out, _ = await ended(await run("chat", "hi", "-m", "m", "--url", server.url))
        assert out == f"a\n\t{WILD}\n"
        ours, theirs = pty.openpty()
        process = await run("chat", "hi", "-m", "m", "--url", server.url, stdout=theirs)
        os.close(theirs)
        shown = await asyncio.to_thread(to_the_end, ours)
        await ended(process)
    assert "\x1b" not in shown
    assert r"\x1b[2Jred\u202e[bold]\x07" in shown


async def test_tables_and_errors_show_nobody_s_text_raw() -> None:
    agent = {
        **dict.fromkeys(("id", "host", "transport", "engine", "detail"), WILD),
        "state": "ready",
        "models": [WILD],
        "pid": 1,
        "slots": 1,
        "load": {"active": 0, "in_flight": 0},
    }
    task = {
        **dict.fromkeys(("id", "why", "agent_id", "transport", "model", "tenant"), WILD),
        "place": "held",
        "age_ms": 1.0,
        "attempt": 1,
        "chunks": 0,
        "priority": 0,
    }

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/stats":  # which ends wait to be let in
            return web.json_response({})
        found = {"/v1/agents": agent, "/v1/tasks": task}.get(request.path)
        if found is None:
            return web.json_response({"error": {"message": WILD, "code": WILD}}, status=400)
        return web.json_response({"data": [found]})

    async with other() as server:
        server.answer = answer
        for command, seen in ((("agents",), 6), (("tasks",), 6), (("chat", "hi", "-m", "m"), 2)):
            _, out, err = await ended(await run(*command, "--url", server.url))
            assert (out + err).count(r"\x1b[2Jred\u202e[bold]\x07") == seen, out + err
            assert all(each.isprintable() or each == "\n" for each in out + err)


async def test_ctrl_c_ends_chat_with_130() -> None:
    async with other() as server:
        server.answer = streams(event("Half an"), forever=True)
        process = await run("chat", "hi", "-m", "m", "--url", server.url)
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readexactly(7) == b"Half an"
        process.send_signal(signal.SIGINT)
        assert await ended(process) == (130, "\n", "")


def to_the_end(terminal: int) -> str:
    text = b""
    while True:
        try:
            text += os.read(terminal, 65536)
        except OSError:  # how the other end of a terminal closes
            os.close(terminal)
            return text.decode()

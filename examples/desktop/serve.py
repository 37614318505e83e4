"""A page that drives `anywire desktop-bridge`: `python examples/desktop/serve.py`, then open the address it prints.

In a desktop app the bridge is a sidecar: the app starts it, and speaks with it over its standard input and output. A
page in a browser cannot start a program, so this server stands between them. It starts a bridge for each page that is
open, and passes lines on over a WebSocket. Nobody but the page that it serves may connect: it listens on loopback, its
address has a token, and the page's origin is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from aiohttp import WSMsgType, web

PAGE = Path(__file__).with_name("page")
FILES = {"/": "index.html", "/app.js": "app.js", "/tauri.js": "tauri.js", "/style.css": "style.css"}
MAX_LINE = 8 * 1024 * 1024
END_PATIENCE = 30.0
"""Seconds that a bridge has to end once its page has gone."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'"
)


class Server:
    """``command`` starts a bridge."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.token = secrets.token_urlsafe(24)

    def app(self) -> web.Application:
        app = web.Application()
        for path in FILES:
            app.router.add_get(path, self.file)
        app.router.add_get("/bridge", self.bridge)
        return app

    async def file(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return web.FileResponse(PAGE / FILES[request.path], headers=headers)

    async def bridge(self, request: web.Request) -> web.StreamResponse:
        """One bridge for as long as the page is open."""
        token = request.query.get("token", "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise web.HTTPForbidden(text="the token is wrong: open the address that the server printed")
        if request.headers.get("Origin") != f"http://{request.host}" or not _is_loopback(request.host):
            raise web.HTTPForbidden(text="only the page of this server may connect")
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=MAX_LINE)
        await socket.prepare(request)
        process = await asyncio.create_subprocess_exec(*self.command, stdin=PIPE, stdout=PIPE, limit=4 * MAX_LINE)
        passing = asyncio.create_task(_pass_lines(process, socket))
        try:
            assert process.stdin is not None
            async for message in socket:
                if message.type == WSMsgType.TEXT and "\n" not in message.data:
                    process.stdin.write(message.data.encode() + b"\n")
                    with contextlib.suppress(ConnectionError):
                        await process.stdin.drain()
        finally:
            await _end(process)
            passing.cancel()
        return socket


async def _pass_lines(process: Process, socket: web.WebSocketResponse) -> None:
    """What the bridge says, to the page."""
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):
        async for line in process.stdout:
            await socket.send_str(line.decode().rstrip("\n"))
        await socket.close(message=b"the bridge has ended")


async def _end(process: Process) -> None:
    """The end of its input is what a bridge ends at, with all of its servers."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), END_PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()


def _is_loopback(host: str) -> bool:
    return host.partition(":")[0] in ("127.0.0.1", "localhost")


async def main(port: int, arguments: Sequence[str]) -> None:
    server = Server([sys.executable, "-m", "anywire.cli", "desktop-bridge", *arguments])
    runner = web.AppRunner(server.app(), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"open http://127.0.0.1:{runner.addresses[0][1]}/#{server.token}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a page that drives anywire desktop-bridge.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: any that is free")
    parser.add_argument("bridge", nargs="*", help="options of the bridge, after --")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(given.port, given.bridge))

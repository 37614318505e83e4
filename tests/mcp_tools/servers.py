"""MCP servers of tests, and hosts that own them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anywire.testing.patience import FACTOR, expect
from anywire_engine_mcp.host import McpHost, McpStatus
from anywire_engine_mcp.server_config import ServerConfig
from reserved import free_port

HERE = Path(__file__).parent


def plain(*options: str, **settings: Any) -> ServerConfig:
    """The server in plain Python; it is up in milliseconds."""
    command = (sys.executable, "-I", "-S", str(HERE / "plain_server.py"), *options)
    return ServerConfig(command=command, **{"stop_grace": 2.0, "start_timeout": 30.0 * FACTOR, **settings})


def real(**settings: Any) -> ServerConfig:
    """The SDK's own server."""
    command = (sys.executable, str(HERE / "sdk_server.py"))
    return ServerConfig(command=command, env={"PYTHONPATH": ""}, **{"start_timeout": 60.0 * FACTOR, **settings})


@asynccontextmanager
async def owner(**servers: ServerConfig) -> AsyncIterator[McpHost]:
    """A host of these servers, which leaves nothing."""
    host = McpHost()
    await host.begin(servers)
    try:
        yield host
    finally:
        await expect(host.close(), "the host closes")


async def until(host: McpHost, label: str, state: str) -> McpStatus:
    """Wait until a server is in that state."""
    moved = asyncio.Event()
    unlisten = host.listen(lambda change: moved.set())
    try:

        async def wait() -> McpStatus:
            while (status := host.status(label)).state != state:
                moved.clear()
                await moved.wait()
            return status

        return await expect(wait(), f"{label} is {state}", seen=lambda: f" ({host.status(label)})")
    finally:
        unlisten()


class HttpServer:
    """The SDK's own server over streamable HTTP, in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def up(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "sdk_server.py"), "http", str(self.port)), stderr=asyncio.subprocess.DEVNULL
        )
        await expect(self._listens(), "the server listens", 60 * FACTOR)

    async def down(self) -> None:
        """Kill it."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)  # a process that tells nobody
                continue
            writer.close()
            await writer.wait_closed()
            return


@asynccontextmanager
async def http_server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    try:
        await server.up()
        yield server
    finally:
        await server.down()

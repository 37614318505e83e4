"""The bridge as an app has it: lines in, lines out. As a child, or within the process of the test, which costs less."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from anywire.testing.patience import PATIENCE, expect
from anywire_desktop.app_files import AppFiles
from anywire_desktop.bridge import Bridge
from anywire_desktop.line_streams import LineReader, LineWriter
from anywire_desktop.mcp_servers import McpServers
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.local_models import LocalModels

LIMIT = 64 * 1024 * 1024


class CallFailed(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code, self.data = error["code"], error.get("data", {})


class App:
    """``events`` are those that it was sent: name and payload. ``messages`` are those of channels, by channel. It is
    ``over`` when there is nothing more to read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events: list[tuple[str, Any]] = []
        self.messages: dict[Any, list[dict[str, Any]]] = {}
        self.over = False
        self.log = b""
        self.number = 0
        """The id of the newest call."""
        self.writer = writer
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._more = asyncio.Event()
        self.reading = asyncio.create_task(self._read(reader))

    def begin(self, method: str, /, **arguments: Any) -> tuple[int, asyncio.Future[Any]]:
        """The id of a call, and its answer."""
        self.number += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self.number] = answer
        line = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": arguments}
        self.writer.write(json.dumps(line).encode() + b"\n")
        return self.number, answer

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """The result of a call. Raises `CallFailed`."""
        _, answer = self.begin(method, **arguments)
        return await expect(answer, f"the answer to {method}", PATIENCE * 2, self.seen)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async def wait() -> None:
            while not condition():
                self._more.clear()
                await self._more.wait()

        await expect(wait(), what, seen=self.seen)

    def seen(self) -> str:
        return f"; {self.events} {self.messages} {self.log.decode()}"[-4000:]

    def states(self) -> list[str]:
        """Those that the app's model has gone through."""
        changes = [payload for name, payload in self.events if name == "model:changed"]
        return [each["status"]["state"] for each in changes if each["previous"] != each["status"]["state"]]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("method") == "event":
                self.events.append((message["params"]["event"], message["params"]["payload"]))
            elif message.get("method") == "channel":
                self.messages.setdefault(message["params"]["channel"], []).append(message["params"]["message"])
            else:
                answer = self._waiting.pop(message["id"])
                if "error" in message and not answer.done():
                    answer.set_exception(CallFailed(message["error"]))
                    answer.exception()  # nobody need ask for it
                elif not answer.done():
                    answer.set_result(message["result"])
            self._more.set()
        self.over = True
        self._more.set()
        for answer in self._waiting.values():
            answer.cancel()


@asynccontextmanager
async def bridge(folder: Path) -> AsyncIterator[App]:
    """A bridge that is ready, within this process; at the end no server of it is left."""
    files = AppFiles(folder)
    config = ModelsConfig(registry=files.library)
    loop = asyncio.get_running_loop()
    asked, told = os.pipe(), os.pipe()
    reader = asyncio.StreamReader(limit=LIMIT)
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(told[0], "rb", buffering=0)
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(asked[1], "wb", buffering=0)
    )
    app = App(reader, asyncio.StreamWriter(transport, protocol, None, loop))
    serving = asyncio.create_task(
        Bridge(LocalModels(config), files, McpServers(files)).serve(
            LineReader(asked[0]), LineWriter(told[1]), asyncio.Event()
        )
    )
    try:
        await app.until(lambda: app.events or serving.done(), "the bridge is ready")
        yield app
    finally:
        app.writer.close()
        await expect(serving, "the end of the bridge", PATIENCE * 2, app.seen)
        os.close(told[1])
        os.close(asked[0])
        await expect(app.reading, "the end of its output")
        reading.close()
    assert servers() == [], "a server is left"


@asynccontextmanager
async def child(folder: Path) -> AsyncIterator[tuple[App, Process]]:
    """A bridge that is ready, as a process of its own."""
    command = [sys.executable, "-m", "anywire.cli", "desktop-bridge", "--folder", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LIMIT)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    app = App(process.stdout, process.stdin)
    logging = asyncio.create_task(_keep_log(app, process.stderr))
    try:
        await app.until(lambda: app.events or app.over, "the bridge is ready")
        assert app.events, app.log.decode()
        yield app, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await expect(asyncio.gather(app.reading, logging), "the end of its output")


async def _keep_log(app: App, stream: asyncio.StreamReader) -> None:
    while data := await stream.read(65536):
        app.log = (app.log + data)[-65536:]


def servers(pid: int = 0) -> list[psutil.Process]:
    """The servers of models that run below a process, default: this one."""
    below = psutil.Process(pid or None).children(recursive=True)
    found = []
    for each in below:
        try:
            if "--model" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            pass
    return found

"""`anywire desktop-bridge` as an app has it: a child, lines in, lines out."""

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


class CallFailed(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code, self.data = error["code"], error.get("data", {})


class BridgeProcess:
    """``events`` are those of the app: name and payload. ``messages`` are those of channels, by channel."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.events: list[tuple[str, Any]] = []
        self.messages: dict[Any, list[dict[str, Any]]] = {}
        self.stderr = b""
        self.over = False
        """Whether its output has ended."""
        self._number = 0
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._more = asyncio.Event()
        self._reading = asyncio.gather(self._read(), self._read_stderr())

    def begin(self, method: str, /, **arguments: Any) -> tuple[int, asyncio.Future[Any]]:
        """The id of a call, and its answer."""
        self._number += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        self.write({"jsonrpc": "2.0", "id": self._number, "method": method, "params": arguments})
        return self._number, answer

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """The result of a call. Raises `CallFailed`."""
        _, answer = self.begin(method, **arguments)
        return await expect(
            answer, f"the answer to {method}", PATIENCE * 2, lambda: f"; {self.stderr.decode()[-2000:]}"
        )

    def write(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async def wait() -> None:
            while not condition():
                self._more.clear()
                await self._more.wait()

        await expect(wait(), what, seen=lambda: f"; {self.events} {self.messages} {self.stderr.decode()[-2000:]}")

    def states(self) -> list[str]:
        return [
            payload["status"].get("state", "stopped")
            for name, payload in self.events
            if name == "model:changed" and payload["previous"] != payload["status"].get("state", "stopped")
        ]

    async def end(self) -> int:
        """Close its input; its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.ended()

    async def ended(self) -> int:
        status = await expect(self.process.wait(), "the end", PATIENCE * 2, lambda: f"; {self.stderr.decode()[-2000:]}")
        await self._reading
        for answer in self._waiting.values():
            answer.cancel()
        return status

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("method") == "event":
                self.events.append((message["params"]["event"], message["params"]["payload"]))
            elif message.get("method") == "channel":
                self.messages.setdefault(message["params"]["channel"], []).append(message["params"]["message"])
            else:
                answer = self._waiting.pop(message["id"])
                if answer.done():
                    pass
                elif "error" in message:
                    answer.set_exception(CallFailed(message["error"]))
                    answer.exception()  # nobody need ask for it
                else:
                    answer.set_result(message["result"])
            self._more.set()
        self.over = True
        self._more.set()

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.stderr = (self.stderr + data)[-65536:]


@asynccontextmanager
async def bridge(folder: Path, *options: str) -> AsyncIterator[BridgeProcess]:
    """A bridge that is ready, with its files in ``folder``; at the end nothing of it is left."""
    command = [sys.executable, "-m", "anywire.cli", "desktop-bridge", "--folder", str(folder), *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=64 * 1024 * 1024, env=os.environ | {"NO_COLOR": "1"}
    )
    opened = BridgeProcess(process)
    try:
        await opened.until(lambda: opened.events or opened.over, "the bridge is ready")
        assert opened.events, opened.stderr.decode()
        yield opened
        if process.returncode is None:
            assert await opened.end() == 0, opened.stderr.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await expect(opened._reading, "the end of its output")


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)

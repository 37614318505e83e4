"""The peers of ``llama_peers.py`` as processes, for tests: asked, answered, observed, killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.c_peers.toolchain import LOOPBACK
from tests.patience import PATIENCE

_PROGRAM = str(Path(__file__).with_name("llama_peers.py"))


class PeerProcess:
    """``said`` are the JSON lines it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *arguments: object) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            _PROGRAM,
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
            env={**os.environ, "CYCLONEDDS_URI": LOOPBACK},
        )
        return cls(process)

    async def until(self, condition: Any, what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE), self._more:
                await self._more.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"waited for {what}; it said {str(self.said)[-2000:]}") from None

    async def kill(self) -> None:
        self.process.kill()
        await self.end()

    async def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), PATIENCE)
        await self._reading

    def note(self, line: dict[str, Any]) -> None:
        self.said.append(line)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._more:
                self.note(json.loads(line))
                self._more.notify_all()


class ClientProcess(PeerProcess):
    """``responses`` are what it took from its reader, by request."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process)
        self.responses: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.statuses: list[dict[str, Any]] = []

    def note(self, line: dict[str, Any]) -> None:
        super().note(line)
        if "server_id" in line:
            self.statuses.append(line)
        elif "request_id" in line:
            self.responses[line["request_id"]].append(line)

    def ask(self, request_id: str, content: str = "say hello", **fields: Any) -> None:
        """``age`` among the fields is how many seconds ago it claims to have been written."""
        request = {
            "request_id": request_id,
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.7,
            "max_tokens": 64,
            "stream": False,
            "top_p": [],
            "n": [],
            "stop": [],
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request | fields).encode() + b"\n")

    async def answer(self, request_id: str) -> list[dict[str, Any]]:
        """Its responses, to the final one."""
        responses = self.responses[request_id]
        await self.until(lambda: responses and responses[-1]["is_final"], f"the answer to {request_id}")
        return responses

    async def served(self) -> None:
        """Wait until a server is there: what is written before may reach it or not."""
        assert self.process.stdin is not None
        self.process.stdin.write(b'"found"\n')
        await self.until(lambda: {"found": True} in self.said, "a server")
        await self.until(lambda: any(each["ready"] for each in self.statuses), "a server that is ready")


def text(responses: list[dict[str, Any]]) -> str:
    """What a client reads. It passes over a final response that is written again, which may have been lost to it."""
    last = next((number for number, each in enumerate(responses) if each["is_final"]), len(responses))
    return "".join(each["content"] for each in responses[: last + 1])


class ServerProcess(PeerProcess):
    """``said`` are the requests it got."""

    async def asked(self, count: int = 1) -> None:
        await self.until(lambda: len(self.said) >= count, f"{count} requests")

"""Orchestrators that stand by for each other, in processes of their own, and how long a take-over takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from anywire import Client
from anywire.testing.recorder import Recorder
from patience import FACTOR
from reserved import free_port

LEASE = 1.0
PATIENCE = 60.0 * FACTOR
MODEL = "synthetic"
MESSAGES = [{"role": "user", "content": "Hello"}]
WHOLE: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2}
STREAM: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
ACTIVE = "is active from now on"
STANDS_BY = "standing by: orchestrator"


class Command:
    """A running ``anywire`` command and the lines it wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.lines = process, Recorder()
        self._readers = [asyncio.create_task(self._read(each)) for each in (process.stdout, process.stderr)]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.lines.add(line.decode().rstrip())

    async def says(self, text: str, times: int = 1) -> str:
        """The line of that text, once it has come so often."""

        def found() -> str:
            lines: list[str] = [line for (line,) in self.lines.events if text in line]
            return lines[-1] if len(lines) >= times else ""

        return str(await self.lines.until(found, text, PATIENCE))

    def said(self, text: str) -> int:
        return sum(text in line for (line,) in self.lines.events)

    @property
    def url(self) -> str:
        """Where it serves, after it has said so."""
        return str(next(line.split()[1] for (line,) in reversed(self.lines.events) if line.startswith("ready: http")))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        if self.process.returncode is None:
            self.send(number)
        return await self.ended()

    async def ended(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await asyncio.gather(*self._readers)
        return code


class TakeOver(NamedTuple):
    """Seconds from a death to an answer."""

    over_dds: float
    over_http: float


class Group:
    """Commands of one fleet. ``config`` is the file they all read, with ``domain`` and ``port``."""

    def __init__(self, config: Path, domain: int, port: int) -> None:
        self.config, self.domain, self.port = config, domain, port
        self.running: list[Command] = []

    async def start(self, role: str, *arguments: str) -> Command:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", role, "--config", str(self.config), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"NO_COLOR": "1"},
        )
        self.running.append(Command(process))
        return self.running[-1]

    async def agents(self, *names: str) -> None:
        started = [await self.start("agent", "--agent-id", name, "--slots", "8") for name in names]
        await asyncio.gather(*(each.says("ready: agent") for each in started))

    async def active(self, *arguments: str) -> Command:
        orchestrator = await self.start("serve", "--standby", *arguments)
        await orchestrator.says("ready: http")
        return orchestrator

    async def standby(self, *arguments: str) -> Command:
        orchestrator = await self.start("serve", "--standby", *arguments)
        await orchestrator.says(STANDS_BY)
        return orchestrator

    async def end(self) -> None:
        for command in self.running:
            with contextlib.suppress(ProcessLookupError):
                command.send(signal.SIGCONT)
            await command.end(signal.SIGKILL)


@asynccontextmanager
async def group(folder: Path, domain: int, **engine: Any) -> AsyncIterator[Group]:
    """A group whose orchestrators all want the same port."""
    config, port = folder / "standby.yaml", free_port()
    settings = {
        "transports": {"dds": {"domain": domain}},
        "server": {"port": port},
        "lease": {"timeout": LEASE},
        "engine": {"name": "synthetic"} | engine,
    }
    config.write_text(json.dumps(settings))
    made = Group(config, domain, port)
    try:
        yield made
    finally:
        await made.end()


async def answered_over_http(client: httpx.AsyncClient) -> httpx.Response:
    """Ask until somebody listens at that address and answers."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await client.post("/v1/chat/completions", json=WHOLE)
            except httpx.TransportError:
                await asyncio.sleep(0.005)  # nothing tells a client over HTTP when somebody listens


async def take_over(died: float, client: Client, http: httpx.AsyncClient) -> TakeOver:
    """Ask over both ways at once; ``died`` is when the active one did, by `time.monotonic`."""

    async def over_dds() -> float:
        answer = await client.chat(**WHOLE)
        assert answer["choices"][0]["message"]["content"]
        return time.monotonic() - died

    async def over_http() -> float:
        answer = await answered_over_http(http)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - died

    async with asyncio.timeout(PATIENCE):
        return TakeOver(*await asyncio.gather(over_dds(), over_http()))

"""An orchestrator on one host and an agent on another, over a link that can be cut in either direction."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire_experiment.network import Host, Hosts, link, unavailable
from anywire_experiment.plan.network import Network

WHY = unavailable()
needs_hosts = pytest.mark.skipif(bool(WHY), reason=f"missing: what emulates a network: {WHY}")


class Process:
    """A process on a host. Its log lines are kept as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: list[str] = []
        self._more = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log.append(line.decode(errors="replace"))
            self._more.set()

    async def says(self, words: str) -> str:
        """A line of its standard output with these words."""
        assert self._process.stdout is not None
        while True:
            line = (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)).decode()
            assert line, f"it ended: {''.join(self.log)}"
            if words in line:
                return line

    async def logs(self, *words: str, times: int = 1) -> str:
        """The line of its log that is the ``times``-th to have all of these words."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._more.clear()
                found = [line for line in self.log if all(word in line for word in words)]
                if len(found) >= times:
                    return found[times - 1]
                await self._more.wait()

    async def done(self) -> None:
        """Wait for its own end."""
        await asyncio.wait_for(self._process.wait(), PATIENCE)
        await self._reading

    async def ended(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


class EmulatedHosts:
    """What runs on them. ``hosts`` has their names and can cut the link."""

    def __init__(self, hosts: Hosts, folder: Path, stack: AsyncExitStack) -> None:
        self.hosts = hosts
        self._folder, self._stack = folder, stack

    async def run(self, host: Host, *command: str) -> Process:
        pipe = asyncio.subprocess.PIPE
        made = await asyncio.create_subprocess_exec(
            *host.command(sys.executable, *command), stdin=pipe, stdout=pipe, stderr=pipe, limit=2**20
        )
        process = Process(made)
        self._stack.push_async_callback(process.ended)
        return process

    async def serve(self, config: dict[str, Any]) -> tuple[Process, str]:
        """An orchestrator, and the address of its gateway."""
        server = await self.run(self.hosts.orchestrator, "-m", "anywire.cli", "serve", *self._config("hub", config))
        return server, (await server.says("ready: ")).split()[1]

    async def agent(self, config: dict[str, Any]) -> Process:
        arguments = ["-m", "anywire.cli", "agent", "--agent-id", "a", *self._config("agent", config)]
        agent = await self.run(self.hosts.agents, *arguments)
        await agent.says("ready: ")
        return agent

    async def ask(self, url: str, prompt: str, *, stream: bool = False, seconds: float = 60.0) -> dict[str, Any]:
        """``{"status", "text"}`` of one chat, asked on the orchestrator's host."""
        asked = await self.run(self.hosts.orchestrator, "-c", _ASK, url, str(len(prompt)), str(stream), str(seconds))
        answer: dict[str, Any] = json.loads(await asked.says("{"))
        return answer

    def _config(self, name: str, config: dict[str, Any]) -> list[str]:
        path = self._folder / f"{name}.yaml"
        path.write_text(json.dumps(config))
        return ["--config", str(path)]


@asynccontextmanager
async def emulated_hosts(folder: Path) -> AsyncIterator[EmulatedHosts]:
    async with link(Network(), kind="userspace") as hosts, AsyncExitStack() as stack:
        yield EmulatedHosts(hosts, folder, stack)


_ASK = """
import json, sys
import httpx
url, size, stream, seconds = sys.argv[1:]
messages = [{"role": "user", "content": "x" * int(size)}]
body = {"model": "synthetic", "messages": messages, "stream": stream == "True"}
with httpx.Client(timeout=float(seconds)) as client:
    answer = client.post(url + "/v1/chat/completions", json=body)
print(json.dumps({"status": answer.status_code, "text": answer.text}), flush=True)
"""

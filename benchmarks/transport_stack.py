"""One transport's stack in processes of its own: options that disturb nobody, a pipeline, and a whole server."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from anywire.agent import Agent
from anywire.identity import agent_info, hub_info
from anywire.orchestrator import Orchestrator
from anywire.plugins import Plugins

IN_FLIGHT = 64
PATIENCE = 30.0
"""Seconds for anything that starts, joins or ends."""


def options_of(transport: str) -> dict[str, Any]:
    """Fresh options: a DDS domain at random, free ports."""
    if transport == "dds":
        return {"domain": random.SystemRandom().randint(10, 200)}
    if transport in ("http", "zeromq"):
        scheme = {"http": "http", "zeromq": "tcp"}[transport]
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
        addresses = [f"{scheme}://127.0.0.1:{each.getsockname()[1]}" for each in held]
        for each in held:
            each.close()
        return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}
    return {}


class Usage(NamedTuple):
    """User and system seconds since the start, and resident bytes now, of the server and of its agent."""

    server_cpu: float
    agent_cpu: float
    server_rss: int
    agent_rss: int


class Server(NamedTuple):
    """``anywire up`` with one agent. Over ``memory`` the agent is inside of the server."""

    url: str
    began: float
    process: psutil.Process

    def usage(self) -> Usage:
        server, agents = _usage(self.process), [_usage(each) for each in self.process.children(recursive=True)]
        return Usage(server[0], sum(cpu for cpu, _ in agents), server[1], sum(rss for _, rss in agents))


def _usage(process: psutil.Process) -> tuple[float, int]:
    with process.oneshot():
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss


@asynccontextmanager
async def server(transport: str) -> AsyncIterator[Server]:
    """A server on a free port whose agent has joined."""
    async with _configured(transport, options_of(transport)) as config:
        began = time.perf_counter()
        async with _process("up", "--agents", "1", "--config", config) as process:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            address = re.search(r"http://\S+", line)
            assert address, f"anywire up over {transport} said: {line!r}"
            yield Server(address[0], began, psutil.Process(process.pid))


@asynccontextmanager
async def pipeline(transport: str) -> AsyncIterator[Orchestrator]:
    """An orchestrator here with one agent of `IN_FLIGHT` slots, in its own process where the transport allows."""
    plugins, options = Plugins(), options_of(transport)
    orchestrator = Orchestrator(
        hub_info(),
        [plugins.create("transports", transport, options)],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        plugins=plugins,
    )
    await orchestrator.start()
    try:
        async with _agent(transport, options, plugins):
            free = orchestrator.agents_until(lambda agents: any(each.free_slots > 0 for each in agents))
            await asyncio.wait_for(free, PATIENCE)
            yield orchestrator
    finally:
        await orchestrator.close()


@asynccontextmanager
async def _agent(transport: str, options: dict[str, Any], plugins: Plugins) -> AsyncIterator[None]:
    if transport != "memory":
        async with _configured(transport, options) as config, _process("agent", "--config", config):
            yield
        return
    engine = plugins.create("engines", "synthetic", {"length": 64})
    agent = Agent(
        agent_info(engine=engine), engine, [plugins.create("transports", transport, options)], slots=IN_FLIGHT
    )
    await agent.start()
    try:
        yield
    finally:
        await agent.close()


@asynccontextmanager
async def _configured(transport: str, options: dict[str, Any]) -> AsyncIterator[str]:
    settings = {
        "server": {"port": 0},
        "transports": {transport: options},
        "engine": {"name": "synthetic", "length": 64},
        "agent": {"slots": IN_FLIGHT},
        "log_level": "warning",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "anywire.yaml"
        path.write_text(json.dumps(settings))
        yield str(path)


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An ``anywire`` command that is gone afterwards, with all its children, whatever happens."""
    command = (sys.executable, "-m", "anywire.cli", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
    for left in psutil.wait_procs(children, timeout=0)[1]:
        left.kill()

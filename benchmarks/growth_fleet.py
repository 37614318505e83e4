"""An orchestrator that has many agents with nothing to do, and one that has many streams over HTTP: what each adds."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil

from cost import HERE
from cost_probe import cpu_seconds
from growth_start import command
from transport_stack import PATIENCE, configured, options_of

LEASE = 1.0
"""Seconds: the shipped one."""
PROCESSES = 10
"""That the agents are spread over."""
SETTLE, WATCHED = 3.0, 8.0
"""Seconds until what follows joining is over, and in which nothing is asked."""
PAUSE = 0.2
"""Seconds between two looks at whether the agents have joined."""
FIRST_STREAMS, STREAMS = 64, 400
"""Streams before and while memory is measured."""
BETWEEN_TOKENS = 5000.0
"""Milliseconds: streams that wait, as most do at any moment."""


async def idle_fleet(transport: str, count: int, environment: Mapping[str, str]) -> tuple[float, float]:
    """Of a core, what an orchestrator takes that has ``count`` idle agents; and the resident bytes there of each."""
    async with AsyncExitStack() as stack:
        options = stack.enter_context(options_of(transport))
        config = stack.enter_context(configured(transport, options, lease=LEASE))
        process = await stack.enter_async_context(command(["serve", "--config", config], environment))
        address, memory = await ready_at(process), resident(process.pid)
        each = count // PROCESSES
        for number in range(PROCESSES):
            await stack.enter_async_context(_idle(transport, options, each, f"idle-{number}", environment))
        async with asyncio.timeout(2 * PATIENCE):
            while await _joined(address) < each * PROCESSES:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(PAUSE)
        await asyncio.sleep(SETTLE)
        spent = cpu_seconds(process.pid)
        await asyncio.sleep(WATCHED)
        cores = (cpu_seconds(process.pid) - spent) / WATCHED
        assert await _joined(address) == each * PROCESSES, "agents were lost while nothing happened"
        return cores, (resident(process.pid) - memory) / (each * PROCESSES)


async def stream_over_http(transport: str, environment: Mapping[str, str]) -> float:
    """Resident bytes of an open stream in the orchestrator of ``anywire up``, its connection included."""
    async with AsyncExitStack() as stack:
        options = stack.enter_context(options_of(transport))
        config = stack.enter_context(configured(transport, options, itl=BETWEEN_TOKENS))
        slots = str(FIRST_STREAMS + STREAMS)
        arguments = ["up", "--agents", "1", "--slots", slots, "--config", config]
        process = await stack.enter_async_context(command(arguments, environment))
        address = await ready_at(process)
        await asyncio.gather(*(_open(address, stack) for _ in range(FIRST_STREAMS)))
        before = resident(process.pid)
        await asyncio.gather(*(_open(address, stack) for _ in range(STREAMS)))
        return (resident(process.pid) - before) / STREAMS


async def ready_at(process: asyncio.subprocess.Process) -> str:
    """The address of a server, once it is ready."""
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
    found = re.search(r"http://[^\s/]+", line)
    assert found, f"it said {line!r}"
    return found[0]


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


async def _joined(address: str) -> int:
    def ask() -> Any:
        with urllib.request.urlopen(f"{address}/health", timeout=PATIENCE) as answer:
            return json.load(answer)

    return int((await asyncio.to_thread(ask))["agents"])


@asynccontextmanager
async def _idle(
    transport: str, options: dict[str, Any], count: int, name: str, environment: Mapping[str, str]
) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(HERE / "idle_agents.py"), transport, json.dumps(options), str(count), name),
        stdin=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _open(address: str, stack: AsyncExitStack) -> None:
    """Open a stream and wait for its first token."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    stack.callback(writer.close)
    body = {"model": "synthetic", "messages": [{"role": "user", "content": "x" * 300}], "stream": True}
    payload = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200"), head
        await reader.readuntil(b"\n\n")

"""How long a client waits whose stream goes on at another agent.

    python benchmarks/migration.py [--transport dds ...] [--lease 1.0] [--streams 8] [--rounds 5]

``anywire serve`` with two agents of the engine ``synthetic``, a token every 10 ms. In each round streams run on both,
then one agent is killed (SIGKILL) or stopped (SIGSTOP). Of the streams that ran on it the longest gap between two
tokens is taken, as their client sees it over HTTP. The text must be the undisturbed one. A gap is the time until the
loss is noticed, which is up to the transport, and until the other agent's next token. The command fails when a stream
is not what it would have been, or a gap over DDS is longer than the lease and 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import httpx

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.messages import TaskRequest
from patience import FACTOR
from transport_stack import anywire_process, options_of

PATIENCE = 60.0 * FACTOR
TRANSPORTS = ("dds", "grpc", "http", "zeromq")
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
AGENTS = ("one", "two")
ITL_MS, ROUND_TRIP = 10.0, 0.05
"""Milliseconds between two tokens; seconds that a gap over DDS may be longer than the lease."""
SETTLED = 5
"""Tokens of each stream before the agent goes."""


class Stream(NamedTuple):
    agent: str
    """Where it began."""
    text: str
    gap: float
    """The longest, in seconds."""


class Fleet:
    """A server and its agents; ``tokens`` are those of each answer."""

    def __init__(self, folder: Path, transport: str, options: dict[str, Any], lease: float, tokens: int) -> None:
        self._stack, self._agents = AsyncExitStack(), dict[str, asyncio.subprocess.Process]()
        self._config = folder / "anywire.yaml"
        self.engine = {"itl": ITL_MS, "length": tokens}
        settings = {
            "transports": {transport: options},
            "server": {"port": 0},
            "engine": {"name": "synthetic"} | self.engine,
            "lease": {"timeout": lease, "heartbeat_interval": lease / 4},
            "pipeline": {"breaker": {"errors": 0}},
            "log_level": "error",
        }
        self._config.write_text(json.dumps(settings))
        self.client: httpx.AsyncClient

    async def start(self) -> None:
        process = await self._run("serve")
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
        url = next(word for word in line.split() if word.startswith("http://"))
        client = httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None))
        self.client = await self._stack.enter_async_context(client)
        for name in AGENTS:
            await self.start_agent(name)

    async def start_agent(self, name: str) -> None:
        self._agents[name] = await self._run("agent", "--agent-id", name, "--slots", "64")

    async def both_ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                agents = (await self.client.get("/api/v1/agents")).json()["data"]
                if sum(each["state"] == "ready" and not each["load"]["in_flight"] for each in agents) == len(AGENTS):
                    return
                await asyncio.sleep(0.05)

    async def revive(self, name: str, sent: signal.Signals) -> None:
        process = self._agents[name]
        if sent is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            return
        await process.wait()
        await self.start_agent(name)

    def send(self, name: str, sent: signal.Signals) -> None:
        self._agents[name].send_signal(sent)

    async def close(self) -> None:
        for process in self._agents.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
        await self._stack.aclose()

    async def _run(self, role: str, *arguments: str) -> asyncio.subprocess.Process:
        command = (role, *arguments, "--config", str(self._config))
        return await self._stack.enter_async_context(anywire_process(*command))


@asynccontextmanager
async def fleet(transport: str, lease: float, tokens: int) -> AsyncIterator[Fleet]:
    with options_of(transport) as options, tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        made = Fleet(Path(folder), transport, options, lease, tokens)
        try:
            await made.start()
            yield made
        finally:
            await made.close()


def asked(number: int) -> dict[str, Any]:
    return {"model": "synthetic", "stream": True, "messages": [{"role": "user", "content": f"stream {number}"}]}


async def undisturbed(number: int, engine: dict[str, Any]) -> str:
    task = TaskRequest("h", "t", 1, "chat", "synthetic", json.dumps(asked(number)), stream=True)
    run = SyntheticEngine(SyntheticConfig(**(engine | {"itl": 0}))).run(task)
    return "".join([each.text async for each in run if isinstance(each, Delta)])


async def read(client: httpx.AsyncClient, number: int, settled: asyncio.Semaphore) -> Stream:
    text, gap, last, pieces = "", 0.0, 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=asked(number)) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            now, event = perf_counter(), json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Stream(answer.headers.get("x-anywire-agent", ""), f"{text} [{event['error']['message']}]", gap)
            piece = event["choices"][0]["delta"].get("content", "")
            if not piece:
                continue
            gap, last = max(gap, now - last if last else 0.0), now
            text, pieces = text + piece, pieces + 1
            if pieces == SETTLED:
                settled.release()
    return Stream(answer.headers["x-anywire-agent"], text, gap)


async def gaps(at: Fleet, sent: signal.Signals, victim: str, streams: int) -> list[float]:
    """The longest gap of each stream that ran on ``victim``. Raises `AssertionError` when a stream is not whole."""
    await at.both_ready()
    settled = asyncio.Semaphore(0)
    running = [asyncio.create_task(read(at.client, number, settled)) for number in range(streams)]
    for _ in running:
        await asyncio.wait_for(settled.acquire(), PATIENCE)
    at.send(victim, sent)
    found = await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
    await at.revive(victim, sent)
    for number, stream in enumerate(found):
        expected = await undisturbed(number, at.engine)
        assert stream.text == expected, f"stream {number} said {stream.text!r} and not {expected!r}"
    return [stream.gap for stream in found if stream.agent == victim]


async def measure(transport: str, lease: float, streams: int, rounds: int) -> float:
    """Print what was found; the longest gap in seconds."""
    longest = 0.0
    async with fleet(transport, lease, tokens=int((3 * lease + 1) * 1000 / ITL_MS)) as at:
        for what, sent in SIGNALS.items():
            found: list[float] = []
            for number in range(rounds):
                found += await gaps(at, sent, AGENTS[number % 2], streams)
            longest = max(longest, *found)
            print(
                f"{transport:8} {what:8} {len(found):4} streams moved, longest gap: "
                f"median {median(found) * 1e3:6.0f} ms, most {max(found) * 1e3:6.0f} ms (lease {lease * 1e3:.0f} ms)",
                flush=True,
            )
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="may be repeated; default: all")
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before")
    late = []
    for transport in given.transport or TRANSPORTS:
        longest = asyncio.run(measure(transport, given.lease, given.streams, given.rounds))
        if transport == "dds" and longest > given.lease + ROUND_TRIP:
            late.append(f"{longest * 1e3:.0f} ms")
    print(f"load average {os.getloadavg()[0]:.1f} after")
    if late:
        sys.exit(f"a gap over DDS took {late[0]}, more than the lease and {ROUND_TRIP * 1e3:.0f} ms")


if __name__ == "__main__":
    main()

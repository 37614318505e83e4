"""``anywire`` commands as processes of their own, and clients that ask them over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE

NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
FOR_EVER = 3_600_000
"""Milliseconds that a token of the engine ``synthetic`` takes where a task is to be held until it is moved or ended."""


class Process:
    """One ``anywire`` command that has said it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, ready: str) -> None:
        self.process, self.ready = process, ready
        self.url = next((word for word in ready.split() if word.startswith("http://")), "")

    @classmethod
    async def start(cls, *arguments: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anywire.cli", *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        assert line.startswith(b"ready:"), line
        return cls(process, line.decode())

    async def end(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
        await asyncio.wait_for(self.process.wait(), PATIENCE)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    running: list[Process] = []

    async def begin(*arguments: str) -> Process:
        running.append(await Process.start(*arguments))
        return running[-1]

    yield begin
    for process in running:
        await process.end(signal.SIGKILL)


@pytest.fixture(params=["dds", "grpc", "http", "nats", "zeromq"])
def config(request: pytest.FixtureRequest, tmp_path: Path, options_of: Any) -> Callable[..., list[str]]:
    """Writes a YAML file; gives the arguments that use it. ``pipeline`` are settings of the pipeline, the others of
    the engine."""

    def write(pipeline: dict[str, Any] | None = None, name: str = "synthetic", **engine: Any) -> list[str]:
        settings = {
            "transports": {request.param: options_of(request.param)},
            "server": {"port": 0},
            "engine": {"name": name, **engine},
            "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
            "pipeline": pipeline or {},
        }
        path = tmp_path / "anywire.yaml"
        path.write_text(json.dumps(settings))
        return ["--config", str(path)]

    return write


def body(number: int, *, stream: bool, model: str = "synthetic", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"prompt {number}"}]
    return {"model": model, "messages": messages, "stream": stream, **more}


async def ask_streamed(
    client: httpx.AsyncClient, asked: dict[str, Any], began: asyncio.Event | None = None, prefer: str = ""
) -> tuple[str, str]:
    """A streamed answer: its text and the agent, or what came and the error's code."""
    text, headers = "", {"x-anywire-prefer": prefer} if prefer else {}
    async with client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return text, event["error"]["code"]
            text += event["choices"][0]["delta"].get("content", "")
            if text and began is not None:
                began.set()
        return text, answer.headers["x-anywire-agent"]


async def until_agents(client: httpx.AsyncClient, *wanted: str, in_flight: int = 0) -> list[dict[str, Any]]:
    """Wait until just these are listed as ready, with so many tasks on them at least."""

    async def listed() -> list[dict[str, Any]]:
        while True:
            answer = await client.get("/api/v1/agents")
            agents: list[dict[str, Any]] = answer.json()["data"]
            ready = {agent["id"] for agent in agents if agent["state"] == "ready"}
            if ready == set(wanted) and sum(agent["load"]["in_flight"] for agent in agents) >= in_flight:
                return agents
            await asyncio.sleep(0.02)

    return await asyncio.wait_for(listed(), PATIENCE)

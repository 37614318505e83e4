"""Processes that die: agents and orchestrators really killed, over every wire between processes, under load."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE

NAMES = ("a1", "a2", "a3")
NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


class Process:
    """One ``anywire`` command that has said it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, ready: str) -> None:
        self.process, self.ready = process, ready
        self.url = next((word for word in ready.split() if word.startswith("http://")), "")

    @classmethod
    async def start(cls, *arguments: str) -> "Process":
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


@pytest.fixture(params=["dds", "grpc", "http", "zeromq"])
def config(request: pytest.FixtureRequest, tmp_path: Any, options_of: Any) -> Callable[..., list[str]]:
    """Writes a YAML file; gives the arguments that use it."""

    def write(**engine: Any) -> list[str]:
        settings = {
            "transports": {request.param: options_of(request.param)},
            "server": {"port": 0},
            "engine": {"name": "synthetic", **engine},
            "lease": {"timeout": 0.5, "heartbeat_interval": 0.1},
        }
        path = tmp_path / "anywire.yaml"
        path.write_text(json.dumps(settings))
        return ["--config", str(path)]

    return write


def body(number: int, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"prompt {number}"}]
    return {"model": "synthetic", "messages": messages, "stream": stream}


async def ask(client: httpx.AsyncClient, number: int) -> tuple[str, str]:
    """A whole answer: its text and the agent, or the error's code."""
    answer = await client.post("/v1/chat/completions", json=body(number, stream=False))
    if answer.status_code != 200:
        return "", answer.json()["error"]["code"]
    return answer.json()["choices"][0]["message"]["content"], answer.headers["x-anywire-agent"]


async def ask_streamed(client: httpx.AsyncClient, number: int, began: asyncio.Event | None = None) -> tuple[str, str]:
    """A streamed answer: its text and the agent, or what came and the error's code."""
    text = ""
    async with client.stream("POST", "/v1/chat/completions", json=body(number, stream=True)) as answer:
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


async def test_killed_agent_loses_no_task_without_a_token(start: Any, config: Any) -> None:
    """One of three agents is killed under 50 streams and 20 whole answers."""
    settings = config(ttft=1000, itl=100, length=15)
    server = await start("serve", *settings)
    agents = {name: await start("agent", "--agent-id", name, "--slots", "64", *settings) for name in NAMES}
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, *NAMES)
        expected = [text for text, _ in await asyncio.gather(ask(client, 0), ask(client, 1))]
        assert all(expected)
        began = [asyncio.Event() for _ in range(30)]
        streams = [asyncio.create_task(ask_streamed(client, number % 2, began[number])) for number in range(30)]
        await asyncio.gather(*(each.wait() for each in began))
        # These have no token yet when the agent dies: whole answers, and streams before their first token.
        wholes = [asyncio.create_task(ask(client, number % 2)) for number in range(20)]
        fresh = [asyncio.create_task(ask_streamed(client, number % 2)) for number in range(20)]
        await until_agents(client, *NAMES, in_flight=70)
        await agents["a1"].end(signal.SIGKILL)
        for number, (text, _) in enumerate(await asyncio.gather(*wholes)):
            assert text == expected[number % 2]
        outcomes = await asyncio.gather(*streams, *fresh)
        for number, (text, end) in enumerate(outcomes):
            whole = expected[number % 2]
            # Complete and by a living agent, or ended with the clear error after a true beginning.
            assert (text == whole and end in NAMES) or (end == "agent_lost" and whole.startswith(text) and text)
        assert {"a2", "a3", "agent_lost"} <= {end for _, end in outcomes[:30]}
        await until_agents(client, "a2", "a3")
        assert "a1" not in {agent for _, agent in await asyncio.gather(*(ask(client, 0) for _ in range(6)))}
        ended = (await client.get("/api/v1/stats")).json()["tasks"]["ended"]
        lost = sum(end == "agent_lost" for _, end in outcomes)
        assert ended == {"answered": 2 + 70 + 6 - lost, "agent_lost": lost}


async def test_restarted_orchestrator_finds_its_agents_and_their_slots_free(start: Any, config: Any) -> None:
    settings = config(ttft=60_000, length=3)
    first = await start("serve", *settings)
    names = ("b1", "b2")
    for name in names:
        await start("agent", "--agent-id", name, "--slots", "1", *settings)
    async with httpx.AsyncClient(base_url=first.url, timeout=PATIENCE) as client:
        before = await until_agents(client, *names)
        held = [asyncio.create_task(ask(client, number)) for number in range(2)]
        await until_agents(client, *names, in_flight=2)
        await first.end(signal.SIGKILL)
        assert all(isinstance(each, httpx.HTTPError) for each in await asyncio.gather(*held, return_exceptions=True))
    second = await start("serve", *settings)
    async with httpx.AsyncClient(base_url=second.url, timeout=PATIENCE) as client:
        after = await until_agents(client, *names)
        assert {agent["pid"] for agent in after} == {agent["pid"] for agent in before}

        async def placed() -> str:
            """Where the deadline finds the task: on an agent, so its only slot was free, or in the queue."""
            answer = await client.post(
                "/v1/chat/completions", json=body(0, stream=False), headers={"x-anywire-timeout": "3"}
            )
            assert answer.status_code == 504
            return str(answer.json()["error"]["message"])

        assert all("on agent" in where for where in await asyncio.gather(placed(), placed()))

"""Clients and parents over DDS with real processes: no HTTP between, and what a killed process leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE

from anywire import Client, errors
from anywire.identity import hub_info
from anywire.messages import AgentStatus
from anywire.roles.client import ClientConfig
from anywire.testing.recorder import RecordingHubSink
from anywire_dds import DdsConfig, DdsTransport

pytestmark = pytest.mark.timeout(120)

FLEET = "plane"
"""`up` has a fleet of its own unless it gets a name."""


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | {"NO_COLOR": "1"}


class Command:
    """A running ``anywire`` command, ready; ``lines`` is what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process, ready: str) -> None:
        self.process, self.ready = process, ready
        self.url = ready.split()[1]
        self.lines: list[str] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            self._more.set()

    async def says(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(text in line for line in self.lines):
                self._more.clear()
                await self._more.wait()

    async def end(self, number: signal.Signals) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await self._reading
        return code


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    running: list[Command] = []

    async def begin(*arguments: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "anywire.cli", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        ready = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
        if not ready.startswith("ready: "):
            pytest.fail((await process.stderr.read()).decode())
        running.append(Command(process, ready))
        return running[-1]

    yield begin
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            await one.end(signal.SIGTERM)


async def anywire(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode or 0, out.decode(), err.decode()


def over(domain: int) -> list[str]:
    return ["--transport", "dds", "--dds-domain", str(domain), "--fleet", FLEET]


def slow(folder: Path, **options: Any) -> list[str]:
    """The synthetic engine, its answers so long and slow that a test can come in between."""
    file = folder / "slow.yaml"
    file.write_text(json.dumps({"engine": {"name": "synthetic", "length": 100_000, "itl": 20} | options}))
    return ["--config", str(file)]


async def load(url: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        found: list[dict[str, Any]] = (await http.get("/api/v1/agents")).json()["data"]
        return found


class Watch(RecordingHubSink):
    """A hub beside the server's, told the same by the agents."""

    def statuses(self) -> dict[str, AgentStatus]:
        return {event[1]: event[3] for event in self.named("reported")}

    async def active(self, count: int) -> None:
        """Until so many tasks run on the agents together."""
        await self.until(lambda: self.statuses() and sum(each.active for each in self.statuses().values()) == count)

    async def slots(self, count: int) -> None:
        await self.until(lambda: sum(each.slots for each in self.statuses().values()) == count)


@asynccontextmanager
async def watching(domain: int) -> AsyncIterator[Watch]:
    watch = Watch()
    hub = await DdsTransport(DdsConfig(domain=domain, fleet=FLEET)).open_hub(hub_info(), "agent", watch)
    try:
        yield watch
    finally:
        await hub.close()


async def test_the_same_answer_over_dds_as_over_http(start: Any, dds_domain: int) -> None:
    up = await start("up", "--agents", "2", "--port", "0", "--engine", "synthetic", *over(dds_domain))
    by_http = await anywire("chat", "hello there", "--url", up.url)
    by_dds = await anywire("chat", "hello there", *over(dds_domain))
    assert by_http[0] == by_dds[0] == 0, by_dds[2]
    assert by_http[1] == by_dds[1] != ""
    messages = [{"role": "user", "content": "hello there"}]
    async with Client("dds", domain=dds_domain, fleet=FLEET) as client:
        models = await client.models()
        answer = await client.chat(model=models[0], messages=messages)
    async with httpx.AsyncClient(base_url=up.url, trust_env=False) as http:
        same = (await http.post("/v1/chat/completions", json={"model": models[0], "messages": messages})).json()
    for each in (answer, same):
        assert each.pop("id").startswith("chatcmpl-")
        del each["created"]
        for choice in each["choices"]:
            choice["message"].pop("refusal", None)
    assert answer == same
    code, _, err = await anywire("chat", "hello", "--model", "unknown", *over(dds_domain))
    assert (code, "models served: synthetic" in err) == (1, True)
    assert await up.end(signal.SIGTERM) == 0


async def test_a_server_may_keep_clients_off_its_transports(start: Any, dds_domain: int, tmp_path: Path) -> None:
    file = tmp_path / "closed.yaml"
    file.write_text("client_plane: false")
    await start("serve", "--port", "0", *over(dds_domain), "--config", str(file))
    code, _, err = await anywire("chat", "hello", *over(dds_domain))
    assert code == 1
    assert err.startswith("error: no orchestrator is seen over dds")


async def test_a_killed_client_frees_the_slot(start: Any, dds_domain: int, tmp_path: Path) -> None:
    await start("up", "--port", "0", *over(dds_domain), *slow(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "chat", "hello", *over(dds_domain)),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.read(1), PATIENCE)
    async with watching(dds_domain) as agents:
        await agents.active(1)
        process.kill()
        await process.wait()
        await agents.active(0)


async def test_a_killed_orchestrator_is_told_to_its_client(start: Any, dds_domain: int, tmp_path: Path) -> None:
    up = await start("up", "--port", "0", *over(dds_domain), *slow(tmp_path))
    async with Client(
        DdsTransport(DdsConfig(domain=dds_domain, fleet=FLEET)), config=ClientConfig(agent_wait=1)
    ) as client:
        (model,) = await client.models()
        pieces = client.stream(model=model, prompt="hello")
        assert (await anext(pieces)).text
        await up.end(signal.SIGKILL)
        with pytest.raises(errors.AgentLost):
            async for _ in pieces:
                pass
        with pytest.raises(errors.NoAgent, match="no orchestrator is seen over dds"):
            await client.chat(model=model, messages=[])


async def test_an_orchestrator_joins_another_with_its_agents(
    start: Any, dds_domain: int, other_dds_domain: int, tmp_path: Path
) -> None:
    below = other_dds_domain
    parent = await start("serve", "--port", "0", *over(dds_domain))
    child = await start(
        *("up", "--agents", "2", "--slots", "3", "--port", "0", *over(below), *slow(tmp_path)),
        *("--join", f"{{dds: {{domain: {dds_domain}, fleet: {FLEET}}}}}"),
    )
    await parent.says("joined over dds")
    async with watching(dds_domain) as orchestrators:
        await orchestrators.slots(6)
    short = ["chat", "hello", "--max-tokens", "4"]
    whole = await anywire(*short, *over(dds_domain))
    assert whole[0] == 0, whole[2]
    assert whole[1] == (await anywire(*short, *over(below)))[1] == (await anywire(*short, "--url", parent.url))[1]
    async with Client("dds", domain=dds_domain, fleet=FLEET) as client, watching(below) as agents:
        (model,) = await client.models()
        pieces = client.stream(model=model, prompt="hello")
        assert (await anext(pieces)).text
        await agents.active(1)
        await pieces.aclose()
        await agents.active(0)
        pieces = client.stream(model=model, prompt="hello")
        assert (await anext(pieces)).text
        await child.end(signal.SIGKILL)
        with pytest.raises(errors.AgentLost):
            async for _ in pieces:
                pass
    await parent.says("link to agent hub-")
    assert await load(parent.url) == []


async def test_wrong_options_are_told(dds_domain: int) -> None:
    for arguments, message in (
        (["serve", "--join", "{dds"], "begins like a YAML list or mapping but is none"),
        (["serve", "--join", "dsd"], "no transport named 'dsd'"),
        (["serve", "--join", "{dds: {domian: 3}}"], "join.dds.domian"),
        (["serve", "--join", "memory"], "join: the transport memory stays inside of one process"),
        (["chat", "x", "--url", "http://127.0.0.1:1", *over(dds_domain)], "--transport asks without HTTP"),
        (["chat", "x", "--transport", "memory"], "stays inside of one process"),
    ):
        code, _, err = await anywire(*arguments)
        assert code in (1, 2), arguments
        assert message in " ".join(err.replace("│", " ").split()), err
        assert "Traceback" not in err

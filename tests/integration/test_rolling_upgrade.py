"""A fleet is replaced piece by piece, and told other settings, while streams run: none is cut."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.anywire_processes import NO_LIMITS, body, start, until_agents
from tests.integration.test_migration import Answer, ask, undisturbed
from tests.long_form import SOAK

from standby_group import PATIENCE, Group, group

__all__ = ["start"]  # a fixture
STREAMS, LENGTH = (50, 30) if SOAK else (5, 10)
"""How many at once, and the tokens of each."""
SETTINGS = "transports: memory\nengine: synthetic\nserver: {port: 0}\n"
ITL = 100
"""Milliseconds between two tokens."""


@pytest.fixture
async def fleet(tmp_path: Path, dds_domain: int) -> AsyncIterator[Group]:
    async with group(tmp_path, dds_domain, itl=ITL, length=LENGTH) as made:
        settings = json.loads(made.config.read_text())
        made.config.write_text(json.dumps(settings | {"shutdown_grace": PATIENCE}))
        yield made


class Streams:
    """``STREAMS`` clients, each of which asks again when it is answered."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client, self.answers, self.over = client, 0, asyncio.Event()
        self.refused = 0
        self._began, self._changed = dict.fromkeys(range(STREAMS), 0), asyncio.Event()

    async def ask_on(self, number: int) -> None:
        asked = body(number, stream=True)
        expected = await undisturbed(asked, length=LENGTH)
        while not self.over.is_set():
            assert await self._answer(number, asked) == expected, f"stream {number}"
            self.answers += 1

    async def _answer(self, number: int, asked: dict[str, Any]) -> Answer:
        """Ask until somebody listens. What has begun to be answered is never asked again."""
        before = self._began[number]
        while True:
            try:
                return await ask(self._client, asked, lambda pieces: self._came(number, pieces))
            except httpx.TransportError:
                assert self._began[number] == before, f"stream {number} was cut"
                self.refused += 1
                await asyncio.sleep(0.05)  # nothing tells a client over HTTP when somebody listens

    def _came(self, number: int, pieces: int) -> None:
        if pieces == 1:
            self._began[number] += 1
            self._changed.set()

    async def each_begins_anew(self) -> None:
        """Wait until every client has the first token of another stream than now."""
        wanted = {number: count + 1 for number, count in self._began.items()}
        async with asyncio.timeout(PATIENCE):
            while any(self._began[number] < count for number, count in wanted.items()):
                self._changed.clear()
                await self._changed.wait()


@pytest.mark.timeout(240)
async def test_orchestrator_and_agents_are_replaced_under_streams(fleet: Group) -> None:
    """A new orchestrator stands by and takes the place of the old one, which ends what it has begun; then each agent is
    replaced by a new one."""
    old_agents = [await fleet.start("agent", "--agent-id", name, "--slots", "64") for name in ("a1", "a2")]
    await asyncio.gather(*(each.says("ready: agent") for each in old_agents))
    old = await fleet.active()
    async with httpx.AsyncClient(base_url=old.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, "a1", "a2")
        streams = Streams(client)
        async with asyncio.TaskGroup() as running:
            for number in range(STREAMS):
                running.create_task(streams.ask_on(number))
            await streams.each_begins_anew()
            new = await fleet.standby()
            old.send(signal.SIGTERM)
            await new.says("ready: http")
            assert old.process.returncode is None
            assert await old.ended() == 0
            await streams.each_begins_anew()
            await fleet.agents("b1")
            old_agents[0].send(signal.SIGTERM)
            assert await old_agents[0].ended() == 0
            await streams.each_begins_anew()
            await fleet.agents("b2")
            old_agents[1].send(signal.SIGTERM)
            assert await old_agents[1].ended() == 0
            await streams.each_begins_anew()
            streams.over.set()
        await until_agents(client, "b1", "b2")
        assert streams.answers >= 4 * STREAMS
        stats = (await client.get("/api/v1/stats")).json()
        assert set(stats["tasks"]["ended"]) == {"answered"}


@pytest.mark.parametrize("transport", ["zeromq", *["dds", "grpc", "http", "memory"] * SOAK])
async def test_settings_are_told_anew_under_streams(
    start: Any, tmp_path: Path, transport: str, options_of: Any
) -> None:
    """By `anywire reload`, and by the route that it asks."""
    path, engine = tmp_path / "anywire.yaml", {"name": "synthetic", "length": LENGTH, "itl": ITL}
    settings: dict[str, Any] = {
        "transports": {transport: options_of(transport)},
        "server": {"port": 0},
        "engine": engine,
    }

    def write(**more: Any) -> None:
        path.write_text(json.dumps(settings | more))

    async def reload(*more: str) -> Any:
        return json.loads(await _said("reload", "--url", up.url, "--json", *more))

    write()
    up = await start("up", "--agents", "2", "--slots", "64", "--config", str(path))
    long = body(1, stream=False) | {"max_tokens": 8}
    async with httpx.AsyncClient(base_url=up.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        streams = Streams(client)
        async with asyncio.TaskGroup() as running:
            for number in range(STREAMS):
                running.create_task(streams.ask_on(number))
            await streams.each_begins_anew()
            write(pipeline={"max_tokens": 4}, lease={"timeout": 2})
            assert await reload() == {"changed": ["pipeline.max_tokens"], "restart": ["lease.timeout"]}
            refused = await client.post("/v1/chat/completions", json=long)
            assert (refused.status_code, "4 tokens" in refused.text) == (400, True)
            path.write_text("pipeline: {max_tokens: many}")
            answer = await client.post("/v1/config/reload", json={})
            assert (answer.status_code, "max_tokens" in answer.text) == (400, True), answer.text
            assert (await client.post("/v1/chat/completions", json=long)).status_code == 400
            write(pipeline={"max_tokens": 8})
            assert await reload() == {"changed": ["pipeline.max_tokens"], "restart": []}
            assert (await client.post("/v1/chat/completions", json=long)).status_code == 200
            streams.over.set()
        assert (streams.refused, streams.answers >= STREAMS) == (0, True)


async def _said(*arguments: str) -> str:
    """What a command says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", *arguments), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0
    return told.decode()


async def test_a_process_without_a_terminal_reads_its_configuration_again_at_sighup(tmp_path: Path) -> None:
    path = tmp_path / "anywire.yaml"
    async with _up_in_a_session_of_its_own(path) as process:
        path.write_text(SETTINGS + "pipeline: {max_tokens: 7}")
        process.send_signal(signal.SIGHUP)
        await _logs(process, "was read again, changed: pipeline.max_tokens")
        path.write_text(SETTINGS + "pipeline: {max_tokens: seven}")
        process.send_signal(signal.SIGHUP)
        await _logs(process, "is not read again, the earlier one counts: pipeline.max_tokens")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


async def test_a_terminal_that_is_closed_ends_its_process(tmp_path: Path) -> None:
    of_test, of_process = os.openpty()
    async with _up_in_a_session_of_its_own(tmp_path / "anywire.yaml", terminal=of_process) as process:
        os.close(of_process)
        os.close(of_test)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGHUP


@asynccontextmanager
async def _up_in_a_session_of_its_own(
    path: Path, terminal: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``anywire up`` that is ready, in a session without a terminal or with this one."""
    path.write_text(SETTINGS)  # noqa: ASYNC240 - a line

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests themselves are to outlive their terminal
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "up", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        assert line.startswith(b"ready:"), line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _logs(process: asyncio.subprocess.Process, text: str) -> None:
    """Wait until it writes a line with this text."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while line := await process.stderr.readline():
            if text in line.decode():
                return
    pytest.fail(f"it ended and did not write {text!r}")

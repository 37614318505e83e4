"""A system that is measured: what it takes to start it, and its processes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from peers.client import Clients
from peers.meters import with_children
from peers.workload import Phase
from reserved import free_port

BENCHMARKS = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
READY_TIMEOUT = 90.0
"""Seconds in which a system must have answered its first request; LiteLLM takes 20 on two cores."""
STOP_TIMEOUT = 10.0
LOG_LINES = 5
"""Of a process that did not become ready, the last ones are told."""
_TRY = Phase("ready", 1)


class NotReady(RuntimeError):
    """A system could not be started; the text says why."""


class Command(NamedTuple):
    """A process to start: its arguments, and what is added to the environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}


class Place(NamedTuple):
    """Where a system is started: the port to listen on, the URLs of the engines, and a folder of its own."""

    port: int
    engines: Sequence[str]
    folder: Path


class System(ABC):
    """Something that stands between clients and engines."""

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str:
        """Why it cannot be measured here; empty when it can."""
        return ""

    def version(self) -> str:
        """Its version, where it has one of its own."""
        return ""

    def said(self, place: Place) -> str:
        """What its log says once it can be measured, where answering one request does not tell."""
        return ""

    @abstractmethod
    def commands(self, place: Place) -> AbstractContextManager[Sequence[Command]]:
        """Its processes, none of which has to wait for another one. What they need lives as long as the context."""


class Direct(System):
    """No system at all: the clients ask the engines."""

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        yield ()


class Running(NamedTuple):
    """A system that answers: where, its first processes, and how many seconds it took to answer the first time."""

    urls: Sequence[str]
    processes: Sequence[int]
    ready: float


@asynccontextmanager
async def running(system: System, engines: Sequence[str], folder: Path) -> AsyncGenerator[Running, None]:
    """Start a system, and end all its processes afterwards. Raises `NotReady`."""
    place = Place(free_port(), engines, _made(folder))
    with system.commands(place) as commands:
        began = time.monotonic()
        async with _processes(commands, folder) as started:
            urls = [f"http://{HOST}:{place.port}"] if started else engines
            await _answered(urls, started, folder, system.said(place))
            yield Running(urls, [each.pid for each in started], time.monotonic() - began)


@asynccontextmanager
async def engines_running(count: int, folder: Path) -> AsyncGenerator[tuple[list[str], list[int]], None]:
    """The URLs and processes of so many engines."""
    _made(folder)
    ports = [free_port() for _ in range(count)]
    urls = [f"http://{HOST}:{port}" for port in ports]
    async with _processes([python_command("peers.engine", str(port)) for port in ports], folder) as started:
        for each in urls:
            await _answered([each], started, folder)
        yield urls, [each.pid for each in started]


def python_command(module: str, *arguments: str, python: str = sys.executable) -> Command:
    """A module of this package in a process of its own, with this Python or another one."""
    return Command([python, "-m", module, *arguments], {"PYTHONPATH": str(BENCHMARKS)})


@asynccontextmanager
async def _processes(commands: Sequence[Command], folder: Path) -> AsyncGenerator[list[subprocess.Popen[bytes]], None]:
    """These processes, which are gone afterwards, with all below them."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            try:
                started.append(_start(command, folder))
            except OSError as error:
                raise NotReady(str(error)) from error
        yield started
    finally:
        await asyncio.to_thread(_end, started)


async def _answered(
    urls: Sequence[str], processes: Sequence[subprocess.Popen[bytes]], folder: Path, said: str = ""
) -> None:
    """Ask until one request has been answered well, and the log has ``said`` in it: how far a foreign process is,
    nothing else tells."""
    deadline = time.monotonic() + READY_TIMEOUT
    pause = 0.005
    while True:
        clients = Clients(urls[:1], _TRY)
        try:
            await asyncio.wait_for(clients.open(), READY_TIMEOUT)
            await asyncio.wait_for(clients.run(0.001), READY_TIMEOUT)
        except (OSError, TimeoutError) as error:
            clients.tally.fail(str(error))
        finally:
            clients.close()
        if clients.tally.requests and said in _log(folder):
            return
        ended = [each.returncode for each in processes if each.poll() is not None]
        if ended:
            raise NotReady(f"ended with {ended[0]}: {_log_tail(folder)}")
        if time.monotonic() > deadline:
            raise NotReady(f"not ready after {READY_TIMEOUT:.0f} s ({clients.tally.error}): {_log_tail(folder)}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.02)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANYWIRE_")}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command.arguments,
            env={**environment, **command.environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask these processes to end, and kill what is left of them and below them."""
    below = list(_alive(with_children([each.pid for each in started])))
    for each in started:
        each.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    for each in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            each.wait(max(0.0, deadline - time.monotonic()))
    for left in psutil.wait_procs(below, timeout=0)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    for each in started:
        each.wait()


def _alive(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended since it was listed
            yield psutil.Process(pid)


def _log(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def _log_tail(folder: Path) -> str:
    lines = [line for line in _log(folder).split("\n") if line.strip()]
    return " | ".join(lines[-LOG_LINES:])[-1000:] or "it logged nothing"

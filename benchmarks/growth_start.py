"""How long commands of ``anywire`` take to start, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from cost import python_path
from cost_probe import cpu_seconds
from transport_stack import PATIENCE, configured, options_of


class Start(NamedTuple):
    """A command, and the most milliseconds that it may take. With a ``transport`` it is ``anywire up`` with one agent,
    which has started when it is ready; any other has when it has ended."""

    title: str
    most: float | None
    arguments: tuple[str, ...] = ()
    transport: str = ""


STARTS = (
    Start("anywire --version", None, ("--version",)),
    Start("anywire --help", 150.0, ("--help",)),
    Start("anywire up --help", None, ("up", "--help")),
    Start("anywire up over memory, until it is ready", 1000.0, transport="memory"),
    Start("anywire up over dds, until it is ready", 1000.0, transport="dds"),
)


class Took(NamedTuple):
    """Seconds by the clock, and of processor time of all its processes."""

    wall: float
    cpu: float


@contextmanager
def installed(tree: Path) -> Iterator[dict[str, str]]:
    """The environment of a process for which that tree is installed. Its packages are in one folder, as in
    site-packages: with a folder for each distribution every import looks through all of them."""
    with tempfile.TemporaryDirectory(prefix="anywire-") as name:
        folder = Path(name)
        for each in python_path(tree, folder).split(os.pathsep)[1:]:
            for package in Path(each).iterdir():
                if (package / "__init__.py").exists() and not (folder / package.name).exists():
                    (folder / package.name).symlink_to(package)
        yield os.environ | {"PYTHONPATH": name}


async def started(start: Start, environment: Mapping[str, str]) -> Took:
    """What a start took."""
    with ExitStack() as stack:
        arguments = list(start.arguments)
        if start.transport:
            options = stack.enter_context(options_of(start.transport))
            config = stack.enter_context(configured(start.transport, options))
            arguments = ["up", "--agents", "1", "--config", config]
        began, spent = time.perf_counter(), _of_ended()
        async with command(arguments, environment) as process:
            assert process.stdout is not None
            if not start.transport:
                await asyncio.wait_for(process.communicate(), PATIENCE)
                assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
                return Took(time.perf_counter() - began, _of_ended() - spent)
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            took = time.perf_counter() - began
            assert line.startswith(b"ready: "), f"{arguments} said {line!r}"
            family = [process.pid, *(each.pid for each in psutil.Process(process.pid).children(recursive=True))]
            return Took(took, sum(map(cpu_seconds, family)))


def _of_ended() -> float:
    """Seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def command(arguments: list[str], environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """An ``anywire`` command of the tree of that environment, gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "anywire.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd=tempfile.gettempdir(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()

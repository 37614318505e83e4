"""No server outlives the process that has started it, however that ends."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from tests.long_form import SOAK
from tests.models.started_servers import MARK, SMALL_SERVER, is_gone, marked, none_left

from anywire.testing.patience import FACTOR, expect, polled
from anywire_engine_models.processes.guarded import guardian_command
from tests import tiny_gguf

pytestmark = [
    pytest.mark.timeout(90 * FACTOR),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

ROOT = Path(__file__).parents[2]
OWNER = Path(__file__).with_name("owner.py")


@pytest.fixture
def mark() -> Iterator[str]:
    """What the processes of a test have in their environment. Those that are left are killed."""
    value = uuid.uuid4().hex
    yield value
    for process in marked(value):
        process.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


def environment(mark: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, MARK: mark, "PYTHONPATH": path}


class Owner:
    """A process of `owner`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await expect(self.process.stdout.readline(), "the owner tells of its server")
        told: dict[str, Any] = json.loads(line)
        return told

    async def kill(self, pid: int = 0) -> None:
        os.kill(pid or self.process.pid, signal.SIGKILL)
        await expect(self.process.wait(), "the owner has ended")


@asynccontextmanager
async def owner(
    mark: str, how: str, model: Path | str, *options: str, before: tuple[str, ...] = ()
) -> AsyncIterator[Owner]:
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, str(OWNER), how, str(model), *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environment(mark),
        cwd=ROOT,
    )
    try:
        yield Owner(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_an_owner_that_is_killed_while_its_server_loads(mark: str) -> None:
    async with owner(mark, "loads", "", "loading=-1", "child=1", "stubborn=1") as owning:
        pid = (await owning.told())["pid"]
        await polled(lambda: len(marked(mark)) == 4, "owner, guardian, server and its child run")
        await owning.kill()
        await none_left(mark)
    assert not psutil.pid_exists(pid)


async def test_an_owner_that_is_killed_while_llama_cpp_loads(mark: str, model: Path) -> None:
    async with owner(mark, "loads", model) as owning:
        await owning.told()
        await owning.kill()
        await none_left(mark)


async def test_an_owner_that_is_killed_during_an_answer(mark: str, model: Path) -> None:
    async with owner(mark, "runs", model) as owning, aiohttp.ClientSession() as session:
        server = await owning.told()
        body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 60_000, "stream": True}
        headers = {"Authorization": f"Bearer {server['key']}"}
        url = f"{server['address']}/v1/chat/completions"
        async with session.post(url, json=body, headers=headers) as response:
            assert await expect(response.content.readany(), "the answer begins")
            await owning.kill()
            await none_left(mark)


async def test_an_owner_that_is_killed_at_any_moment(mark: str) -> None:
    seed = random.randrange(1 << 32) if SOAK else 17
    chance = random.Random(seed)
    for _ in range(50 if SOAK else 4):
        async with owner(mark, "loads", "", "loading=1", "child=1") as owning:
            await owning.told()
            await asyncio.wait({asyncio.ensure_future(owning.process.wait())}, timeout=chance.random() * 0.1)
            await owning.kill()
            await none_left(mark)


async def test_a_server_outlives_the_thread_that_started_it_and_not_the_process(mark: str) -> None:
    """The kernel's signal for the end of a parent comes when a thread of it ends."""
    async with owner(mark, "thread", "", "child=1") as owning:
        server = await owning.told()
        assert (await owning.told()) == {"thread": "ended"}
        async with aiohttp.ClientSession() as session, session.get(f"{server['address']}/health") as response:
            assert response.status == 200
        await owning.kill()
        await none_left(mark)


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="missing: uvloop")
async def test_it_is_the_same_with_uvloop(mark: str) -> None:
    async with owner(mark, "uvloop", "", "child=1") as owning:
        os.kill((await owning.told())["pid"], signal.SIGKILL)
        assert await owning.told() == {"signal": "SIGKILL"}
        await polled(lambda: len(marked(mark)) == 1, "only the owner is left")
    async with owner(mark, "uvloop", "", "child=1") as owning:
        await owning.told()
        await owning.kill()
        await none_left(mark)


NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def namespaces_fault() -> str:
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


@pytest.mark.parametrize("proc", [True, False])
async def test_an_owner_that_is_the_first_process_of_a_namespace(mark: str, proc: bool) -> None:
    """With a /proc of that namespace, and with one that counts the processes of another."""
    if fault := namespaces_fault():
        pytest.skip(f"no namespace of processes can be made here: {fault}")
    before = NAMESPACE if proc else tuple(each for each in NAMESPACE if each != "--mount-proc")
    async with owner(mark, "runs", "", "child=1", "stubborn=1", before=before) as owning:
        assert (await owning.told())["pid"] > 1
        first = psutil.Process(owning.process.pid).children()[0]
        assert len(marked(mark)) == 5  # unshare, owner, guardian, server, its child
        await owning.kill(first.pid)
        await none_left(mark)


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_a_guardian_without_a_control_lets_its_program_read_its_input(mark: str, end: str) -> None:
    """For a program that is spoken with over its streams; its owner's end is noticed all the same."""
    command = guardian_command([sys.executable, "-c", "import sys; [print(each.strip()) for each in sys.stdin]"])
    code = f"import asyncio, os, subprocess; p = subprocess.Popen({command!r}); p.wait()"
    code = code.replace(repr(str(os.getpid())), "str(os.getpid())")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**environment(mark), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    assert await expect(process.stdout.readline(), "the program answers") == b"hello\n"
    if end == "killed":
        process.kill()
    else:
        process.stdin.close()
    await expect(process.wait(), "the owner has ended")
    await none_left(mark)


async def test_a_guardian_whose_owner_is_gone_starts_nothing(mark: str) -> None:
    command = guardian_command([sys.executable, "-I", "-S", str(SMALL_SERVER), "deaf=1"])
    command[command.index("--parent") + 1] = str(os.getppid())
    process = await asyncio.create_subprocess_exec(*command, env=environment(mark))
    assert await expect(process.wait(), "the guardian has ended") == 1
    assert not marked(mark)


async def test_a_server_whose_guardian_is_killed_ends_without_its_owner(mark: str) -> None:
    async with owner(mark, "runs", "") as owning:
        pid = (await owning.told())["pid"]
        os.kill(owning.process.pid, signal.SIGSTOP)
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        await polled(lambda: is_gone(pid), "the server has ended")


async def test_a_guardian_that_somebody_has_stopped_goes_on_at_the_end_of_its_owner(mark: str) -> None:
    async with owner(mark, "runs", "", "child=1") as owning:
        pid = (await owning.told())["pid"]
        os.kill(psutil.Process(pid).ppid(), signal.SIGSTOP)
        await owning.kill()
        await none_left(mark)


async def test_a_program_finds_the_signals_as_if_there_were_no_guardian() -> None:
    """But that it may be interrupted and ended, also where its owner may not (``nohup``)."""

    async def found(command: list[str]) -> list[int]:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await expect(process.communicate(), "the program has ended")
        return [int(mask, 16) for mask in said.split()[1::2]]

    program = ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]
    blocked, ignored = await found(program)
    free = sum(1 << number - 1 for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    assert await found(guardian_command(program)) == [blocked, ignored & ~free]


async def test_a_guardian_passes_on_sigterm_and_the_status_of_its_program(mark: str) -> None:
    for options, status in ((("exits=3",), 3), (("deaf=1", "says=up"), 128 + signal.SIGTERM)):
        command = guardian_command([sys.executable, "-I", "-S", str(SMALL_SERVER), *options])
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment(mark))
        assert process.stdout is not None
        if "deaf=1" in options:
            await process.stdout.readline()
            process.terminate()
        assert await expect(process.wait(), "the guardian has ended") == status
        await process.stdout.read()
    assert not marked(mark)

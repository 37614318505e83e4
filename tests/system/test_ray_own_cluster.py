"""The cluster that the launcher ``ray`` starts on this machine: who may use it, what is seen of secrets in it, and that
nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

from tests.system.own_network import own_network

from anywire.files.private_files import check_private, read_private
from anywire.testing.launcher_kit import SECRET, LauncherSpec, config, is_gone
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.patience import START_PATIENCE, expect, polled
from anywire_launcher_ray import RayConfig, RayLauncher
from anywire_launcher_ray.driver_process import FOLDER_PREFIX

STRANGER = """
import sys
import ray
from ray._raylet import GcsClient

try:
    GcsClient(address=sys.argv[1])
    print("let in")
except ray.exceptions.AuthenticationError:
    print("refused")
"""


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where clusters have their files, for a path that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)
        monkeypatch.setattr(tempfile, "tempdir", None)


async def test_it_refuses_strangers_shows_no_secret_and_leaves_nothing(folders: Path) -> None:
    launcher = RayLauncher(RayConfig())
    try:
        with LogRecorder() as log:
            process = await launcher.start("agent", config(agent={"specialization": SECRET}), "discreet")
            await expect(process.ready(), "it is ready", 2 * START_PATIENCE)
            (warning,) = log.messages("Ray listens on all interfaces")
        assert launcher.driver is not None
        below = psutil.Process(launcher.driver.pid).children(recursive=True)
        assert process.pid in {each.pid for each in below}
        seen = [*_shown(below), *_contents(folders)]
        assert len(seen) > 20
        assert not [what for what, content in seen if SECRET.encode() in content]
        (folder,) = entries(folders)
        assert folder.name.startswith(FOLDER_PREFIX)
        check_private(folder, folder.stat())
        token = read_private(folder / "token")
        assert not [what for what, content in seen if token in content and not what.endswith("/token")]
        (head,) = (each for each in below if each.name() == "gcs_server")
        port = listening(head)
        assert str(port) in warning
        assert await answered(port) == "refused"
        assert await answered(port, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * len(token)) == "refused"
        assert await answered(port, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(folder / "token")) == "let in"
    finally:
        await expect(launcher.close(), "close returns", START_PATIENCE)
    assert all(is_gone(each.pid) for each in below)
    assert not entries(folders)


async def test_nothing_is_left_when_the_launchers_process_is_killed(folders: Path) -> None:
    spec = msgspec.json.encode(LauncherSpec("ray", {}, [])).decode()
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.testing.launcher_process", spec), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        pid = int(await expect(owner.stdout.readline(), "the launcher's process tells the pid", 2 * START_PATIENCE))
        below = psutil.Process(owner.pid).children(recursive=True)
        assert pid in {each.pid for each in below}
    finally:
        owner.kill()
        await owner.wait()
    await polled(lambda: all(is_gone(each.pid) for each in below), "all processes end", START_PATIENCE)
    await polled(lambda: not entries(folders), "the folder is removed")


async def test_the_driver_killed_leaves_nothing_and_a_new_one_runs_the_agents(folders: Path) -> None:
    launcher = RayLauncher(RayConfig())
    try:
        process = await launcher.start("agent", config(), "one")
        await expect(process.ready(), "it is ready", 2 * START_PATIENCE)
        assert launcher.driver is not None
        below = psutil.Process(launcher.driver.pid).children(recursive=True)
        psutil.Process(launcher.driver.pid).kill()
        await polled(lambda: all(is_gone(each.pid) for each in below), "all processes end", START_PATIENCE)
        await polled(lambda: process.restarts == 1 and process.pid, "it runs again", 2 * START_PATIENCE)
        assert len(entries(folders)) == 1
    finally:
        await expect(launcher.close(), "close returns", START_PATIENCE)
    assert not entries(folders)


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _shown(processes: list[psutil.Process]) -> Iterator[tuple[str, bytes]]:
    """What others on this machine see of processes: their arguments and environment."""
    for each in processes:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                yield f"{name} of {each.pid}", Path(f"/proc/{each.pid}/{name}").read_bytes()


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files below a folder, and the object stores in memory."""
    for path in (*folder.rglob("*"), *Path("/dev/shm").iterdir()):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


async def answered(port: int, **environment: str) -> str:
    """What a stranger hears at the head's port, with these variables in its environment."""
    stranger = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STRANGER, f"127.0.0.2:{port}"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    said, _ = await expect(stranger.communicate(), "the head answers", 2 * START_PATIENCE)
    return said.decode().strip()


def listening(process: psutil.Process) -> int:
    """The port that a process listens on."""
    (address,) = {each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert address
    return address.port

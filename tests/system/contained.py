"""A command as a container runs it, without what runs containers: namespaces for files and processes, a root file
system that cannot be written to, the image's user, environment and folder, no rights, the first process of its own.

The image's `/opt/anywire` is the environment that the tests run in. The network is the one that the test is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.integration.deployments import ROOT, Image
from tests.patience import PATIENCE

SYSTEM = ("bin", "sbin", "lib", "lib64", "usr")
DEVICES = ("null", "zero", "full", "random", "urandom")
USER = "10001:10001"


def why_not() -> str:
    """Why no command can be contained here; empty when it can."""
    missing = [each for each in ("unshare", "setpriv", "nsenter", "chroot", "mount") if shutil.which(each) is None]
    if os.geteuid() != 0:
        return "missing: root, for namespaces"
    return f"missing: {', '.join(missing)}" if missing else ""


@dataclass
class Spec:
    """What is run, as compose or a pod says it."""

    image: Image
    command: Sequence[str]
    """Of the entry point."""
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """Files and folders that can be read, by where they are in the container."""
    kept: Mapping[str, Path] = field(default_factory=dict)
    """Folders that can be written to and stay."""
    empty: Sequence[str] = ("/tmp",)
    """Folders in memory, which everybody can write to, or with options of the mount behind a colon."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the image's."""
    user: str = USER
    hosts: Sequence[str] = ()
    """Names of other containers."""


class Container:
    """One that runs. Its log lines are kept."""

    def __init__(self, spec: Spec, root: Path) -> None:
        self._spec, self._root = spec, root
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    async def start(self, words: str = "ready:") -> str:
        """The first line that it writes with these words."""
        self._root.mkdir(parents=True, exist_ok=True)
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "--pid", "--ipc", "--fork", "sh", "-c", self._script(),
            stdout=pipe, stderr=asyncio.subprocess.STDOUT, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return await self.says(words)

    async def says(self, words: str) -> str:
        """The first of its lines with these words, also of those that it has written already."""
        assert self._reading is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                self._more.clear()
                for line in self.lines:
                    if words in line:
                        return line
                assert not self._reading.done(), f"it ended: {''.join(self.lines)}"
                await self._more.wait()

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        assert self._process is not None
        (first,) = psutil.Process(self._process.pid).children()
        return first.pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit status, when it has ended by itself."""
        assert self._process is not None
        assert self._reading is not None
        code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        await self._reading
        return code

    async def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run one more command in it, as a probe or `docker exec` does: its exit status and output."""
        made = await asyncio.create_subprocess_exec(
            "nsenter", "--target", str(self.pid), "--mount", "--pid", "--ipc", "--root", *self._confined(command),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(made.communicate(), PATIENCE)
        assert made.returncode is not None
        return made.returncode, out.decode()

    async def close(self) -> None:
        """Kill it; safe when it has ended."""
        if self._process is not None and self._process.returncode is None:
            # With the first process inside all others there end, and `unshare` then.
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):  # it ends by itself
                inside = [first.pid for first in psutil.Process(self._process.pid).children()]
                for pid in inside or [self._process.pid]:
                    os.kill(pid, signal.SIGKILL)
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode(errors="replace"))
            self._more.set()
        asyncio.get_running_loop().call_soon(self._more.set)  # once this task is done

    def _confined(self, command: Sequence[str]) -> list[str]:
        """The command with the rights, the environment and the folder of the image."""
        number, group = self._spec.user.split(":")
        environment = {**self._spec.image.environment, **self._spec.environment}
        if path := os.environ.get("PYTHONPATH"):  # the code is not installed where the tests run
            environment["PYTHONPATH"] = path
        rights = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
        return [
            *("setpriv", f"--reuid={number}", f"--regid={group}", *rights),
            *("env", "-i", f"--chdir={self._spec.image.folder}"),
            *(f"{name}={value}" for name, value in environment.items()),
            *command,
        ]

    def _script(self) -> str:
        """Puts the root file system together, and becomes the command."""
        root, spec = self._root, self._spec
        number, group = spec.user.split(":")
        done: list[str] = [
            "set -e",
            "mount --make-rprivate /",
            _run("mount", "-t", "tmpfs", "-o", "mode=0755", "none", root),
        ]
        for name in SYSTEM:
            at = Path("/") / name
            if at.is_symlink():
                done.append(_run("ln", "-s", at.readlink(), root / name))
            elif at.is_dir():
                done += _bind(root, at, f"/{name}")
        tree = {
            Path(sys.prefix),
            Path(sys.base_prefix),
            ROOT,
            *map(Path, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
        }
        tree = {each.resolve() for each in tree if each.is_absolute() and each.is_dir()}
        inside = {each for each in tree if any(other in each.parents for other in tree | {Path("/usr")})}
        for each in sorted(tree - inside):
            done += _bind(root, each, str(each))
        done += _bind(root, Path(sys.prefix), "/opt/anywire")
        done += [
            _run("mkdir", "-p", *(root / each for each in ("proc", "sys", "dev/shm", "etc", "run", "state", "tmp"))),
            _run("mount", "-t", "proc", "none", root / "proc"),
            _run("mount", "--rbind", "/sys", root / "sys"),
            _run("mount", "-t", "tmpfs", "-o", "mode=1777", "none", root / "dev/shm"),
            _run("chmod", "0700", root / "state"),
            _run("chown", f"{number}:{group}", root / "state"),
            _write(root / "etc/passwd", f"root:x:0:0::/root:/bin/sh\nanywire:x:{number}:{group}::/state:/bin/false"),
            _write(root / "etc/group", f"root:x:0:\nanywire:x:{group}:"),
            _write(root / "etc/hosts", "\n".join(f"127.0.0.1 {name}" for name in ("localhost", *spec.hosts))),
        ]
        for name in DEVICES:
            done += [_run("touch", root / "dev" / name), _run("mount", "--bind", f"/dev/{name}", root / "dev" / name)]
        for file in ("ld.so.cache", "ld.so.conf", "ssl", "nsswitch.conf"):
            if (Path("/etc") / file).exists():
                done += _bind(root, Path("/etc") / file, f"/etc/{file}")
        for said in spec.empty:
            at_path, _, options = said.partition(":")
            options = f"{options or 'mode=1777'},size=256m"
            done.append(_run("mkdir", "-p", f"{root}{at_path}"))
            done.append(_run("mount", "-t", "tmpfs", "-o", options, "none", f"{root}{at_path}"))
        for at_path, folder in spec.kept.items():
            done += [_run("mkdir", "-p", f"{root}{at_path}"), _run("mount", "--bind", folder, f"{root}{at_path}")]
        for at_path, source in spec.mounts.items():
            done += _bind(root, source, at_path)
        done.append(_run("mount", "-o", "remount,ro", root))
        command = self._confined([*spec.image.entry_point, *spec.command])
        done.append(f"exec {_run('chroot', root, *command)}")
        return "\n".join(done)


def _run(*words: object) -> str:
    return shlex.join(map(str, words))


def _write(path: Path, text: str) -> str:
    return f"printf '%s\\n' {shlex.quote(text)} >{shlex.quote(str(path))}"


def _bind(root: Path, source: Path, target: str) -> list[str]:
    """Show a file or folder at ``target``, to be read only."""
    at = f"{root}{target}"
    made = ["mkdir", "-p", at] if source.is_dir() else ["touch", at]
    return [
        _run("mkdir", "-p", Path(at).parent),
        _run(*made),
        _run("mount", "--bind", source, at),
        _run("mount", "-o", "remount,bind,ro", at),
    ]

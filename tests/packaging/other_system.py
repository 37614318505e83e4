"""Makes this process lack what another system lacks, then imports everything of ours, or runs a command.

    python other_system.py import [WITHOUT]  every module as on macOS and as on Windows: JSON, what failed by system
    python other_system.py windows ARGUMENT… the command `anywire` as on Windows

Python itself and the packages of others are loaded before, and stay as they are: this tells of our code alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES: dict[str, dict[Any, str]] = {
    "macos": {
        os: "eventfd memfd_create pidfd_open pipe2 sched_getaffinity sched_setaffinity setresuid splice",
        select: "epoll",
        signal: "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT pidfd_send_signal",
        socket: "AF_NETLINK AF_PACKET SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED SO_BINDTODEVICE SO_DOMAIN",
    },
    "windows": {
        os: "chown fchmod fchown fork forkpty getegid geteuid getgid getloadavg getpgid getpgrp getpriority getsid "
        "getuid initgroups killpg lchown mkfifo nice posix_spawn setegid seteuid setgid setpgid setpriority "
        "setsid setuid statvfs fstatvfs sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid O_CLOEXEC O_DIRECTORY "
        "O_NOFOLLOW O_NONBLOCK O_SYNC",
        select: "poll",
        signal: "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGXFSZ "
        "pthread_sigmask setitimer alarm",
        socket: "AF_UNIX SO_REUSEPORT SCM_RIGHTS",
        asyncio: "open_unix_connection start_unix_server",
    },
}
MODULES = {
    "macos": ("uvloop",),
    "windows": ("curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "uvloop"),
}

LARGE = ("ray",)
"""What the driver of a cluster needs and is not installed with the rest: without it, what needs it is left out."""


def own_modules() -> Iterator[str]:
    """The names of all modules of the core and of the plugins, but those that are run and not imported."""
    for package in [ROOT / "core" / "anywire", *sorted((ROOT / "plugins").glob("**/anywire_*/__init__.py"))]:
        folder = package if package.is_dir() else package.parent
        yield folder.name
        for module in pkgutil.walk_packages([str(folder)], f"{folder.name}."):
            if not module.name.endswith("__main__"):
                yield module.name


def become(system: str) -> None:
    """Take away what ``system`` lacks."""
    for module, names in NAMES[system].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES[system]:
        sys.modules[name] = None  # type: ignore[assignment]
    if system == "windows":
        # Python on Windows makes pairs by other means, and they are there.
        make_pair = functools.partial(socket.socketpair, 1)
        socket.socketpair = lambda *_, **__: make_pair()

        class Library(ctypes.CDLL):
            def __init__(self, name: str | None, *arguments: Any, **options: Any) -> None:
                if name is None:
                    raise TypeError("there is no library of this process on Windows")
                super().__init__(name, *arguments, **options)

        ctypes.CDLL = Library  # type: ignore[misc]

        def refused(*_: Any) -> None:
            raise NotImplementedError

        asyncio.SelectorEventLoop.add_signal_handler = refused  # type: ignore[method-assign,assignment]
        asyncio.SelectorEventLoop.remove_signal_handler = refused  # type: ignore[method-assign,assignment]
        asyncio.SelectorEventLoop.subprocess_exec = refused  # type: ignore[method-assign,assignment]


def forget() -> None:
    for name in [each for each in sys.modules if each.partition(".")[0].startswith("anywire")]:
        del sys.modules[name]


def failures(without: Sequence[str]) -> dict[str, str]:
    """What does not import, with the error."""
    forget()
    found = {}
    for name in own_modules():
        if name.partition(".")[0] in without:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name in LARGE:
                continue
            found[name] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "import":
        told = {"here": failures(arguments)}
        for system in ("macos", "windows"):
            become(system)
            told[system] = failures(arguments)
        print(json.dumps(told))
        return
    importlib.import_module("anywire.cli")
    for name in (
        "anywire.roles.orchestrator_and_agents",
        "anywire_gateway_openai",
        "anywire_zeromq",
        "httpcore",
        "trio",
        "psutil",
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    become("macos")
    become(what)
    forget()
    sys.argv = ["anywire", *arguments]
    importlib.import_module("anywire.cli").main()


if __name__ == "__main__":
    main()

"""What the host needs of whatever starts servers: the contract of a launcher and of a server that it has started.

A process is one kind of server; a simulated one in tests and a connected MCP server are others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from anywire_engine_models.host.hosted import HostedModel


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a server ended. ``code`` is its exit status, ``signal`` the name of the signal that ended it (``SIGKILL``);
    one of them is set where there was a process. ``reason`` is a sentence for a person. ``lines`` are the last it
    wrote, at most 20."""

    reason: str
    code: int | None = None
    signal: str = ""
    lines: tuple[str, ...] = ()


class StartFailed(Exception):
    """A server did not become ready; nothing of it is left. ``elsewhere``: it may start on another device (a card that
    is out of memory)."""

    def __init__(self, exit: Exit, *, elsewhere: bool = False) -> None:  # noqa: A002
        super().__init__(exit.reason)
        self.exit, self.elsewhere = exit, elsewhere


class Watcher(Protocol):
    """What a launcher tells of a start under way. All is called on the event loop."""

    def spawned(self, pid: int) -> None:
        """There is a process."""
        ...

    def progress(self, part: float) -> None:
        """So much is loaded, 0.0 to 1.0."""
        ...

    def line(self, text: str) -> None:
        """It wrote a line, on either stream, during its whole life; without line end, at most 1,000 characters."""
        ...


class Server(Protocol):
    """A server that is ready."""

    @property
    def pid(self) -> int: ...

    @property
    def address(self) -> str:
        """``http://127.0.0.1:41234``."""
        ...

    @property
    def key(self) -> str:
        """The bearer token that it wants, empty for none."""
        ...

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done when it has ended and all it wrote was read: on the event of its exit, not of a timer. Never cancelled,
        never an exception."""
        ...

    async def stop(self) -> None:
        """End it: gently, then after the model's ``stop_grace`` by force; returns when it and its process group are
        gone. Idempotent, and safe to be cancelled: called again it goes on."""
        ...


class Launcher(Protocol):
    """Starts servers. The host calls it for one model at a time once; different models at the same time."""

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> Server:
        """Start ``model`` on ``device`` (``cpu``, ``gpu:0``) and return it once it is ready. Raises `StartFailed`.
        Cancelled, it ends what it has begun before the cancellation goes on: no process is left in either case."""
        ...


class Device(msgspec.Struct, frozen=True):
    """Where a model is to be started and why, with the numbers."""

    name: str
    reason: str = ""


class Devices(Protocol):
    """Chooses devices. See `anywire_engine_models.devices`."""

    async def choose(self, model: HostedModel, without: Sequence[str] = ()) -> Device:
        """Where to start ``model`` now, at none of ``without`` (where a start has failed). ``cpu`` always works."""
        ...

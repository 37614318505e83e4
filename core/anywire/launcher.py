"""The contract of a launcher: where the processes of a role run.

It starts processes of ``python -m anywire.roles.process ROLE`` with a configuration, here or elsewhere, keeps them
running, and ends them. Secrets in a configuration travel by a pipe or a file of mode 0600, never by arguments,
environment or a cluster's store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

import pydantic

from anywire import config as configuration

RoleName = Literal["agent", "orchestrator"]

IMPORTS = "imports"
"""Key of a JSON object that a process may get as a line of its own before its configuration: names of modules that it
imports until that comes. One that does not import is left to whoever needs it."""


class LauncherConfig(pydantic.BaseModel):
    """A launcher without settings of its own; a plugin's ``Config`` is another one or extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")


class RunningProcess(Protocol):
    """One process of a role, through all its lives."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int:
        """Of the newest life; 0 when there is none now, or it is on a host where pids mean nothing here."""
        ...

    @property
    def host(self) -> str:
        """Where it runs."""
        ...

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        ...

    async def ready(self) -> None:
        """Wait until it was ready once. Raises `LaunchFailed` with its last lines when it ended before: it would do so
        again, and is not started again."""
        ...

    async def ended(self) -> str:
        """Wait until it has ended for good, after `stop` or since it cannot be started any more, and say why."""
        ...

    def logs(self) -> Sequence[str]:
        """Its newest lines, at most 100."""
        ...

    async def stop(self, grace: float = 10.0) -> None:
        """Ask it to stop, and kill it after ``grace`` seconds; returns when nothing of it is left. Idempotent."""
        ...


class Launcher(ABC):
    """One launcher, configured. ``__init__`` does no I/O."""

    name: ClassVar[str]
    """The name of its entry point; an instance has the one by which it is configured."""
    Config: ClassVar[type[pydantic.BaseModel]] = LauncherConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    async def start(
        self, role: RoleName, config: configuration.Config, name: str, changed: Callable[[], None] = lambda: None
    ) -> RunningProcess:
        """Start a process of ``role`` with ``config`` (agents have their ``agent.id`` in it), under ``name`` in logs;
        returns without waiting until it is ready. One that ends on its own is started again after a pause that doubles
        from half a second to 30. ``changed`` is called whenever it became ready or ended. Raises `ConfigError` when
        nothing can be started here, saying what is missing."""

    async def reached(self) -> str:
        """The address by which the processes that it starts reach this machine; it is asked before the first `start`.
        Default: loopback, for processes of this machine. Raises `ConfigError` when that cannot be found out."""
        return "127.0.0.1"

    async def prepare(self, role: RoleName, name: str, modules: Sequence[str] = ()) -> None:
        """Begin what can be done for the process ``name`` before its configuration is known, at most once and before
        `start` is called for it. It will import ``modules``. `close` ends what was prepared and never started. What
        keeps the process from being started is for `start` to raise. Default: do nothing."""
        return

    @abstractmethod
    async def close(self) -> None:
        """Stop everything it has started; idempotent. An agent whose launcher is gone without this, however it ended,
        ends by itself within three leases."""

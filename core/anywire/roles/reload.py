"""A configuration that is read again while its orchestrator runs: no task, stream or connection ends for it.

What can change is what is asked for anew with each task: the settings of the pipeline in
`anywire.pipeline_settings.LIVE`, and how much is logged. Everything else that has changed is told by name and counts
after a restart; with orchestrators that stand by, and one agent at a time, a restart ends no stream either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from anywire.config import Config
from anywire.errors import AnywireError, ConfigError, InvalidRequest
from anywire.events import ConfigReloaded
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import LIVE
from anywire.roles import logs
from anywire.roles.orchestrator_role import Served
from anywire.route import Request, Response, Route

log = logging.getLogger(__name__)

_SUMMARY = "Read the configuration again. Tells what counts from now on (`changed`) and after a restart (`restart`)."
MAX_TOLD = 50
"""Settings that are named at most."""
READ_TIMEOUT = 60.0
"""Seconds in which a configuration must be read."""
MAX_FAULT_CHARS = 2000
"""Of what is wrong with a configuration, in an event."""
_ORDERED = ("transports", "join", "gateways", "services")
_LIVE = frozenset({"log_level", *(f"pipeline.{name}" for name in LIVE)})


class Reloaded(msgspec.Struct, frozen=True):
    """``changed`` are the settings whose new value counts from now on, ``restart`` those whose new value counts after a
    restart; keys with dots, at most `MAX_TOLD` of each."""

    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


class Reload:
    """Reads the configuration again when asked to, by ``POST /v1/config/reload`` (role `operate`), or by SIGHUP in a
    process without a terminal: a terminal that is closed sends it too, and ends the process as ever.

    ``config`` is in force; ``read`` gives what the same places say now. It is called in a thread and raises
    `AnywireError` for what is no configuration: then nothing changes.
    """

    def __init__(self, config: Config, read: Callable[[], Config]) -> None:
        self._config, self._read = config, read
        self._started = config
        """With which this process began; what counts after a restart is told until it does."""
        self._orchestrator: Orchestrator | None = None
        self._reading: asyncio.Task[Reloaded] | None = None
        self._signals: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Be asked by SIGHUP from now on."""
        loop = asyncio.get_running_loop()
        number = None if _has_terminal() else getattr(signal, "SIGHUP", None)  # not on Windows
        if number is not None:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            if number is not None:
                loop.remove_signal_handler(number)
            for task in self._signals:
                task.cancel()

    def serves(self, served: Served) -> None:
        """This one lets clients in from now on, with what the configuration says now."""
        self._orchestrator = served.orchestrator
        self._orchestrator.reconfigure(self._config.pipeline)
        if served.routes is not None:
            served.routes.add(Route("POST", "/config/reload", self._answer, role="operate", summary=_SUMMARY))

    async def again(self) -> Reloaded:
        """Read it again. Raises `AnywireError` when it is not in order, and leaves everything as it is. Of several who
        ask at once each has it read once more, after those before."""
        self._reading = asyncio.get_running_loop().create_task(self._read_after(self._reading))
        self._reading.add_done_callback(_heard)  # who asked may be gone
        return await asyncio.shield(self._reading)

    async def _read_after(self, earlier: asyncio.Task[Reloaded] | None) -> Reloaded:
        if earlier is not None:
            await asyncio.wait((earlier,))
        try:
            newer = await self._read_in_time()
        except AnywireError as error:
            log.error("the configuration is not read again, the earlier one counts: %s", error)
            self._tell(str(error)[:MAX_FAULT_CHARS], ())
            raise
        changed = tuple(sorted(_differing(self._config, newer) & _LIVE)[:MAX_TOLD])
        restart = tuple(sorted(_differing(self._started, newer) - _LIVE)[:MAX_TOLD])
        if newer.log_level != self._config.log_level:
            logs.set_level(newer.log_level)
        self._config = newer
        if self._orchestrator is not None:
            self._orchestrator.reconfigure(newer.pipeline)
        log.info("the configuration was read again, changed: %s", ", ".join(changed) or "nothing")
        if restart:
            log.warning("these settings have changed and count after a restart: %s", ", ".join(restart))
        self._tell("", restart)
        return Reloaded(changed, restart)

    async def _read_in_time(self) -> Config:
        """What `_newer` gives. A file system that does not answer, or a plugin's file that never ends, holds up neither
        those who ask later nor the end of the process: so the thread is none that is waited for."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Config | AnywireError] = loop.create_future()

        def tell(found: Config | AnywireError) -> None:
            if not answer.done():
                answer.set_result(found)

        def read() -> None:
            try:
                found: Config | AnywireError = self._newer()
            except AnywireError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, found)

        threading.Thread(target=read, name="reload", daemon=True).start()
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                found = await answer
        except TimeoutError:
            raise ConfigError(f"it could not be read within {READ_TIMEOUT:g} s") from None
        if isinstance(found, AnywireError):
            raise found
        return found

    def _newer(self) -> Config:
        """What ``read`` gives. Whatever else it raises is a fault of the configuration: a new plugin's file may call
        `sys.exit`."""
        try:
            return self._read()
        except AnywireError:
            raise
        except BaseException as error:
            raise ConfigError(f"it cannot be read: {type(error).__name__}: {error}") from error

    def _tell(self, error: str, restart: tuple[str, ...]) -> None:
        if self._orchestrator is not None:
            self._orchestrator.events.publish(ConfigReloaded, what="config", error=error, restart=restart)

    async def _answer(self, request: Request) -> Response:
        try:
            return Response(msgspec.json.encode(await self.again()))
        except AnywireError as error:
            raise InvalidRequest(
                f"what is configured now does not serve, the earlier settings count: {error}"
            ) from error

    def _signalled(self) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly())
        self._signals.add(task)
        task.add_done_callback(self._signals.discard)

    async def _quietly(self) -> None:
        with contextlib.suppress(AnywireError):  # it is in the log
            await self.again()


def _heard(reading: asyncio.Task[Reloaded]) -> None:
    if not reading.cancelled():
        reading.exception()


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _differing(one: Config, other: Config) -> set[str]:
    """The keys, with dots, whose values differ; and the lists of plugins of which the order differs."""
    trees = one.model_dump(), other.model_dump()
    before, after = map(_flat, trees)
    moved = {name for name in _ORDERED if _is_moved(*(tree[name] or {} for tree in trees))}
    return moved | {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _is_moved(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return [name for name in one if name in other] != [name for name in other if name in one]


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Each value under its key with dots. The chains of models are one value: their keys are names of models."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value and key != "pipeline.fallbacks":
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found

"""The launcher of processes: from a command template to a server that is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from anywire.printable import printable
from anywire.secrecy import forget_secret, keep_secret
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Exit, Server, StartFailed, Watcher
from anywire_engine_models.processes import failures, ports, template
from anywire_engine_models.processes.guarded import GuardedProcess
from anywire_engine_models.processes.load_progress import LoadProgress, mapped_part
from anywire_engine_models.processes.readiness import Readiness
from anywire_engine_models.processes.server_command import ServerCommand

PORT_TRIES = 5
"""Ports that are tried when others take them between their choice and the server's bind."""
SETTLING = 1.0
"""Seconds that a server has to end because of its port, where it is not seen to listen there itself. That of a
container is not seen either, and is ready then."""

log = logging.getLogger(__name__)


class ProcessServer:
    """A server in a process of its own; see `anywire_engine_models.host.server.Server`."""

    def __init__(self, process: GuardedProcess, address: str, key: str, grace: float) -> None:
        self._process, self._address, self._key, self._grace = process, address, key, grace

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        return self._address

    @property
    def key(self) -> str:
        return self._key

    @property
    def exited(self) -> asyncio.Future[Exit]:
        return self._process.ended

    async def stop(self) -> None:
        await self._process.end(self._grace)


class ProcessLauncher:
    """Starts the servers of `ServerCommand`; see `anywire_engine_models.host.server.Launcher`. One is enough for any
    number of models."""

    def __init__(self) -> None:
        self._ports: set[int] = set()
        """Chosen for starts under way."""

    async def launch(self, model: HostedModel, device: str, watcher: Watcher) -> Server:
        command = model.launch
        if not isinstance(command, ServerCommand) or not command.arguments:
            raise StartFailed(Exit(f"{model.name} has no command that starts its server"))
        start = _Start(model, command, device, watcher)
        await start.check()
        tries = 0
        while True:
            async with self._port(command.port) as port:
                try:
                    return await start.on(port)
                except _PortTaken as failure:
                    tries += 1
                    if command.port or tries == PORT_TRIES:
                        raise StartFailed(failure.exit) from None
                    log.info("%s: %s; another one is tried", model.name, failure.exit.reason)

    @asynccontextmanager
    async def _port(self, fixed: int) -> AsyncIterator[int]:
        """The port ``fixed``, or for 0 one that no other start of this launcher uses meanwhile. Raises
        `StartFailed`."""
        port = fixed
        try:
            if fixed and ports.is_taken(fixed):
                raise StartFailed(await _taken(fixed))
            while not port or port in self._ports:
                if fixed:
                    raise StartFailed(Exit(f"port {fixed} is in use: another model is started there"))
                port = ports.free_port()
        except OSError as error:
            raise StartFailed(Exit(f"port {fixed or ''} cannot be used: {error.strerror}")) from error
        self._ports.add(port)
        try:
            yield port
        finally:
            self._ports.discard(port)


class _PortTaken(Exception):
    def __init__(self, ended: Exit) -> None:
        super().__init__(ended.reason)
        self.exit = ended


class _Start:
    """One start, on one port after the other."""

    def __init__(self, model: HostedModel, command: ServerCommand, device: str, watcher: Watcher) -> None:
        self._model, self._command, self._device, self._watcher = model, command, device, watcher
        self._until = asyncio.get_running_loop().time() + model.start_timeout
        self._progress = LoadProgress(watcher.progress)

    async def check(self) -> None:
        """Raise `StartFailed` for what can be seen before anything is started."""
        try:
            self._program(self._line(0)[0], self._environment(0, ""))
        except ValueError as error:
            raise StartFailed(Exit(f"the command of {self._model.name} is wrong: {error}")) from error
        if self._command.model_file:
            fault = await asyncio.to_thread(failures.unreadable, Path(self._command.model_file))
            if fault:
                raise StartFailed(Exit(fault))

    async def on(self, port: int) -> Server:
        """Start it there; the server once it is ready. Raises `StartFailed` or `_PortTaken`; nothing is left then."""
        key = secrets.token_hex(16) if self._command.secret else ""
        keep_secret(key)
        environment = self._environment(port, key)
        program, *rest = self._line(port)
        process = GuardedProcess(
            [self._program(program, environment), *rest], environment, self._watcher.line, self._progress.stream
        )
        process.ended.add_done_callback(lambda _: forget_secret(key))
        address = f"http://{ports.HOST}:{port}"
        readiness = Readiness(f"{address}/{self._command.health_path.lstrip('/')}", key)
        try:
            async with asyncio.timeout_at(self._until):
                await asyncio.wait({process.started})
                if process.pid:
                    self._watcher.spawned(process.pid)
                ready = await readiness.wait(process.ended, lambda: self._look(process.pid))
                ready = ready and await _is_its_own(process, port)
        except TimeoutError:
            await _end(process, self._model.stop_grace)
            reason = f"not ready after {self._model.start_timeout:g} s: {printable(readiness.seen)}"
            raise StartFailed(Exit(reason, lines=process.ended.result().lines)) from None
        except BaseException:
            await _end(process, self._model.stop_grace)
            raise
        if not ready:
            raise await self._failure(process.ended.result(), port)
        self._progress.close()
        return ProcessServer(process, address, key, self._model.stop_grace)

    async def _failure(self, ended: Exit, port: int) -> StartFailed | _PortTaken:
        """What to raise of a server that has ended by itself."""
        if ended.code is None and not ended.signal:
            return StartFailed(ended)  # it has not even run
        early = f"{ended.reason} before it was ready"
        with contextlib.suppress(OSError):
            if ports.is_taken(port):
                return _PortTaken(msgspec.structs.replace(await _taken(port), lines=ended.lines))
        if failures.says_port_is_taken(ended):
            return _PortTaken(msgspec.structs.replace(ended, reason=f"{early}: a port that it wants is in use"))
        advice = failures.advice(ended, self._command.model_file)
        reason = f"{early}: {advice}" if advice else early
        return StartFailed(msgspec.structs.replace(ended, reason=reason), elsewhere=self._device.startswith("gpu"))

    def _line(self, port: int) -> list[str]:
        return template.arguments(self._command, port=port, device=self._device)

    def _environment(self, port: int, key: str) -> dict[str, str]:
        return template.environment(self._command, port=port, device=self._device, key=key)

    def _program(self, program: str, environment: dict[str, str]) -> str:
        """The absolute path of the program. Raises `StartFailed`."""
        found = shutil.which(
            Path(program).expanduser() if program.startswith("~") else program, path=environment.get("PATH")
        )
        if found is None:
            raise StartFailed(Exit(failures.no_program(program)))
        return str(Path(found).absolute())

    async def _look(self, pid: int) -> None:
        """See how much is loaded, where the server does not say it."""
        file = self._command.model_file
        if file:
            self._progress.reached(await asyncio.to_thread(mapped_part, pid, Path(file)))


async def _end(process: GuardedProcess, grace: float) -> None:
    """End it, whoever cancels this: the cancellation goes on afterwards."""
    ending = asyncio.ensure_future(process.end(grace))
    is_cancelled = False
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


async def _is_its_own(process: GuardedProcess, port: int) -> bool:
    """Whether the answer on ``port`` was the server's, as far as can be seen, and not that of somebody who was quicker
    to listen there. False when the server has ended."""
    if not await asyncio.to_thread(ports.listens_below, process.guardian, port):
        await asyncio.wait({process.ended}, timeout=SETTLING)
    return not process.ended.done()


async def _taken(port: int) -> Exit:
    who = await asyncio.to_thread(ports.listener, port)
    return Exit(f"port {port} is in use{who}")

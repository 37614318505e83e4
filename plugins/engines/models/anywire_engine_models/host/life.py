"""One life of a model's server: a device is chosen, the server is launched, runs, and ends or is ended.

A task of its own does all waiting, so that nothing occupies the owner of the models. It tells the owner in order what
becomes of the server, and last that nothing of it is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from anywire.clock import Clock
from anywire_engine_models.host.course import Course
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.model_log import ModelLog
from anywire_engine_models.host.server import Device, Devices, Exit, Launcher, Server, StartFailed
from anywire_engine_models.host.strangers import LaunchWatcher, exit_of, failure_of, is_device, is_server
from anywire_engine_models.host.waiting import wait_for_any

CHOICE_LIMIT = 10.0
"""Seconds for the choice of a device."""
START_MARGIN = 5.0
"""Seconds beyond ``start_timeout`` and ``stop_grace`` until a start is given up here: its launcher keeps to the former,
and knows better what is wrong."""
END_MARGIN = 10.0
"""Seconds beyond ``stop_grace`` until an end counts as one that does not come."""
MAX_DEVICES = 16
"""Devices that are tried for one start."""

Post = Callable[[Callable[[float], None]], None]
"""Sends the owner a call that takes the time."""

log = logging.getLogger(__name__)


class Life:
    def __init__(
        self,
        model: HostedModel,
        launcher: Launcher,
        devices: Devices,
        clock: Clock,
        model_log: ModelLog,
        course: Course,
        post: Post,
    ) -> None:
        self._model, self._launcher, self._devices, self._clock = model, launcher, devices, clock
        self._log, self._course, self._post = model_log, course, post
        self._watcher = self._new_watcher()
        self._end_asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.server: Server | None = None
        """Once it is ready."""
        self.task = asyncio.create_task(self._run(), name=f"model {model.name}")

    def end(self) -> None:
        """Have it end, whatever it does now."""
        if not self._end_asked.done():
            self._end_asked.set_result(None)

    async def _run(self) -> None:
        try:
            server = await self._start()
            if server is not None:
                self.server = server
                self._tell(self._course.ready, server.pid, server.address)
                either: set[asyncio.Future[Any]] = {server.exited, self._end_asked}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not self._end_asked.done():
                    self._tell(self._course.ended, exit_of(server, self._watcher.lines))
                await self._stop(server)
        finally:
            self._watcher.is_over = True
            self._tell(self._course.gone)

    async def _start(self) -> Server | None:
        """The server once it is ready; None when it was told that there is none, or an end was asked for."""
        tried: dict[str, str] = {}
        while True:
            device = await self._choose(tried)
            if self._end_asked.done():
                return None
            why = "".join(f"{name} failed ({why}); " for name, why in tried.items()) + device.reason
            self._tell(self._course.placed, Device(device.name, why))
            if why:  # an MCP server has no device, and none is chosen
                log.info("%s starts on %s: %s", self._model.name, device.name, why)
            started = await self._launch(device.name)
            if not isinstance(started, StartFailed):
                return started
            again = started.elsewhere and device.name != "cpu" and len(tried) < MAX_DEVICES
            if not again or self._end_asked.done():
                self._tell(self._course.failed, started.exit)
                return None
            tried[device.name] = started.exit.reason
            log.warning("%s does not start on %s: %s", self._model.name, device.name, started.exit.reason)

    async def _choose(self, tried: dict[str, str]) -> Device:
        async def choose() -> Device:
            return await self._devices.choose(self._model, tuple(tried))

        choice = asyncio.create_task(choose(), name=f"device for {self._model.name}")
        try:
            in_time = await wait_for_any(self._clock, (choice, self._end_asked), CHOICE_LIMIT)
            if choice.done() and not choice.cancelled() and choice.exception() is None:
                device = choice.result()
                if is_device(device) and device.name not in tried:
                    return device
                why = f"nothing useful was chosen: {device!r}"[:200]
            elif choice.done():
                error = None if choice.cancelled() else choice.exception()
                why = f"the choice of a device failed: {error!r}"[:200]
            else:
                why = "an end was asked for" if in_time else f"no device was chosen within {CHOICE_LIMIT:g} s"
        finally:
            choice.cancel()
        return Device("cpu", why)

    async def _launch(self, device: str) -> Server | StartFailed | None:
        """What came of it; nothing is left of a launch but the server that it returns. None: an end was asked for."""
        model = self._model
        self._watcher.is_over = True
        watcher = self._watcher = self._new_watcher()

        async def launch() -> Server:
            return await self._launcher.launch(model, device, watcher)

        launching = asyncio.create_task(launch(), name=f"start of {model.name}")
        limit = model.start_timeout + model.stop_grace + START_MARGIN
        late = None
        try:
            if not await wait_for_any(self._clock, (launching, self._end_asked), limit):
                late = StartFailed(
                    Exit(f"it was not ready after {model.start_timeout:g} s (start_timeout)", lines=(*watcher.lines,))
                )
            if not launching.done():
                launching.cancel()
                await self._until_ended(launching, late)
        finally:
            launching.cancel()
        error = asyncio.CancelledError() if launching.cancelled() else launching.exception()
        if error is not None:
            return None if self._end_asked.done() else late or failure_of(error, watcher.lines)
        server = launching.result()
        if not is_server(server):
            what = f"its launcher gave no server but {server!r}"[:200]
            return late or StartFailed(Exit(what, lines=tuple(watcher.lines)))
        if late is None and not self._end_asked.done():
            return server
        await self._stop(server)
        return late

    async def _until_ended(self, launching: asyncio.Task[Server], late: StartFailed | None) -> None:
        """Wait for the end of a launch that was cancelled."""
        if await wait_for_any(self._clock, (launching,), self._model.stop_grace + END_MARGIN):
            return
        if late is not None:
            self._tell(self._course.failed, late.exit)
        self._hangs("its start was cancelled, and does not end")
        await asyncio.wait({launching})

    async def _stop(self, server: Server) -> None:
        """End it; returns when it is gone."""

        async def stop() -> None:
            await server.stop()

        stopping = asyncio.create_task(stop(), name=f"stop of {self._model.name}")
        try:
            await wait_for_any(self._clock, (stopping,), self._model.stop_grace + END_MARGIN)
            if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
                return
            if stopping.done():
                error = None if stopping.cancelled() else stopping.exception()
                why = f"its stop failed: {error!r}"[:200]
            else:
                why = f"it does not end, {self._model.stop_grace + END_MARGIN:g} s after it was told to"
            if not server.exited.done():
                self._hangs(f"{why} (process {server.pid})")
            # A stop that goes on may yet come to its end; one that has failed will not.
            waited: set[asyncio.Future[Any]] = {server.exited} if stopping.done() else {server.exited, stopping}
            while waited and not server.exited.done():
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if stopping in done and not stopping.cancelled() and stopping.exception() is None:
                    return
        finally:
            stopping.cancel()

    def _hangs(self, why: str) -> None:
        log.error("%s: %s; its memory counts as in use", self._model.name, why)
        self._tell(self._course.hangs, why)

    def _new_watcher(self) -> LaunchWatcher:
        return LaunchWatcher(
            self._log,
            lambda pid: self._tell(self._course.spawned, pid),
            lambda part: self._tell(self._course.progressed, part),
        )

    def _tell(self, what: Callable[..., None], *told: Any) -> None:
        name = self._model.name
        self._post(lambda now: what(name, *told, now))

"""The one model that the app has started: its commands know no other."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec

from anywire.errors import EngineFailed, InvalidRequest, ModelStopped
from anywire_desktop.app_files import AppFiles
from anywire_desktop.server_plan import ServerConfig, planned
from anywire_engine_models.host.status import ModelStatus
from anywire_engine_models.local_models import LocalModels, ServerUsage

HEALTH_TIMEOUT = 1.0
"""Seconds that a server may take to say that it is well."""


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the server answers at ``url``; ``status`` is its HTTP status, ``error`` is there when it is not well."""

    healthy: bool
    url: str
    status: int | None = None
    error: str = ""


class ActiveServer:
    def __init__(self, models: LocalModels, files: AppFiles) -> None:
        self._models, self._files = models, files
        self._name = ""
        self._config: ServerConfig | None = None
        self._is_starting = False
        self._stops = 0
        """Stops that were asked for: one ends a start that is still reading the model's file."""

    @property
    def name(self) -> str:
        """The model's name; empty before the first start."""
        return self._name

    async def start(self, config: ServerConfig) -> ModelStatus:
        """Start a server, once the one before it has ended; at once when it runs with this ``config`` already. Raises
        `InvalidRequest` while another start is under way."""
        if self._is_starting:
            raise InvalidRequest("a server is already starting: wait for it, or stop it first")
        self._is_starting, stops = True, self._stops
        try:
            if self._config == config and (status := self.status()) is not None and status.state == "running":
                return status
            models = self._models
            settings = await self._files.work(self._files.read_settings)
            folder = settings["llamaDirectory"]
            plan = await asyncio.to_thread(planned, config, models.entries, models.config, folder)
            await self._end()
            name = plan.entry.full_identifier
            await models.put(plan.entry, plan.config)
            if self._name != name:
                await models.remove(self._name)
            self._name, self._config = name, config
            if self._stops != stops:
                raise EngineFailed("the server was stopped before it had started")
            try:
                return await models.start(name)
            except asyncio.CancelledError:
                await models.stop(name)
                raise
        finally:
            self._is_starting = False

    async def stop(self) -> None:
        """Stop the server, also one that is starting; nothing happens when there is none."""
        self._stops += 1
        await self._end()

    async def _end(self) -> None:
        if self._name:
            await self._models.stop(self._name)

    def status(self) -> ModelStatus | None:
        """The server now; None when none was started."""
        return self._models.status(self._name) if self._name else None

    @property
    def config(self) -> ServerConfig | None:
        """With what the server runs; None while it does not."""
        status = self.status()
        return self._config if status is not None and status.state == "running" else None

    def running_model(self) -> str:
        """The name of the model that runs. Raises `ModelStopped` when none does, with the reason of its end."""
        status = self.status()
        if status is None:
            raise ModelStopped("no model is running: call start_llama_server first, or name a model")
        if status.state in ("stopped", "crashed", "stopping"):
            reason = f": {status.exit.reason}" if status.exit is not None else ""
            raise ModelStopped(f"the model is {status.state}{reason}; call start_llama_server")
        return self._name

    def usage(self) -> ServerUsage | None:
        return self._models.usage(self._name) if self._name else None

    async def health(self) -> Health:
        """Ask the server whether it is well, at most `HEALTH_TIMEOUT` seconds."""
        status = self.status()
        if status is None or not status.address:
            state = status.state if status is not None else "stopped"
            return Health(False, "", error=f"the server is {state}")
        url = f"{status.address}/health"
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                told = "" if response.status == 200 else f"it answered with status {response.status}"
                return Health(response.status == 200, url, response.status, told)
        except TimeoutError:
            return Health(False, url, error=f"it did not answer within {HEALTH_TIMEOUT:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Health(False, url, error=f"it cannot be reached: {error}")

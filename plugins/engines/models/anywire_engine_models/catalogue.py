"""The models of one engine: what the registry lists, as the host runs it, kept up to date while that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from anywire.errors import AnywireError, ConfigError, EngineFailed, ModelNotFound, ShuttingDown
from anywire.files.private_files import config_folder
from anywire.near import nearest
from anywire.printable import printable
from anywire_engine_models.config import ModelsConfig
from anywire_engine_models.host.status import ModelStatus
from anywire_engine_models.hosted_models import KnownModel, known_model
from anywire_engine_models.registry.file import DEFAULT, Registry
from anywire_engine_models.running_models import RunningModels

log = logging.getLogger(__name__)

DIGESTS_TOLD_EVERY = 1.0
"""Seconds."""
MAX_FAULT = 2000
"""Characters of what is said of a registry."""


def registry_of(path: Path | None) -> Registry:
    """The registry file ``path``. Where none is set it is this user's own, which begins as the one that comes along."""
    return Registry(path) if path is not None else Registry(config_folder() / "models.json", seed=DEFAULT)


class Catalogue:
    """``apply`` is awaited with all models whenever they are others, one call at a time. ``told`` is called when what
    is known of them has changed. Close it."""

    def __init__(
        self,
        config: ModelsConfig,
        registry: Registry,
        running: RunningModels,
        apply: Callable[[Mapping[str, KnownModel]], Awaitable[None]],
        told: Callable[[], None],
    ) -> None:
        self.registry = registry
        self.models: Mapping[str, KnownModel] = {}
        """By full identifier, in the registry's order, as they are started next."""
        self._running = running
        self.config, self._apply, self._told = config, apply, told
        self._faults: dict[str, str] = {}
        self._news = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._following: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def fault(self) -> str:
        """What is wrong with the registry or its models, and what counts in its place; empty when nothing is."""
        return printable("; ".join(filter(None, (self.registry.fault, *self._faults.values()))), MAX_FAULT)

    def get(self, model: str) -> KnownModel:
        """Raises `ModelNotFound`, which names the nearest one."""
        known = self.models.get(model)
        if known is None:
            near = nearest(model, self.models)
            hint = f"; did you mean {near}?" if near else ""
            raise ModelNotFound(
                f"the model {printable(model, 256)!r} is not in the registry{hint}",
                status=404,
                param="model",
            )
        return known

    def as_it_is(self, status: ModelStatus) -> KnownModel | None:
        """The model of ``status`` as it is now; None when the registry no longer has it."""
        known = self.models.get(status.model)
        return self._running.as_it_is(known, status) if known is not None else None

    async def read(self) -> None:
        """Read the registry for the first time, and follow it from now on: call `follow` once the host has begun.
        Raises `ConfigError` when it lacks the one model that is to be offered."""
        await self.registry.start(self._news.set)
        await self._read()
        only = self.config.model
        if only and only not in self.models:
            faults = (self._faults.get(only) or self._missing(only), self.registry.fault)
            raise ConfigError(f"engine.model: {'; '.join(filter(None, faults))}")
        for name in self.config.models:
            if not only and all(entry.full_identifier != name for entry in self.registry.entries):
                log.warning("engine.models: %s: `anywire models add` puts it there", self._missing(name))

    def follow(self) -> None:
        """Take over what changes, in the background; find the digests of the weights."""
        self._news.set()
        self._following = asyncio.create_task(self._follow(), name="models: registry")

    async def settled(self) -> None:
        """Wait until what the registry has now is what the host has. Raises `ShuttingDown`."""
        if self._closed:
            raise ShuttingDown("the engine is stopping")
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._news.set()
        await waiter

    async def close(self) -> None:
        self._closed = True
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        self._answer(ShuttingDown("the engine is stopping"))
        await self.registry.close()

    # Inside

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            waiters, self._waiters = self._waiters, []
            failed: AnywireError | None = ShuttingDown("the engine is stopping")
            try:
                await self._read()
                await self._apply(self.models)
                failed = None
            except Exception as error:
                log.exception("a change of the registry %s is not taken over", self.registry.path)
                failed = EngineFailed(f"the registry {self.registry.path} is not taken over: {error}")
                continue
            finally:
                _end(waiters, failed)
            self._told()
            await self._find_digests()

    def _answer(self, error: AnywireError) -> None:
        waiters, self._waiters = self._waiters, []
        _end(waiters, error)

    async def _read(self) -> None:
        only, config = self.config.model, self.config
        entries = [each for each in self.registry.entries if not only or each.full_identifier == only]

        def read() -> tuple[dict[str, KnownModel], dict[str, str]]:
            models: dict[str, KnownModel] = {}
            faults: dict[str, str] = {}
            for entry in entries:
                name = entry.full_identifier
                try:
                    models[name] = known_model(entry, config)
                except Exception as error:
                    log.log(logging.ERROR, "%s cannot be run: %s", name, error, exc_info=_unexpected(error))
                    faults[name] = f"{name} cannot be run: {error}"
            return models, faults

        self.models, self._faults = await asyncio.to_thread(read)

    async def _find_digests(self) -> None:
        """Those of files that are not as they were read, until the registry changes again. Told together where they
        come quickly."""
        time = asyncio.get_running_loop().time
        told_at, untold = 0.0, False
        names = self._running.names
        await self._running.look()
        names.keep(known.file for known in self.models.values())
        for known in list(self.models.values()):
            if self._news.is_set():
                return  # they are told with what has changed
            if not known.file:
                continue
            before = names.digest(known.file)
            try:
                await names.read(known.file)
            except OSError as error:
                log.warning("the weights of %s cannot be read: %s", known.hosted.name, error)
            untold = untold or names.digest(known.file) != before
            if untold and time() - told_at >= DIGESTS_TOLD_EVERY:
                told_at, untold = time(), False
                self._told()
        self._told()

    def _missing(self, name: str) -> str:
        near = nearest(name, [each.full_identifier for each in self.registry.entries])
        return f"{name} is not in the registry {self.registry.path}{f'; did you mean {near}?' if near else ''}"


def _end(waiters: list[asyncio.Future[None]], error: AnywireError | None) -> None:
    for each in waiters:
        if each.done():
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(error)


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, AnywireError | ValueError | OSError) else error

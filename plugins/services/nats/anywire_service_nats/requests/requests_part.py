"""The part of the service that takes requests by message: the worker, the submissions, and what both remember."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from anywire import errors
from anywire.clock import Clock
from anywire.files.database_thread import taken_over
from anywire.metric import Metric
from anywire_service_nats.part import Part, Parts
from anywire_service_nats.requests.ledger import Ledger
from anywire_service_nats.requests.serving import Serving

log = logging.getLogger(__name__)

PURGE_S = 600.0
REMEMBERED_S = 7 * 86_400.0
"""Seconds for which a request is remembered after its end: one that is published again in that time is the same."""


class Requests(Part):
    """``keep`` are the seconds for which a request may wait at most, which is remembered as long."""

    def __init__(self, ledger: Ledger, serving: Serving, takers: Sequence[Part], clock: Clock, keep: float) -> None:
        self._ledger, self._serving, self._takers, self._clock = ledger, serving, takers, clock
        self._remembered = max(keep, REMEMBERED_S)
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = Parts()
        self._all_started = asyncio.Event()
        self._closing = False

    async def start(self) -> None:
        """Raises `ConfigError` when the folder cannot be used. Where another process has it, requests are taken once
        that has ended."""
        is_open = await self._ledger.open()
        if not is_open:
            log.warning("another orchestrator takes requests with this folder: this one does once that has ended")
        self._tasks.append(asyncio.create_task(self._run(is_open)))

    def all_started(self) -> None:
        self._all_started.set()

    def gate_closed(self) -> None:
        self._closing = True
        self._begun.gate_closed()

    async def close(self) -> None:
        """Safe to call twice, and without `start`."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._begun.close()
        with suppress(errors.PluginFailed):
            await self._ledger.close()

    def metrics(self) -> Iterable[Metric]:
        return self._begun.metrics()

    async def _run(self, is_open: bool) -> None:
        try:
            if not is_open:
                await taken_over(self._ledger.open, self._clock)
            await self._all_started.wait()
            self._tasks.append(asyncio.create_task(self._tell_rest()))
            self._tasks.append(asyncio.create_task(self._purge()))
            for taker in self._takers:
                if self._closing:
                    return
                await self._begun.add(taker)
        except (errors.ConfigError, errors.PluginFailed) as error:
            log.error("no requests are taken by message: %s", error)
        except Exception:
            log.exception("no requests are taken by message")

    async def _tell_rest(self) -> None:
        """Give to the outbox what an earlier process has answered and not given to it."""
        try:
            for each in await self._ledger.untold():
                await self._serving.tell(each.key)
        except errors.PluginFailed as error:
            log.error("answers of requests are not told before the next start: %s", error)

    async def _purge(self) -> None:
        while True:
            with suppress(errors.PluginFailed):  # it is logged
                await self._ledger.forget(time.time() - self._remembered)
            await self._clock.sleep(PURGE_S)

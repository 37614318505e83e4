"""Puts into the outbox what is to be published of deliberations, as they go on and after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from anywire.caller import OPERATOR, Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.metric import Metric
from anywire.once_log import OnceLog
from anywire_service_deliberation.database import tenant_of
from anywire_service_deliberation.offered import MAX_LISTED, Deliberations
from anywire_service_deliberation.record import Deliberation
from anywire_service_nats.deliberation_messages import due, ids_at_the_end
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.part import Part

log = logging.getLogger(__name__)

SERVICE = "deliberation"
MOST_PENDING = 1000
"""States that wait to be looked at. What is over it is looked for again where deliberations are kept."""
PAUSE = 1.0
"""Seconds until something is tried again: the outbox is full, its disk fails, deliberations are not open yet."""

Key = tuple[str, str]
"""A tenant, and the id of its deliberation."""


class ToldDeliberations(Part):
    """Follows the service ``deliberation``, if there is one.

    Each state is looked at once it is kept. The ids of deliberations under way stand in the outbox's file, and are
    removed with the last message of each. So what has ended in a process that died before it had put that is found by
    the next one: among those ids, and among the newest deliberations that are kept.

    Another orchestrator may have had the deliberations until now, or have them later, with an outbox of its own. So
    each message is put with the time from which on another may have published it.
    """

    def __init__(self, context: Context, outbox: Outbox, producer: str, kinds: Collection[str]) -> None:
        self._context, self._outbox, self._producer, self._kinds = context, outbox, producer, kinds
        self._pending: dict[Key, Deliberation] = {}
        self._filled = asyncio.Event()
        self._put: dict[Key, set[str]] = {}
        """By deliberation under way, the ids that were put."""
        self._resumed: set[Key] = set()
        """Of those under way, the ones that an earlier process has taken in, and may have told of."""
        self._behind = True
        """Whether what is kept must be looked at: something may have ended that was not told here."""
        self._task: asyncio.Task[None] | None = None
        self._unlisten: list[Callable[[], None]] = []
        self._once = OnceLog(log)

    def all_started(self) -> None:
        found: Any = self._context.services.get(SERVICE)
        if found is None or self._task is not None:
            return
        deliberations: Deliberations = found
        self._unlisten = [deliberations.listen(self._changed), deliberations.listen_opened(self._taken_over)]
        self._task = asyncio.create_task(self._follow(deliberations))

    async def close(self) -> None:
        """Put what has come until now."""
        for unlisten in self._unlisten:
            unlisten()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(AnywireError):
                async with asyncio.timeout(1.0):
                    while self._pending:
                        await self._put_one()

    def metrics(self) -> Iterable[Metric]:
        yield Metric("pending_deliberations", "Deliberations whose news were not put yet.", len(self._pending))

    def _changed(self, state: Deliberation, resumed: bool) -> None:
        key = _key(state)
        if resumed:
            self._resumed.add(key)
        if key not in self._pending and len(self._pending) >= MOST_PENDING:
            self._behind = True
            return
        self._pending[key] = state
        self._filled.set()

    def _taken_over(self) -> None:
        """Another orchestrator may have had them: what has ended there may not be told, and what was put may be."""
        self._put.clear()
        self._pending.clear()
        self._behind = True
        self._filled.set()

    async def _follow(self, deliberations: Deliberations) -> None:
        while True:
            try:
                if self._pending:
                    await self._put_one()
                elif self._behind:
                    self._behind = False
                    await self._catch_up(deliberations)
                else:
                    self._filled.clear()
                    await self._filled.wait()
                    continue
                self._once.reset()
            except AnywireError as error:
                self._behind = self._behind or not self._pending
                self._once.warn(error.code, "news of deliberations wait: %s", error)
                await self._context.clock.sleep(PAUSE)
            except Exception:
                log.exception("news of deliberations could not be put")
                await self._context.clock.sleep(PAUSE)

    async def _put_one(self) -> None:
        key, state = next(iter(self._pending.items()))
        await self._look_at(key, state)
        # A newer state may have come meanwhile.
        if self._pending.get(key) is state:
            del self._pending[key]

    async def _look_at(self, key: Key, state: Deliberation) -> None:
        """Put what is due. Raises `AnywireError` where that may work later."""
        try:
            await self._put_due(key, state)
        except AnywireError:
            raise
        except Exception:
            log.exception("not all is published of the deliberation %s", state.question.id)

    async def _put_due(self, key: Key, state: Deliberation) -> None:
        known = self._put.get(key)
        if known is None:
            if not state.is_final:
                await self._outbox.begin(*key, msgspec.msgpack.encode(state.question.caller))
            known = self._put[key] = set()
        messages = due(state, self._producer, self._kinds, known)
        if messages or state.is_final:
            ended = [key] if state.is_final else []
            await self._outbox.put(messages, ended, state.submitted, uncertain=key in self._resumed)
        known.update(each.envelope.id for each in messages)
        if state.is_final:
            self._put.pop(key, None)
            self._resumed.discard(key)

    async def _catch_up(self, deliberations: Deliberations) -> None:
        """Look at what is kept: what was under way when an earlier process ended, and the newest ones."""
        begun = {(tenant, name): caller for tenant, name, caller in await self._outbox.begun()}
        callers: dict[Key, Caller] = {}
        for state in await deliberations.list(OPERATOR, limit=MAX_LISTED):
            if state.is_final and not await self._outbox.lacks(ids_at_the_end(state, self._kinds)):
                continue
            callers[_key(state)] = state.question.caller
        for key, encoded in begun.items():
            callers.setdefault(key, msgspec.msgpack.decode(encoded, type=Caller))
        for key, caller in callers.items():
            found = await deliberations.get(key[1], caller)
            if found is None:
                await self._outbox.forget(*key)  # it has expired
            elif key not in self._pending and key not in self._put:
                self._resumed.add(key)
                await self._look_at(key, found)


def _key(state: Deliberation) -> Key:
    return tenant_of(state.question.caller), state.question.id

"""What is in the bucket of its owner: deliberations and councils, written one after the other for each of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from anywire.errors import PluginFailed
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.store import tenant_of
from anywire_service_nats import kv_form
from anywire_service_nats.kv_form import COUNCIL, INDEX, PARTS, UNREADABLE, Plan
from anywire_service_nats.kv_index import Entry, Index, Key
from anywire_service_nats.kv_owned import OwnedBucket
from anywire_service_nats.kv_reading import Reader, all_of, damaged, groups

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Contents:
    """`load` it first. ``max_kept`` bounds those that have ended."""

    def __init__(self, bucket: OwnedBucket, max_kept: int) -> None:
        self._bucket, self._max_kept = bucket, max_kept
        self._reader = Reader(bucket)
        self._index = Index()
        self._councils: dict[str, tuple[str, Council]] = {}
        self._litter: set[str] = set()
        """Numbers of those that are no more, of which something may be left."""
        self._added = 0
        self._turns: dict[Key | str, asyncio.Task[Any]] = {}
        """The last write of each deliberation and council: the next one comes after it."""

    async def load(self) -> None:
        await self._bucket.read_all(f"{INDEX}.>", self._begin_loading)

    async def finish(self, seconds: float | None) -> None:
        """Wait for the writes that were called for."""
        if self._turns:
            await asyncio.wait(list(self._turns.values()), timeout=seconds)

    # Deliberations

    async def add(self, state: Deliberation) -> Deliberation:
        key = (tenant_of(state.question.caller), state.question.id)
        return await self._in_turn(key, partial(self._add, key, state))

    async def keep(self, state: Deliberation) -> None:
        key = (tenant_of(state.question.caller), state.question.id)
        await self._in_turn(key, partial(self._keep, key, state))

    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        entry = self._index.find(tenant, question_id)
        return await self._reader.read(entry) if entry is not None else None

    async def listed(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        found = await self._reader.read_all(self._index.listed(tenant, status, role, limit), texts=False)
        return [state for state in found if status in ("", state.status)]

    async def unfinished(self) -> Sequence[Deliberation]:
        return await self._reader.read_all(self._index.unfinished())

    async def purge(self, now: float) -> int:
        for number in list(self._litter):
            await self._free(number, await self._bucket.mark_deleted(f"{INDEX}.{number}"))
        gone = self._index.expired(now, self._max_kept)
        for some in groups(gone):
            await all_of([self._in_turn(entry.key, partial(self._remove, entry)) for entry in some])
        for some in groups(self._index.doubtful()):
            await all_of([self._in_turn(entry.key, partial(self._remove_doubtful, entry)) for entry in some])
        return len(gone)

    async def _add(self, key: Key, state: Deliberation) -> Deliberation:
        entry = self._index.at(key)
        if entry is not None and entry.kept:
            if not 0 < entry.summary.expires <= state.submitted:
                found = await self._reader.read(entry)
                if found is None:
                    raise PluginFailed(
                        f"what is kept of the deliberation {state.question.id} is damaged: use another id"
                    )
                return found
            await self._remove(entry)
            entry = None
        plan = kv_form.first(state, self._bucket.limits)
        if entry is None:
            self._added += 1
            number = f"{self._bucket.fence:016x}-{self._added:08x}"
            entry = Entry(number, kv_form.read_summary(kv_form.head_bytes(plan.head)), 0, None, kept=False)
            self._index.put(entry)
        if plan.parts:
            # So that whoever finds it after this process's end knows that it was not added.
            begun = msgspec.structs.replace(plan.head, begun=True)
            await self._bucket.put(f"{INDEX}.{entry.number}", kv_form.head_bytes(begun))
        await self._write(entry, plan)
        return state

    async def _keep(self, key: Key, state: Deliberation) -> None:
        entry = self._index.at(key)
        if entry is None or not entry.kept:
            return
        try:
            head = entry.head or await self._reader.head(entry)
        except UNREADABLE as error:
            damaged(entry, error)
            return
        plan = kv_form.later(head, state, self._bucket.limits, entry.serial)
        entry.serial = plan.head.serial if plan.head.generation == head.generation else 0
        await self._write(entry, plan)
        for keys in plan.gone:
            try:
                await self._bucket.remove(f"{PARTS}.{entry.number}.{keys}")
            except PluginFailed as error:  # it is freed with its deliberation
                log.debug("the room of %s is not free yet: %s", keys, error)

    async def _write(self, entry: Entry, plan: Plan) -> None:
        await all_of([self._bucket.put(f"{PARTS}.{entry.number}.{key}", data) for key, data in plan.parts.items()])
        revision = await self._bucket.put(f"{INDEX}.{entry.number}", kv_form.head_bytes(plan.head))
        entry.written(plan.head, revision)

    async def _remove_doubtful(self, entry: Entry) -> None:
        if not entry.kept:
            await self._remove(entry)

    async def _remove(self, entry: Entry) -> None:
        if entry.removed:
            return
        before = await self._bucket.mark_deleted(f"{INDEX}.{entry.number}")
        self._index.drop(entry)
        self._litter.add(entry.number)
        await self._free(entry.number, before)

    async def _free(self, number: str, before: int) -> None:
        """Free the room of one that is no more; that of the mark that says so last."""
        await self._bucket.remove(f"{PARTS}.{number}.>")
        await self._bucket.remove(f"{INDEX}.{number}", before)
        self._litter.discard(number)

    # Councils

    async def councils(self) -> Sequence[tuple[str, Council]]:
        return sorted(self._councils.values(), key=lambda each: (each[0], each[1].name))

    async def put_council(self, tenant: str, council: Council) -> None:
        key = kv_form.council_key(tenant, council.name)

        async def put() -> None:
            await self._bucket.put(f"{INDEX}.{key}", msgspec.json.encode([tenant, council]))
            self._councils[key] = (tenant, council)

        await self._in_turn(key, put)

    async def delete_council(self, tenant: str, name: str) -> bool:
        key = kv_form.council_key(tenant, name)

        async def delete() -> bool:
            if key not in self._councils:
                return False
            before = await self._bucket.mark_deleted(f"{INDEX}.{key}")
            del self._councils[key]
            await self._bucket.remove(f"{INDEX}.{key}", before)
            return True

        return await self._in_turn(key, delete)

    # Inside

    def _begin_loading(self) -> Callable[[str, int, bytes], None]:
        self._index, self._councils, self._litter = Index(), {}, set()
        return self._take_in

    def _take_in(self, key: str, revision: int, data: bytes) -> None:
        """An entry that an earlier owner has left. A later one of the same key replaces it."""
        name = key.removeprefix(f"{INDEX}.")
        try:
            if name == "owner":
                return
            if name.startswith(COUNCIL):
                if data:
                    self._councils[name] = msgspec.json.decode(data, type=tuple[str, Council])
                return
            if not data or (summary := kv_form.read_summary(data)).begun:
                self._litter.add(name)
                return
            head = kv_form.read_head(data) if not summary.ended else None
        except UNREADABLE as error:
            log.error("the entry %s of the bucket cannot be read: it is damaged: %s", name, error)
            return
        self._index.put(Entry(name, summary, revision, head, kept=True))

    async def _in_turn(self, key: Key | str, write: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Do ``write`` once the writes of ``key`` before it are done, also when the caller has gone."""
        before = self._turns.get(key)

        async def do() -> Result:
            if before is not None:
                await asyncio.wait((before,))
            return await write()

        turn = self._turns[key] = asyncio.ensure_future(do())
        turn.add_done_callback(partial(self._turn_over, key))
        return await asyncio.shield(turn)

    def _turn_over(self, key: Key | str, turn: asyncio.Task[Any]) -> None:
        if self._turns.get(key) is turn:
            del self._turns[key]
        if not turn.cancelled():
            turn.exception()  # its caller may have gone

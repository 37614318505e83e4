"""The store ``nats``: deliberations in a key-value bucket of JetStream that orchestrators of several machines share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from anywire.errors import PluginFailed
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.store import Place, Store
from anywire_service_nats.broker import Broker
from anywire_service_nats.kv_bucket import Bucket, Gone
from anywire_service_nats.kv_contents import Contents
from anywire_service_nats.kv_owned import OwnedBucket
from anywire_service_nats.kv_ownership import REMOVED, Ownership
from anywire_service_nats.kv_settings import NatsStoreConfig

CLOSE_S = 1.5
"""Seconds that writes, and then giving the bucket back, have at the end. A service is left alone after 5."""
ENDS = "deliberations are not kept any more: the orchestrator ends"


class NatsStore(Store):
    """See `anywire_service_nats.kv_form` for what is in the bucket, and `kv_ownership` for whose it is.

    What was written outlives the server's end. A loss of power of its machine takes what the server has not synced
    (``sync_interval``), unless other servers of its cluster have it too (``replicas``).
    """

    Config = NatsStoreConfig

    def __init__(self, config: NatsStoreConfig, place: Place) -> None:
        self._config, self._max_kept = config, place.max_kept
        self._broker: Broker | None = None
        self._bucket: Bucket | None = None
        self._ownership: Ownership | None = None
        self._contents: Contents | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._closed = False

    @classmethod
    def make(cls, config: NatsStoreConfig, place: Place) -> NatsStore:
        return cls(config, place)

    async def open(self, on_lost: Callable[[str], None] | None = None) -> bool:
        if self._closed:
            raise PluginFailed(ENDS)
        self._on_lost = on_lost
        if self._broker is None:
            self._broker = Broker(self._config, "anywire deliberations")
            await self._broker.open()
        if not self._broker.connected:
            if self._ownership is not None:
                self._ownership.forget()
            self.waits_for = self._broker.away
            return False
        try:
            return await self._take(self._broker)
        except PluginFailed:
            self.waits_for = self._broker.away or "the NATS servers do not do what they are asked"
        except Gone:
            self.waits_for = REMOVED
            self._drop(REMOVED)
        return False

    async def close(self) -> None:
        self._closed = True
        contents, self._contents = self._contents, None
        if contents is not None:
            await contents.finish(CLOSE_S)
        if self._ownership is not None:
            await self._ownership.end()
            if self._broker is not None and self._broker.connected:
                giving = asyncio.ensure_future(self._ownership.give_back())
                await asyncio.wait((giving,), timeout=CLOSE_S)
        self._drop(ENDS)
        if contents is not None:
            await contents.finish(None)
        if self._broker is not None:
            await self._broker.close()

    async def add(self, state: Deliberation) -> Deliberation:
        return await self._kept.add(state)

    async def keep(self, state: Deliberation) -> None:
        await self._kept.keep(state)

    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        return await self._kept.get(tenant, question_id)

    async def list(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        return await self._kept.listed(tenant, status, role, limit)

    async def unfinished(self) -> Sequence[Deliberation]:
        return await self._kept.unfinished()

    async def purge(self, now: float) -> int:
        return await self._kept.purge(now)

    async def councils(self) -> Sequence[tuple[str, Council]]:
        return await self._kept.councils()

    async def put_council(self, tenant: str, council: Council) -> None:
        await self._kept.put_council(tenant, council)

    async def delete_council(self, tenant: str, name: str) -> bool:
        return await self._kept.delete_council(tenant, name)

    # Inside

    @property
    def _kept(self) -> Contents:
        if self._contents is None:
            raise PluginFailed(ENDS if self._closed else "deliberations are with another orchestrator")
        return self._contents

    async def _take(self, broker: Broker) -> bool:
        if self._bucket is None or self._ownership is None:
            if self._ownership is not None:
                await self._ownership.end()
            bucket = Bucket(broker, self._config)
            try:
                await bucket.make()
            except BaseException:
                bucket.stop("it was not made")
                raise
            self._bucket, self._ownership = bucket, Ownership(bucket, self._config.lease, self._lost)
        ownership = self._ownership
        if not ownership.fence and not await ownership.take():
            self.waits_for = (
                f"another orchestrator ({ownership.held_by or 'unknown'}) has those in the bucket "
                f"{self._config.bucket}. Where both are to run, set services.deliberation.store.bucket for one of them"
            )
            return False
        contents = Contents(OwnedBucket(self._bucket, ownership.fence, ownership.lost), self._max_kept)
        await contents.load()
        if not ownership.fence:  # it was lost meanwhile
            return False
        self._contents = contents
        return True

    def _lost(self, reason: str) -> None:
        held = self._contents is not None
        self._drop(f"deliberations are left here: {reason}")
        if held and self._on_lost is not None:
            self._on_lost(reason)

    def _drop(self, reason: str) -> None:
        """Let what waits fail; the next `open` begins anew."""
        bucket, self._bucket, self._contents = self._bucket, None, None
        if self._ownership is not None:
            self._ownership.fence = 0
        if bucket is not None:
            bucket.stop(reason)

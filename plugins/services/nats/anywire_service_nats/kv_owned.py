"""The bucket as its owner uses it: each write has the fence, and what the server refuses says that it is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anywire.errors import PluginFailed
from anywire_service_nats.kv_bucket import Bucket, Gone, Refused, Value
from anywire_service_nats.kv_form import OWNER, Limits
from anywire_service_nats.kv_ownership import LOST, REMOVED

Result = TypeVar("Result")


class OwnedBucket:
    """``fence`` is the revision of the owner's record. ``on_lost`` is called with a reason, perhaps more than once.
    All calls raise `PluginFailed`."""

    def __init__(self, bucket: Bucket, fence: int, on_lost: Callable[[str], None]) -> None:
        self._bucket, self.fence, self._on_lost = bucket, fence, on_lost

    @property
    def limits(self) -> Limits:
        return Limits(self._bucket.piece, self._bucket.inline)

    async def put(self, key: str, data: bytes) -> int:
        """Its revision."""
        return await self._guarded(self._bucket.put(key, data, OWNER, self.fence))

    async def get(self, key: str) -> Value | None:
        return await self._guarded(self._bucket.get(key))

    async def mark_deleted(self, key: str) -> int:
        """Say that ``key`` is no more. Returns the revision up to which its room may be freed (`remove`)."""
        return 1 + await self._guarded(self._bucket.delete(key, OWNER, self.fence))

    async def remove(self, keys: str, before: int = 0) -> None:
        """Free room, which has no fence: of what was marked as deleted, or what nothing names any more."""
        await self._guarded(self._bucket.remove(keys, before))

    async def read_all(self, keys: str, take: Callable[[], Callable[[str, int, bytes], None]]) -> None:
        await self._guarded(self._bucket.read_all(keys, self.fence, take))

    async def _guarded(self, call: Awaitable[Result]) -> Result:
        try:
            return await call
        except (Refused, Gone) as error:
            reason = LOST if isinstance(error, Refused) else REMOVED
            self._on_lost(reason)
            raise PluginFailed(f"deliberations are left here: {reason}") from error

"""Councils, in memory and on the disk: there are few, and a question is completed with one at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.store import Store, tenant_of

MAX_COUNCILS = 256
"""Councils of one tenant."""


class Councils:
    """``in_use`` says how many deliberations of a tenant's council are under way."""

    def __init__(self, store: Store, in_use: Callable[[str, str], int]) -> None:
        self._store, self._in_use = store, in_use
        self._known: dict[tuple[str, str], Council] = {}

    async def load(self) -> None:
        self._known = {(tenant, council.name): council for tenant, council in await self._store.councils()}

    def get(self, name: str, caller: Caller) -> Council | None:
        return self._known.get((tenant_of(caller), name))

    def all(self, caller: Caller) -> Sequence[Council]:
        """Those of the caller's tenant, by name."""
        own = tenant_of(caller)
        found = [self._told(own, council) for (tenant, _), council in self._known.items() if tenant == own]
        return sorted(found, key=lambda council: council.name)

    async def put(self, council: Council, caller: Caller, now: float) -> Council:
        """Keep it, in place of the one of that name: deliberations under way go on as they were asked."""
        tenant = tenant_of(caller)
        before = self._known.get((tenant, council.name))
        if before is None and sum(owner == tenant for owner, _ in self._known) >= MAX_COUNCILS:
            raise InvalidRequest(f"there are {MAX_COUNCILS} councils already: delete one first", status=409)
        council = msgspec.structs.replace(council, created=before.created if before else now, in_use=0)
        await self._store.put_council(tenant, council)
        self._known[tenant, council.name] = council
        return self._told(tenant, council)

    async def delete(self, name: str, caller: Caller) -> Council | None:
        tenant = tenant_of(caller)
        council = self._known.get((tenant, name))
        if council is None:
            return None
        if count := self._in_use(tenant, name):
            raise InvalidRequest(
                f"the council {name} is in use by {count} deliberation{'s' if count > 1 else ''}: cancel them, or wait",
                status=409,
                detail_code="council_in_use",
            )
        await self._store.delete_council(tenant, name)
        return self._known.pop((tenant, name), council)

    def _told(self, tenant: str, council: Council) -> Council:
        return msgspec.structs.replace(council, in_use=self._in_use(tenant, council.name))

"""What the service serves over HTTP: what is kept, and that it is kept no more."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec

from anywire.caller import Caller
from anywire.errors import Forbidden, PluginFailed
from anywire.route import Request, Response, Route
from anywire.submission import Submission
from anywire_service_cache.asked import scope_of
from anywire_service_cache.store import Store

PATH = "/cache"
_encode = msgspec.json.Encoder().encode


class Keeps(Protocol):
    """The service."""

    @property
    def store(self) -> Store | None: ...
    @property
    def counts(self) -> Counter[str]: ...
    def tell(self, name: str, submission: Submission, **data: object) -> None: ...


def cache_routes(cache: Keeps) -> list[Route]:
    """All routes of the service, for `anywire.route.Routes.add`."""
    handlers = CacheHandlers(cache)
    return [
        Route(
            "GET", PATH, handlers.get, role="observe", summary="Tell how many answers are kept, and were given again."
        ),
        Route(
            "DELETE",
            PATH,
            handlers.clear,
            summary="Keep none of the caller's answers any more; for an operator, of everybody's or of `tenant`. "
            "`model` clears one model alone.",
        ),
    ]


class CacheHandlers:
    def __init__(self, cache: Keeps) -> None:
        self._cache = cache

    async def get(self, request: Request) -> Response:
        counts, store = self._cache.counts, self._store()
        told = {
            "object": "cache",
            "entries": len(store.entries),
            "bytes": store.entries.bytes,
            "hits": {how: counts[how] for how in ("exact", "semantic")},
            "misses": counts["misses"],
            "stored": counts["stored"],
            "removed": {why: counts[why] for why in ("full", "expired", "cleared")},
            "failures": counts["failures"],
        }
        return Response(_encode(told))

    async def clear(self, request: Request) -> Response:
        """A caller that does not operate clears what is its own."""
        scope = _scope(request.caller, request.query.get("tenant"))
        model = request.query.get("model", "")
        cleared = await self._store().clear(scope, model)
        self._cache.counts["cleared"] += cleared
        by = Submission("chat", model, "", caller=request.caller)
        self._cache.tell("cleared", by, entries=cleared, model=model, everybody=scope is None)
        return Response(_encode({"object": "cache.cleared", "cleared": cleared}))

    def _store(self) -> Store:
        store = self._cache.store
        if store is None:
            raise PluginFailed("another process has the folder of the cache, so this one keeps nothing yet")
        return store


def _scope(caller: Caller, tenant: str | None) -> str | None:
    """Whose answers are meant; None for everybody's. Raises `Forbidden`."""
    if caller.has_role("operate"):
        return scope_of(Caller(tenant=tenant)) if tenant else None
    if tenant is not None and tenant != caller.tenant:
        raise Forbidden("the answers of another tenant are cleared by an operator alone", param="tenant")
    return scope_of(caller)

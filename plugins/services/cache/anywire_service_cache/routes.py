"""What the service serves over HTTP: what is kept, and that it is kept no more."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Protocol

import msgspec

from anywire.caller import Caller
from anywire.errors import Forbidden, PluginFailed
from anywire.route import Request, Response, Route
from anywire.submission import Submission
from anywire_service_cache.asked import scope_of
from anywire_service_cache.store import Store

PATH = "/cache"
_encode = msgspec.json.Encoder().encode


class Hits(msgspec.Struct):
    exact: int
    semantic: int


class Removed(msgspec.Struct):
    full: int
    expired: int
    cleared: int


class CacheState(msgspec.Struct):
    """``hits`` and ``misses`` are tasks since the start, ``stored`` answers that were kept, ``removed`` those that are
    kept no more, by why. ``failures`` are those of the disk."""

    object: Literal["cache"]
    entries: int
    bytes: int
    hits: Hits
    misses: int
    stored: int
    removed: Removed
    failures: int


class CacheCleared(msgspec.Struct):
    object: Literal["cache.cleared"]
    cleared: int


class Keeps(Protocol):
    """The service."""

    @property
    def store(self) -> Store | None: ...
    @property
    def counts(self) -> Counter[str]: ...
    async def clear(self, scope: str | None, model: str) -> int: ...
    def tell(self, name: str, submission: Submission, **data: object) -> None: ...


def cache_routes(cache: Keeps) -> list[Route]:
    """All routes of the service, for `anywire.route.Routes.add`."""
    handlers = CacheHandlers(cache)
    return [
        Route(
            "GET",
            PATH,
            handlers.get,
            role="observe",
            summary="Tell how many answers are kept, and were given again.",
            gives=CacheState,
        ),
        Route(
            "DELETE",
            PATH,
            handlers.clear,
            summary="Keep none of the caller's answers any more; for an operator, those of everybody.",
            gives=CacheCleared,
            query={
                "model": "Model whose answers are meant. Default: all.",
                "tenant": "Tenant whose answers are meant; that of another one is for operators.",
            },
        ),
    ]


class CacheHandlers:
    def __init__(self, cache: Keeps) -> None:
        self._cache = cache

    async def get(self, request: Request) -> Response:
        counts, store = self._cache.counts, self._store()
        told = CacheState(
            "cache",
            len(store.entries),
            store.entries.bytes,
            Hits(counts["exact"], counts["semantic"]),
            counts["misses"],
            counts["stored"],
            Removed(counts["full"], counts["expired"], counts["cleared"]),
            counts["failures"],
        )
        return Response(_encode(told))

    async def clear(self, request: Request) -> Response:
        """A caller that does not operate clears what is its own."""
        scope = _scope(request.caller, request.query.get("tenant"))
        model = request.query.get("model", "")
        cleared = await self._cache.clear(scope, model)
        by = Submission("chat", model, "", caller=request.caller)
        self._cache.tell("cleared", by, entries=cleared, model=model, everybody=scope is None)
        return Response(_encode(CacheCleared("cache.cleared", cleared)))

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

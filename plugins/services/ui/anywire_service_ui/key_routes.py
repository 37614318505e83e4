"""Which keys there are, for operators: who may do what. Nothing of a secret is known here, nor told."""

from __future__ import annotations

import msgspec

from anywire.access import KnownKey, ListsKeys
from anywire.context import Context
from anywire.route import Request, Response, Route

MAX_KEYS = 1_000
"""Keys that are listed, the newest first."""


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """``total`` counts those that are not listed too, ``needs_key`` is whether anybody needs one here."""

    object: str = "list"
    data: list[KnownKey]
    total: int
    needs_key: bool


_encode = msgspec.json.Encoder().encode


class KeyHandlers:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        access = self._context.access
        known = list(access.known_keys()) if isinstance(access, ListsKeys) else []
        shown = sorted(known, key=lambda each: each.created, reverse=True)[:MAX_KEYS]
        return Response(_encode(KeyList(data=shown, total=len(known), needs_key=access.needs_key)))


def key_routes(context: Context) -> list[Route]:
    own = KeyHandlers(context)
    return [
        Route(
            "GET",
            "/ui/keys",
            own.list,
            role="operate",
            summary="List the keys of clients, without secrets.",
            gives=KeyList,
        )
    ]

"""Councils over HTTP: members kept under a name, so that a question can be asked of them again and again."""

from __future__ import annotations

from typing import Any

import msgspec

from anywire.errors import InvalidRequest
from anywire.route import Request, Response, Route
from anywire_service_deliberation.offered import Council, Deliberations
from anywire_service_deliberation.question import MAX_MEMBERS
from anywire_service_deliberation.route_requests import read
from anywire_service_deliberation.views import CouncilList, CouncilView, council_view

MAX_BODY_BYTES = 256 * 1024

_encode = msgspec.json.Encoder().encode


class AskedCouncil(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT. ``members`` is a number or a list, as in a request for a deliberation; what else is wrong with
    them `Deliberations.put_council` says."""

    members: int | list[dict[str, Any]]
    role: str = ""
    rounds: int = 1
    rubric: str = ""
    metadata: dict[str, Any] = {}


def council_routes(deliberations: Deliberations) -> list[Route]:
    own = CouncilHandlers(deliberations)
    return [
        Route(
            "GET",
            "/councils",
            own.list,
            summary="List the councils that questions can be asked of.",
            gives=CouncilList,
        ),
        Route("GET", "/councils/{name}", own.get, summary="Tell who is in a council.", gives=CouncilView),
        Route(
            "PUT",
            "/councils/{name}",
            own.put,
            body_limit=MAX_BODY_BYTES,
            summary="Keep a council under a name, in place of the one before.",
            takes=AskedCouncil,
            gives=CouncilView,
        ),
        Route("DELETE", "/councils/{name}", own.delete, summary="Forget a council; 409 while a question is before it."),
    ]


class CouncilHandlers:
    def __init__(self, deliberations: Deliberations) -> None:
        self._deliberations = deliberations

    async def list(self, request: Request) -> Response:
        found = await self._deliberations.councils(request.caller)
        return Response(_encode({"object": "list", "data": [council_view(each) for each in found]}))

    async def get(self, request: Request) -> Response:
        name = request.names.get("name", "")
        for each in await self._deliberations.councils(request.caller):
            if each.name == name:
                return Response(_encode(council_view(each)))
        raise _not_found(name)

    async def put(self, request: Request) -> Response:
        name = request.names.get("name", "")
        asked = read(request.body, AskedCouncil)
        if isinstance(asked.members, int) and not 1 <= asked.members <= MAX_MEMBERS:
            raise InvalidRequest(f"members: there are 1 to {MAX_MEMBERS}, not {asked.members}", param="members")
        members = [{}] * asked.members if isinstance(asked.members, int) else asked.members
        council = Council(
            name=name,
            role=asked.role,
            members=tuple(members),
            rounds=asked.rounds,
            rubric=asked.rubric,
            metadata=asked.metadata,
        )
        return Response(_encode(council_view(await self._deliberations.put_council(council, request.caller))))

    async def delete(self, request: Request) -> Response:
        name = request.names.get("name", "")
        if await self._deliberations.delete_council(name, request.caller) is None:
            raise _not_found(name)
        return Response(_encode({"name": name, "object": "council", "deleted": True}))


def _not_found(name: str) -> InvalidRequest:
    return InvalidRequest(f"there is no council {name[:128]!r}", status=404, detail_code="council_not_found")

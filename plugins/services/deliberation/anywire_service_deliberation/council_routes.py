"""Councils over HTTP: members kept under a name, so that a question can be asked of them again and again."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.errors import InvalidRequest
from anywire.route import Request, Response, Route
from anywire_service_deliberation.offered import Council, Deliberations
from anywire_service_deliberation.question import MAX_MEMBERS
from anywire_service_deliberation.route_requests import read
from anywire_service_deliberation.views import council_view

MAX_BODY_BYTES = 256 * 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_encode = msgspec.json.Encoder().encode


class AskedCouncil(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT. ``members`` is a number or a list, as in a request for a deliberation."""

    members: int | list[dict[str, Any]]
    role: str = ""
    rounds: int = 1
    rubric: str = ""
    metadata: dict[str, Any] = {}


def council_routes(deliberations: Deliberations) -> list[Route]:
    own = CouncilHandlers(deliberations)
    return [
        Route("GET", "/councils", own.list, summary="List the councils that questions can be asked of."),
        Route("GET", "/councils/{name}", own.get, summary="Tell who is in a council."),
        Route(
            "PUT",
            "/councils/{name}",
            own.put,
            body_limit=MAX_BODY_BYTES,
            summary="Keep a council under a name, in place of the one before.",
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
        name = request.names["name"]
        for each in await self._deliberations.councils(request.caller):
            if each.name == name:
                return Response(_encode(council_view(each)))
        raise _not_found(name)

    async def put(self, request: Request) -> Response:
        name = request.names["name"]
        if not NAME.fullmatch(name):
            raise InvalidRequest(
                f"the name of a council has letters, digits, '.', '_' and '-', at most 64, got {name[:64]!r}",
                param="name",
            )
        asked = read(request.body, AskedCouncil)
        self._check(asked, request.caller)
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
        name = request.names["name"]
        if await self._deliberations.delete_council(name, request.caller) is None:
            raise _not_found(name)
        return Response(_encode({"name": name, "object": "council", "deleted": True}))

    def _check(self, asked: AskedCouncil, caller: Caller) -> None:
        """A council is one that can be asked: what would be refused of a question is refused here."""
        if isinstance(asked.members, int) and not 1 <= asked.members <= MAX_MEMBERS:
            raise InvalidRequest(
                f"members: a council has from 1 to {MAX_MEMBERS} members, got {asked.members}", param="members"
            )
        question: dict[str, Any] = {"task": "any", "members": asked.members, "rounds": asked.rounds}
        question |= {name: value for name, value in (("role", asked.role), ("rubric", asked.rubric)) if value}
        self._deliberations.question(question, caller)


def _not_found(name: str) -> InvalidRequest:
    return InvalidRequest(f"there is no council {name[:128]!r}", status=404, detail_code="council_not_found")

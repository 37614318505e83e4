"""What the service serves over HTTP: deliberations, councils, roles and rubrics as resources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from anywire.errors import InvalidRequest
from anywire.route import EventStream, Request, Response, Route
from anywire_service_deliberation.council_routes import council_routes
from anywire_service_deliberation.offered import Deliberations, not_known
from anywire_service_deliberation.question import Role, Rubric
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.request_form import DeliberationRequest
from anywire_service_deliberation.route_requests import (
    LISTED,
    after_of,
    body_of,
    limit_of,
    priority_of,
    status_of,
    trace_of,
    wait_of,
)
from anywire_service_deliberation.update_stream import update_events
from anywire_service_deliberation.viewed import LARGE, summary, whole
from anywire_service_deliberation.views import (
    DeliberationList,
    RoleList,
    RubricList,
    Summary,
    Whole,
    role_view,
    rubric_view,
)

MAX_BODY_BYTES = 4 * 1024 * 1024
RESERVED = "statistics"
"""An id whose path is another one."""

_encode = msgspec.json.Encoder().encode


def deliberation_routes(
    deliberations: Deliberations, roles: Mapping[str, Role], rubrics: Mapping[str, Rubric]
) -> list[Route]:
    """All routes of the service, for `anywire.route.Routes.add`. ``roles`` and ``rubrics`` are those that a request may
    name; they are read at each request."""
    own = DeliberationHandlers(deliberations)

    async def list_roles(request: Request) -> Response:
        return listed([role_view(each) for each in roles.values()])

    async def list_rubrics(request: Request) -> Response:
        return listed([rubric_view(each) for each in rubrics.values()])

    return [
        Route(
            "POST",
            "/deliberations",
            own.submit,
            body_limit=MAX_BODY_BYTES,
            summary="Ask several members one question; 202 with the id once it is kept. `Prefer: wait=10` waits for "
            "the end.",
            takes=DeliberationRequest,
            gives=(Whole, Summary),
        ),
        Route(
            "GET",
            "/deliberations",
            own.list,
            summary="List deliberations, the newest first.",
            gives=DeliberationList,
            query={
                "status": "List those of this status alone.",
                "role": "List those of this role alone.",
                "limit": f"List so many at most, {LISTED} without it.",
            },
        ),
        Route(
            "GET",
            "/deliberations/statistics",
            own.statistics,
            summary="Tell counts, times and scores by role, model and agent.",
        ),
        Route(
            "GET",
            "/deliberations/{id}",
            own.get,
            summary="Tell how a deliberation stands, with all that has come of it.",
            gives=Whole,
        ),
        Route(
            "DELETE",
            "/deliberations/{id}",
            own.cancel,
            summary="Cancel a deliberation, with every task of it.",
            gives=Summary,
        ),
        Route(
            "GET",
            "/deliberations/{id}/events",
            own.events,
            summary="Stream what happens in a deliberation, to its end. `Last-Event-ID` resumes.",
            query={"after": "Begin after the event of this id."},
        ),
        *council_routes(deliberations),
        Route("GET", "/roles", list_roles, summary="List the roles that members can have.", gives=RoleList),
        Route(
            "GET",
            "/rubrics",
            list_rubrics,
            summary="List the rubrics that a deliberation can name.",
            gives=RubricList,
        ),
    ]


def listed(data: Sequence[object]) -> Response:
    return Response(_encode({"object": "list", "data": data}))


class DeliberationHandlers:
    def __init__(self, deliberations: Deliberations) -> None:
        self._deliberations = deliberations

    async def submit(self, request: Request) -> Response:
        """202 with the id and links, once it is kept. 200 with all of it where it has ended: within the wait that
        ``Prefer`` allows, or when it was submitted before."""
        asked, wait = body_of(request), wait_of(request)
        _check_id(asked.get("id"))
        question = self._deliberations.question(asked, request.caller)
        carried = msgspec.structs.replace(question, trace=trace_of(request), priority=priority_of(request))
        state = await self._deliberations.submit(carried)
        if wait and not state.is_final:
            state = await self._deliberations.get(state.question.id, request.caller, wait) or state
        base = request.path
        if state.is_final:
            return await _told(state, base, _applied(wait))
        view = summary(state, base)
        headers = {"location": view.links.deliberation, "retry-after": "1"} | _applied(wait)
        return Response(_encode(view), 202, headers=headers)

    async def list(self, request: Request) -> Response:
        found = await self._deliberations.list(
            request.caller, status=status_of(request), role=request.query.get("role", ""), limit=limit_of(request)
        )

        def told() -> Response:
            return listed([summary(each, request.path) for each in found])

        return await asyncio.to_thread(told) if sum(len(each.answers) for each in found) >= LARGE else told()

    async def get(self, request: Request) -> Response:
        """As it is now, or once it has ended within the wait that ``Prefer`` allows."""
        name, wait = request.names.get("id", ""), wait_of(request)
        state = await self._deliberations.get(name, request.caller, wait)
        if state is None:
            raise not_known(name)
        return await _told(state, _base(request), _applied(wait))

    async def cancel(self, request: Request) -> Response:
        """One that has ended stays as it is."""
        name = request.names.get("id", "")
        state = await self._deliberations.cancel(name, request.caller, "cancelled by DELETE")
        if state is None:
            raise not_known(name)
        return Response(_encode(summary(state, _base(request))))

    async def events(self, request: Request) -> EventStream:
        name, after = request.names.get("id", ""), after_of(request)
        if await self._deliberations.get(name, request.caller) is None:
            raise not_known(name)
        return EventStream(update_events(self._deliberations.updates(name, request.caller, after)))

    async def statistics(self, request: Request) -> Response:
        return Response(_encode(await self._deliberations.statistics(request.caller)))


async def _told(state: Deliberation, base: str, headers: Mapping[str, str]) -> Response:
    if len(state.answers) < LARGE:
        return Response(_encode(whole(state, base)), headers=headers)
    body = await asyncio.to_thread(lambda: _encode(whole(state, base)))
    return Response(body, headers=headers)


def _base(request: Request) -> str:
    """The path of all deliberations: the request's, as far as it is the same for all of them."""
    base, found, _ = request.path.partition("/deliberations/")
    return f"{base}{found}".rstrip("/")


def _check_id(name: object) -> None:
    """Refuse an id that no path can have. Everything else about it is for `Deliberations.question`."""
    if name == RESERVED or (isinstance(name, str) and ("/" in name or name in (".", ".."))):
        raise InvalidRequest(f"id: {name[:64]!r} cannot be an id here: choose another one", param="id")


def _applied(wait: float) -> dict[str, str]:
    return {"preference-applied": f"wait={wait:g}"} if wait else {}

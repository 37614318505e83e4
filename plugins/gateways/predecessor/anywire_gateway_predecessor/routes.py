"""Which handler answers which method and path; each path is there below ``/api/v1`` too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from anywire.caller import Role
from anywire.listening.connection_limit import ConnectionLimit
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.endpoint_table import Endpoint, EndpointTable
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.notes import HEADERS
from anywire_gateway_openai.origins import Origins, answer_options, page_headers, with_headers
from anywire_gateway_openai.paths import tidied
from anywire_gateway_openai.wire import WrittenResponse
from anywire_gateway_predecessor.chats import Chats
from anywire_gateway_predecessor.registrations import Registrations
from anywire_gateway_predecessor.replies import Failed, failed
from anywire_gateway_predecessor.views import Views

BASE = "/api/v1"
MAX_SHOWN = 256


def own_endpoints(chats: Chats, views: Views, registrations: Registrations) -> list[Endpoint]:
    """What the gateway serves. What is observed needs the role `observe` where keys are needed. Which agents come in is
    the transport's to say."""
    table: Sequence[tuple[str, str, Role | None, Any]] = (
        ("GET", "/health", None, views.health),
        ("GET", "/status", "observe", views.status),
        ("GET", "/agents", "observe", views.list),
        ("POST", "/agents/register", None, registrations.register),
        ("POST", "/agents/{id}/heartbeat", None, registrations.heartbeat),
        ("GET", "/agents/{id}", "observe", views.agent),
        ("DELETE", "/agents/{id}", None, registrations.remove),
        ("POST", "/chat", "use", chats.chat),
        ("POST", "/generate", "use", chats.generate),
        ("POST", "/chat/completions", "use", chats.chat),
        ("POST", "/completions", "use", chats.generate),
        ("GET", "/tasks", "use", views.tasks),
        ("GET", "/tasks/{id}", "use", views.task),
        ("DELETE", "/tasks/{id}", "use", views.cancel),
        ("PUT", "/routing/algorithm", "operate", views.routing),
        ("GET", "/pool/status", "observe", views.pool),
        ("GET", "/metrics/summary", "observe", views.metrics),
    )
    return [
        Endpoint(method, base + path, role, handler)
        for method, path, role, handler in table
        for base in ("/v1" if path.endswith("completions") else "", BASE)
    ]


class Routes:
    def __init__(
        self, endpoints: Iterable[Endpoint], callers: Callers, origins: Origins, limit: ConnectionLimit
    ) -> None:
        self._table, self._callers = EndpointTable(endpoints), callers
        self._origins, self._limit = origins, limit
        self._active = 0
        self._ended = asyncio.Event()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Everything that is served."""
        return self._table.endpoints

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self._active += 1
        connection = request.transport
        self._limit.begun(connection, request.content)
        try:
            origin = request.headers.get("Origin")
            if origin is not None:
                self._origins.check(origin)
                request[HEADERS] = page_headers(origin)
            return with_headers(request, await self._answer(request))
        except ConnectionError:
            return WrittenResponse(keep_alive=False)  # nobody is left to answer
        except HttpError as error:
            told = Failed(error.status, error.message, error.detail_code.upper(), error.headers)
            return with_headers(request, failed(told))
        except Exception as error:
            return with_headers(request, failed(error))
        finally:
            self._active -= 1
            self._limit.ended(connection)
            self._ended.set()

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._active:
            self._ended.clear()
            await self._ended.wait()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.path
        if method == "HEAD":  # aiohttp leaves the body out
            method = "GET"
        exact = self._table.exact(path)
        found = (exact, ()) if exact is not None else self._table.at(tidied(path))
        if found is None:
            raise Failed(404, f"there is nothing at {path[:MAX_SHOWN]}", "NOT_FOUND")
        methods, names = found
        endpoint = methods.get(method)
        if endpoint is None:
            allowed = ", ".join(methods)
            if method == "OPTIONS":
                return await answer_options(allowed, request)
            message = f"{path[:MAX_SHOWN]} answers {allowed}, not {method[:32]}"
            raise Failed(405, message, "METHOD_NOT_ALLOWED", {"Allow": allowed})
        if endpoint.role is not None:
            self._callers.admit(request, endpoint.role, always=endpoint.always)
        return await endpoint.handler(request, *names)

"""Which handler answers which method and path; each path is there below ``/api/v1`` too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from anywire.connection_limit import ConnectionLimit
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.notes import HEADERS
from anywire_gateway_openai.origins import Origins, answer_options, page_headers, with_headers
from anywire_gateway_openai.paths import tidied
from anywire_gateway_openai.wire import WrittenResponse
from anywire_gateway_predecessor.chats import Chats
from anywire_gateway_predecessor.registrations import Registrations
from anywire_gateway_predecessor.replies import Failed, failed
from anywire_gateway_predecessor.views import Views

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NamedHandler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
BASE = "/api/v1"
HEARTBEAT = "/heartbeat"
MAX_SHOWN = 256


class Routes:
    def __init__(
        self, chats: Chats, views: Views, registrations: Registrations, origins: Origins, limit: ConnectionLimit
    ) -> None:
        self._origins, self._limit = origins, limit
        self._active = 0
        self._ended = asyncio.Event()
        self._exact: dict[str, dict[str, Handler]] = {}
        exact: dict[str, dict[str, Handler]] = {
            "/health": {"GET": views.health},
            "/status": {"GET": views.status},
            "/agents": {"GET": views.list},
            "/agents/register": {"POST": registrations.register},
            "/chat": {"POST": chats.chat},
            "/generate": {"POST": chats.generate},
            "/tasks": {"GET": views.tasks},
            "/chat/completions": {"POST": chats.chat},
            "/completions": {"POST": chats.generate},
            "/routing/algorithm": {"PUT": views.routing},
            "/pool/status": {"GET": views.pool},
            "/metrics/summary": {"GET": views.metrics},
        }
        for path, methods in exact.items():
            base = "/v1" if path.endswith("completions") else ""
            self._exact[base + path] = self._exact[BASE + path] = methods
        self._named: dict[str, dict[str, NamedHandler]] = {
            "/agents/": {"GET": views.agent, "DELETE": registrations.remove},
            "/tasks/": {"GET": views.task, "DELETE": views.cancel},
        }
        self._heartbeat = registrations.heartbeat

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self._active += 1
        connection = request.transport
        self._limit.begun(connection, request.content)
        try:
            origin = request.headers.get("Origin")
            if origin is not None:
                self._origins.check(origin)
                request[HEADERS] = page_headers(origin)
            return with_headers(request, await self._find(request.method, request.path)(request))
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

    def _find(self, method: str, path: str) -> Handler:
        if method == "HEAD":  # aiohttp leaves the body out
            method = "GET"
        methods = self._methods(path) or self._methods(tidied(path))
        if not methods:
            raise Failed(404, f"there is nothing at {path[:MAX_SHOWN]}", "NOT_FOUND")
        if method in methods:
            return methods[method]
        allowed = ", ".join(methods)
        if method == "OPTIONS":
            return partial(answer_options, allowed)
        message = f"{path[:MAX_SHOWN]} answers {allowed}, not {method[:32]}"
        raise Failed(405, message, "METHOD_NOT_ALLOWED", {"Allow": allowed})

    def _methods(self, path: str) -> dict[str, Handler]:
        """What answers at ``path``, by method."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        below = path.removeprefix(BASE)
        for prefix, named in self._named.items():
            name = below[len(prefix) :] if below.startswith(prefix) else ""
            if name.endswith(HEARTBEAT) and prefix == "/agents/" and len(name) > len(HEARTBEAT):
                return {"POST": partial(_call_named, self._heartbeat, name.removesuffix(HEARTBEAT))}
            if name:
                return {method: partial(_call_named, handler, name) for method, handler in named.items()}
        return {}


async def _call_named(handler: NamedHandler, name: str, request: web.BaseRequest) -> web.StreamResponse:
    return await handler(request, name)

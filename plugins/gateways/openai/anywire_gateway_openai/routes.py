"""Which handler answers which method and path, and what every answer has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from anywire_gateway_openai.catalogue import CatalogueHandlers
from anywire_gateway_openai.errors import HttpError, as_anywire, error_response
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.origins import Origins
from anywire_gateway_openai.registration import RegistrationHandler
from anywire_gateway_openai.service_routes import ServiceRoutes
from anywire_gateway_openai.task_views import TaskViewHandlers
from anywire_gateway_openai.tasks import TaskHandlers
from anywire_gateway_openai.websocket import ChatSockets
from anywire_gateway_openai.wire import WrittenResponse

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NamedHandler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
BASES = ("/v1", "/api/v1")


class Routes:
    """The server's one handler. A table of paths instead of aiohttp's `Application`, whose router, signals and
    middlewares cost more than they would be used for."""

    def __init__(
        self,
        tasks: TaskHandlers,
        views: TaskViewHandlers,
        events: EventHandler,
        catalogue: CatalogueHandlers,
        registration: RegistrationHandler,
        sockets: ChatSockets,
        metrics: Metrics,
        origins: Origins,
        services: ServiceRoutes,
    ) -> None:
        self._origins, self._errors, self._events = origins, metrics.errors, events
        self._services = services
        self._exact: dict[str, dict[str, Handler]] = {}
        self._named: list[tuple[str, dict[str, NamedHandler]]] = []
        self._active = 0
        self._ended: asyncio.Event | None = None
        """Set whenever a request has been answered, once somebody waits for that."""
        for base in ("", *BASES):
            self._exact[f"{base}/health"] = {"GET": catalogue.health}
            self._exact[f"{base}/version"] = {"GET": catalogue.version}
            self._exact[f"{base}/metrics"] = {"GET": metrics.handle}
        for base in BASES:
            self._exact[f"{base}/chat/completions"] = {"POST": tasks.chat}
            self._exact[f"{base}/ws/chat"] = {"GET": sockets.chat}
            self._exact[f"{base}/completions"] = {"POST": tasks.completion}
            self._exact[f"{base}/embeddings"] = {"POST": tasks.embedding}
            self._exact[f"{base}/models"] = {"GET": catalogue.models}
            self._exact[f"{base}/agents"] = {"GET": catalogue.agents}
            self._exact[f"{base}/agents/register"] = {"POST": registration.register}
            self._exact[f"{base}/stats"] = {"GET": catalogue.stats}
            self._exact[f"{base}/events"] = {"GET": events.events}
            self._exact[f"{base}/tasks"] = {"GET": views.list}
            self._named.append((f"{base}/models/", {"GET": catalogue.model}))
            self._named.append((f"{base}/tasks/", {"GET": views.get, "DELETE": views.cancel}))
        services.begin(self._has, BASES)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self._active += 1
        try:
            origin = request.headers.get("Origin")
            if origin is not None:
                self._origins.check(origin)
            return await self._find(request.method, request.path, origin)(request)
        except ConnectionError:
            # Nobody is left to answer.
            return WrittenResponse(keep_alive=False)
        except Exception as error:
            response = error_response(as_anywire(error))
            self._errors[response.status] += 1
            return response
        finally:
            self._active -= 1
            if self._ended is not None:
                self._ended.set()

    async def idle(self) -> None:
        """Wait until no request is being answered. Event streams end when all other requests have ended, so that they
        tell how."""
        self._ended = asyncio.Event()
        while self._active:
            if self._active <= self._events.open:
                self._events.finish()
            self._ended.clear()
            await self._ended.wait()

    def _has(self, path: str) -> bool:
        """Whether this path is the gateway's own, with whatever method."""
        return path in self._exact or any(
            path.startswith(prefix) and len(path) > len(prefix) for prefix, _ in self._named
        )

    def _find(self, method: str, path: str, origin: str | None) -> Handler:
        if method == "HEAD":  # aiohttp leaves the body out
            method = "GET"
        methods = self._exact.get(path)
        if methods is not None:
            handler = methods.get(method)
            if handler is not None:
                return handler
            allowed = ", ".join(methods)
        else:
            for prefix, named in self._named:
                if path.startswith(prefix) and len(path) > len(prefix):
                    if method in named:
                        return partial(_call_named, named[method], path[len(prefix) :])
                    allowed = ", ".join(named)
                    break
            else:
                base = next((base for base in BASES if path.startswith(f"{base}/")), None)
                found = self._services.find(method, path[len(base) :], origin) if base is not None else None
                if found is not None:
                    return found
                raise HttpError(
                    404, "not_found", f"there is nothing at {path[:256]}; the API is under {' and '.join(BASES)}"
                )
        raise HttpError(
            405, "method_not_allowed", f"{path[:256]} answers {allowed}, not {method[:32]}", headers={"Allow": allowed}
        )


async def _call_named(handler: NamedHandler, name: str, request: web.BaseRequest) -> web.StreamResponse:
    return await handler(request, name)

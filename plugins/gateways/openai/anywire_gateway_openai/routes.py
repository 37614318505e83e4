"""Which handler answers which method and path, and what every answer has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter

from aiohttp import web

from anywire.connection_limit import ConnectionLimit
from anywire.errors import QueueFull
from anywire.request_log import RequestLog
from anywire_gateway_openai.catalogue import CatalogueHandlers
from anywire_gateway_openai.errors import CLIENT_GONE, HttpError, as_anywire, error_code, error_response
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.notes import ERROR, FIRST, HEADERS, MODEL, REQUEST_ID, TASK
from anywire_gateway_openai.origins import Origins, answer_options, page_headers, with_headers
from anywire_gateway_openai.pace import Pace
from anywire_gateway_openai.paths import meant, tidied
from anywire_gateway_openai.registration import RegistrationHandler
from anywire_gateway_openai.request_ids import HEADER, request_id
from anywire_gateway_openai.service_routes import ServiceRoutes
from anywire_gateway_openai.task_views import TaskViewHandlers
from anywire_gateway_openai.tasks import TaskHandlers
from anywire_gateway_openai.websocket import ChatSockets
from anywire_gateway_openai.wire import WrittenResponse

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
NamedHandler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
ALL_FAILED = 502
MAY_PASS = frozenset((500, 504))
"""Statuses that count as that too where nobody said when to come back."""
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
        limit: ConnectionLimit,
        requests: RequestLog,
        pace: Pace,
    ) -> None:
        self._limit, self._requests, self._pace = limit, requests, pace
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
        for path in ("/", *BASES):
            self._exact[path] = {"GET": catalogue.index}
        self._exact["*"] = dict.fromkeys(("GET", "POST", "DELETE"), catalogue.index)  # OPTIONS of the whole server
        for base in BASES:
            self._exact[f"{base}/chat/completions"] = {"POST": tasks.chat, "GET": sockets.chat_beside_post}
            self._exact[f"{base}/chat/completions_stream"] = {"POST": tasks.chat_stream}
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
        connection = request.transport
        self._limit.begun(connection, request.content)
        began, status, code = perf_counter(), CLIENT_GONE, ""
        try:
            headers = request.headers
            request[REQUEST_ID] = own_id = request_id(headers.get(HEADER))
            request[HEADERS] = ((HEADER, own_id),)
            origin = headers.get("Origin")
            if origin is not None:
                self._origins.check(origin)
                request[HEADERS] += page_headers(origin)
            response = await self._find(request.method, request.path)(request)
            status = response.status
            return with_headers(request, response)
        except ConnectionError:
            # Nobody is left to answer.
            return WrittenResponse(keep_alive=False)
        except Exception as error:
            fault = as_anywire(error)
            code = error_code(fault)
            if isinstance(fault, QueueFull) and not fault.retry_after:
                fault.retry_after = self._pace.seconds()
            refusal = error_response(fault)
            status = refusal.status
            task = request.get(TASK)
            if task is not None and task.attempts:
                refusal.headers["x-anywire-attempts"] = str(task.attempts)
                if task.attempts > 1 and (status == ALL_FAILED or (status in MAY_PASS and not fault.retry_after)):
                    # Tried again already: a client's retries would multiply with these.
                    refusal.headers["x-should-retry"] = "false"
            self._errors[status] += 1
            return with_headers(request, refusal)
        finally:
            self._limit.ended(connection)
            self._active -= 1
            if self._ended is not None:
                self._ended.set()
            self._log_ended(request, began, status, code)

    def _log_ended(self, request: web.BaseRequest, began: float, status: int, code: str) -> None:
        """Requests that ask for an answer, and those that fail; a probe's or that of a watcher who has seen enough is
        of no interest."""
        task = request.get(TASK)
        self._requests.add(
            f"{request.method} {request.rel_url.raw_path}",
            status,
            began,
            task=task,
            model=request.get(MODEL, ""),
            first=request.get(FIRST, 0.0),
            error=code or request.get(ERROR, ""),
            request_id=request.get(REQUEST_ID, ""),
            important=task is not None or (status >= 400 and status != CLIENT_GONE),
        )

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

    def _find(self, method: str, path: str) -> Handler:
        """What answers. Raises `HttpError` for a path that is not there, or has not this method."""
        if method == "HEAD":  # aiohttp leaves the body out
            method = "GET"
        methods = self._exact.get(path) or self._beyond(path)
        handler = methods.get(method)
        if handler is not None:
            return handler
        allowed = ", ".join(methods)
        if method == "OPTIONS":
            return partial(answer_options, allowed)
        raise HttpError(
            405, "method_not_allowed", f"{path[:256]} answers {allowed}, not {method[:32]}", headers={"Allow": allowed}
        )

    def _beyond(self, path: str) -> Mapping[str, Handler]:
        """The handlers of a path that is not in the table as it stands: it holds a name, belongs to a service, or is
        almost right. Raises `HttpError` when there are none."""
        for prefix, named in self._named:
            if path.startswith(prefix) and (name := path[len(prefix) :].strip("/")):
                return {method: partial(_call_named, handler, name) for method, handler in named.items()}
        for base in BASES:
            if path.startswith(f"{base}/"):
                found = self._services.at(path[len(base) :])
                if found:
                    return found
        tidy = tidied(path)
        if tidy != path:
            return self._exact.get(tidy) or self._beyond(tidy)
        without_base = self._exact.get(BASES[0] + path)
        if without_base is not None:
            return without_base
        guess = meant(path, BASES, self._has)
        hint = f"; did you mean {guess}?" if guess else f"; the API is under {' and '.join(BASES)}"
        raise HttpError(404, "not_found", f"there is nothing at {path[:256]}{hint}")


async def _call_named(handler: NamedHandler, name: str, request: web.BaseRequest) -> web.StreamResponse:
    return await handler(request, name)

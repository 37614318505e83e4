"""From a request to the endpoint that answers it, and what every answer has in common."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from time import perf_counter

from aiohttp import web

from anywire.errors import Unauthenticated
from anywire.listening.connection_limit import ConnectionLimit
from anywire.request_log import RequestLog
from anywire.tracing import CURRENT, Tracing, read_trace
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.endpoint_table import BASES, Endpoint, EndpointTable, Methods
from anywire_gateway_openai.errors import (
    CLIENT_GONE,
    OPENAI_FORM,
    HttpError,
    as_anywire,
    error_code,
    error_response,
    status_of,
)
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.http1.request import raw_path
from anywire_gateway_openai.notes import ERROR, ERROR_FORM, FIRST, HEADERS, MODEL, REQUEST_ID, SCOPE, TASK
from anywire_gateway_openai.origins import Origins, answer_options, page_headers, with_headers
from anywire_gateway_openai.passed_on import PassedOn
from anywire_gateway_openai.paths import meant, tidied
from anywire_gateway_openai.request_headers import trace_of
from anywire_gateway_openai.request_ids import HEADER, request_id
from anywire_gateway_openai.service_routes import ServiceRoutes
from anywire_gateway_openai.wire import WrittenResponse

METHODS = ("GET", "POST", "DELETE")
"""Of the gateway's own endpoints."""
REFUSED = (401, 403)
"""Statuses whose line in the log names the client's address."""
ALL_FAILED = 502
MAY_PASS = frozenset((500, 504))
"""Statuses that count as that too where nobody said when to come back."""


class Routes:
    """The server's one handler. A table of endpoints instead of aiohttp's `Application`, whose router, signals and
    middlewares cost more than they would be used for."""

    def __init__(
        self,
        own: Iterable[Endpoint],
        services: ServiceRoutes,
        callers: Callers,
        origins: Origins,
        events: EventHandler,
        errors: Counter[int],
        limit: ConnectionLimit,
        requests: RequestLog,
        tracing: Tracing,
        passed_on: PassedOn | None = None,
    ) -> None:
        self._tracing, self._passed_on = tracing, passed_on
        self._own, self._services, self._callers, self._origins = EndpointTable(own), services, callers, origins
        self._events, self._errors = events, errors
        self._limit, self._requests = limit, requests
        self._active = 0
        self._ended: asyncio.Event | None = None
        """Set whenever a request has been answered, once somebody waits for that."""
        services.begin(self._has, BASES)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Everything that is served now."""
        return [*self._own.endpoints, *self._services.endpoints]

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
                self._origins.check(origin, self._callers.own_origin(request))
                request[HEADERS] += page_headers(origin)
            response = await self._answer(request)
            status = response.status
            return with_headers(request, response)
        except ConnectionError:
            # Nobody is left to answer.
            return WrittenResponse(keep_alive=False)
        except Exception as error:
            refusal, status, code = self._refusal(request, error)
            return with_headers(request, refusal)
        finally:
            self._limit.ended(connection)
            self._active -= 1
            if self._ended is not None:
                self._ended.set()
            self._log_ended(request, began, status, code)
            if SCOPE in request:
                self._end_scope(request, status, code)

    def _refusal(self, request: web.BaseRequest, error: Exception) -> tuple[web.Response, int, str]:
        """The answer to a request that failed with ``error``, its status, and the code for the log. Nothing in the
        frames of the error may keep it: they hold the request's body, which would stay until the next look for
        cycles."""
        fault = as_anywire(error)
        refusal = error_response(fault, request.get(ERROR_FORM, OPENAI_FORM))
        status, kind = refusal.status, status_of(fault)
        task = request.get(TASK)
        if task is not None and task.attempts:
            refusal.headers["x-anywire-attempts"] = str(task.attempts)
            if task.attempts > 1 and (kind == ALL_FAILED or (kind in MAY_PASS and not fault.retry_after)):
                # Tried again already: a client's retries would multiply with these.
                refusal.headers["x-should-retry"] = "false"
        self._errors[status] += 1
        return refusal, status, error_code(fault)

    def _log_ended(self, request: web.BaseRequest, began: float, status: int, code: str) -> None:
        """Requests that ask for an answer, and those that fail; a probe's or that of a watcher who has seen enough is
        of no interest."""
        task = request.get(TASK)
        self._requests.add(
            f"{request.method} {raw_path(request)}",
            status,
            began,
            task=task,
            model=request.get(MODEL, ""),
            first=request.get(FIRST, 0.0),
            error=code or request.get(ERROR, ""),
            client=self._callers.client(request).address if status in REFUSED else "",
            request_id=request.get(REQUEST_ID, ""),
            trace=request[SCOPE].trace if SCOPE in request else "",
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

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._passed_on is not None and not self._passed_on.is_own(request):
            return await self._passed_on.answer(request)
        method, path = request.method, request.path
        if method == "HEAD":  # aiohttp leaves the body out
            method = "GET"
        names: tuple[str, ...] = ()
        methods = self._own.exact(path)
        if methods is None:
            if path == "*" and method == "OPTIONS":  # the whole server
                return await answer_options(", ".join(METHODS), request)
            methods, names = self._beyond(path)
        endpoint = methods.get(method)
        request[ERROR_FORM] = form = (endpoint or next(iter(methods.values()))).errors
        if form.id_header:
            request[HEADERS] += ((form.id_header, request[REQUEST_ID]),)
        if endpoint is None:
            allowed = ", ".join(methods)
            if method == "OPTIONS":  # a browser asks it without a key
                return await answer_options(allowed, request)
            message = f"{path[:256]} answers {allowed}, not {method[:32]}"
            raise HttpError(405, "method_not_allowed", message, headers={"Allow": allowed})
        if endpoint.role is not None:
            try:
                self._callers.admit(request, endpoint.role, always=endpoint.always)
            except Unauthenticated:
                if self._passed_on is None or method == "GET":
                    raise
                # The orchestrator refuses it itself, and tells who observes.
                return await self._passed_on.answer(request)
        if self._tracing.is_on and method == "POST":
            self._begin_scope(request, endpoint)
        return await endpoint.handler(request, *names)

    def _begin_scope(self, request: web.BaseRequest, endpoint: Endpoint) -> None:
        """Begin the span of a request that may make tasks."""
        told = {"http.request.method": endpoint.method, "http.route": endpoint.path}
        scope = self._tracing.begin(f"{endpoint.method} {endpoint.path}", trace_of(request.headers), told)
        CURRENT.set(scope)
        request[SCOPE] = scope
        if (trace := read_trace(scope.trace)) is not None:
            request[HEADERS] += (("x-anywire-trace", trace.trace_id),)

    def _end_scope(self, request: web.BaseRequest, status: int, code: str) -> None:
        CURRENT.set(None)
        task = request.get(TASK)
        task_id = task.task_id if task is not None else ""
        request[SCOPE].end(code or request.get(ERROR, ""), status, task_id)

    def _has(self, path: str) -> bool:
        """Whether this path is the gateway's own, with whatever method."""
        return self._own.at(path) is not None

    def _beyond(self, path: str) -> tuple[Methods, tuple[str, ...]]:
        """The endpoints of a path that is not in the table as it stands: it holds a name, belongs to a service, or is
        almost right. Raises `HttpError` when there are none."""
        found = self._own.named(path.rstrip("/")) or self._services.at(path)
        if found is not None:
            return found
        tidy = tidied(path)
        if tidy != path:
            exact = self._own.exact(tidy)
            return (exact, ()) if exact is not None else self._beyond(tidy)
        without_base = self._own.exact(BASES[0] + path)
        if without_base is not None:
            return without_base, ()
        guess = meant(path, BASES, self._has)
        hint = f"; did you mean {guess}?" if guess else f"; the API is under {' and '.join(BASES)}"
        raise HttpError(404, "not_found", f"there is nothing at {path[:256]}{hint}")

"""What services add to the API: their `anywire.route.Route`s, served below the same bases as everything else, or at the
root."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

from aiohttp import web

from anywire.caller import Caller
from anywire.once_log import OnceLog
from anywire.route import EventStream, Request, Response, Route, Routes, ServerSentEvent
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import SECRET_HEADERS, Callers
from anywire_gateway_openai.endpoint_table import Endpoint, EndpointTable, Methods, path_names
from anywire_gateway_openai.errors import as_anywire, error_json
from anywire_gateway_openai.headers import header_text
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse

log = logging.getLogger(__name__)

_LINE_END = re.compile(r"\r\n|\r|\n")
NOBODY = Caller()
"""Who asks for a route that lets everybody in."""
_RESERVED = frozenset({"content-length", "transfer-encoding", "connection", "date", "server", "content-type"})


class ServiceRoutes:
    """The table of ``routes``, read by `begin` and whenever it changes. Paths of the gateway's own win over those of
    services.

    ``body_timeout`` and ``write_timeout`` are the gateway's, in seconds.
    """

    def __init__(self, routes: Routes, callers: Callers, *, body_timeout: float, write_timeout: float) -> None:
        self._routes, self._body_timeout, self._write_timeout = routes, body_timeout, write_timeout
        self._callers = callers
        self._table = EndpointTable(())
        self._once = OnceLog(log)
        self._is_own: Callable[[str], bool] = lambda path: False
        self._bases: Sequence[str] = ()

    def begin(self, is_own: Callable[[str], bool], bases: Sequence[str]) -> None:
        """Read the table, now and whenever it changes, and warn of routes that are not served where they seem to be.
        ``is_own`` tells whether the gateway has a whole path itself. Routes are served below each of ``bases``."""
        self._is_own, self._bases = is_own, bases
        self._routes.listen(self._read)
        self._read()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Those that are served: the gateway's own win."""
        return [each for each in self._table.endpoints if not self._is_own(each.path)]

    def at(self, path: str) -> tuple[Methods, tuple[str, ...]] | None:
        """What answers at ``path``, by method, and what its names stand for; None where no service has that path."""
        return self._table.at(path)

    def _read(self) -> None:
        routes = self._routes.all()
        for route in routes:
            self._check(route)
        self._table = EndpointTable(
            (
                Endpoint(
                    route.method, base + route.path, route.role, partial(self._answer, route), always=True, route=route
                )
                for route in routes
                for base in (("",) if route.at_root else self._bases)
            ),
            name="[^/]+",
        )

    def _check(self, route: Route) -> None:
        """Warn, once, of a route that is not served, or served elsewhere than its service seems to mean."""
        which = f"the route {route.method} {route.path} of the service {route.service}"
        if self._is_own(route.path if route.at_root else f"{self._bases[0]}{route.path}"):
            self._once.warn(which, "%s is not served: the gateway has this path itself; choose another path", which)
        elif not route.at_root and any(f"{route.path}/".startswith(f"{base}/") for base in self._bases):
            served = f"{self._bases[0]}{route.path}"
            self._once.warn(
                which,
                "%s is served at %s: the path of a route is below %s, leave that out",
                which,
                served,
                self._bases[0],
            )

    async def _answer(self, route: Route, request: web.BaseRequest, *values: str) -> web.StreamResponse:
        body = await read_body(request, route.body_limit, self._body_timeout, any_type=True)
        caller = self._callers.still(request) if route.role is not None else NOBODY
        asked = Request(
            method=route.method,
            path=request.path,
            names=dict(zip(path_names(route.path), values, strict=True)),
            query=dict(request.query),
            headers=self._shown(request.headers),
            body=body,
            caller=caller,
        )
        async with self._callers.revocations.while_valid(caller):
            answer: object = await route.handler(asked)
        if isinstance(answer, EventStream):
            return await self._stream(request, answer, caller)
        if not isinstance(answer, Response):
            raise TypeError(f"the handler of {route.method} {route.path} gave {type(answer).__name__}")
        if not isinstance(answer.status, int) or not 200 <= answer.status <= 599:
            raise TypeError(f"the handler of {route.method} {route.path} gave the status {answer.status!r}")
        own = {"Content-Type": header_text(answer.content_type), "Server": "anywire"}
        return web.Response(status=answer.status, body=answer.body, headers=dict(_own(answer.headers)) | own)

    def _shown(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that a service sees: where keys are needed without those that hold one."""
        hidden = SECRET_HEADERS if self._callers.needs_key else ()
        return {lower: value for name, value in headers.items() if (lower := name.lower()) not in hidden}

    async def _stream(self, request: web.BaseRequest, answer: EventStream, caller: Caller) -> web.StreamResponse:
        events = answer.events
        writer = EventStreamWriter(request, _own(answer.headers), self._write_timeout)
        last = b": end\n\n"
        try:
            if not writer.wants_events:
                return writer.end_head()
            async with self._callers.revocations.while_valid(caller):
                await writer.write(b": begin\n\n")
                async for event in events:
                    await writer.write(encoded(event))
        except ConnectionError:
            raise
        except Exception as error:
            last = b"event: error\ndata: " + error_json(as_anywire(error)) + b"\n\n"
        finally:
            await _close(events)
        await writer.write(last, last=True)
        return WrittenResponse(writer.keep_alive)


def encoded(event: ServerSentEvent) -> bytes:
    """An event as it is written; line ends are kept in its data alone."""
    lines = [
        f"{name}: {_LINE_END.sub(' ', value)}" for name, value in (("event", event.event), ("id", event.id)) if value
    ]
    lines += [f"data: {line}" for line in _LINE_END.split(event.data)]
    return ("\n".join(lines) + "\n\n").encode(errors="replace")


def _own(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of a service's answer, without those that are the gateway's to set."""
    return [(header_text(name), header_text(value)) for name, value in headers.items() if name.lower() not in _RESERVED]


async def _close(events: AsyncIterator[ServerSentEvent]) -> None:
    close = getattr(events, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        log.error("the events of a service's route do not close: %s", error, exc_info=error)

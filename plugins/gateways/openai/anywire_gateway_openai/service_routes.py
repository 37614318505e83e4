"""What services add to the API: their `anywire.route.Route`s, served below the same bases as everything else."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from anywire.errors import Forbidden
from anywire.once_log import OnceLog
from anywire.route import EventStream, Request, Response, Route, Routes, ServerSentEvent
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import caller_of
from anywire_gateway_openai.errors import as_anywire, error_json
from anywire_gateway_openai.headers import header_text
from anywire_gateway_openai.wire import EventStreamWriter, WrittenResponse

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_LINE_END = re.compile(r"\r\n|\r|\n")
_RESERVED = frozenset({"content-length", "transfer-encoding", "connection", "date", "server", "content-type"})


class _Path(NamedTuple):
    """A path of routes with its methods, and what its ``{names}`` match."""

    pattern: re.Pattern[str]
    routes: dict[str, Route]


class ServiceRoutes:
    """The table of ``routes``, read by `begin` and whenever it changes. Paths of the gateway's own win over those of
    services.

    ``body_timeout`` and ``write_timeout`` are the gateway's, in seconds.
    """

    def __init__(self, routes: Routes, *, body_timeout: float, write_timeout: float) -> None:
        self._routes, self._body_timeout, self._write_timeout = routes, body_timeout, write_timeout
        self._paths: list[_Path] = []
        self._once = OnceLog(log)
        self._is_own: Callable[[str], bool] = lambda path: False
        self._bases: Sequence[str] = ()

    def begin(self, is_own: Callable[[str], bool], bases: Sequence[str]) -> None:
        """Read the table, now and whenever it changes, and warn of routes that are not served where they seem to be.
        ``is_own`` tells whether the gateway has a whole path itself. Routes are served below each of ``bases``."""
        self._is_own, self._bases = is_own, bases
        self._routes.listen(self._read)
        self._read()

    def at(self, path: str) -> Mapping[str, Handler] | None:
        """What answers at ``path``, a path below a base, by method; None where no service has that path."""
        for each in self._paths:
            match = each.pattern.fullmatch(path)
            if match is not None:
                names = match.groupdict()
                return {method: self._handler(route, names) for method, route in each.routes.items()}
        return None

    def _read(self) -> None:
        by_path: dict[str, dict[str, Route]] = {}
        for route in self._routes.all():
            self._check(route)
            by_path.setdefault(route.path, {})[route.method] = route
        # Those without names first: /deliberations/newest is not a deliberation called newest.
        paths = sorted(by_path, key=lambda path: "{" in path)
        self._paths = [_Path(_pattern(path), by_path[path]) for path in paths]

    def _check(self, route: Route) -> None:
        """Warn, once, of a route that is not served, or served elsewhere than its service seems to mean."""
        which = f"the route {route.method} {route.path} of the service {route.service}"
        if self._is_own(f"{self._bases[0]}{route.path}"):
            self._once.warn(which, "%s is not served: the gateway has this path itself; choose another path", which)
        elif any(f"{route.path}/".startswith(f"{base}/") for base in self._bases):
            served = f"{self._bases[0]}{route.path}"
            self._once.warn(
                which,
                "%s is served at %s: the path of a route is below %s, leave that out",
                which,
                served,
                self._bases[0],
            )

    def _handler(self, route: Route, names: Mapping[str, str]) -> Handler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            caller = caller_of(request)
            if not caller.has_role(route.role):
                raise Forbidden(f"{request.path[:256]} is for the role {route.role}, this caller has {caller.role}")
            body = await read_body(request, route.body_limit, self._body_timeout, any_type=True)
            answer: object = await route.handler(
                Request(
                    method=route.method,
                    path=request.path,
                    names=names,
                    query=dict(request.query),
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=body,
                    caller=caller,
                )
            )
            if isinstance(answer, EventStream):
                return await self._stream(request, answer)
            if not isinstance(answer, Response):
                raise TypeError(f"the handler of {route.method} {route.path} gave {type(answer).__name__}")
            if not isinstance(answer.status, int) or not 200 <= answer.status <= 599:
                raise TypeError(f"the handler of {route.method} {route.path} gave the status {answer.status!r}")
            own = {"Content-Type": header_text(answer.content_type), "Server": "anywire"}
            headers = dict(_own(answer.headers)) | own
            return web.Response(status=answer.status, body=answer.body, headers=headers)

        return handle

    async def _stream(self, request: web.BaseRequest, answer: EventStream) -> web.StreamResponse:
        events = answer.events
        writer = EventStreamWriter(request, _own(answer.headers), self._write_timeout)
        last = b": end\n\n"
        try:
            if not writer.wants_events:
                return writer.end_head()
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


def _pattern(path: str) -> re.Pattern[str]:
    """What a path matches: each ``{name}`` a part without a slash."""
    parts = re.split(r"\{(\w+)\}", path)
    texts = [re.escape(part) if at % 2 == 0 else f"(?P<{part}>[^/]+)" for at, part in enumerate(parts)]
    return re.compile("".join(texts))


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

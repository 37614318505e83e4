"""HTTP routes that a service adds: our own types, none of an HTTP library's.

A gateway that speaks HTTP serves them from one table, from which methods that are not allowed, CORS, the API page and
the checks of roles follow. Without such a gateway they are not served, and that is logged.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from anywire.caller import Caller, Role

_NAME = re.compile(r"\{(\w+)\}")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Request(msgspec.Struct, frozen=True):
    """``path`` is the whole path, ``names`` what stands for the ``{names}`` of the route's path. ``headers`` have
    names in lower case; ``query`` has the last value of each name. ``body`` is at most the route's ``body_limit``
    long."""

    method: Method
    path: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    caller: Caller


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One event of a ``text/event-stream``. ``data`` may have several lines."""

    data: str
    event: str = ""
    id: str = ""


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class EventStream(msgspec.Struct, frozen=True):
    """An answer of server-sent events. ``events`` is closed when the client goes away."""

    events: AsyncIterator[ServerSentEvent]
    headers: Mapping[str, str] = {}


Handler = Callable[[Request], Awaitable[Response | EventStream]]
"""An `anywire.errors.AnywireError` that it raises is answered with its code and status. Everything else that it raises
is the service's failure: logged with the service's name, counted, and answered as `anywire.errors.PluginFailed`."""


class Route(msgspec.Struct, frozen=True):
    """``path`` is below ``/v1`` and does not name it (``/deliberations/{id}``); with ``at_root`` it is the whole path.
    ``role`` is the least that a caller needs, None where everybody is let in, with a key or without: its requests have
    a caller that nobody vouches for. ``body_limit`` are the bytes of the longest body, ``summary`` is a sentence for
    the API page. ``service`` is the name of the service whose route it is, set when a service adds it. For the
    description of the API alone: ``takes`` and ``gives`` are the types of the JSON that its body and a whole answer
    hold (a msgspec struct, a pydantic model, what is made of those, or a tuple of types for one or the other),
    ``query`` says in a sentence what each member of the query is."""

    method: Method
    path: str
    handler: Handler
    role: Role | None = "use"
    body_limit: int = 1024 * 1024
    summary: str = ""
    service: str = ""
    takes: Any = None
    gives: Any = None
    query: Mapping[str, str] = {}
    at_root: bool = False


class Routes:
    """The table of one process; a gateway reads it when it starts, and again whenever it changes (`listen`)."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, bool], Route] = {}
        self._listeners: list[Callable[[], None]] = []

    def add(self, *routes: Route) -> None:
        """Raises ValueError for a path that does not begin with ``/``, whose ``{names}`` are no different names, or
        that has a route with that method already."""
        for route in routes:
            if not route.path.startswith("/"):
                raise ValueError(f"the path {route.path!r} of a route must begin with /")
            names = _NAME.findall(route.path)
            if not all(map(str.isidentifier, names)) or len(set(names)) < len(names):
                raise ValueError(f"the path {route.path!r} of a route needs different names in its braces")
            key = (route.method, route.path, route.at_root)
            if key in self._routes:
                raise ValueError(f"there is a route {route.method} {route.path} already")
            self._routes[key] = route
        for changed in self._listeners:
            changed()

    def all(self) -> list[Route]:
        return list(self._routes.values())

    def listen(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever routes were added."""
        self._listeners.append(changed)

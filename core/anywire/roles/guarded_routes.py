"""What a service adds to the routes of its orchestrator: under its name, its failures logged and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec

from anywire.boundary import Boundary
from anywire.errors import AnywireError, PluginFailed
from anywire.route import EventStream, Handler, Request, Response, Route, Routes, ServerSentEvent


class GuardedRoutes(Routes):
    """``routes`` as the service ``service`` sees them. A handler that raises something else than an `AnywireError`, or
    gives no answer, is a failure of the service in ``boundary``, and is answered as `PluginFailed`."""

    def __init__(self, routes: Routes, service: str, boundary: Boundary) -> None:
        super().__init__()
        self._all, self._service, self._boundary = routes, service, boundary

    def add(self, *routes: Route) -> None:
        self._all.add(
            *(
                msgspec.structs.replace(route, service=self._service, handler=self._guarded(route, route.handler))
                for route in routes
            )
        )

    def all(self) -> list[Route]:
        return self._all.all()

    def listen(self, changed: Callable[[], None]) -> None:
        self._all.listen(changed)

    def _guarded(self, route: Route, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response | EventStream:
            try:
                answer: object = await handler(request)
            except AnywireError:
                raise
            except Exception as error:
                raise self._failed(route, error) from error
            if isinstance(answer, Response):
                return answer
            if isinstance(answer, EventStream):
                return EventStream(
                    _GuardedEvents(answer.events, lambda error: self._failed(route, error)), answer.headers
                )
            raise self._failed(route, f"gave {type(answer).__name__}, which is no Response or EventStream")

        return handle

    def _failed(self, route: Route, error: Exception | str) -> PluginFailed:
        """Count and log a failure; what the client is told of it."""
        called = f"{route.method} {route.path}"
        self._boundary.failed(f"service {self._service}", called, error)
        return PluginFailed(f"the service {self._service} failed at {called}; the orchestrator's log has more")


class _GuardedEvents:
    """The events of a route; ``failed`` is told what they raise, and gives what is raised in its place."""

    def __init__(self, events: AsyncIterator[ServerSentEvent], failed: Callable[[Exception], PluginFailed]) -> None:
        self._events, self._failed = events, failed

    def __aiter__(self) -> _GuardedEvents:
        return self

    async def __anext__(self) -> ServerSentEvent:
        try:
            return await anext(self._events)
        except (AnywireError, StopAsyncIteration):
            raise
        except Exception as error:
            raise self._failed(error) from error

    async def aclose(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception as error:
            self._failed(error)

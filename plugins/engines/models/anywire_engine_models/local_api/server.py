"""The server of the routes: who is let in, what is found, and how it begins and ends."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import unquote

from aiohttp import web

from anywire.errors import ConfigError, InvalidRequest
from anywire.files.live_records import RecordFile
from anywire.listening.connection_limit import ConnectionLimit
from anywire.listening.listener import Listener
from anywire.secrecy import keep_secret
from anywire.transport_tools import is_loopback
from anywire_engine_models.host.status import Listener as ChangeListener
from anywire_engine_models.local_api import access
from anywire_engine_models.local_api.api_errors import HttpError, as_anywire, error_response
from anywire_engine_models.local_api.change_events import ChangeEvents
from anywire_engine_models.local_api.chat import Chat, Runs
from anywire_engine_models.local_api.model_routes import HasCommands, ModelRoutes
from anywire_engine_models.local_api.records import LocalApiRecord, records_folder
from anywire_engine_models.local_api.telling import Tellings
from anywire_engine_models.local_api.writing import PAGE_HEADERS

MAX_CONNECTIONS = 512
MAX_ANSWERS = 256
"""Chats, and beside them commands, that may be answered at once."""
MAX_FOLLOWED = 64
"""Logs that may be followed at once."""
IDLE_TIMEOUT = 75.0
"""Seconds that a connection is kept without a request."""
END_PATIENCE = 5.0
"""Seconds that requests may take to end when the server is closed."""

Handler = Callable[..., Awaitable[web.StreamResponse]]
"""Gets the request, and what stands for the name in braces of its path."""


class LocalEngine(HasCommands, Runs, Protocol):
    """What the routes need of an engine: its commands ``models.*``, and its answers."""


class LocalApi:
    """Serves the routes of ``engine``, whose models' changes ``listen`` tells (`ModelHost.listen`).

    ``host`` must be a loopback address, ``port`` 0 takes any that is free. `begin` and `close` are called once, on the
    event loop.
    """

    def __init__(
        self,
        engine: LocalEngine,
        listen: Callable[[ChangeListener], Callable[[], None]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._engine, self._listen, self._host, self._port = engine, listen, host, port
        self.token = secrets.token_urlsafe(32)
        """What a client must show as bearer token."""
        self._chats, self._commands, self._followed = map(Tellings, (MAX_ANSWERS, MAX_ANSWERS, MAX_FOLLOWED))
        self._limit = ConnectionLimit("the server of the routes for models", MAX_CONNECTIONS)
        self._events: ChangeEvents | None = None
        self._listener: Listener | None = None
        self._server: _Server | None = None
        self._record: RecordFile | None = None
        self._table: list[tuple[re.Pattern[str], dict[str, Handler]]] = []

    @property
    def address(self) -> str:
        """``http://127.0.0.1:41234``; empty while it does not listen."""
        return self._listener.address if self._listener is not None else ""

    async def begin(self) -> None:
        """Listen, and tell this user's commands where. Raises `ConfigError`, and then nothing is left open."""
        if not is_loopback(self._host):
            raise ConfigError(
                f"engine.local_api.host must be a loopback address such as 127.0.0.1, not {self._host!r}: from other "
                "machines, models are reached through the orchestrator"
            )
        keep_secret(self.token)
        self._events = ChangeEvents(self._listen)
        models, chat = ModelRoutes(self._engine, self._commands, self._followed), Chat(self._engine, self._chats)
        self._table = _table(models, chat, self._events)
        self._server = _Server(self._answer, self._limit)
        listener = Listener(
            "the server of the routes for models",
            self._server,
            host=self._host,
            port=self._port,
            default_port=0,
            port_key="engine.local_api.port",
        )
        try:
            await listener.open()
            self._listener = listener
            self._tell(listener)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Take no further request, end those under way, and leave nothing; safe to call twice."""
        record, self._record = self._record, None
        if record is not None:
            record.remove()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        events, self._events = self._events, None
        if events is not None:
            events.close()
        for each in (self._chats, self._commands, self._followed):
            each.stop()
        server, self._server = self._server, None
        if server is not None:
            server.pre_shutdown()
            await server.shutdown(END_PATIENCE)

    def _tell(self, listener: Listener) -> None:
        try:
            self._record = RecordFile(records_folder(), f"{os.getpid()}-{listener.port}")
            self._record.write(LocalApiRecord(listener.address, self.token, os.getpid(), time.time()))
        except OSError as error:
            raise ConfigError(f"the token of engine.local_api cannot be kept: {error}") from error

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._limit.begun(request.transport, request.content)
        headers: dict[str, str] = {}
        try:
            access.check_host(request.headers.get("Host", ""))
            if (origin := request.headers.get("Origin")) is not None:
                access.check_origin(origin)
                headers = access.page_headers(origin)
            request[PAGE_HEADERS] = headers
            response = await self._found(request)
        except ConnectionError:
            raise  # nobody is left to answer
        except Exception as error:
            fault = as_anywire(error)
            if request.writer.output_size:
                raise ConnectionAbortedError("the answer broke off") from fault
            response = error_response(fault)
        finally:
            self._limit.ended(request.transport)
        if not response.prepared:
            response.headers.update(headers)
        return response

    async def _found(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        methods, names = self._at(path)
        if request.method == "OPTIONS":  # a browser asks it without a token
            allowed = ", ".join(methods)
            return web.Response(
                status=204, headers={"Allow": allowed, **access.preflight_headers(request.headers, allowed)}
            )
        access.check_token(request.headers.get("Authorization", ""), self.token)
        if not methods:
            raise HttpError(404, "not_found", f"there is nothing at {path[:256]}; the models are at /v1/models")
        handler = methods.get(request.method)
        if handler is None:
            allowed = ", ".join(methods)
            message = f"{path[:256]} answers {allowed}, not {request.method[:32]}"
            raise HttpError(405, "method_not_allowed", message, headers={"Allow": allowed})
        return await handler(request, *names)

    def _at(self, path: str) -> tuple[dict[str, Handler], list[str]]:
        """What answers at ``path``, by method, and what its names stand for; nothing where there is no such path."""
        for pattern, methods in self._table:
            if match := pattern.fullmatch(path):
                return methods, [unquote(each) for each in match.groups()]
        return {}, []


def _table(models: ModelRoutes, chat: Chat, events: ChangeEvents) -> list[tuple[re.Pattern[str], dict[str, Handler]]]:
    paths: dict[str, dict[str, Handler]] = {
        "/v1/models": {"GET": models.models, "POST": models.add},
        "/v1/models/import": {"POST": models.import_models},
        "/v1/models/{}/start": {"POST": models.start},
        "/v1/models/{}/stop": {"POST": models.stop},
        "/v1/models/{}/unload": {"POST": models.unload},
        "/v1/models/{}/pin": {"POST": models.pin},
        "/v1/models/{}/logs": {"GET": models.logs},
        "/v1/models/{}": {"GET": models.model},
        "/v1/events": {"GET": events.events},
        "/v1/chat/completions": {"POST": chat.completions},
        "/v1/commands/{}": {"POST": models.command},
    }
    # A model's id may have a slash, encoded or not: the longest paths go first.
    return [(re.compile(re.escape(path).replace(r"\{\}", "(.+?)")), methods) for path, methods in paths.items()]


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what is no HTTP, or where the client is gone: the connection is closed after the answer."""
        if request.writer.output_size:
            raise ConnectionAbortedError("the answer broke off")
        response = error_response(InvalidRequest("this is not HTTP as it should be"))
        response.force_close()
        return response


class _Server(web.Server):
    """The factory of connections. A client that goes away cancels its handler."""

    def __init__(self, handler: Any, limit: ConnectionLimit) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None, keepalive_timeout=IDLE_TIMEOUT)
        self._limit = limit

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._limit.opened(transport, handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._limit.lost(handler)
        super().connection_lost(handler, exc)

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)

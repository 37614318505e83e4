"""aiohttp's server, told to answer in OpenAI's form even where no handler is reached."""

from __future__ import annotations

import logging

from aiohttp import web

from anywire.errors import InvalidRequest
from anywire_gateway_openai.errors import as_anywire, error_response
from anywire_gateway_openai.routes import Routes

log = logging.getLogger(__name__)


class OpenAIProtocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for what is no HTTP: the connection is closed after the answer."""
        if status < 500:
            log.debug("not HTTP from %s: %s", request.remote, message)
            what = (message or "bad request").partition("\n")[0].rstrip(":")
            response = error_response(InvalidRequest(f"this is not HTTP as it should be: {what}"))
        else:
            response = error_response(as_anywire(exc if isinstance(exc, Exception) else RuntimeError(message)))
        response.force_close()
        return response


class OpenAIServer(web.Server):
    """The factory of connections. A client that disconnects cancels its handler."""

    def __init__(self, routes: Routes) -> None:
        super().__init__(routes, handler_cancellation=True, access_log=None)

    def __call__(self) -> web.RequestHandler:
        return OpenAIProtocol(self, loop=self._loop, **self._kwargs)

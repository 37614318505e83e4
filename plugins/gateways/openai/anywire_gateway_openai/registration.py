"""Agents that register at the public address: handed to the transport that takes registrations."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from anywire.context import Context
from anywire.transport import TakesRegistrations
from anywire.web_pages import header_of_page
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.openapi.answer_types import TransportFault
from anywire_gateway_openai.openapi.form import Form, described

MAX_BYTES = 64 * 1024
TIMEOUT_S = 10.0
_FORM = Form(takes=dict[str, Any], gives=dict[str, Any], errors=(401, 403, 404, 409), fault=TransportFault)


class RegistrationHandler:
    """``POST agents/register``. Who is admitted is the transport's decision: it is given the body and the
    ``Authorization`` header as they came. Where clients need keys, agents need something to show, too."""

    def __init__(self, context: Context, callers: Callers) -> None:
        self._callers = callers
        self._transport = next((each for each in context.transports if isinstance(each, TakesRegistrations)), None)

    @described(_FORM)
    async def register(self, request: web.BaseRequest) -> web.Response:
        """For agents of transports that register through the gateway."""
        if self._transport is None:
            raise HttpError(
                404, "not_found", "no configured transport takes registrations here: list `http` under `transports`"
            )
        if name := header_of_page(request.headers):
            raise HttpError(403, "forbidden", f"agents do not register from a web page: send no {name} header")
        if request.content_type != "application/json":
            raise HttpError(415, "unsupported_media_type", "a registration is sent as Content-Type: application/json")
        body = await read_body(request, MAX_BYTES, TIMEOUT_S)
        status, answer = await self._transport.register_agent(
            body,
            request.headers.get("Authorization", ""),
            self._callers.client(request).address,
            checked=self._callers.needs_key,
        )
        return web.Response(
            status=status, body=answer, headers={"Content-Type": "application/json", "Server": "anywire"}
        )

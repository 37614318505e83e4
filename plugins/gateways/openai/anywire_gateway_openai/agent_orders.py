"""What an operator orders of agents over HTTP: drain, isolate, restore."""

from __future__ import annotations

import msgspec
from aiohttp import web

from anywire.agent_health import Order
from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire.views import ordered_json
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.errors import HttpError
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, described

MAX_BYTES = 64 * 1024


class OrderReason(msgspec.Struct):
    """Why it is ordered, for whoever looks at the agent later."""

    reason: str = ""


_FORM = Form(takes=OrderReason, may_be_empty=True, gives=answer_types.Ordered)
_decode = msgspec.json.Decoder(OrderReason).decode


class AgentOrderHandlers:
    """``body_timeout`` is the gateway's, in seconds. Each answers with the agent's health as it is then."""

    def __init__(self, context: Context, callers: Callers, *, body_timeout: float) -> None:
        self._context, self._callers, self._body_timeout = context, callers, body_timeout

    @described(_FORM)
    async def drain(self, request: web.BaseRequest, agent_id: str) -> web.Response:
        """Sends an agent no further task. What runs on it ends there. The body may be ``{"reason": "…"}``."""
        return await self._order(request, agent_id, "drained")

    @described(_FORM)
    async def isolate(self, request: web.BaseRequest, agent_id: str) -> web.Response:
        """Sends an agent no further task, and moves what runs on it to other agents where that can be. The body may be
        ``{"reason": "…"}``."""
        return await self._order(request, agent_id, "isolated")

    @described(_FORM)
    async def restore(self, request: web.BaseRequest, agent_id: str) -> web.Response:
        """Ends what was ordered of an agent. One that is quarantined is sent its next probe at once."""
        return await self._order(request, agent_id, "")

    async def _order(self, request: web.BaseRequest, agent_id: str, order: Order) -> web.Response:
        body = await read_body(request, MAX_BYTES, self._body_timeout, any_type=True)
        caller = self._callers.still(request)
        try:
            health = self._context.order_agent(agent_id, order, _reason(body), caller)
        except InvalidRequest as error:
            if error.param != "agent_id":
                raise
            raise HttpError(404, "agent_not_found", error.message) from error
        return json_response(ordered_json(agent_id, health))


def _reason(body: bytes) -> str:
    if not body.strip():
        return ""
    try:
        return _decode(body).reason
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(
            f'the body must be empty or a JSON object such as {{"reason": "new disk"}}: {error}', param="reason"
        ) from error

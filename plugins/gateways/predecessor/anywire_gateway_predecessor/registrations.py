"""``agents/register``, ``agents/{id}/heartbeat`` and DELETE: the door for agents of the predecessor.

It is open only where the transport ``predecessor`` is named under ``transports``, which also says from which addresses
agents may come. A web page never gets in.
"""

from __future__ import annotations

from aiohttp import web

from anywire.errors import Forbidden, InvalidRequest
from anywire_gateway_openai.body import read_body
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.proxies import has_proxy_header
from anywire_gateway_predecessor.replies import Failed, reply
from anywire_gateway_predecessor.requests import object_of
from anywire_gateway_predecessor.transport import NotAdmitted, PredecessorTransport, Taken

MAX_BYTES = 64 * 1024
TIMEOUT_S = 10.0


class Registrations:
    def __init__(self, agents: PredecessorTransport | None, callers: Callers) -> None:
        self._agents, self._callers = agents, callers

    async def register(self, request: web.BaseRequest) -> web.Response:
        agents = self._open(request)
        members = object_of(await read_body(request, MAX_BYTES, TIMEOUT_S, any_type=True))
        try:
            name = await agents.register(members, self._callers.client(request).address)
        except NotAdmitted as error:
            raise Failed(403, str(error), "NOT_ADMITTED") from error
        except Taken as error:
            raise Failed(409, str(error), "TAKEN") from error
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        return reply({"success": True, "agent_id": name})

    async def heartbeat(self, request: web.BaseRequest, name: str) -> web.Response:
        agents = self._open(request)
        self._check_peer(agents, request, name)
        body = await read_body(request, MAX_BYTES, TIMEOUT_S, any_type=True)
        try:
            members = object_of(body) if body else {}
        except InvalidRequest:
            members = {}  # as the predecessor: that it came is what counts
        return reply({"success": agents.heartbeat(name, members)})

    async def remove(self, request: web.BaseRequest, name: str) -> web.Response:
        agents = self._open(request)
        self._check_peer(agents, request, name)
        if not agents.remove(name):
            raise Failed(404, "Agent not found")
        return reply({"success": True})

    def _open(self, request: web.BaseRequest) -> PredecessorTransport:
        if self._agents is None:
            raise Failed(403, "agents are not taken here: list `predecessor` under `transports` to take them", "CLOSED")
        if "Origin" in request.headers:
            raise Failed(403, "agents do not come from a web page: send no Origin header", "NOT_ADMITTED")
        if has_proxy_header(request.headers) and not self._callers.client(request).by_proxy:
            raise Failed(
                403,
                "this came by a proxy that is not trusted, so nobody knows where the agent is: name it in "
                "access.trusted_proxies",
                "NOT_ADMITTED",
            )
        return self._agents

    def _check_peer(self, agents: PredecessorTransport, request: web.BaseRequest, name: str) -> None:
        """Of an agent speaks itself, from its own address, or an operator."""
        if not agents.is_of(name, self._callers.client(request).address):
            try:
                self._callers.admit(request, "operate")
            except Forbidden as error:
                raise Failed(404, "Agent not found") from error

"""What the gateway tells about the orchestrator behind it: models, agents, counters, health, version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, get_args

import msgspec
from aiohttp import web

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import Forbidden, ModelNotFound
from anywire.messages import COMMON_KINDS, Kind
from anywire.offers import Offer, OfferState
from anywire.views import agent_json
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, described

_encode = msgspec.json.Encoder().encode
_BEST_FIRST: tuple[OfferState, ...] = ("ready", "starting", "stopped", "stopping", "crashed")


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=_encode(value), headers={"Content-Type": "application/json", "Server": "anywire"}
    )


KINDS = get_args(Kind)


class _Offered(NamedTuple):
    """An offer with the kinds of tasks that it stands for."""

    offer: Offer
    kinds: Sequence[str]
    is_agents: bool


class CatalogueHandlers:
    def __init__(self, context: Context, callers: Callers) -> None:
        self._context, self._callers = context, callers
        self._created = int(time.time())
        self._version = version("anywire")

    @described(Form(gives=answer_types.Index))
    async def index(self, request: web.BaseRequest) -> web.Response:
        """Name and version of the server, where its API begins, and the whole URL of that."""
        url = self._callers.base_url(request)
        told = {"name": "anywire", "version": self._version, "api": "/v1"}
        return json_response(told | ({"url": f"{url}/v1"} if url else {}))

    @described(Form(gives=answer_types.Models))
    async def models(self, request: web.BaseRequest) -> web.Response:
        """The models of all agents that have not failed, as far as the caller may use them."""
        offers = sorted(self._offers(request[CALLER]).items())
        return json_response({"object": "list", "data": [self._model(name, found) for name, found in offers]})

    @described(Form(gives=answer_types.Model))
    async def model(self, request: web.BaseRequest, name: str) -> web.Response:
        """One model; 404 when no agent has it."""
        found = self._offers(request[CALLER]).get(name)
        if found is None:
            raise ModelNotFound(f"the model {name!r} is not served by any agent", param="model")
        return json_response(self._model(name, found))

    @described(Form(gives=answer_types.Agents))
    async def agents(self, request: web.BaseRequest) -> web.Response:
        """Every agent known now: identity, transport, engine, offers, slots, state, load, health."""
        if self._callers.is_rebound(request):
            raise Forbidden("agents are listed on this machine for localhost alone: ask for http://127.0.0.1 instead")
        context = self._context
        data = [agent_json(view, context.agent_health(view.agent_id)) for view in context.agents()]
        return json_response({"object": "list", "data": data})

    @described(Form(gives=dict[str, Any]))
    async def stats(self, request: web.BaseRequest) -> web.Response:
        """The orchestrator's counters."""
        return json_response(self._context.stats())

    @described(Form(gives=answer_types.Health, also={503: answer_types.Health}))
    async def health(self, request: web.BaseRequest) -> web.Response:
        """200 while tasks are accepted, whether or not an agent is there; 503 once the orchestrator shuts down.

        Where keys are needed, the numbers of agents and models are told to those alone who have one."""
        closing = self._context.closing
        counts = {}
        if self._callers.is_known(request):
            counts = {"agents": len(self._context.agents()), "models": len(self._context.models())}
        return json_response({"status": "closing" if closing else "ok", **counts}, 503 if closing else 200)

    @described(Form(gives=answer_types.Health))
    async def alive(self, request: web.BaseRequest) -> web.Response:
        """200 as long as the process answers, also while it shuts down."""
        return json_response({"status": "ok"})

    @described(Form(gives=answer_types.CallerTold))
    async def caller(self, request: web.BaseRequest) -> web.Response:
        """Who the caller is: id, tenant, role, and whether a key is needed here."""
        caller = request[CALLER]
        told = {"object": "caller", "id": caller.id, "tenant": caller.tenant, "role": caller.role}
        return json_response(told | {"needs_key": self._callers.needs_key})

    @described(Form(gives=answer_types.ServerVersion))
    async def version(self, request: web.BaseRequest) -> web.Response:
        """Name and version of the server."""
        return json_response({"name": "anywire", "version": self._version})

    def _offers(self, caller: Caller) -> dict[str, list[_Offered]]:
        """By model that ``caller`` may use, without the offers of agents that have failed."""
        views = {view.agent_id: view for view in self._context.agents()}
        found: dict[str, list[_Offered]] = {}
        for name, offers in self._context.offers(caller).items():
            left = []
            for who, offer in offers:
                view = views.get(who)
                if view is None:  # a service's
                    left.append(_Offered(offer, offer.kinds or COMMON_KINDS, False))
                elif view.status.state != "failed":
                    left.append(_Offered(offer, offer.kinds or view.info.capabilities, True))
            if left:
                found[name] = left
        return found

    def _model(self, name: str, offered: Sequence[_Offered]) -> dict[str, Any]:
        """OpenAI's fields, and what is offered together: the best state, the longest context (null: unknown), the
        digest that all have (null where they differ), every kind of task, a feature that one of them has, or that each
        one which speaks of it has not."""
        offers = [each.offer for each in offered]
        features: dict[str, bool] = {}
        for offer in offers:
            for feature, has in offer.features.items():
                features[feature] = has or features.get(feature, False)
        context = max(offer.context for offer in offers) or None
        digests = {offer.digest for offer in offers}
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": next((offer.owner for offer in offers if offer.owner), "anywire"),
            "state": min((offer.state for offer in offers), key=_BEST_FIRST.index),
            "context_length": context,
            "max_model_len": context,
            "kinds": [kind for kind in KINDS if any(kind in each.kinds for each in offered)],
            "features": dict(sorted(features.items())),
            "digest": (digests.pop() or None) if len(digests) == 1 else None,
            "on_demand": any(offer.on_demand for offer in offers),
            "agents": sum(each.is_agents for each in offered),
        }

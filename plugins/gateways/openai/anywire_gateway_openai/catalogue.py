"""What the gateway tells about the orchestrator behind it: models, agents, counters, health, version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from anywire.context import Context
from anywire.errors import ModelNotFound
from anywire.offers import Offer, OfferState
from anywire.views import agent_json

_encode = msgspec.json.Encoder().encode
_BEST_FIRST: tuple[OfferState, ...] = ("ready", "starting", "stopped", "stopping", "crashed")


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=_encode(value), headers={"Content-Type": "application/json", "Server": "anywire"}
    )


class CatalogueHandlers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._created = int(time.time())
        self._version = version("anywire")

    async def models(self, request: web.BaseRequest) -> web.Response:
        offers = sorted(self._offers().items())
        return json_response({"object": "list", "data": [self._model(name, *found) for name, found in offers]})

    async def model(self, request: web.BaseRequest, name: str) -> web.Response:
        found = self._offers().get(name)
        if found is None:
            raise ModelNotFound(f"the model {name!r} is not served by any agent", param="model")
        return json_response(self._model(name, *found))

    async def agents(self, request: web.BaseRequest) -> web.Response:
        return json_response({"object": "list", "data": [agent_json(view) for view in self._context.agents()]})

    async def stats(self, request: web.BaseRequest) -> web.Response:
        return json_response(self._context.stats())

    async def health(self, request: web.BaseRequest) -> web.Response:
        """200 while tasks are accepted, whether or not an agent is there; 503 once the orchestrator shuts down."""
        closing = self._context.closing
        counts = {"agents": len(self._context.agents()), "models": len(self._context.models())}
        return json_response({"status": "closing" if closing else "ok", **counts}, 503 if closing else 200)

    async def version(self, request: web.BaseRequest) -> web.Response:
        return json_response({"name": "anywire", "version": self._version})

    def _offers(self) -> dict[str, tuple[list[Offer], int]]:
        """By model, without those of agents that have failed: its offers, and how many of them are agents' (the others
        are services')."""
        states = {view.agent_id: view.status.state for view in self._context.agents()}
        offers: dict[str, tuple[list[Offer], int]] = {}
        for name, found in self._context.offers().items():
            if left := [(who, offer) for who, offer in found if states.get(who) != "failed"]:
                offers[name] = [offer for _, offer in left], sum(who in states for who, _ in left)
        return offers

    def _model(self, name: str, offers: Sequence[Offer], agents: int) -> dict[str, Any]:
        """OpenAI's fields, and what is offered together: the best state, the longest context (null: unknown), a
        feature that one of them has, or that each one which speaks of it has not."""
        features: dict[str, bool] = {}
        for offer in offers:
            for feature, has in offer.features.items():
                features[feature] = has or features.get(feature, False)
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "anywire",
            "state": min((offer.state for offer in offers), key=_BEST_FIRST.index),
            "context": max(offer.context for offer in offers) or None,
            "features": dict(sorted(features.items())),
            "on_demand": any(offer.on_demand for offer in offers),
            "agents": agents,
        }

"""What the gateway tells about the orchestrator behind it: models, agents, counters, health, version."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from anywire.errors import ModelNotFound
from anywire.pipeline.orchestrator import Orchestrator
from anywire.selector import AgentView
from anywire_gateway_openai.answers import ID_PREFIX
from anywire_gateway_openai.errors import HttpError

_encode = msgspec.json.Encoder().encode


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=_encode(value), headers={"Content-Type": "application/json", "Server": "anywire"}
    )


class CatalogueHandlers:
    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._created = int(time.time())
        self._version = version("anywire")

    async def models(self, request: web.BaseRequest) -> web.Response:
        return json_response({"object": "list", "data": [self._model(each) for each in self._orchestrator.models()]})

    async def model(self, request: web.BaseRequest, name: str) -> web.Response:
        if name not in self._orchestrator.models():
            raise ModelNotFound(f"the model {name!r} is not served by any agent", param="model")
        return json_response(self._model(name))

    async def agents(self, request: web.BaseRequest) -> web.Response:
        return json_response({"object": "list", "data": [_agent(view) for view in self._orchestrator.agents()]})

    async def stats(self, request: web.BaseRequest) -> web.Response:
        return json_response(self._orchestrator.stats())

    async def health(self, request: web.BaseRequest) -> web.Response:
        """200 while tasks are accepted, whether or not an agent is there; 503 once the orchestrator shuts down."""
        closing = self._orchestrator.closing
        counts = {"agents": len(self._orchestrator.agents()), "models": len(self._orchestrator.models())}
        return json_response({"status": "closing" if closing else "ok", **counts}, 503 if closing else 200)

    async def version(self, request: web.BaseRequest) -> web.Response:
        return json_response({"name": "anywire", "version": self._version})

    async def cancel(self, request: web.BaseRequest, name: str) -> web.Response:
        """``name`` is a task's id, alone or as an answer's id carries it (``chatcmpl-…``)."""
        task_id = name
        for prefix in ID_PREFIX.values():
            task_id = task_id.removeprefix(prefix)
        if not self._orchestrator.cancel(task_id, "cancelled by DELETE"):
            raise HttpError(404, "task_not_found", f"there is no task {name[:128]!r} (any more)")
        return json_response({"id": task_id, "object": "task", "cancelled": True})

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "anywire"}


def _agent(view: AgentView) -> dict[str, Any]:
    info, status = view.info, view.status
    return {
        "id": info.agent_id,
        "incarnation": info.incarnation,
        "host": info.host,
        "pid": info.pid,
        "transport": view.transport,
        "engine": info.engine,
        "models": status.models,
        "state": status.state,
        "detail": status.detail,
        "slots": status.slots,
        "load": {"active": status.active, "queued": status.queued, "in_flight": view.in_flight},
        "completed": view.completed,
        "failed": view.failed,
        "latency_ms": round(view.latency_ema_ms, 3),
        "specialization": info.specialization,
        "capabilities": info.capabilities,
        "device": info.device,
        "resources": status.resources,
    }

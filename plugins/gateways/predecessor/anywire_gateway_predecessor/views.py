"""What the predecessor tells of itself: health, agents, tasks, pool and metrics."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from anywire.context import Context, TaskView
from anywire.selector import AgentView
from anywire_gateway_openai.answers import task_id_of
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_predecessor.finished import Finished, Record
from anywire_gateway_predecessor.replies import Failed, reply
from anywire_gateway_predecessor.transport import PredecessorTransport

NO_PORT = 0
"""Told for agents of ours, which no client can reach at a port."""


class Views:
    """``dds`` tells whether the DDS topics are served. ``agents`` is the transport to the predecessor's agents, if it
    is in use."""

    def __init__(
        self,
        context: Context,
        callers: Callers,
        finished: Finished,
        agents: PredecessorTransport | None,
        dds: bool,
    ) -> None:
        self._context, self._callers = context, callers
        self._finished, self._agents, self._dds = finished, agents, dds
        self._started = time.monotonic()

    async def health(self, request: web.BaseRequest) -> web.Response:
        closing = self._context.closing
        told = {"status": "closing" if closing else "healthy", "timestamp": time.time(), "dds_available": self._dds}
        return reply(told, 503 if closing else 200)

    async def status(self, request: web.BaseRequest) -> web.Response:
        return reply({"registry": self._pool(), "scheduler": self._tasks(), "dds_available": self._dds})

    async def list(self, request: web.BaseRequest) -> web.Response:
        self._check_host(request)
        names = ("agent_id", "hostname", "port", "model", "status", "slots_idle")
        told = [self._agent(view) for view in self._context.agents()]
        return reply({"agents": [{name: each[name] for name in names} for each in told]})

    async def agent(self, request: web.BaseRequest, name: str) -> web.Response:
        self._check_host(request)
        for view in self._context.agents():
            told = self._agent(view)
            if told["agent_id"] == name:
                return reply(told)
        raise Failed(404, "Agent not found")

    async def tasks(self, request: web.BaseRequest) -> web.Response:
        """Those that run, that wait (``status=running``, ``status=pending``), or that have ended."""
        caller = request[CALLER]
        wanted = parse_qs(request.query_string).get("status", [""])[0]
        found: list[dict[str, Any]]
        if wanted in ("running", "pending"):
            views = [_task(view) for view in self._context.tasks(caller)]
            found = [view for view in views if view["status"] == wanted]
        else:
            found = [_record(record) for record in self._finished.of(caller)]
        names = ("task_id", "status", "task_type", "created_at")
        return reply({"tasks": [{name: each[name] for name in names} for each in found]})

    async def task(self, request: web.BaseRequest, name: str) -> web.Response:
        caller, task_id = request[CALLER], task_id_of(name)
        record = self._finished.get(task_id, caller)
        if record is not None:
            return reply(_record(record))
        for view in self._context.tasks(caller):
            if view.task_id == task_id:
                return reply(_task(view))
        raise Failed(404, "Task not found")

    async def cancel(self, request: web.BaseRequest, name: str) -> web.Response:
        if not self._context.cancel(task_id_of(name), "cancelled by DELETE", request[CALLER]):
            raise Failed(404, "Task not found or cannot be cancelled")
        return reply({"success": True})

    async def pool(self, request: web.BaseRequest) -> web.Response:
        return reply(self._pool() | {"queue_length": self._tasks()["pending"]})

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        return reply(
            {"uptime_seconds": round(time.monotonic() - self._started), "agents": self._pool(), "tasks": self._tasks()}
        )

    async def routing(self, request: web.BaseRequest) -> web.Response:
        raise Failed(
            409, "the algorithm is set by selector.name in the configuration and cannot be changed meanwhile", "FIXED"
        )

    def _check_host(self, request: web.BaseRequest) -> None:
        """Raises `Failed` for what may be a web page elsewhere that let its own name lead here."""
        if self._callers.is_rebound(request):
            raise Failed(403, "agents are listed on this machine for localhost alone", "FORBIDDEN")

    def _pool(self) -> dict[str, int]:
        told = [self._agent(view) for view in self._context.agents()]
        return {
            "total_agents": len(told),
            "online_agents": sum(each["status"] != "error" for each in told),
            "idle_agents": sum(each["status"] == "idle" for each in told),
            "busy_agents": sum(each["status"] == "busy" for each in told),
            "slots_total": sum(each["slots_total"] for each in told),
            "slots_idle": sum(each["slots_idle"] for each in told),
        }

    def _tasks(self) -> dict[str, int]:
        counted = self._context.stats()["tasks"]
        ended = counted["ended"]
        places = [view.place for view in self._context.tasks()]
        running = places.count("running")
        return {
            "pending": len(places) - running,
            "running": running,
            "completed": ended.get("answered", 0),
            "failed": sum(ended.values()) - ended.get("answered", 0),
        }

    def _agent(self, view: AgentView) -> dict[str, Any]:
        registered = self._agents.registered(view.agent_id) if self._agents is not None else None
        state, slots = view.status.state, view.status.slots
        health = self._context.agent_health(view.agent_id)
        is_out = bool(health.order) or health.state == "quarantined"
        idle = max(view.free_slots, 0) if state == "ready" and not is_out else 0
        return {
            "agent_id": registered.name if registered is not None else view.agent_id,
            "hostname": registered.host if registered is not None else view.info.host,
            "port": registered.port if registered is not None else NO_PORT,
            "model": next(iter(view.offers), ""),
            "status": "error" if state == "failed" or health.state == "quarantined" else "idle" if idle else "busy",
            "slots_idle": idle,
            "slots_total": slots,
            "transport": view.transport,
            "capabilities": list(view.info.capabilities),
            "completed": view.completed,
            "failed": view.failed,
        }


def _task(view: TaskView) -> dict[str, Any]:
    status = "running" if view.place == "running" else "pending"
    created_at = time.time() - view.age_ms / 1e3
    return {
        "task_id": view.task_id,
        "status": status,
        "task_type": view.kind,
        "response": None,
        "error": None,
        "created_at": created_at,
        "completed_at": None,
    }


def _record(record: Record) -> dict[str, Any]:
    return {
        "task_id": record.task_id,
        "status": record.status,
        "task_type": record.task_type,
        "response": record.response,
        "error": record.error,
        "created_at": record.created_at,
        "completed_at": record.completed_at,
    }

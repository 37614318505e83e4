"""The service ``mcp``: the MCP servers of all agents, seen and steered at the orchestrator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pydantic

from anywire.caller import OPERATOR
from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire.route import Request, Response, Route
from anywire.service import Service, ServiceConfig
from anywire_engine_mcp.agent_events import AgentEvents
from anywire_engine_mcp.agent_servers import AgentServers, carried_out, listed

ORDERS = ("start", "stop", "restart")


class McpServiceConfig(ServiceConfig):
    order_timeout: float = pydantic.Field(
        default=60.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that starting or stopping a server may take.",
    )
    events: bool = pydantic.Field(
        default=True, description="Publish what happens at the servers of agents, each call of a tool too, as events."
    )


class ServerNotFound(InvalidRequest):
    """No agent has an MCP server of that label."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"no agent has an MCP server {label[:80]!r}: GET /v1/mcp lists those that are there",
            param="server",
            status=404,
            detail_code="server_not_found",
        )


class McpService(Service):
    """Lists the servers and tools of all agents at ``/v1/mcp``, and starts and stops them there. Publishes the events
    ``mcp.server`` and ``mcp.call``."""

    name = "mcp"
    Config = McpServiceConfig

    config: McpServiceConfig

    def __init__(self, config: McpServiceConfig) -> None:
        super().__init__(config)
        self._context: Context | None = None
        self._events: AgentEvents | None = None

    async def start(self, context: Context) -> None:
        self._context = context
        context.routes.add(
            Route("GET", "/mcp", self._list, summary="List the MCP servers of all agents, and their tools."),
            Route("GET", "/mcp/{server}", self._show, summary="Tell of an MCP server: its tools and its agents."),
        )
        for order in ORDERS:
            context.routes.add(
                Route(
                    "POST",
                    f"/mcp/{{server}}/{order}",
                    self._order,
                    role="operate",
                    body_limit=1024,
                    summary=f"{order.capitalize()} an MCP server at all agents that have it, or at `?agent=ID`.",
                )
            )
        if self.config.events:
            self._events = AgentEvents(context, self._publish)
            self._events.begin()

    async def close(self) -> None:
        if self._events is not None:
            await self._events.close()

    def _publish(self, name: str, data: dict[str, Any]) -> None:
        assert self._context is not None
        self._context.events.publish_plugin(f"service {self.name}", name, data)

    async def _list(self, request: Request) -> Response:
        agents = await self._asked()
        labels = sorted({each["server"] for agent in agents for each in agent.servers})
        told: dict[str, Any] = {"object": "list", "data": [_told(label, agents, request) for label in labels]}
        faults = {each.agent_id: each.error for each in agents if each.error}
        if faults and request.caller.role != "use":
            told["faults"] = faults
        return _json(told)

    async def _show(self, request: Request) -> Response:
        agents = await self._asked()
        label = request.names.get("server", "")
        if not any(each["server"] == label for agent in agents for each in agent.servers):
            raise ServerNotFound(label)
        return _json(_told(label, agents, request))

    async def _order(self, request: Request) -> Response:
        assert self._context is not None
        label, order = request.names.get("server", ""), request.path.rpartition("/")[2]
        wanted = request.query.get("agent", "")
        agents = await self._asked()
        having = [each.agent_id for each in agents if any(server["server"] == label for server in each.servers)]
        if wanted:
            having = [each for each in having if each == wanted]
        if not having:
            if wanted:
                raise InvalidRequest(
                    f"the agent {wanted[:80]!r} has no MCP server {label[:80]!r}", param="agent", status=404
                )
            raise ServerNotFound(label)
        done = await carried_out(
            self._context, having, f"mcp.{order}", label, self.config.order_timeout, request.caller
        )
        failed = [each for each in done.values() if isinstance(each, dict) and "error" in each]
        return _json({"server": label, "order": order, "agents": done}, 502 if len(failed) == len(done) else 200)

    async def _asked(self) -> list[AgentServers]:
        assert self._context is not None
        # Asked for by the service: whoever may see a label may see its tools, and no more is shown to him.
        return await listed(self._context, OPERATOR)


def _told(label: str, agents: list[AgentServers], request: Request) -> dict[str, Any]:
    """A server as all agents have it. A caller who only uses sees its tools and where it could be used, and nothing of
    the agents."""
    having = {each.agent_id: server for each in agents for server in each.servers if server["server"] == label}
    tools: dict[str, Any] = {}
    for server in having.values():
        for tool in server["tools"]:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                tools.setdefault(tool["name"], tool)
    running = sum(server.get("state") == "running" for server in having.values())
    told: dict[str, Any] = {
        "id": label,
        "object": "mcp_server",
        "agents_running": running,
        "agents_total": len(having),
        "tools": list(tools.values()),
    }
    if request.caller.role != "use":
        told["agents"] = {
            agent_id: {name: value for name, value in server.items() if name not in ("server", "tools")}
            | {"tools": [tool.get("name") for tool in server["tools"] if isinstance(tool, dict)]}
            for agent_id, server in having.items()
        }
    return told


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status)

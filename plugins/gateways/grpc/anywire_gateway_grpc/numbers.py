"""How the service does, as its clients ask for it: uptime, counts, times."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.calls import Call, Method
from anywire_service_deliberation.offered import Council, Deliberations

TYPES = ("performance", "agents", "councils", "all")
MAX_TENANTS = 1024
"""Tenants whose calls of Orchestrate are counted."""


class Numbers:
    """All numbers are those of the caller's tenant, and of all tenants for who sees them."""

    def __init__(self, context: Context, deliberations: Deliberations) -> None:
        self._context, self._deliberations = context, deliberations
        self._began = context.clock.now()
        self._orchestrated: dict[str, tuple[int, int]] = {}
        """By tenant: how many, and how many milliseconds they took together."""

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "GetStatus": Method(wire.GetStatusRequest, self.status),
            "GetMetrics": Method(wire.GetMetricsRequest, self.metrics),
        }

    @property
    def closing(self) -> bool:
        """Nothing is counted any more then."""
        return self._context.closing

    @property
    def health(self) -> str:
        return "draining" if self.closing else "healthy"

    @property
    def uptime(self) -> int:
        return int(self._context.clock.now() - self._began)

    def orchestrated(self, caller: Caller, took_ms: int) -> None:
        tenant = caller.tenant or caller.id
        if tenant in self._orchestrated or len(self._orchestrated) < MAX_TENANTS:
            count, total = self._orchestrated.get(tenant, (0, 0))
            self._orchestrated[tenant] = count + 1, total + took_ms

    async def status(self, asked: wire.GetStatusRequest, call: Call) -> wire.GetStatusResponse:
        told = wire.GetStatusResponse(status=self.health, uptime_seconds=self.uptime)
        if asked.include_stats and not self.closing:
            found = await self._deliberations.statistics(call.caller)
            councils = await self._deliberations.councils(call.caller)
            told.stats.CopyFrom(
                wire.OrchestratorStats(
                    total_deliberations=found["count"],
                    total_orchestrations=self._orchestrations(call.caller)[0],
                    avg_deliberation_time_ms=_ms(found["seconds"].get("mean")),
                    active_councils=len(councils),
                    role_counts=found["by_role"],
                )
            )
        return told

    async def metrics(self, asked: wire.GetMetricsRequest, call: Call) -> wire.GetMetricsResponse:
        wanted = asked.metric_type.lower() or "all"
        if wanted not in TYPES:
            raise InvalidRequest(f"metric_type is one of {', '.join(TYPES)}, not {wanted[:64]!r}")
        found = await self._deliberations.statistics(call.caller)
        councils = await self._deliberations.councils(call.caller)
        told = wire.GetMetricsResponse()
        if wanted in ("performance", "all"):
            told.performance.CopyFrom(self._performance(found["seconds"], call.caller))
        if wanted in ("agents", "all"):
            told.agents.CopyFrom(self._agents(found, councils, call.caller))
        if wanted in ("councils", "all"):
            told.councils.CopyFrom(_councils(found, councils))
        return told

    def _performance(self, seconds: dict[str, float], caller: Caller) -> wire.PerformanceMetrics:
        count, total = self._orchestrations(caller)
        return wire.PerformanceMetrics(
            avg_deliberation_ms=_ms(seconds.get("mean")),
            avg_orchestration_ms=total / count if count else 0.0,
            p50_latency_ms=_ms(seconds.get("p50")),
            p95_latency_ms=_ms(seconds.get("p95")),
            p99_latency_ms=_ms(seconds.get("p99")),
        )

    def _agents(self, found: dict[str, Any], councils: Any, caller: Caller) -> wire.AgentMetrics:
        """Agents of the fleet for who sees them, else those that have answered."""
        answered = found["agents"]
        if caller.has_role("observe"):
            agents = self._context.agents()
            total, active = len(agents), sum(agent.status.state == "ready" for agent in agents)
        else:
            total = active = len(answered)
        roles: Counter[str] = Counter()
        for council in councils:
            for member in council.members:
                roles[str(member.get("role") or council.role or council.name)] += 1
        times = [each["mean_seconds"] for each in answered.values() if each["mean_seconds"] is not None]
        return wire.AgentMetrics(
            total_agents=total,
            active_agents=active,
            agents_per_role=roles,
            avg_agent_response_time_ms=_ms(fmean(times) if times else None),
        )

    def _orchestrations(self, caller: Caller) -> tuple[int, int]:
        if caller.role == "use":
            return self._orchestrated.get(caller.tenant or caller.id, (0, 0))
        found = list(self._orchestrated.values())
        return sum(count for count, _ in found), sum(total for _, total in found)


def _councils(found: dict[str, Any], councils: Any) -> wire.CouncilMetrics:
    return wire.CouncilMetrics(
        total_councils=len(councils),
        active_councils=sum(council.in_use > 0 for council in councils),
        health_per_council={council.name: _health(found, council) for council in councils},
    )


def _health(found: dict[str, Any], council: Council) -> wire.CouncilHealth:
    busy = council.in_use > 0
    tally = found["roles"].get(council.role or council.name, {"works": 0, "failures": 0})
    tried = tally["works"] + tally["failures"]
    return wire.CouncilHealth(
        status="busy" if busy else "healthy",
        available_agents=0 if busy else len(council.members),
        busy_agents=len(council.members) if busy else 0,
        success_rate=tally["works"] / tried if tried else 1.0,
    )


def _ms(seconds: float | None) -> float:
    return 1000.0 * seconds if seconds else 0.0

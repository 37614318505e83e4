"""The service ``alerts``: looks at the gauges that agents report, and says which are critical."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from anywire.clock import Timer
from anywire.context import Context
from anywire.messages import GAUGES
from anywire.metric import Metric
from anywire.printable import printable
from anywire.route import Request, Response, Route
from anywire.service import Service
from anywire.sizes import shown_size
from anywire_service_alerts.config import AlertsConfig
from anywire_service_alerts.levels import Alert, Change, Levels, Reading

log = logging.getLogger(__name__)

MOST_SHOWN = 3
"""Agents that a line of the log names."""


class Alerts(Service):
    """Raises an alert while a gauge of a machine with agents, or of an agent, is critical.

    A gauge is a level that comes with each report of an agent, which is no event: so they are looked at every
    ``interval`` seconds. Events of the source ``alerts`` tell what changes: ``alert.raised`` and ``alert.cleared``.
    """

    name = "alerts"
    Config = AlertsConfig

    config: AlertsConfig

    def __init__(self, config: AlertsConfig) -> None:
        super().__init__(config)
        self._thresholds = config.all_thresholds()
        self._levels = Levels(self._thresholds)
        self._context: Context | None = None
        self._timer: Timer | None = None
        self._raised = 0

    async def start(self, context: Context) -> None:
        self._context = context
        for gauge in self._thresholds.keys() - GAUGES.keys():
            log.warning("alerts: %r is none of the gauges that agents report by themselves: an engine must", gauge)
        context.routes.add(
            Route(
                "GET",
                "/alerts",
                self._show,
                role="observe",
                summary="Tell which gauges of machines and agents are critical, and since when.",
            )
        )
        self._timer = context.clock.call_later(self.config.interval, self._look, context)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def metrics(self) -> Iterable[Metric]:
        yield Metric("raised", "Alerts that were raised.", self._raised, counter=True)
        # Machines may share a host name: each set of labels is told once.
        for (host, agent_id, gauge), number in Counter(map(_labels, self._levels.alerts)).items():
            labels = {"host": host, "agent": agent_id, "gauge": gauge}
            yield Metric("critical", "Gauges of machines and agents that are critical now, 1 each.", number, labels)

    def _look(self, context: Context) -> None:
        self._timer = context.clock.call_later(self.config.interval, self._look, context)
        readings = [
            Reading(agent.agent_id, agent.info.host, agent.status.resources, agent.info.boot_id)
            for agent in context.agents()
        ]
        for change in self._levels.look(readings, context.clock.now()):
            self._tell(context, change)

    def _tell(self, context: Context, change: Change) -> None:
        alert = change.alert
        named = (printable(alert.gauge), _where(alert), _shown(alert.gauge, alert.value))
        if change.what == "raised":
            self._raised += 1
            side = "above" if alert.above else "below"
            log.warning("alert: %s of %s is %s, %s %s", *named, side, _shown(alert.gauge, alert.limit))
        else:
            log.info("alert over: %s of %s (%s): %s", *named, change.reason)
        told = self._told(context, alert) | ({"reason": change.reason} if change.reason else {})
        context.events.publish_plugin(self.name, f"alert.{change.what}", told)

    async def _show(self, request: Request) -> Response:
        context = self._context
        assert context is not None
        thresholds = {
            gauge: {"above" if each.above is not None else "below": each.limit, "seconds": each.seconds}
            | ({} if each.clear is None else {"clear": each.clear})
            for gauge, each in self._thresholds.items()
        }
        told = {
            "object": "list",
            "data": [self._told(context, alert) for alert in self._levels.alerts],
            "thresholds": thresholds,
            "raised": self._raised,
        }
        return Response(msgspec.json.encode(told))

    def _told(self, context: Context, alert: Alert) -> dict[str, Any]:
        seconds = context.clock.now() - alert.since
        return {
            "agent_id": alert.place.agent_id,
            "host": alert.place.host,
            "agents": alert.agents,
            "gauge": alert.gauge,
            "value": alert.value,
            "worst": alert.worst,
            "above" if alert.above else "below": alert.limit,
            "clear": alert.clear,
            "seconds": round(seconds, 3),
            "since": round(time.time() - seconds, 3),
        }


def _shown(gauge: str, value: float) -> str:
    return shown_size(value) if gauge.endswith("_bytes") else f"{value:g}"


def _labels(alert: Alert) -> tuple[str, str, str]:
    return alert.place.host, alert.place.agent_id, alert.gauge


def _where(alert: Alert) -> str:
    """What the gauge is of, for a person."""
    place, agents = alert.place, [printable(each) for each in alert.agents]
    if place.agent_id:
        return f"agent {printable(place.agent_id)}"
    more = f" and {len(agents) - MOST_SHOWN} more" if len(agents) > MOST_SHOWN else ""
    return f"host {printable(place.host)} (agents: {', '.join(agents[:MOST_SHOWN])}{more})"

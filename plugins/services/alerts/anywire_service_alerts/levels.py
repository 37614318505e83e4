"""When an alert begins and ends: levels of gauges with hysteresis, and for how long they must hold.

Pure: who looks says what the gauges are and what time it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from anywire_service_alerts.config import Threshold

Key = tuple[str, str]
"""An agent's id and a gauge."""


class Reading(msgspec.Struct, frozen=True):
    """What an agent has reported last."""

    agent_id: str
    host: str
    gauges: Mapping[str, float]


class Alert(msgspec.Struct, frozen=True):
    """A gauge that is critical at an agent's machine. ``since`` is when it became so, in the seconds of who looks,
    ``value`` the newest, ``worst`` the one that was furthest beyond ``limit``; ``clear`` is where it is well again."""

    agent_id: str
    host: str
    gauge: str
    value: float
    worst: float
    limit: float
    clear: float
    above: bool
    since: float


class Change(msgspec.Struct, frozen=True):
    """``reason`` says why an alert was cleared: its gauge is ``well``, ``unknown`` (not reported any more), or its
    agent is ``gone``."""

    what: Literal["raised", "cleared"]
    alert: Alert
    reason: str = ""


class _Level(msgspec.Struct):
    """``turned`` is since when the gauge is on the other side: critical while there is no alert, well while there is
    one, not reported likewise."""

    alert: Alert | None = None
    turned: float | None = None


class Levels:
    """Keeps what gauges were. A gauge that is between its limit and where it is well again turns nothing."""

    def __init__(self, thresholds: Mapping[str, Threshold]) -> None:
        self._thresholds = thresholds
        self._levels: dict[Key, _Level] = {}

    @property
    def alerts(self) -> list[Alert]:
        """Those that hold now, the oldest first."""
        found = [level.alert for level in self._levels.values() if level.alert is not None]
        return sorted(found, key=lambda alert: (alert.since, alert.agent_id, alert.gauge))

    def look(self, readings: Iterable[Reading], now: float) -> list[Change]:
        """What has changed. ``readings`` are those of all agents there are."""
        changes: list[Change] = []
        there = set[str]()
        for reading in readings:
            there.add(reading.agent_id)
            for gauge, threshold in self._thresholds.items():
                change = self._step(reading, gauge, threshold, now)
                if change is not None:
                    changes.append(change)
        for key in [key for key in self._levels if key[0] not in there]:
            alert = self._levels.pop(key).alert
            if alert is not None:
                changes.append(Change("cleared", alert, "gone"))
        return changes

    def _step(self, reading: Reading, gauge: str, threshold: Threshold, now: float) -> Change | None:
        key, value = (reading.agent_id, gauge), reading.gauges.get(gauge)
        level = self._levels.get(key)
        if level is None or level.alert is None:
            if value is None or not threshold.is_critical(value):
                self._levels.pop(key, None)
                return None
            if level is None:
                level = self._levels[key] = _Level(turned=now)
            assert level.turned is not None
            if now < level.turned + threshold.seconds:
                return None
            level.alert = _alert(reading, gauge, threshold, value, level.turned)
            level.turned = None
            return Change("raised", level.alert)
        if value is not None:
            level.alert = _seen(level.alert, value)
        if value is not None and not threshold.is_well(value):
            level.turned = None
            return None
        level.turned = now if level.turned is None else level.turned
        if now < level.turned + threshold.seconds:
            return None
        alert = level.alert
        del self._levels[key]
        return Change("cleared", alert, "unknown" if value is None else "well")


def _alert(reading: Reading, gauge: str, threshold: Threshold, value: float, since: float) -> Alert:
    clear = threshold.limit if threshold.clear is None else threshold.clear
    above = threshold.above is not None
    return Alert(reading.agent_id, reading.host, gauge, value, value, threshold.limit, clear, above, since)


def _seen(alert: Alert, value: float) -> Alert:
    worst = max(alert.worst, value) if alert.above else min(alert.worst, value)
    return msgspec.structs.replace(alert, value=value, worst=worst)

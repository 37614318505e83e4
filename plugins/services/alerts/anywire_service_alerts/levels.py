"""When an alert begins and ends: levels of gauges with hysteresis, and for how long they must hold.

Pure: who looks says what the gauges are and what time it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from anywire.messages import GAUGES
from anywire_service_alerts.config import Threshold

OF_AGENTS = frozenset(("cpu_seconds", "rss_bytes", "max_rss_bytes"))
"""Gauges of `anywire.messages.GAUGES` that are of one process; the others are of its machine."""
OF_HOSTS = frozenset(GAUGES) - OF_AGENTS
MOST_NAMED = 100
"""Agents that an alert names."""


class Reading(msgspec.Struct, frozen=True):
    """What an agent has reported last. ``boot_id`` tells machines of one host name apart."""

    agent_id: str
    host: str
    gauges: Mapping[str, float]
    boot_id: str = ""


class Place(NamedTuple):
    """What a gauge is of: a machine, or one agent there (``agent_id``)."""

    host: str
    boot_id: str
    agent_id: str = ""


class Alert(msgspec.Struct, frozen=True):
    """A gauge that is critical at a place. ``agents`` have reported it, sorted; at most `MOST_NAMED` of them. ``since``
    is when it became so, in the seconds of who looks, ``value`` the newest, ``worst`` the one that was furthest beyond
    ``limit``; ``clear`` is where it is well again."""

    place: Place
    agents: tuple[str, ...]
    gauge: str
    value: float
    worst: float
    limit: float
    clear: float
    above: bool
    since: float


class Change(msgspec.Struct, frozen=True):
    """``reason`` says why an alert was cleared: its gauge is ``well``, ``unknown`` (not reported any more), or its
    agent, or the last agent of its machine, is ``gone``."""

    what: Literal["raised", "cleared"]
    alert: Alert
    reason: str = ""


class _Level(msgspec.Struct):
    """``turned`` is since when the gauge is on the other side: critical while there is no alert, well while there is
    one, not reported likewise."""

    alert: Alert | None = None
    turned: float | None = None


class _Seen(msgspec.Struct):
    """What the agents at a place say of one gauge: the value that is nearest to critical, None where nobody does."""

    value: float | None
    agents: list[str]


class Levels:
    """Keeps what gauges were. A gauge that is between its limit and where it is well again turns nothing.

    A gauge of a machine has one level however many agents report it: that of the value which is nearest to critical.
    They read it at different times, and may see different graphics cards and disks.
    """

    def __init__(self, thresholds: Mapping[str, Threshold]) -> None:
        self._thresholds = thresholds
        self._levels: dict[tuple[Place, str], _Level] = {}

    @property
    def alerts(self) -> list[Alert]:
        """Those that hold now, the oldest first."""
        found = [level.alert for level in self._levels.values() if level.alert is not None]
        return sorted(found, key=lambda alert: (alert.since, alert.place, alert.gauge))

    def look(self, readings: Iterable[Reading], now: float) -> list[Change]:
        """What has changed. ``readings`` are those of all agents there are."""
        changes: list[Change] = []
        seen = self._seen(readings)
        for (place, gauge), each in seen.items():
            change = self._step(place, gauge, each, now)
            if change is not None:
                changes.append(change)
        for key in [key for key in self._levels if key not in seen]:
            alert = self._levels.pop(key).alert
            if alert is not None:
                changes.append(Change("cleared", alert, "gone"))
        return changes

    def _seen(self, readings: Iterable[Reading]) -> dict[tuple[Place, str], _Seen]:
        found: dict[tuple[Place, str], _Seen] = {}
        for reading in readings:
            for place, gauge in self._of(reading):
                value, seen = reading.gauges.get(gauge), found.setdefault((place, gauge), _Seen(None, []))
                if value is not None:
                    seen.value = value if seen.value is None else self._worse(gauge, seen.value, value)
                    seen.agents.append(reading.agent_id)
        return found

    def _of(self, reading: Reading) -> Iterator[tuple[Place, str]]:
        """What an agent's gauges are of. One that names no host is a place of its own."""
        agent = Place(reading.host, reading.boot_id, reading.agent_id)
        host = Place(reading.host, reading.boot_id) if reading.host else agent
        for gauge in self._thresholds:
            yield (host if gauge in OF_HOSTS else agent), gauge

    def _worse(self, gauge: str, one: float, other: float) -> float:
        return max(one, other) if self._thresholds[gauge].above is not None else min(one, other)

    def _step(self, place: Place, gauge: str, seen: _Seen, now: float) -> Change | None:
        key, value, threshold = (place, gauge), seen.value, self._thresholds[gauge]
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
            level.alert = _alert(place, gauge, threshold, value, _named(seen), level.turned)
            level.turned = None
            return Change("raised", level.alert)
        if value is not None:
            worst = self._worse(gauge, level.alert.worst, value)
            level.alert = msgspec.structs.replace(level.alert, value=value, worst=worst, agents=_named(seen))
        if value is not None and not threshold.is_well(value):
            level.turned = None
            return None
        level.turned = now if level.turned is None else level.turned
        if now < level.turned + threshold.seconds:
            return None
        alert = level.alert
        del self._levels[key]
        return Change("cleared", alert, "unknown" if value is None else "well")


def _named(seen: _Seen) -> tuple[str, ...]:
    return tuple(sorted(seen.agents)[:MOST_NAMED])


def _alert(
    place: Place, gauge: str, threshold: Threshold, value: float, agents: tuple[str, ...], since: float
) -> Alert:
    clear = threshold.limit if threshold.clear is None else threshold.clear
    above = threshold.above is not None
    return Alert(place, agents, gauge, value, value, threshold.limit, clear, above, since)

"""Agents in quarantine, and when each of them is sent its next probe.

Of each quarantined agent one of these holds: it waits for the time of its next probe; a probe is under way; or one is
due that could not be sent, because the agent was gone, not ready, busy or under an operator's order. What is due is
sent as soon as the agent is ready, and tried again after a pause. Pauses double with each probe that fails, up to
`LONGEST_PAUSE`.
"""

from __future__ import annotations

from collections.abc import Callable

from anywire.clock import Clock, Timer
from anywire.failure_settings import BreakerConfig

LONGEST_PAUSE = 60.0
"""Seconds between two probes at most, unless ``breaker.quarantine_probe`` is longer."""

SendProbe = Callable[[str, tuple[str, str]], bool]
"""Send a probe to an agent, for this model and kind of task if it can take them. False when none could be sent; else
`Quarantine.ended` is told once what it came to."""


class _Stay:
    """One agent's. ``shortest`` and ``pause`` are seconds between two probes, ``last`` is when it was sent one."""

    __slots__ = ("is_due", "is_under_way", "last", "pause", "probes", "reason", "served", "shortest", "timer", "until")

    def __init__(self, reason: str, served: tuple[str, str], pause: float, now: float) -> None:
        self.reason, self.served, self.shortest, self.pause, self.last = reason, served, pause, pause, now
        self.probes, self.until = 0, now
        self.is_due = self.is_under_way = False
        self.timer: Timer | None = None


class Quarantine:
    """``send`` is called when an agent is to be sent a probe."""

    def __init__(self, clock: Clock, config: BreakerConfig, send: SendProbe) -> None:
        self._clock, self._config, self._send_probe = clock, config, send
        self._stays: dict[str, _Stay] = {}
        self._closed = False

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._stays

    def begin(self, agent_id: str, reason: str, trips: int, served: tuple[str, str]) -> None:
        """Quarantine an agent whose breaker has opened ``trips`` times, the last time for a task of the model and kind
        ``served``. One that opens again soon after it has passed a probe waits longer for the next."""
        config = self._config
        longest = max(LONGEST_PAUSE, config.quarantine_probe)
        pause = min(config.quarantine_probe * 2 ** min(trips - config.quarantine_trips, 32), longest)
        stay = self._stays[agent_id] = _Stay(reason, served, pause, self._clock.now())
        self._wait(agent_id, stay)

    def report(self, agent_id: str) -> tuple[str, int, float]:
        """Why it is quarantined, how many probes it was sent, and in how many seconds it is sent the next: 0 when one
        is due or under way. Raises `KeyError` for one that is not quarantined."""
        stay = self._stays[agent_id]
        waits = stay.timer is not None and not stay.is_due
        return stay.reason, stay.probes, max(0.0, stay.until - self._clock.now()) if waits else 0.0

    def ended(self, agent_id: str, passed: bool | None) -> bool:
        """Its probe has ended: was it passed, or None where that is not known? Returns whether the quarantine is
        over."""
        stay = self._stays.get(agent_id)
        if stay is None or not stay.is_under_way:
            return False
        stay.is_under_way = False
        if passed:
            del self._stays[agent_id]
            return True
        if passed is False:
            stay.pause = min(2 * stay.pause, max(LONGEST_PAUSE, stay.shortest))
        self._wait(agent_id, stay)
        return False

    def probe_now(self, agent_id: str) -> None:
        """Do not wait for the time of the next probe: somebody says that the agent is well. Does nothing for one that
        is not quarantined, or that is being probed."""
        stay = self._stays.get(agent_id)
        if stay is not None and not stay.is_under_way:
            stay.pause = stay.shortest
            self._send(agent_id)

    def ready(self, agent_id: str) -> None:
        """An agent has become ready: what is due is sent."""
        stay = self._stays.get(agent_id)
        if stay is not None and stay.is_due:
            self._send(agent_id)

    def came(self, agent_id: str) -> None:
        """An agent is back with a new life, so that it may be well: its next probe is due the shortest pause after the
        last one, once it is ready."""
        stay = self._stays.get(agent_id)
        if stay is None or stay.is_under_way:
            return
        _cancel(stay)
        stay.pause, stay.until = stay.shortest, min(stay.until, stay.last + stay.shortest)
        stay.is_due = stay.until <= self._clock.now()
        if not stay.is_due:
            self._set_timer(agent_id, stay)

    def gone(self, agent_id: str) -> None:
        """An agent is gone: no probe is sent until it is back."""
        stay = self._stays.get(agent_id)
        if stay is not None:
            _cancel(stay)

    def forget(self, agent_id: str) -> None:
        """End a quarantine without a probe: the agent is gone and is not remembered any more."""
        self.gone(agent_id)
        self._stays.pop(agent_id, None)

    def close(self) -> None:
        """Send no probe any more."""
        self._closed = True
        for stay in self._stays.values():
            _cancel(stay)

    def _send(self, agent_id: str) -> None:
        stay = self._stays[agent_id]
        _cancel(stay)
        # Before the call and not after it: the probe may have ended when it returns.
        before, stay.last = stay.last, self._clock.now()
        stay.is_due, stay.is_under_way = False, True
        stay.probes += 1
        if not self._send_probe(agent_id, stay.served):
            stay.probes -= 1
            stay.last = before
            stay.is_due, stay.is_under_way = True, False
            self._wait(agent_id, stay)

    def _wait(self, agent_id: str, stay: _Stay) -> None:
        _cancel(stay)
        stay.until = self._clock.now() + stay.pause
        self._set_timer(agent_id, stay)

    def _set_timer(self, agent_id: str, stay: _Stay) -> None:
        if not self._closed:
            stay.timer = self._clock.call_later(stay.until - self._clock.now(), self._send, agent_id)


def _cancel(stay: _Stay) -> None:
    if stay.timer is not None:
        stay.timer.cancel()
        stay.timer = None

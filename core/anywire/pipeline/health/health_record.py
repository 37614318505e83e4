"""What is kept of one agent, link or model that has failed."""

from __future__ import annotations

from collections import Counter

from anywire.agent_health import AgentHealth, counted
from anywire.clock import Timer
from anywire.pipeline.health.breaker import Breaker

MAX_SAID = 300
"""Characters kept of the message of a subject's last failure."""


class HealthRecord:
    """``evidence`` counts failures by code since it was well, ``lost_epoch`` is the epoch after the loss that was
    counted last, ``served`` the model and kind of the task that failed last, ``said`` its error's message,
    ``trips_below`` how many openings of ``breaker`` are due to failures below it. ``timer`` ends the rest."""

    __slots__ = ("breaker", "evidence", "lost_epoch", "said", "served", "timer", "trips_below")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.evidence: Counter[str] = Counter()
        self.lost_epoch = self.trips_below = 0
        self.served, self.said = ("", ""), ""
        self.timer: Timer | None = None

    @property
    def cause(self) -> str:
        """The code that its failures had most often since it was well, empty when there were none."""
        return self.evidence.most_common(1)[0][0] if self.evidence else ""

    @property
    def trips_told(self) -> str:
        """How often its breaker has opened, and on what, for a person."""
        times = "once" if self.breaker.trips == 1 else f"{self.breaker.trips} times"
        return f"its breaker has opened {times} ({counted(self.evidence)})"

    def report(self, now: float) -> AgentHealth:
        """How it does by its breaker alone."""
        breaker = self.breaker
        reason = "" if breaker.state == "closed" else counted(self.evidence)
        retry_in = max(0.0, breaker.until - now) if breaker.state == "open" else 0.0
        return AgentHealth(breaker.state, "", reason, dict(self.evidence), breaker.trips, 0, retry_in)

    def add_failure(self, code: str, served: tuple[str, str], said: str) -> None:
        """Keep what a failure that counted was."""
        self.evidence[code] += 1
        self.served, self.said = served, said[:MAX_SAID]

    def clear_failures(self) -> None:
        """It is well again."""
        self.evidence.clear()
        self.said = ""

    def count_trip(self, is_from_below: bool) -> int:
        """Its breaker has opened. Returns how often it has for failures of its own, 0 when this time was not for
        one."""
        if self.breaker.trips == 1:
            self.trips_below = 0  # the earlier ones are forgotten
        self.trips_below += is_from_below
        return 0 if is_from_below else self.breaker.trips - self.trips_below

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

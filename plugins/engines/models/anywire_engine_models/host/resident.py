"""What is known of one model: its state, its process, who waits for it, and whether it may make room."""

from __future__ import annotations

from collections import deque
from typing import Literal

from anywire_engine_models.host.effects import Ticket
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Exit
from anywire_engine_models.host.status import ModelState, ModelStatus

FIRST_DELAY, LAST_DELAY = 0.1, 10.0
"""Seconds before a restart; doubled with each failure in a row."""
LONG_LIFE = 30.0
"""Seconds; a failure after that long begins the count of failures anew."""
GIVEN_UP = 300.0
"""Seconds without a start by a request, once a model has failed too often in a row."""

Keep = Literal["", "autostart", "restart"]
"""Why a model is started though nobody waits for it."""


class Resident:
    """Times are of the clock of the host, in seconds."""

    def __init__(self, model: HostedModel, since: float) -> None:
        self.model = model
        """As it is configured now."""
        self.pinned = model.pinned
        self.removed = False
        """It is no longer configured, and goes when it serves nobody any more."""
        # The state, as it is shown
        self.state: ModelState = "stopped"
        self.reason = ""
        self.since = since
        """Of the state, in seconds since 1970."""
        self.exit: Exit | None = None
        self.starts = self.evictions = self.failures = 0
        """``failures`` are those in a row."""
        # The process
        self.live: HostedModel | None = None
        """As it was configured when its process was started; None once nothing of the process is left."""
        self.hangs = False
        """Its process does not end: it keeps its memory, and nobody waits for it any more."""
        self.pid = 0
        self.address = self.device = self.device_reason = ""
        self.progress = self.load_seconds = 0.0
        self.began_at = self.running_since = self.used_at = 0.0
        # Callers
        self.serving: set[Ticket] = set()
        self.queue: deque[Ticket] = deque()
        self.starters: list[Ticket] = []
        self.stoppers: list[Ticket] = []
        self.untold: list[Ticket] = []
        """Those of the queue who were told nothing yet."""
        self.told = ""
        # What it wants, and what it has
        self.wanted_since: float | None = None
        """Since when it is to be started; None while it is not, or is started already."""
        self.not_before = 0.0
        """When it may be started again after a failure."""
        self.keep: Keep = ""
        self.evicts_since: float | None = None
        """When others began to make room for it. It is started then, whoever leaves."""
        self.swapped = False
        """Others have made room for its process."""
        self.turn_until = self.work_until = 0.0
        """Until when it stays: ``work_until`` counts while it has requests."""
        self.owes = False
        """It was loaded for requests and has served none of them yet."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def is_leaving(self) -> bool:
        """Its process is on its way out."""
        return self.live is not None and self.state not in ("starting", "running")

    @property
    def is_at_rest(self) -> bool:
        """It has no process, and nobody wants one of it."""
        return self.live is None and self.wanted_since is None and not (self.is_awaited or self.stoppers)

    @property
    def is_awaited(self) -> bool:
        return bool(self.queue or self.starters)

    @property
    def is_background(self) -> bool:
        """Nobody waits for it: it takes memory that is free, and makes nobody leave."""
        kept_on = self.keep == "restart" and not self.model.on_demand
        return not (self.is_awaited or self.evicts_since is not None or kept_on)

    def claims(self, now: float) -> bool:
        """Whether it is to be started as soon as there is room."""
        return self.wanted_since is not None and self.not_before <= now

    def want(self, now: float) -> None:
        if self.wanted_since is None:
            self.wanted_since = now

    def want_nothing(self) -> None:
        self.wanted_since = self.evicts_since = None
        self.keep = ""

    def may_leave(self, now: float) -> bool:
        """Whether it may be stopped for another model once it serves nobody."""
        if self.state != "running" or self.pinned or self.owes:
            return False
        if self.serving or self.queue:
            return now >= self.work_until
        return now >= self.turn_until or not self.swapped

    def idle_until(self) -> float | None:
        """When it is stopped because nobody uses it; None for never."""
        live = self.live
        if live is None or self.state != "running" or self.serving or self.queue or self.pinned:
            return None
        return self.used_at + live.idle_ttl if self.model.on_demand and live.idle_ttl > 0 else None

    def delay(self) -> float:
        """Seconds until the next start after the newest failure."""
        if self.failures > self.model.max_restarts:
            return GIVEN_UP
        return float(min(FIRST_DELAY * 2.0 ** min(self.failures - 1, 30), LAST_DELAY))

    def forget_process(self) -> None:
        self.pid, self.address, self.device, self.progress = 0, "", "", 0.0
        self.serving.clear()
        self.owes = self.swapped = False

    def status(self) -> ModelStatus:
        return ModelStatus(
            model=self.name,
            state=self.state,
            reason=self.reason,
            exit=self.exit,
            pid=self.pid,
            address=self.address,
            device=self.device,
            device_reason=self.device_reason,
            progress=self.progress,
            serving=len(self.serving),
            waiting=len(self.queue) + len(self.starters),
            pinned=self.pinned,
            on_demand=self.model.on_demand,
            group=(self.live or self.model).group,
            memory_bytes=(self.live or self.model).memory_bytes,
            starts=self.starts,
            evictions=self.evictions,
            load_seconds=self.load_seconds,
            since=self.since,
        )

"""Which attempts are open at which agents, what can be told of one to its agent, and how one is closed."""

from __future__ import annotations

import logging

from anywire.boundary import Boundary
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.messages import Cancel, Credit
from anywire.pipeline.attempts.wasted_work import WastedWork
from anywire.pipeline.fleet.ends import Ends
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.tasks.task import Attempt
from anywire.scheduler import Outcome
from anywire.transport import Hub

log = logging.getLogger(__name__)

MAX_REASON = 1024
"""Characters of the reason of a cancel."""


class OpenAttempts:
    """The attempts that have not ended at their agents, cancelled ones included."""

    def __init__(self, hub_id: str, hubs: Ends[Hub], registry: Registry, boundary: Boundary, clock: Clock) -> None:
        self._hub_id, self._hubs, self._registry = hub_id, hubs, registry
        self._boundary, self._clock = boundary, clock
        self.by_key: dict[tuple[str, int], Attempt] = {}
        """By task and number."""
        self._on_link: dict[tuple[str, int], dict[Attempt, None]] = {}
        """By agent and link."""
        self.wasted = WastedWork()

    def add(self, attempt: Attempt) -> None:
        """An attempt is about to be sent."""
        self.by_key[attempt.key] = attempt
        on_link = self._on_link.get(attempt.place)
        if on_link is None:
            on_link = self._on_link[attempt.place] = {}
        attempt.on_link = on_link
        on_link[attempt] = None

    def on_link(self, agent_id: str, link: int, incarnation: int) -> list[Attempt]:
        """Those of one life of an agent over one link."""
        found = self._on_link.get((agent_id, link), {})
        return [attempt for attempt in found if attempt.incarnation == incarnation]

    def link_ended(self, agent_id: str, link: int) -> None:
        """A link is over, and so are the attempts on it."""
        if not self._on_link.get((agent_id, link), True):
            del self._on_link[agent_id, link]

    def of_agent(self, agent_id: str) -> list[Attempt]:
        """Those of an agent, over all its links."""
        return [attempt for attempt in self.by_key.values() if attempt.agent_id == agent_id]

    def cancel(self, attempt: Attempt, reason: str) -> None:
        """Ask its agent to stop. The attempt leaves its task; its slot stays taken until the agent has ended it."""
        if attempt.cancelled or attempt.state == "ended":
            return
        attempt.cancelled = True
        self._leave_task(attempt)
        self.tell(attempt, Cancel(self._hub_id, attempt.task.task_id, attempt.number, reason[:MAX_REASON]))

    def finish(self, attempt: Attempt, code: str | None) -> Outcome | None:
        """The one place where an attempt ends: its slot is free. ``code`` is the error's, empty for an answer, None
        when nothing was sent. Runs no plugin: the outcome is the caller's to pass on."""
        self.by_key.pop(attempt.key, None)
        attempt.on_link.pop(attempt, None)
        self._leave_task(attempt)
        attempt.state = "ended"
        if attempt.kept_back or attempt.used > 1:
            attempt.settle(self._clock.now_ns())
        outcome: Outcome | None = None
        if code is not None:
            now = self._clock.now_ns()
            outcome = attempt.outcome(code, now)
            if attempt.in_vain:
                self.wasted.add(attempt, now)
        self._registry.release(attempt.agent)
        return outcome

    def tell(self, attempt: Attempt, message: Cancel | Credit) -> None:
        """Send a message about an attempt to its agent, over its link. See `tell_over`."""
        self.tell_over(self._hubs.ends[attempt.link], attempt.agent_id, message)

    def tell_over(self, hub: Hub | None, agent_id: str, message: Cancel | Credit) -> None:
        """Send a message to an agent over ``hub``, if that is open. A message that cannot be sent is logged and
        dropped: the attempt ends when its link is lost."""
        try:
            if hub is not None:
                hub.send(agent_id, message)
        except AnywireError as error:
            log.debug("%s not sent: %s", message, error)
        except Exception as error:
            self._boundary.failed("transport", "send", error, message.task_id)

    def _leave_task(self, attempt: Attempt) -> None:
        task = attempt.task
        task.attempts.pop(attempt.number, None)
        if task.leader is attempt:
            task.leader = next(iter(task.attempts.values())) if task.attempts else None
            if task.leader is not None:
                task.agent_id = task.leader.agent_id

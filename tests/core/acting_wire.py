"""A puppet transport whose agents act by themselves: each ends a task after a short simulated time as its mood says."""

from __future__ import annotations

import random

from anywire import errors
from anywire.errors import AnywireError
from anywire.messages import Cancel, TaskRequest, ToAgent
from anywire.testing.clock import SimulatedClock
from anywire.testing.puppet import PuppetTransport

HARMLESS: tuple[AnywireError, ...] = (
    errors.InvalidRequest("bad"),
    errors.EngineFailed("not found", status=404),
    errors.EngineFailed("too many", status=429),
    errors.Refused("busy"),
    errors.TaskCancelled("by its operator"),
)
"""Ends that are not the agent's fault."""


class ActingWire(PuppetTransport):
    """``moods`` says how an agent does, by its id: the share of its tasks that fail (0.0 where it is not named),
    ``harmless`` for refusals and faults of the request, ``hangs``, or ``deaf`` to cancels too."""

    def __init__(self, clock: SimulatedClock, rng: random.Random, name: str = "puppet") -> None:
        super().__init__(name)
        self._acting_clock, self._rng = clock, rng
        self.moods: dict[str, float | str] = {}
        self.lives: dict[str, int] = {}
        """The incarnation of each agent that is there."""
        self._slots: dict[str, int] = {}
        self._joined = 0

    def appear(self, agent_id: str, slots: int = 4) -> None:
        """Join with a new life."""
        self._joined += 1
        self.lives[agent_id], self._slots[agent_id] = self._joined, slots
        self.join(agent_id, incarnation=self._joined, slots=slots)

    def vanish(self, agent_id: str) -> None:
        """Leave, if it is there."""
        life = self.lives.pop(agent_id, 0)
        if life:
            self.lose(agent_id, incarnation=life)

    def send(self, agent_id: str, message: ToAgent) -> None:
        super().send(agent_id, message)
        life = self.lives.get(agent_id, 0)
        if isinstance(message, TaskRequest):
            self._acting_clock.call_later(self._rng.uniform(0.01, 0.1), self._act, agent_id, life, message)
        elif isinstance(message, Cancel) and self.moods.get(agent_id) != "deaf":
            for _, request in reversed(self.requests):
                if (request.task_id, request.attempt) == (message.task_id, message.attempt):
                    self._acting_clock.call_later(0.01, self._stop, agent_id, life, request)
                    break

    def _act(self, agent_id: str, life: int, request: TaskRequest) -> None:
        mood = self.moods.get(agent_id, 0.0)
        if self.lives.get(agent_id) != life or mood == "deaf":
            return
        if mood == "hangs":
            self.accept(request)
            return
        error: AnywireError | None = None
        if mood == "harmless":
            error = self._rng.choice(HARMLESS)
        elif isinstance(mood, float) and self._rng.random() < mood:
            error = errors.EngineFailed("HTTP 500")
        if error is None:
            self.answer(request)
        else:
            self.chunk(request, 0, final=True, error=errors.to_wire(error))
            if isinstance(error, errors.Refused):
                self.report(agent_id, incarnation=life, slots=self._slots[agent_id])

    def _stop(self, agent_id: str, life: int, request: TaskRequest) -> None:
        if self.lives.get(agent_id) == life:
            self.stop(request)

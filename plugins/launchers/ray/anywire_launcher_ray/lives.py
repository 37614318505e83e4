"""How often an agent was started again, counted over the lives of its actors."""

from __future__ import annotations


class Lives:
    """An agent is started again within a life of its actor, and with each further life of one."""

    def __init__(self) -> None:
        self._life = ""
        self._before = 0
        self._within = 0

    @property
    def restarts(self) -> int:
        return self._before + self._within

    def see(self, life: str, restarts: int = 0) -> None:
        """The agent is in ``life`` of its actor, and was started again so often within it."""
        if life != self._life:
            self._before = self.restarts + 1 if self._life else 0
            self._life, self._within = life, 0
        self._within = max(self._within, restarts)

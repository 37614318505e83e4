"""One choice of an agent as it is kept with its task."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from anywire.decision import Considered, Decision, LeftOut


class Noted(msgspec.Struct, frozen=True, gc=False):
    """A `Decision` as it is kept: made of tuples and texts alone, so that however many are kept, the garbage collector
    visits none."""

    now_ns: int
    took_ns: int
    model: str
    agent_id: str
    candidates: int
    considered: tuple[tuple[str, int, int], ...]
    left_out: tuple[LeftOut, ...]
    scores: Mapping[str, float]
    reason: str
    repeated: int = 1

    def repeats(self, other: Noted) -> bool:
        """Whether nothing was new since ``other`` but the time."""
        return self._said() == other._said()

    def _said(self) -> tuple[object, ...]:
        return self.model, self.agent_id, self.candidates, self.considered, self.left_out, self.scores, self.reason

    def decision(self, selector: str, received_ns: int) -> Decision:
        """``selector`` is the name of the one in use."""
        return Decision(
            self.model,
            self.agent_id,
            selector,
            self.candidates,
            tuple([Considered(*each) for each in self.considered]),
            self.left_out,
            dict(self.scores),
            self.reason,
            (self.now_ns - received_ns) / 1e6,
            self.took_ns / 1e3,
            self.repeated,
        )

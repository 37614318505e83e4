"""What second attempts cost: the work of attempts that were not shown although they may have gone well."""

from __future__ import annotations

from anywire.pipeline.fleet.claims import MAX_COUNT
from anywire.pipeline.observation.observation import token_counts
from anywire.pipeline.tasks.task import Attempt


class WastedWork:
    """Of attempts that were overtaken by another one of their task, and of hedges that brought nothing. ``seconds``
    from sending until they had ended at their agents; ``tokens`` as their last chunks say, which are 0 where none was
    made before they were stopped."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens = 0

    def add(self, attempt: Attempt, now_ns: int) -> None:
        """It has ended at its agent."""
        self.seconds += (now_ns - attempt.sent_ns) / 1e9
        _, tokens = token_counts(attempt.usage)
        self.tokens += min(tokens or max(0, attempt.next_seq), MAX_COUNT)

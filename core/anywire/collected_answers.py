"""Answers of agents elsewhere, counted by the task that they answer: what a service that hears them offers to gateways.

Such agents belong to other orchestrators and publish what they answer. Whoever asked them may ask here how a task
stands, as with a deliberation of this orchestrator's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from anywire.caller import Caller

SERVICE = "nats"
"""The service that offers `Collects`."""

CollectedStatus = Literal["collecting", "completed", "failed", "timed_out"]


class CollectedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one agent has answered, or why it has not (``error``, of the kind ``error_type``). ``proposal`` is JSON as
    it was published, ``at`` the Unix time in seconds of that."""

    agent_id: str
    role: str = ""
    proposal: Any = None
    error: str = ""
    error_type: str = ""
    duration_ms: int = 0
    at: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.error)

    @property
    def text(self) -> str:
        """What its proposal says: the content where it is an object that has one."""
        if self.proposal is None or isinstance(self.proposal, str):
            return self.proposal or ""
        content = self.proposal.get("content") if isinstance(self.proposal, Mapping) else None
        return content if isinstance(content, str) else msgspec.json.encode(self.proposal).decode()


class CollectedTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task with an answer or a failure of each agent that was heard, in the order in which they came. ``wanted`` is
    how many there are to be, 0 while no answer has said so. Times are Unix times in seconds: of the first answer, of
    the latest end, and of the end, 0 before it. ``reason`` says why it has no complete answer."""

    task_id: str
    began: float
    deadline: float
    status: CollectedStatus = "collecting"
    wanted: int = 0
    story_id: str = ""
    answers: tuple[CollectedAnswer, ...] = ()
    ended: float = 0.0
    reason: str = ""

    @property
    def is_final(self) -> bool:
        return self.status != "collecting"

    @property
    def role(self) -> str:
        """That of the first answer that names one."""
        return next((each.role for each in self.answers if each.role), "")

    @property
    def completed(self) -> tuple[CollectedAnswer, ...]:
        return tuple(each for each in self.answers if not each.failed)


class CollectedTasks(Protocol):
    """All calls are made on the event loop. They raise `anywire.errors.PluginFailed` when nothing can be read."""

    async def get(self, task_id: str, caller: Caller) -> CollectedTask | None:
        """None for one that nobody has answered, that is kept no more, and that ``caller`` may not see."""
        ...

    async def list(self, caller: Caller, limit: int = 100) -> Sequence[CollectedTask]:
        """The newest first, without the texts of their answers."""
        ...


class Collects(Protocol):
    """What the service `SERVICE` offers (`anywire.context.Services.get`)."""

    @property
    def collected(self) -> CollectedTasks | None:
        """None where nothing is collected."""
        ...

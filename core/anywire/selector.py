"""The contract of a selector: which of the agents that could take a task gets it.

A selector does no I/O and is deterministic given its seed and the calls made to it. The pipeline calls it from
the event loop, once per attempt; ten microseconds spent there are ten microseconds on every task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.messages import AgentInfo, AgentStatus
from anywire.scheduler import QueuedTask

FAILED_LATENCY_MS = 10_000.0
"""What an attempt that failed before its first token counts as in `AgentView.latency_ema_ms`."""


class AgentView(msgspec.Struct, eq=False):
    """One agent as the registry keeps it up to date; selectors read it and never change it.

    ``ordinal`` numbers the agents in the order they first joined: a stable place in any rotation. ``in_flight``
    counts the attempts this orchestrator has on it, cancelled ones that have not ended included (``status.active``
    counts all hubs' but is as old as the last report). ``transport`` is the one a task sent now would use.
    ``completed`` and ``failed`` count attempts that ended: ``failed`` those that the agent or its link failed at,
    ``completed`` all others that were begun (an answer, a cancel, a request at fault). ``latency_ema_ms`` is the
    smoothed time from sent to the first token as seen here, 0.0 before the first attempt has ended; of an answer that
    comes whole, the time that generating it took is taken off, and a failed attempt without a token counts as
    `FAILED_LATENCY_MS`. ``unavailable`` holds the causes for which it can take no task now, beside its state and its
    slots: ``refused`` (it had no room) and ``unreachable`` (nothing could be sent to it), both until it reports a free
    slot, and ``congested`` (its link has no room).
    """

    info: AgentInfo
    status: AgentStatus
    ordinal: int
    transport: str = ""
    in_flight: int = 0
    completed: int = 0
    failed: int = 0
    latency_ema_ms: float = 0.0
    unavailable: set[str] = msgspec.field(default_factory=set)

    @property
    def agent_id(self) -> str:
        return self.info.agent_id

    @property
    def free_slots(self) -> int:
        return self.status.slots - self.in_flight


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt ended. ``error`` is the code, empty for an answer. Times are milliseconds since sent;
    ``first_ms`` is 0 when nothing came."""

    task_id: str
    agent_id: str
    error: str
    first_ms: float
    total_ms: float
    chunks: int


class SelectorConfig(pydantic.BaseModel):
    """What every selector has; a plugin's ``Config`` extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    seed: int = pydantic.Field(default=0, description="of whatever randomness the strategy uses")


class Selector(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[SelectorConfig]] = SelectorConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def select(self, task: QueuedTask, candidates: Sequence[AgentView]) -> AgentView | None:
        """Choose one of ``candidates`` (never empty, each with a free slot, ordered by ``ordinal``), or None to hold
        the task: it is offered again when an agent joins, leaves, gets a free slot or changes its state, and otherwise
        once a second. When it raises, or returns anything else, the least loaded candidate gets the task."""

    def observed(self, outcome: Outcome) -> None:  # noqa: B027 - optional for a plugin
        """Called with every attempt's end, after its reader has it, for strategies that learn. What was never sent (the
        link had no room) is no attempt."""

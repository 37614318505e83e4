"""The contract of a scheduler: in which order waiting tasks are sent.

A scheduler is a queue with sub-queues by what tasks need. It is pure: no I/O, no clock, no tasks of its own; the
pipeline calls it from the event loop and bounds what waits. ``take`` is told which needs have a free agent now, so a
busy model never blocks the others and is never scanned, and what time it is, for ageing and fairness.

What a scheduler raises, or returns against this contract, ends the task concerned with `PluginFailed`, and no other
one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import msgspec
import pydantic

from anywire.caller import ANYBODY, Caller
from anywire.offers import NAMED_NEED
from anywire.submission import NO_HINTS, Hints


class QueueKey(NamedTuple):
    """What a task needs of an agent: a model, a kind of task, and features, sorted (``tools``, ``vision`` …). An offer
    that says no to one of them is no candidate; one that says nothing is, but for ``mcp:LABEL``, a server of tools."""

    model: str
    kind: str
    needs: tuple[str, ...] = ()

    @property
    def uses_servers(self) -> bool:
        """Whether the task names servers of tools, which its agent calls for it."""
        return bool(self.needs) and any(need.startswith(NAMED_NEED) for need in self.needs)


class QueuedTask(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a strategy may know of a task.

    ``keys`` are what would do, in order of preference: several when the request names several models. ``received_ns``
    is monotonic; ``deadline_ns`` 0 means none. ``prompt_chars`` is the size of the request body, ``max_tokens`` the
    longest answer asked for, 0 when the request names none. ``attempt`` above 1 means that an earlier one was lost or
    refused. ``session`` names a conversation, ``parent`` the task that made this one. Of agents to ``prefer`` and to
    ``avoid`` the latter are left out by the core while others could take the task. ``prefix`` identifies the beginning
    of the prompt: chained hashes of its blocks, so that prompts which begin alike have the same first ones; empty
    unless the strategy `wants_prefix`. The text itself no strategy sees.
    """

    task_id: str
    keys: tuple[QueueKey, ...]
    priority: int = 0
    received_ns: int = 0
    deadline_ns: int = 0
    prompt_chars: int = 0
    attempt: int = 1
    max_tokens: int = 0
    caller: Caller = ANYBODY
    session: str = ""
    parent: str = ""
    policy: str = ""
    hints: Hints = NO_HINTS
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    prefix: tuple[int, ...] = ()

    @property
    def key(self) -> QueueKey:
        """What it would like best."""
        return self.keys[0]


Ready = Callable[[tuple[QueueKey, ...]], bool]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one attempt ended. ``error`` is the code, empty for an answer. Times are milliseconds since sent;
    ``first_ms`` is 0 when nothing came. ``prompt_tokens`` and ``tokens`` are the engine's count; where it gave none,
    ``tokens`` counts the deltas. ``agent_failed``: the agent or its link failed at it, which a cancel, a refusal or a
    request at fault is not."""

    task_id: str
    agent_id: str
    error: str
    first_ms: float
    total_ms: float
    chunks: int
    prompt_tokens: int = 0
    tokens: int = 0
    tenant: str = ""
    session: str = ""
    agent_failed: bool = False


class SchedulerConfig(pydantic.BaseModel):
    """What every scheduler has; a plugin's ``Config`` extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    max_queue_size: int = pydantic.Field(
        default=1024, ge=1, description="Tasks that may wait, held ones included; further ones are refused (429)."
    )


class Scheduler(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[SchedulerConfig]] = SchedulerConfig
    wants_prefix: ClassVar[bool] = False
    """Whether `QueuedTask.prefix` is to be computed for it."""
    uses_priority: ClassVar[bool] = False
    """Whether `QueuedTask.priority` changes its order. Where it does not, a client that sends one is told."""
    lets_pass: ClassVar[bool] = False
    """Whether a task that comes while none waits, and for which an agent is free, may be sent without being put and
    taken: `take` would give it at once, and nothing would be remembered of it. Each class says it for itself: what
    extends one that does has to say it again."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config

    @abstractmethod
    def put(self, task: QueuedTask) -> None:
        """Queue a new task. The pipeline has made sure that there is room."""

    @abstractmethod
    def put_back(self, task: QueuedTask) -> None:
        """Queue a task taken before (its attempt was lost, its agent refused, the selector let it wait). Always
        accepted; its place is where it was: before everything of its rank that was received later."""

    @abstractmethod
    def take(self, ready: Ready, now_ns: int) -> QueuedTask | None:
        """Remove and return the next task, in this scheduler's order, among those for whose ``keys`` ``ready`` is true.
        ``ready`` is asked at most once for the same keys and call; ``now_ns`` is monotonic."""

    @abstractmethod
    def remove(self, task_id: str) -> bool:
        """Forget a waiting task (cancelled, out of time); False when it is not waiting."""

    @abstractmethod
    def __len__(self) -> int: ...

    def limit(self, task: QueuedTask) -> int:
        """How many tasks may wait for ``task``, a new one, to be let in, held ones included: fewer than
        ``max_queue_size`` where room is kept back for others. More than that counts as that."""
        return self.config.max_queue_size

    def displace(self, task: QueuedTask) -> str | None:
        """Everything is full, as `limit` has it: the id of a task waiting here that is to end (429) so that ``task``
        can be put, or None to refuse ``task``. The pipeline removes it."""
        return None

    def observed(self, outcome: Outcome) -> None:  # noqa: B027 - optional for a plugin
        """Called with every attempt's end, after its reader has it, for fairness by what was served."""

"""What a gateway and a service are given of an orchestrator, and nothing beyond."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from anywire.access import Access
from anywire.agent_health import AgentHealth, Order
from anywire.caller import OPERATOR, Caller
from anywire.clock import Clock
from anywire.decision import Decision
from anywire.event_bus import EventBus
from anywire.messages import Chunk, HubInfo
from anywire.metric import Metric
from anywire.offers import Offer
from anywire.route import Routes
from anywire.selector import AgentView
from anywire.stages import Stages
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.tracing import Tracing
from anywire.transport import Transport


class TaskView(msgspec.Struct, frozen=True, gc=False):
    """A task that has not ended. ``place`` is ``queued``, ``held`` (``why`` says for what) or ``running``; ``age_ms``
    the time since it was taken in; ``agent_id`` the one that has it, empty while none has; ``attempt`` the number of
    the attempt that is shown; ``chunks`` what has come."""

    task_id: str
    kind: str
    model: str
    place: str
    why: str
    age_ms: float
    agent_id: str
    transport: str
    attempt: int
    chunks: int
    priority: int
    session: str
    parent: str
    caller: Caller


class TaskRecord(msgspec.Struct, frozen=True):
    """A task and how its agents were chosen, oldest first. Once it has ended, ``view.place`` is ``ended`` and
    ``view.age_ms`` the time that it took; ``error`` and ``message`` say how it ended, both empty for an answer.
    ``stages`` are the times that it has reached."""

    view: TaskView
    decisions: tuple[Decision, ...]
    error: str = ""
    message: str = ""
    stages: Stages = msgspec.field(default_factory=Stages)


class Services(Protocol):
    """The services that run beside this orchestrator."""

    def get(self, name: str) -> Any:
        """What the service of that name offers (`anywire.service.Service.offered`), None when it does not run. Its
        package has a Protocol for it."""
        ...

    def metrics(self) -> Sequence[tuple[str, Metric]]:
        """What services and gateways tell to whoever measures (`anywire.service.Service.metrics`), each with its
        plugin's name."""
        ...


class Context(Protocol):
    """One orchestrator as its gateways and services see it. All of it is used on the event loop."""

    @property
    def info(self) -> HubInfo:
        """Who the orchestrator is to its agents."""
        ...

    @property
    def clock(self) -> Clock: ...

    @property
    def events(self) -> EventBus: ...

    @property
    def tracing(self) -> Tracing:
        """Where a service brings a tracer, and where a gateway begins the span of a request."""
        ...

    @property
    def access(self) -> Access:
        """Who a client is: a gateway asks it for every request."""
        ...

    @property
    def services(self) -> Services: ...

    @property
    def routes(self) -> Routes:
        """A service adds what it serves over HTTP, a gateway serves it."""
        ...

    @property
    def transports(self) -> Sequence[Transport]:
        """In order of preference; for what they offer beside the contract."""
        ...

    @property
    def state_folder(self) -> Path:
        """A folder of its own for what must survive a restart; made when it is first asked for."""
        ...

    @property
    def closing(self) -> bool:
        """Whether nothing is taken in any more."""
        ...

    # Tasks

    def submit(self, submission: Submission, task_id: str = "", attempts: int = 0) -> TaskStream:
        """Take a task in. Its id is a new one that nobody can guess, or the ``task_id`` of one that was taken in
        before, by an earlier process or by this one, which has sent it ``attempts`` times. Raises `QueueFull`,
        `DeadlineTooShort`, `NoAgent`, `ModelNotFound`, `ModelStopped`, `InvalidRequest` (for a ``task_id`` that has not
        ended too), `PayloadTooLarge`, `ShuttingDown`, `PluginFailed`, `Forbidden` for a model or a priority that the
        caller may not have, and `LimitReached`. With ``submission.parent`` the id of a task that runs here, cancelling
        that one cancels this one too. What a service submits so is its parent's: it counts neither as a request of its
        caller nor as a task at once, and its tokens are those of the parent's caller."""
        ...

    def cancel(self, task_id: str, reason: str = "cancelled", caller: Caller = OPERATOR) -> bool:
        """End a task with `TaskCancelled`, through to its engine; False when there is no such task (any more) that
        ``caller`` may end."""
        ...

    def tasks(self, caller: Caller = OPERATOR) -> list[TaskView]:
        """Those that have not ended and that ``caller`` sees, oldest first."""
        ...

    def explain(self, task_id: str, caller: Caller = OPERATOR) -> TaskRecord | None:
        """A task that ``caller`` may see, and how its agents were chosen. Ended ones are kept too, the newest
        ``pipeline.explained_tasks`` of them; None for one that is not kept, or that is another tenant's."""
        ...

    def follow(self, task_id: str, caller: Caller = OPERATOR) -> AsyncGenerator[Chunk, None]:
        """The chunks of a task as its reader gets them, from now on, to its end; close it. A follower that is slow
        misses chunks and holds nobody up. Where the reader gets an error, the follower gets it too. Raises
        `InvalidRequest` when there is no such task that ``caller`` may follow, and `QueueFull` when too many follow it
        already."""
        ...

    def note(self, task_id: str, name: str, value: str) -> None:
        """Say something of a task that has not ended, which its answer tells: over HTTP as header
        ``x-anywire-NAME``. What is said before the first chunk is in the head of the answer. A later note of the same
        name takes the place of the earlier one. Other orchestrators are not told. Nothing happens when there is no such
        task. Raises ValueError for a name that is not at most 32 small letters, digits and hyphens, for a value that is
        not at most 256 printable characters, and for more than 8 names."""
        ...

    # The fleet

    def agents(self) -> list[AgentView]: ...
    def agent_health(self, agent_id: str) -> AgentHealth:
        """How an agent does: its breaker, and what is ordered of it. One that is not known is well."""
        ...

    def order_agent(self, agent_id: str, order: Order, reason: str = "", caller: Caller = OPERATOR) -> AgentHealth:
        """Order that an agent gets no further task (``drained``), or none and loses what runs on it, which goes on
        elsewhere where it can (``isolated``); empty ends what was ordered, and sends a quarantined agent its probe at
        once. It holds over all lives of the agent, and ends with the orchestrator. Raises `Forbidden` for a caller
        that does not operate, `InvalidRequest` where no such agent is known."""
        ...

    def models(self, caller: Caller = OPERATOR) -> list[str]:
        """Those that ``caller`` may use."""
        ...

    def offers(self, caller: Caller = OPERATOR) -> Mapping[str, Sequence[tuple[str, Offer]]]:
        """By model that ``caller`` may use: the agents that have it, by id, with their offers."""
        ...

    def command(
        self,
        target: Sequence[str],
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline: float = 60.0,
        caller: Caller = OPERATOR,
    ) -> AsyncGenerator[Any, None]:
        """Send a command to an agent; its results as they come, to be closed. ``target`` are the ids from an agent here
        down a tree. ``deadline`` is in seconds, 0 means none. Raises `Forbidden` when ``caller`` may not,
        `AgentUnavailable` when there is no such agent, `UnknownCommand`, `AgentLost` when the link goes meanwhile: it
        may have been done then, and is not repeated; `DeadlineExceeded`; and what the engine raised."""
        ...

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever an agent came, went, or changed state, offers or slots; returns what ends that."""
        ...

    def expect_models(self, models: Collection[str]) -> None:
        """Say which models this service has agents serve, in place of those that it said before. While nobody serves
        one of them its tasks wait until their deadline, also where it is stopped everywhere or was never served.
        Leave a model out when it cannot be served: what waits for it fails then."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON types."""
        ...

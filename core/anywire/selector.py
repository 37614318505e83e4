"""The contract of a selector: which of the agents that could take a task gets it.

A selector does no I/O and is deterministic given its seed and the calls made to it. The pipeline calls it from
the event loop, once per attempt; ten microseconds spent there are ten microseconds on every task.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec
import pydantic

from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import Offer
from anywire.scheduler import Outcome, QueuedTask

MAX_REASON_CHARS = 500
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
    slot, and ``congested`` (its link has no room). ``last_sent``
    is the number of the newest attempt sent to it, counted over all agents, 0 before the first. ``offers`` is what it
    offers, by model.
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
    last_sent: int = 0
    offers: Mapping[str, Offer] = {}

    @property
    def agent_id(self) -> str:
        return self.info.agent_id

    @property
    def free_slots(self) -> int:
        return self.status.slots - self.in_flight

    @property
    def load(self) -> float:
        """The share of its slots in use, as this orchestrator knows it."""
        return self.in_flight / max(1, self.status.slots)


class Candidates(Protocol):
    """The agents that could take a task now, each with a free slot; never empty where a selector gets them. A view that
    the registry keeps as things change: do not keep it. Iterating goes by ``ordinal``."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[AgentView]: ...
    def get(self, agent_id: str) -> AgentView | None:
        """The candidate of that id."""
        ...

    def by_load(self) -> Iterator[AgentView]:
        """From the smallest `AgentView.load` to the greatest, of equals the one that got a task longest ago.
        The first costs no scan."""
        ...

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        """``k`` different ones drawn at random, all when there are fewer, without a scan."""
        ...


class CandidateList:
    """`Candidates` from a list, as filters and tests make them; of agents in the order of their ``ordinal``. `get`,
    `by_load` and `sample` cost a look at each of them, `get` only the first time."""

    __slots__ = ("_agents", "_by_id")

    def __init__(self, agents: Iterable[AgentView]) -> None:
        self._agents = list(agents)
        self._by_id: dict[str, AgentView] | None = None

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[AgentView]:
        return iter(self._agents)

    def get(self, agent_id: str) -> AgentView | None:
        if self._by_id is None:
            self._by_id = {agent.info.agent_id: agent for agent in self._agents}
        return self._by_id.get(agent_id)

    def by_load(self) -> Iterator[AgentView]:
        return iter(sorted(self._agents, key=lambda agent: (agent.load, agent.last_sent, agent.ordinal)))

    def sample(self, k: int, rng: random.Random) -> Sequence[AgentView]:
        return rng.sample(self._agents, min(k, len(self._agents)))


class Choice(msgspec.Struct, frozen=True):
    """An agent and why: ``scores`` by agent id, greater is better, finite, at most as many as there are candidates;
    ``reason`` is a few words for a person, at most `MAX_REASON_CHARS`. Both go into the event
    `anywire.events.TaskDispatched`; what is out of bounds is the selector's failure and left out, both."""

    agent: AgentView
    scores: Mapping[str, float] = {}
    reason: str = ""


class SelectorConfig(pydantic.BaseModel):
    """What every selector has; a plugin's ``Config`` extends it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    seed: int = pydantic.Field(default=0, description="Seed of whatever randomness the strategy uses.")


Create = Callable[[str, Mapping[str, Any], str], "Selector"]
"""Makes another selector: of its name, its settings, and where these stand in the configuration
(``selector.policies.fast``), for errors."""


class Selector(ABC):
    name: ClassVar[str]
    Config: ClassVar[type[SelectorConfig]] = SelectorConfig
    wants_prefix: bool = False
    """Whether `QueuedTask.prefix` is to be computed for it."""
    policies: tuple[str, ...] | None = None
    """Names that `QueuedTask.policy` may have; a client that asks for another one is refused (400). None: the policy
    changes nothing, and a client that asks for one is told."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def assemble(self, create: Create) -> None:  # noqa: B027 - optional for a plugin
        """Called once, after it was made, so that it can make the selectors of which it consists with ``create``, which
        raises `ConfigError` and `PluginError`."""

    @abstractmethod
    def select(self, task: QueuedTask, candidates: Candidates) -> AgentView | Choice | None:
        """Choose one of ``candidates``, as it is or in a `Choice`, or None to hold the task: it is offered again when
        an agent joins, leaves, gets a free slot or changes its state, and otherwise once a second. When it raises, or
        returns anything else, the least loaded candidate gets the task."""

    def observed(self, outcome: Outcome) -> None:  # noqa: B027 - optional for a plugin
        """Called with every attempt's end, after its reader has it, for strategies that learn. What was never sent (the
        link had no room) is no attempt."""

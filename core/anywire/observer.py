"""Observing a plane: an optional part of a transport, for whoever wants to see and to disturb nothing.

An observer is no end of the plane. It sends no task and takes none, no registry lists it, and nobody waits for
it: what it cannot take in time is left out, and says so. A transport that can be observed has `Observable` beside the
contract in `anywire.transport`; the same rules hold for callbacks.

What is seen of a task is one attempt on one agent, as the hub that sent it knows it: a task that is tried again is
seen again, with a higher attempt. What waits in an orchestrator's queue is on no agent and is not seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Protocol, runtime_checkable

import msgspec

from anywire.messages import AgentInfo, AgentStatus, HubInfo

RATE_MAX = 20.0
"""The most updates per second of one agent or task that an observer may ask for."""


class ObserverInfo(msgspec.Struct, frozen=True):
    """Who observes, and what it wants.

    ``rate`` is how many updates per second of one agent or task it wants at most, above 0 and up to `RATE_MAX`;
    without ``texts`` no text of an answer is sent to it. ``lease_ms`` as in `HubInfo`.
    """

    observer_id: str
    incarnation: int
    rate: float = 4.0
    texts: bool = True
    lease_ms: int = 1000


class TaskSeen(msgspec.Struct, frozen=True):
    """One attempt of a task, now.

    ``state`` is ``running``, ``ended`` (``finish_reason`` and ``error``, JSON text as in `Chunk.error`, say how), or
    ``lost`` when its hub is gone or silent, so that nobody tells how it goes on. ``age_ms`` is the time since it was
    sent. ``chunks`` are all that came so far. ``text`` is what came since the last time this attempt was seen;
    ``missing`` is set when something between the two, or before the first, was not seen.
    """

    hub_id: str
    task_id: str
    attempt: int
    agent_id: str
    kind: str
    model: str
    state: Literal["running", "ended", "lost"]
    age_ms: int
    chunks: int
    text: str = ""
    missing: bool = False
    finish_reason: str = ""
    error: str = ""


class HubSeen(msgspec.Struct, frozen=True):
    """What a hub counts since its start: attempts ``begun`` and ``ended``; the difference runs now. ``shown`` are those
    of them that observers were told of: a hub with very many tells of some."""

    hub_id: str
    incarnation: int
    begun: int
    ended: int
    shown: int


class ObserverSink(Protocol):
    """What an observer's owner is told. Agents and hubs are told of as in `anywire.transport.HubSink`."""

    def agent_joined(self, info: AgentInfo) -> None: ...
    def agent_reported(self, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...
    def hub_joined(self, info: HubInfo) -> None: ...
    def hub_reported(self, hub: HubSeen) -> None:
        """Also once after a hub has told everything it has for an observer that just came."""
        ...

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None: ...
    def task_seen(self, task: TaskSeen) -> None: ...


class Observer(ABC):
    """An open observer."""

    @abstractmethod
    async def close(self) -> None:
        """Look away and release everything; idempotent."""


@runtime_checkable
class Observable(Protocol):
    """What a transport offers beside the contract when its agent plane can be observed."""

    async def open_observer(self, info: ObserverInfo, sink: ObserverSink) -> Observer:
        """Begin to observe: what is there already is told first. Raises `TransportUnavailable`."""
        ...

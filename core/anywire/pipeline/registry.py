"""The agents known now: their links, leases, loads, and who could take what.

Several transports may tell of one agent. The registry joins what they say of one ``(agent_id, incarnation)``
into one `AgentView` with links in order of preference; an agent is lost with its last link. Candidate lists
are kept up to date as things change and never recomputed per task.
"""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Sequence
from typing import Protocol

import msgspec

from anywire.clock import Clock, Timer
from anywire.messages import AgentInfo, AgentStatus
from anywire.scheduler import QueueKey
from anywire.selector import AgentView

log = logging.getLogger(__name__)


class RegistrySink(Protocol):
    """What the pipeline is told. ``link_lost`` comes before ``agent_lost`` when it was the last link."""

    def agent_joined(self, agent: AgentView) -> None: ...
    def link_joined(self, agent: AgentView, link: int) -> None: ...
    def link_lost(self, agent: AgentView, link: int, reason: str) -> None: ...
    def agent_lost(self, agent: AgentView, reason: str) -> None: ...
    def link_chosen(self, agent: AgentView, fallback: bool) -> None:
        """A known agent is from now on used over another link: a less preferred one when ``fallback``."""
        ...

    def agents_changed(self) -> None:
        """Somebody came, went, or changed state, models or slots (a mere heartbeat is no change)."""
        ...

    def capacity_changed(self) -> None:
        """Some agent may take more than before, or can take something new."""
        ...


class _Entry(msgspec.Struct, eq=False):
    view: AgentView
    links: set[int]
    keys: tuple[QueueKey, ...] = ()
    available: bool = False


class _Lease(msgspec.Struct, eq=False):
    """A link whose liveliness is the registry's to watch. ``timer`` is None once it has lapsed."""

    info: AgentInfo
    heard_at: float
    timer: Timer | None = None


def _ordinal(agent: AgentView) -> int:
    return agent.ordinal


class Registry:
    """``names`` are the transports in order of preference; link numbers index them. ``leased`` tells which of them
    leave (part of) the detection of dead agents to the registry."""

    def __init__(self, names: Sequence[str], leased: Sequence[bool], sink: RegistrySink, clock: Clock) -> None:
        self._names, self._leased, self._sink, self._clock = names, leased, sink, clock
        self._entries: dict[str, _Entry] = {}
        self._leases: dict[tuple[int, str], _Lease] = {}
        self._ordinals: dict[str, int] = {}
        self._candidates: dict[QueueKey, list[AgentView]] = {}
        self._serving: dict[QueueKey, int] = {}
        self._ever: set[QueueKey] = set()

    # What the pipeline asks

    def candidates(self, key: QueueKey) -> list[AgentView]:
        """The agents that can take such a task now, by ordinal. The list is the registry's own: do not keep it."""
        return self._candidates.get(key, _NOBODY)

    def serves(self, key: QueueKey) -> bool:
        """Whether some agent serves it, be it busy."""
        return key in self._serving

    def served_ever(self, key: QueueKey) -> bool:
        return key in self._ever

    def agents(self) -> list[AgentView]:
        return sorted((entry.view for entry in self._entries.values()), key=_ordinal)

    def agent(self, agent_id: str) -> AgentView | None:
        entry = self._entries.get(agent_id)
        return entry.view if entry is not None else None

    def models(self) -> list[str]:
        return sorted({key.model for key in self._serving})

    def link(self, agent: AgentView) -> int:
        """The preferred link of a known agent."""
        return min(self._entries[agent.agent_id].links)

    def acquire(self, agent: AgentView) -> None:
        agent.in_flight += 1
        if agent.in_flight >= agent.status.slots:
            self._update_available(agent)

    def release(self, agent: AgentView) -> None:
        agent.in_flight -= 1
        if agent.in_flight == agent.status.slots - 1:
            self._update_available(agent)

    def block(self, agent: AgentView) -> None:
        """No candidate until `unblock`, or until it reports a free slot."""
        agent.blocked = True
        self._update_available(agent)

    def unblock(self, agent: AgentView) -> None:
        agent.blocked = False
        self._update_available(agent)
        self._sink.capacity_changed()

    def close(self) -> None:
        for lease in self._leases.values():
            if lease.timer is not None:
                lease.timer.cancel()

    # What the transports tell; `link` is the transport's number

    def joined(self, link: int, info: AgentInfo) -> None:
        if self._leased[link]:
            self._renew(link, info)
        entry = self._entries.get(info.agent_id)
        if entry is not None and entry.view.info.incarnation != info.incarnation:
            log.info("agent %s is back as a new incarnation", info.agent_id)
            for old in sorted(entry.links):
                self._drop(entry, old, "replaced by a new incarnation")
            entry = None
        if entry is None:
            ordinal = self._ordinals.setdefault(info.agent_id, len(self._ordinals))
            unknown = AgentStatus(info.agent_id, info.incarnation, state="starting", slots=0)
            entry = _Entry(AgentView(info, unknown, ordinal, self._names[link]), {link})
            self._entries[info.agent_id] = entry
            log.info("agent %s joined over %s (pid %d on %s)", info.agent_id, self._names[link], info.pid, info.host)
            self._sink.agent_joined(entry.view)
            self._sink.agents_changed()
        elif link not in entry.links:
            entry.links.add(link)
            self._choose_link(entry)
        self._sink.link_joined(entry.view, link)

    def reported(self, link: int, status: AgentStatus) -> None:
        lease = self._leases.get((link, status.agent_id))
        if lease is not None and lease.info.incarnation == status.incarnation:
            lease.heard_at = self._clock.now()
            if lease.timer is None:
                self.joined(link, lease.info)
        entry = self._entries.get(status.agent_id)
        if entry is None or entry.view.info.incarnation != status.incarnation or link not in entry.links:
            return
        view, old = entry.view, entry.view.status
        view.status = status
        if view.blocked and status.active + status.queued < status.slots:
            view.blocked = False
        if (status.models, status.state) != (old.models, old.state):
            self._update_keys(entry)
        self._update_available(view)
        if (status.models, status.state, status.slots) != (old.models, old.state, old.slots):
            self._sink.agents_changed()
        if entry.available:
            self._sink.capacity_changed()

    def lost(self, link: int, agent_id: str, incarnation: int, reason: str) -> None:
        lease = self._leases.get((link, agent_id))
        if lease is not None and lease.info.incarnation == incarnation:
            del self._leases[link, agent_id]
            if lease.timer is not None:
                lease.timer.cancel()
        entry = self._entries.get(agent_id)
        if entry is not None and entry.view.info.incarnation == incarnation and link in entry.links:
            self._drop(entry, link, reason)

    # Inside

    def _drop(self, entry: _Entry, link: int, reason: str) -> None:
        view = entry.view
        entry.links.discard(link)
        log.info("link to agent %s over %s lost: %s", view.agent_id, self._names[link], reason)
        if entry.links:
            self._choose_link(entry)
            self._sink.link_lost(view, link, reason)
            return
        del self._entries[view.agent_id]
        self._update_keys(entry)
        self._update_available(view, entry)
        self._sink.link_lost(view, link, reason)
        self._sink.agent_lost(view, reason)
        self._sink.agents_changed()

    def _choose_link(self, entry: _Entry) -> None:
        link, view = min(entry.links), entry.view
        if self._names[link] != view.transport:
            log.warning("agent %s is now used over %s instead of %s", view.agent_id, self._names[link], view.transport)
            fallback = link > self._names.index(view.transport)
            view.transport = self._names[link]
            self._sink.link_chosen(view, fallback)

    def _renew(self, link: int, info: AgentInfo) -> None:
        old = self._leases.get((link, info.agent_id))
        if old is not None and old.timer is not None:
            old.timer.cancel()
        lease = _Lease(info, self._clock.now())
        self._leases[link, info.agent_id] = lease
        lease.timer = self._clock.call_later(info.lease_ms / 1000, self._check_lease, link, lease)

    def _check_lease(self, link: int, lease: _Lease) -> None:
        # One timer per lease, armed anew for what is left: a heartbeat itself costs only an assignment.
        left = lease.heard_at + lease.info.lease_ms / 1000 - self._clock.now()
        if left > 0:
            lease.timer = self._clock.call_later(left, self._check_lease, link, lease)
            return
        lease.timer = None
        entry = self._entries.get(lease.info.agent_id)
        if entry is not None and entry.view.info.incarnation == lease.info.incarnation and link in entry.links:
            self._drop(entry, link, f"silent for its lease of {lease.info.lease_ms} ms")

    def _update_keys(self, entry: _Entry) -> None:
        """Bring the lists of who serves what in line with the newest status."""
        view = entry.view
        serving = entry.links and view.status.state != "failed"
        keys = (
            tuple(QueueKey(model, kind) for model in view.status.models for kind in view.info.capabilities)
            if serving
            else ()
        )
        for key in entry.keys:
            self._serving[key] -= 1
            if not self._serving[key]:
                del self._serving[key]
            if entry.available:
                self._candidates[key].remove(view)
        entry.keys = keys
        entry.available = False
        for key in keys:
            self._serving[key] = self._serving.get(key, 0) + 1
            self._ever.add(key)
        self._update_available(view, entry)

    def _update_available(self, view: AgentView, entry: _Entry | None = None) -> None:
        entry = entry or self._entries.get(view.agent_id)
        if entry is None or entry.view is not view:
            return
        status = view.status
        available = status.state == "ready" and not view.blocked and view.in_flight < status.slots and bool(entry.links)
        if available == entry.available:
            return
        entry.available = available
        for key in entry.keys:
            if available:
                insort(self._candidates.setdefault(key, []), view, key=_ordinal)
            else:
                self._candidates[key].remove(view)


_NOBODY: list[AgentView] = []

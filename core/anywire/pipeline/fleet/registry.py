"""The agents known now: their links, leases, loads, and who could take what.

Several transports may tell of one agent. The registry joins what they say of one ``(agent_id, incarnation)`` into one
`AgentView` with links in order of preference; an agent is lost with its last link. Of several lives of one id the
newest counts; a link of an older life that is still there is used again when the newer one is gone. What agents
could take is kept up to date as things change (`anywire.pipeline.fleet.serving`).
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from anywire.lease import AwakeTime, Silence
from anywire.messages import AgentInfo, AgentStatus
from anywire.offers import read_offers
from anywire.pipeline.fleet import claims
from anywire.pipeline.fleet.groups import Member
from anywire.pipeline.fleet.serving import Served, Serving
from anywire.pipeline.fleet.slow_start import SlowStart
from anywire.pipeline.health.failing_models import ModelAt
from anywire.pipeline.health.health import Health, Subject
from anywire.printable import printable
from anywire.scheduler import QueueKey
from anywire.selector import AgentView, Candidates

log = logging.getLogger(__name__)

REMEMBERED_AGENTS = 1024
"""Agents that are gone and keep their ordinal, in case they come back."""


UNTIL_REPORTED = frozenset(("refused", "unreachable"))
"""Causes that end when the agent reports a free slot."""


class RegistrySink(Protocol):
    """What the pipeline is told. ``link_lost`` comes before ``agent_lost`` when it was the last link."""

    def agent_joined(self, agent: AgentView) -> None: ...
    def link_joined(self, agent: AgentView, link: int) -> None: ...
    def link_lost(self, agent: AgentView, link: int, reason: str) -> None: ...
    def agent_lost(self, agent: AgentView, reason: str) -> None: ...
    def link_chosen(self, agent: AgentView, fallback: bool) -> None:
        """A known agent is from now on used over another link: a less preferred one when ``fallback``."""
        ...

    def agent_changed(self, agent: AgentView, before: AgentStatus) -> None:
        """Its state, offers or slots are others than in the status before."""
        ...

    def slow_start(self, agent: AgentView, given: int) -> None:
        """An agent that begins slowly has been given so many of its slots."""

    def agents_changed(self) -> None:
        """Somebody came, went, or changed state, offers or slots (a mere heartbeat is no change)."""
        ...

    def capacity_changed(self) -> None:
        """Some agent may take more than before, or can take something new."""
        ...

    def served(self, served: Sequence[Served]) -> None:
        """These models had nobody that serves them in these kinds, and have somebody now."""
        ...

    def unserved(self, served: Sequence[Served]) -> None:
        """Nobody serves these any more."""
        ...


class Link(msgspec.Struct, eq=False):
    """One agent over one transport. ``lease`` is set where the registry watches its liveliness; ``lapsed`` once it was
    silent for that long: the agent is then not used over this link until it is heard again."""

    info: AgentInfo
    status: AgentStatus
    lease: Silence | None = None
    lapsed: bool = False


class Registry:
    """``names`` are the transports in order of preference; link numbers index them. ``leased`` tells which of them
    leave the detection of hanging agents to the registry."""

    def __init__(
        self,
        names: Sequence[str],
        leased: Sequence[bool],
        sink: RegistrySink,
        awake: AwakeTime,
        health: Health,
        counts: Counter[str],
        slow_start: float = 0.0,
    ) -> None:
        self._slow_start = SlowStart(awake.clock, slow_start, self._grew, self._tell_slow_start)
        self._names, self._leased, self._sink, self._awake = names, leased, sink, awake
        self._health, self._counts = health, counts
        self._members: dict[str, Member] = {}
        self._links: dict[str, dict[int, Link]] = {}
        """Every link there is by agent, also those of older lives and those that have lapsed."""
        self._ordinals = self._sent = 0
        self._former: OrderedDict[str, int] = OrderedDict()
        self._rejected: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._barred: dict[str, set[str]] = {}
        self.serving = Serving(health, sink)
        """Who could take what."""

    # What the pipeline asks

    def candidates(self, key: QueueKey) -> Candidates:
        """The agents that can take such a task now. A view that changes: do not keep it."""
        return self.serving.candidates(key)

    def would_take(self, agent: AgentView, key: QueueKey) -> bool:
        """Whether this agent would be a candidate if one more of its slots were free."""
        return self.serving.would_take(agent, key)

    def serves(self, key: QueueKey) -> bool:
        """Whether some agent serves it, be it busy."""
        return self.serving.serves(key)

    def agents(self) -> list[AgentView]:
        return sorted((member.view for member in self._members.values()), key=lambda agent: agent.ordinal)

    def agent(self, agent_id: str) -> AgentView | None:
        member = self._members.get(agent_id)
        return member.view if member is not None else None

    def knows(self, agent_id: str) -> bool:
        """Whether it is there, or was lately."""
        return agent_id in self._members or agent_id in self._former

    def is_barred(self, agent_id: str) -> bool:
        """Whether it serves nobody now: see `bar`."""
        return agent_id in self._barred

    def barred(self, key: QueueKey) -> list[AgentView]:
        """The agents that would serve it if they were not barred."""
        found = []
        for agent_id in self._barred:
            agent = self.agent(agent_id)
            offer = agent.offers.get(key.model) if agent is not None else None
            if agent is None or offer is None or key.kind not in (offer.kinds or agent.info.capabilities):
                continue
            if not any(map(offer.lacks, key.needs)):
                found.append(agent)
        return found

    def slots(self, key: QueueKey) -> int:
        """The slots of all ready agents that serve it."""
        return self.serving.slots(key)

    def may_serve(self, keys: Sequence[QueueKey]) -> bool:
        """False when there are agents that serve these, and all of them are about to go."""
        return any(self.serving.may_serve(key) for key in keys)

    def no_candidates(self, key: QueueKey) -> Iterator[tuple[str, str]]:
        """Every agent that can take no such task now, by id, and why."""
        for agent in self.agents():
            why = self._why_not(agent, key)
            if why:
                yield agent.agent_id, why

    def _why_not(self, agent: AgentView, key: QueueKey) -> str:
        status, offer = agent.status, agent.offers.get(key.model)
        if status.state != "ready":
            return f"it is {status.state}"
        if offer is None:
            return f"it does not offer {key.model!r}"
        if not offer.takes_tasks:
            return f"its {key.model!r} is {offer.state}"
        if key.kind not in (offer.kinds or agent.info.capabilities):
            return f"its {key.model!r} does no {key.kind}"
        lacking = [need for need in key.needs if offer.lacks(need)]
        if lacking:
            return f"its {key.model!r} has no {' and no '.join(lacking)}"
        if agent.unavailable:
            return f"it is {' and '.join(sorted(agent.unavailable))}"
        if agent.free_slots <= 0:
            return "it has no free slot"
        room = self._members[agent.agent_id].room
        if room is not None and agent.in_flight >= room:
            return f"it begins slowly: {room} of its {status.slots} slots so far"
        return "" if self._health.all_ok else self._why_resting(agent.agent_id, key.model)

    def _why_resting(self, agent_id: str, model: str) -> str:
        health, who = self._health, "it"
        subject: Subject = agent_id
        if agent_id not in health.resting_agents(model):
            return ""
        if agent_id not in health.resting_agents():
            subject, who = ModelAt(agent_id, model), f"its {model!r}"
        half_open = health.state(subject) == "half_open"
        return f"{who} is tried with few tasks after failures" if half_open else f"{who} rests after failures"

    def models(self) -> list[str]:
        return self.serving.models()

    def linked(self) -> list[tuple[int, AgentInfo, AgentStatus]]:
        """Every link there is: its number, what the agent has said in its hello, and its newest status."""
        return [(number, link.info, link.status) for links in self._links.values() for number, link in links.items()]

    def link(self, agent: AgentView) -> int:
        """The link of a known agent over which a task sent now would go."""
        return self._members[agent.agent_id].link

    def has_other_link(self, agent: AgentView, link: int) -> bool:
        """Whether this life of an agent is there over another link than this one."""
        member = self._members.get(agent.agent_id)
        return member is not None and member.view is agent and bool(member.links - {link})

    def acquire(self, agent: AgentView) -> tuple[int, Silence | None]:
        """Count one more attempt on a known agent: the link over which it goes, and that one's lease where the registry
        watches it: whatever comes by the link is a sign of life."""
        agent.in_flight += 1
        self._sent += 1
        agent.last_sent = self._sent
        if agent.in_flight >= agent.status.slots or self.serving.orders.kept or self._slow_start.any:
            self._update(agent)
        agent_id = agent.info.agent_id
        number = self._members[agent_id].link
        if not self._leased[number]:
            return number, None
        link = self._links[agent_id].get(number)
        return number, link.lease if link is not None else None

    def release(self, agent: AgentView) -> None:
        agent.in_flight -= 1
        if agent.in_flight == agent.status.slots - 1 or self.serving.orders.kept or self._slow_start.any:
            self._update(agent)

    def set_cause(self, agent: AgentView, cause: str) -> None:
        """No candidate while ``cause`` holds: until `clear_cause`, and those of `UNTIL_REPORTED` until the agent
        reports a free slot."""
        agent.unavailable.add(cause)
        self._update(agent)

    def clear_cause(self, agent: AgentView, cause: str) -> None:
        agent.unavailable.discard(cause)
        if self._update(agent):
            self._sink.capacity_changed()

    def bar(self, agent_id: str, cause: str) -> None:
        """It serves nobody while ``cause`` holds, until `unbar`, over all its lives: what it offers counts as not
        there. What runs on it goes on. Whoever calls this has what waits dispatched."""
        self._barred.setdefault(agent_id, set()).add(cause)
        self._set_barred(agent_id)

    def unbar(self, agent_id: str, cause: str) -> None:
        causes = self._barred.get(agent_id)
        if causes is None or cause not in causes:
            return
        causes.discard(cause)
        if not causes:
            self._barred.pop(agent_id, None)
        member = self._members.get(agent_id)
        if member is not None:
            member.view.unavailable.discard(cause)
            if not causes:
                self._slow_start.begin(member)
        self._set_barred(agent_id)

    def _set_barred(self, agent_id: str) -> None:
        causes, member = self._barred.get(agent_id, set()), self._members.get(agent_id)
        if member is None:
            return
        member.view.unavailable |= causes
        member.is_barred = bool(causes)
        self.serving.changed(member)
        self._slow_start.changed(member)
        self._update(member.view)
        self._sink.agents_changed()

    def health_changed(self, agent_id: str) -> None:
        """An agent or one of its links begins or ends to rest after failures."""
        member = self._members.get(agent_id)
        if member is not None:
            self._choose_link(member)

    def begin_slowly(self, agent_id: str) -> None:
        """An agent is well again: it gets its slots one after the other, where ``slow_start`` says so."""
        member = self._members.get(agent_id)
        if member is not None:
            self._slow_start.begin(member)
            self._update(member.view)

    def slow_start(self, agent_id: str) -> int:
        """How many slots an agent has been given so far that begins slowly; 0 for one that has all of them."""
        member = self._members.get(agent_id)
        if member is None or member.room is None or member.room >= member.view.status.slots:
            return 0
        return member.room

    def _tell_slow_start(self, member: Member) -> None:
        if self._members.get(member.view.agent_id) is member:
            slots = member.view.status.slots
            self._sink.slow_start(member.view, slots if member.room is None else min(member.room, slots))

    def _grew(self, member: Member) -> None:
        if self._update(member.view):
            self._sink.capacity_changed()

    def close(self) -> None:
        self._slow_start.close()
        for links in self._links.values():
            for link in links.values():
                _end_lease(link)

    # What the transports tell; ``number`` is the transport's

    def joined(self, number: int, info: AgentInfo) -> None:
        fault = claims.check_info(info)
        if fault:
            self._reject(info.agent_id, number, fault)
            return
        links = self._links.setdefault(info.agent_id, {})
        old = links.get(number)
        if old is not None:
            if old.info.incarnation > info.incarnation:
                self._reject(info.agent_id, number, "an older life of it joins while a newer one is there")
                return
            _end_lease(old)
        status = AgentStatus(info.agent_id, info.incarnation, state="starting", slots=0)
        if old is not None and old.info.incarnation == info.incarnation:
            status = old.status
        links[number] = link = Link(info, status)
        if self._leased[number]:
            link.lease = Silence(self._awake, info.lease_ms / 1000, lambda: self._lapse(number, link))
        self._settle(info.agent_id, f"replaced by incarnation {info.incarnation}")

    def reported(self, number: int, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        link = self._links.get(agent_id, {}).get(number)
        if link is None or link.info.incarnation != incarnation:
            self._counts["foreign_messages"] += 1
            return
        if status.agent_id != agent_id or status.incarnation != incarnation:
            self._reject(agent_id, number, f"it reports for {printable(str(status.agent_id))[:80]}")
            return
        fault = claims.check_status(status, link.status)
        if fault:
            self._reject(agent_id, number, fault)
            return
        link.status = status = claims.cleaned(status)
        if link.lapsed:
            self.joined(number, link.info)
        elif link.lease is not None:
            link.lease.heard()
        member = self._members.get(agent_id)
        if member is not None and number in member.links:
            self._take_status(member, status)

    def lost(self, number: int, agent_id: str, incarnation: int, reason: str) -> None:
        links = self._links.get(agent_id, {})
        link = links.get(number)
        if link is None or link.info.incarnation != incarnation:
            return
        _end_lease(link)
        del links[number]
        if not links:
            del self._links[agent_id]
        self._settle(agent_id, reason)

    # Inside

    def _settle(self, agent_id: str, reason: str) -> None:
        """Bring the view of an agent in line with its links: of those that have not lapsed, the newest life's count."""
        links = {number: link for number, link in self._links.get(agent_id, {}).items() if not link.lapsed}
        newest = max((link.info.incarnation for link in links.values()), default=None)
        usable = {number for number, link in links.items() if link.info.incarnation == newest}
        member = self._members.get(agent_id)
        if member is not None:
            same = member.view.info.incarnation == newest
            for number in sorted(member.links - usable if same else member.links):
                self._drop(member, number, reason)
            if member.links:
                more = sorted(usable - member.links)
                member.links |= usable
                self._choose_link(member)
                for number in more:
                    self._sink.link_joined(member.view, number)
                return
        if usable:
            self._add(agent_id, usable, links)

    def _add(self, agent_id: str, usable: set[int], links: dict[int, Link]) -> None:
        first = links[min(usable)]
        ordinal = self._former.pop(agent_id, None)
        if ordinal is None:
            ordinal = self._ordinals
            self._ordinals += 1
        unknown = AgentStatus(agent_id, first.info.incarnation, state="starting", slots=0)
        # Its proof is for this end alone, and views and events are shown to others.
        shown = msgspec.structs.replace(first.info, proof="") if first.info.proof else first.info
        view = AgentView(shown, unknown, ordinal, self._names[min(usable)])
        self._members[agent_id] = member = Member(view, set(usable), min(usable))
        if agent_id in self._barred:
            member.is_barred, view.unavailable = True, set(self._barred[agent_id])
        info = first.info
        log.info("agent %s joined over %s (pid %d on %s)", agent_id, view.transport, info.pid, info.host)
        self._health.came(agent_id)
        self._sink.agent_joined(view)
        self._slow_start.begin(member)
        self._sink.agents_changed()
        for number in sorted(usable):
            self._sink.link_joined(view, number)
        if first.status.slots or first.status.state != "starting":
            self._take_status(member, first.status)

    def _take_status(self, member: Member, status: AgentStatus) -> None:
        view, old = member.view, member.view.status
        view.status = status
        if view.unavailable and status.active + status.queued < status.slots:
            view.unavailable -= UNTIL_REPORTED
        changed = (status.offers, status.state, status.slots) != (old.offers, old.state, old.slots)
        if changed:
            if status.offers != old.offers:
                view.offers = {offer.model: offer for offer in read_offers(status.offers)}
            self.serving.changed(member)
            self._slow_start.changed(member)
        freed = self._update(view)
        if changed:
            self._sink.agent_changed(view, old)
            self._sink.agents_changed()
        if freed or changed:
            self._sink.capacity_changed()
        if changed and status.state == "ready" and not self._health.all_ok:
            self._health.ready(view.agent_id)

    def _drop(self, member: Member, number: int, reason: str) -> None:
        view = member.view
        member.links.discard(number)
        log.info("link to agent %s over %s lost: %s", view.agent_id, self._names[number], reason)
        if member.links:
            self._choose_link(member)
            self._sink.link_lost(view, number, reason)
            return
        del self._members[view.agent_id]
        self._slow_start.end(member)
        self._former[view.agent_id] = view.ordinal
        if len(self._former) > REMEMBERED_AGENTS:
            self._former.popitem(last=False)
        self.serving.removed(member)
        self._sink.link_lost(view, number, reason)
        # After that: what the agent had under way has failed just now, and counted against it.
        for transport in range(len(self._names)):
            self._health.forget((view.agent_id, transport))
        self._health.gone(view.agent_id)
        self._sink.agent_lost(view, reason)
        self._sink.agents_changed()

    def _choose_link(self, member: Member) -> None:
        view = member.view
        rested = [number for number in member.links if not self._health.resting((view.agent_id, number))]
        number = min(rested or member.links)
        if number == member.link:
            return
        fallback = number > member.link
        level = logging.WARNING if fallback else logging.INFO
        log.log(level, "agent %s is used over %s instead of %s", view.agent_id, self._names[number], view.transport)
        member.link, view.transport = number, self._names[number]
        self._sink.link_chosen(view, fallback)

    def _lapse(self, number: int, link: Link) -> None:
        link.lapsed = True
        self._settle(link.info.agent_id, f"silent for its lease of {link.info.lease_ms} ms")

    def _update(self, agent: AgentView) -> bool:
        """Whether the agent has become a candidate."""
        member = self._members.get(agent.agent_id)
        return member is not None and member.view is agent and self.serving.update(member)

    def _reject(self, agent_id: str, number: int, fault: str) -> None:
        """Drop what an agent claims; logged once per agent and link."""
        self._counts["claims_rejected"] += 1
        name = printable(str(agent_id)[:80])
        if (name, number) in self._rejected:
            return
        self._rejected[name, number] = None
        if len(self._rejected) > REMEMBERED_AGENTS:
            self._rejected.popitem(last=False)
        log.warning("agent %s over %s: %s; dropped", name, self._names[number], fault)


def _end_lease(link: Link) -> None:
    if link.lease is not None:
        link.lease.cancel()

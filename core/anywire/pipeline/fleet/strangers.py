"""Agents that are linked and not let in: they get no task, and nothing of theirs is heard until they are let in."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from anywire.errors import AnywireError
from anywire.event_bus import EventBus
from anywire.identities.end_check import EndCheck
from anywire.messages import AgentInfo, AgentStatus, Command, HubInfo
from anywire.pipeline.fleet.ends import Ends
from anywire.pipeline.fleet.registry import Registry
from anywire.transport import Hub, Plane

MAX_STRANGERS = 10_000
"""Links of strangers that are remembered; the agent of one more has to join again when it is let in."""
REFUSED = "refused"
"""The command that tells an agent why it is not let in, as ``reason``."""


class Strangers:
    """Asks ``check`` about each agent that joins, and about all again when what it says may have changed: who was
    revoked is lost at once, and who was let in joins."""

    def __init__(
        self,
        own: HubInfo,
        plane: Plane,
        check: EndCheck,
        registry: Registry,
        hubs: Ends[Hub],
        ids: Iterator[str],
        counts: Counter[str],
    ) -> None:
        self._own, self._plane, self._check, self._registry = own, plane, check, registry
        self._hubs, self._ids, self._counts = hubs, ids, counts
        self._links: OrderedDict[tuple[int, str], tuple[AgentInfo, AgentStatus | None]] = OrderedDict()
        self._stop_listening: Callable[[], None] = lambda: None
        self._stop_publishing: Callable[[], None] = lambda: None

    def start(self, events: EventBus) -> None:
        """Begin; what the file of admitted ends comes to say is published to ``events``."""
        self._check.start()
        self._stop_publishing = self._check.publish_to(events)
        self._stop_listening = self._check.listen(self._changed)

    async def close(self) -> None:
        self._stop_listening()
        self._stop_publishing()
        await self._check.close()

    def joined(self, link: int, info: AgentInfo) -> bool:
        """Whether the agent that joins is a stranger."""
        reason = self._check.refusal(self._plane, info)
        self._links.pop((link, info.agent_id), None)
        if reason:
            self._keep(link, info, None, reason)
        return bool(reason)

    def reported(self, link: int, agent_id: str, incarnation: int, status: AgentStatus) -> bool:
        """Whether a stranger reports."""
        found = self._links.get((link, agent_id))
        if found is None or found[0].incarnation != incarnation:
            return False
        self._links[link, agent_id] = found[0], status
        return True

    def lost(self, link: int, agent_id: str, incarnation: int) -> None:
        found = self._links.get((link, agent_id))
        if found is not None and found[0].incarnation == incarnation:
            del self._links[link, agent_id]

    # Inside

    def _changed(self) -> None:
        for link, info, status in self._registry.linked():
            reason = self._check.refusal(self._plane, info, verified=True)
            if reason:
                self._registry.lost(link, info.agent_id, info.incarnation, f"it is not let in any more: {reason}")
                self._keep(link, info, status, reason)
        for (link, agent_id), (info, last) in list(self._links.items()):
            if not self._check.refusal(self._plane, info):
                del self._links[link, agent_id]
                self._registry.joined(link, info)
                if last is not None:
                    self._registry.reported(link, agent_id, info.incarnation, last)

    def _keep(self, link: int, info: AgentInfo, status: AgentStatus | None, reason: str) -> None:
        self._counts["agents_refused"] += 1
        self._links[link, info.agent_id] = info, status
        if len(self._links) > MAX_STRANGERS:
            self._links.popitem(last=False)
        hub = self._hubs.ends[link]
        if hub is None or self._plane == "client":
            return
        text = msgspec.json.encode({"reason": reason}).decode()
        command = Command(self._own.hub_id, next(self._ids), REFUSED, text, credit=1, role="operate")
        try:
            hub.send(info.agent_id, command)
        except AnywireError:
            self._counts["control_not_sent"] += 1

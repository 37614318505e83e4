"""A participant that writes to the topics of a plane whatever it likes."""

from __future__ import annotations

from typing import Any

from anywire.messages import AgentInfo
from anywire.testing.log_recorder import LogRecorder
from anywire.transport import Plane
from anywire_dds import DdsConfig, announcements, user_data
from anywire_dds.endpoints import Endpoints
from anywire_dds.presence import pack_agent

OTHER_LEASE = 7777
"""Milliseconds. Participants are shared by those with the same lease: another lease is another participant."""


class Forger:
    """Writes to topics whatever it likes, as a participant of its own unless ``lease_ms`` is that of others. The
    writer of its reports names the agent ``of``."""

    def __init__(
        self,
        options: dict[str, Any],
        lease_ms: int = OTHER_LEASE,
        of: AgentInfo | None = None,
        plane: Plane = "agent",
    ) -> None:
        self.endpoints = Endpoints(DdsConfig(**options), plane, lease_ms)
        fleet = self.endpoints.partition()
        owner = [user_data.of_reports(of.agent_id, of.incarnation)] if of is not None else []
        self.statuses = self.endpoints.writer("status", fleet, *owner)
        self.registrations = self.endpoints.writer("register", fleet)

    async def until_seen(self, warnings: LogRecorder) -> None:
        """Wait until the hub there reads these writers. A report is best effort: it reaches those alone that have
        matched its writer, which comes before the other one in discovery."""
        self.registrations.write(pack_agent(AgentInfo("x" * (announcements.MAX_REGISTRATION_BYTES + 1), 1), 1000))
        await warnings.message("bytes is ignored")

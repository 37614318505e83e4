"""The DDS transport whose ends have identities, made of their ids so that each life of an id has the same one."""

from __future__ import annotations

import hashlib

from anywire.hookspecs import hookimpl
from anywire.identities.identity_proof import Identity
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentPort, AgentSink, Hub, HubSink, Plane
from anywire_dds import DdsTransport


class IdentifiedDds(DdsTransport):
    name = "dds-identified"

    async def open_hub(self, hub: HubInfo, plane: Plane, sink: HubSink) -> Hub:
        self.identity = self.identity or _identity(hub.hub_id)
        return await super().open_hub(hub, plane, sink)

    async def open_agent(self, info: AgentInfo, plane: Plane, sink: AgentSink) -> AgentPort:
        self.identity = self.identity or _identity(info.agent_id)
        return await super().open_agent(info, plane, sink)


def _identity(name: str) -> Identity:
    return Identity(hashlib.sha256(name.encode()).digest())


@hookimpl
def anywire_register(kind: str) -> dict[str, type] | None:
    return {IdentifiedDds.name: IdentifiedDds} if kind == "transports" else None

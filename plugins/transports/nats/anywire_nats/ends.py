"""Both ends of a plane at a NATS server."""

from __future__ import annotations

from anywire.messages import AgentInfo, HubInfo
from anywire.transport import AgentSink, HubSink, Plane
from anywire.transport_tools import Channel, ChannelHub, ChannelPort
from anywire_nats.config import NatsConfig
from anywire_nats.meeting import Meeting


class NatsHub(ChannelHub):
    """A hub: it begins a link to each agent that is there, and says hello first."""

    def __init__(self, config: NatsConfig, info: HubInfo, plane: Plane, sink: HubSink) -> None:
        super().__init__(info, sink)
        self.meeting = Meeting(config, self, plane, info.hub_id, info.lease_ms / 1000, dials=True)
        self.on_close = self.meeting.leave

    def channel_opened(self, channel: Channel) -> None:
        super().channel_opened(channel)
        self.send_hello(channel)

    async def close(self) -> None:
        await super().close()
        await self.meeting.close()


class NatsPort(ChannelPort):
    """An agent's end: it waits for the hubs that are there."""

    def __init__(self, config: NatsConfig, info: AgentInfo, plane: Plane, sink: AgentSink) -> None:
        super().__init__(info, sink)
        self.meeting = Meeting(config, self, plane, info.agent_id, info.lease_ms / 1000, dials=False)
        self.on_close = self.meeting.leave

    async def close(self) -> None:
        await super().close()
        await self.meeting.close()

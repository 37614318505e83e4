"""Both ends of a plane over channels: hellos, links, goodbyes. A transport adds how the two find each other.

Whoever connects, the hub speaks first on a channel (`HubInfo`). The agent answers with its `AgentInfo` and its newest
status once it has one, and the hub with `Accepted`: then both directions have carried a message, and each end tells its
sink. A `Goodbye` ends a channel, and says whether this life of the peer was refused.

Both hellos name the protocol version. The agent refuses a hub of another one, and a hub an agent: whoever is first to
read the other's hello. The goodbye has the sentence for the other end, which logs it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anywire.errors import TransportError
from anywire.messages import AgentInfo, AgentStatus, Chunk, HubInfo, TaskRequest, ToAgent
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.transport import AgentPort, AgentSink, Hub, HubSink
from anywire.transport_tools.channel import Channel, close_all
from anywire.transport_tools.codec import Accepted, Goodbye
from anywire.transport_tools.guard import Guard
from anywire.transport_tools.links import AgentLinks, HubLinks
from anywire.transport_tools.versions import LinkRefused, with_protocol

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 5.0
"""Seconds that a peer may take until its channel is a link, or says why not."""


class _End:
    """What both ends share. ``guard`` stands in front of the sink: open it when the end is opened."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.channels: set[Channel] = set()
        """All that are not over, links or not."""
        self.on_close: Callable[[], Awaitable[None]] | None = None
        """Awaited by ``close`` before the channels are closed: accept and dial nobody any more."""
        self._once = OnceLog(log)
        self._awaited: dict[Channel, float] = {}  # no links yet, in the order in which their time is over
        self._hello_timer: asyncio.TimerHandle | None = None

    @property
    def links(self) -> HubLinks[Channel] | AgentLinks[Channel]:
        raise NotImplementedError

    def channel_opened(self, channel: Channel) -> None:
        def forget(_: object) -> None:
            self._awaited.pop(channel, None)
            self.channels.discard(channel)

        self.channels.add(channel)
        channel.ended.add_done_callback(forget)
        if self.guard.closed:
            channel.abort("this end is closed")
            return
        loop = asyncio.get_running_loop()
        self._awaited[channel] = loop.time() + HELLO_TIMEOUT
        if self._hello_timer is None:
            self._hello_timer = loop.call_later(HELLO_TIMEOUT, self._close_silent)

    def channel_ended(self, channel: Channel, reason: str) -> None:
        self.links.ended(channel, reason)

    def _close_silent(self) -> None:
        """Close those that are no links in time; one timer runs, for the first of them."""
        loop = asyncio.get_running_loop()
        self._hello_timer, now = None, loop.time()
        for channel, due in list(self._awaited.items()):
            if due > now:
                self._hello_timer = loop.call_later(due - now, self._close_silent)
                return
            del self._awaited[channel]
            channel.close(f"no link within {HELLO_TIMEOUT:.0f} s")

    def _goodbye(self, channel: Channel, goodbye: Goodbye) -> None:
        reason = printable(goodbye.reason).strip() or "it said goodbye"
        if goodbye.refused:
            self._once.warn(reason, "refused by %s: %s", channel.peer, reason)
        channel.abort(reason)

    def _linked(self, channel: Channel, replaced: Channel | None) -> None:
        channel.linked = True
        self._awaited.pop(channel, None)
        if replaced is not None:
            replaced.close("replaced by another connection of this or a later life")

    def _refused(self, channel: Channel, error: LinkRefused) -> None:
        self._once.warn(str(error), "a connection of %s is refused: %s", channel.peer, error)
        channel.close(error.for_peer, refused=True)

    async def _close(self, reason: str) -> None:
        self.guard.close()
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self.on_close is not None:
            await self.on_close()
        await close_all(self.channels, reason)


class ChannelHub(_End, Hub):
    """A `Hub` over channels. Call `send_hello` on each channel that leads to an agent."""

    def __init__(self, info: HubInfo, sink: HubSink) -> None:
        super().__init__()
        self.info = with_protocol(info)
        self._links: HubLinks[Channel] = HubLinks(sink, self.guard, self.info)

    @property
    def links(self) -> HubLinks[Channel]:
        return self._links

    def send(self, agent_id: str, message: ToAgent) -> None:
        self._links.get(agent_id).send(message)

    async def drain(self, agent_id: str) -> None:
        channel = self._links.find(agent_id)
        if channel is not None:
            await channel.drain()

    async def close(self) -> None:
        await self._close("the hub closed")

    def send_hello(self, channel: Channel) -> None:
        """Say who this hub is: the first message on a channel that leads to an agent."""
        channel.send_control(self.info)

    def channel_received(self, channel: Channel, message: Any) -> None:
        match message:
            case Chunk() | AgentStatus():
                self._links.received(channel, message)
            case Goodbye():
                self._goodbye(channel, message)
            case AgentInfo():
                self._join(channel, message)
            case _:
                self._links.received(channel, message)

    def _join(self, channel: Channel, agent: AgentInfo) -> None:
        if self._links.joined(channel):
            raise TransportError("this agent has said hello already")
        try:
            self._links.check_hello(agent)
        except LinkRefused as error:
            self._refused(channel, error)
            return
        # In front of the first task, which the sink may send when it is told.
        channel.send_control(Accepted())
        self._linked(channel, self._links.join(channel, agent))


class ChannelPort(_End, AgentPort):
    """An `AgentPort` over channels; answers a hub's hello by itself."""

    def __init__(self, info: AgentInfo, sink: AgentSink) -> None:
        super().__init__()
        self.info = with_protocol(info)
        self._links: AgentLinks[Channel] = AgentLinks(sink, self.guard, self.info)
        self._hubs: dict[Channel, HubInfo] = {}  # who has said hello
        self._newest: AgentStatus | None = None

    @property
    def links(self) -> AgentLinks[Channel]:
        return self._links

    def report(self, status: AgentStatus) -> None:
        first, self._newest = self._newest is None, status
        for channel in list(self._hubs):
            self._announce(channel, status) if first else channel.report(status)

    async def close(self) -> None:
        await self._close("the agent closed")

    def channel_received(self, channel: Channel, message: Any) -> None:
        match message:
            case TaskRequest():
                self._links.received(channel, message, channel)
            case Goodbye():
                self._goodbye(channel, message)
            case HubInfo():
                self._hello(channel, message)
            case Accepted():
                self._join(channel)
            case _:
                self._links.received(channel, message, channel)

    def channel_ended(self, channel: Channel, reason: str) -> None:
        self._hubs.pop(channel, None)
        super().channel_ended(channel, reason)

    def _hello(self, channel: Channel, hub: HubInfo) -> None:
        if channel in self._hubs:
            raise TransportError("this hub has said hello already")
        try:
            self._links.check_hello(hub)
        except LinkRefused as error:
            self._refused(channel, error)
            return
        self._hubs[channel] = hub
        if self._newest is not None:
            self._announce(channel, self._newest)

    def _announce(self, channel: Channel, status: AgentStatus) -> None:
        channel.send_control(self.info)
        channel.report(status)

    def _join(self, channel: Channel) -> None:
        hub = self._hubs.get(channel)
        if hub is None or self._newest is None:
            raise TransportError("accepted before this agent has said who it is")
        try:
            old = self._links.join(channel, hub)
        except LinkRefused as error:
            self._refused(channel, error)
        else:
            self._linked(channel, old)

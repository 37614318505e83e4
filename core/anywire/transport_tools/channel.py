"""What an end needs of a connection to one peer, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from anywire.messages import AgentStatus
from anywire.transport import Reply

CLOSE_TIMEOUT = 1.0
"""Seconds that what was accepted, and the goodbye after it, may take to leave when a connection is closed."""


class Channel(Reply, Protocol):
    """A connection to one peer. It is also the `Reply` of every task that came over it.

    ``send`` raises what `Hub.send` and `Reply.send` may raise; after the end it drops the message silently.
    """

    @property
    def peer(self) -> str:
        """Who is at the other end, for log lines."""
        ...

    linked: bool
    """Whether it is a link or was one; set by the end that uses it, False at first."""

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done when nothing of it is left."""
        ...

    def send(self, message: Any) -> None:
        """Put ``message`` into the write buffer. Only those in
        `anywire.transport_tools.MayCongest` can raise `Congested`."""
        ...

    def send_control(self, message: Any) -> None:
        """Send what no caller waits for: a failure is logged and never raised; never `Congested`."""
        ...

    def report(self, status: AgentStatus) -> None:
        """Send a status when there is room, unless a newer one takes its place; never raises."""
        ...

    def close(self, reason: str, *, refused: bool = False) -> None:
        """Write what was accepted and a `Goodbye` with ``reason``, then end; after `CLOSE_TIMEOUT` in any case.

        The owner is told of the end at once, and is given nothing any more. Idempotent.
        """
        ...

    def abort(self, reason: str) -> None:
        """End now: what waits is dropped. Idempotent."""
        ...


class ChannelOwner(Protocol):
    """What a connection calls: an end. Nothing is called after ``channel_ended``."""

    def channel_opened(self, channel: Channel) -> None: ...
    def channel_received(self, channel: Channel, message: Any) -> None:
        """Raises `TransportError` for a message that makes no sense: the channel logs it and closes with that text."""
        ...

    def channel_ended(self, channel: Channel, reason: str) -> None: ...


async def close_all(channels: Iterable[Channel], reason: str) -> None:
    """Close all of them with a goodbye; returns when nothing of them is left, after `CLOSE_TIMEOUT` at the latest."""
    ending = []
    for channel in list(channels):
        channel.close(reason)
        ending.append(channel.ended)
    if ending:
        await asyncio.wait(ending)

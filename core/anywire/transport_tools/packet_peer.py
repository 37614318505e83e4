"""Channels over a wire without connections: drives a `Link` with the event loop's time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from anywire.clock import Timer
from anywire.lease import AwakeTime
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES
from anywire.transport_tools.channel import CLOSE_TIMEOUT, ChannelOwner
from anywire.transport_tools.codec import Codec, Goodbye, encoded_limit
from anywire.transport_tools.dialling import Backoff
from anywire.transport_tools.encoded_channel import EncodedChannel
from anywire.transport_tools.link import PACKET_BYTES, WINDOW_BYTES, Event, Joined, Link, Lost, Received


class PacketChannel(EncodedChannel):
    """A `Channel` for as long as one link is joined; made by `PacketPeer`."""

    def __init__(self, packets: PacketPeer, owner: ChannelOwner, codec: Codec, **bounds: Any) -> None:
        super().__init__(owner, codec, **bounds)
        self._packets = packets

    def close(self, reason: str, *, refused: bool = False) -> None:
        if not self._over:
            self.send_control(Goodbye(reason, refused))
            self._end(reason)
            self._packets.finish(reason)

    def abort(self, reason: str) -> None:
        if not self._over:
            self._end(reason)
            self._packets.stop(reason)

    def received(self, data: bytes) -> None:
        if not self._over:
            try:
                self._receive(data)
            except Exception as error:
                self._fail(error)

    def lost(self, reason: str) -> None:
        """The link is over, and nothing of it is left."""
        self._end(reason)
        if not self._ended.done():
            self._ended.set_result(None)

    def flushed(self) -> None:
        self._room.set_waiting(self._count_waiting())

    def _write(self, data: bytes) -> None:
        self._packets.send(data)

    def _count_waiting(self) -> int:
        return self._packets.link.waiting


class PacketPeer:
    """One peer behind one address: each time that a link to it is joined, the owner is given a new `PacketChannel`.

    ``send_packet`` gives a packet to the wire. It never raises, drops what it cannot send, and calls nothing here
    before it has returned. ``session`` is as for `Link`. ``lease`` is how many seconds this end may be silent.
    ``awake`` is shared by all peers of a transport. With ``dial`` this end begins, again and again while nobody
    answers, until `close`; without, it waits for the peer. ``on_idle``, unless None, is called when there was no link
    for as long as ``lease``, and again after each further ``lease``: `close` may be called in it, of a peer whose
    address is there no more. The others are as for `Link` and `EncodedChannel`. Raises `ValueError` as `Link` does.

    What comes in one turn of the event loop is acknowledged once, at the next turn.

    Call `received` for each packet from this address, `gone` when the wire says that it is not there any more, and
    `close` at the end. Everything on one event loop.
    """

    def __init__(
        self,
        owner: ChannelOwner,
        codec: Codec,
        send_packet: Callable[[bytes], None],
        *,
        session: int,
        lease: float,
        awake: AwakeTime,
        dial: bool,
        on_idle: Callable[[], None] | None = None,
        packet_bytes: int = PACKET_BYTES,
        window_bytes: int = WINDOW_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        peer: str = "a peer",
    ) -> None:
        self._owner, self._codec, self._send_packet, self._lease = owner, codec, send_packet, lease
        self._bounds = {"max_message_bytes": max_message_bytes, "buffer_bytes": buffer_bytes, "peer": peer}
        self._link_bounds = {
            "message_bytes": encoded_limit(max_message_bytes),
            "packet_bytes": packet_bytes,
            "window_bytes": window_bytes,
        }
        self._awake, self._dial, self._backoff = awake, dial, Backoff(lease / 20, lease)
        self._on_idle = on_idle
        self._closed = False
        self._channel: PacketChannel | None = None
        self._timer: Timer | None = None
        self._pending: Timer | None = None  # the next dial, or the end of closing
        self._alone: Timer | None = None  # until `on_idle`
        self._answering: asyncio.Handle | None = None
        self._armed = 0.0  # what the timer is for
        self.link = Link(b"", session, lease, **self._link_bounds)
        awake.start()
        self._await_link()
        self._open()

    def received(self, packet: bytes) -> None:
        """A packet came from this peer."""
        if not self._closed:
            self._happened(self.link.receive(packet, self._awake.now()))

    def gone(self, reason: str) -> None:
        """The wire says that this peer is not there."""
        self._happened(self.link.peer_gone(reason))

    def send(self, data: bytes) -> None:
        """For the channel: put a message into the link."""
        self.link.send(data)
        self._flush()

    def finish(self, reason: str) -> None:
        """For the channel: end the link when the peer has everything, or after `CLOSE_TIMEOUT`."""
        if self.link.state != "joined" or self.link.finished:
            self.stop(reason)
        else:
            self._set_pending(CLOSE_TIMEOUT, self.stop, reason)

    def stop(self, reason: str) -> None:
        """For the channel: end the link now."""
        session = self.link.session
        self._answer()
        self.link.close(reason)
        self._flush()
        self.link = Link(b"", session + 1, self._lease, **self._link_bounds)
        self._over(reason)

    def close(self) -> None:
        """Take part in nothing more, and dial no more; idempotent. Close the channel first, and wait until it has
        ended, if the peer is to get what was accepted."""
        if not self._closed:
            self._closed = True
            self.stop("it closed")
            for timer in (self._timer, self._pending, self._alone, self._answering):
                if timer is not None:
                    timer.cancel()
            self._awake.stop()

    def _open(self) -> None:
        if self._dial and not self._closed:
            self.link.open(self._awake.now())
            self._flush()

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Joined():
                    if self._alone is not None:
                        self._alone.cancel()
                        self._alone = None
                    self._channel = PacketChannel(self, self._owner, self._codec, **self._bounds)
                    self._owner.channel_opened(self._channel)
                case Received(message):
                    if self._channel is not None:
                        self._channel.received(message)
                case Lost(reason):
                    self._over(reason)
        self._flush()
        if self._channel is not None and self._channel.over and self.link.finished:
            self.stop("it closed")

    def _over(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        if self._alone is None:
            self._await_link()
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if channel is not None:
            channel.lost(reason)
            if channel.linked:
                self._backoff.reset()
        if self._dial and not self._closed:
            self._set_pending(self._backoff.next(), self._open)

    def _await_link(self) -> None:
        if self._on_idle is not None and not self._closed:
            self._alone = self._awake.clock.call_later(self._lease, self._idle)

    def _idle(self) -> None:
        self._await_link()
        if self._on_idle is not None and not self._awake.was_away:  # else what came meanwhile is read first
            self._on_idle()

    def _answer(self) -> None:
        """Acknowledge what has come."""
        self._answering = None
        if self.link.owes_answer:
            self._write(answer=True)

    def _write(self, *, answer: bool) -> None:
        for packet in self.link.packets(self._awake.now(), answer=answer):
            self._send_packet(packet)

    def _set_pending(self, seconds: float, callback: Callable[..., object], *args: object) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._pending = self._awake.clock.call_later(seconds, callback, *args)

    def _flush(self) -> None:
        self._write(answer=False)
        if self.link.owes_answer and self._answering is None:
            self._answering = asyncio.get_running_loop().call_soon(self._answer)
        if self._channel is not None:
            self._channel.flushed()
        due = self.link.next_tick()
        if due is None or self._closed or (self._timer is not None and due >= self._armed):
            return  # a tick that comes too early changes nothing, and sets the next one
        if self._timer is not None:
            self._timer.cancel()
        self._armed = due
        self._timer = self._awake.clock.call_later(max(0.0, due - self._awake.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._awake.was_away:
            # What came meanwhile is read before anybody is taken for silent.
            self._timer = self._awake.clock.call_later(self._awake.tick, self._tick)
            return
        self._happened(self.link.tick(self._awake.now()))

"""A link over a wire without connections: datagrams, queues, a broker's subjects. No I/O and no clock of its own.

The owner gives a `Link` every packet that came from the peer (`Link.receive`) and the time (`Link.tick`), sends what
`Link.packets` gives, and handles the events. The wire may lose packets, send them twice, in any order and late. It may
not change them (that is for checksums, and for encryption where strangers can write), nor bring one peer's packets to
another's link.

The law
    Between `Joined` and `Lost` the messages that come out are those that the peer has put in, in order, each once,
    without a gap. After `Lost` nothing of that time comes out. A message that cannot be delivered ends in `Lost`.

Sessions
    A link is the session of one end and the session of the other, two numbers that every packet names. An end that
    loses its link goes on with a greater session: what is still under way belongs to none. `Joined` is reported when
    the peer has named this end's session, so that both directions have carried a packet and old packets alone join
    nothing. A greater session of the peer than that of the link says that the peer has lost it, or is a new life.

Silence
    An end that has nothing to say sends a packet every quarter of its lease, which its hello tells to the peer. More
    than one lease of silence is a loss. So are two leases in which nothing of what is under way was acknowledged: small
    packets pass and large ones do not.
    Times are seconds of `anywire.lease.AwakeTime`, on which a pause of this process takes no time. Before a tick after
    a pause, the owner gives it the packets that have come meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Literal, NamedTuple

from anywire.errors import TransportError
from anywire.transport_tools.hellos import MAX_LEASE_MS
from anywire.transport_tools.link_numbers import Receiver, Sender
from anywire.transport_tools.link_packets import (
    DATA_HEAD,
    Ack,
    Body,
    Bye,
    Data,
    Head,
    Hello,
    pack,
    unpack,
)

PACKET_BYTES = 1200
"""Largest packet unless configured otherwise: passes every IP path without being cut."""
WINDOW_BYTES = 1024 * 1024
"""Bytes that may be under way unless configured otherwise."""
PINGS_PER_LEASE = 4


class Joined(NamedTuple):
    """Both directions work. ``hello`` is what the peer said of itself."""

    hello: bytes


class Received(NamedTuple):
    message: bytes


class Lost(NamedTuple):
    """The link is over, ``reason`` is part of a sentence. The `Link` can join again."""

    reason: str


Event = Joined | Received | Lost
State = Literal["idle", "opening", "joined", "closed"]


class Link:
    """One end of a link to one peer.

    ``hello`` is what the peer is told with `Joined`, ``session`` a number greater than that of every earlier link of
    this end (`anywire.identity.new_incarnation` gives one), ``lease`` how many seconds this end may be silent.
    ``packet_bytes`` is the largest packet that the wire carries now, 1,200 unless given: messages are cut into
    fragments. It may differ between the ends: each takes packets of any size. ``window_bytes`` is how much may be under
    way, 1 MiB unless given, ``message_bytes`` the largest message that is taken from the peer; both are the same at
    both ends.

    Raises `ValueError` for a hello that is too long for a packet, and for a lease of less than a millisecond or more
    than `MAX_LEASE_MS`.
    """

    def __init__(
        self,
        hello: bytes,
        session: int,
        lease: float,
        *,
        message_bytes: int,
        packet_bytes: int = PACKET_BYTES,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        if len(hello) + DATA_HEAD > packet_bytes:
            raise ValueError(f"a hello of {len(hello)} bytes does not fit into packets of {packet_bytes}")
        lease_ms = round(lease * 1000)
        if not 0 < lease_ms <= MAX_LEASE_MS:
            raise ValueError(f"a lease of {lease:g} s: 0.001 to {MAX_LEASE_MS / 1000:.0f} s are possible")
        self.state: State = "idle"
        self.session = session
        self.lease = lease
        self._hello = Hello(lease_ms, hello)
        self._bounds = message_bytes, packet_bytes, window_bytes
        self._peer = 0  # its session, 0 as long as its hello has not come
        self._peer_hello = Hello(0, b"")
        self._out: list[bytes] = []
        self._ack = False  # whether a fragment has come that is to be answered
        self._ack_now = False  # whether one has come out of order: each such answer tells the peer of a gap
        self._ask = False  # whether this end repeats its hello
        self._heard = self._said = 0.0
        self._renew()

    def open(self, now: float) -> None:
        """Begin to join, and go on trying until it is joined; changes nothing when that is so or under way.

        The end that knows the other's address calls it, at first and after each `Lost`; the other answers by itself.
        """
        if self.state in ("idle", "opening") and not self._ask:
            self.state, self._ask, self._heard = "opening", True, now
            self._put(self._hello)

    def send(self, message: bytes) -> None:
        """Put a message into the queue; its bytes count in `waiting` until they are acknowledged. Raises
        `TransportError` when the link is not joined."""
        if self.state != "joined":
            raise TransportError("there is no link")
        self._sender.put(message)

    @property
    def owes_answer(self) -> bool:
        """Whether something has come that `packets` has not acknowledged yet."""
        return self._ack and self.state == "joined"

    @property
    def waiting(self) -> int:
        """Bytes of messages that the peer has not acknowledged."""
        return self._sender.waiting

    @property
    def finished(self) -> bool:
        """Whether the peer has everything that was sent."""
        return self._sender.empty

    def close(self, reason: str) -> None:
        """Say goodbye and take part in nothing more; what waits is dropped. Send `packets` once after it.

        To deliver what was accepted, wait until `finished` first, for a bounded time.
        """
        if self.state != "closed":
            if self._peer:
                self._put(Bye(reason))
            self.state = "closed"
            self._renew()

    def peer_gone(self, reason: str) -> list[Event]:
        """The wire says that the peer is not there any more."""
        return self._lose(reason) if self.state == "joined" else []

    def receive(self, packet: bytes, now: float) -> list[Event]:
        """A packet came from the peer. What cannot be read, or is of no session of this link, changes nothing."""
        unpacked = unpack(packet)
        if unpacked is None or self.state == "closed":
            return []
        head, body = unpacked
        if isinstance(body, Hello):
            return self._receive_hello(head, body, now)
        if head.sender != self._peer or head.receiver != self.session:
            if not isinstance(body, Bye) and head.sender >= self._peer:
                # It believes in a link that is none. A hello tells it so.
                self._put(self._hello)
            return []
        if isinstance(body, Bye):
            return self._lose(body.reason or "it said goodbye") if self.state == "joined" else []
        events = self._join()
        self._heard = now
        self._sender.acknowledged(head.awaits, now, answer=isinstance(body, Ack))
        if isinstance(body, Data):
            self._ack = True
            self._ack_now |= not self._receiver.in_order(body)
            try:
                for message in self._receiver.receive(body):
                    events.append(Received(message))
            except TransportError as error:
                self._put(Bye(str(error)))
                events += self._lose(str(error))
        return events

    def tick(self, now: float) -> list[Event]:
        """Time has passed: call it at `next_tick` or a little later, and send `packets` after it."""
        if self.state == "opening":
            if now - self._heard > self.lease:
                self._forget_peer(now)
            if self._ask and now - self._said >= self.lease / PINGS_PER_LEASE:
                self._put(self._hello)
        elif self.state == "joined":
            if now - self._heard > self._peer_lease:
                return self._lose(f"it was silent for {now - self._heard:.2f} s")
            if self._sender.stuck(now, 2 * max(self._peer_lease, self.lease)):
                self._put(Bye("what was sent does not arrive"))
                return self._lose("nothing of what was sent was acknowledged for two leases")
            self._sender.tick(now)
            if now - self._said >= self.lease / PINGS_PER_LEASE:
                self._put(Ack())
        return []

    def next_tick(self) -> float | None:
        """When `tick` is to be called, None when there is no need."""
        if self.state == "opening":
            return min(self._said + self.lease / PINGS_PER_LEASE if self._ask else inf, self._heard + self.lease)
        if self.state == "joined":
            due = inf if self._sender.due is None else self._sender.due
            return min(self._said + self.lease / PINGS_PER_LEASE, self._heard + self._peer_lease, due)
        return None

    def packets(self, now: float, *, answer: bool = True) -> Iterator[bytes]:
        """What is to be given to the wire now: read it to its end after each of the calls above.

        Without ``answer``, what came in order is not acknowledged yet: the caller reads `packets` once more, with it,
        when it has received everything that is there.
        """
        out, self._out = self._out, []
        if out:
            self._said = now
            yield from out
        if self.state == "joined":
            for data in self._sender.fragments(now):
                self._ack, self._ack_now, self._said = False, False, now
                yield self._pack(data)
            if self._ack and (answer or self._ack_now):
                self._ack, self._ack_now, self._said = False, False, now
                yield self._pack(Ack())

    @property
    def _peer_lease(self) -> float:
        return self._peer_hello.lease_ms / 1000

    def _receive_hello(self, head: Head, hello: Hello, now: float) -> list[Event]:
        events: list[Event] = []
        if head.sender < self._peer and self.state != "idle":
            return []  # of an earlier session: it was late
        if self.state == "joined":
            if head.sender == self._peer:
                if head.receiver == self.session:  # it has not heard from this end yet
                    self._heard, self._ack = now, True
                return []
            events += self._lose("it has begun anew")
        if head.sender != self._peer:
            self._peer, self._peer_hello = head.sender, hello
            self._renew()
        self.state, self._heard = "opening", now
        if head.receiver == self.session:
            self._ack = True
            return events + self._join()
        self._put(self._hello)
        return events

    def _join(self) -> list[Event]:
        if self.state == "joined":
            return []
        self.state, self._ask = "joined", False
        return [Joined(self._peer_hello.data)]

    def _lose(self, reason: str) -> list[Event]:
        self.state = "idle"
        self.session += 1
        self._renew()
        return [Lost(reason)]

    def _forget_peer(self, now: float) -> None:
        """Nothing came while this end tried to join: the peer may be another session now, also a lesser one."""
        if self._peer:
            self._peer = 0
            self.session += 1
        self._heard = now
        if not self._ask:
            self.state = "idle"

    def _renew(self) -> None:
        """Begin to count anew, both ways."""
        message_bytes, packet_bytes, window_bytes = self._bounds
        self._sender = Sender(packet_bytes, window_bytes, self.lease / 4)
        self._receiver = Receiver(message_bytes, window_bytes)
        self._ack = self._ack_now = False

    def _put(self, body: Body) -> None:
        self._out.append(self._pack(body))

    def _pack(self, body: Body) -> bytes:
        return pack(Head(self.session, self._peer, self._receiver.awaits), body)

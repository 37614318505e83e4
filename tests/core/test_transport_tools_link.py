"""The link for wires without connections: its law under whatever the wire does, and each rule by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anywire.errors import TransportError
from anywire.transport_tools.link import Joined, Link, Lost, Received
from anywire.transport_tools.link_numbers import PACKET_COST
from anywire.transport_tools.link_packets import Data, unpack

LEASE = 1.0
PACKET = 100
LIMIT = 10_000


class End:
    """A link with its wire to the other end, and what it has reported: one list of messages for each time joined."""

    def __init__(self, name: str, session: int) -> None:
        self.name = name
        self.link = new_link(name, session)
        self.other: End
        self.wire: list[bytes] = []
        """Packets on their way to the other end."""
        self.asks = False
        self.put: list[list[bytes]] = []
        """What was put in, for each time joined."""
        self.got: list[list[bytes]] = []
        self.hellos: list[bytes] = []
        self.lost: list[str] = []

    def happened(self, events: list[Joined | Received | Lost], now: float) -> None:
        for event in events:
            match event:
                case Joined(hello):
                    assert len(self.got) == len(self.lost), "joined twice"
                    self.hellos.append(hello)
                    self.put.append([])
                    self.got.append([])
                case Received(message):
                    assert len(self.got) == len(self.lost) + 1, "received without a link"
                    self.got[-1].append(message)
                case Lost(reason):
                    assert len(self.got) == len(self.lost) + 1, "lost twice"
                    self.lost.append(reason)
        if self.asks:
            self.link.open(now)
        self.wire += self.link.packets(now)

    @property
    def joined(self) -> bool:
        return len(self.got) == len(self.lost) + 1

    def send(self, size: int, now: float) -> None:
        if self.joined:
            message = f"{self.name}/{len(self.put)}/{len(self.put[-1])}/".encode().ljust(size, b".")
            self.put[-1].append(message)
            self.link.send(message)
            self.wire += self.link.packets(now)

    def receive(self, packet: bytes, now: float) -> None:
        assert len(packet) <= PACKET
        self.happened(self.link.receive(packet, now), now)

    def restart(self, now: float) -> None:
        """Another life, which knows nothing of the one before."""
        if self.joined:
            self.lost.append("restarted")
        self.link = new_link(self.name, self.link.session + 1000)
        self.happened([], now)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.a, self.b = End("a", 1), End("b", 500)
        self.a.other, self.b.other = self.b, self.a
        self.ends: tuple[End, ...] = (self.a, self.b)
        self.a.asks = True
        self.a.happened([], self.now)

    def tick(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [(at, each) for each in self.ends if (at := each.link.next_tick()) is not None and at <= end]
            if not due:
                break
            at, each = min(due, key=lambda pair: pair[0])
            self.now = max(self.now, at) + 1e-6
            each.happened(each.link.tick(self.now), self.now)
        self.now = max(self.now, end)

    def deliver_all(self) -> None:
        while any(each.wire for each in self.ends):
            for each in self.ends:
                packets, each.wire = each.wire, []
                for packet in packets:
                    each.other.receive(packet, self.now)

    def heal(self, seconds: float) -> None:
        """A wire without faults, for so long."""
        end = self.now + seconds
        while self.now < end:
            self.deliver_all()
            self.tick(LEASE / 20)
        self.deliver_all()

    def check(self) -> None:
        for each in self.ends:
            sources = each.other.put
            matched = []
            for got in filter(None, each.got):
                source = next(number for number, put in enumerate(sources) if put[:1] == got[:1])
                assert got == sources[source][: len(got)], "a gap, a repetition or another order"
                matched.append(source)
            assert len(set(matched)) == len(matched), "one link's messages came out of two"
            assert matched == sorted(matched)


def new_link(name: str, session: int) -> Link:
    return Link(name.encode(), session, LEASE, message_bytes=LIMIT, packet_bytes=PACKET, window_bytes=6000)


def joined_world() -> World:
    world = World()
    world.deliver_all()
    assert world.a.joined
    assert world.b.joined
    return world


ends = st.integers(0, 1)
actions = st.one_of(
    st.tuples(st.just("send"), ends, st.integers(20, 700)),
    st.tuples(st.just("deliver"), ends, st.integers(0, 50)),
    st.tuples(st.just("deliver"), ends, st.just(0)),
    st.tuples(st.just("duplicate"), ends, st.integers(0, 50)),
    st.tuples(st.just("drop"), ends, st.integers(0, 50)),
    st.tuples(st.just("all"), ends, st.just(0)),
    st.tuples(st.just("tick"), ends, st.integers(1, 30)),
    st.tuples(st.just("restart"), ends, st.just(0)),
    st.tuples(st.just("gone"), ends, st.just(0)),
)


def act(world: World, action: str, end: End, number: int) -> None:
    match action:
        case "send":
            end.send(number, world.now)
        case "deliver" | "duplicate" | "drop" if end.wire:
            index = number % len(end.wire)
            packet = end.wire[index] if action == "duplicate" else end.wire.pop(index)
            if action != "drop":
                end.other.receive(packet, world.now)
        case "all":
            packets, end.wire = end.wire, []
            for packet in packets:
                end.other.receive(packet, world.now)
        case "tick":
            world.tick(number * LEASE / 10)
        case "restart":
            end.restart(world.now)
        case "gone":
            end.happened(end.link.peer_gone("it is said to be gone"), world.now)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), actions), max_size=120))
def test_whatever_the_wire_does_messages_come_in_order_and_once_or_the_link_is_lost(
    steps: list[tuple[bool, tuple[str, int, int]]],
) -> None:
    world = World()
    for settled, (action, end, number) in steps:
        act(world, action, world.ends[end], number)
        if settled:
            world.deliver_all()
        world.check()
    # Once the wire is well, both join, and what they have put in since then comes out.
    world.heal(4 * LEASE)
    for each in world.ends:
        each.send(500, world.now)
    world.heal(2 * LEASE)
    world.check()
    for each in world.ends:
        assert each.joined
        assert each.got[-1] == each.other.put[-1]
        assert each.link.finished


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_a_bad_wire_costs_time_and_no_message(seed: int, percent: int) -> None:
    """No faults that last: nothing is lost however many packets are dropped, repeated and delayed."""
    world, chance = joined_world(), random.Random(seed)
    for _ in range(60):
        for each in world.ends:
            each.send(300, world.now)
        for _turn in range(8):
            for each in world.ends:
                packets, each.wire = each.wire, []
                chance.shuffle(packets)
                for packet in packets:
                    fate = chance.randrange(100)
                    if fate < percent:
                        continue
                    if fate < 2 * percent:
                        each.wire.append(packet)
                    each.other.receive(packet, world.now)
            world.tick(LEASE / 50)
    world.heal(2 * LEASE)
    world.check()
    for each in world.ends:
        assert not each.lost
        assert len(each.got[-1]) == 60


def test_both_ends_learn_what_the_other_says_of_itself() -> None:
    world = joined_world()
    assert world.a.hellos == [b"b"]
    assert world.b.hellos == [b"a"]


def test_a_message_is_cut_into_packets_and_joined_again() -> None:
    world = joined_world()
    world.a.send(LIMIT, world.now)
    assert world.a.link.waiting == LIMIT
    world.deliver_all()
    assert world.b.got == [world.a.put[0]]
    assert world.a.link.waiting == 0
    assert world.a.link.finished


def test_no_more_than_the_window_is_under_way() -> None:
    world = joined_world()
    for _ in range(10):
        world.a.send(1000, world.now)
    sizes = [len(body.fragment) + PACKET_COST for _, body in map(parsed, world.a.wire) if isinstance(body, Data)]
    assert 6000 <= sum(sizes) < 6000 + sizes[0]
    assert world.a.link.waiting == 10_000


def parsed(packet: bytes) -> tuple[object, object]:
    unpacked = unpack(packet)
    assert unpacked is not None
    return unpacked


@pytest.mark.parametrize("silence", [0.9, 1.1])
def test_more_than_a_lease_of_silence_is_a_loss(silence: float) -> None:
    world = joined_world()
    world.tick(silence * LEASE)  # nothing is delivered
    assert [bool(each.lost) for each in world.ends] == [silence > 1] * 2
    world.heal(LEASE)
    assert all(each.joined for each in world.ends)


def test_an_end_with_nothing_to_say_pings_four_times_a_lease() -> None:
    world = joined_world()
    world.tick(0.99 * LEASE)
    assert [len(each.wire) for each in world.ends] == [3, 3]
    world.heal(10 * LEASE)
    assert not world.a.lost
    assert not world.b.lost


def test_one_that_was_paused_finds_its_peer_again() -> None:
    """Only one end has noticed: the other one learns of it as soon as it speaks."""
    world = joined_world()
    paused, awake = world.a, world.b
    world.ends = (awake,)
    world.tick(2 * LEASE)
    assert awake.lost
    assert not paused.lost
    world.ends = (paused, awake)
    # Awake time: for the paused one nothing has passed.
    awake.wire.clear()
    paused.wire.append(next(iter(ping(paused))))
    world.deliver_all()
    assert paused.lost == ["it has begun anew"]
    assert paused.joined
    assert awake.joined


def ping(end: End) -> list[bytes]:
    end.link.send(b"?")
    end.put[-1].append(b"?")
    return list(end.link.packets(100.0))


def test_a_goodbye_is_a_loss_at_once_with_its_reason() -> None:
    world = joined_world()
    world.a.asks = False
    world.a.link.close("the hub closed")
    world.a.wire += world.a.link.packets(world.now)
    world.deliver_all()
    assert world.b.lost == ["the hub closed"]
    assert world.a.link.next_tick() is None
    world.b.link.open(world.now)
    world.b.wire += world.b.link.packets(world.now)
    world.deliver_all()
    assert not world.b.joined


def test_a_wire_that_carries_no_large_packets_is_a_loss() -> None:
    world = joined_world()
    world.a.send(1000, world.now)
    for _ in range(60):
        world.a.wire = [packet for packet in world.a.wire if len(packet) < PACKET]
        world.deliver_all()
        world.tick(LEASE / 20)
        if world.a.lost:
            break
    assert world.a.lost == ["nothing of what was sent was acknowledged for two leases"]


def test_a_message_over_the_limit_ends_the_link_before_it_is_kept() -> None:
    world = joined_world()
    world.a.send(LIMIT + 1, world.now)
    world.deliver_all()
    assert f"limit is {LIMIT}" in world.b.lost[0]
    assert f"limit is {LIMIT}" in world.a.lost[0]
    assert world.b.got[0] == []


def test_a_late_hello_of_an_earlier_session_changes_nothing() -> None:
    world = World()
    early = list(world.a.wire)
    world.deliver_all()
    world.a.restart(world.now)
    world.deliver_all()
    assert world.b.lost == ["it has begun anew"]
    for packet in early:
        world.b.receive(packet, world.now)
    world.deliver_all()
    assert len(world.b.lost) == 1
    assert world.b.joined


def test_old_packets_alone_join_nothing() -> None:
    world = World()
    kept: list[bytes] = []
    for _ in range(3):
        for each in world.ends:
            packets, each.wire = each.wire, []
            kept += packets if each is world.a else []
            for packet in packets:
                each.other.receive(packet, world.now)
    assert world.b.joined
    fresh = End("b", 9000)
    for packet in kept:
        fresh.receive(packet, world.now)
    assert not fresh.joined


@pytest.mark.parametrize("packet", [b"", b"\x01", b"\x02" * 40, b"\x01\x09" + bytes(24), b"\x01\x01" + bytes(24)])
def test_what_is_no_packet_changes_nothing(packet: bytes) -> None:
    world = joined_world()
    assert world.a.link.receive(packet, world.now) == []
    assert world.a.link.state == "joined"


def test_without_a_link_nothing_is_sent() -> None:
    link = new_link("a", 1)
    with pytest.raises(TransportError):
        link.send(b"x")
    with pytest.raises(ValueError, match="hello"):
        new_link("a" * PACKET, 1)


def test_a_restarted_peer_with_a_lesser_session_joins_after_a_lease() -> None:
    """Its clock was set back."""
    world = joined_world()
    world.b.link = new_link("b", 2)
    world.b.lost.append("restarted")
    world.heal(3 * LEASE)
    assert world.a.joined
    assert world.b.joined
    assert world.b.link.session < 500

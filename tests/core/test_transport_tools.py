"""What `anywire.transport_tools` promises, piece by piece and without a wire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire import errors, once_log
from anywire.messages import (
    MAX_DELTAS,
    MAX_PROOF_CHARS,
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.testing.clock import SimulatedClock
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.transport_tools import (
    Accepted,
    AgentLinks,
    Backoff,
    BoundedOptions,
    ChannelHub,
    Codec,
    EncodedChannel,
    Goodbye,
    Guard,
    HubLinks,
    LinkRefused,
    MayCongest,
    NewestStatus,
    OnceLog,
    StopDialling,
    UnknownKind,
    Unpacker,
    WriteRoom,
    check_payload,
    frame,
    keep_dialling,
    payload_bytes,
)


class Own(msgspec.Struct, frozen=True):
    text: str


CODEC = Codec(Own)
MESSAGES = [
    HubInfo("h", 1),
    AgentInfo("a", 2**63, capabilities=("chat",)),
    AgentStatus("a", 2, "ready", '[{"model":"m"}]', resources={"x": 1.5}),
    TaskRequest("h", "t", 1, "chat", "m", '{"a": "ü€😀"}'),
    Chunk("h", "t", 1, 0, ("a", "", "😀"), final=True),
    Cancel("h", "t", 1, "why"),
    Credit("h", "t", 1, 3),
    Command("h", "c", "load", '{"model": "ü"}', ("child", "agent")),
    CommandResult("h", "c", 1, "{}", True, "why"),
    Progress("h", "t", 1, "loading", "half of it"),
    Accepted(),
    Goodbye("why", True),
    Own("mine"),
]


# Codec and frames


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: Any) -> None:
    assert CODEC.decode(CODEC.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [Cancel("\ud800", "t", 1), AgentStatus("a", 2**64), Credit("h", "t", 1, object()), object()],  # type: ignore[arg-type]
)
def test_what_cannot_be_encoded_is_an_error_of_the_framework(message: Any) -> None:
    with pytest.raises(errors.TransportError) as caught:
        CODEC.encode(message)
    assert caught.value.__cause__ is not None


@given(st.binary(max_size=60))
def test_bytes_are_a_message_or_an_error_of_the_framework(data: bytes) -> None:
    with contextlib.suppress(errors.TransportError):
        CODEC.decode(data)


def test_nesting_is_an_error_of_the_framework() -> None:
    with pytest.raises(errors.TransportError):
        CODEC.decode(b"\x00\x81\xa1x" + b"\x91" * 100_000 + b"\x01")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20), st.lists(st.integers(1, 30), min_size=1))
def test_frames_come_out_however_the_stream_is_cut(frames: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(frame, frames))
    unpacker, found, at = Unpacker(40), list[bytes](), 0
    while at < len(stream):
        for size in sizes:
            found += unpacker.feed(stream[at : at + size])
            at += size
    assert found == frames


def test_a_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    unpacker = Unpacker(10)
    feeding = unpacker.feed(frame(b"0123456789") + (11).to_bytes(4, "big"))
    assert next(feeding) == b"0123456789"
    with pytest.raises(errors.TransportError, match=r"11 bytes.*max_message_bytes"):
        next(feeding)


@pytest.mark.parametrize("piece", [4096, 64 * 1024 * 1024], ids=["pieces", "whole"])
def test_the_work_of_unpacking_is_linear(piece: int) -> None:
    """16 times as much takes about 16 times as long, and not 256 times."""

    def seconds(stream: bytes) -> float:
        times = []
        for _ in range(3):
            unpacker, begun = Unpacker(len(stream)), time.process_time()
            for at in range(0, len(stream), piece):
                for _ in unpacker.feed(stream[at : at + piece]):
                    pass
            times.append(time.process_time() - begun)
        return min(times)

    for make in (lambda count: frame(b"x" * 100) * count, lambda count: frame(b"x" * 100 * count)):
        assert seconds(make(160_000)) < 60 * max(seconds(make(10_000)), 0.001)


# Room


async def test_room_is_for_the_limit_and_one_message_after_drain() -> None:
    room = WriteRoom(800, "agent a")
    room.admit(10_000)  # nothing waits: of any size
    room.set_waiting(10_000)
    with pytest.raises(errors.Congested, match=r"agent a.*800 \(buffer_bytes\)"):
        room.admit(1)
    draining = asyncio.create_task(room.drain())
    await asyncio.sleep(0)
    room.set_waiting(101)
    await asyncio.sleep(0)
    assert not draining.done()
    room.set_waiting(100)
    await draining
    room.admit(5000)
    room.set_waiting(5100)
    with pytest.raises(errors.Congested):
        room.admit(1)


async def test_those_who_wait_for_room_go_on_when_the_peer_is_lost() -> None:
    room = WriteRoom(800)
    room.set_waiting(801)
    waiting = [asyncio.create_task(room.drain()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    room.close()
    await asyncio.gather(*waiting[1:])


def test_the_newest_status_waits_for_room_and_older_ones_are_left_out() -> None:
    room, sent = WriteRoom(800), list[str]()
    newest = NewestStatus(room, lambda status: sent.append(status.detail))
    newest.put(AgentStatus("a", 1, detail="1"))
    room.set_waiting(500)
    newest.put(AgentStatus("a", 1, detail="2"))
    newest.put(AgentStatus("a", 1, detail="3"))
    assert sent == ["1"]
    room.set_waiting(100)
    assert sent == ["1", "3"]
    room.set_waiting(500)
    room.set_waiting(0)
    assert sent == ["1", "3"]


# Callbacks


async def opened(guard: Guard | None = None) -> Guard:
    """A guard that lets callbacks through."""
    guard, through = guard or Guard(), asyncio.Event()
    guard.call(through.set)
    guard.open()
    await through.wait()
    return guard


@pytest.mark.parametrize("wrapped", [False, True], ids=["awaited", "wait_for"])
async def test_no_callback_before_open_has_returned_to_its_caller(wrapped: bool) -> None:
    calls: list[object] = []
    third = asyncio.Event()

    async def open_end() -> Guard:
        guard = Guard()
        guard.call(calls.append, 1)
        await asyncio.sleep(0)
        guard.call(calls.append, 2)
        guard.open()
        return guard

    guard = await (asyncio.wait_for(open_end(), 5) if wrapped else open_end())
    guard.call(calls.append, 3)
    guard.call(third.set)
    assert calls == []
    await third.wait()
    assert calls == [1, 2, 3]


async def test_no_callback_after_close_not_even_of_what_is_under_way() -> None:
    guard, calls = await opened(), list[object]()

    def closes() -> None:
        guard.call(calls.append, "follows")
        guard.close()

    guard.call(closes)
    guard.call(calls.append, "late")
    assert calls == []


async def test_a_callback_inside_of_another_follows_it() -> None:
    guard, calls = await opened(), list[object]()

    def first() -> None:
        guard.call(calls.append, "second")
        calls.append("first")

    guard.call(first)
    assert calls == ["first", "second"]


async def test_a_callback_that_raises_is_logged_with_its_name_and_costs_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard, calls = Guard(), list[object]()
    sink = RecordingAgentSink(on_task=lambda task, reply: 1 / 0)  # type: ignore[arg-type]
    guard.call(sink.task_received, "h", 1, MESSAGES[3], None)  # type: ignore[arg-type]
    guard.call(calls.append, "next")
    await opened(guard)
    assert calls == ["next"]
    assert "RecordingAgentSink.task_received raised" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_repeats_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    once = OnceLog(logging.getLogger("test"), limit=2)
    for key in "aabca":
        once.warn(key, "about %s", key)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["about a", "about b", "about c", "about a"]


def test_what_has_ended_is_a_warning_again_when_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    once = OnceLog(logging.getLogger("test"))
    for _ in range(3):
        once.warn("key", "refused")
        once.reset()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3


def test_ten_thousand_different_mistakes_are_a_hundred_warnings_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("anywire.once_log.time.monotonic", lambda: now[0])
    once = OnceLog(logging.getLogger("test"))

    def warnings() -> int:
        caplog.clear()
        for number in range(10_000):
            once.warn((now[0], number), "stranger %d", number)
        return len(caplog.records)

    with caplog.at_level(logging.WARNING):
        assert warnings() == once_log.LINES + 1, "one line says that others are left out"
        assert warnings() == 0
        now[0] += once_log.PERIOD
        assert warnings() == once_log.LINES + 1


# Links


async def hub_links() -> tuple[HubLinks[str], RecordingHubSink]:
    sink = RecordingHubSink()
    return HubLinks(sink, await opened()), sink


def named(sink: RecordingHubSink | RecordingAgentSink) -> list[tuple[object, ...]]:
    return [event[:3] for event in sink.events]


async def test_of_two_lives_the_greater_wins_and_the_lesser_is_lost_first() -> None:
    links, sink = await hub_links()
    assert links.join("old", AgentInfo("a", 1)) is None
    assert links.join("new", AgentInfo("a", 2)) == "old"
    assert links.get("a") == "new"
    with pytest.raises(LinkRefused, match="incarnation 2"):
        links.join("late", AgentInfo("a", 1))
    links.ended("old", "its connection broke")
    links.ended("late", "refused")
    with pytest.raises(errors.TransportError, match="has not joined"):
        links.received("old", Chunk("h", "t", 1, 0))
    assert named(sink) == [("joined", "a", 1), ("lost", "a", 1), ("joined", "a", 2)]
    links.ended("new", "it closed")
    with pytest.raises(errors.AgentUnavailable, match="'a'"):
        links.get("a")
    links.join("again", AgentInfo("a", 1))
    assert named(sink)[3:] == [("lost", "a", 2), ("joined", "a", 1)]


async def test_the_same_life_by_a_new_connection_replaces_the_old_connection() -> None:
    links, sink = await hub_links()
    links.join("one", AgentInfo("a", 1))
    assert links.join("two", AgentInfo("a", 1)) == "one"
    assert named(sink) == [("joined", "a", 1), ("lost", "a", 1), ("joined", "a", 1)]
    with pytest.raises(errors.TransportError, match="joined as agent a already"):
        links.join("two", AgentInfo("b", 1))
    assert len(sink.events) == 3


async def test_a_hub_names_the_link_and_takes_only_what_an_agent_says() -> None:
    links, sink = await hub_links()
    links.join("one", AgentInfo("a", 7))
    forged = AgentStatus("b", 99)
    links.received("one", forged)
    assert sink.events[-1] == ("reported", "a", 7, forged)
    for message in (Cancel("h", "t", 1), TaskRequest("h", "t", 1, "chat", "m", ""), Accepted(), object()):
        with pytest.raises(errors.TransportError):
            links.received("one", message)
    assert len(sink.events) == 2


async def test_a_hub_takes_results_and_progress_by_their_link() -> None:
    links, sink = await hub_links()
    links.join("one", AgentInfo("a", 7))
    for message in (CommandResult("other", "c", 3), Progress("other", "t", 2, "tool")):
        links.received("one", message)
        assert sink.events[-1][3:] == (message, "a", 7)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [("3.0", "protocol version 3.0, this end 2.1"), ("2.3", "protocol version 2.3"), ("", "no protocol version")],
)
async def test_a_peer_of_another_version_is_refused_and_both_sentences_name_the_other_end(
    theirs: str, said: str
) -> None:
    sink = RecordingHubSink()
    links: HubLinks[str] = HubLinks(sink, await opened(), HubInfo("h\x1b", 1))
    with pytest.raises(LinkRefused) as caught:
        links.join("one", AgentInfo("a\n", 1, protocol=theirs))
    assert str(caught.value).startswith(f"agent a : it speaks {said}")
    ours = f"hub h : it speaks protocol version 2.1, this end {theirs or 'none'}"
    assert caught.value.for_peer.startswith(ours)
    links.join("one", AgentInfo("a", 1, protocol="2.0"))
    assert named(sink) == [("joined", "a", 1)]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (AgentInfo("", 1), "its id has 0 characters"),
        (AgentInfo("a\n", 1), "control characters"),
        (AgentInfo("a", -1), "its incarnation is -1"),
        (AgentInfo("a", 1, lease_ms=10**12), "its lease_ms is"),
        (AgentInfo("a", 1, lease_ms=0), "its lease_ms is 0"),
        (AgentInfo("a", 1, proof="x" * (MAX_PROOF_CHARS + 1)), "its proof is no printable text"),
        (AgentInfo("a", 1, proof="x\n"), "its proof is no printable text"),
    ],
)
async def test_a_peer_that_cannot_be_is_refused(info: AgentInfo, said: str) -> None:
    links, sink = await hub_links()
    with pytest.raises(LinkRefused, match=said):
        links.join("one", info)
    assert not sink.events


async def test_where_a_transport_checks_versions_elsewhere_links_do_not() -> None:
    links, sink = await hub_links()
    links.join("one", AgentInfo("a", 1, protocol="9.9"))
    assert named(sink) == [("joined", "a", 1)]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_only_what_a_caller_waits_for_is_counted_and_congests(message: Any) -> None:
    bounded = isinstance(message, TaskRequest | Chunk | Command | CommandResult | Progress)
    assert isinstance(message, MayCongest) is bounded
    assert (payload_bytes(message) > 0) is bounded


def test_a_chunk_of_too_many_empty_deltas_is_too_large() -> None:
    assert check_payload(Chunk("h", "t", 1, 0, ("",) * MAX_DELTAS), 100) == 0
    for measure in (payload_bytes, lambda chunk: check_payload(chunk, 100)):
        with pytest.raises(errors.PayloadTooLarge, match="deltas"):
            measure(Chunk("h", "t", 1, 0, ("",) * (MAX_DELTAS + 1)))


def test_payload_is_the_bytes_of_all_texts() -> None:
    assert payload_bytes(TaskRequest("h", "t", 1, "chat", "m", "ü", resume="abc", hints="{}", tenant="x")) == 7
    assert payload_bytes(Command("h", "c", "load", "ü€", ("target",))) == 5
    assert payload_bytes(CommandResult("h", "c", 0, "ü€", error="abc")) == 8
    assert payload_bytes(Progress("h", "t", 1, "tool", "ü")) == 2
    for wrong in (Chunk("h", "t", 1, 0, None), Command("h", "c", "load", 3), Progress("h", "t", 1, "tool", None)):  # type: ignore[arg-type]
        with pytest.raises(errors.TransportError, match="where its text should be"):
            payload_bytes(wrong)
        with pytest.raises(errors.TransportError, match="where its text should be"):
            check_payload(wrong, 100)


def test_a_kind_that_is_gone_is_unknown() -> None:
    with pytest.raises(errors.TransportError, match="its kind is unknown"):
        CODEC.decode(b"\x07\x82\xa6hub_id\xa1h\xa6reason\xa0")


class Pipe(EncodedChannel):
    """What it is told to write, it keeps."""

    def close(self, reason: str, *, refused: bool = False) -> None:
        self._end(reason)

    abort = close
    receive = EncodedChannel._receive


async def test_a_kind_of_a_neighbouring_version_is_ignored_once_a_peer_has_joined(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = RecordingHubSink()
    hub = ChannelHub(HubInfo("h", 1), sink)
    await opened(hub.guard)
    channel = Pipe(hub, CODEC, peer="agent a")
    channel._write = lambda data: None  # type: ignore[method-assign]
    channel._count_waiting = lambda: 0  # type: ignore[method-assign]
    hub.channel_opened(channel)
    with pytest.raises(UnknownKind):
        channel.receive(b"\x7f\x80")
    channel.receive(CODEC.encode(AgentInfo("a", 1, protocol="2.1")))
    for _ in range(2):
        channel.receive(b"\x7f\x80")
    channel.receive(CODEC.encode(AgentStatus("a", 1)))
    assert named(sink) == [("joined", "a", 1), ("reported", "a", 1)]
    assert caplog.text.count("what this version ignores") == 1


async def test_an_agent_s_links_follow_the_same_rules() -> None:
    sink = RecordingAgentSink()
    links: AgentLinks[str] = AgentLinks(sink, await opened())
    links.join("old", HubInfo("h", 1))
    assert links.join("new", HubInfo("h", 2)) == "old"
    with pytest.raises(LinkRefused):
        links.check("h", 1)
    for message in (MESSAGES[3], MESSAGES[5], MESSAGES[6], MESSAGES[7]):
        links.received("new", message, "reply")  # type: ignore[arg-type]
    with pytest.raises(errors.TransportError):
        links.received("new", Chunk("h", "t", 1, 0), "reply")  # type: ignore[arg-type]
    links.ended("new", "it closed")
    assert [event[0] for event in sink.events] == [
        "hub_joined",
        "hub_lost",
        "hub_joined",
        "task",
        "cancel",
        "credit",
        "command",
        "hub_lost",
    ]


# Dialling


def test_pauses_grow_to_a_ceiling_and_begin_anew() -> None:
    backoff = Backoff(0.1, 0.5, lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    backoff.reset()
    assert backoff.next() == 0.1
    spread = [Backoff(1.0, 1.0).next() for _ in range(100)]
    assert 0 <= min(spread) < 0.3 < 0.7 < max(spread) <= 1


async def test_dialling_goes_on_whatever_an_attempt_raises(caplog: pytest.LogCaptureFixture) -> None:
    clock, pauses = SimulatedClock(), list[float]()
    outcomes: list[Any] = [OSError("nobody"), OSError("nobody"), ValueError("a bug"), False, True, False, StopDialling]

    async def attempt() -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, bool):
            return outcome
        raise outcome

    def pause(low: float, high: float) -> float:
        pauses.append(high)
        return high

    dialling = asyncio.create_task(keep_dialling(attempt, "there", clock=clock, backoff=Backoff(1, 100, pause)))
    while not dialling.done():
        await asyncio.sleep(0)
        clock.advance(100)
    await dialling
    assert pauses == [1, 2, 4, 8, 1, 2]
    assert [record.levelname for record in caplog.records if "nobody" in record.getMessage()] == ["WARNING"]
    assert "a bug" in caplog.text


def test_both_bounds_are_options_and_settings() -> None:
    assert BoundedOptions().bounds() == {"max_message_bytes": "33554432", "buffer_bytes": "4194304"}

"""The compiled packers against the library they stand in for: the same bytes, for every type and value."""

from __future__ import annotations

import contextlib
import dataclasses
from itertools import product
from typing import Any, get_type_hints

import msgspec
import pytest
from cyclonedds.idl._support import Endianness
from cyclonedds.idl.types import int32, int64, sequence, uint64
from hypothesis import given
from hypothesis import strategies as st

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import AgentInfo, AgentStatus, Chunk, Command, CommandResult, Progress, TaskRequest
from anywire.offers import MAX_OFFERS_BYTES, offers, offers_text
from anywire_dds import hello, presence, types, wire
from anywire_dds.cdr import KNOWN_BYTES, LONG, Malformed, codec
from anywire_dds.endpoints import _TYPES, CODECS

ALL = sorted({cls for plane in _TYPES.values() for cls in plane.values()}, key=lambda cls: cls.__name__)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    uint64: st.integers(0, 2**64 - 1),
    int64: st.integers(-(2**63), 2**63 - 1),
    int32: st.integers(-(2**31), 2**31 - 1),
    bool: st.booleans(),
    str: TEXT,
    sequence[str]: st.lists(TEXT, max_size=5).map(tuple),
}


def samples(cls: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    hints = get_type_hints(cls, include_extras=True)
    return st.tuples(*(VALUES[hints[field.name]] for field in dataclasses.fields(cls)))


def library(cls: Any, values: tuple[Any, ...], **options: Any) -> bytes:
    """What the library writes, padded as it pads before it hands it to DDS."""
    data: bytes = cls(*(list(value) if isinstance(value, tuple) else value for value in values)).serialize(**options)
    return data.ljust(len(data) + 3 & ~3, b"\0")


@pytest.mark.parametrize("cls", ALL)
@given(data=st.data())
def test_same_bytes_as_the_library_and_back(cls: Any, data: st.DataObject) -> None:
    values = data.draw(samples(cls))
    packed = codec(cls).pack(*values)
    assert packed == library(cls, values)
    assert codec(cls).unpack(packed) == values


@pytest.mark.parametrize("used", ["tenant", "more", "prefer", "avoid", ""])
@given(values=samples(types.TaskRequest))
def test_members_that_are_empty_as_a_rule_are_packed_as_others(used: str, values: tuple[Any, ...]) -> None:
    names = [field.name for field in dataclasses.fields(types.TaskRequest)]
    rare = names[names.index("tenant") :]
    members = dict(zip(names, values, strict=True))
    members |= {name: type(members[name])() for name in rare if name != used}
    packed = CODECS["request"].pack(*members.values())
    assert packed == library(types.TaskRequest, tuple(members.values()))
    assert CODECS["request"].unpack(packed) == tuple(members.values())


@pytest.mark.parametrize("tenant", ["bench", "é" * KNOWN_BYTES], ids=["remembered", "too long for that"])
def test_rare_members_that_come_again_are_read_as_the_first_time(tenant: str) -> None:
    unpack, long = CODECS["request"].unpack, "x" * LONG
    for _ in range(2):
        for body, parent, avoid in product(("{}", long), ("", "p"), ((), ("a", "é"))):
            task = msgspec.structs.replace(REQUEST, tenant=tenant, body=body, parent=parent, avoid=avoid, hints="")
            packed = wire.pack_to_agent(9, task, 10**6)
            assert wire.to_request(unpack(packed)) == task
            with pytest.raises(Malformed):
                unpack(packed[:-4])


@given(samples(types.TaskResponse))
def test_other_encodings_of_other_implementations_are_read(values: tuple[Any, ...]) -> None:
    unpack = CODECS["response"].unpack
    assert unpack(library(types.TaskResponse, values, endianness=Endianness.Big)) == values
    assert unpack(library(types.TaskResponse, values, use_version_2=True)) == values


@given(samples(types.TaskRequest), st.data())
def test_a_damaged_sample_is_malformed_and_nothing_else(values: tuple[Any, ...], data: st.DataObject) -> None:
    packed = CODECS["request"].pack(*values)
    cut = data.draw(st.integers(0, len(packed) - 5))
    with pytest.raises(Malformed):
        CODECS["request"].unpack(packed[:cut])
    at, byte = data.draw(st.integers(0, len(packed) - 1)), data.draw(st.integers(0, 255))
    damaged = packed[:at] + bytes([byte]) + packed[at + 1 :]
    with contextlib.suppress(Malformed):
        CODECS["request"].unpack(damaged)


def test_a_type_that_would_need_padding_is_refused() -> None:
    @dataclasses.dataclass
    class Mixed:
        a: int32
        b: str
        c: int64

    @dataclasses.dataclass
    class Padded:
        a: int32
        b: int64

    with pytest.raises(TypeError, match="numbers come first"):
        codec(Mixed)
    with pytest.raises(TypeError, match="widest"):
        codec(Padded)


REQUEST = TaskRequest(
    "h", "t", 1, "chat", "m", "{}", True, "so far", -1, 5, 64, 1, "00-1-2-3", True, 7, "tenant", "session", "parent",
    "policy", '{"urgency": 1}', ("a", "b"), ("c",),
)  # fmt: skip
CHUNK = Chunk("h", "t", 1, 3, ("a", "ü"), "[]", True, "stop", "{}", "", 1, 2, 3, 4, True, 9)
COMMAND = Command("h", "c", "load", '{"model": "m"}', ("b", "a"), 5, 8, "tenant", "observe")
RESULT = CommandResult("h", "c", 3, "[1]", True, "{}")
PROGRESS = Progress("h", "t", 2, "loading", "half of it")


def test_messages_survive() -> None:
    assert wire.to_request(wire.unpack_request(wire.pack_to_agent(9, REQUEST, 10**6))) == REQUEST
    assert wire.to_chunk(wire.unpack_response(wire.pack_from_agent(9, CHUNK, 10**6))) == CHUNK
    assert wire.to_command(wire.unpack_request(wire.pack_to_agent(9, COMMAND, 10**6))) == COMMAND
    assert wire.to_result(wire.unpack_response(wire.pack_from_agent(9, RESULT, 10**6))) == RESULT
    assert wire.to_progress(wire.unpack_response(wire.pack_from_agent(9, PROGRESS, 10**6))) == PROGRESS
    info = AgentInfo("a", 2, "host", 3, "e", "s", ("chat", "resume"), "gpu", "boot", 250, "2.1")
    assert presence.to_agent(CODECS["register"].unpack(presence.pack_agent(info, 250)), "2.1") == info
    status = AgentStatus("a", 2, "failed", offers_text(offers("m", "n")), 4, 3, 2, {"rss_bytes": 1.5}, "why")
    assert presence.read_status(presence.pack_status(status, 7)) == (7, status)


@pytest.mark.parametrize(
    "message",
    [msgspec.structs.replace(REQUEST, body="\ud83d"), msgspec.structs.replace(REQUEST, priority=2**31)],
    ids=["lone surrogate", "number out of range"],
)
def test_what_no_wire_can_carry_is_refused(message: TaskRequest) -> None:
    with pytest.raises(TransportError, match="cannot be written"):
        wire.pack_to_agent(1, message, 10**6)


def test_the_limit_counts_the_payload_in_utf8() -> None:
    """Of a request its body and what it resumes, of a chunk all of its texts; the envelope is not counted."""
    bare = msgspec.structs.replace(REQUEST, resume="", hints="")
    wire.pack_to_agent(1, msgspec.structs.replace(bare, body="x" * 1000), 1000)
    for body, resume in (("x" * 1001, ""), ("x", "x" * 100_000), ("é" * 501, "")):
        with pytest.raises(PayloadTooLarge, match="1000"):
            wire.pack_to_agent(1, msgspec.structs.replace(bare, body=body, resume=resume), 1000)
    empty = msgspec.structs.replace(CHUNK, deltas=(), extra="", usage="", error="")
    wire.pack_from_agent(1, msgspec.structs.replace(empty, deltas=("é",) * 500), 1000)
    for texts in ({"deltas": ("é",) * 501}, {"extra": "x" * 1001}, {"usage": "x" * 1001}, {"error": "x" * 1001}):
        with pytest.raises(PayloadTooLarge, match="1000"):
            wire.pack_from_agent(1, msgspec.structs.replace(empty, **texts), 1000)


def test_progress_of_no_known_state_is_malformed() -> None:
    wrong = msgspec.structs.replace(PROGRESS, state="asleep")
    with pytest.raises(Malformed, match="asleep"):
        wire.to_progress(wire.unpack_response(wire.pack_from_agent(9, wrong, 10**6)))


def test_a_report_of_all_offers_there_may_be_fits_into_a_hello() -> None:
    text = '"' * MAX_OFFERS_BYTES
    status = AgentStatus("a", 2, offers=text, detail="\x01" * (MAX_OFFERS_BYTES - 1000))
    presence.pack_status(status, 1)
    packed = wire.unpack_response(hello.response_hello(hello.Hello("a", 2, 1, "2.0", status, 1), 9))
    said = hello.read_hello(packed[wire.RESPONSE_EXTRA])
    assert said is not None
    assert said.status == status
    with pytest.raises(PayloadTooLarge, match=str(MAX_OFFERS_BYTES)):
        presence.pack_status(msgspec.structs.replace(status, offers=text + "x", detail=""), 1)


def test_an_unreadable_hello_or_window_says_nothing() -> None:
    assert hello.read_hello("{") is None
    assert hello.read_hello('{"name": 1}') is None
    assert hello.window("x") == 0

"""Both forms of messages: what is written is read, and bytes of any kind are answered."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire_service_nats.envelopes import (
    HEAD,
    ID_HEADER,
    PRIORITY_HEADER,
    STATE_HEADER,
    TRACE_HEADER,
    Envelope,
    Generation,
    NotUnderstood,
    as_uuid,
    decode,
    encode,
    headers,
    read_time,
    told_time,
)

GENERATIONS: tuple[Generation, ...] = ("payload", "flat")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=50)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXTS, inside, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.dictionaries(TEXTS.filter(lambda name: name not in HEAD), JSON, max_size=6)
ENVELOPES = st.builds(
    Envelope,
    type=st.sampled_from(["agent.response.completed", "deliberation.failed"]),
    id=TEXTS,
    correlation=TEXTS,
    time=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    payload=PAYLOADS,
    producer=TEXTS,
    trace=st.sampled_from(["", TRACE, f"{TRACE} vendor=1"]),
    priority=st.integers(-1000, 1000),
    causation=st.just("") | TEXTS,
    metadata=st.dictionaries(TEXTS, JSON, max_size=3),
)


@given(ENVELOPES, st.sampled_from(GENERATIONS))
def test_what_is_written_is_read(envelope: Envelope, generation: Generation) -> None:
    found = decode(encode(envelope, generation), envelope.type, headers(envelope))
    if generation == "flat":  # it has no room for them, and its ids are UUIDs
        envelope = msgspec.structs.replace(envelope, causation="", metadata={}, id=as_uuid(envelope.id))
    assert found == envelope


@given(ENVELOPES)
def test_the_form_payload_has_the_members_that_strict_readers_ask_for(envelope: Envelope) -> None:
    body = msgspec.json.decode(encode(envelope, "payload"))
    asked = {"event_type", "payload", "idempotency_key", "correlation_id", "timestamp", "producer"}
    assert asked <= set(body) <= asked | {"causation_id", "metadata"}
    assert all(isinstance(body[name], str) and body[name] for name in asked - {"payload"})


@given(ENVELOPES)
def test_the_form_flat_has_its_payload_beside_its_head(envelope: Envelope) -> None:
    body = msgspec.json.decode(encode(envelope, "flat"))
    assert str(uuid.UUID(body["event_id"])) == body["event_id"]
    assert {name: value for name, value in body.items() if name not in HEAD} == envelope.payload
    assert body.get("trace_id", "") == ("4bf92f3577b34da6a3ce929d0e0e4736" if envelope.trace else "")


@given(ENVELOPES)
def test_the_same_message_has_the_same_headers_each_time(envelope: Envelope) -> None:
    heads = headers(envelope)
    assert heads == headers(envelope)
    assert heads[ID_HEADER]
    assert all(value.isascii() and value.isprintable() and value == value.strip() for value in heads.values())
    assert heads.get(TRACE_HEADER, "") == envelope.trace.partition(" ")[0]
    assert heads.get(STATE_HEADER, "") == envelope.trace.partition(" ")[2]
    assert int(heads.get(PRIORITY_HEADER, 0)) == envelope.priority


@given(st.lists(TEXTS, min_size=2, max_size=2, unique=True))
def test_messages_of_two_ids_have_two_ids_as_headers(ids: list[str]) -> None:
    first, second = (Envelope(type="a", id=each, correlation="c", time=0.0, payload={}) for each in ids)
    assert headers(first)[ID_HEADER] != headers(second)[ID_HEADER]


@given(st.binary(max_size=200) | JSON.map(msgspec.json.encode) | PAYLOADS.map(msgspec.json.encode))
def test_bytes_of_any_kind_are_answered(data: bytes) -> None:
    assert isinstance(decode(data, "subject"), Envelope | NotUnderstood)


PAYLOAD = {
    "event_type": "agent.response.completed",
    "idempotency_key": "t-7:agent-dev-2",
    "correlation_id": "t-7",
    "timestamp": "2026-01-05T10:00:00Z",
    "producer": "anywire",
    "payload": {"task_id": "t-7"},
}
FLAT = {"event_id": str(uuid.uuid4()), "case_id": "t-7", "ts": "2026-01-05T10:00:00+02:00", "task_id": "t-7"}


@pytest.mark.parametrize("missing", sorted(PAYLOAD))
def test_the_form_payload_without_one_of_its_members_is_not_understood(missing: str) -> None:
    found = decode(msgspec.json.encode({name: value for name, value in PAYLOAD.items() if name != missing}))
    assert isinstance(found, NotUnderstood)
    assert missing in found.reason


@pytest.mark.parametrize("missing", ["event_id", "case_id", "ts"])
def test_the_form_flat_without_one_of_its_members_is_not_understood(missing: str) -> None:
    found = decode(msgspec.json.encode({name: value for name, value in FLAT.items() if name != missing}))
    assert isinstance(found, NotUnderstood)
    assert missing in found.reason


@pytest.mark.parametrize("wrong", [b"", b"\xff", b"[]", b"17", b'"text"', b"{" * 100_000, b"[" * 100_000])
def test_what_is_no_object_is_not_understood(wrong: bytes) -> None:
    assert isinstance(decode(wrong), NotUnderstood)


def test_times_of_all_zones_are_read() -> None:
    found = decode(msgspec.json.encode(FLAT), "agent.response.completed")
    assert isinstance(found, Envelope)
    assert told_time(found.time) == "2026-01-05T08:00:00.000Z"
    assert read_time("2026-01-05T08:00:00") == found.time
    assert (found.type, found.correlation, found.payload) == ("agent.response.completed", "t-7", {"task_id": "t-7"})


def test_a_payload_that_the_form_flat_cannot_hold_is_refused() -> None:
    envelope = Envelope(type="a", id="i", correlation="c", time=0.0, payload={"case_id": "mine"})
    with pytest.raises(ValueError, match="case_id"):
        encode(envelope, "flat")
    with pytest.raises(ValueError, match="no JSON"):
        encode(msgspec.structs.replace(envelope, payload={"a": object()}), "payload")

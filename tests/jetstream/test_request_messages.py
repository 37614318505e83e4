"""What is read of requests and submissions, and the fields in which they are answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.jetstream.any_json import ANY_JSON
from tests.long_form import examples

from anywire import errors
from anywire.access import OpenAccess, Presented
from anywire.caller import Caller
from anywire.messages import Chunk
from anywire_service_nats.config_inbound import SubmissionsConfig
from anywire_service_nats.envelopes import Envelope, decode, encode
from anywire_service_nats.listening.callers import Callers
from anywire_service_nats.listening.held import Held
from anywire_service_nats.requests.agent_request import (
    NotARequest,
    completed,
    failed,
    read_agent_request,
    submission_of,
)
from anywire_service_nats.requests.submission_message import (
    NotASubmission,
    Origin,
    deliberation_of,
    read_submission,
    refused,
    task_completed,
    task_of,
)

CONSTRAINTS = {"story_id": "s-1", "timeout_seconds": 20, "metadata": {"num_agents": 3}}


def envelope(**payload: Any) -> Envelope:
    return Envelope(
        type="agent.requests", id="e-1", correlation="t-7", time=1.0, payload=payload, trace="00-ab", priority=4
    )


def wanted(**more: Any) -> dict[str, Any]:
    given = {"prompt": "build it", "tools": ["git"], "token_budget": 50}
    return {"agent": "DEV", "phase": "BUILD", "task_id": "t-7", "input": given, "constraints": CONSTRAINTS} | more


def test_a_request_becomes_a_task_with_the_prompt_of_its_role() -> None:
    request = read_agent_request(envelope(**wanted()))
    submission = submission_of(request, "You build.", "m", Caller("", "lab"), most_tokens=100, most_seconds=60)
    body = msgspec.json.decode(submission.body)
    assert [each["role"] for each in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"].startswith("You build.")
    assert "build phase" in body["messages"][0]["content"]
    assert body["messages"][1]["content"] == "build it"
    assert (body["max_tokens"], submission.deadline_s, submission.priority, submission.trace) == (50, 20.0, 4, "00-ab")
    assert submission.caller.tenant == "lab"


def test_it_is_answered_in_the_fields_that_collectors_read() -> None:
    request = read_agent_request(envelope(**wanted()))
    chunk = Chunk("h", "x", 1, 0, ("done",), final=True, usage='{"prompt_tokens": 5, "completion_tokens": 2}')
    out = completed(request, chunk, producer="anywire-worker", now=10.0, seconds=1.5, model="m", agent="a")
    for generation in ("payload", "flat"):
        body = encode(out.envelope, cast("Any", generation))
        found = decode(body, out.subject, {})
        assert isinstance(found, Envelope)
        payload = found.payload
        assert payload["task_id"] == "t-7"
        assert (payload["status"], payload["role"], payload["num_agents"]) == ("completed", "DEV", 3)
        assert (payload["proposal"]["content"], payload["duration_ms"]) == ("done", 1500)
        assert payload["constraints"] == CONSTRAINTS
        assert payload["metrics"] == {"tokens_in": 5, "tokens_out": 2, "latency_ms": 1500}
        assert payload["ignored"] == ["tools"]
    assert out.envelope.id == f"t-7:{request.agent_id}"
    bad = failed(request, errors.NoAgent("nobody"), producer="p", now=10.0, seconds=0.0)
    assert (bad.envelope.payload["error"], bad.envelope.payload["error_type"]) == ("nobody", "no_agent")
    assert bad.envelope.id == out.envelope.id


def test_requests_for_one_task_are_different_agents_and_a_repeat_is_the_same() -> None:
    first = read_agent_request(envelope(**wanted()))
    second = read_agent_request(msgspec.structs.replace(envelope(**wanted()), id="e-2"))
    assert first.agent_id != second.agent_id
    assert read_agent_request(envelope(**wanted())).agent_id == first.agent_id


@settings(max_examples=examples(150))
@given(
    st.dictionaries(st.sampled_from(("agent", "phase", "task_id", "input", "constraints", "num_agents")), ANY_JSON),
    st.booleans(),
)
def test_any_payload_is_a_request_or_refused_in_a_sentence(payload: dict[str, Any], completes: bool) -> None:
    asked = (wanted() | payload) if completes else payload
    try:
        request = read_agent_request(envelope(**asked))
    except NotARequest as error:
        said = str(error)
        assert said.startswith("it")
        return
    submission = submission_of(request, "s", "m", Caller(), most_tokens=10, most_seconds=10)
    assert 0 < submission.deadline_s <= 10
    assert 1 <= msgspec.json.decode(submission.body)["max_tokens"] <= 10


def held(kind: str, body: Any, **headers: str) -> Held:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    metadata = SimpleNamespace(
        stream="S",
        sequence=SimpleNamespace(stream=7),
        timestamp=SimpleNamespace(timestamp=lambda: 3.0),
        num_delivered=1,
        num_pending=0,
    )
    heads = {name.replace("_", "-"): value for name, value in headers.items()}
    subject = f"anywire.submit.{kind}"
    return Held(SimpleNamespace(subject=subject, data=data, headers=heads, metadata=metadata, reply=""))


def test_a_submission_is_named_by_its_message_and_carries_what_its_headers_say() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    message = read_submission(
        held(
            "chat",
            body,
            Nats_Msg_Id="mine",
            Anywire_Priority="3",
            Anywire_Timeout="12",
            Anywire_Session="s",
            Anywire_Reply="_INBOX.x",
            traceparent="00-cd",
        ),
        "_INBOX.",
    )
    submission = task_of(message, Caller("ann", "lab"))
    assert (submission.kind, submission.model, submission.priority, submission.deadline_s) == ("chat", "m", 3, 12.0)
    assert (submission.session, submission.trace, message.name, message.reply) == ("s", "00-cd", "mine", "_INBOX.x")
    assert read_submission(held("chat", body), "_INBOX.").name == "S-7-3000"
    deliberation = read_submission(held("deliberation", {"task": "t", "id": "own"}), "_INBOX.")
    assert deliberation_of(deliberation) == {"task": "t", "id": "own"}
    named = read_submission(held("deliberation", {"task": "t"}, Nats_Msg_Id="n", Anywire_Timeout="9"), "_INBOX.")
    assert deliberation_of(named) == {"task": "t", "id": "n", "timeout": 9.0}


def test_senders_of_two_tenants_cannot_take_each_others_names() -> None:
    message = read_submission(held("chat", {}, Nats_Msg_Id="n"), "_INBOX.")
    keys = {message.key(Caller("a", tenant)) for tenant in ("lab", "la", "lab:n", "")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("kind", "body", "headers", "says"),
    [
        ("other", {}, {}, "subject"),
        ("chat", b"\xff", {}, "JSON"),
        ("chat", [], {}, "object"),
        ("chat", {}, {"Nats_Msg_Id": "x" * 300}, "name"),
        ("chat", {}, {"Anywire_Reply": "$JS.API.STREAM.DELETE.X"}, "Anywire-Reply"),
        ("chat", {}, {"Anywire_Reply": "_INBOX.>"}, "Anywire-Reply"),
        ("chat", {}, {"Anywire_Timeout": "soon"}, "seconds"),
        ("chat", {}, {"Anywire_Timeout": "nan"}, "seconds"),
        ("chat", {}, {"Anywire_Priority": "high"}, "number"),
    ],
)
def test_what_is_no_submission_is_said(kind: str, body: Any, headers: dict[str, str], says: str) -> None:
    with pytest.raises(NotASubmission, match=says):
        read_submission(held(kind, body, **headers), "_INBOX.")


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", {"messages": [{}]}, "model"),
        ("chat", {"model": "m"}, "messages"),
        ("chat", {"model": "m", "messages": "x"}, "messages"),
        ("completion", {"model": "m"}, "prompt"),
        ("embedding", {"model": "m"}, "input"),
        ("chat", {"model": "m", "messages": [{}], "stream": True}, "stream"),
    ],
)
def test_a_body_that_is_no_request_names_the_member_at_fault(kind: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as wrong:
        task_of(read_submission(held(kind, body), "_INBOX."), Caller())
    assert wrong.value.param == param
    out = refused(Origin(kind, "n"), wrong.value, key="k", producer="p", now=1.0)
    assert (out.subject, out.envelope.payload["param"]) == ("anywire.submitted.failed", param)


def test_a_long_answer_is_cut_and_says_so() -> None:
    chunk = Chunk("h", "x", 1, 0, ("ä" * 600_000,), final=True)
    out = task_completed(Origin("chat", "n"), chunk, key="k", producer="p", now=1.0, task_id="t", model="m", agent="a")
    assert out.envelope.payload["cut"]
    assert len(encode(out.envelope, "payload")) < 600_000


class Locked(OpenAccess):
    needs_key = True

    def caller(self, presented: Presented) -> Caller:
        if presented.token != "good":
            raise errors.Unauthenticated("no")
        return Caller("ann", "lab")


def test_who_sends_is_known_by_its_key_where_keys_are_needed() -> None:
    shown = {"Anywire-Key": "good", "Anywire-Tenant": "other"}
    callers = Callers(Locked(), SubmissionsConfig(tenant="here"), "services.nats.submissions")
    assert callers.of(shown) == Caller("ann", "lab")
    for nothing in ({}, {"Anywire-Tenant": "lab"}):
        with pytest.raises(errors.Unauthenticated, match="Anywire-Key"):
            callers.of(nothing)
    with pytest.raises(errors.Unauthenticated):
        callers.of({"Anywire-Key": "bad"})
    keyless = Callers(Locked(), SubmissionsConfig(tenant="here", keyless=True), "services.nats.submissions")
    assert keyless.of({"Anywire-Tenant": "lab"}) == Caller("nats", "here")
    with pytest.raises(errors.Unauthenticated):
        keyless.of({"Anywire-Key": "bad"})
    open_to_all = Callers(OpenAccess(), SubmissionsConfig(tenant="here"), "services.nats.submissions")
    assert open_to_all.of(shown) == Caller("", "other", "use")
    assert open_to_all.of({}) == Caller("", "here", "use")


def test_an_answer_whose_numbers_no_disk_takes_is_told_without_them() -> None:
    most = f'{{"seed": {2**70}, "prompt_tokens": 1}}'
    chunk = Chunk("h", "t", 1, 0, ("yes",), extra=most, final=True, usage=most)
    out = task_completed(Origin("chat", "n"), chunk, key="k", producer="p", now=1.0, task_id="t", model="m", agent="a")
    assert (out.envelope.payload["content"], out.envelope.payload["cut"]) == ("yes", True)
    assert msgspec.msgpack.encode(out)
    request = read_agent_request(envelope(**wanted()))
    out = completed(request, chunk, producer="p", now=1.0, seconds=1.0, model="m", agent="a")
    assert msgspec.msgpack.encode(out)


@pytest.mark.parametrize("body", ["[" * 150 + "]" * 150, str(2**70)])
def test_a_submission_that_cannot_be_kept_is_said(body: str) -> None:
    held = cast("Held", SimpleNamespace(subject="anywire.submit.chat", data=f'{{"a": {body}}}'.encode(), headers={}))
    with pytest.raises(NotASubmission, match="64 bits"):
        read_submission(held, "_INBOX.")


@pytest.mark.parametrize(
    ("parent", "state", "carried"),
    [
        ("00-cd", "a=1", "00-cd a=1"),
        ("00-cd", "a=" + "x" * 510, "00-cd a=" + "x" * 510),
        ("00-cd", "x" * 513, "00-cd"),
        ("00-cd", "a=\x07", "00-cd"),
        ("0" * 257, "a=1", ""),
        ("00-\x07", "a=1", ""),
        ("", "a=1", ""),
    ],
)
def test_a_trace_that_no_agent_would_take_is_left_out(parent: str, state: str, carried: str) -> None:
    """The message is answered all the same."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    message = read_submission(held("chat", body, traceparent=parent, tracestate=state), "_INBOX.")
    assert task_of(message, Caller("ann", "lab")).trace == carried
    found = decode(encode(envelope(**wanted()), "payload"), heads={"traceparent": parent, "tracestate": state})
    assert isinstance(found, Envelope)
    assert found.trace == carried
